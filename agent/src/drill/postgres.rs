//! Opening a PostgreSQL source: its dumps are restored into a server of the drill's own, and looked through; a copy of a whole
//! server is one that can be started.
//!
//! The server listens on a socket in its own folder and nowhere else, and lasts as long as its source is looked at.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::server::{self, Account, DatabaseServer, LOAD_WITHIN, NoServer, START_WITHIN, Server};
use crate::psql;
use crate::rows::Rows;
use crate::said;

/// Settings that make a server which only has to live for an hour fast, and keep it to itself.
const SETTINGS: [&str; 12] = [
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "shared_buffers=128MB",
    "maintenance_work_mem=128MB",
    "dynamic_shared_memory_type=mmap",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// The same for a server that has settings of its own, for another machine: nobody is let in before it has recovered, and
/// nothing of it gets out.
const SETTINGS_OF_A_COPY: [&str; 23] = [
    "listen_addresses=",
    "port=5432",
    "hot_standby=off",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "synchronous_standby_names=",
    "archive_mode=off",
    "archive_cleanup_command=",
    "recovery_end_command=",
    "primary_conninfo=",
    // A subscription of the copy would take the changes that the real one is waiting for.
    "max_logical_replication_workers=0",
    "shared_preload_libraries=",
    "ssl=off",
    "autovacuum=off",
    "huge_pages=off",
    "shared_buffers=128MB",
    "max_prepared_transactions=200",
    "dynamic_shared_memory_type=mmap",
    "logging_collector=off",
    "log_destination=stderr",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// The administrator, whose name no dump has.
const ADMINISTRATOR: &str = "offsite_drill";

/// Questions to the catalog, and small statements.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// Names each table, and counts its rows.
const COUNT: &str =
    "SELECT format('SELECT %L, count(*) FROM ONLY %I.%I', format('%I.%I', nspname, relname), nspname, relname)";

/// A server.
pub(super) struct Cluster {
    _server: Server,
    programs: Programs,
    home: PathBuf,
    administrator: String,
}

/// The programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    folder: PathBuf,
    version: u32,
}

impl Cluster {
    /// Starts a server with nothing in it yet, that can read what `engine` wrote.
    pub(super) fn start(scratch: &Path, source: &str, engine: Option<&str>) -> Result<Self, NoServer> {
        let programs = Programs::find(engine, false).map_err(NoServer::Absent)?;
        let started = || {
            let account = Account::unprivileged(["postgres", "nobody"])?;
            let home = server::home(scratch, &format!("{source}-server"), account.as_ref())?;
            let data = home.join("data");
            let mut init = server::program(&programs.path("initdb"), &home, account.as_ref());
            init.args([
                "--username",
                ADMINISTRATOR,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--pgdata",
            ]);
            server::run(init.arg(&data), ANSWER_WITHIN)?;
            let mut command = server::program(&programs.path("postgres"), &home, account.as_ref());
            command.arg("-D").arg(&data).arg("-k").arg(&home);
            command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
            Self::serve(command, START_WITHIN, &scratch.join(format!("{source}.log")), &programs, home, ADMINISTRATOR)
        };
        started().map_err(NoServer::Failed)
    }

    /// Starts the server that the copy in `folder` is one of, and waits until it has recovered up to the cut. `folder` is
    /// away meanwhile; [`Cluster::end`] brings it back.
    pub(super) fn of_copy(
        scratch: &Path,
        source: &str,
        engine: Option<&str>,
        folder: &Path,
        administrator: &str,
    ) -> Result<Self, NoServer> {
        let programs = Programs::find(engine, true).map_err(NoServer::Absent)?;
        let started = || {
            let account = Account::unprivileged(["postgres", "nobody"])?;
            let home = server::closed_home(scratch, &format!("{source}-server"), account.as_ref())?;
            let data = home.join("data");
            let failed = |error| format!("the copy could not be given to a server: {error}");
            fs::rename(folder, &data).map_err(failed)?;
            // Where its own settings are, and who may log in, was a matter of the other machine.
            let (settings, logins) = (home.join("settings"), home.join("logins"));
            fs::write(&settings, "").and_then(|()| fs::write(&logins, "local all all trust\n")).map_err(failed)?;
            server::give(&home, account.as_ref()).map_err(failed)?;
            let mut command = server::program(&programs.path("postgres"), &home, account.as_ref());
            command.arg("-D").arg(&data).arg("-k").arg(&home);
            for (name, path) in [("config_file", &settings), ("hba_file", &logins), ("ident_file", &settings)] {
                let mut setting = OsString::from(format!("{name}="));
                setting.push(path);
                command.arg("-c").arg(setting);
            }
            command.args(SETTINGS_OF_A_COPY.iter().flat_map(|setting| ["-c", setting]));
            Self::serve(command, LOAD_WITHIN, &scratch.join(format!("{source}.log")), &programs, home, administrator)
        };
        started().map_err(NoServer::Failed)
    }

    fn serve(
        mut command: Command,
        within: Duration,
        log: &Path,
        programs: &Programs,
        home: PathBuf,
        administrator: &str,
    ) -> Result<Self, String> {
        let ask = || client(programs, &home, administrator, "postgres", Some("SELECT 1"));
        let server = Server::start(&mut command, log, within, || server::run(&mut ask(), ANSWER_WITHIN).is_ok())?;
        Ok(Self { _server: server, programs: programs.clone(), home, administrator: administrator.to_owned() })
    }

    /// The databases that one can log in to.
    pub(super) fn databases(&self) -> Result<Vec<String>, String> {
        let all = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";
        Ok(self.ask("postgres", all)?.lines().map(str::to_owned).collect())
    }

    /// Ends the server of a copy, and puts the copy back to `folder`.
    pub(super) fn end(self, folder: &Path) -> Result<(), String> {
        let data = self.home.join("data");
        drop(self);
        let failed = |error| format!("{} could not be put back: {error}", folder.display());
        fs::rename(&data, folder).map_err(failed)?;
        // The account of the server could have put anything in its place.
        let is_folder = fs::symlink_metadata(folder).map_err(failed)?.is_dir();
        if is_folder { Ok(()) } else { Err(format!("{} is no folder any more", folder.display())) }
    }

    fn connect(&self, command: &mut Command) {
        command.arg("--host").arg(&self.home).args(["--username", &self.administrator]);
    }

    fn client(&self, database: &str, sql: Option<&str>) -> Command {
        client(&self.programs, &self.home, &self.administrator, database, sql)
    }
}

impl DatabaseServer for Cluster {
    fn engine(&self) -> String {
        format!("PostgreSQL {}", self.programs.version)
    }

    fn accounts(&self, folder: &Path) -> Result<Vec<String>, String> {
        let file = folder.join("globals.sql");
        if !file.exists() {
            return Ok(Vec::new());
        }
        let failed = |error| format!("{} could not be read: {error}", file.display());
        let text = fs::read(&file).map_err(failed)?;
        let statements = psql::plain_lines(&String::from_utf8_lossy(&text)).collect::<Vec<_>>().join("\n");
        let mut command = self.client("postgres", None);
        let command = command.arg("--set=ON_ERROR_STOP=0");
        let run = |pipe| server::run_to_end(command.stdin(pipe), ANSWER_WITHIN);
        let said = psql::fed(statements, run).map_err(failed)??.said;
        // Folders of tablespaces are those of the machine that is lost; everything is restored without them.
        let errors = said.lines().filter(|line| line.contains("ERROR:") && !line.contains("tablespace"));
        Ok(errors.map(said::sentences).collect())
    }

    fn load(&self, database: &str, dump: &Path) -> Result<(), String> {
        let name = database.replace('"', "\"\"");
        self.ask("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'"))?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = server::program(&self.programs.path("pg_restore"), &self.home, None);
        self.connect(&mut command);
        command.args(["--exit-on-error", "--no-tablespaces", "--no-password"]);
        command.arg(format!("--jobs={jobs}")).arg("--dbname").arg(format!("dbname='{}'", conninfo(database))).arg(dump);
        server::run(&mut command, LOAD_WITHIN).map(drop)
    }

    fn count(&self, database: &str) -> Result<Rows, String> {
        let mut command = self.client(database, None);
        let failed = |error| format!("the rows could not be counted: {error}");
        let run = |pipe| server::run(command.stdin(pipe), LOAD_WITHIN);
        let counts = format!("{COUNT} {} \\gexec\n", psql::TABLES_WITH_ROWS);
        let printed = psql::fed(counts, run).map_err(failed)??;
        let row =
            |line: &str| line.rsplit_once('|').and_then(|(table, count)| Some((table.to_owned(), count.parse().ok()?)));
        Ok(printed.lines().filter_map(row).collect())
    }

    fn examine(&self, database: &str) -> Result<bool, String> {
        let program = self.programs.path("pg_amcheck");
        if !program.exists() {
            return Ok(false);
        }
        let mut command = server::program(&program, &self.home, None);
        self.connect(&mut command);
        command.args(["--install-missing", "--no-password"]).arg(format!("dbname='{}'", conninfo(database)));
        let ended = server::run_to_end(&mut command, LOAD_WITHIN)?;
        match ended.status {
            Some(status) if status.success() => Ok(true),
            // The extension that it needs comes with another package.
            _ if ended.said.contains("amcheck") && ended.said.contains("is not available") => Ok(false),
            _ => Err(said::sentences(&[ended.printed.trim(), ended.said.trim()].join("\n"))),
        }
    }

    fn ask(&self, database: &str, sql: &str) -> Result<String, String> {
        let answer = server::run(&mut self.client(database, Some(sql)), LOAD_WITHIN)?;
        Ok(answer.trim_end_matches('\n').to_owned())
    }
}

fn client(programs: &Programs, home: &Path, administrator: &str, database: &str, sql: Option<&str>) -> Command {
    let mut command = server::program(&programs.path("psql"), home, None);
    command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--field-separator=|"]);
    command
        .args(["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--username", administrator])
        .arg("--host")
        .arg(home);
    command.arg("--dbname").arg(format!("dbname='{}'", conninfo(database))).stdin(Stdio::null());
    command.args(sql.map(|sql| ["--command", sql]).iter().flatten());
    command
}

/// A value of a connection string.
fn conninfo(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

impl Programs {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Those that can read what `engine` wrote: newer ones read dumps, but not the files of a server.
    fn find(engine: Option<&str>, same: bool) -> Result<Self, String> {
        let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        for (above, below) in [("/usr/lib/postgresql", "bin"), ("/usr", "bin"), ("/opt/homebrew/opt", "bin")] {
            let names = std::fs::read_dir(above).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
            let ours = |path: &PathBuf| {
                above == "/usr/lib/postgresql"
                    || path.to_string_lossy().contains("/pgsql-")
                    || path.to_string_lossy().contains("/postgresql@")
            };
            folders.extend(names.filter(ours).map(|path| path.join(below)));
        }
        let found = folders.into_iter().filter(|folder| folder.join("initdb").exists()).filter_map(|folder| {
            let version = version_of(&folder.join("postgres"))?;
            Some(Self { folder, version })
        });
        choose(found, engine, same)
    }
}

/// The first that is not older than what wrote the dump, or of the same version; the search path comes first.
fn choose(found: impl Iterator<Item = Programs>, engine: Option<&str>, same: bool) -> Result<Programs, String> {
    let wanted = engine.and_then(major).unwrap_or(0);
    let mut newest = None;
    for programs in found {
        if programs.version == wanted || (programs.version > wanted && !same) {
            return Ok(programs);
        }
        newest = newest.max(Some(programs.version));
    }
    let engine = engine.unwrap_or("PostgreSQL");
    Err(match newest {
        None if same => format!("this machine has no PostgreSQL server (initdb, postgres); install {engine}"),
        None => format!("this machine has no PostgreSQL server (initdb, postgres); install one for {engine} or newer"),
        Some(found) if same => {
            format!(
                "the files of a server are read by {engine} and no other version, and this machine has {found}; install it"
            )
        }
        Some(found) => format!("it needs {engine} or newer, and this machine has {found}; install a newer server"),
    })
}

fn version_of(postgres: &Path) -> Option<u32> {
    let folder = postgres.parent()?;
    let printed = server::run(server::program(postgres, folder, None).arg("--version"), ANSWER_WITHIN).ok()?;
    major(&printed)
}

/// `postgres (PostgreSQL) 15.14 (Debian …)` is 15.
fn major(text: &str) -> Option<u32> {
    let number =
        text.split(|c: char| c.is_whitespace() || c == '(').find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    number?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_than_the_one_that_was_copied_is_not_used() {
        let found = |versions: &[u32], same| {
            let here =
                versions.iter().map(|version| Programs { folder: format!("/{version}").into(), version: *version });
            choose(here.collect::<Vec<_>>().into_iter(), Some("PostgreSQL 15.14 (Debian 15.14-0+deb12u1)"), same)
        };
        let here = |versions| found(versions, false);
        assert_eq!(here(&[13, 17, 16]).unwrap().version, 17);
        assert_eq!(here(&[15]).unwrap().version, 15);
        assert!(here(&[13, 14]).unwrap_err().contains("this machine has 14"));
        assert!(here(&[]).unwrap_err().contains("no PostgreSQL server"));
        // Files are another matter.
        assert_eq!(found(&[17, 15], true).unwrap().version, 15);
        assert!(found(&[16, 17], true).unwrap_err().contains("no other version"));
    }
}
