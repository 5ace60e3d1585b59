//! The office's database, a day's work in it, and its dump as text.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use rusqlite::{Connection, params};
use tests::Rng;

/// Bytes of database that one payment makes up, with its part of all other tables and indexes.
const PAYMENT_BYTES: u64 = 300;
/// One row of so many is in the dump, which so is about a seventh of the database.
const DUMPED: u64 = 5;

const SCHEMA: &str = "
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, street TEXT, city TEXT, meter TEXT);
CREATE TABLE payment (id INTEGER PRIMARY KEY, customer INTEGER, at TEXT, cents INTEGER, method TEXT, status TEXT,
                      receipt TEXT, note TEXT);
CREATE TABLE reading (id INTEGER PRIMARY KEY, customer INTEGER, at TEXT, litres INTEGER);
";
const INDEXES: &str = "
CREATE INDEX payment_customer ON payment (customer);
CREATE INDEX payment_status ON payment (status, at);
CREATE INDEX reading_customer ON reading (customer, at);
";
const METHODS: [&str; 5] = ["cash", "card", "transfer", "cheque", "debit"];
const STATES: [&str; 5] = ["open", "paid", "due", "void", "part"];

/// Words that occur as those of a language do: few often, many seldom.
pub(crate) struct Words(Vec<String>);

impl Words {
    /// The same for every office.
    pub(crate) fn new() -> Self {
        const SYLLABLES: [&str; 30] = [
            "an", "be", "ka", "lo", "mi", "ter", "son", "burg", "hal", "ver", "st", "ein", "au", "dor", "ing", "er",
            "wald", "ne", "ric", "to", "pa", "gen", "schu", "lt", "ma", "ri", "us", "fel", "d", "o",
        ];
        let mut rng = Rng::new(0);
        let mut word = |_| (0..rng.between(1, 4)).map(|_| *rng.pick(&SYLLABLES)).collect::<String>();
        Self((0..12_000).map(&mut word).collect())
    }

    /// Some words, with a space between two.
    pub(crate) fn text(&self, rng: &mut Rng, count: u64) -> String {
        let mut text = String::new();
        for n in 0..count {
            let even = rng.below(1 << 20) as f64 / f64::from(1 << 20);
            if n > 0 {
                text.push(' ');
            }
            text.push_str(&self.0[(even.powi(3) * self.0.len() as f64) as usize]);
        }
        text
    }
}

/// Makes a database of about `bytes` bytes, with a write-ahead log, as those have that several people work with.
pub(crate) fn create(path: &Path, words: &Words, rng: &mut Rng, bytes: u64) {
    let mut database = Connection::open(path).unwrap();
    database.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").unwrap();
    database.execute_batch(SCHEMA).unwrap();
    let payments = bytes / PAYMENT_BYTES;
    let transaction = database.transaction().unwrap();
    let mut add = transaction.prepare("INSERT INTO customer VALUES (?1, ?2, ?3, ?4, ?5)").unwrap();
    for id in 0..customers(payments) {
        let (name, street, city) = (words.text(rng, 2), words.text(rng, 3), words.text(rng, 1));
        add.execute(params![id, name, street, city, format!("M{:08}", rng.below(100_000_000))]).unwrap();
    }
    drop(add);
    insert(&transaction, words, rng, 1..payments + 1, customers(payments));
    transaction.execute_batch(INDEXES).unwrap();
    transaction.commit().unwrap();
    database.execute_batch("PRAGMA journal_mode = wal").unwrap();
}

/// What a day does to the payments, in ten-thousandths of the rows that there are.
#[derive(Clone, Copy)]
pub(crate) struct Day {
    /// Changed, at random.
    pub(crate) changed: u64,
    /// Added.
    pub(crate) added: u64,
}

impl Day {
    /// A day of an office that grows fast.
    pub(crate) const GROWING: Self = Self { changed: 75, added: 100 };
    /// A day on which only what is there is worked on.
    pub(crate) const CHANGING: Self = Self { changed: 100, added: 0 };
}

/// A day's work.
pub(crate) fn one_day(path: &Path, words: &Words, rng: &mut Rng, day: Day) {
    let mut database = Connection::open(path).unwrap();
    database.execute_batch("PRAGMA synchronous = OFF").unwrap();
    let payments: u64 = database.query_row("SELECT max(id) FROM payment", [], |row| row.get(0)).unwrap();
    let customers: u64 = database.query_row("SELECT count(*) FROM customer", [], |row| row.get(0)).unwrap();
    let transaction = database.transaction().unwrap();
    let mut change =
        transaction.prepare("UPDATE payment SET status = ?2, cents = ?3, note = ?4 WHERE id = ?1").unwrap();
    for _ in 0..payments * day.changed / 10_000 {
        let (id, count) = (rng.between(1, payments), rng.between(10, 30));
        change.execute(params![id, rng.pick(&STATES), rng.below(900_000), words.text(rng, count)]).unwrap();
    }
    drop(change);
    insert(&transaction, words, rng, payments + 1..payments + payments * day.added / 10_000 + 1, customers);
    transaction.commit().unwrap();
}

/// Writes what a program that dumps a database as text would: a line for each row.
pub(crate) fn dump(path: &Path, to: &Path) {
    let database = Connection::open(path).unwrap();
    let mut output = BufWriter::new(std::fs::File::create(to).unwrap());
    writeln!(output, "BEGIN TRANSACTION;{SCHEMA}").unwrap();
    for (table, columns) in [("customer", 5), ("payment", 8)] {
        let sql = format!("SELECT * FROM {table} WHERE id % {DUMPED} = 0 ORDER BY id");
        let mut select = database.prepare(&sql).unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let mut line = format!("INSERT INTO {table} VALUES(");
            for column in 0..columns {
                let comma = if column == 0 { "" } else { "," };
                match row.get_ref(column).unwrap() {
                    rusqlite::types::ValueRef::Integer(number) => write!(line, "{comma}{number}").unwrap(),
                    value => write!(line, "{comma}'{}'", value.as_str().unwrap()).unwrap(),
                }
            }
            writeln!(output, "{line});").unwrap();
        }
    }
    writeln!(output, "{INDEXES}COMMIT;").unwrap();
    output.flush().unwrap();
}

fn customers(payments: u64) -> u64 {
    payments / 60 + 1
}

fn insert(database: &Connection, words: &Words, rng: &mut Rng, ids: std::ops::Range<u64>, customers: u64) {
    let mut payment = database.prepare("INSERT INTO payment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)").unwrap();
    let mut reading = database.prepare("INSERT INTO reading (customer, at, litres) VALUES (?1, ?2, ?3)").unwrap();
    for id in ids {
        let customer = rng.below(customers);
        let at = time(rng);
        // Few are large, and most are in one of the first states.
        let cents = rng.below(950) * rng.below(950);
        let state = rng.below(5).min(rng.below(5)) as usize;
        let receipt = format!("RC-{:010}", rng.below(10_000_000_000));
        let count = rng.between(10, 30);
        let note = words.text(rng, count);
        payment.execute(params![id, customer, at, cents, rng.pick(&METHODS), STATES[state], receipt, note]).unwrap();
        if id % 3 == 0 {
            reading.execute(params![customer, at, rng.below(100_000)]).unwrap();
        }
    }
}

fn time(rng: &mut Rng) -> String {
    let (month, day) = (rng.between(1, 12), rng.between(1, 28));
    let (hour, minute, second) = (rng.between(8, 16), rng.below(60), rng.below(60));
    format!("2026-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}
