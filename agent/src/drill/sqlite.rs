//! Opening an SQLite file that came back.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::verdict::{About, Finding, OpenedDatabase};
use crate::rows::{self, Rows};

/// Counting again takes as long as it takes.
const COUNT_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What was found in a file.
pub(super) struct Found {
    pub(super) database: OpenedDatabase,
    pub(super) rows: Rows,
    pub(super) findings: Vec<Finding>,
    pub(super) not_done: Vec<String>,
}

/// Opens the file `path`, called `name`, and has SQLite look through all of it.
pub(super) fn open(path: &Path, name: &str) -> Found {
    let engine = format!("SQLite {}", rusqlite::version());
    let database = OpenedDatabase { name: name.to_owned(), engine, sound: Some(true), tables: 0, rows: 0 };
    let mut found = Found { database, rows: Rows::new(), findings: Vec::new(), not_done: Vec::new() };
    match rows::open_unchanging(path) {
        Ok(connection) => found.look(&connection, path, name),
        Err(error) => found.fail(format!(
            "{name} came back as it was copied, and is no database that SQLite can open: {error}; look at the source itself"
        )),
    }
    found.database.sound = Some(found.findings.is_empty());
    found
}

impl Found {
    fn look(&mut self, connection: &Connection, path: &Path, name: &str) {
        let damage = match lines(connection, "PRAGMA integrity_check(10)") {
            Ok(said) if said == ["ok"] => None,
            Ok(said) => said.into_iter().next(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(damage) = damage {
            self.fail(format!(
                "{name} came back as it was copied, and is damaged inside: {damage}; the source itself is, so check it with \
                 `PRAGMA integrity_check` and take an older generation if need be"
            ));
        }
        match lines(connection, "PRAGMA foreign_key_check") {
            Ok(rows) => {
                if let Some(first) = rows.first() {
                    let mut fields = first.split('|');
                    let (table, parent) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
                    self.fail(format!(
                        "{name} is inconsistent: {} of its rows refer to rows that are not there, such as one of {table} to \
                         {parent}; the source itself does, so look at it with `PRAGMA foreign_key_check`",
                        rows.len()
                    ));
                }
            }
            Err(error) => self.not_done.push(format!("the foreign keys of {name} could not be checked: {error}")),
        }
        match rows::count(path, COUNT_WITHIN) {
            Ok(rows) => self.rows = rows,
            Err(error) => self.not_done.push(format!("the rows of {name} could not be counted: {error}")),
        }
        self.database.tables = self.rows.len() as u64;
        self.database.rows = self.rows.values().sum();
    }

    fn fail(&mut self, what: String) {
        self.findings.push(Finding::new(About::Database, what));
    }
}

/// The answer to a question: rows as lines, columns with `|` between them. The error is one sentence.
pub(super) fn ask(path: &Path, sql: &str) -> Result<String, String> {
    let connection = rows::open_unchanging(path).map_err(|error| error.to_string())?;
    lines(&connection, sql).map(|lines| lines.join("\n")).map_err(|error| error.to_string())
}

fn lines(connection: &Connection, sql: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let fields: Result<Vec<String>, rusqlite::Error> =
            (0..columns).map(|column| row.get_ref(column).map(text)).collect();
        lines.push(fields?.join("|"));
    }
    Ok(lines)
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(statements: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        Connection::open(&path).unwrap().execute_batch(statements).unwrap();
        (folder, path)
    }

    const BOOKS: &str = "CREATE TABLE account (id INTEGER PRIMARY KEY);
                         CREATE TABLE payment (account REFERENCES account (id), cents);
                         INSERT INTO account VALUES (1), (2); INSERT INTO payment VALUES (1, 500), (2, NULL);";

    #[test]
    fn a_sound_database_is_counted_and_answers() {
        let (_folder, path) = made(BOOKS);
        let found = open(&path, "ledger/ledger.db");
        assert_eq!((found.findings, found.database.tables, found.database.rows), (Vec::new(), 2, 4));
        assert_eq!(ask(&path, "SELECT * FROM payment ORDER BY 1").unwrap(), "1|500\n2|");
        assert!(ask(&path, "SELECT missing").unwrap_err().contains("no such column"));
    }

    #[test]
    fn rows_that_refer_to_nothing_are_found() {
        let (_folder, path) = made(&format!("PRAGMA foreign_keys = off; {BOOKS} DELETE FROM account WHERE id = 2"));
        let found = open(&path, "ledger/ledger.db");
        assert_eq!(found.database.sound, Some(false));
        let what = &found.findings[0].what;
        assert!(
            found.findings.len() == 1 && what.contains("1 of its rows") && what.contains("payment to account"),
            "{what}"
        );
    }

    #[test]
    fn damage_inside_is_found_and_what_is_no_database_is_said_to_be_none() {
        let many = "WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                    INSERT INTO account SELECT i FROM n;";
        let (folder, path) = made(&format!("{BOOKS} {many}"));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 100].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let found = open(&path, "ledger/ledger.db");
        assert!(found.findings[0].what.contains("damaged inside"), "{:?}", found.findings);
        let other = folder.path().join("other.db");
        std::fs::write(&other, "no database at all, but long enough to be taken for one".repeat(40)).unwrap();
        let found = open(&other, "other");
        assert!(found.findings[0].what.contains("no database that SQLite can open"), "{:?}", found.findings);
    }
}
