//! Counts the rows of a pinned database while it is dumped: what a drill compares with what comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::capture::session::Session;
use crate::psql::TABLES_WITH_ROWS;
use crate::rows::Rows;

/// All tables of one database. What could not be counted until then is not recorded.
const COUNT_WITHIN: Duration = Duration::from_secs(60);

/// One table, so that nobody waits longer behind us. The server is told the same.
const TABLE_WITHIN: Duration = Duration::from_secs(10);

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Counts in the snapshot that the dump reads; nothing if that cannot be had. Ends early when `stop` is set.
pub(super) fn count(mut session: Session, snapshot: &str, stop: &AtomicBool) -> Option<Rows> {
    let deadline = Instant::now() + COUNT_WITHIN;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'; \
         SET LOCAL statement_timeout = {};",
        TABLE_WITHIN.as_millis()
    );
    session.ask(&begin, ANSWER_WITHIN).ok()?;
    let mut rows = Rows::new();
    let tables = format!("SELECT format('%I.%I', nspname, relname) {TABLES_WITH_ROWS};");
    for table in session.ask(&tables, ANSWER_WITHIN).ok()? {
        if stop.load(Ordering::Relaxed) || Instant::now() >= deadline {
            break;
        }
        // After an error the transaction is over, and nothing more is counted.
        let Ok(answer) = session.ask(&format!("SELECT count(*) FROM ONLY {table};"), ANSWER_WITHIN) else { break };
        rows.extend(answer.first().and_then(|count| Some((table, count.parse().ok()?))));
    }
    Some(rows)
}
