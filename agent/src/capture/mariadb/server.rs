//! One server: a session that holds it, one that ends that in time, one that keeps its tables from being changed, and a
//! dump of each database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::count::Counter;
use super::dump::{self, Dump};
use super::rights::{Account, literal};
use crate::capture::Copies;
use crate::capture::guard::Guard;
use crate::capture::problems::Problems;
use crate::capture::session::Session;
use crate::capture::settings::{CutSettings, Dialect, MariaDbSource};
use crate::generation::SourceRecord;
use crate::rows::Rows;

/// Connecting, and questions about the catalog.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Limits that the server itself keeps, whatever becomes of us: the session that holds writers is ended when it is not
/// heard of for five seconds.
const HOLDER_LIMITS: &str = "SET SESSION wait_timeout = 5, SESSION lock_wait_timeout = 2;";

/// The same for the one that keeps tables as they are. It has no snapshot, so that nothing has to be kept for it.
const KEEPER_LIMITS: &str = "SET SESSION wait_timeout = 60, SESSION lock_wait_timeout = 2; \
                             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;";

/// Before a cut is had, what keeps definitions from being changed is let go and taken anew after this long: who waits to
/// change them has his turn.
const STAGE_AGAIN: Duration = Duration::from_secs(2);

/// Databases of the server's own.
const OWN: &str = "('information_schema', 'performance_schema', 'mysql', 'sys')";

/// Tables that are locked by one statement.
const AT_ONCE: usize = 50;

/// Whether somebody waits to change a table that we keep as it is, and whether a dump of ours waits as well. Who waits for
/// whom is not told; but as we have all tables, it is likely to be for us.
const QUESTION: &str = "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = \
                        'Waiting for table metadata lock' AND USER <> SUBSTRING_INDEX(USER(), '@', 1)) THEN 0 \
                        WHEN EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = \
                        'Waiting for table metadata lock' AND USER = SUBSTRING_INDEX(USER(), '@', 1)) THEN 2 ELSE 1 END;";

/// A server that is connected to.
#[derive(Debug)]
pub(super) struct Server {
    source: MariaDbSource,
    folder: PathBuf,
    hold_limit: Duration,
    account: Account,
    engine: String,
    is_mariadb: bool,
    /// Holds writers, and before that keeps definitions from being changed.
    holder: Option<Session>,
    /// Since when it has done the latter.
    staged: Option<Instant>,
    /// Lets the holder's session be ended at the limit, also if this process is stopped by then.
    watchdog: Option<Session>,
    /// The number of the holder's session at the server.
    number: String,
    /// Keeps the tables from being emptied, altered or dropped until they have been dumped.
    keeper: Option<Session>,
    /// Counts rows as of the hold.
    counter: Option<Counter>,
    /// A table that has no snapshots, and what to do about it.
    plain: Option<String>,
    dumps: Vec<Dump>,
    held: Option<Instant>,
    held_us: u64,
    /// Until when writers may be held.
    until: Instant,
    /// What the server says of the instant.
    gtid: Option<String>,
}

impl Server {
    /// Connects. Dumps will go to `folder`. The error is one sentence.
    pub(super) fn open(source: &MariaDbSource, folder: &Path, cut: &CutSettings) -> Result<Self, String> {
        let mut session = dump::session(source)?;
        let rows = session.ask("SELECT VERSION(), CURRENT_USER(), COALESCE(CURRENT_ROLE(), '');", ANSWER_WITHIN);
        let rows = rows.map_err(|error| format!("the server cannot be used: {error}"))?;
        let fields: Vec<&str> = rows.first().map(|row| row.split('\t').collect()).unwrap_or_default();
        let [version, user, role] = fields.as_slice() else {
            return Err("the server did not say what it is".to_owned());
        };
        let is_mariadb = version.contains("MariaDB");
        let number = version.split('-').next().unwrap_or_default();
        if source.dialect == Dialect::MariaDb && !has_stages(is_mariadb, number) {
            return Err(format!("{version} has no BACKUP STAGE, which came with MariaDB 10.4; say type = \"mysql\""));
        }
        let mut server = Self {
            source: source.clone(),
            folder: folder.to_owned(),
            hold_limit: cut.hold_limit,
            account: Account::new(user, role),
            engine: format!("{} {number}", if is_mariadb { "MariaDB" } else { "MySQL" }),
            is_mariadb,
            holder: None,
            staged: None,
            watchdog: None,
            number: String::new(),
            keeper: None,
            counter: None,
            plain: None,
            dumps: Vec::new(),
            held: None,
            held_us: 0,
            until: Instant::now(),
            gtid: None,
        };
        for database in server.look(&mut session)? {
            server.dumps.push(Dump::new(database, folder));
        }
        let end = Instant::now() + cut.barrier_within;
        loop {
            match server.ready() {
                Ok(()) => return Ok(server),
                // Somebody has a table for himself, is changing it, or has just dropped it; that passes.
                Err(why) if is_passing(&why) && Instant::now() < end => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// The databases that are to be dumped, if the account may do everything that takes.
    fn look(&self, session: &mut Session) -> Result<Vec<String>, String> {
        let mut ask = |question: &str| session.ask(question, ANSWER_WITHIN).map_err(|error| error.to_string());
        self.account.advice(&ask(&self.account.lacks_at_server())?, None)?;
        let all = format!("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN {OWN};");
        let all = ask(&all)?;
        let databases = if self.source.databases.is_empty() { all.clone() } else { self.source.databases.clone() };
        for database in &databases {
            self.account.advice(&ask(&self.account.lacks_in(database))?, Some(database))?;
            if !all.contains(database) {
                return Err(format!("there is no database {database} at this server"));
            }
        }
        Ok(databases)
    }

    /// Whether all tables have snapshots. One that has none makes every set sequential: the error says which.
    pub(super) fn is_all_transactional(&self) -> Result<(), String> {
        self.plain.clone().map_or(Ok(()), Err)
    }

    pub(super) fn databases(&self) -> usize {
        self.dumps.len()
    }

    pub(super) fn was_held(&self) -> bool {
        self.held_us > 0
    }

    fn names(&self) -> String {
        self.dumps.iter().map(|dump| literal(&dump.database)).collect::<Vec<_>>().join(", ")
    }

    /// Goes through what may have to wait, and brings the dumps to their gates. Nothing is held, or left so, on failure.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let ready = self.stage().and_then(|()| self.gates());
        ready.inspect_err(|_| self.unlock())
    }

    fn stage(&mut self) -> Result<(), String> {
        self.held_us = 0;
        let late = self.staged.is_some_and(|since| since.elapsed() > STAGE_AGAIN);
        if late || self.ask_holder("SELECT 1;", ANSWER_WITHIN).is_err() {
            self.unlock();
        }
        if self.staged.is_some() && self.keeper.is_some() {
            return Ok(());
        }
        self.unlock();
        let mut holder = dump::session(&self.source)?;
        let mut statements = vec![HOLDER_LIMITS];
        if self.source.dialect == Dialect::MariaDb {
            statements.extend(["BACKUP STAGE START;", "BACKUP STAGE FLUSH;", "BACKUP STAGE BLOCK_DDL;"]);
        }
        for statement in statements {
            holder.ask(statement, ANSWER_WITHIN).map_err(|error| error.to_string())?;
        }
        let numbers = holder.ask("SELECT CONNECTION_ID();", ANSWER_WITHIN).map_err(|error| error.to_string())?;
        self.number = numbers.into_iter().next().unwrap_or_default();
        (self.holder, self.staged) = (Some(holder), Some(Instant::now()));
        let mut watchdog = dump::session(&self.source)?;
        watchdog.ask("SELECT 1;", ANSWER_WITHIN).map_err(|error| error.to_string())?;
        self.watchdog = Some(watchdog);
        self.counter = Counter::open(&self.source, self.is_mariadb);
        self.keep()
    }

    /// Has every table read, so that none can be emptied, altered or dropped until the session's transaction is over.
    fn keep(&mut self) -> Result<(), String> {
        let mut keeper = dump::session(&self.source)?;
        let mut ask = |statement: &str| keeper.ask(statement, ANSWER_WITHIN).map_err(|error| error.to_string());
        ask(KEEPER_LIMITS)?;
        ask("START TRANSACTION READ ONLY;")?;
        let reads = ask(&format!(
            "SELECT CONCAT('(SELECT 1 FROM `', REPLACE(TABLE_SCHEMA, '`', '``'), '`.`', REPLACE(TABLE_NAME, '`', '``'), \
             '` LIMIT 0)') FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ({}) AND TABLE_TYPE <> 'VIEW';",
            self.names()
        ))?;
        let plain = ask(&format!(
            "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' is a table of the engine ', ENGINE) FROM \
             information_schema.TABLES WHERE TABLE_SCHEMA IN ({}) AND TABLE_TYPE <> 'VIEW' AND ENGINE <> 'InnoDB' LIMIT 1;",
            self.names()
        ))?;
        let advice =
            "which has no snapshots, so that the copy is not of one instant; `ALTER TABLE … ENGINE = InnoDB` helps";
        self.plain = plain.first().map(|table| format!("{table}, {advice}"));
        for some in reads.chunks(AT_ONCE) {
            ask(&format!("{};", some.join(" UNION ALL ")))?;
        }
        self.keeper = Some(keeper);
        Ok(())
    }

    fn gates(&mut self) -> Result<(), String> {
        if self.dumps.iter().all(Dump::has_stopped) {
            return Ok(());
        }
        for dump in &mut self.dumps {
            dump.reset();
            dump.start(&self.source)?;
        }
        // They stop when they are about to say that they are connected, so those that have not been are still to come.
        let connected = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND DB IS NULL AND \
                         USER = SUBSTRING_INDEX(USER(), '@', 1) AND ID <> CONNECTION_ID();";
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let rows = self.ask_holder(connected, ANSWER_WITHIN)?;
            // The session that keeps the tables is one of them, and so are the watchdog's and the one that counts.
            let others = 2 + usize::from(self.counter.is_some());
            let there = rows.first().and_then(|count| count.parse().ok()).unwrap_or(0usize);
            if there >= self.dumps.len() + others && self.dumps.iter().all(Dump::has_stopped) {
                return Ok(());
            }
            if let Some(said) = self.dumps.iter_mut().find_map(Dump::failure) {
                return Err(said);
            }
            if Instant::now() > deadline {
                return Err("a dump did not get to its snapshot in time".to_owned());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn hold(&mut self, left: Duration) -> Result<(), String> {
        self.until = Instant::now() + left;
        // What is not heard of for a second is ended by the server itself.
        self.ask_holder("SET SESSION wait_timeout = 1;", left)?;
        let watchdog = self.watchdog.as_mut().ok_or("the session at the server was lost")?;
        let kill = format!("DO SLEEP({}); KILL CONNECTION {};", left.as_secs_f64(), self.number);
        watchdog.send(&kill).map_err(|error| error.to_string())?;
        if self.is_mariadb {
            self.ask_holder(&format!("SET SESSION max_statement_time = {};", left.as_secs_f64()), left)?;
        }
        self.held = Some(Instant::now());
        let left = self.until.saturating_duration_since(Instant::now());
        let statement = match self.source.dialect {
            Dialect::MariaDb => "BACKUP STAGE BLOCK_COMMIT;",
            Dialect::MySql => "FLUSH TABLES WITH READ LOCK;",
        };
        self.ask_holder(statement, left).map(drop)
    }

    pub(super) fn pin(&mut self) -> Result<(), String> {
        // All commits are held, or the dump alone is the pin, and nothing else would be of its instant.
        let mut counter = self.counter.as_mut().filter(|_| self.held.is_some());
        if let Some(counter) = &mut counter {
            counter.pin();
        }
        self.dumps.iter_mut().try_for_each(Dump::open)?;
        for dump in &mut self.dumps {
            let left = match self.held {
                Some(_) => self.until.saturating_duration_since(Instant::now()),
                None => self.hold_limit,
            };
            dump.pinned(left)?;
        }
        let position = match self.is_mariadb {
            true => "SELECT @@gtid_binlog_pos;",
            false => "SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '');",
        };
        self.gtid = self.ask_holder(position, self.hold_limit)?.into_iter().next();
        if let Some(counter) = self.counter.as_mut().filter(|_| self.held.is_some()) {
            counter.wait_for_pin(self.until.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// A session that was lost answers nothing, and is never opened anew while it holds.
    pub(super) fn prove(&mut self) -> Result<(), String> {
        let left = self.until.saturating_duration_since(Instant::now());
        self.ask_holder("SELECT 1;", left).map(drop)
    }

    pub(super) fn release(&mut self) -> Result<(), String> {
        let statement = match self.source.dialect {
            Dialect::MariaDb => "BACKUP STAGE END;",
            Dialect::MySql => "UNLOCK TABLES;",
        };
        let ended = self.ask_holder(statement, self.hold_limit);
        self.unstage();
        if let Some(held) = self.held.take() {
            self.held_us = u64::try_from(held.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        ended.map(drop)
    }

    /// Ends the session that holds, and with it whatever it holds; the dumps go on.
    pub(super) fn unstage(&mut self) {
        (self.holder, self.staged, self.watchdog) = (None, None, None);
    }

    /// Lets everything go but dumps that have not begun.
    pub(super) fn let_go(&mut self) {
        // The server lets go when the session ends, and it ends now.
        if self.held.take().is_some() {
            self.unlock();
        }
        self.dumps.iter_mut().for_each(Dump::reset);
    }

    fn unlock(&mut self) {
        self.unstage();
        (self.keeper, self.counter) = (None, None);
    }

    /// From now on the tables are watched over until they have been dumped.
    pub(super) fn guard(&mut self) -> Option<Guard> {
        self.keeper.take().map(|keeper| Guard::over(vec![keeper], QUESTION.to_owned()))
    }

    pub(super) fn describe(&self, record: &mut SourceRecord) {
        record.engine = Some(self.engine.clone());
        record.held_us = self.held_us;
        record.position.extend(self.gtid.clone().map(|gtid| ("gtid".to_owned(), gtid)));
    }

    /// Waits for the dumps that have been pinned, with a `guard`, or makes them now. If there will be another cut, it stops
    /// as soon as this one is void. Answers with the rows of each dump's tables, by the name of its file, as far as they
    /// were counted.
    pub(super) fn copy(
        mut self,
        guard: Option<Guard>,
        again: bool,
        problems: &mut Problems,
        copies: &mut Copies,
    ) -> BTreeMap<String, Rows> {
        let mut left = std::mem::take(&mut self.dumps);
        let mut counted = BTreeMap::new();
        if let Some(guard) = guard {
            counted = self.finish(&mut left, &guard, copies);
            if let Err(why) = guard.finish() {
                copies.void.get_or_insert(why);
                counted.clear();
            }
            if again && copies.void.is_some() {
                return BTreeMap::new();
            }
        }
        copies.flaw = copies.flaw.take().or(self.plain.take());
        for dump in &mut left {
            if let Err(why) = self.make_at_leisure(dump) {
                problems.missing(None, why);
                // What is left of it is no dump.
                dump.remove();
            }
        }
        self.copy_accounts(problems);
        counted
    }

    /// Waits for the dumps that have been pinned, and counts meanwhile. What has come to nothing is `left`.
    fn finish(&mut self, left: &mut Vec<Dump>, guard: &Guard, copies: &mut Copies) -> BTreeMap<String, Rows> {
        let databases: Vec<(String, String)> =
            left.iter().map(|dump| (dump.database.clone(), dump.file_name())).collect();
        let (counter, stop) = (self.counter.take().filter(Counter::is_pinned), guard.stop());
        let mut counted = thread::scope(|scope| {
            let counting = counter.map(|counter| scope.spawn(|| counter.count(&databases, stop)));
            left.retain_mut(|dump| match dump.finish(stop) {
                Ok(()) => false,
                Err(why) => {
                    copies.void.get_or_insert(guard.why().map_or(why, str::to_owned));
                    true
                }
            });
            counting.and_then(|counting| counting.join().ok()).unwrap_or_default()
        });
        counted.retain(|file, _| left.iter().all(|dump| dump.file_name() != *file));
        counted
    }

    fn make_at_leisure(&self, dump: &mut Dump) -> Result<(), String> {
        let guard = Guard::over(vec![dump::session(&self.source)?], QUESTION.to_owned());
        let made = dump.make(&self.source, guard.stop());
        made.map_err(|why| guard.why().map_or(why, str::to_owned))
    }

    /// Accounts belong to no database and to no snapshot.
    fn copy_accounts(&self, problems: &mut Problems) {
        let asked = dump::session(&self.source)
            .and_then(|mut s| s.ask(&self.account.reads_accounts(), ANSWER_WITHIN).map_err(|error| error.to_string()));
        let why = match asked {
            Ok(rows) if self.is_mariadb && rows.first().is_some_and(|row| row == "1") => {
                match dump::accounts(&self.source, &self.folder) {
                    Ok(()) => return,
                    Err(why) => why,
                }
            }
            Ok(_) => "this account may not read them".to_owned(),
            Err(why) => why,
        };
        problems.skipped(None, format!("the accounts of the server are not in the copy: {why}"));
    }

    /// Asks the session that holds. One that was lost is never opened anew.
    fn ask_holder(&mut self, statement: &str, limit: Duration) -> Result<Vec<String>, String> {
        let holder = self.holder.as_mut().ok_or("the session at the server was lost")?;
        holder.ask(statement, limit).map_err(|error| {
            self.holder = None;
            error.to_string()
        })
    }
}

/// Whether this is the answer of a server at which somebody is changing tables.
fn is_passing(why: &str) -> bool {
    ["Lock wait timeout", "ERROR 1146 "].iter().any(|known| why.contains(known))
}

/// Whether this version has `BACKUP STAGE`.
fn has_stages(is_mariadb: bool, number: &str) -> bool {
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    is_mariadb && (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (10, 4)
}

#[cfg(test)]
mod tests {
    use super::has_stages;

    #[test]
    fn versions_with_stages_are_known() {
        assert!(has_stages(true, "10.4.0") && has_stages(true, "11.0.2") && has_stages(true, "10.11.19"));
        assert!(!has_stages(true, "10.3.39") && !has_stages(false, "8.0.40") && !has_stages(true, ""));
    }
}
