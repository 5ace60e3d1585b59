//! What may go wrong while writers are held: the run, a session or a server stops or dies at that very moment. Whatever
//! happens, writers go on, nothing is called exact that is not, nothing is left behind, and the next run works.
//!
//! The moment is found by a `mariadb` of the tests' own, which stands before the real one in the search path and passes on
//! what it is told until it has been told to hold.
//!
//! `OFFSITE_CUT_OPEN_SECONDS=30` keeps a transaction open for so long that is otherwise ended as soon as the others have gone on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::capture::{CutSettings, Event, SourceConfig, SourceKind};
use agent::generation::{CutMethod, Document, Grade};
use rusqlite::Connection;
use rustix::process::Signal;
use tests::captures::{
    MARIADB_RIGHTS, copy_sqlite, load_mariadb, load_postgres, mariadb_account, mariadb_source, newest_staged, patient,
    postgres_account, postgres_source, run_with, sqlite_source,
};
use tests::clerks::{Book, Clerks, Client, Engine, judge};
use tests::line::Line;
use tests::process::{program, search_path};
use tests::servers::{MariaDb, Postgres, mariadb, postgres};
use tests::{Offsite, World, office, wait_until};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// An office of three engines whose servers nobody else uses.
struct Office {
    world: World,
    books: Vec<Book>,
    postgres: Postgres,
    mariadb: MariaDb,
    /// Accounts at the two.
    accounts: [String; 2],
}

impl Office {
    fn new() -> Self {
        let office = Self::without_program();
        office.init(&office.places());
        office
    }

    /// Where its servers are, and as whom they are copied: settings of sources.
    fn places(&self) -> [String; 2] {
        let (pg, my) = (&self.postgres, &self.mariadb);
        [
            format!("host={},port={},user={}", pg.socket.display(), pg.port, self.accounts[0]),
            format!("host={},user={}", my.socket.display(), self.accounts[1]),
        ]
    }

    /// The same with one of them at the other end of `line`.
    fn places_by(&self, line: &Line, engine: Engine) -> [String; 2] {
        let mut places = self.places();
        let secret = self.world.write("password", "hidden");
        let [pg, my] = &self.accounts;
        let (at, account) = match engine {
            Engine::Postgres => {
                self.postgres.sql("postgres", &format!("ALTER ROLE {pg} PASSWORD 'hidden'"));
                (0, pg)
            }
            Engine::MariaDb => {
                let grant = format!("GRANT {MARIADB_RIGHTS} ON *.* TO {my}@'127.0.0.1' IDENTIFIED BY 'hidden'");
                self.mariadb.sql("mysql", &grant);
                (1, my)
            }
        };
        places[at] = format!("host=127.0.0.1,port={},user={account},password=file:{}", line.port(), secret.display());
        places
    }

    fn without_program() -> Self {
        let (world, postgres, mariadb) = (World::new(), Postgres::start(), MariaDb::start());
        let books = vec![
            Book::create("cash", world.path("cash.db"), "wal"),
            Book::create("billing", world.path("billing.db"), "delete"),
            Book::create_in("stock", &postgres),
            Book::create_at("shop", &mariadb),
        ];
        let accounts = [postgres_account(&postgres), mariadb_account(&mariadb, MARIADB_RIGHTS)];
        Self { world, books, postgres, mariadb, accounts }
    }

    /// With its servers at these places.
    fn init(&self, [postgres, mariadb]: &[String; 2]) {
        let path = |name: &str| self.world.path(name).display().to_string();
        self.world.make_folder("usb");
        let sources = [
            format!("name=cash,type=sqlite,path={}", path("cash.db")),
            format!("name=billing,type=sqlite,path={}", path("billing.db")),
            format!("name=server,type=postgres,{postgres}"),
            format!("name=shop,type=mariadb,{mariadb}"),
        ];
        let mut arguments = vec!["init".to_owned(), "--site=office".to_owned(), "--one-key-is-enough".to_owned()];
        arguments.extend(sources.map(|source| format!("--source={source}")));
        arguments.push(format!("--store=name=usb,type=directory,path={}", path("usb")));
        arguments.push(format!("--new-identity={}", path("keys/office.txt")));
        arguments.extend([format!("--staging={}", path("staging")), format!("--state={}", path("state"))]);
        self.world.offsite(arguments).expect(0);
        self.world.be_patient();
    }

    /// A backup, in which `action` is taken by the shell once, when MariaDB's writers are about to be held.
    fn backup_with(&self, action: &str) -> Offsite {
        let folder = self.world.make_folder("tools");
        let real = program("mariadb");
        let script = format!(
            "#!/bin/sh\n{{\n  while IFS= read -r line; do\n    printf '%s\\n' \"$line\"\n    case $line in\n    \
             'BACKUP STAGE BLOCK_COMMIT;') if mkdir '{}' 2>/dev/null; then {action}; fi ;;\n    esac\n  done\n}} | \
             exec {} \"$@\"\n",
            self.world.path("held").display(),
            real.display()
        );
        let path = self.world.write("tools/mariadb", script);
        office::set_mode(&path, 0o755);
        let others = search_path();
        let folders = std::iter::once(folder).chain(std::env::split_paths(&others));
        self.world.offsite(["--json", "backup"]).env("PATH", std::env::join_paths(folders).unwrap())
    }

    fn wait_for_the_action(&self) {
        let held = self.world.path("held");
        wait_until(Duration::from_secs(120), "writers are held", || held.exists());
    }

    /// What the newest generation says, whose copies are judged if it says that it is exact.
    #[track_caller]
    fn assert_exact(&self) -> Document {
        let (folder, document) = newest_staged(&self.world);
        assert_eq!(document.grade, Grade::Exact, "{document:#?}");
        let data = folder.join("data");
        let copy = |book: &Book| match &book.database {
            None => copy_sqlite(&self.world, book, &data.join(book.name).join(format!("{}.db", book.name))),
            Some(_) if book.is_at(Engine::Postgres) => {
                load_postgres(&self.postgres, book, &data.join("server").join(format!("{}.dump", book.database())))
            }
            Some(_) => load_mariadb(&self.mariadb, book, &data.join("shop").join(format!("{}.sql", book.database()))),
        };
        judge(&self.books.iter().map(copy).collect::<Vec<_>>()).assert_of_one_instant(40);
        document
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let [pg, my] = &self.accounts;
        let pg_left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{pg}'");
        let my_left = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{my}'");
        wait_until(Duration::from_secs(60), "our sessions to end", || {
            self.postgres.sql("postgres", &pg_left) == "0" && self.mariadb.sql("mysql", &my_left) == "0"
        });
    }
}

#[test]
fn a_run_that_is_stopped_while_it_holds_holds_nobody_and_finds_out() {
    let office = Office::new();
    let clerks = Clerks::start(Path::new(CLERK), 3, 10, &office.books);
    clerks.work(20);
    let running = office.backup_with("kill -s STOP $PPID").start();
    office.wait_for_the_action();
    wait_until(Duration::from_secs(60), "the run to stand still", || running.stands_still());
    // They go on while the run stands still.
    clerks.work(20);
    running.signal(Signal::CONT);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    clerks.work(20);
    let document = office.assert_exact();
    assert!(document.cut.tries > 1 && !document.cut.failed_tries.is_empty(), "{document:#?}");
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
    office.assert_nothing_left();
}

#[test]
fn a_run_that_is_killed_while_it_holds_leaves_nothing_behind_and_the_next_one_works() {
    let office = Office::new();
    let clerks = Clerks::start(Path::new(CLERK), 3, 10, &office.books);
    clerks.work(20);
    let outcome = office.backup_with("kill -s KILL $PPID").run();
    assert_eq!(outcome.code, None, "{outcome}");
    clerks.work(20);
    office.assert_nothing_left();
    office.world.offsite(["backup"]).expect(0);
    clerks.work(20);
    office.assert_exact();
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
    office.assert_nothing_left();
}

#[test]
fn a_session_that_is_lost_while_it_holds_costs_a_try() {
    let office = Office::new();
    let clerks = Clerks::start(Path::new(CLERK), 3, 10, &office.books);
    clerks.work(20);
    // All processes of the session, and with them the connection.
    let outcome = office.backup_with("kill -s KILL 0").run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    clerks.work(20);
    let document = office.assert_exact();
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("lost")), "{document:#?}");
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
    office.assert_nothing_left();
}

#[test]
fn a_line_that_goes_dead_while_writers_are_held_holds_nobody_and_costs_a_try() {
    for engine in [Engine::MariaDb, Engine::Postgres] {
        let office = Office::without_program();
        let line = Line::to(match engine {
            Engine::MariaDb => office.mariadb.port,
            Engine::Postgres => office.postgres.port,
        });
        office.init(&office.places_by(&line, engine));
        office.world.offsite(["check"]).expect(0);
        let clerks = Clerks::start(Path::new(CLERK), 3, 10, &office.books);
        clerks.work(20);
        // What comes after the hold is not passed on before the line is dead.
        let dead = office.world.path("dead");
        let running = office.backup_with(&format!("while [ ! -e '{}' ]; do sleep 0.01; done", dead.display())).start();
        office.wait_for_the_action();
        line.die();
        std::fs::write(&dead, "").unwrap();
        clerks.work(20);
        line.mend();
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        clerks.work(20);
        assert!(!office.assert_exact().cut.failed_tries.is_empty());
        assert_eq!(clerks.stop().errors, Vec::<String>::new());
        office.assert_nothing_left();
    }
}

/// A server at the other end of a line, with more than can be dumped at once; and a question for our sessions there, which are
/// to end when it hears nothing for three seconds.
fn by_line() -> (MariaDb, Line, SourceConfig, CutSettings, String) {
    let server = MariaDb::start();
    let book = Book::create_at("shop", &server);
    let bulk = "CREATE TABLE bulk (content LONGBLOB); INSERT INTO bulk SELECT REPEAT('x', 300000) FROM account;";
    server.sql(book.database(), bulk);
    // It would wait for whoever takes nothing any more for as long as a dump asks it to.
    server.sql("mysql", "SET GLOBAL net_write_timeout = 3600");
    let line = Line::to(server.port);
    let account = mariadb_account(&server, MARIADB_RIGHTS);
    let grant = format!("GRANT {MARIADB_RIGHTS} ON *.* TO {account}@'127.0.0.1' IDENTIFIED BY 'hidden'");
    server.sql("mysql", &grant);
    let mut source = mariadb_source(&server, &account, &[book]);
    let SourceKind::MariaDb(settings) = &mut source.kind else { unreachable!() };
    (settings.host, settings.port) = (Some("127.0.0.1".to_owned()), Some(line.port()));
    settings.password = Some("hidden".to_owned().into());
    let cut = CutSettings { silence: Duration::from_secs(3), ..patient() };
    let left = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{account}'");
    (server, line, source, cut, left)
}

#[test]
fn what_a_dead_line_leaves_of_a_dump_at_leisure_ends_at_the_server_by_itself() {
    let (world, (server, line, source, cut, left)) = (World::new(), by_line());
    let billing = Book::create("billing", world.path("billing.db"), "delete");
    let clerk = Connection::open(&billing.path).unwrap();
    clerk.execute_batch("BEGIN IMMEDIATE").unwrap();
    let cut = CutSettings { barrier_within: Duration::from_secs(1), ..cut };
    let document = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until(Duration::from_secs(60), "the line to die", || line.is_dead());
            wait_until(Duration::from_secs(60), "our sessions to end", || server.sql("mysql", &left) == "0");
            line.mend();
        });
        let watch = |event: Event<'_>| {
            if let Event::Cut(cut) = event {
                assert_eq!(cut.method, CutMethod::None, "{cut:#?}");
                line.die_after(1 << 20);
            }
        };
        run_with(&world, &[sqlite_source(&billing), source], &cut, &watch).1
    });
    // Neither could be copied, and nothing hangs.
    assert_eq!((document.grade, document.problems.len()), (Grade::Incomplete, 2), "{document:#?}");
    clerk.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn what_a_dead_line_leaves_at_a_server_in_the_middle_of_a_copy_ends_there_by_itself() {
    let (world, (server, line, source, cut, left)) = (World::new(), by_line());
    let died = AtomicBool::new(false);
    let (_, document) = run_with(&world, &[source], &cut, &|event| {
        if let Event::Cut(_) = event
            && !died.swap(true, Ordering::Relaxed)
        {
            line.die();
            // The server waits for its clients for eight hours, and dumps ask for that themselves.
            wait_until(Duration::from_secs(60), "our sessions to end", || server.sql("mysql", &left) == "0");
            line.mend();
        }
    });
    // And there was another cut.
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
    assert!(!document.cut.failed_tries.is_empty(), "{document:#?}");
}

#[test]
fn a_transaction_that_somebody_keeps_open_holds_up_nobody_else_and_the_cut_waits_for_its_end() {
    let (world, pg, my) = (World::new(), postgres(), mariadb());
    let billing = Book::create("billing", world.path("billing.db"), "delete");
    let books = [Book::create_in("stock", pg), Book::create_at("shop", my)];
    let account = mariadb_account(my, MARIADB_RIGHTS);
    let sources = [
        sqlite_source(&billing),
        postgres_source(pg, &postgres_account(pg), &books),
        mariadb_source(my, &account, &books),
    ];
    // It is tried for as long as it takes.
    let cut = CutSettings { barrier_within: Duration::from_secs(600), ..patient() };
    let open = std::env::var("OFFSITE_CUT_OPEN_SECONDS").map_or(0, |seconds| seconds.parse().unwrap());
    let clerk = Connection::open(&billing.path).unwrap();
    clerk.execute_batch("BEGIN IMMEDIATE; UPDATE tally SET n = n + 1; UPDATE tally SET n = n - 1").unwrap();
    let clerks = Clerks::start(Path::new(CLERK), 3, 10, &books);
    clerks.work(20);
    let (generation, document, ended) = std::thread::scope(|scope| {
        let running = scope.spawn(|| run_with(&world, &sources, &cut, &|_| ()));
        let begun = format!("SELECT COUNT(*) > 0 FROM information_schema.PROCESSLIST WHERE USER = '{account}'");
        wait_until(Duration::from_secs(60), "the capture begins", || my.sql("mysql", &begun) == "1");
        // While it tries, nobody else is held up.
        let begin = Instant::now();
        clerks.work(40);
        while begin.elapsed() < Duration::from_secs(open) {
            clerks.work(40);
        }
        let ended = agent::clock::now();
        clerk.execute_batch("COMMIT").unwrap();
        let (generation, document) = running.join().unwrap();
        (generation, document, ended)
    });
    clerks.work(20);
    let journal = clerks.stop();
    assert_eq!(journal.errors, Vec::<String>::new());
    let longest = journal.steps.iter().map(|step| step.took_us).max().unwrap() / 1000;
    eprintln!("{} steps of others, of at most {longest} ms; {} tries", journal.steps.len(), document.cut.tries);
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Barrier), "{document:#?}");
    assert!(document.cut.not_before >= ended, "{document:#?}");
    let folder = |source: &str| generation.data_folder(&source.parse().unwrap());
    let copies = [
        copy_sqlite(&world, &billing, &folder("billing").join("billing.db")),
        load_postgres(pg, &books[0], &folder("postgres").join(format!("{}.dump", books[0].database()))),
        load_mariadb(my, &books[1], &folder("mariadb").join(format!("{}.sql", books[1].database()))),
    ];
    judge(&copies).assert_of_one_instant(60);
}

#[test]
fn a_server_that_dies_while_it_is_held_and_comes_back_is_in_the_copy() {
    for engine in [Engine::MariaDb, Engine::Postgres] {
        let office = Office::new();
        let clerks = Clerks::start(Path::new(CLERK), 2, 5, &office.books);
        clerks.work(20);
        clerks.stop();
        let server = match engine {
            Engine::MariaDb => &office.mariadb.server,
            Engine::Postgres => &office.postgres.server,
        };
        let running = office.backup_with(&format!("kill -s KILL {}", server.pid())).start();
        office.wait_for_the_action();
        server.kill();
        match engine {
            Engine::MariaDb => office.mariadb.start_again(),
            Engine::Postgres => office.postgres.start_again(),
        }
        let outcome = running.wait();
        // Whether it was back in time or not: what is called exact is, and what is missing is named.
        match outcome.code {
            Some(0) => drop(office.assert_exact()),
            Some(3) => {}
            _ => panic!("{outcome}"),
        }
        office.world.offsite(["backup"]).expect(0);
        office.assert_exact();
        office.assert_nothing_left();
    }
}

#[test]
fn a_table_that_somebody_keeps_for_himself_costs_its_source_and_hangs_nobody() {
    let (world, server) = (World::new(), Postgres::start());
    let (book, cash) = (Book::create_in("stock", &server), Book::create("cash", world.path("cash.db"), "wal"));
    let mut clerk = Client::open(&book);
    clerk.ask("BEGIN; LOCK TABLE event IN ACCESS EXCLUSIVE MODE;").unwrap();
    let source = postgres_source(&server, &postgres_account(&server), &[book]);
    let SourceKind::Postgres(settings) = &source.kind else { unreachable!() };
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", settings.user.as_ref().unwrap());
    let cut = CutSettings { barrier_within: Duration::from_secs(1), ..patient() };
    let (_, document) = run_with(&world, &[source.clone(), sqlite_source(&cash)], &cut, &|_| ());
    assert_eq!((document.grade, document.problems.len()), (Grade::Incomplete, 1), "{document:#?}");
    assert!(document.problems[0].what.contains("could not be locked"), "{document:#?}");
    wait_until(Duration::from_secs(60), "our sessions to end", || server.sql("postgres", &left) == "0");
    clerk.ask("ROLLBACK;").unwrap();
    let (_, document) = run_with(&world, &[source, sqlite_source(&cash)], &cut, &|_| ());
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
}
