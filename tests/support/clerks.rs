//! Databases in use: clerks who do business in several of them at once.
//!
//! Whatever is an effect in one database was caused in another, and that was committed before. So a set of copies that
//! holds an effect without its cause is not of one instant; [`judge`] finds out.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::process::program;
use crate::servers::{MariaDb, Postgres, SUPERUSER};
use crate::wait_until;

pub use crate::verdict::{Verdict, judge};

/// Accounts in each database; the sum of their balances is always 0.
pub const ACCOUNTS: u64 = 100;

/// A database that clerks write to.
#[derive(Clone, Debug)]
pub struct Book {
    /// What the others call it.
    pub name: &'static str,
    /// Its file, or a folder of papers; of a server's database the folder of the server's socket (PostgreSQL) or the socket (MariaDB).
    pub path: PathBuf,
    /// Which database of a server it is.
    pub database: Option<Database>,
}

/// A database of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The kind of server.
    pub engine: Engine,
    /// The server's port.
    pub port: u16,
    /// The database's name.
    pub name: String,
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    MariaDb,
}

/// The client of a server, connected as the superuser and fed with statements.
#[derive(Debug)]
pub struct Client {
    child: Child,
    output: BufReader<ChildStdout>,
    echo: &'static str,
}

impl Client {
    /// Connects to the database of `book`.
    pub fn open(book: &Book) -> Self {
        let database = book.database.as_ref().unwrap();
        let port = database.port.to_string();
        let mut command;
        let echo = match database.engine {
            Engine::Postgres => {
                command = Command::new(program("psql"));
                command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
                command.args(["--port", &port, "--username", SUPERUSER, "--dbname", &database.name]);
                command.arg("--host");
                "\\echo done"
            }
            Engine::MariaDb => {
                command = Command::new(program("mariadb"));
                command.args(["--no-defaults", "--batch", "--raw", "--skip-column-names", "--unbuffered"]);
                command.args(["--user=root", "--database", &database.name]);
                command
                    .args(["--init-command=SET SESSION sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')", "--socket"]);
                "SELECT 'done';"
            }
        };
        let mut child = command.arg(&book.path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, echo }
    }

    /// The rows of some statements; the error if one failed, which ends it.
    pub fn ask(&mut self, statements: &str) -> Result<Vec<String>, String> {
        let input = self.child.stdin.as_mut().unwrap();
        let told = writeln!(input, "{statements}\n{}", self.echo);
        let mut rows = Vec::new();
        let mut line = String::new();
        while told.is_ok() && self.output.read_line(&mut line).unwrap() > 0 {
            if line == "done\n" {
                return Ok(rows);
            }
            rows.push(line.trim_end().to_owned());
            line.clear();
        }
        Err(format!("the client ended: {statements}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

const TABLES: &str = "CREATE TABLE event (id VARCHAR(40) PRIMARY KEY, cause VARCHAR(40));
                      CREATE TABLE tally (n INTEGER NOT NULL);
                      CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
                      INSERT INTO tally VALUES (0);";

/// How clerks work.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How many there are.
    pub clerks: u64,
    /// What each pauses after each piece of business, in milliseconds.
    pub pause_ms: u64,
    /// In how many of a thousand steps the transaction stays open for a while before it is committed.
    pub slow_permille: u64,
    /// For how long at most, in milliseconds.
    pub slow_ms: u64,
}

/// Clerks at work; when dropped, they are killed.
#[derive(Debug)]
pub struct Clerks {
    children: Vec<Child>,
    books: Vec<Book>,
}

/// What a clerk has to say.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Journal {
    /// What it did, in order of time.
    pub steps: Vec<Step>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// One transaction in one book.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Which of the clerks.
    #[serde(skip)]
    pub clerk: usize,
    /// Which of the books.
    pub book: usize,
    /// When it began, in microseconds since 1970.
    pub at_us: i64,
    /// How long it took, in microseconds.
    pub took_us: i64,
    /// Whether its transaction was kept open for a while, as some manners have it.
    pub slow: bool,
}

/// A time: from when to when, in microseconds since 1970.
pub type Window = (i64, i64);

/// What some had to wait, in microseconds and in order of size.
#[derive(Clone, Debug, Default)]
pub struct Waits(Vec<i64>);

impl Waits {
    fn new(waits: impl IntoIterator<Item = i64>) -> Self {
        let mut waits: Vec<i64> = waits.into_iter().collect();
        waits.sort_unstable();
        Self(waits)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What half of them stayed below.
    pub fn median_us(&self) -> i64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(0)
    }

    /// What none of them exceeded.
    pub fn most_us(&self) -> i64 {
        self.0.last().copied().unwrap_or(0)
    }
}

impl Step {
    fn end_us(&self) -> i64 {
        self.at_us + self.took_us
    }

    fn meets(&self, (from, to): Window) -> bool {
        self.at_us <= to && self.end_us() >= from
    }

    /// How long it took from `begin` on: what it had waited for before is not the doing of what began then.
    fn took_from(&self, begin: i64) -> i64 {
        self.end_us() - self.at_us.max(begin)
    }
}

impl Journal {
    /// How much longer than usual (the median of the same book) steps took from the beginning of a window on that were under
    /// way at some time in it, in all books or in one.
    pub fn longer(&self, windows: &[Window], book: Option<usize>) -> Waits {
        let books = self.steps.iter().map(|step| step.book).max().map_or(0, |last| last + 1);
        let usual: Vec<i64> = (0..books).map(|book| self.median_us(book)).collect();
        let met = windows.iter().flat_map(|window| self.met(*window).map(|step| (step, window.0)));
        let met = met.filter(|(step, _)| book.is_none_or(|book| book == step.book));
        Waits::new(met.map(|(step, begin)| (step.took_from(begin) - usual[step.book]).max(0)))
    }

    /// The same of each clerk in each window: how long the longest of the steps that it had under way there took from the
    /// beginning of the window on. Of a time in which some are kept waiting, steps are a skewed sample: those that went on meanwhile are
    /// many and short, and there are fewer of them the more are kept waiting. Clerks are always as many.
    pub fn longest(&self, windows: &[Window]) -> Waits {
        let mut all = Vec::new();
        for window in windows {
            let mut longest = BTreeMap::new();
            for step in self.met(*window) {
                let most = longest.entry(step.clerk).or_insert(0);
                *most = step.took_from(window.0).max(*most);
            }
            all.extend(longest.into_values());
        }
        Waits::new(all)
    }

    /// How long databases stood still: in each of `books` and for each window the longest time that reaches into the window
    /// and in which no step came to its end there. Those are left out in which a slow one was under way.
    pub fn standstills(&self, windows: &[Window], books: &[usize]) -> Waits {
        let mut all = Vec::new();
        for book in books {
            let steps = || self.steps.iter().filter(|step| step.book == *book);
            let mut ends: Vec<i64> = steps().map(Step::end_us).collect();
            ends.sort_unstable();
            let slow: Vec<&Step> = steps().filter(|step| step.slow).collect();
            for (from, to) in windows {
                // From the last end before the window to the first one after it.
                let first = ends.partition_point(|end| end < from).saturating_sub(1);
                let last = ends.partition_point(|end| end <= to).min(ends.len().saturating_sub(1));
                let still = ends.get(first..=last).unwrap_or_default().windows(2).map(|pair| (pair[0], pair[1]));
                let longest = still.max_by_key(|(begin, end)| end - begin);
                let longest = longest.filter(|still| !slow.iter().any(|step| step.meets(*still)));
                all.extend(longest.map(|(begin, end)| end - begin));
            }
        }
        Waits::new(all)
    }

    /// The steps that were under way at some time in a window. Steps that met a slow one in the same book are left out: they
    /// waited for each other.
    fn met(&self, window: Window) -> impl Iterator<Item = &Step> {
        let slow: Vec<&Step> = self.steps.iter().filter(|step| step.slow).collect();
        let waited =
            move |step: &Step| slow.iter().any(|s| s.book == step.book && s.meets((step.at_us, step.end_us())));
        self.steps.iter().filter(move |step| !step.slow && step.meets(window) && !waited(step))
    }

    fn median_us(&self, book: usize) -> i64 {
        let mut took: Vec<i64> =
            self.steps.iter().filter(|step| step.book == book && !step.slow).map(|step| step.took_us).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().unwrap_or(0)
    }
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
        book.fill();
        book
    }

    /// Makes it in a new database of a MariaDB server.
    pub fn create_at(name: &'static str, server: &MariaDb) -> Self {
        let book = Self::at(name, server, server.database(name));
        book.fill();
        book
    }

    /// The one in `database` of a PostgreSQL cluster.
    pub fn of(name: &'static str, server: &Postgres, database: String) -> Self {
        let database = Database { engine: Engine::Postgres, port: server.port, name: database };
        Self { name, path: server.socket.clone(), database: Some(database) }
    }

    /// The one in `database` of a MariaDB server.
    pub fn at(name: &'static str, server: &MariaDb, database: String) -> Self {
        let database = Database { engine: Engine::MariaDb, port: server.port, name: database };
        Self { name, path: server.socket.clone(), database: Some(database) }
    }

    /// A folder of papers, which is made if it is missing.
    pub fn of_papers(name: &'static str, path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        Self { name, path, database: None }
    }

    /// What is written in a folder of papers: the content of each file. None if it is a database.
    pub(crate) fn papers(&self) -> Option<Vec<String>> {
        if self.database.is_some() || !self.path.is_dir() {
            return None;
        }
        let files = std::fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path());
        Some(files.filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).unwrap()).collect())
    }

    /// The name of its database at a server.
    pub fn database(&self) -> &str {
        &self.database.as_ref().unwrap().name
    }

    /// Whether it is a database of this kind of server.
    pub fn is_at(&self, engine: Engine) -> bool {
        self.database.as_ref().is_some_and(|database| database.engine == engine)
    }

    fn fill(&self) {
        let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 0)")).collect();
        let accounts = accounts.join(", ");
        Client::open(self).ask(&format!("{TABLES} INSERT INTO account VALUES {accounts};")).unwrap();
    }

    /// Whether the engine finds nothing wrong with it; and the rows of a statement, columns separated by `|`.
    pub(crate) fn read(&self, sql: &str) -> (bool, Vec<String>) {
        if self.database.is_some() {
            return (true, Client::open(self).ask(&format!("{sql};")).unwrap());
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
        if let Some(papers) = self.papers() {
            return papers.iter().map(|paper| paper.lines().count() as u64).sum();
        }
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
        let manner = Manner { clerks: count, pause_ms, slow_permille: 0, slow_ms: 0 };
        Self::start_in(program, manner, books)
    }

    /// Lets them begin in this manner.
    pub fn start_in(program: &Path, manner: Manner, books: &[Book]) -> Self {
        let Manner { clerks, pause_ms, slow_permille, slow_ms } = manner;
        let arguments: Vec<String> =
            books.iter().map(|book| serde_json::to_string(&(book.name, &book.path, &book.database)).unwrap()).collect();
        let start = |seed: u64| {
            Command::new(program)
                .args([seed, pause_ms, slow_permille, slow_ms].map(|number| number.to_string()))
                .args(&arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        Self { children: (1..=clerks).map(start).collect(), books: books.to_vec() }
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
        for (clerk, mut child) in self.children.drain(..).enumerate() {
            drop(child.stdin.take());
            let mut said = String::new();
            child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(child.wait().unwrap().success(), "a clerk failed");
            let journal: Journal = serde_json::from_str(&said).unwrap();
            all.steps.extend(journal.steps.into_iter().map(|step| Step { clerk, ..step }));
            all.errors.extend(journal.errors);
        }
        all.steps.sort_unstable_by_key(|step| step.at_us);
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
