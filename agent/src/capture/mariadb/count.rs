//! Counts the rows of all databases of a server as of the hold, while they are dumped: what a drill compares with what comes
//! back.
//!
//! Snapshots cannot be shared here, so the counting session takes one of its own inside the hold, when all of them are the
//! same. Without a hold there is none, and nothing is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::dump;
use crate::capture::session::Session;
use crate::capture::settings::MariaDbSource;
use crate::mysql;
use crate::rows::Rows;

/// All tables of one server. What could not be counted until then is not recorded.
const COUNT_WITHIN: Duration = Duration::from_secs(60);

/// One table, so that nobody waits longer behind us. The server is told the same.
const TABLE_WITHIN: Duration = Duration::from_secs(10);

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A session that has a snapshot of the instant, or is to take one.
#[derive(Debug)]
pub(super) struct Counter {
    session: Session,
    pinned: bool,
}

impl Counter {
    /// Connects; nothing if that cannot be had, for the copy is as good without.
    pub(super) fn open(source: &MariaDbSource, silence: Duration, is_mariadb: bool) -> Option<Self> {
        let mut session = dump::session(source, silence).ok()?;
        session.ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;", ANSWER_WITHIN).ok()?;
        let limit = if is_mariadb {
            format!("SET SESSION max_statement_time = {};", TABLE_WITHIN.as_secs())
        } else {
            format!("SET SESSION max_execution_time = {};", TABLE_WITHIN.as_millis())
        };
        session.ask(&limit, ANSWER_WITHIN).ok()?;
        Some(Self { session, pinned: false })
    }

    /// Asks for the snapshot. Commits are held, and stay so until the answer has been received.
    pub(super) fn pin(&mut self) {
        // If the session is over, receiving says so.
        self.pinned = self.session.send("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;").is_ok();
    }

    /// Waits for the snapshot, for no longer than is left of the hold. Without one nothing is counted.
    pub(super) fn wait_for_pin(&mut self, left: Duration) {
        self.pinned = self.pinned && self.session.receive(left).is_ok();
    }

    /// Whether it has its snapshot.
    pub(super) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Counts every table that has snapshots, of `databases`, each with the name that its rows are kept by. Ends early when
    /// `stop` is set.
    pub(super) fn count(mut self, databases: &[(String, String)], stop: &AtomicBool) -> BTreeMap<String, Rows> {
        let deadline = Instant::now() + COUNT_WITHIN;
        let mut counts = BTreeMap::new();
        for (database, file) in databases {
            let Some(rows) = self.count_one(database, deadline, stop) else { break };
            counts.insert(file.clone(), rows);
        }
        counts
    }

    fn count_one(&mut self, database: &str, deadline: Instant, stop: &AtomicBool) -> Option<Rows> {
        // A name that would break the line cannot be told from what is asked next.
        let tables = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE = 'BASE TABLE' AND \
             ENGINE = 'InnoDB' AND TABLE_NAME NOT REGEXP '[[:cntrl:]]' ORDER BY 1;",
            mysql::literal(database)
        );
        let mut rows = Rows::new();
        for table in self.session.ask(&tables, ANSWER_WITHIN).ok()? {
            if stop.load(Ordering::Relaxed) || Instant::now() >= deadline {
                break;
            }
            // The lock on its definition is let go with what was done since the savepoint; the snapshot stays.
            self.session.ask("SAVEPOINT counted;", ANSWER_WITHIN).ok()?;
            let count = format!("SELECT COUNT(*) FROM {}.{};", mysql::name(database), mysql::name(&table));
            // A table that cannot be read now, or takes too long, is left out.
            let answer = self.session.ask(&count, ANSWER_WITHIN);
            self.session.ask("ROLLBACK TO SAVEPOINT counted;", ANSWER_WITHIN).ok()?;
            rows.extend(answer.ok().and_then(|rows| Some((table, rows.first()?.parse().ok()?))));
        }
        Some(rows)
    }
}
