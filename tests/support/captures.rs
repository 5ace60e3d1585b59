//! Captures by the library, with the real holder, into a world; and copies of what was captured that can be written to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent::capture::{
    CaptureRequest, CutSettings, HolderProgram, MariaDbSource, PostgresMode, PostgresSource, SourceConfig, SourceKind,
    SqliteSource, Watch, capture,
};
use agent::generation::{Class, Document, SourceRecord};
use agent::ids::GenerationId;
use agent::staging::{LocalGeneration, Staging};

use crate::clerks::{Book, Engine};
use crate::process::program;
use crate::servers::{MariaDb, Postgres, SUPERUSER};
use crate::{World, offsite_program};

/// What the examples grant to the account of a MariaDB server.
pub const MARIADB_RIGHTS: &str = "SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS";

/// Captures `sources`.
pub fn run(world: &World, sources: &[SourceConfig]) -> (LocalGeneration, Document) {
    run_watched(world, sources, &|_| ())
}

/// The same, with `watch` told what happens.
pub fn run_watched(world: &World, sources: &[SourceConfig], watch: Watch<'_>) -> (LocalGeneration, Document) {
    run_with(world, sources, &patient(), watch)
}

/// The newest generation that is staged in a world, and what it says.
pub fn newest_staged(world: &World) -> (PathBuf, Document) {
    let staging = world.path("staging");
    let names = std::fs::read_dir(&staging).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = names.filter(|name| name.starts_with("20") && !name.contains(".partial")).max().unwrap();
    let folder = staging.join(newest);
    let document = serde_json::from_slice(&std::fs::read(folder.join("generation.json")).unwrap()).unwrap();
    (folder, document)
}

/// Settings for a machine that has much else to do: writers may be held for as long as that can be configured.
pub fn patient() -> CutSettings {
    CutSettings { hold_limit: CutSettings::HOLD_LIMIT_MAX, ..CutSettings::default() }
}

/// The same, with settings.
pub fn run_with(
    world: &World,
    sources: &[SourceConfig],
    cut: &CutSettings,
    watch: Watch<'_>,
) -> (LocalGeneration, Document) {
    let holder = HolderProgram { program: offsite_program().to_owned(), arguments: vec!["holder".to_owned()] };
    let staging = Staging::open(&world.path("staging"), agent::clock::now()).unwrap();
    let draft = staging.begin(&GenerationId::new(agent::clock::now()), None).unwrap();
    let request = CaptureRequest {
        site: &"office".parse().unwrap(),
        class: Class::Rolling,
        label: None,
        lifetime: None,
        sources,
        cut,
        holder: &holder,
        own_folders: &[],
    };
    let generation = capture(&request, draft, None, watch).unwrap();
    let document = generation.document().unwrap();
    (generation, document)
}

/// What a generation says of one source.
#[track_caller]
pub fn of<'d>(document: &'d Document, name: &str) -> &'d SourceRecord {
    document.sources.iter().find(|source| source.name.as_str() == name).unwrap()
}

/// The source of an SQLite book, under the book's name.
pub fn sqlite_source(book: &Book) -> SourceConfig {
    let kind = SourceKind::Sqlite(SqliteSource { path: book.path.clone() });
    SourceConfig { name: book.name.parse().unwrap(), kind }
}

/// An account of a PostgreSQL cluster with what `examples/postgres.toml` grants, and nothing else.
pub fn postgres_account(server: &Postgres) -> String {
    let account = server.database("offsite_account");
    server.sql("postgres", &format!("CREATE ROLE {account} LOGIN; GRANT pg_read_all_data TO {account}"));
    account
}

/// An account of a PostgreSQL cluster that may copy it whole, and nothing else.
pub fn physical_account(server: &Postgres) -> String {
    let account = server.database("offsite_account");
    server.sql("postgres", &format!("CREATE ROLE {account} LOGIN REPLICATION"));
    account
}

/// The source `postgres`: the whole cluster, copied by `user`.
pub fn physical_source(server: &Postgres, user: &str) -> SourceConfig {
    let source = PostgresSource {
        host: Some(server.socket.display().to_string()),
        port: Some(server.port),
        user: Some(user.to_owned()),
        mode: PostgresMode::Physical,
        ..PostgresSource::default()
    };
    SourceConfig { name: "postgres".parse().unwrap(), kind: SourceKind::Postgres(source) }
}

/// The source `postgres`: the books that lie there, copied by `user`.
pub fn postgres_source(server: &Postgres, user: &str, books: &[Book]) -> SourceConfig {
    let databases = books.iter().filter(|book| book.is_at(Engine::Postgres)).map(|book| book.database().to_owned());
    let source = PostgresSource {
        host: Some(server.socket.display().to_string()),
        port: Some(server.port),
        user: Some(user.to_owned()),
        databases: databases.collect(),
        ..PostgresSource::default()
    };
    SourceConfig { name: "postgres".parse().unwrap(), kind: SourceKind::Postgres(source) }
}

/// An account of a MariaDB server that may do so much everywhere.
pub fn mariadb_account(server: &MariaDb, rights: &str) -> String {
    let account = server.database("account");
    server.sql("mysql", &format!("CREATE USER {account}@localhost; GRANT {rights} ON *.* TO {account}@localhost"));
    account
}

/// The source `mariadb`: the books that lie there, copied by `user`.
pub fn mariadb_source(server: &MariaDb, user: &str, books: &[Book]) -> SourceConfig {
    let databases = books.iter().filter(|book| book.is_at(Engine::MariaDb)).map(|book| book.database().to_owned());
    let source = MariaDbSource {
        host: Some(server.socket.display().to_string()),
        user: Some(user.to_owned()),
        databases: databases.collect(),
        ..MariaDbSource::default()
    };
    SourceConfig { name: "mariadb".parse().unwrap(), kind: SourceKind::MariaDb(source) }
}

/// Loads the dump of a PostgreSQL book into a new database.
#[track_caller]
pub fn load_postgres(server: &Postgres, book: &Book, dump: &Path) -> Book {
    let database = server.database("restored");
    let mut command = Command::new(program("pg_restore"));
    command.arg("--host").arg(&server.socket).args(["--port", &server.port.to_string(), "--username", SUPERUSER]);
    // The account that owned it may not be there.
    let output = command.args(["--no-owner", "--exit-on-error", "--dbname", &database]).arg(dump).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Book::of(book.name, server, database)
}

/// Loads the dump of a MariaDB book into a new database.
#[track_caller]
pub fn load_mariadb(server: &MariaDb, book: &Book, dump: &Path) -> Book {
    let database = server.database("restored");
    let mut command = Command::new(program("mariadb"));
    command.args(["--no-defaults", "--user=root", "--database", &database, "--socket"]).arg(&server.socket);
    let output = command.stdin(Stdio::from(std::fs::File::open(dump).unwrap())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Book::at(book.name, server, database)
}

/// A copy of an SQLite book that can be written to, as SQLite does to look at a database with a log.
pub fn copy_sqlite(world: &World, book: &Book, staged: &Path) -> Book {
    let path = tempfile::Builder::new().prefix(book.name).tempdir_in(world.path("")).unwrap().keep().join("copy.db");
    std::fs::write(&path, std::fs::read(staged).unwrap()).unwrap();
    Book { name: book.name, path, database: None }
}
