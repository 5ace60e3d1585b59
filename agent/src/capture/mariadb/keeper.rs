//! Keeps the tables of a server from being emptied, altered or dropped until they have been dumped: a snapshot does not.

use std::time::Duration;

use super::dump::{self, number_of};
use crate::capture::guard::Guard;
use crate::capture::session::Session;
use crate::capture::settings::MariaDbSource;

/// Questions about the catalog, and locks.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The session has no snapshot, so that nothing has to be kept for it.
const LIMITS: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;";

/// Tables that are locked by one statement.
const AT_ONCE: usize = 50;

/// Whether somebody waits to change a table that we keep as it is, and whether a dump of ours waits as well. Who waits for
/// whom is not told; but as we have all tables, it is likely to be for us.
const QUESTION: &str = "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = \
                        'Waiting for table metadata lock' AND USER <> SUBSTRING_INDEX(USER(), '@', 1)) THEN 0 \
                        WHEN EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = \
                        'Waiting for table metadata lock' AND USER = SUBSTRING_INDEX(USER(), '@', 1)) THEN 2 ELSE 1 END;";

/// Rows if the server takes what it holds from another one.
const REPLICATES: &str = "SELECT 1 FROM information_schema.PROCESSLIST WHERE USER = 'system user' AND COMMAND IN \
                          ('Slave_IO', 'Slave_SQL', 'Connect') LIMIT 1;";

/// What that means.
const A_REPLICA: &str = "this server is a replica and lags behind its primary, so that the copy is not of one instant with the \
                         others; name its primary instead";

/// The session that keeps them. It is there for as long as dumps are, since these are ended at the server when it is gone.
#[derive(Debug)]
pub(super) struct Keeper {
    session: Session,
    number: String,
    keeps: bool,
}

impl Keeper {
    /// Connects; nothing is kept yet.
    pub(super) fn open(source: &MariaDbSource, silence: Duration) -> Result<Self, String> {
        let mut session = dump::session(source, silence)?;
        let number = number_of(&mut session)?;
        Ok(Self { session, number, keeps: false })
    }

    /// The number of its session at the server.
    pub(super) fn number(&self) -> &str {
        &self.number
    }

    /// Has every table of the databases `names`, as statements list them, read in a transaction, so that none can be changed
    /// until it is over. Answers with why copies are not of one instant all the same, if they are not.
    pub(super) fn keep(&mut self, names: &str) -> Result<Option<String>, String> {
        self.ask(LIMITS)?;
        self.ask("START TRANSACTION READ ONLY;")?;
        let reads = self.ask(&format!(
            "SELECT CONCAT('(SELECT 1 FROM `', REPLACE(TABLE_SCHEMA, '`', '``'), '`.`', REPLACE(TABLE_NAME, '`', '``'), \
             '` LIMIT 0)') FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ({names}) AND TABLE_TYPE <> 'VIEW';"
        ))?;
        let plain = self.ask(&format!(
            "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' is a table of the engine ', ENGINE) FROM \
             information_schema.TABLES WHERE TABLE_SCHEMA IN ({names}) AND TABLE_TYPE <> 'VIEW' AND ENGINE <> 'InnoDB' \
             LIMIT 1;"
        ))?;
        let replicates = !self.ask(REPLICATES)?.is_empty();
        for some in reads.chunks(AT_ONCE) {
            self.ask(&format!("{};", some.join(" UNION ALL ")))?;
        }
        self.keeps = true;
        let advice =
            "which has no snapshots, so that the copy is not of one instant; `ALTER TABLE … ENGINE = InnoDB` helps";
        Ok(match replicates {
            true => Some(A_REPLICA.to_owned()),
            false => plain.first().map(|table| format!("{table}, {advice}")),
        })
    }

    /// Whether it keeps them now.
    pub(super) fn keeps(&mut self) -> bool {
        self.keeps && self.ask("SELECT 1;").is_ok()
    }

    /// Lets the tables be changed. Whether the session is still there.
    pub(super) fn let_go(&mut self, limit: Duration) -> bool {
        self.keeps = false;
        self.session.ask("ROLLBACK;", limit).is_ok()
    }

    /// Ends another session of ours, if it has not ended.
    pub(super) fn end_session(&mut self, number: &str) {
        // It may have.
        let _ended = self.ask(&format!("KILL CONNECTION {number};"));
    }

    /// From now on it is watched over who waits for the tables.
    pub(super) fn into_guard(self) -> Guard {
        guard(self.session)
    }

    fn ask(&mut self, statement: &str) -> Result<Vec<String>, String> {
        self.session.ask(statement, ANSWER_WITHIN).map_err(|error| error.to_string())
    }
}

/// Watches over who waits for a table, by this session.
pub(super) fn guard(session: Session) -> Guard {
    Guard::over(vec![session], QUESTION.to_owned())
}
