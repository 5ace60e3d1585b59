//! The whole way under load: two databases each of SQLite, PostgreSQL and MariaDB are copied as of one instant while clerks
//! are at work in all of them, brought to S3, and restored into fresh servers; the judge reads nothing but what came back.
//!
//! `OFFSITE_CUT_ROUNDS=20` makes as many rounds; `OFFSITE_CUT_LOAD` is `slow` (transactions that stay open for up to two
//! seconds), `ddl` (tables are made, altered and dropped all the time) or `storm` (twelve clerks without pauses).

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::capture::CutSettings;
use agent::generation::{CutMethod, Document, Grade};
use rusqlite::Connection;
use tests::World;
use tests::captures::{MARIADB_RIGHTS, load_mariadb, load_postgres, mariadb_account, postgres_account};
use tests::clerks::{Book, Clerks, Client, Engine, Journal, Manner, Waits, Window, judge};
use tests::process::program;
use tests::servers::{Keys, MariaDb, Postgres, SUPERUSER, mariadb, postgres, seaweedfs};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// An office, and servers that know nothing of it.
struct Office {
    world: World,
    books: Vec<Book>,
    fresh_postgres: Postgres,
    fresh_mariadb: MariaDb,
}

impl Office {
    fn new() -> Self {
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
    fn backup(&self) -> Document {
        let report = self.world.offsite(["--json", "backup"]).expect(0).json();
        let id = report["generation"]["id"].as_str().unwrap();
        let document = std::fs::read(self.world.path("staging").join(id).join("generation.json")).unwrap();
        let document: Document = serde_json::from_slice(&document).unwrap();
        assert_eq!(document.grade, Grade::Exact, "{document:#?}");
        document
    }

    /// Settings of `--into` for the fresh servers.
    fn fresh(&self) -> [String; 2] {
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

/// So many windows without a hold are looked at for each with one.
const CONTROLS: usize = 10;

/// What a round showed.
struct Round {
    document: Document,
    /// When everybody was at work and nothing of ours was: right before the backup, and right after it.
    quiet: [Window; 2],
    took: Duration,
}

impl Round {
    /// When its writers were held: from the moment at which the first were, which were let go right after the pins (so this
    /// is a little too early), until the last were, whose database was copied first.
    fn hold(&self) -> Window {
        let held = |copied: bool| {
            let is_copied = |mode: Option<&String>| mode.is_some_and(|mode| mode == "rollback");
            let sources = self.document.sources.iter();
            let sources = sources.filter(|source| is_copied(source.position.get("journal_mode")) == copied);
            sources.map(|source| source.held_us.cast_signed()).max().unwrap_or(0)
        };
        let begin = self.document.cut.not_after.as_microsecond() - held(false);
        (begin, begin + held(false).max(held(true)))
    }

    /// As long a time without a hold: another one for each number.
    fn control(&self, number: usize) -> Window {
        let (from, to) = self.quiet[number % 2];
        let (begin, end) = self.hold();
        let at = from + (to - from) * (number as i64 / 2) / (CONTROLS as i64 / 2);
        (at, at + end - begin)
    }
}

/// What all rounds showed.
struct Figures<'a> {
    load: &'a str,
    books: &'a [Book],
    rounds: Vec<Round>,
    journal: Journal,
    seconds: f64,
}

impl Figures<'_> {
    fn rate(&self) -> f64 {
        self.journal.steps.len() as f64 / 2.0 / self.seconds
    }

    /// What `of` measures in the holds; and in as many windows of the same length without a hold: who happens to be under way
    /// at a certain time is slower than usual anyway, since slow steps are met more often than fast ones, and writers wait for each other.
    fn compare(&self, of: impl Fn(&[Window]) -> Waits) -> Compared {
        let held = of(&self.rounds.iter().map(Round::hold).collect::<Vec<_>>());
        let set = |number| of(&self.rounds.iter().map(|round| round.control(number)).collect::<Vec<_>>());
        let sets: Vec<Waits> = (0..CONTROLS).map(set).collect();
        let middle = |of: fn(&Waits) -> i64| {
            let mut all: Vec<i64> = sets.iter().map(of).collect();
            all.sort_unstable();
            all[CONTROLS / 2]
        };
        Compared { control: (middle(Waits::median_us), middle(Waits::most_us)), held }
    }

    /// How much longer than usual steps took that met a hold.
    fn steps(&self) -> Compared {
        self.compare(|windows| self.journal.longer(windows, None))
    }

    /// How long clerks that met a hold had a step under way from its beginning on.
    fn clerks(&self) -> Compared {
        self.compare(|windows| self.journal.longest(windows))
    }

    fn tell(&self) {
        let cuts = || self.rounds.iter().map(|round| &round.document.cut);
        let mut ours: Vec<u64> = cuts().map(|cut| cut.held_us_max / 1000).collect();
        let mut tries: Vec<u32> = cuts().map(|cut| cut.tries).collect();
        ours.sort_unstable();
        tries.sort_unstable();
        let optimistic = cuts().filter(|cut| cut.method == CutMethod::Optimistic).count();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for why in cuts().flat_map(|cut| &cut.failed_tries) {
            *reasons.entry(why.as_str()).or_default() += 1;
        }
        let longest = self.journal.steps.iter().filter(|step| !step.slow).map(|step| step.took_us).max();
        eprintln!(
            "{}: {} rounds, {:.0} pieces of business a second; the longest step of a clerk from the beginning of a hold on: {}; \
             steps longer than usual: {}; the longest step of all took {} ms; by our own clock {ours:?} ms; tries {tries:?}, \
             {optimistic} without a barrier; {:.1} s for a backup and a restore; tries failed because {reasons:#?}",
            self.load,
            self.rounds.len(),
            self.rate(),
            self.clerks(),
            self.steps(),
            longest.unwrap_or(0) / 1000,
            self.rounds.iter().map(|round| round.took).sum::<Duration>().as_secs_f64() / self.rounds.len() as f64
        );
        for (number, book) in self.books.iter().enumerate() {
            let steps = self.compare(|windows| self.journal.longer(windows, Some(number)));
            eprintln!("  {}: steps longer than usual: {steps}", book.name);
        }
    }

    /// What is promised. A machine that has much else to do would not keep it, so it is looked at by hand.
    fn assert_promises(&self) {
        let (steps, clerks) = (self.steps(), self.clerks());
        let limit = i64::try_from(CutSettings::default().hold_limit.as_micros()).unwrap();
        assert!(self.rate() >= 40.0, "{}", self.rate());
        for Compared { held, control: (median, most) } in [steps, clerks] {
            assert!(held.median_us() - median < 30_000 && held.most_us() <= limit + most);
        }
    }
}

/// What was measured in holds, and without them: median and most, each the median of so many sets of windows.
struct Compared {
    held: Waits,
    control: (i64, i64),
}

impl Display for Compared {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let ms = |us: i64| us as f64 / 1000.0;
        let Self { held, control: (median, most) } = self;
        let (count, held, worst) = (held.count(), ms(held.median_us()), ms(held.most_us()));
        write!(
            f,
            "{count}, {held:.1} ms (median), {worst:.1} ms (most), without a hold {:.1} ms, {:.1} ms",
            ms(*median),
            ms(*most)
        )
    }
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
        done.store(true, Ordering::Relaxed);
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

/// The commands of the README under the heading of new servers, with other places in them.
fn commands_of_the_readme(places: &[(&str, String)]) -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("**Databases onto a new server.**").unwrap();
    let block = rest.split("```").nth(1).unwrap();
    places.iter().fold(block.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "the README does not say {theirs}");
        text.replace(theirs, ours)
    })
}

#[test]
fn the_disaster_procedure_of_the_readme_works_and_databases_in_use_are_not_touched() {
    let office = Office::new();
    let account = office.world.path("").file_name().unwrap().to_str().unwrap().replace(['-', '.'], "_");
    mariadb().sql("mysql", &format!("CREATE USER {account}@localhost IDENTIFIED BY 'x'"));
    office.backup();
    let path = |name: &str| office.world.path(name).display().to_string();
    let (pg, my) = (&office.fresh_postgres, &office.fresh_mariadb);
    let script = commands_of_the_readme(&[
        ("/srv/restored", path("restored")),
        ("office-key.txt", path("keys/office.txt")),
        ("host=/run/postgresql", format!("host={},port={}", pg.socket.display(), pg.port)),
        ("/run/mysqld/mysqld.sock", my.socket.display().to_string()),
        ("mariadb --socket", "mariadb --no-defaults --socket".to_owned()),
    ]);
    let outcome = office.world.shell(&script).expect(0);
    for book in &office.books[2..] {
        assert!(outcome.stdout.contains(&format!("In its place: {}", book.database())), "{outcome}");
    }
    assert_eq!(my.sql("mysql", &format!("SELECT COUNT(*) FROM global_priv WHERE User = '{account}'")), "1");

    // Again: everything is there, so nothing is touched, unless it is asked for or goes by another name.
    let book = &office.books[2];
    pg.sql(book.database(), "CREATE TABLE new_work (id INTEGER)");
    my.sql(office.books[4].database(), "CREATE TABLE new_work (id INTEGER)");
    let [server, shop] = office.fresh();
    let restore = |into: &str, more: &[&str]| {
        let to = format!("again-{}", more.len());
        let arguments = ["restore", "latest", "--to", &to, "--overwrite", "--into", into];
        office.world.offsite([&arguments[..], more].concat())
    };
    for into in [&server, &shop] {
        let outcome = restore(into, &[]).expect(1);
        assert!(outcome.stderr.contains("holds something already"), "{outcome}");
    }
    assert_eq!(pg.sql(book.database(), "SELECT count(*) FROM new_work"), "0");
    assert_eq!(my.sql(office.books[4].database(), "SELECT COUNT(*) FROM new_work"), "0");
    restore(&format!("{server},database={},as=another", book.database()), &[]).expect(0);
    assert_eq!(pg.sql("another", "SELECT count(*) FROM account"), "100");
    for into in [&server, &shop] {
        restore(into, &["--replace-databases"]).expect(0);
    }
    let gone = pg.psql(SUPERUSER, book.database(), "SELECT count(*) FROM new_work").output().unwrap();
    assert!(!gone.status.success());

    // A dump that is not whole leaves nothing behind.
    let dump = office.world.path("restored/shop").join(format!("{}.sql", office.books[5].database()));
    let text = std::fs::read_to_string(&dump).unwrap();
    let folder = office.world.make_folder("torn");
    std::fs::copy(
        office.world.path("restored/shop").join(format!("{}.sql", office.books[4].database())),
        folder.join("one.sql"),
    )
    .unwrap();
    std::fs::write(folder.join("two.sql"), format!("{text}\nINSERT INTO nothing VALUES (1);\n")).unwrap();
    let server = agent::into::Server {
        host: Some(my.socket.display().to_string()),
        user: Some("root".to_owned()),
        ..agent::into::Server::default()
    };
    let request = agent::into::IntoRequest { folder: &folder, server: &server, only: None, replace: false, jobs: 2 };
    let error = agent::into::load(&request, &|_| ()).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    assert_eq!(my.sql("mysql", "SHOW DATABASES LIKE 'one'"), "");
}

#[test]
fn of_an_unchanged_server_next_to_nothing_is_sent_and_of_a_changed_one_what_changed() {
    let world = World::new();
    world.make_folder("usb");
    let path = |name: &str| world.path(name).display().to_string();
    let (pg, my) = (postgres(), mariadb());
    let (pg_database, my_database) = (pg.database("bulk"), my.database("bulk"));
    let text = "CONCAT('account ', i, ' ', MD5(CONCAT(i, 'a')), ' paid ', MD5(CONCAT(i, 'b')), MD5(CONCAT(i, 'c')))";
    let table = "CREATE TABLE bulk (i INTEGER PRIMARY KEY, content TEXT); INSERT INTO bulk SELECT i,";
    pg.sql(&pg_database, &format!("{table} {text} FROM generate_series(1, 60000) i"));
    my.sql(&my_database, &format!("{table} {text} FROM (SELECT seq AS i FROM seq_1_to_60000) numbers"));
    let arguments = [
        "--site=office".to_owned(),
        "--one-key-is-enough".to_owned(),
        format!(
            "--source=name=server,type=postgres,host={},port={},user={},databases=postgres,databases={pg_database}",
            pg.socket.display(),
            pg.port,
            postgres_account(pg)
        ),
        format!(
            "--source=name=shop,type=mariadb,host={},user={},databases={my_database},databases={}",
            my.socket.display(),
            mariadb_account(my, MARIADB_RIGHTS),
            my.database("empty")
        ),
        format!("--store=name=usb,type=directory,path={}", path("usb")),
        format!("--new-identity={}", path("keys/office.txt")),
        format!("--staging={}", path("staging")),
        format!("--state={}", path("state")),
    ];
    world.offsite(["init".to_owned()].into_iter().chain(arguments)).expect(0);
    let backup = || {
        let report = world.offsite(["--json", "backup"]).expect(0).json();
        report["stores"][0]["sent_bytes"].as_u64().unwrap() as f64
    };
    let (full, unchanged) = (backup(), backup());
    let change = "UPDATE bulk SET content = CONCAT(content, ' today') WHERE MOD(i * 7919, 100) = 0";
    pg.sql(&pg_database, change);
    my.sql(&my_database, change);
    let changed = backup();
    let percent = |part: f64| 100.0 * part / full;
    eprintln!("of {full} bytes: unchanged {:.2} %, 1 % of rows changed {:.2} %", percent(unchanged), percent(changed));
    assert!(percent(unchanged) < 1.0 && percent(changed) < 10.0, "{full} {unchanged} {changed}");
}
