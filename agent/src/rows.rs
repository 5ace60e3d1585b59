//! How many rows the tables of an SQLite file have. A capture counts its copies, and a drill what came back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Rows by the name of their table.
pub type Rows = BTreeMap<String, u64>;

/// Opens a file that nobody changes, whatever its journal mode; neither the file nor its folder is written to.
pub fn open_unchanging(path: &Path) -> Result<Connection, rusqlite::Error> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    Ok(connection)
}

/// Counts the rows of every ordinary table of a file that nobody changes; those that can be counted `within` that time.
/// A table that cannot be read is left out.
pub fn count(path: &Path, within: Duration) -> Result<Rows, rusqlite::Error> {
    let connection = open_unchanging(path)?;
    let interrupt = connection.get_interrupt_handle();
    let deadline = Instant::now() + within;
    let (done, waiting) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        let counted = count_tables(&connection, deadline);
        drop(done);
        match counted {
            // Not even which tables there are could be read within the time.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(Rows::new()),
            counted => counted,
        }
    })
}

fn count_tables(connection: &Connection, deadline: Instant) -> Result<Rows, rusqlite::Error> {
    // Virtual tables have no rows of their own, and `sqlite_…` are SQLite's.
    let tables = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE \
                  'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = connection.prepare(tables)?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut rows = Rows::new();
    for name in names {
        if Instant::now() >= deadline {
            break;
        }
        let ask = format!("SELECT count(*) FROM main.\"{}\"", name.replace('"', "\"\""));
        match connection.query_row(&ask, [], |row| row.get(0)) {
            Ok(count) => drop(rows.insert(name, count)),
            Err(error) => tracing::debug!(table = name, %error, "the rows were not counted"),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_counted_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a?b#c.db");
        let database = Connection::open(&path).unwrap();
        let made = "PRAGMA journal_mode = wal; CREATE TABLE \"a\"\"b c\" (x); INSERT INTO \"a\"\"b c\" VALUES (1), (2); \
                    CREATE TABLE empty (x INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIRTUAL TABLE words USING fts5(text)";
        database.execute_batch(made).unwrap();
        drop(database);
        let rows = count(&path, Duration::from_secs(60)).unwrap();
        assert_eq!(rows, Rows::from([("a\"b c".to_owned(), 2), ("empty".to_owned(), 0)]));
        assert_eq!(count(&path, Duration::ZERO).unwrap(), Rows::new());
    }
}
