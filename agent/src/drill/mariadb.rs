//! Opening the dumps of a MariaDB source: loaded into a server of the drill's own, and looked through.
//!
//! The server listens on a socket in its own folder and nowhere else, and lasts as long as its source is looked at.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::server::{self, Account, DatabaseServer, LOAD_WITHIN, NoServer, START_WITHIN, Server};
use crate::failure::one_line;
use crate::into::{self, IntoRequest};
use crate::rows::Rows;

/// Questions to the catalog, and small statements.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// Settings that make a server which only has to live for an hour fast, and keep it to itself.
const SETTINGS: [&str; 9] = [
    "--no-defaults",
    "--skip-networking",
    "--skip-name-resolve",
    "--innodb-use-native-aio=0",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=0",
    "--max-allowed-packet=1G",
    "--default-time-zone=+00:00",
    "--skip-log-bin",
];

/// Prints a statement for each table of the database, which counts its rows.
const COUNTS: &str = "SELECT CONCAT('SELECT ', QUOTE(TABLE_NAME), ', COUNT(*) FROM `', REPLACE(TABLE_NAME, '`', '``'), '`;') \
                      FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1;";

/// Prints a statement for each foreign key of the database, which counts the rows that refer to nothing. Loading a dump does
/// not look: it puts rows in before those that they refer to.
const FOREIGN_KEYS: &str = "SELECT CONCAT('SELECT ', QUOTE(TABLE_NAME), ', ', QUOTE(REFERENCED_TABLE_NAME), ', COUNT(*) FROM `', \
                            REPLACE(TABLE_NAME, '`', '``'), '` c LEFT JOIN `', REPLACE(REFERENCED_TABLE_NAME, '`', '``'), '` p ON ', \
                            GROUP_CONCAT(CONCAT('c.`', REPLACE(COLUMN_NAME, '`', '``'), '` = p.`', \
                            REPLACE(REFERENCED_COLUMN_NAME, '`', '``'), '`') SEPARATOR ' AND '), ' WHERE ', \
                            GROUP_CONCAT(CONCAT('c.`', REPLACE(COLUMN_NAME, '`', '``'), '` IS NOT NULL') SEPARATOR ' AND '), \
                            ' AND p.`', REPLACE(MIN(REFERENCED_COLUMN_NAME), '`', '``'), '` IS NULL;') \
                            FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = DATABASE() AND \
                            REFERENCED_TABLE_SCHEMA = DATABASE() GROUP BY TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME;";

/// A server with nothing in it yet.
pub(super) struct Instance {
    _server: Server,
    home: PathBuf,
    socket: PathBuf,
    version: String,
}

impl Instance {
    /// Starts a server.
    pub(super) fn start(scratch: &Path, source: &str) -> Result<Self, NoServer> {
        let absent = |name| format!("this machine has no MariaDB server ({name}); install one");
        let find = |name| find(name).ok_or_else(|| NoServer::Absent(absent(name)));
        let (install, daemon) = (find("mariadb-install-db")?, find("mariadbd")?);
        let started = || {
            let account = Account::unprivileged(["mysql", "nobody"])?;
            let home = server::home(scratch, &format!("{source}-server"), account.as_ref())?;
            let (data, socket) = (home.join("data"), home.join("socket"));
            let folder = format!("--datadir={}", data.display());
            let mut init = server::program(&install, &home, account.as_ref());
            init.args([
                "--no-defaults",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
                "--skip-log-bin",
            ]);
            server::run(init.arg(&folder), ANSWER_WITHIN)?;
            let printed =
                server::run(server::program(&daemon, &home, account.as_ref()).arg("--version"), ANSWER_WITHIN)?;
            let mut command = server::program(&daemon, &home, account.as_ref());
            command.args(SETTINGS).arg(&folder).arg(format!("--socket={}", socket.display()));
            command.arg(format!("--pid-file={}", home.join("pid").display()));
            let answers = || server::run(&mut client(&home, &socket, None, "SELECT 1"), ANSWER_WITHIN).is_ok();
            let server = Server::start(&mut command, &scratch.join(format!("{source}.log")), START_WITHIN, answers)?;
            Ok(Self { _server: server, home, socket, version: version(&printed) })
        };
        started().map_err(NoServer::Failed)
    }
}

impl DatabaseServer for Instance {
    fn engine(&self) -> String {
        format!("MariaDB {}", self.version)
    }

    /// Accounts are not what a drill opens, and no dump needs them.
    fn accounts(&self, _: &Path) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn load(&self, database: &str, dump: &Path) -> Result<(), String> {
        let folder = dump.parent().unwrap_or(Path::new("."));
        let server = into::Server {
            host: Some(self.socket.display().to_string()),
            user: Some("root".to_owned()),
            ..into::Server::default()
        };
        let request =
            IntoRequest { folder, server: &server, only: Some((database, database)), replace: false, jobs: 1 };
        into::load(&request, &|_| ()).map(drop).map_err(|error| one_line(&error))
    }

    fn count(&self, database: &str) -> Result<Rows, String> {
        let printed = self.ask_what_is_printed(database, COUNTS)?;
        let row = |line: &str| {
            line.rsplit_once('\t').and_then(|(table, count)| Some((table.to_owned(), count.parse().ok()?)))
        };
        Ok(printed.lines().filter_map(row).collect())
    }

    /// Loading has had the engine look through tables and indexes. Whether rows refer to others that are there, it does not
    /// look.
    fn examine(&self, database: &str) -> Result<bool, String> {
        let printed = self.ask_what_is_printed(database, FOREIGN_KEYS)?;
        let dangling: Vec<String> = printed.lines().filter_map(dangling).collect();
        if dangling.is_empty() { Ok(true) } else { Err(dangling.join("; ")) }
    }

    fn ask(&self, database: &str, sql: &str) -> Result<String, String> {
        let answer = server::run(&mut client(&self.home, &self.socket, Some(database), sql), LOAD_WITHIN)?;
        Ok(answer.trim_end_matches('\n').replace('\t', "|"))
    }
}

impl Instance {
    /// Asks what the answer to `sql` is made of: statements.
    fn ask_what_is_printed(&self, database: &str, sql: &str) -> Result<String, String> {
        let ask = |sql: &str| server::run(&mut client(&self.home, &self.socket, Some(database), sql), LOAD_WITHIN);
        let statements = ask(sql)?;
        if statements.trim().is_empty() { Ok(statements) } else { ask(&statements) }
    }
}

/// What is wrong with a foreign key, by the line that was printed of it.
fn dangling(line: &str) -> Option<String> {
    let mut fields = line.rsplitn(3, '\t');
    let (count, parent, child) = (fields.next()?, fields.next()?, fields.next()?);
    (count != "0").then(|| format!("{count} of the rows of {child} refer to rows of {parent} that are not there"))
}

fn client(home: &Path, socket: &Path, database: Option<&str>, sql: &str) -> Command {
    let mut command = server::program(Path::new("mariadb"), home, None);
    command.args(["--no-defaults", "--batch", "--raw", "--skip-column-names", "--default-character-set=utf8mb4"]);
    command.arg("--user=root").arg(format!("--socket={}", socket.display())).args(["--execute", sql]);
    command.args(database.map(|database| ["--database", database]).iter().flatten());
    command
}

/// Where a program of the server lies: servers are not on everybody's search path.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// `mariadbd  Ver 10.11.14-MariaDB-… for …` is 10.11.14.
fn version(printed: &str) -> String {
    let after = printed.split_whitespace().skip_while(|word| *word != "Ver").nth(1).unwrap_or_default();
    after.split('-').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_that_of_the_server() {
        assert_eq!(
            super::version("mariadbd  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu on x86_64"),
            "10.11.14"
        );
    }
}
