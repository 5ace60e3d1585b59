//! The dump of one database, which waits for the hold or is made at leisure; and the accounts of the server.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::gate::Gate;
use crate::capture::command::{self, pass_environment};
use crate::capture::session::{Client, Session};
use crate::capture::settings::{CommandSource, Dialect, EnvValue, MariaDbSource, Output};
use crate::mysql::{self, Place};

/// Where accounts go. A dot stands in no other file's name but before its ending.
const ACCOUNTS: &str = "server.accounts.sql";

/// More than enough for the accounts of a server.
const ACCOUNTS_WITHIN: Duration = Duration::from_secs(600);

/// Connecting.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The dump of one database.
#[derive(Debug)]
pub(super) struct Dump {
    pub(super) database: String,
    file: PathBuf,
    /// Options that only some versions of its program have.
    peculiar: Vec<&'static str>,
    gate: Option<Gate>,
}

impl Dump {
    pub(super) fn new(database: String, folder: &Path, peculiar: Vec<&'static str>) -> Self {
        let file = folder.join(file_name(&database));
        Self { database, file, peculiar, gate: None }
    }

    /// Starts it, if it has not been started; it stops before it takes its snapshot.
    pub(super) fn start(&mut self, source: &MariaDbSource) -> Result<(), String> {
        if self.gate.is_some() {
            return Ok(());
        }
        let mut command = Command::new(dump_program(source.dialect));
        command.args(["--no-defaults", "--verbose", "--single-transaction", "--quick", "--no-tablespaces"]);
        command.args(["--routines", "--events", "--triggers", "--hex-blob", "--skip-dump-date"]);
        command.args(["--default-character-set=utf8mb4", "--max-allowed-packet=1G"]).args(&self.peculiar);
        command.args(place(source)).arg("--").arg(&self.database);
        pass_environment(&mut command, &env(source));
        let failed = |error| format!("the dump of {} could not be started: {error}", self.database);
        let file = File::create(&self.file).map_err(failed)?;
        let host = source.host.as_deref().filter(|host| !host.starts_with('/')).unwrap_or("localhost");
        self.gate = Some(Gate::start(&mut command, file, host).map_err(failed)?);
        Ok(())
    }

    /// Lets it take its snapshot.
    pub(super) fn open(&mut self) -> Result<(), String> {
        // One that has not stopped there might have taken its snapshot before.
        match self.gate.as_mut().filter(|gate| gate.has_stopped().unwrap_or(false)) {
            Some(gate) => gate.open().map_err(|error| error.to_string()),
            None => Err("a dump did not wait for its snapshot".to_owned()),
        }
    }

    /// Waits until it has its snapshot.
    pub(super) fn pinned(&mut self, limit: Duration) -> Result<(), String> {
        self.gate.as_mut().map_or(Ok(()), |gate| gate.pinned(limit))
    }

    /// Waits for its end. The error is one sentence.
    pub(super) fn finish(&mut self, stop: &AtomicBool) -> Result<(), String> {
        let Some(gate) = self.gate.take() else { return Err(format!("{} was not dumped", self.database)) };
        gate.finish(stop).map_err(|why| format!("{}: {why}", self.database))
    }

    /// Ends it if it is past the point where it would have to stop.
    pub(super) fn reset(&mut self) {
        if !self.has_stopped() {
            self.gate = None;
        }
    }

    /// The name of its file.
    pub(super) fn file_name(&self) -> String {
        file_name(&self.database)
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.gate = None;
    }

    /// Removes what is left of it.
    pub(super) fn remove(&self) {
        // It may not be there.
        let _removed = std::fs::remove_file(&self.file);
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.has_stopped().unwrap_or(false))
    }

    /// What it said, if it has ended before its time.
    pub(super) fn failure(&mut self) -> Option<String> {
        let mut gate = self.gate.take_if(|gate| gate.has_ended())?;
        gate.open().ok()?;
        gate.finish(&AtomicBool::new(false)).err()
    }
}

/// Waits until all `dumps` have been started and stopped; answers with the numbers of their sessions at the server, which began
/// after those with the numbers `after`. `ask` puts a question to the server.
pub(super) fn stopped(
    dumps: &mut [Dump],
    after: &[&str],
    mut ask: impl FnMut(&str) -> Result<Vec<String>, String>,
) -> Result<Vec<String>, String> {
    let after: String = after.iter().map(|number| format!(" AND ID > {number}")).collect();
    // They stop when they are about to say that they are connected, so those that have not been are still to come.
    let connected = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND DB IS NULL AND \
         USER = SUBSTRING_INDEX(USER(), '@', 1){after};"
    );
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        let numbers = ask(&connected)?;
        if numbers.len() >= dumps.len() && dumps.iter().all(Dump::has_stopped) {
            return Ok(numbers);
        }
        if let Some(said) = dumps.iter_mut().find_map(Dump::failure) {
            return Err(said);
        }
        if Instant::now() > deadline {
            return Err("a dump did not get to its snapshot in time".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What only some versions of MySQL's own program have, by what shows in its help.
const PECULIAR: [(&str, &str); 3] = [
    // The numbers of all transactions of the old server keep a dump from being loaded into one that knows some of them.
    ("--set-gtid-purged", "--set-gtid-purged=OFF"),
    // Otherwise it has the server wait a day for whoever takes nothing any more, and not as long as is usual there.
    ("--network-timeout", "--skip-network-timeout"),
    // The same of whoever says nothing any more: eight hours are usual. A dump does not pause for as long as this.
    ("--init-command=", "--init-command=SET SESSION wait_timeout = 600"),
];

/// Options for the dumps of this machine's program.
pub(super) fn peculiar(dialect: Dialect) -> Vec<&'static str> {
    let help = || Command::new(dump_program(dialect)).args(["--no-defaults", "--help"]).stdin(Stdio::null()).output();
    let help = (dialect == Dialect::MySql).then(|| help().ok()).flatten().map(|help| help.stdout).unwrap_or_default();
    let help = String::from_utf8_lossy(&help);
    PECULIAR.iter().filter(|(shows, _)| help.contains(shows)).map(|(_, option)| *option).collect()
}

/// Writes down the accounts of the server and what they have been granted. They belong to no database and no snapshot.
pub(super) fn accounts(source: &MariaDbSource, folder: &Path) -> Result<(), String> {
    let fixed = ["--no-defaults", "--system=users", "--insert-ignore", "--skip-dump-date", "--no-tablespaces"];
    let mut arguments = vec![dump_program(source.dialect).to_owned()];
    arguments.extend(fixed.map(str::to_owned));
    arguments.extend(place(source));
    let dump = CommandSource {
        command: arguments,
        output: Output::Stdout(ACCOUNTS.to_owned()),
        env: env(source),
        timeout: ACCOUNTS_WITHIN,
        check: None,
        hold: None,
    };
    command::run(&dump, folder).inspect_err(|_| {
        // What is left of it is no list. It may not be there.
        let _removed = std::fs::remove_file(folder.join(ACCOUNTS));
    })
}

/// A session at the server, which ends it when it is not heard of for the time of `silence`, and lets it wait for no lock for
/// long.
pub(super) fn session(source: &MariaDbSource, silence: Duration) -> Result<Session, String> {
    let fixed = ["--no-defaults", "--batch", "--skip-column-names", "--unbuffered", "--force", "--skip-reconnect"];
    let mut arguments = fixed.map(str::to_owned).to_vec();
    arguments.extend(["--no-auto-rehash".to_owned(), "--raw".to_owned()]);
    arguments.extend(place(source));
    let program = match source.dialect {
        Dialect::MariaDb => "mariadb",
        Dialect::MySql => "mysql",
    };
    let client = Client { program, arguments, echo: ("SELECT '", "';"), env: env(source) };
    let mut session = Session::start(&client).map_err(|error| error.to_string())?;
    let limits = format!("SET SESSION wait_timeout = {}, SESSION lock_wait_timeout = 2;", silence.as_secs().max(1));
    session.ask(&limits, ANSWER_WITHIN).map_err(|error| format!("the server cannot be used: {error}"))?;
    Ok(session)
}

/// The number of a session at the server.
pub(super) fn number_of(session: &mut Session) -> Result<String, String> {
    let rows = session.ask("SELECT CONNECTION_ID();", ANSWER_WITHIN).map_err(|error| error.to_string())?;
    rows.into_iter().next().ok_or_else(|| "the server did not number a session".to_owned())
}

fn dump_program(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MariaDb => "mariadb-dump",
        Dialect::MySql => "mysqldump",
    }
}

fn place(source: &MariaDbSource) -> Vec<String> {
    let place = Place {
        host: source.host.as_deref(),
        port: source.port,
        user: source.user.as_deref(),
        ca_file: source.ca_file.as_deref(),
        prove: match source.dialect {
            Dialect::MariaDb => mysql::MARIADB_PROVES,
            Dialect::MySql => mysql::MYSQL_PROVES,
        },
    };
    place.arguments()
}

fn env(source: &MariaDbSource) -> BTreeMap<String, EnvValue> {
    let password = source.password.clone().map(EnvValue::Secret);
    password.map(|password| (mysql::PASSWORD.to_owned(), password)).into_iter().collect()
}

/// The file of a database: its name, with what cannot stand in a file's name, or would end it, written as in addresses.
fn file_name(database: &str) -> String {
    let mut name = String::new();
    for c in database.chars() {
        match c {
            '/' | '%' | '.' => name.push_str(&format!("%{:02X}", u32::from(c))),
            c => name.push(c),
        }
    }
    name + ".sql"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_database_gives_a_file_of_its_own() {
        assert_eq!(file_name("office"), "office.sql");
        assert_eq!(file_name("../a%"), "%2E%2E%2Fa%25.sql");
        assert_ne!(file_name("server.accounts"), ACCOUNTS);
    }
}
