//! PostgreSQL servers that are copied whole: a server that is started on what comes back is of the same instant as the
//! databases of other engines.
//!
//! `OFFSITE_CUT_ROUNDS=20` makes as many rounds of the first test, and `OFFSITE_CUT_LOAD` chooses the load (`cut.rs`).

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use agent::capture::{Event, check_server};
use agent::generation::{CutMethod, Document, Grade, Role};
use tests::captures::{
    MARIADB_RIGHTS, load_mariadb, mariadb_account, newest_staged, of, physical_account, physical_source,
    postgres_account, postgres_source, run, run_watched, sqlite_source,
};
use tests::clerks::{Book, Clerks, Engine, judge};
use tests::process::{program, search_path};
use tests::servers::{Keys, Postgres, SUPERUSER, mariadb, seaweedfs};
use tests::{Running, World, guard, office, wait_until};

use crate::cut::{Until, load, meddle};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// An office whose PostgreSQL server is its own, and is copied whole.
struct Office {
    world: World,
    books: Vec<Book>,
    postgres: Postgres,
    account: String,
    /// Which of its stores is restored from.
    store: &'static str,
}

impl Office {
    /// Databases of three engines, which go to S3.
    fn new() -> Self {
        let (world, postgres) = (World::new(), Postgres::start());
        let books = vec![
            Book::create("cash", world.path("cash.db"), "wal"),
            Book::create("billing", world.path("billing.db"), "delete"),
            Book::create_in("stock", &postgres),
            Book::create_in("wages", &postgres),
            Book::create_at("shop", mariadb()),
        ];
        world.write("s3-secret", Keys::AGENT_A.secret);
        let store = format!(
            "name=cloud,type=s3,bucket={},endpoint={},access_key={},secret_key=file:{}",
            seaweedfs().bucket("physical").name,
            seaweedfs().url(),
            Keys::AGENT_A.id,
            world.path("s3-secret").display()
        );
        Self::of(world, books, postgres, ("cloud", store))
    }

    /// With nothing but one database at its server, which goes to a folder.
    fn of_one_server() -> Self {
        let (world, postgres) = (World::new(), Postgres::start());
        let books = vec![Book::create_in("stock", &postgres)];
        let store = format!("name=usb,type=directory,path={}", world.make_folder("usb").display());
        Self::of(world, books, postgres, ("usb", store))
    }

    fn of(world: World, books: Vec<Book>, postgres: Postgres, (store, settings): (&'static str, String)) -> Self {
        let account = physical_account(&postgres);
        let office = Self { world, books, postgres, account, store };
        // So that a server that runs as another user gets through.
        office::set_mode(&office.world.path(""), 0o755);
        office.init(&settings);
        office
    }

    fn init(&self, store: &str) {
        let path = |name: &str| self.world.path(name).display().to_string();
        let pg = &self.postgres;
        let mut arguments = vec!["init".to_owned(), "--site=site-a".to_owned(), "--one-key-is-enough".to_owned()];
        for book in &self.books {
            let (name, my) = (book.name, mariadb());
            if book.is_at(Engine::MariaDb) {
                let (user, database) = (mariadb_account(my, MARIADB_RIGHTS), book.database());
                let source = format!("name={name},type=mariadb,host={},user={user}", my.socket.display());
                arguments.push(format!("--source={source},databases={database}"));
            } else if book.database.is_none() {
                arguments.push(format!("--source=name={name},type=sqlite,path={}", book.path.display()));
            }
        }
        let source = format!("name=server,type=postgres,mode=physical,host={}", pg.socket.display());
        arguments.push(format!("--source={source},port={},user={}", pg.port, self.account));
        arguments.push(format!("--store={store}"));
        arguments.push(format!("--new-identity={}", path("office.txt")));
        arguments.extend([format!("--staging={}", path("staging")), format!("--state={}", path("state"))]);
        self.world.offsite(arguments).expect(0);
        if std::env::var_os("OFFSITE_CUT_ROUNDS").is_none() {
            self.world.be_patient();
        }
    }

    /// One generation; what it says.
    #[track_caller]
    fn backup(&self, code: i32) -> Document {
        self.world.offsite(["backup"]).expect(code);
        newest_staged(&self.world).1
    }

    /// The books, as they come back from the store; and the server that those of PostgreSQL are at.
    fn restore(&self, generation: &str) -> (Postgres, Vec<Book>) {
        let to = format!("back-{generation}");
        let arguments = ["restore", generation, "--from", self.store, "--to", &to, "--identity", "office.txt"];
        self.world.offsite(arguments).expect(0);
        let back = self.world.path(&to);
        let server = Postgres::recovered(&back.join("server"));
        let copy = |book: &Book| {
            let name = book.name;
            if book.is_at(Engine::MariaDb) {
                load_mariadb(mariadb(), book, &back.join(name).join(format!("{}.sql", book.database())))
            } else if book.database.is_some() {
                Book::of(name, &server, book.database().to_owned())
            } else {
                Book { name, path: back.join(name).join(format!("{name}.db")), database: None }
            }
        };
        let books = self.books.iter().map(copy).collect();
        (server, books)
    }

    /// A backup whose first copy of the server's files is so slow that it does not end, and says when it has begun.
    fn slow_backup(&self) -> Running {
        let folder = self.world.make_folder("tools");
        let real = program("pg_basebackup").display().to_string();
        let (once, begun) = (self.world.path("once"), self.world.path("begun"));
        let script = format!(
            "#!/bin/sh\nmkdir '{}' 2>/dev/null || exec '{real}' \"$@\"\n\
             for each in \"$@\"; do case $each in --pgdata=*) to=${{each#*=}} ;; esac; done\n\
             '{real}' \"$@\" --max-rate=32 &\nwhile [ ! -e \"$to/backup_label\" ]; do sleep 0.02; done\n\
             mkdir '{}'\nwait $!\n",
            once.display(),
            begun.display()
        );
        office::set_mode(&self.world.write("tools/pg_basebackup", script), 0o755);
        let others = search_path();
        let folders = std::iter::once(folder).chain(std::env::split_paths(&others));
        let running = self.world.offsite(["backup"]).env("PATH", std::env::join_paths(folders).unwrap()).start();
        wait_until(Duration::from_secs(120), "the files are being copied", || begun.exists());
        running
    }

    fn assert_nothing_left(&self) {
        let left = format!(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = '{}') + (SELECT count(*) FROM pg_replication_slots)",
            self.account
        );
        wait_until(Duration::from_secs(60), "our sessions to end", || self.postgres.sql("postgres", &left) == "0");
    }
}

#[test]
fn a_server_that_was_copied_whole_comes_back_as_it_was_at_the_instant_of_the_others() {
    let rounds: usize = std::env::var("OFFSITE_CUT_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let office = Office::new();
    // What its server does not write to its log either.
    office.postgres.sql("postgres", "CREATE UNLOGGED TABLE draft AS SELECT n FROM generate_series(1, 9) AS n");
    let (load, manner) = load();
    let clerks = Clerks::start_in(Path::new(CLERK), manner, &office.books);
    let (mut held, mut took, mut tries) = (Vec::new(), Vec::new(), Vec::new());
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if load == "ddl" {
            scope.spawn(|| meddle(&office.books, &done));
        }
        let _until = Until(&done);
        for _ in 0..rounds {
            // Otherwise nothing was going on, and anything would pass.
            clerks.work(20);
            let begin = Instant::now();
            let document = office.backup(0);
            took.push(begin.elapsed().as_millis());
            clerks.work(20);
            assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Barrier), "{document:#?}");
            let record = of(&document, "server");
            assert_eq!((record.role, record.held_us), (Role::Pivot, 0));
            for key in ["mode", "system", "timeline", "snapshot", "lsn", "administrator"] {
                assert!(record.position.contains_key(key), "{key}: {record:?}");
            }
            let (server, books) = office.restore(document.generation.as_str());
            judge(&books).assert_of_one_instant(office.books.len() * 20);
            // It goes on from there, as any server.
            server.sql("postgres", "CREATE DATABASE new_work");
            assert_eq!(server.sql("postgres", "SELECT count(*) FROM draft"), "0");
            held.push(document.cut.held_us_max);
            tries.push(document.cut.tries);
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let journal = clerks.stop();
    assert_eq!(journal.errors, Vec::<String>::new());
    let rate = journal.steps.len() as f64 / 2.0 / seconds;
    held.sort_unstable();
    eprintln!(
        "{load}: {rounds} rounds, {rate:.0} pieces of business a second; held {held:?} µs; tries {tries:?}; backups of {took:?} ms"
    );
    office.assert_nothing_left();
}

#[test]
fn a_server_that_dies_while_its_files_are_copied_costs_its_source_and_the_next_run_works() {
    let office = Office::new();
    let running = office.slow_backup();
    office.postgres.server.kill();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(3), "{outcome}");
    let document = newest_staged(&office.world).1;
    assert_eq!((document.grade, document.problems.len()), (Grade::Incomplete, 1), "{document:#?}");
    assert_eq!(document.problems[0].source.as_str(), "server");
    assert!(document.sources.iter().any(|source| source.name.as_str() == "cash" && source.bytes > 0));
    office.postgres.start_again();
    office.assert_nothing_left();
    assert_eq!(office.backup(0).grade, Grade::Exact);
    office.assert_nothing_left();
}

#[test]
fn a_run_that_is_killed_while_it_copies_a_server_leaves_nothing_at_it() {
    let office = Office::of_one_server();
    let running = office.slow_backup();
    // The copy would go on for minutes, and the log be kept for as long.
    running.kill();
    office.assert_nothing_left();
    let document = office.backup(0);
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single));
    office.assert_nothing_left();
}

/// The sizes of all files in a folder.
fn bytes_below(folder: &Path) -> u64 {
    let size = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => bytes_below(&entry.path()),
        false => entry.metadata().unwrap().len(),
    };
    std::fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap())).sum()
}

#[test]
fn a_second_night_without_changes_sends_little_and_the_copy_can_be_drilled() {
    let office = Office::of_one_server();
    let database = office.books[0].database();
    office.postgres.sql(
        database,
        "CREATE TABLE letter AS SELECT n, md5(n::text) AS text FROM generate_series(1, 50000) AS n; \
         ALTER TABLE letter ADD PRIMARY KEY (n)",
    );
    // What the server would do some time after.
    office.postgres.sql(database, "VACUUM FREEZE ANALYZE");
    office.world.offsite(["check"]).expect(0);
    let stored = || bytes_below(&office.world.path("usb"));
    office.backup(0);
    let first = stored();
    let document = office.backup(0);
    let second = stored() - first;
    eprintln!("a server of {} bytes: {first} sent, without changes {second}", of(&document, "server").bytes);
    assert!(second < first / 20, "{second} bytes were sent, the first time {first}");

    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let (key, scratch) = (office.world.path("office.txt"), office.world.path("scratch"));
    office.world.configure(&format!(
        "{config}\n[drill]\nidentity = \"{}\"\nscratch = \"{}\"\n[[drill.check]]\nsource = \"server\"\ndatabase = \
         \"{database}\"\nsql = \"SELECT count(*) FROM letter\"\nexpect = \"50000\"\n",
        key.display(),
        scratch.display()
    ));
    let verdict = office.world.offsite(["--json", "drill"]).expect(0).json();
    assert_eq!((&verdict["outcome"], &verdict["checks"]), (&"passed".into(), &1.into()), "{verdict:#}");
    let opened = verdict["databases"].as_array().unwrap();
    let stock = opened.iter().find(|opened| opened["name"] == format!("server/{database}")).unwrap();
    assert!(stock["sound"] == true && stock["tables"] == 4, "{verdict:#}");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);

    let pg = &office.postgres;
    let into = format!("source=server,host={},port={},user={SUPERUSER}", pg.socket.display(), pg.port);
    let outcome = office.world.offsite(["restore", "latest", "--to", "back", "--into", &into]).expect(1);
    assert!(outcome.stderr.contains("is started and not loaded"), "{outcome}");
}

#[test]
fn a_cut_that_came_to_nothing_by_anothers_fault_does_not_cost_a_new_copy_of_the_files() {
    let (world, server) = (World::new(), Postgres::start());
    let book = Book::create_in("stock", &server);
    let mut whole = physical_source(&server, &physical_account(&server));
    whole.name = "whole".parse().unwrap();
    let dumped = postgres_source(&server, &postgres_account(&server), std::slice::from_ref(&book));
    let label = || {
        let staging = std::fs::read_dir(world.path("staging")).unwrap().map(|entry| entry.unwrap().path());
        let labels = staging.map(|folder| folder.join("data/whole/backup_label"));
        labels.filter_map(|label| std::fs::read_to_string(label).ok()).collect::<Vec<_>>()
    };
    let first = Mutex::new(None);
    // Somebody alters a table that the dump is about to read, so that it gives way.
    let (generation, document) = run_watched(&world, &[whole, dumped], &|event| {
        if let Event::Cut(_) = event
            && first.lock().unwrap().is_none()
        {
            *first.lock().unwrap() = Some((label(), alter(&server, &book)));
        }
    });
    let (before, mut alter) = first.into_inner().unwrap().unwrap();
    assert!(alter.wait().unwrap().success());
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("gave way")), "{document:#?}");
    assert_eq!((before.len(), before), (1, label()));
    // The copy goes up to the second cut.
    let back = world.path("back");
    let copied =
        Command::new("cp").arg("-a").arg(generation.data_folder(&"whole".parse().unwrap())).arg(&back).status();
    assert!(copied.unwrap().success());
    assert!(Command::new("chmod").args(["-R", "u+rwX"]).arg(&back).status().unwrap().success());
    let recovered = Postgres::recovered(&back);
    assert_eq!(recovered.sql(book.database(), "SELECT count(*), count(note) FROM account"), "100|0");
}

/// Somebody else's change of a table, which waits for us by now.
fn alter(server: &Postgres, book: &Book) -> Child {
    let statement = "ALTER TABLE account ADD COLUMN note TEXT";
    let child = server.psql(SUPERUSER, book.database(), statement).spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    wait_until(Duration::from_secs(60), "the statement waits", || server.sql("postgres", waits) != "0");
    child
}

#[test]
fn a_server_that_dies_after_the_cut_is_not_called_copied() {
    let (world, server) = (World::new(), Postgres::start());
    let cash = Book::create("cash", world.path("cash.db"), "wal");
    let source = physical_source(&server, &physical_account(&server));
    let (_, document) = run_watched(&world, &[source.clone(), sqlite_source(&cash)], &|event| {
        if let Event::Cut(_) = event {
            server.server.kill();
        }
    });
    assert_eq!((document.grade, document.problems.len()), (Grade::Incomplete, 1), "{document:#?}");
    assert_eq!(document.problems[0].source.as_str(), "postgres");
    server.start_again();
    let (_, document) = run(&world, &[source, sqlite_source(&cash)]);
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
}

#[test]
fn a_server_with_damaged_pages_is_copied_all_the_same_and_says_so() {
    let (world, server) = (World::new(), Postgres::with_checksums());
    let account = physical_account(&server);
    let table = "CREATE TABLE letter WITH (autovacuum_enabled = off) AS SELECT n, repeat('x', 500) FROM generate_series(1, 100) AS n";
    // The server does not write any page of it again.
    for statement in [table, "VACUUM FREEZE letter", "CHECKPOINT"] {
        server.sql("postgres", statement);
    }
    let path = server.data.join(server.sql("postgres", "SELECT pg_relation_filepath('letter')"));
    let mut page = std::fs::read(&path).unwrap();
    page[8192 + 4000] ^= 1;
    std::fs::write(&path, page).unwrap();
    let (generation, document) = run(&world, &[physical_source(&server, &account)]);
    assert_eq!((document.grade, document.problems.len()), (Grade::Incomplete, 1), "{document:#?}");
    assert!(document.problems[0].what.contains("pages damaged"), "{document:#?}");
    assert!(of(&document, "postgres").position.contains_key("lsn"));
    assert!(generation.data_folder(&"postgres".parse().unwrap()).join("recovery.signal").exists());
}

#[test]
fn a_standby_is_not_taken_for_the_server_that_it_follows() {
    let (world, primary) = (World::new(), Postgres::start());
    let cash = Book::create("cash", world.path("cash.db"), "wal");
    let account = physical_account(&primary);
    let standby = primary.standby();
    // It shows an earlier moment than the others, and nobody knows which.
    for source in [physical_source(&standby, &account), postgres_source(&standby, SUPERUSER, &[])] {
        let error = check_server(&source).unwrap_err();
        assert!(error.contains("this server is a standby") && error.contains("name its primary"), "{error}");
        let (_, document) = run(&world, &[source, sqlite_source(&cash)]);
        assert_eq!((document.grade, document.problems.len()), (Grade::Incomplete, 1), "{document:#?}");
        assert!(document.problems[0].what.contains("name its primary"), "{document:#?}");
        assert!(of(&document, "cash").bytes > 0);
    }
}

#[test]
fn what_a_server_lacks_to_be_copied_whole_is_said_before_the_run() {
    let server = Postgres::start();
    let account = server.database("offsite_account");
    server.sql("postgres", &format!("CREATE ROLE {account} LOGIN"));
    let source = physical_source(&server, &account);
    let grant = format!("ALTER ROLE {account} REPLICATION;");
    let error = check_server(&source).unwrap_err();
    assert!(error.contains(&grant), "{error}");
    server.sql("postgres", &grant);
    assert_eq!(check_server(&source), Ok(()));
    let left = "SELECT count(*) FROM pg_replication_slots";
    wait_until(Duration::from_secs(60), "the slot to go", || server.sql("postgres", left) == "0");

    let space = guard::server_folder("space");
    server.sql("postgres", &format!("CREATE TABLESPACE side LOCATION '{}'", space.display()));
    let error = check_server(&source).unwrap_err();
    assert!(error.contains("1 tablespaces") && error.contains(&format!("TO {account};`")), "{error}");
    server.sql("postgres", "DROP TABLESPACE side");

    std::fs::write(server.server.folder().join("pg_hba.conf"), "local all all trust\n").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()");
    let line = format!("host replication {account} ADDRESS scram-sha-256");
    wait_until(Duration::from_secs(60), "the server to have read it", || {
        check_server(&source).is_err_and(|error| error.contains(&line))
    });

    let world = World::new();
    world.configure(
        "[[source]]\nname = \"a\"\ntype = \"postgres\"\nmode = \"physical\"\ndatabases = [\"x\"]\n\
                     [[source]]\nname = \"b\"\ntype = \"postgres\"\nmode = \"whole\"\n",
    );
    let outcome = world.offsite(["check"]).expect(2);
    assert!(
        outcome.stderr.contains("one of the whole server") && outcome.stderr.contains("no mode `whole`"),
        "{outcome}"
    );
}
