//! PostgreSQL, private to the tests: a cluster in a temporary folder, on a socket there and on the loopback interface.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::process::Signal;

use super::{output, run, subfolder, unique, write_settings};
use crate::process::{Recipe, Server, free_ports, program};
use crate::{guard, wait_until};

/// A PostgreSQL cluster.
#[derive(Debug)]
pub struct Postgres {
    /// The process, to be killed and started again with [`start_again`](Self::start_again).
    pub server: Server,
    /// The data folder.
    pub data: PathBuf,
    /// The folder of its socket, where every user gets in without a password.
    pub socket: PathBuf,
    /// Its port: part of the socket's name, and open on 127.0.0.1, where users need their passwords.
    pub port: u16,
}

/// Who may do everything in a cluster.
pub const SUPERUSER: &str = "postgres";

/// The cluster that all tests share; a test has a [`database`](Postgres::database) of its own.
pub fn postgres() -> &'static Postgres {
    static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    &POSTGRES
}

impl Postgres {
    /// An empty cluster for a test that kills or configures it.
    pub fn start() -> Self {
        Self::init(&[])
    }

    /// One that keeps a sum of every page.
    pub fn with_checksums() -> Self {
        Self::init(&["--data-checksums"])
    }

    fn init(more: &[&str]) -> Self {
        let folder = guard::server_folder("postgres");
        let data = folder.join("data");
        run(guard::without_privileges(&program("initdb"))
            .args(["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .args(more)
            .arg("--pgdata")
            .arg(&data)
            .current_dir(&folder));
        Self::serve(&folder, data)
    }

    /// A cluster on a data folder that was made elsewhere, for example by a restore; it may take a while to recover.
    pub fn on(data: &Path) -> Self {
        let folder = guard::server_folder("postgres");
        Self::serve(&folder, data.to_owned())
    }

    /// A cluster that was copied whole and restored to `folder`, which it takes for itself; it has recovered by then.
    pub fn recovered(folder: &Path) -> Self {
        let data = guard::server_folder("recovered").join("data");
        std::fs::rename(folder, &data).unwrap();
        guard::give_away_all(&data);
        let server = Self::on(&data);
        let recovered = || server.sql("postgres", "SELECT NOT pg_is_in_recovery()") == "t";
        wait_until(Duration::from_secs(60), "the server has recovered", recovered);
        server
    }

    /// A standby of this cluster, which follows it.
    pub fn standby(&self) -> Self {
        let data = guard::server_folder("standby").join("data");
        let mut copy = Command::new(program("pg_basebackup"));
        copy.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--username", SUPERUSER, "--host"]);
        run(copy.arg(&self.socket).args(["--port", &self.port.to_string(), "--pgdata"]).arg(&data));
        guard::give_away_all(&data);
        Self::on(&data)
    }

    fn serve(folder: &Path, data: PathBuf) -> Self {
        let socket = subfolder(folder, "socket");
        let [port] = free_ports();
        let logins = "local all all trust\nlocal replication all trust\n\
                      host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
        let logins = write_settings(folder, "pg_hba.conf", logins);
        let setting = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let server = Recipe::new("PostgreSQL", folder, "postgres")
            // It cleans up its shared memory then.
            .farewell(Signal::QUIT)
            .works_in(&data)
            .arg("-D")
            .arg(&data)
            .arg(setting("unix_socket_directories", &socket.display()))
            .arg(setting("hba_file", &logins.display()))
            .arg(setting("port", &port))
            .args(["--listen_addresses=127.0.0.1", "--max_connections=60", "--shared_buffers=32MB"])
            // The data outlive a killed server all the same: only a killed machine needs fsync.
            .args(["--fsync=off", "--dynamic_shared_memory_type=mmap", "--timezone=UTC", "--log_timezone=UTC"])
            .start(|| answers(&socket, port));
        Self { server, data, socket, port }
    }

    /// Starts it anew after it was killed.
    pub fn start_again(&self) {
        self.server.start_again(|| answers(&self.socket, self.port));
    }

    /// Makes an empty database whose name begins with `name`.
    pub fn database(&self, name: &str) -> String {
        let database = unique(name).replace('-', "_");
        self.sql("postgres", &format!("CREATE DATABASE {database}"));
        database
    }

    /// Runs statements as the superuser: rows as lines, columns separated by `|`. Panics if one fails.
    #[track_caller]
    pub fn sql(&self, database: &str, statements: &str) -> String {
        output(&mut self.psql(SUPERUSER, database, statements))
    }

    /// A `psql` that is to run statements as `user`, without a password.
    pub fn psql(&self, user: &str, database: &str, statements: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1"]);
        command.arg("--host").arg(&self.socket).args(["--port", &self.port.to_string()]);
        command.args(["--username", user, "--dbname", database, "--command", statements]);
        command
    }
}

fn answers(socket: &Path, port: u16) -> bool {
    let mut command = Command::new(program("pg_isready"));
    command.arg("--quiet").arg("--host").arg(socket).args(["--port", &port.to_string()]);
    command.status().unwrap().success()
}
