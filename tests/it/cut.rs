//! The whole way under load: two databases each of SQLite, PostgreSQL and MariaDB are copied as of one instant while clerks
//! are at work in all of them, brought to S3, and restored into fresh servers; the judge reads nothing but what came back.
//!
//! `OFFSITE_CUT_ROUNDS=20` makes as many rounds; `OFFSITE_CUT_LOAD` is `slow` (transactions that stay open for up to two
//! seconds), `ddl` (tables are made, altered and dropped all the time) or `storm` (twelve clerks without pauses).

mod figures;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::generation::{Document, Grade};
use rusqlite::Connection;
use tests::World;
use tests::captures::{MARIADB_RIGHTS, load_mariadb, load_postgres, mariadb_account, postgres_account};
use tests::clerks::{Book, Clerks, Client, Engine, Manner, judge};
use tests::process::program;
use tests::servers::{Keys, MariaDb, Postgres, SUPERUSER, mariadb, postgres, seaweedfs};

use figures::{Figures, Round};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// An office, and servers that know nothing of it.
pub(crate) struct Office {
    pub(crate) world: World,
    pub(crate) books: Vec<Book>,
    pub(crate) fresh_postgres: Postgres,
    pub(crate) fresh_mariadb: MariaDb,
}

impl Office {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let books = vec![
            Book::create("cash", world.path("cash.db"), "wal"),
            Book::create("billing", world.path("billing.db"), "delete"),
            Book::create_in("stock", postgres()),
            Book::create_in("wages", postgres()),
            Book::create_at("shop", mariadb()),
            Book::create_at("club", mariadb()),
        ];
        let office = Self { world, books, fresh_postgres: Postgres::start(), fresh_mariadb: MariaDb::start() };
        office.init();
        office
    }

    fn init(&self) {
        let path = |name: &str| self.world.path(name).display().to_string();
        self.world.write("s3-secret", Keys::AGENT_A.secret);
        let databases = |engine| -> Vec<String> {
            let books = self.books.iter().filter(|book| book.is_at(engine));
            books.map(|book| format!(",databases={}", book.database())).collect()
        };
        let (pg, my) = (postgres(), mariadb());
        let (pg_user, my_user) = (postgres_account(pg), mariadb_account(my, MARIADB_RIGHTS));
        let (pg_databases, my_databases) = (databases(Engine::Postgres).concat(), databases(Engine::MariaDb).concat());
        let settings = [
            ("--site", "site-a".to_owned()),
            ("--source", format!("name=cash,type=sqlite,path={}", path("cash.db"))),
            ("--source", format!("name=billing,type=sqlite,path={}", path("billing.db"))),
            (
                "--source",
                format!(
                    "name=server,type=postgres,host={},port={},user={pg_user}{pg_databases}",
                    pg.socket.display(),
                    pg.port
                ),
            ),
            ("--source", format!("name=shop,type=mariadb,host={},user={my_user}{my_databases}", my.socket.display())),
            (
                "--store",
                format!(
                    "name=cloud,type=s3,bucket={},endpoint={},access_key={},secret_key=file:{}",
                    seaweedfs().bucket("cut").name,
                    seaweedfs().url(),
                    Keys::AGENT_A.id,
                    path("s3-secret")
                ),
            ),
            ("--new-identity", path("keys/office.txt")),
            ("--new-identity", path("keys/elsewhere.txt")),
            ("--staging", path("staging")),
            ("--state", path("state")),
        ];
        let arguments = settings.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
        self.world.offsite(["init".to_owned()].into_iter().chain(arguments)).expect(0);
        if std::env::var_os("OFFSITE_CUT_ROUNDS").is_none() {
            // Nothing is measured, so the machine may be as busy as it likes.
            self.world.be_patient();
        }
    }

    /// One generation, which must be of one instant.
    pub(crate) fn backup(&self) -> Document {
        let report = self.world.offsite(["--json", "backup"]).expect(0).json();
        let id = report["generation"]["id"].as_str().unwrap();
        let document = std::fs::read(self.world.path("staging").join(id).join("generation.json")).unwrap();
        let document: Document = serde_json::from_slice(&document).unwrap();
        assert_eq!(document.grade, Grade::Exact, "{document:#?}");
        document
    }

    /// Settings of `--into` for the fresh servers.
    pub(crate) fn fresh(&self) -> [String; 2] {
        let (pg, my) = (&self.fresh_postgres, &self.fresh_mariadb);
        [
            format!("source=server,host={},port={},user={SUPERUSER}", pg.socket.display(), pg.port),
            format!("source=shop,host={},user=root", my.socket.display()),
        ]
    }

    /// The books, as they come back from the store into the fresh servers.
    fn restore(&self, generation: &str, more: &[&str]) -> Vec<Book> {
        let to = format!("back-{generation}");
        let [server, shop] = self.fresh();
        let mut arguments = vec!["restore", generation, "--from", "cloud", "--to", &to];
        arguments.extend(["--identity", "keys/office.txt", "--into", &server, "--into", &shop]);
        self.world.offsite([&arguments, more].concat()).expect(0);
        let copy = |book: &Book| match &book.database {
            None => {
                let path = self.world.path(&to).join(book.name).join(format!("{}.db", book.name));
                Book { name: book.name, path, database: None }
            }
            Some(_) if book.is_at(Engine::Postgres) => {
                Book::of(book.name, &self.fresh_postgres, book.database().to_owned())
            }
            Some(_) => Book::at(book.name, &self.fresh_mariadb, book.database().to_owned()),
        };
        self.books.iter().map(copy).collect()
    }
}

/// Sets it when this is dropped, also by a test that fails.
pub(crate) struct Until<'a>(pub(crate) &'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes, alters and drops tables in all books until `done`.
pub(crate) fn meddle(books: &[Book], done: &AtomicBool) {
    let mut clients: Vec<Client> = books.iter().filter(|book| book.database.is_some()).map(Client::open).collect();
    let files: Vec<Connection> =
        books.iter().filter(|book| book.database.is_none()).map(|book| Connection::open(&book.path).unwrap()).collect();
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let side = format!(
            "CREATE TABLE side (id INTEGER PRIMARY KEY); INSERT INTO side VALUES ({number}); \
             ALTER TABLE side ADD COLUMN more INTEGER; DROP TABLE side;"
        );
        clients.iter_mut().for_each(|client| drop(client.ask(&side).unwrap()));
        for file in &files {
            file.busy_timeout(Duration::from_secs(60)).unwrap();
            file.execute_batch(&side).unwrap();
        }
        // Now and then a table that is in use.
        if number % 8 == 7 {
            let clients_count = clients.len();
            clients[number / 8 % clients_count]
                .ask("ALTER TABLE account ADD COLUMN note INTEGER; ALTER TABLE account DROP COLUMN note;")
                .unwrap();
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// The load that was asked for, and how clerks make it.
pub(crate) fn load() -> (String, Manner) {
    let load = std::env::var("OFFSITE_CUT_LOAD").unwrap_or_else(|_| "usual".to_owned());
    let manner = match load.as_str() {
        "usual" => Manner { clerks: 6, pause_ms: 60, slow_permille: 0, slow_ms: 0 },
        "slow" => Manner { clerks: 6, pause_ms: 30, slow_permille: 10, slow_ms: 2000 },
        "ddl" => Manner { clerks: 6, pause_ms: 60, slow_permille: 0, slow_ms: 0 },
        "storm" => Manner { clerks: 12, pause_ms: 0, slow_permille: 0, slow_ms: 0 },
        other => panic!("there is no load {other}"),
    };
    (load, manner)
}

fn now_us() -> i64 {
    agent::clock::now().as_microsecond()
}

#[test]
fn an_office_at_work_comes_back_from_s3_as_it_was_at_one_instant() {
    let rounds: usize = std::env::var("OFFSITE_CUT_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let (load, manner) = load();
    let office = Office::new();
    let clerks = Clerks::start_in(Path::new(CLERK), manner, &office.books);
    let (begin, done) = (Instant::now(), AtomicBool::new(false));
    let mut made = Vec::new();
    std::thread::scope(|scope| {
        if load == "ddl" {
            scope.spawn(|| meddle(&office.books, &done));
        }
        let _until = Until(&done);
        for round in 0..rounds {
            // Otherwise nothing was going on, and anything would pass.
            let before = now_us();
            clerks.work(20);
            let began = Instant::now();
            let began_us = now_us();
            let document = office.backup();
            let ended_us = now_us();
            clerks.work(20);
            let quiet = [(before, began_us), (ended_us, now_us())];
            let more: &[&str] = if round == 0 { &[] } else { &["--replace-databases"] };
            let copies = office.restore(document.generation.as_str(), more);
            judge(&copies).assert_of_one_instant(office.books.len() * 20);
            made.push(Round { document, quiet, took: began.elapsed() });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let journal = clerks.stop();
    assert_eq!(journal.errors, Vec::<String>::new());
    let figures = Figures { load: &load, books: &office.books, rounds: made, journal, seconds };
    figures.tell();
    if std::env::var_os("OFFSITE_CUT_ROUNDS").is_some() {
        figures.assert_promises();
    }
}

#[test]
#[should_panic(expected = "there is nothing to judge")]
fn copies_are_not_judged_if_hardly_anything_was_written() {
    let world = World::new();
    let books = [
        Book::create("cash", world.path("cash.db"), "wal"),
        Book::create("billing", world.path("billing.db"), "delete"),
    ];
    judge(&books).assert_of_one_instant(1);
}

#[test]
fn the_tools_of_the_engines_one_after_another_do_not_pass_the_judge() {
    let world = World::new();
    let books = [
        Book::create_at("shop", mariadb()),
        Book::create("cash", world.path("cash.db"), "wal"),
        Book::create_in("stock", postgres()),
    ];
    let clerks = Clerks::start(Path::new(CLERK), 3, 5, &books);
    clerks.work(20);
    let dump = world.path("shop.sql");
    let mut command = std::process::Command::new(program("mariadb-dump"));
    command.args(["--no-defaults", "--single-transaction", "--user=root", "--socket"]).arg(&mariadb().socket);
    assert!(command.arg("--result-file").arg(&dump).arg(books[0].database()).status().unwrap().success());
    clerks.work(20);
    let copy = world.path("copy.db");
    let source = Connection::open(&books[1].path).unwrap();
    source.busy_timeout(Duration::from_secs(60)).unwrap();
    source.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    clerks.work(20);
    let file = world.path("stock.dump");
    let mut command = std::process::Command::new(program("pg_dump"));
    command.args(["--format=custom", "--username", SUPERUSER, "--port", &postgres().port.to_string(), "--host"]);
    command.arg(&postgres().socket).arg("--file").arg(&file).arg(books[2].database());
    assert!(command.status().unwrap().success());
    clerks.stop();
    let copies = [
        load_mariadb(mariadb(), &books[0], &dump),
        Book { name: "cash", path: copy, database: None },
        load_postgres(postgres(), &books[2], &file),
    ];
    let verdict = judge(&copies);
    assert!(verdict.without_cause > 0 && verdict.lost > 0, "{verdict:?}");
    assert!(verdict.torn.is_empty(), "{verdict:?}");
}
