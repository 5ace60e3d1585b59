//! Counts the rows of a pinned database while it is dumped: what a drill compares with what comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::capture::session::Session;
use crate::rows::Rows;

/// All tables of one database. What could not be counted until then is not recorded.
const COUNT_WITHIN: Duration = Duration::from_secs(60);

/// One table, so that nobody waits longer behind us. The server is told the same.
const TABLE_WITHIN: Duration = Duration::from_secs(10);

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Tables whose rows are in a dump; those of an extension are made by the extension. Partitions are counted, not what they
/// are parts of.
const TABLES: &str = "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                      WHERE relkind = 'r' AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema' \
                      AND relname || nspname !~ '[[:cntrl:]]' AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid \
                      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e') ORDER BY 1;";

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
    for table in session.ask(TABLES, ANSWER_WITHIN).ok()? {
        if stop.load(Ordering::Relaxed) || Instant::now() >= deadline {
            break;
        }
        // After an error the transaction is over, and nothing more is counted.
        let Ok(answer) = session.ask(&format!("SELECT count(*) FROM ONLY {table};"), ANSWER_WITHIN) else { break };
        rows.extend(answer.first().and_then(|count| Some((table, count.parse().ok()?))));
    }
    Some(rows)
}
