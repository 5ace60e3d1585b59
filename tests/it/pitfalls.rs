//! What locks of SQLite do to those who do not know: they belong to a process and not to a connection, and whoever does not
//! wait for them is refused at once. The holder is spoken to as the program speaks to it.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent::capture::CutSettings;
use agent::generation::{CutMethod, Grade};
use rusqlite::{Connection, ErrorCode};
use rustix::fs::{CWD, Mode, mkfifoat};
use tests::captures::{run_with, sqlite_source};
use tests::clerks::Book;
use tests::{World, offsite_program, wait_until};

use crate::cut::Until;

/// A holder; dropped, it is gone.
struct Holder {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    fn start() -> Self {
        let mut command = Command::new(offsite_program());
        let mut child = command.arg("holder").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, answers: BufReader::new(output).lines() }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next answer that is not about how far it is.
    fn answer(&mut self) -> String {
        self.answers.by_ref().map(Result::unwrap).find(|line| !line.contains("progress")).unwrap()
    }

    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// How often it has the file of this book open.
    fn open_files(&self, book: &Book) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        files.filter(|file| std::fs::read_link(file.as_ref().unwrap().path()).is_ok_and(|to| to == book.path)).count()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether a program that does not wait is told that the book is locked.
fn is_locked(book: &Book) -> bool {
    let connection = Connection::open(&book.path).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Ok(()) => false,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn writers_stay_held_whatever_files_the_holder_opens_and_closes() {
    let world = World::new();
    let office = world.make_folder("office").canonicalize().unwrap();
    let billing = Book::create("billing", office.join("billing.db"), "delete");
    let cash = Book::create("cash", office.join("cash.db"), "wal");
    // The same file by other names, which is opened to be refused.
    std::fs::hard_link(&billing.path, office.join("twin.db")).unwrap();
    std::os::unix::fs::symlink(&cash.path, office.join("link.db")).unwrap();
    let to = |name: &str| world.path(name).display().to_string();
    let mut holder = Holder::start();
    let paths = ["billing.db", "cash.db", "twin.db", "link.db"].map(|name| office.join(name));
    let opened = holder.ask(&format!(r#"{{"open":{{"paths":{}}}}}"#, serde_json::to_string(&paths).unwrap()));
    assert_eq!(opened.matches("another source is the same database already").count(), 2, "{opened}");
    assert!(!is_locked(&billing) && !is_locked(&cash));
    for ask in [r#"{"hold":{"limit_us":60000000}}"#, r#""pin""#, r#""prove""#] {
        assert_eq!(holder.ask(ask), r#""done""#);
        assert!(is_locked(&billing) && is_locked(&cash), "{ask}");
    }
    assert_eq!(holder.ask(r#"{"release":{"limit_us":60000000}}"#), r#""done""#);
    // The one with a rollback journal stays held until it has been copied.
    assert!(is_locked(&billing) && !is_locked(&cash));
    let copy = |number: usize, name: &str, like: Option<String>| {
        let ask = serde_json::json!({
            "database": number, "to": to(name), "known": null, "like": like, "limit_us": 60_000_000, "pin_within_us": null
        });
        serde_json::json!({ "copy": ask }).to_string()
    };
    let copied = holder.ask(&copy(1, "cash-copy.db", None));
    assert!(copied.contains("copied"), "{copied}");
    assert!(is_locked(&billing));
    // It has opened the file by itself, and waits for the copy of last time, which is nothing but a pipe.
    let before = holder.open_files(&billing);
    mkfifoat(CWD, world.path("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    holder.tell(&copy(0, "billing-copy.db", Some(to("pipe"))));
    wait_until(Duration::from_secs(60), "the holder to open the file", || holder.open_files(&billing) > before);
    assert!(is_locked(&billing));
    drop(std::fs::File::options().write(true).open(world.path("pipe")).unwrap());
    let copied = holder.answer();
    assert!(copied.contains("copied"), "{copied}");
    assert!(!is_locked(&billing));
    assert_eq!(holder.ask(r#""close""#), r#""done""#);
}

#[test]
fn a_program_that_waits_for_no_lock_does_not_notice_that_databases_with_logs_are_copied() {
    let world = World::new();
    let books =
        [Book::create("cash", world.path("cash.db"), "wal"), Book::create("billing", world.path("billing.db"), "wal")];
    let sources: Vec<_> = books.iter().map(sqlite_source).collect();
    // It is tried for as long as it takes, and nobody is held.
    let cut = CutSettings { optimistic_tries: u32::MAX, ..CutSettings::default() };
    let (done, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let open = |book: &Book| {
                let connection = Connection::open(&book.path).unwrap();
                connection.busy_timeout(Duration::ZERO).unwrap();
                connection
            };
            let connections = [open(&books[0]), open(&books[1])];
            while !done.load(Ordering::Relaxed) {
                for connection in &connections {
                    connection.execute_batch("UPDATE tally SET n = n + 1").unwrap();
                    commits.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let _until = Until(&done);
        let work = || {
            let before = commits.load(Ordering::Relaxed);
            wait_until(Duration::from_secs(60), "commits", || commits.load(Ordering::Relaxed) > before + 10);
        };
        work();
        let (_, document) = run_with(&world, &sources, &cut, &|_| ());
        work();
        assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Optimistic), "{document:#?}");
    });
}
