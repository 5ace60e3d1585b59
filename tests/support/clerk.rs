//! A clerk: a process that does business in several databases until its standard input ends, and then says how it went.
//!
//! `clerk SEED PAUSE_MS SLOW_PERMILLE SLOW_MS BOOK…`, each book as JSON: its name, its path, and the database of a server. A
//! path that is a folder is one of papers: what is entered is written to a file in it, and is on disk then.
//! Every piece of business writes its cause in one database and, when that is committed, its effect in another.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program of the tests: a panic is a failed test that says where"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, TransactionBehavior};
use tests::Rng;
use tests::clerks::{self, ACCOUNTS, Client, Journal, Step};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed: u64 = arguments[0].parse().unwrap();
    let pause = Duration::from_millis(arguments[1].parse().unwrap());
    let (slow_permille, slow_ms): (u64, u64) = (arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
    let mut books: Vec<Book> = arguments[4..].iter().map(|argument| Book::open(argument, seed)).collect();
    static DONE: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        DONE.store(true, Ordering::Relaxed);
    });
    let mut rng = Rng::new(seed);
    let mut journal = Journal::default();
    for number in 0.. {
        if DONE.load(Ordering::Relaxed) {
            break;
        }
        let first = rng.below(books.len() as u64) as usize;
        let second = (first + 1 + rng.below(books.len() as u64 - 1) as usize) % books.len();
        let id = format!("{seed}-{number}");
        let cause = books[first].name.clone();
        for (book, cause) in [(first, None), (second, Some(cause.as_str()))] {
            let (at, begin) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap(), Instant::now());
            let slow = (rng.below(1000) < slow_permille).then(|| Duration::from_millis(rng.below(slow_ms + 1)));
            match books[book].enter(&id, cause, slow, &mut rng) {
                Ok(()) => {}
                Err(error) => journal.errors.push(error),
            }
            let (at_us, took_us) =
                (at.as_micros().try_into().unwrap(), begin.elapsed().as_micros().try_into().unwrap());
            journal.steps.push(Step { clerk: 0, book, at_us, took_us, slow: slow.is_some() });
        }
        std::thread::sleep(pause);
    }
    println!("{}", serde_json::to_string(&journal).unwrap());
}

/// How long a lock is waited for. Five seconds are enough for everybody, which shows where that is measured; otherwise the
/// machine may be as busy as it likes.
fn patience() -> Duration {
    let measured = std::env::var_os("OFFSITE_CUT_ROUNDS").is_some();
    Duration::from_secs(if measured { 5 } else { 120 })
}

struct Book {
    name: String,
    ledger: Ledger,
}

enum Ledger {
    Sqlite(Connection),
    Server(Client),
    Papers(File),
}

impl Book {
    fn open(argument: &str, seed: u64) -> Self {
        let (name, path, database): (String, PathBuf, Option<clerks::Database>) =
            serde_json::from_str(argument).unwrap();
        let ledger = if path.is_dir() && database.is_none() {
            let file = File::options().create(true).append(true).open(path.join(format!("clerk-{seed}"))).unwrap();
            // Its name as well.
            File::open(&path).unwrap().sync_all().unwrap();
            Ledger::Papers(file)
        } else if database.is_some() {
            Ledger::Server(Client::open(&clerks::Book { name: "", path, database }))
        } else {
            let connection = Connection::open(path).unwrap();
            connection.busy_timeout(patience()).unwrap();
            Ledger::Sqlite(connection)
        };
        Self { name, ledger }
    }

    /// Enters a step; a slow one stays open for that long before it is committed.
    fn enter(&mut self, id: &str, cause: Option<&str>, slow: Option<Duration>, rng: &mut Rng) -> Result<(), String> {
        if let Ledger::Papers(file) = &mut self.ledger {
            let line = format!("{id}|{}\n", cause.unwrap_or_default());
            let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
            return written.map_err(|error| error.to_string());
        }
        let cause = cause.map_or("NULL".to_owned(), |cause| format!("'{cause}'"));
        let mut text = format!("INSERT INTO event (id, cause) VALUES ('{id}', {cause}); UPDATE tally SET n = n + 1;");
        let amount = rng.between(1, 100).cast_signed();
        let mut entries = [(rng.below(ACCOUNTS), amount), (rng.below(ACCOUNTS), -amount)];
        // In the same order everywhere, so that two clerks never wait for each other.
        entries.sort_unstable();
        for (account, amount) in entries {
            text.push_str(&format!(" UPDATE account SET balance = balance + {amount} WHERE id = {account};"));
        }
        match &mut self.ledger {
            Ledger::Sqlite(connection) => {
                let mut enter = || {
                    let work = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                    work.execute_batch(&text)?;
                    std::thread::sleep(slow.unwrap_or_default());
                    work.commit()
                };
                enter().map_err(|error: rusqlite::Error| error.to_string())
            }
            Ledger::Papers(_) => Ok(()),
            Ledger::Server(client) => match slow {
                None => client.ask(&format!("BEGIN; {text} COMMIT;")).map(drop),
                Some(slow) => {
                    client.ask(&format!("BEGIN; {text}"))?;
                    std::thread::sleep(slow);
                    client.ask("COMMIT;").map(drop)
                }
            },
        }
    }
}
