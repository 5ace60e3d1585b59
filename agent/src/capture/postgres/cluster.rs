//! One cluster: a session in each of its databases, tables kept from being emptied, and the pins.
//!
//! A snapshot holds only in the database it was taken in, but its text lists the transactions of the whole cluster: if it
//! is the same text in all databases, they are pinned at the same instant.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::capture::pivots::Instance;
use crate::capture::session::{Client, Session, SessionError};
use crate::capture::settings::{CutSettings, EnvValue, PostgresSource};
use crate::clock;

/// Connecting, and questions about the catalog.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// One wait for the lock of a table. The server is told the same.
const LOCK_WITHIN: Duration = Duration::from_secs(5);

/// Before a cut is had, locks are let go and taken anew after this long: who waits for them has his turn.
const LOCK_AGAIN: Duration = Duration::from_secs(2);

/// How often all databases are asked for the same snapshot in one try.
const PINS: u32 = 5;

/// Limits that the server itself keeps, whatever becomes of us: a session that is not heard of for a minute while it has
/// locks is ended.
const OPTIONS: &str = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=60s -c row_security=off";

/// So is one, and a dump, whose machine has vanished, half a minute later.
const LINE_OPTIONS: &str = "-c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 \
                            -c tcp_user_timeout=30s";

/// Tables as others see them, which is what a dump locks.
const TABLES: &str = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
                      AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// A cluster that is connected to.
#[derive(Debug)]
pub(super) struct Cluster {
    source: PostgresSource,
    tag: String,
    pub(super) databases: Vec<Database>,
    pub(super) facts: Facts,
    pub(super) pinned: Option<Pin>,
    hold_limit: Duration,
}

/// One of its databases.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) name: String,
    /// None until it has been opened (again).
    pub(super) session: Option<Session>,
    /// Tables that are locked.
    tables: String,
    /// Since when.
    locked: Option<Instant>,
    /// The name of the snapshot that a dump can join.
    pub(super) snapshot: Option<String>,
}

/// What is known about a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) engine: String,
    pub(super) system: String,
    pub(super) timeline: String,
    pub(super) superuser: bool,
    /// Our account, as it is written in statements.
    account: String,
}

/// The instant it is pinned at.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    pub(super) at: Timestamp,
    pub(super) snapshot: String,
    pub(super) lsn: String,
}

impl Cluster {
    /// Connects to all databases and locks their tables against being emptied or dropped. The error is one sentence.
    pub(super) fn open(source: &PostgresSource, tag: &str, cut: &CutSettings) -> Result<Self, String> {
        let mut databases = source.databases.clone();
        if databases.is_empty() {
            let all = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname;";
            databases = session(source, tag, "postgres")?.ask(all, ANSWER_WITHIN).map_err(text)?;
        }
        let new = |name| Database { name, session: None, tables: String::new(), locked: None, snapshot: None };
        let databases = databases.into_iter().map(new).collect();
        let (source, tag) = (source.clone(), tag.to_owned());
        let facts = Facts::default();
        let mut cluster = Self { source, tag, databases, facts, pinned: None, hold_limit: cut.hold_limit };
        let end = Instant::now() + cut.barrier_within;
        loop {
            match cluster.ready() {
                Ok(()) => return Ok(cluster),
                // Somebody has a table for himself, or has just dropped it; that passes.
                Err(why) if is_passing(&why) && Instant::now() < end => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// Opens what is not open, and locks tables where that has not been done. Nothing is left pinned.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        for at in 0..self.databases.len() {
            let Some(database) = self.databases.get_mut(at) else { break };
            if database.session.is_none() {
                let mut session = session(&self.source, &self.tag, &database.name)?;
                self.facts = ask_facts(&mut session, &database.name)?;
                // The first time takes the server ten times as long as the next, for which others are held.
                for statement in ["BEGIN;", &pin_statement(), EXPORT, "ROLLBACK;"] {
                    session.ask(statement, ANSWER_WITHIN).map_err(text)?;
                }
                database.session = Some(session);
                database.snapshot = None;
                database.locked = None;
            }
            if database.locked.is_none_or(|since| since.elapsed() > LOCK_AGAIN) {
                let locked = database.lock(&self.facts.account);
                if locked.is_err() {
                    database.session = None;
                }
                locked?;
            }
        }
        self.pinned = None;
        Ok(())
    }

    /// What changes with every commit in the cluster.
    pub(super) fn version(&mut self) -> Result<String, String> {
        let limit = self.hold_limit;
        let database = self.databases.first_mut().ok_or("it has no databases")?;
        let rows = database.ask("SELECT pg_current_snapshot();", limit)?;
        rows.into_iter().next().ok_or_else(|| "the server gave no snapshot".to_owned())
    }

    /// Pins all databases at the same instant.
    pub(super) fn pin(&mut self) -> Result<(), String> {
        for _ in 0..PINS {
            let at = clock::now();
            self.databases.iter_mut().for_each(|database| database.send(&pin_statement()));
            let mut seen = Vec::new();
            for database in &mut self.databases {
                let rows = database.receive(self.hold_limit)?;
                let fields: Vec<&str> = rows.first().map(|row| row.split('|').collect()).unwrap_or_default();
                let [snapshot, lsn, tables] = fields.as_slice() else {
                    return Err("the server gave no snapshot".to_owned());
                };
                if database.tables != *tables {
                    return Err(format!("a table was made in {} that is not locked yet", database.name));
                }
                seen.push(((*snapshot).to_owned(), (*lsn).to_owned()));
            }
            if let Some((snapshot, lsn)) = seen.first()
                && seen.iter().all(|(other, _)| other == snapshot)
            {
                self.pinned = Some(Pin { at, snapshot: snapshot.clone(), lsn: lsn.clone() });
                return Ok(());
            }
        }
        Err("something was committed while the databases of the cluster were pinned".to_owned())
    }

    /// Lets dumps join what was pinned. It takes the server a file, which nobody has to be held for.
    pub(super) fn export(&mut self) -> Result<(), String> {
        self.databases.iter_mut().for_each(|database| database.send(EXPORT));
        for database in &mut self.databases {
            let rows = database.receive(ANSWER_WITHIN)?;
            // A transaction that has exported a snapshot is not used for another try.
            database.locked = None;
            database.snapshot = Some(rows.into_iter().next().ok_or("the server gave no snapshot")?);
        }
        Ok(())
    }

    /// A session of its own in one database, without locks.
    pub(super) fn watcher(&self, database: &str) -> Result<Session, String> {
        session(&self.source, &self.tag, database)
    }

    /// Where and as whom a program connects to `database`.
    pub(super) fn env(&self, database: &str) -> BTreeMap<String, EnvValue> {
        env(&self.source, &self.tag, database)
    }
}

impl Database {
    fn ask(&mut self, statement: &str, limit: Duration) -> Result<Vec<String>, String> {
        self.send(statement);
        self.receive(limit)
    }

    fn send(&mut self, statement: &str) {
        if let Some(session) = &mut self.session {
            // If it is over, receiving says so.
            let _sent = session.send(statement);
        }
    }

    fn receive(&mut self, limit: Duration) -> Result<Vec<String>, String> {
        let Some(session) = &mut self.session else { return Err("the session was lost".to_owned()) };
        session.receive(limit).map_err(|error| {
            // Its transaction is over in any case.
            self.session = None;
            text(error)
        })
    }

    /// Begins a transaction that keeps all tables from being emptied, rewritten or dropped.
    fn lock(&mut self, account: &str) -> Result<(), String> {
        (self.snapshot, self.locked) = (None, None);
        let limit = LOCK_WITHIN * 2;
        self.ask("ROLLBACK;", limit)?;
        self.ask("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;", limit)?;
        let lock = format!(
            "SELECT 'LOCK TABLE ' || string_agg(format('%I.%I', nspname, relname), ', ') || ' IN ACCESS SHARE MODE' \
             {TABLES} HAVING count(*) > 0 \\gexec"
        );
        let name = self.name.clone();
        self.ask(&lock, limit).map_err(|why| match why.contains("permission denied") {
            true => format!(
                "{why} in {name}; run `GRANT pg_read_all_data TO {account};`, or grant it SELECT on every table there"
            ),
            false => format!("the tables of {name} could not be locked against TRUNCATE and ALTER: {why}"),
        })?;
        // Those that are locked, and not those that may have been made since.
        let locked = "EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.pid = pg_backend_pid())";
        let count = self.ask(&format!("SELECT count(*) {TABLES} AND {locked};"), limit)?;
        self.tables = count.into_iter().next().unwrap_or_default();
        self.locked = Some(Instant::now());
        Ok(())
    }
}

/// Takes a snapshot, and answers with what it sees, where the log is, and how many tables there are. A cursor keeps the
/// snapshot of when it was declared: all of its rows are of that.
fn pin_statement() -> String {
    format!(
        "CLOSE ALL\\; DECLARE pin NO SCROLL CURSOR FOR SELECT CASE n WHEN 1 THEN concat_ws('|', pg_current_snapshot(), \
         pg_current_wal_insert_lsn(), (SELECT count(*) {TABLES})) ELSE pg_export_snapshot() END \
         FROM generate_series(1, 2) n\\; FETCH pin;"
    )
}

/// Exports that snapshot, and answers with its name.
const EXPORT: &str = "FETCH pin;";

/// A session in `database`.
pub(super) fn session(source: &PostgresSource, tag: &str, database: &str) -> Result<Session, String> {
    let mut session = connect(source, tag, database, &[]).map_err(text)?;
    session
        .ask("SELECT 1;", ANSWER_WITHIN)
        .map_err(|why| format!("the database {database} cannot be opened: {why}"))?;
    Ok(session)
}

/// A session that nothing has been asked yet, with `more` said to the client.
pub(super) fn connect(
    source: &PostgresSource,
    tag: &str,
    database: &str,
    more: &[&str],
) -> Result<Session, SessionError> {
    let mut env = env(source, tag, database);
    env.insert("PGOPTIONS".to_owned(), EnvValue::Plain(format!("{OPTIONS} {LINE_OPTIONS}")));
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--no-align",
        "--tuples-only",
        "--no-password",
        "--field-separator=|",
        "--set=VERBOSITY=terse",
        "--set=SHOW_CONTEXT=never",
    ];
    let arguments = arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
    Session::start(&Client { program: "psql", arguments, echo: ("\\echo ", ""), env })
}

impl Instance for Cluster {
    fn ready(&mut self) -> Result<(), String> {
        Self::ready(self)
    }

    fn version(&mut self) -> Result<String, String> {
        Self::version(self)
    }

    fn pin(&mut self) -> Result<(), String> {
        Self::pin(self)
    }

    fn settle(&mut self) -> Result<(), String> {
        self.export()
    }

    fn snapshot(&self) -> Option<&str> {
        self.pinned.as_ref().map(|pin| pin.snapshot.as_str())
    }

    fn let_go(&mut self) {
        self.pinned = None;
    }
}

/// Where and as whom a program connects to `database`.
pub(super) fn env(source: &PostgresSource, tag: &str, database: &str) -> BTreeMap<String, EnvValue> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: Option<String>| {
        env.extend(value.map(|value| (name.to_owned(), EnvValue::Plain(value))));
    };
    set("PGDATABASE", Some(database.to_owned()));
    set("PGAPPNAME", Some(tag.to_owned()));
    set("PGOPTIONS", Some(LINE_OPTIONS.to_owned()));
    set("PGCONNECT_TIMEOUT", Some("20".to_owned()));
    set("PGHOST", source.host.clone());
    set("PGPORT", source.port.map(|port| port.to_string()));
    set("PGUSER", source.user.clone());
    if let Some(path) = &source.ca_file {
        set("PGSSLMODE", Some("verify-full".to_owned()));
        set("PGSSLROOTCERT", Some(path.display().to_string()));
    }
    env.extend(source.password.clone().map(|password| ("PGPASSWORD".to_owned(), EnvValue::Secret(password))));
    env
}

fn ask_facts(session: &mut Session, database: &str) -> Result<Facts, String> {
    let statement = "SELECT current_setting('server_version'), (SELECT system_identifier FROM pg_control_system()), \
                     (SELECT timeline_id FROM pg_control_checkpoint()), pg_is_in_recovery(), \
                     (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), quote_ident(current_user), \
                     (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND row_security_active(oid));";
    let rows = session.ask(statement, ANSWER_WITHIN).map_err(text)?;
    let fields: Vec<&str> = rows.first().map(|row| row.split('|').collect()).unwrap_or_default();
    let [version, system, timeline, standby, superuser, account, hidden] = fields.as_slice() else {
        return Err("the server did not say what it is".to_owned());
    };
    if *standby == "t" {
        return Err("this server is a standby and lags behind the others; name its primary instead".to_owned());
    }
    if *hidden != "0" {
        return Err(format!(
            "row-level security hides rows of {hidden} tables in {database} from this account; run `ALTER ROLE {account} \
             BYPASSRLS;`"
        ));
    }
    Ok(Facts {
        // Without what a distribution adds.
        engine: format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default()),
        system: (*system).to_owned(),
        timeline: (*timeline).to_owned(),
        superuser: *superuser == "t",
        account: (*account).to_owned(),
    })
}

/// Whether this is the answer of a server at which somebody is changing tables.
fn is_passing(why: &str) -> bool {
    why.contains("lock timeout") || (why.contains("could not be locked") && why.contains("does not exist"))
}

pub(super) fn text(error: SessionError) -> String {
    error.to_string()
}
