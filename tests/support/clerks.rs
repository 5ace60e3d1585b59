//! Databases in use: clerks who do business in several of them at once, and a judge of copies.
//!
//! Whatever is an effect in one database was caused in another, and that was committed before. So a set of copies that
//! holds an effect without its cause is not of one instant.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;

use crate::process::program;
use crate::servers::Postgres;
use crate::wait_until;

/// Accounts in each database; the sum of their balances is always 0.
pub const ACCOUNTS: u64 = 100;

/// A database that clerks write to.
#[derive(Clone, Debug)]
pub struct Book {
    /// What the others call it.
    pub name: &'static str,
    /// Its file; of a PostgreSQL database the folder of the server's socket.
    pub path: PathBuf,
    /// The port and the name of a PostgreSQL database.
    pub database: Option<(u16, String)>,
}

/// A `psql` that is fed with statements.
#[derive(Debug)]
pub struct Psql {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Psql {
    /// Connects as the superuser to the database of `book`.
    pub fn open(book: &Book) -> Self {
        let (port, database) = book.database.as_ref().unwrap();
        let mut child = Command::new(program("psql"))
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"])
            .arg("--host")
            .arg(&book.path)
            .args(["--port", &port.to_string(), "--username=postgres", "--dbname", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The rows of some statements; the error if one failed, which ends it.
    pub fn ask(&mut self, statements: &str) -> Result<Vec<String>, String> {
        let input = self.child.stdin.as_mut().unwrap();
        let told = writeln!(input, "{statements}\n\\echo done");
        let mut rows = Vec::new();
        let mut line = String::new();
        while told.is_ok() && self.output.read_line(&mut line).unwrap() > 0 {
            if line == "done\n" {
                return Ok(rows);
            }
            rows.push(line.trim_end().to_owned());
            line.clear();
        }
        Err(format!("psql ended: {statements}"))
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

const TABLES: &str = "CREATE TABLE event (id TEXT PRIMARY KEY, cause TEXT);
                      CREATE TABLE tally (n INTEGER NOT NULL);
                      CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
                      INSERT INTO tally VALUES (0);";

/// Clerks at work; when dropped, they are killed.
#[derive(Debug)]
pub struct Clerks {
    children: Vec<Child>,
    books: Vec<Book>,
}

/// What a clerk has to say.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Journal {
    /// How long each step took, in microseconds.
    pub steps_us: Vec<u64>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// What is wrong with a set of copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Effects whose cause is missing.
    pub without_cause: usize,
    /// Databases whose sums do not agree in themselves, or that SQLite finds damaged.
    pub torn: Vec<String>,
    /// Events in the copies.
    pub events: usize,
}

impl Book {
    /// Makes the database, with `journal_mode`.
    pub fn create(name: &'static str, path: PathBuf, journal_mode: &str) -> Self {
        let connection = Connection::open(&path).unwrap();
        let mode: String =
            connection.query_row(&format!("PRAGMA journal_mode = {journal_mode}"), [], |row| row.get(0)).unwrap();
        assert_eq!(mode, journal_mode);
        connection.execute_batch(TABLES).unwrap();
        for id in 0..ACCOUNTS.cast_signed() {
            connection.execute("INSERT INTO account VALUES (?1, 0)", [id]).unwrap();
        }
        Self { name, path, database: None }
    }

    /// Makes it in a new database of a PostgreSQL cluster.
    pub fn create_in(name: &'static str, server: &Postgres) -> Self {
        let book = Self::of(name, server, server.database(name));
        let accounts = format!("INSERT INTO account SELECT id, 0 FROM generate_series(0, {}) id;", ACCOUNTS - 1);
        Psql::open(&book).ask(&format!("{TABLES} {accounts}")).unwrap();
        book
    }

    /// The one in `database`.
    pub fn of(name: &'static str, server: &Postgres, database: String) -> Self {
        Self { name, path: server.socket.clone(), database: Some((server.port, database)) }
    }

    /// Whether the engine finds nothing wrong with it; and the rows of a statement, columns separated by `|`.
    fn read(&self, sql: &str) -> (bool, Vec<String>) {
        if self.database.is_some() {
            return (true, Psql::open(self).ask(&format!("{sql};")).unwrap());
        }
        let connection = Connection::open(&self.path).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        (sound == "ok", rows.collect())
    }

    /// Events in it by now.
    pub fn events(&self) -> u64 {
        if self.database.is_some() {
            return self.read("SELECT n FROM tally").1[0].parse().unwrap();
        }
        let connection = Connection::open(&self.path).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        connection.query_row("SELECT n FROM tally", [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    }
}

impl Clerks {
    /// Lets `count` of them begin, each pausing so many milliseconds after each piece of business.
    pub fn start(program: &Path, count: u64, pause_ms: u64, books: &[Book]) -> Self {
        let arguments: Vec<String> =
            books.iter().map(|book| serde_json::to_string(&(book.name, &book.path, &book.database)).unwrap()).collect();
        let start = |seed: u64| {
            Command::new(program)
                .args([seed.to_string(), pause_ms.to_string()])
                .args(&arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        Self { children: (1..=count).map(start).collect(), books: books.to_vec() }
    }

    /// Waits until `more` events have been added to each database.
    pub fn work(&self, more: u64) {
        let before: Vec<u64> = self.books.iter().map(Book::events).collect();
        wait_until(Duration::from_secs(120), "the clerks get something done", || {
            self.books.iter().zip(&before).all(|(book, before)| book.events() >= before + more)
        });
    }

    /// Sends them home; what they have to say, all together.
    pub fn stop(mut self) -> Journal {
        let mut all = Journal::default();
        for mut child in self.children.drain(..) {
            drop(child.stdin.take());
            let mut said = String::new();
            child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(child.wait().unwrap().success(), "a clerk failed");
            let journal: Journal = serde_json::from_str(&said).unwrap();
            all.steps_us.extend(journal.steps_us);
            all.errors.extend(journal.errors);
        }
        all.steps_us.sort_unstable();
        all
    }
}

impl Drop for Clerks {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Judges copies of the books, each under the name of its book.
pub fn judge(copies: &[Book]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut events: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut effects = Vec::new();
    for copy in copies {
        let sums = "SELECT (SELECT sum(balance) FROM account) || ' ' || ((SELECT n FROM tally) - (SELECT count(*) FROM event))";
        let (sound, sums) = copy.read(sums);
        if !sound || sums != ["0 0"] {
            verdict.torn.push(copy.name.to_owned());
        }
        let (_, rows) = copy.read("SELECT id || '|' || coalesce(cause, '') FROM event");
        for row in rows {
            let (id, cause) = row.split_once('|').unwrap();
            verdict.events += 1;
            effects.extend((!cause.is_empty()).then(|| (cause.to_owned(), id.to_owned())));
            events.entry(copy.name).or_default().insert(id.to_owned());
        }
    }
    let caused = |(cause, id): &&(String, String)| events.get(cause.as_str()).is_some_and(|ids| ids.contains(id));
    verdict.without_cause = effects.len() - effects.iter().filter(caused).count();
    verdict
}
