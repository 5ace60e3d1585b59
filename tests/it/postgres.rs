//! Captures of PostgreSQL together with others, while clerks are at work in all of them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use agent::capture::{Event, SourceConfig, SourceKind, check_server};
use agent::generation::{CutMethod, Grade, Role};
use agent::staging::LocalGeneration;
use tests::captures::{
    copy_sqlite, load_postgres, of, postgres_account, postgres_source, run, run_watched, sqlite_source,
};
use tests::clerks::{Book, Clerks, Client, Database, judge};
use tests::servers::{Postgres, SUPERUSER, postgres};
use tests::{World, wait_until};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// Copies of the books out of a generation.
fn copies(world: &World, server: &Postgres, generation: &LocalGeneration, books: &[Book]) -> Vec<Book> {
    let copy = |book: &Book| {
        if book.database.is_some() {
            let folder = generation.data_folder(&"postgres".parse().unwrap());
            return load_postgres(server, book, &folder.join(format!("{}.dump", book.database())));
        }
        let staged = generation.data_folder(&book.name.parse().unwrap()).join(book.path.file_name().unwrap());
        copy_sqlite(world, book, &staged)
    };
    books.iter().map(copy).collect()
}

/// Two SQLite and two PostgreSQL databases.
fn office(world: &World, server: &Postgres) -> (Vec<Book>, Vec<SourceConfig>) {
    let path = |name: &str| -> PathBuf { world.path(format!("{name}.db")) };
    let books = vec![
        Book::create("cash", path("cash"), "wal"),
        Book::create("billing", path("billing"), "delete"),
        Book::create_in("stock", server),
        Book::create_in("wages", server),
    ];
    let mut sources: Vec<_> = books[..2].iter().map(sqlite_source).collect();
    sources.push(postgres_source(server, &postgres_account(server), &books));
    (books, sources)
}

#[test]
fn postgresql_and_sqlite_in_use_are_copied_at_one_instant() {
    let (world, server) = (World::new(), postgres());
    let (books, sources) = office(&world, server);
    let clerks = Clerks::start(Path::new(CLERK), 4, 10, &books);
    for _ in 0..3 {
        clerks.work(20);
        let (generation, document) = run(&world, &sources);
        // Otherwise nothing was going on, and anything would pass.
        clerks.work(20);
        assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Barrier), "{document:#?}");
        let server_record = of(&document, "postgres");
        assert_eq!((server_record.role, server_record.held_us), (Role::Pivot, 0));
        for key in ["system", "timeline", "snapshot", "lsn", "role_passwords"] {
            assert!(server_record.position.contains_key(key), "{key}: {server_record:?}");
        }
        assert_eq!(of(&document, "cash").role, Role::Held);
        let verdict = judge(&copies(&world, server, &generation, &books));
        assert!(verdict.events >= 80, "{verdict:?}");
        assert_eq!((verdict.without_cause, verdict.torn), (0, Vec::new()));
        let globals = generation.data_folder(&"postgres".parse().unwrap()).join("globals.sql");
        assert!(std::fs::read_to_string(globals).unwrap().contains("CREATE ROLE postgres"));
    }
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
    // Nothing of ours is left at the server.
    let SourceKind::Postgres(settings) = &sources[2].kind else { unreachable!() };
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", settings.user.as_ref().unwrap());
    wait_until(Duration::from_secs(60), "our sessions to end", || server.sql("postgres", &left) == "0");
}

#[test]
fn dumps_made_one_after_another_do_not_pass_the_judge() {
    let (world, server) = (World::new(), postgres());
    let (books, _) = office(&world, server);
    let books = &books[2..];
    let clerks = Clerks::start(Path::new(CLERK), 2, 5, books);
    let mut made = Vec::new();
    for book in books {
        clerks.work(20);
        let dump = world.path(format!("{}.dump", book.name));
        let Database { port, name: database, .. } = book.database.as_ref().unwrap();
        let mut command = Command::new("pg_dump");
        command.arg("--host").arg(&server.socket).args(["--port", &port.to_string(), "--username", SUPERUSER]);
        assert!(command.arg("--format=custom").arg("--file").arg(&dump).arg(database).status().unwrap().success());
        made.push(load_postgres(server, book, &dump));
    }
    clerks.stop();
    let verdict = judge(&made);
    assert!(verdict.without_cause > 0, "{verdict:?}");
    assert!(verdict.torn.is_empty(), "{verdict:?}");
}

#[test]
fn one_cluster_is_of_one_instant_by_itself() {
    let (world, server) = (World::new(), postgres());
    let books = [Book::create_in("stock", server), Book::create_in("wages", server)];
    let clerks = Clerks::start(Path::new(CLERK), 3, 5, &books);
    clerks.work(20);
    let (generation, document) = run(&world, &[postgres_source(server, &postgres_account(server), &books)]);
    clerks.work(20);
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single), "{document:#?}");
    let verdict = judge(&copies(&world, server, &generation, &books));
    assert_eq!((verdict.without_cause, verdict.torn), (0, Vec::new()));
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
}

#[test]
fn an_account_without_rights_is_told_what_it_lacks_and_the_others_are_copied() {
    let (world, server) = (World::new(), postgres());
    let (books, mut sources) = office(&world, server);
    let account = server.database("offsite_account");
    server.sql("postgres", &format!("CREATE ROLE {account} LOGIN"));
    sources[2] = postgres_source(server, &account, &books);
    let (generation, document) = run(&world, &sources);
    assert_eq!(document.grade, Grade::Incomplete);
    assert_eq!(document.problems.len(), 1, "{document:#?}");
    let grant = format!("GRANT pg_read_all_data TO {account};");
    assert!(document.problems[0].what.contains(&grant), "{document:#?}");
    // The check says the same before the run; and doing as it says helps.
    assert!(check_server(&sources[2]).unwrap_err().contains(&grant));
    server.sql("postgres", &grant);
    assert_eq!(check_server(&sources[2]), Ok(()));
    assert_eq!(generation.sources().unwrap().len(), 2);
}

#[test]
fn a_server_that_dies_after_the_cut_leaves_no_generation_that_is_called_exact() {
    let (world, server) = (World::new(), Postgres::start());
    let (_, sources) = office(&world, &server);
    let (generation, document) = run_watched(&world, &sources, &|event| {
        if let Event::Cut(_) = event {
            server.server.kill();
        }
    });
    assert_eq!(document.grade, Grade::Incomplete, "{document:#?}");
    assert!(document.problems.iter().all(|problem| problem.source.as_str() == "postgres"));
    assert!(generation.sources().unwrap().iter().any(|source| source.as_str() == "cash"));
    server.start_again();
    let (_, document) = run(&world, &sources);
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
}

#[test]
fn a_table_that_somebody_has_for_himself_is_named_by_the_check_and_nothing_hangs() {
    let (world, server) = (World::new(), postgres());
    let book = Book::create_in("stock", server);
    let mut clerk = Client::open(&book);
    clerk.ask("BEGIN; LOCK TABLE event IN ACCESS EXCLUSIVE MODE;").unwrap();
    let error =
        check_server(&postgres_source(server, &postgres_account(server), std::slice::from_ref(&book))).unwrap_err();
    assert!(error.contains("could not be locked") && error.contains("lock timeout"), "{error}");
    let (_, document) = {
        clerk.ask("ROLLBACK;").unwrap();
        run(&world, &[postgres_source(server, &postgres_account(server), &[book])])
    };
    assert_eq!(document.grade, Grade::Exact, "{document:#?}");
}

#[test]
fn rows_hidden_from_the_account_are_not_called_a_backup() {
    let (world, server) = (World::new(), postgres());
    let book = Book::create_in("stock", server);
    let database = book.database();
    server.sql(database, "ALTER TABLE event ENABLE ROW LEVEL SECURITY");
    let (_, document) = run(&world, &[postgres_source(server, &postgres_account(server), std::slice::from_ref(&book))]);
    assert_eq!(document.grade, Grade::Incomplete);
    assert!(document.problems[0].what.contains("BYPASSRLS"), "{document:#?}");
}

/// Somebody else's statement, which has to wait for a table.
fn waiting(server: &Postgres, database: &str, statement: &str) -> Child {
    let child = server.psql(SUPERUSER, database, statement).spawn().unwrap();
    let asked = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                         WHERE NOT granted AND datname = '{database}'"
    );
    wait_until(Duration::from_secs(60), "the statement waits", || server.sql("postgres", &asked) == "1");
    child
}

#[test]
fn tables_that_are_emptied_after_each_cut_leave_a_generation_that_is_not_called_exact() {
    let (world, server) = (World::new(), postgres());
    let book = Book::create_in("stock", server);
    let source = postgres_source(server, &postgres_account(server), std::slice::from_ref(&book));
    let truncates = Mutex::new(Vec::new());
    // It waits for our lock, and the dump has to wait behind it: one of them has to give way.
    let (generation, document) = run_watched(&world, &[source], &|event| {
        if let Event::Cut(_) = event {
            truncates.lock().unwrap().push(waiting(server, book.database(), "TRUNCATE account"));
        }
    });
    let truncates = truncates.into_inner().unwrap();
    assert_eq!(truncates.len(), 3);
    assert!(truncates.into_iter().all(|mut truncate| truncate.wait().unwrap().success()));
    assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
    assert_eq!((document.problems.len(), of(&document, "postgres").role), (0, Role::Leisure));
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("gave way")), "{document:#?}");
    let copy = copies(&world, server, &generation, &[book]).pop().unwrap();
    assert_eq!(server.sql(copy.database(), "SELECT count(*) FROM account"), "0");
}

#[test]
fn a_dump_gives_way_to_those_who_wait_for_its_tables_and_there_is_another_cut() {
    let (world, server) = (World::new(), postgres());
    let book = Book::create_in("stock", server);
    let source = postgres_source(server, &postgres_account(server), std::slice::from_ref(&book));
    let altered = Mutex::new(false);
    // The dump begins only when the other has had its way.
    let (generation, document) = run_watched(&world, &[source], &|event| {
        if let Event::Started { .. } = event
            && !std::mem::replace(&mut *altered.lock().unwrap(), true)
        {
            let mut alter = waiting(server, book.database(), "ALTER TABLE account ADD COLUMN note TEXT");
            assert!(alter.wait().unwrap().success());
        }
    });
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("gave way")), "{document:#?}");
    assert_eq!(of(&document, "postgres").role, Role::Pivot);
    let copy = copies(&world, server, &generation, &[book]).pop().unwrap();
    assert_eq!(server.sql(copy.database(), "SELECT count(note) FROM account"), "0");
    assert!(judge(&[copy]).torn.is_empty());
}
