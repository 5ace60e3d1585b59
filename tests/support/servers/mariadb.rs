//! MariaDB, private to the tests: a server in a temporary folder, on a socket there and on the loopback interface.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::{output, run, subfolder, unique};
use crate::guard;
use crate::process::{Recipe, Server, free_ports, program};

/// A MariaDB server.
#[derive(Debug)]
pub struct MariaDb {
    /// The process, to be killed and started again with [`start_again`](Self::start_again).
    pub server: Server,
    /// The data folder.
    pub data: PathBuf,
    /// Its socket, where root gets in without a password.
    pub socket: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

/// The server that all tests share; a test has a [`database`](MariaDb::database) of its own.
pub fn mariadb() -> &'static MariaDb {
    static MARIADB: LazyLock<MariaDb> = LazyLock::new(MariaDb::start);
    &MARIADB
}

impl MariaDb {
    /// An empty server for a test that kills or configures it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options of the server, such as `--skip-log-bin`.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = guard::server_folder("mariadb");
        let data = folder.join("data");
        // The data outlive a killed server all the same: only a killed machine needs what is left out here.
        let unsynced = ["--innodb-flush-method=nosync", "--sync-frm=0", "--innodb-log-file-size=32M"];
        run(guard::without_privileges(&program("mariadb-install-db"))
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal", "--skip-log-bin"])
            .arg(format!("--datadir={}", data.display()))
            .args(unsynced)
            .arg("--innodb-flush-log-at-trx-commit=0")
            .env("HOME", &folder)
            .env("TMPDIR", &folder)
            .current_dir(&folder));
        let socket = subfolder(&folder, "socket").join("socket");
        let [port] = free_ports();
        let server = Recipe::new("MariaDB", &folder, "mariadbd")
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-use-native-aio=0"])
            .args(["--innodb-buffer-pool-size=64M", "--log-bin=binlog", "--server-id=1", "--default-time-zone=+00:00"])
            .args(unsynced)
            .arg("--innodb-flush-log-at-trx-commit=2")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--port={port}"))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .args(options)
            .start(|| answers(&socket));
        let server = Self { server, data, socket, port };
        // Accounts of a host's name, which a server that does not look up names cannot even show.
        let named = "DELETE FROM global_priv WHERE Host NOT IN ('localhost', '127.0.0.1', '::1'); FLUSH PRIVILEGES";
        server.sql("mysql", named);
        server
    }

    /// Starts it anew after it was killed.
    pub fn start_again(&self) {
        self.server.start_again(|| answers(&self.socket));
    }

    /// Makes an empty database whose name begins with `name`.
    pub fn database(&self, name: &str) -> String {
        let database = unique(name).replace('-', "_");
        self.sql("mysql", &format!("CREATE DATABASE {database}"));
        database
    }

    /// Runs statements as root: rows as lines, columns separated by tabs. Panics if one fails.
    #[track_caller]
    pub fn sql(&self, database: &str, statements: &str) -> String {
        output(&mut self.client("root", database, statements))
    }

    /// A `mariadb` that is to run statements as `user`, without a password.
    pub fn client(&self, user: &str, database: &str, statements: &str) -> Command {
        let mut command = Command::new(program("mariadb"));
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--user", user]);
        command.arg("--socket").arg(&self.socket).args(["--execute", statements, database]);
        command
    }
}

fn answers(socket: &Path) -> bool {
    let mut command = Command::new(program("mariadb-admin"));
    command.args(["--no-defaults", "--user=root", "ping"]).arg("--socket").arg(socket);
    command.output().unwrap().status.success()
}
