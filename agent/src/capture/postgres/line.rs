//! The line to a cluster that is copied whole: a session, and in it a slot that keeps the server from removing the log that
//! is still to be received. The slot is a temporary one: it goes with the session, however that ends.

use std::path::Path;
use std::time::Duration;

use super::cluster::{ANSWER_WITHIN, Pin, connect, session, text};
use super::own_name;
use super::wal::{self, Lsn};
use crate::capture::session::Session;
use crate::capture::settings::PostgresSource;
use crate::clock;

/// Senders that a copy needs: one for the files, one for the log.
const SENDERS: u32 = 2;

/// The server looks at each of its files for it.
const SIZE_WITHIN: Duration = Duration::from_secs(600);

/// The oldest version whose commits show in `pg_current_snapshot`.
const OLDEST: u32 = 130_000;

/// A connected cluster.
#[derive(Debug)]
pub(super) struct Line {
    session: Option<Session>,
    slot: String,
    /// The server keeps the log from here on.
    reserved: Lsn,
    pub(super) facts: Facts,
    pub(super) pinned: Option<Pin>,
}

/// What is known about it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) engine: String,
    pub(super) system: String,
    pub(super) timeline: String,
    pub(super) segment_bytes: u64,
    /// The account that the cluster was made with, which may do everything.
    pub(super) administrator: String,
}

impl Line {
    /// Connects, looks at rights and settings, and has the log kept from now on. The error is one sentence.
    pub(super) fn open(source: &PostgresSource, tag: &str) -> Result<Self, String> {
        let mut session = session(source, tag, "postgres")?;
        let (facts, account) = ask_facts(&mut session)?;
        may_replicate(source, tag, &account)?;
        let slot = own_name();
        let made = session
            .ask(&format!("SELECT lsn FROM pg_create_physical_replication_slot('{slot}', true, true);"), ANSWER_WITHIN);
        let made = made
            .map_err(|error| format!("the server cannot be made to keep its log for the time of the copy: {error}"))?;
        let reserved =
            made.first().and_then(|lsn| Lsn::parse(lsn)).ok_or("the server did not say which log it keeps")?;
        Ok(Self { session: Some(session), slot, reserved, facts, pinned: None })
    }

    /// Whether the session goes on, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// Whether the server keeps everything that comes after what lies in `folder`.
    pub(super) fn continues(&self, folder: &Path) -> bool {
        wal::newest(folder, self.facts.segment_bytes).ok().flatten().is_some_and(|newest| self.reserved <= newest.start)
    }

    /// Lets the server remove what has been received into `folder`, and sees whether it is still there.
    pub(super) fn advance(&mut self, folder: &Path) -> Result<(), String> {
        // There is none before the server has made its checkpoint.
        let newest = wal::newest(folder, self.facts.segment_bytes).ok().flatten().map(|newest| newest.start);
        match newest.filter(|newest| *newest > self.reserved) {
            Some(newest) => {
                let statement = format!("SELECT pg_replication_slot_advance('{}', '{newest}');", self.slot);
                self.ask(&statement, ANSWER_WITHIN)?;
                self.reserved = newest;
            }
            None => drop(self.ask("SELECT 1;", ANSWER_WITHIN)?),
        }
        Ok(())
    }

    /// How large the files of its databases are, as far as that can be known.
    pub(super) fn bytes(&mut self) -> Result<u64, String> {
        let sum = "SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database WHERE has_database_privilege(oid, 'CONNECT');";
        Ok(self.ask(sum, SIZE_WITHIN)?.first().and_then(|sum| sum.parse().ok()).unwrap_or(0))
    }

    /// What changes with every commit in the cluster.
    pub(super) fn version(&mut self, limit: Duration) -> Result<String, String> {
        let rows = self.ask("SELECT pg_current_snapshot();", limit)?;
        rows.into_iter().next().ok_or_else(|| "the server gave no snapshot".to_owned())
    }

    /// Pins the cluster: at the place in the log where the next record will begin.
    pub(super) fn pin(&mut self, limit: Duration) -> Result<(), String> {
        let at = clock::now();
        let rows = self.ask("SELECT pg_current_snapshot(), pg_current_wal_insert_lsn();", limit)?;
        let (snapshot, lsn) = rows.first().and_then(|row| row.split_once('|')).ok_or("the server gave no snapshot")?;
        self.pinned = Some(Pin { at, snapshot: snapshot.to_owned(), lsn: lsn.to_owned() });
        Ok(())
    }

    /// Writes something into the log behind the pin, so that there is a record to stop before, and gives its end.
    pub(super) fn mark(&mut self) -> Result<Lsn, String> {
        // In a transaction, because a commit is written to disk; and without waiting for a standby.
        self.ask("SET synchronous_commit = local;", ANSWER_WITHIN)?;
        let rows = self.ask("SELECT pg_logical_emit_message(true, 'offsite', 'cut');", ANSWER_WITHIN)?;
        rows.first()
            .and_then(|lsn| Lsn::parse(lsn))
            .ok_or_else(|| "the server did not say where its log ends".to_owned())
    }

    /// Ends the session; what is known stays.
    pub(super) fn close(&mut self) {
        self.session = None;
    }

    fn ask(&mut self, statement: &str, limit: Duration) -> Result<Vec<String>, String> {
        let Some(session) = &mut self.session else { return Err("the session was lost".to_owned()) };
        session.ask(statement, limit).map_err(|error| {
            // After any error the slot is gone.
            self.session = None;
            text(error)
        })
    }
}

fn ask_facts(session: &mut Session) -> Result<(Facts, String), String> {
    let statement = "SELECT current_setting('server_version'), current_setting('server_version_num'), \
                     (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()), \
                     pg_is_in_recovery(), (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), \
                     current_setting('wal_level'), current_setting('max_wal_senders'), \
                     pg_size_bytes(current_setting('wal_segment_size')), \
                     (SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')), \
                     quote_ident(current_user), (SELECT rolname FROM pg_roles WHERE oid = 10);";
    let rows = session.ask(statement, ANSWER_WITHIN).map_err(text)?;
    let fields: Vec<&str> = rows.first().map(|row| row.splitn(12, '|').collect()).unwrap_or_default();
    let [
        version,
        number,
        system,
        timeline,
        standby,
        replication,
        level,
        senders,
        segment,
        spaces,
        account,
        administrator,
    ] = fields.as_slice()
    else {
        return Err("the server did not say what it is".to_owned());
    };
    if number.parse().unwrap_or(0) < OLDEST {
        return Err(format!(
            "this server is PostgreSQL {version}, and can be copied whole from 13 on; leave out `mode`"
        ));
    }
    if *standby == "t" {
        return Err("this server is a standby and lags behind the others; name its primary instead".to_owned());
    }
    if *replication != "t" {
        return Err(format!("this account may not copy a whole server; run `ALTER ROLE {account} REPLICATION;`"));
    }
    if *level == "minimal" {
        return Err("the server's log does not hold enough for a copy (its setting `wal_level` is `minimal`); run \
                    `ALTER SYSTEM SET wal_level = 'replica';` and start it anew"
            .to_owned());
    }
    if senders.parse().unwrap_or(0) < SENDERS {
        return Err(format!(
            "the server sends its log to {senders} at the same time, and a copy needs {SENDERS}; run `ALTER SYSTEM SET \
             max_wal_senders = 10;` and start it anew"
        ));
    }
    if *spaces != "0" {
        return Err(format!(
            "this server keeps tables outside of its data folder, in {spaces} tablespaces, which a copy of the folder does not \
             hold; leave out `mode`, so that its databases are dumped, and run `GRANT pg_read_all_data TO {account};`, or bring \
             them into the data folder, as by `ALTER DATABASE ... SET TABLESPACE pg_default`"
        ));
    }
    let segment_bytes = segment.parse().map_err(|_| "the server did not say how large the files of its log are")?;
    let facts = Facts {
        // Without what a distribution adds.
        engine: format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default()),
        system: (*system).to_owned(),
        timeline: (*timeline).to_owned(),
        segment_bytes,
        administrator: (*administrator).to_owned(),
    };
    Ok((facts, (*account).to_owned()))
}

/// Whether the server lets this account in for a copy: it has rules of its own for that.
fn may_replicate(source: &PostgresSource, tag: &str, account: &str) -> Result<(), String> {
    let mut session = connect(source, tag, "postgres", &["--dbname=replication=true"]).map_err(text)?;
    session.ask("IDENTIFY_SYSTEM;", ANSWER_WITHIN).map(drop).map_err(|why| {
        let why = text(why);
        let remedy = if why.contains("pg_hba.conf") {
            format!(
                "; add a line to its pg_hba.conf, such as `host replication {account} ADDRESS scram-sha-256`, and run `SELECT \
                 pg_reload_conf();`"
            )
        } else {
            String::new()
        };
        format!("the server does not let this account copy it: {why}{remedy}")
    })
}
