//! Captures of MariaDB together with others, while clerks are at work in all of them.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use agent::capture::{CutSettings, Dialect, Event, SourceConfig, SourceKind, check_server};
use agent::generation::{CutMethod, Grade, Role};
use agent::staging::LocalGeneration;
use tests::captures::{
    MARIADB_RIGHTS, copy_sqlite, load_mariadb, mariadb_account, mariadb_source, of, patient, run, run_watched,
    run_with, sqlite_source,
};
use tests::clerks::{Book, Clerks, Client, judge};
use tests::servers::{MariaDb, mariadb};
use tests::{World, wait_until};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

fn source(server: &MariaDb, books: &[Book]) -> SourceConfig {
    mariadb_source(server, &mariadb_account(server, MARIADB_RIGHTS), books)
}

/// What was dumped of a book, in a new database.
fn restored(server: &MariaDb, generation: &LocalGeneration, book: &Book) -> Book {
    let folder = generation.data_folder(&"mariadb".parse().unwrap());
    load_mariadb(server, book, &folder.join(format!("{}.sql", book.database())))
}

#[test]
fn mariadb_is_held_and_the_others_only_if_they_have_to_be() {
    let (world, server) = (World::new(), mariadb());
    let book = Book::create_at("shop", server);
    for (mode, method, role) in
        [("wal", CutMethod::Optimistic, Role::Proved), ("delete", CutMethod::Barrier, Role::Held)]
    {
        let source = source(server, std::slice::from_ref(&book));
        assert_eq!(check_server(&source), Ok(()));
        let cash = Book::create("cash", world.path(format!("{mode}.db")), mode);
        let (generation, document) = run_watched(&world, &[source, sqlite_source(&cash)], &|_| ());
        assert_eq!((document.grade, document.cut.method), (Grade::Exact, method), "{document:#?}");
        assert_eq!((of(&document, "mariadb").role, of(&document, "cash").role), (Role::Held, role), "{document:#?}");
        assert!(of(&document, "mariadb").held_us > 0 && of(&document, "mariadb").position.contains_key("gtid"));
        assert_eq!(document.problems, Vec::new());
        let copy = restored(server, &generation, &book);
        assert_eq!(server.sql(copy.database(), "SELECT COUNT(*) FROM account"), "100");
        let accounts = generation.data_folder(&"mariadb".parse().unwrap()).join("server.accounts.sql");
        assert!(std::fs::read_to_string(accounts).unwrap().contains("CREATE USER"));
    }
}

#[test]
fn two_databases_of_a_server_in_use_are_of_one_instant_by_stages_and_by_a_read_lock() {
    let (world, server) = (World::new(), mariadb());
    let books = [Book::create_at("shop", server), Book::create_at("club", server)];
    let mut staged = source(server, &books);
    let mut locked = staged.clone();
    if let SourceKind::MariaDb(source) = &mut locked.kind {
        source.dialect = Dialect::MySql;
    }
    let SourceKind::MariaDb(settings) = &mut staged.kind else { unreachable!() };
    let account = settings.user.clone().unwrap();
    let clerks = Clerks::start(Path::new(CLERK), 3, 5, &books);
    for (source, kind) in [(staged, "mariadb"), (locked, "mysql")] {
        clerks.work(20);
        let (generation, document) = run_watched(&world, &[source], &|_| ());
        clerks.work(20);
        assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single), "{document:#?}");
        let record = of(&document, "mariadb");
        assert_eq!((record.kind.as_str(), record.role), (kind, Role::Held));
        judge(&books.each_ref().map(|book| restored(server, &generation, book))).assert_of_one_instant(40);
    }
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
    // Nothing of ours is left at the server.
    let left = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{account}'");
    wait_until(Duration::from_secs(60), "our sessions to end", || server.sql("mysql", &left) == "0");
}

#[test]
fn the_rows_of_a_database_that_is_alone_are_counted_too() {
    let (world, server) = (World::new(), mariadb());
    let book = Book::create_at("shop", server);
    let source = source(server, std::slice::from_ref(&book));
    let (_, document) = run_with(&world, &[source], &patient(), &|_| ());
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single), "{document:#?}");
    let record = of(&document, "mariadb");
    assert_eq!(record.role, Role::Held);
    assert_eq!(record.rows[&format!("{}.sql", book.database())]["account"], 100, "{record:#?}");
}

#[test]
fn an_account_without_rights_is_told_what_it_lacks_and_that_is_enough() {
    let (world, server) = (World::new(), mariadb());
    let book = Book::create_at("shop", server);
    let account = mariadb_account(server, "USAGE");
    let source = mariadb_source(server, &account, std::slice::from_ref(&book));
    let (_, document) = run(&world, std::slice::from_ref(&source));
    assert_eq!(document.grade, Grade::Incomplete);
    assert!(document.problems[0].what.contains("GRANT RELOAD, PROCESS ON *.*"), "{document:#?}");
    // Each piece of advice is followed, until there is none.
    for expected in ["GRANT RELOAD, PROCESS ON *.*", "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `"] {
        let error = check_server(&source).unwrap_err();
        let (_, grant) = error.split_once("run `").unwrap();
        let grant = grant.strip_suffix(";`").unwrap();
        assert!(grant.starts_with(expected), "{error}");
        server.sql("mysql", grant);
    }
    assert_eq!(check_server(&source), Ok(()));
    let (_, document) = run(&world, &[source]);
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
    assert!(document.problems.iter().all(|problem| !problem.missing && problem.what.contains("accounts")));
}

#[test]
fn tables_without_snapshots_are_named_and_not_called_exact() {
    let (world, server) = (World::new(), mariadb());
    let book = Book::create_at("shop", server);
    server.sql(book.database(), "CREATE TABLE old (id INTEGER) ENGINE = MyISAM");
    let source = source(server, std::slice::from_ref(&book));
    let error = check_server(&source).unwrap_err();
    assert!(error.contains("old is a table of the engine MyISAM"), "{error}");
    let (_, document) = run(&world, &[source]);
    assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("MyISAM")), "{document:#?}");
}

#[test]
fn a_replica_is_copied_but_not_called_exact() {
    let (world, primary) = (World::new(), mariadb());
    let replica = MariaDb::start_with(&["--server-id=2"]);
    let book = Book::create_at("shop", &replica);
    let account = primary.database("replicates");
    let grant = format!("GRANT REPLICATION SLAVE ON *.* TO {account}@'127.0.0.1' IDENTIFIED BY 'hidden'");
    primary.sql("mysql", &grant);
    // From now on, and not all that other tests have done there.
    let position = primary.sql("mysql", "SELECT @@gtid_binlog_pos");
    replica.sql(
        "mysql",
        &format!(
            "SET GLOBAL gtid_slave_pos = '{position}'; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, \
             MASTER_USER = '{account}', MASTER_PASSWORD = 'hidden', MASTER_USE_GTID = slave_pos, MASTER_SSL = 0; START SLAVE \
             IO_THREAD;",
            primary.port
        ),
    );
    let source = source(&replica, std::slice::from_ref(&book));
    let error = check_server(&source).unwrap_err();
    assert!(error.contains("is a replica") && error.contains("name its primary"), "{error}");
    let (_, document) = run(&world, std::slice::from_ref(&source));
    assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("is a replica")), "{document:#?}");
    replica.sql("mysql", "STOP SLAVE; RESET SLAVE ALL");
    assert_eq!(check_server(&source), Ok(()));
}

#[test]
fn a_read_lock_that_has_to_wait_for_a_long_statement_is_given_up_and_nobody_waits_for_it_in_vain() {
    let (world, server) = (World::new(), mariadb());
    let books = [Book::create_at("shop", server), Book::create_at("club", server)];
    let mut locked = source(server, &books);
    if let SourceKind::MariaDb(source) = &mut locked.kind {
        source.dialect = Dialect::MySql;
    }
    // A statement that is under way until this test lets it end.
    server.sql(books[0].database(), "CREATE TABLE side (x INTEGER); INSERT INTO side VALUES (0)");
    let name = books[0].database();
    let mut gate = Client::open(&books[0]);
    gate.ask(&format!("SELECT GET_LOCK('{name}', 0);")).unwrap();
    let long = format!("UPDATE side SET x = GET_LOCK('{name}', 3600)");
    let mut long = server.client("root", name, &long).stdin(Stdio::null()).spawn().unwrap();
    let under_way =
        format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock' AND DB = '{name}'");
    wait_until(Duration::from_secs(60), "the statement is under way", || server.sql("mysql", &under_way) == "1");
    let clerks = Clerks::start(Path::new(CLERK), 3, 5, &books);
    clerks.work(20);
    let cut = CutSettings { barrier_within: Duration::from_secs(1), ..patient() };
    let (_, document) = run_with(&world, std::slice::from_ref(&locked), &cut, &|_| ());
    clerks.work(20);
    assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
    assert!(!document.cut.failed_tries.is_empty());
    gate.ask(&format!("DO RELEASE_LOCK('{name}');")).unwrap();
    assert!(long.wait().unwrap().success());
    let (_, document) = run_with(&world, &[locked], &patient(), &|_| ());
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
}

/// Somebody else's statement, which has to wait for a table.
fn waiting(server: &MariaDb, database: &str, statement: &str) -> Child {
    let mut client = server.client("root", database, statement);
    let child = client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let asked = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for table metadata lock' AND \
         DB = '{database}'"
    );
    wait_until(Duration::from_secs(60), "the statement waits", || server.sql("mysql", &asked) == "1");
    child
}

#[test]
fn a_table_that_is_emptied_after_the_cut_is_in_the_copy() {
    let (world, server) = (World::new(), mariadb());
    let book = Book::create_at("shop", server);
    let truncate = Mutex::new(None);
    let sources = [source(server, std::slice::from_ref(&book))];
    let statement = "TRUNCATE account; SELECT @@last_gtid";
    let (generation, document) = run_watched(&world, &sources, &|event| {
        if let Event::Cut(_) = event {
            truncate.lock().unwrap().get_or_insert_with(|| waiting(server, book.database(), statement));
        }
    });
    let truncated = truncate.into_inner().unwrap().unwrap().wait_with_output().unwrap();
    assert!(truncated.status.success());
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
    // If the dump had to wait behind the other, it gave way, and there was a second cut; which may have been before the other
    // had its way, or after that.
    let number = |gtid: &str| -> u64 { gtid.trim().rsplit('-').next().unwrap().parse().unwrap() };
    let emptied = number(&String::from_utf8(truncated.stdout).unwrap());
    let copied = number(&of(&document, "mariadb").position["gtid"]);
    let gave_way = document.cut.failed_tries.iter().any(|why| why.contains("gave way"));
    assert!(gave_way || copied < emptied, "{document:#?}");
    let rows = if copied < emptied { "100" } else { "0" };
    let copy = restored(server, &generation, &book);
    assert_eq!(server.sql(copy.database(), "SELECT COUNT(*) FROM account"), rows, "{document:#?}");
}

#[test]
fn a_dump_gives_way_to_those_who_wait_for_its_tables_and_there_is_another_cut() {
    let (world, server) = (World::new(), mariadb());
    let book = Book::create_at("shop", server);
    let altered = Mutex::new(false);
    // The dump is waited for only when the other has had its way.
    let (generation, document) = run_watched(&world, &[source(server, std::slice::from_ref(&book))], &|event| {
        if let Event::Started { .. } = event
            && !std::mem::replace(&mut *altered.lock().unwrap(), true)
        {
            let mut alter = waiting(server, book.database(), "ALTER TABLE account ADD COLUMN note TEXT");
            assert!(alter.wait().unwrap().success());
        }
    });
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("gave way")), "{document:#?}");
    let copy = restored(server, &generation, &book);
    assert_eq!(server.sql(copy.database(), "SELECT COUNT(note) FROM account"), "0");
}

#[test]
fn a_server_that_dies_after_the_cut_is_missing_from_the_copy_and_the_next_run_works() {
    let (world, server) = (World::new(), MariaDb::start());
    let book = Book::create_at("shop", &server);
    // Enough that it cannot be dumped at once.
    let bulk = "CREATE TABLE bulk (content LONGBLOB); INSERT INTO bulk SELECT REPEAT('x', 1000000) FROM account;";
    server.sql(book.database(), bulk);
    let cash = Book::create("cash", world.path("cash.db"), "wal");
    let sources = [source(&server, &[book]), sqlite_source(&cash)];
    let (generation, document) = run_watched(&world, &sources, &|event| {
        if let Event::Cut(_) = event {
            server.server.kill();
        }
    });
    assert_eq!(document.grade, Grade::Incomplete, "{document:#?}");
    assert!(document.problems.iter().all(|problem| problem.source.as_str() == "mariadb"));
    let staged = generation.data_folder(&"cash".parse().unwrap()).join("cash.db");
    assert!(judge(&[copy_sqlite(&world, &cash, &staged)]).torn.is_empty());
    server.start_again();
    let (_, document) = run(&world, &sources);
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
}
