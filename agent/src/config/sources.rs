//! `[[source]]`: what is copied.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

use super::reports::is_this_machine;
use super::secret::SecretRef;
use super::table::{Problem, Section};
use super::units::Span;
use crate::capture::{
    CommandHold, CommandSource, Dialect, EnvValue, FolderSource, MariaDbSource, Output, Patterns, PostgresMode,
    PostgresSource, SnapshotKind, SourceConfig, SourceKind, SqliteSource,
};
use crate::failure;
use crate::ids::SourceName;

/// One source, as configured; its secrets are still references.
#[derive(Clone, Debug)]
pub struct SourceEntry {
    /// Its name.
    pub name: SourceName,
    key: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Sqlite(SqliteSource),
    Postgres(PostgresSource, Option<SecretRef>),
    MariaDb(MariaDbSource, Option<SecretRef>),
    Folder(FolderSource),
    Command(Command),
}

/// A command source whose secrets are still to be looked up.
#[derive(Clone, Debug)]
struct Command {
    source: CommandSource,
    secret_env: Vec<(String, SecretRef)>,
}

/// Long enough for a dump of some hundred gigabytes.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Every source that can be read, and how many there are in all.
pub(super) fn read(root: &Section<'_, '_>) -> (Vec<SourceEntry>, usize) {
    let sections = root.sections("source");
    let count = sections.len();
    (sections.into_iter().filter_map(SourceEntry::read).collect(), count)
}

impl SourceEntry {
    fn read(section: Section<'_, '_>) -> Option<Self> {
        let name = section.required("name", "every source has a name of its own, such as name = \"ledger\"");
        section.must_have(
            "type",
            "write type = \"sqlite\", \"postgres\", \"mariadb\", \"mysql\", \"folder\" or \"command\"",
        );
        let kind = section.string("type")?;
        section.is_of_kind(kind);
        let key = section.key("");
        let settings = match kind {
            "sqlite" => {
                section.required_path("path", "name the database file").map(|path| Kind::Sqlite(SqliteSource { path }))
            }
            "postgres" => Some(read_postgres(&section)),
            "mariadb" => Some(read_mariadb(&section, Dialect::MariaDb)),
            "mysql" => Some(read_mariadb(&section, Dialect::MySql)),
            "folder" => read_folder(&section).map(Kind::Folder),
            "command" => read_command(&section).map(Kind::Command),
            other => {
                let what = format!(
                    "there is no source of type `{other}`; there are sqlite, postgres, mariadb, mysql, folder, command"
                );
                section.report("type", what);
                return None;
            }
        };
        section.finish();
        Some(Self { name: name?, key, kind: settings? })
    }

    /// The kind, as it is written in the configuration, such as `sqlite`.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Sqlite(_) => "sqlite",
            Kind::Postgres(..) => "postgres",
            Kind::MariaDb(source, _) => source.dialect.word(),
            Kind::Folder(_) => "folder",
            Kind::Command(_) => "command",
        }
    }

    /// The file or folder that is copied; none for a command or a server.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Sqlite(source) => Some(&source.path),
            Kind::Folder(source) => Some(&source.path),
            Kind::Postgres(..) | Kind::MariaDb(..) | Kind::Command(_) => None,
        }
    }

    /// The folder that is copied with all it holds.
    pub fn folder(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Folder(source) => Some(&source.path),
            Kind::Sqlite(_) | Kind::Postgres(..) | Kind::MariaDb(..) | Kind::Command(_) => None,
        }
    }

    /// The server and its databases, for a person.
    pub fn server(&self) -> Option<String> {
        let (host, databases) = match &self.kind {
            Kind::Postgres(PostgresSource { mode: PostgresMode::Physical, host, .. }, _) => {
                return Some(format!("the whole server at {}", host.as_deref().unwrap_or("this machine")));
            }
            Kind::Postgres(source, _) => (&source.host, &source.databases),
            Kind::MariaDb(source, _) => (&source.host, &source.databases),
            Kind::Sqlite(_) | Kind::Folder(_) | Kind::Command(_) => return None,
        };
        let host = host.as_deref().unwrap_or("this machine");
        let databases = match databases.as_slice() {
            [] => "all databases".to_owned(),
            some => some.join(", "),
        };
        Some(format!("{databases} at {host}"))
    }

    /// Whether it is a server that may be on another machine.
    pub fn may_be_elsewhere(&self) -> bool {
        let host = match &self.kind {
            Kind::Postgres(source, _) => &source.host,
            Kind::MariaDb(source, _) => &source.host,
            Kind::Sqlite(_) | Kind::Folder(_) | Kind::Command(_) => &None,
        };
        host.as_ref().is_some_and(|host| !host.starts_with('/') && !is_this_machine(host))
    }

    /// The programs it runs, from the root.
    pub fn programs<'a>(&'a self) -> Vec<(&'static str, &'a Path)> {
        let Kind::Command(command) = &self.kind else { return Vec::new() };
        let CommandSource { command, check, hold, .. } = &command.source;
        let (check, hold) = (check.as_ref(), hold.as_ref());
        let programs = [
            ("command", Some(command)),
            ("check", check),
            ("hold", hold.map(|programs| &programs.hold)),
            ("release", hold.map(|programs| &programs.release)),
        ];
        let program = |(key, argv): (&'static str, Option<&'a Vec<String>>)| Some((key, Path::new(argv?.first()?)));
        programs.into_iter().filter_map(program).collect()
    }

    /// Looks up the secrets; every one that cannot be had is a problem.
    pub fn resolve(&self) -> Result<SourceConfig, Vec<Problem>> {
        let kind = match &self.kind {
            Kind::Sqlite(source) => SourceKind::Sqlite(source.clone()),
            Kind::Postgres(source, password) => SourceKind::Postgres(PostgresSource {
                password: password.as_ref().map(|place| self.secret("password", place)).transpose()?,
                ..source.clone()
            }),
            Kind::MariaDb(source, password) => SourceKind::MariaDb(MariaDbSource {
                password: password.as_ref().map(|place| self.secret("password", place)).transpose()?,
                ..source.clone()
            }),
            Kind::Folder(source) => SourceKind::Folder(source.clone()),
            Kind::Command(command) => SourceKind::Command(self.with_secrets(command)?),
        };
        Ok(SourceConfig { name: self.name.clone(), kind })
    }

    fn secret(&self, key: &str, place: &SecretRef) -> Result<SecretString, Vec<Problem>> {
        place.read().map_err(|error| vec![Problem { key: self.key(key), line: None, what: failure::one_line(&error) }])
    }

    fn with_secrets(&self, command: &Command) -> Result<CommandSource, Vec<Problem>> {
        let mut source = command.source.clone();
        let mut problems = Vec::new();
        for (name, place) in &command.secret_env {
            match place.read() {
                Ok(secret) => drop(source.env.insert(name.clone(), EnvValue::Secret(secret))),
                Err(error) => {
                    let what = format!("{name}: {}", failure::one_line(&error));
                    problems.push(Problem { key: self.key("secret_env"), line: None, what });
                }
            }
        }
        if problems.is_empty() { Ok(source) } else { Err(problems) }
    }

    /// The path of its setting `key` in the configuration: `source[2].path`.
    pub fn key(&self, key: &str) -> String {
        format!("{}{key}", self.key)
    }
}

fn read_postgres(section: &Section<'_, '_>) -> Kind {
    let mode = match section.string("mode") {
        None | Some("logical") => PostgresMode::Logical,
        Some("physical") => PostgresMode::Physical,
        Some(other) => {
            section.report("mode", format_args!("there is no mode `{other}`; there are logical and physical"));
            PostgresMode::Logical
        }
    };
    let databases = section.strings("databases").unwrap_or_default();
    if mode == PostgresMode::Physical && !databases.is_empty() {
        section.report("databases", "a physical copy is one of the whole server; leave this out");
    }
    let source = PostgresSource {
        mode,
        host: section.string("host").map(str::to_owned),
        port: section.integer("port", 1..=65535).and_then(|port| u16::try_from(port).ok()),
        user: section.string("user").map(str::to_owned),
        password: None,
        ca_file: section.path("ca_file"),
        databases,
    };
    Kind::Postgres(source, section.parsed("password"))
}

fn read_mariadb(section: &Section<'_, '_>, dialect: Dialect) -> Kind {
    let source = MariaDbSource {
        dialect,
        host: section.string("host").map(str::to_owned),
        port: section.integer("port", 1..=65535).and_then(|port| u16::try_from(port).ok()),
        user: section.string("user").map(str::to_owned),
        password: None,
        ca_file: section.path("ca_file"),
        databases: section.strings("databases").unwrap_or_default(),
    };
    Kind::MariaDb(source, section.parsed("password"))
}

fn read_folder(section: &Section<'_, '_>) -> Option<FolderSource> {
    let path = section.required_path("path", "name the folder");
    let include = section.strings("include").unwrap_or_default();
    let exclude = section.strings("exclude").unwrap_or_default();
    // Each list by itself, so that the problem is reported where it is.
    for (key, patterns) in [("include", &include), ("exclude", &exclude)] {
        if let Err(error) = Patterns::new(patterns, &[]) {
            section.report(key, failure::one_line(&error));
        }
    }
    let patterns = Patterns::new(&include, &exclude).ok()?;
    let snapshot = read_snapshot(section);
    let may_be_empty = section.boolean("may_be_empty").unwrap_or(false);
    Some(FolderSource { path: path?, patterns, snapshot, may_be_empty })
}

fn read_snapshot(section: &Section<'_, '_>) -> Option<SnapshotKind> {
    match section.string("snapshot")? {
        "btrfs" => return Some(SnapshotKind::Btrfs),
        other @ ("lvm" | "zfs") => section.report(
            "snapshot",
            format_args!(
                "snapshots of {other} are not taken by offsite; leave this out, and the folder is copied right after the instant \
                 of the databases, or have a source of type `command` whose `hold` takes the snapshot and whose `command` copies it"
            ),
        ),
        other => section.report("snapshot", format_args!("there is no snapshot of `{other}`; there is btrfs")),
    }
    None
}

fn read_command(section: &Section<'_, '_>) -> Option<Command> {
    section.must_have(
        "command",
        "write the program and its arguments, such as command = [\"/usr/bin/pg_dump\", \"office\"]",
    );
    let command = section.strings("command");
    let stdout = section.string("stdout").map(str::to_owned);
    let env = section.pairs("env").unwrap_or_default();
    let env = env.into_iter().map(|(name, value)| (name, EnvValue::Plain(value.to_owned()))).collect();
    let mut secret_env = Vec::new();
    for (name, place) in section.pairs("secret_env").unwrap_or_default() {
        match place.parse() {
            Ok(place) => secret_env.push((name, place)),
            Err(error) => section.report("secret_env", format_args!("{name}: {error}")),
        }
    }
    let timeout = section.parsed("time_limit").map_or(TIME_LIMIT, |Span(limit)| limit);
    let check = section.strings("check");
    let (hold, release) = (section.strings("hold"), section.strings("release"));
    for (key, argv) in [("command", &command), ("check", &check), ("hold", &hold), ("release", &release)] {
        let program = argv.as_ref().map(|argv| argv.first().map_or("", String::as_str));
        if program.is_some_and(|program| !Path::new(program).is_absolute()) {
            section
                .report(key, "its first text has to be the absolute path of a program; there is no shell in between");
        }
    }
    for (key, missing) in [("hold", &release), ("release", &hold)] {
        if missing.is_none() && [&hold, &release].iter().any(|argv| argv.is_some()) {
            section.report(key, "whoever is held has to be let go: `hold` and `release` go together");
        }
    }
    let hold = hold.zip(release).map(|(hold, release)| CommandHold { hold, release });
    let command = command?;
    if stdout.is_none() && !command.iter().any(|argument| argument.contains("{staging}")) {
        section.report(
            "command",
            "its result would be lost: pass `{staging}` as the folder to write to, or set stdout = \"name-of-a-file\" to \
             keep its output",
        );
    }
    let output = stdout.map_or(Output::Folder, Output::Stdout);
    Some(Command { source: CommandSource { command, output, env, timeout, check, hold }, secret_env })
}
