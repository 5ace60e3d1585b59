//! Dumps into a MariaDB or MySQL server.
//!
//! Databases cannot be renamed there. So each holds a table that says that it is unfinished until all have been loaded and
//! checked; and if one fails, those that were made are dropped.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use secrecy::ExposeSecret as _;

use super::{Dump, IntoError, IntoEvent, IntoRequest, IntoWatch, Loaded, Server, in_parallel, tool};
use crate::mysql::{self, Place};
use crate::said;

/// The programs that load and check: MariaDB's, or MySQL's where those are not installed.
#[derive(Debug)]
struct Programs {
    client: &'static str,
    check: &'static str,
    /// What makes them prove the server.
    prove: &'static str,
}

const MARIADBS: Programs = Programs { client: "mariadb", check: "mariadb-check", prove: mysql::MARIADB_PROVES };
const MYSQLS: Programs = Programs { client: "mysql", check: "mysqlcheck", prove: mysql::MYSQL_PROVES };

fn programs() -> &'static Programs {
    static FOUND: LazyLock<&Programs> = LazyLock::new(|| {
        let started = Command::new(MARIADBS.client).arg("--version").stdin(Stdio::null()).output();
        match started {
            Err(error) if error.kind() == ErrorKind::NotFound => &MYSQLS,
            _ => &MARIADBS,
        }
    });
    &FOUND
}

/// The table that a database has until it is whole.
const MARK: &str = "offsite_unfinished_restore";

pub(super) fn load(request: &IntoRequest<'_>, dumps: &[Dump], watch: IntoWatch<'_>) -> Result<Vec<Loaded>, IntoError> {
    let server = request.server;
    for dump in dumps {
        if !request.replace && holds_something(server, &dump.database)? {
            return Err(IntoError::NotEmpty { database: dump.database.clone() });
        }
    }
    let loaded = in_parallel(dumps, request.jobs, |dump| load_one(server, dump, watch));
    let finished = loaded.and_then(|loaded| {
        let unmark = |dump: &Dump| ask(server, Some(&dump.database), &format!("DROP TABLE {MARK};")).map(drop);
        dumps.iter().try_for_each(unmark)?;
        Ok(loaded)
    });
    finished.inspect_err(|_| {
        for dump in dumps {
            // What cannot be dropped is marked.
            let _dropped = drop_unfinished(server, &dump.database);
        }
    })
}

/// Whether it is there with something in it. What an earlier try has left does not count.
fn holds_something(server: &Server, database: &str) -> Result<bool, IntoError> {
    let name = mysql::literal(database);
    let count = format!(
        "SELECT COUNT(*) FROM (SELECT TABLE_SCHEMA AS s FROM information_schema.TABLES UNION ALL SELECT ROUTINE_SCHEMA FROM \
         information_schema.ROUTINES UNION ALL SELECT EVENT_SCHEMA FROM information_schema.EVENTS) AS things WHERE s = {name} \
         AND NOT EXISTS (SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name} AND TABLE_NAME = '{MARK}');"
    );
    Ok(ask(server, None, &count)? != "0")
}

fn drop_unfinished(server: &Server, database: &str) -> Result<(), IntoError> {
    let name = mysql::literal(database);
    let marked = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name} AND TABLE_NAME = '{MARK}';"
    );
    if ask(server, None, &marked)? == "1" {
        ask(server, None, &format!("DROP DATABASE {};", mysql::name(database)))?;
    }
    Ok(())
}

fn load_one(server: &Server, dump: &Dump, watch: IntoWatch<'_>) -> Result<Loaded, IntoError> {
    let database = &dump.database;
    watch(IntoEvent::Loading(database));
    let name = mysql::name(database);
    ask(server, None, &format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name};"))?;
    ask(server, Some(database), &format!("CREATE TABLE {MARK} (id INTEGER PRIMARY KEY) ENGINE = InnoDB;"))?;
    let &Programs { client: name_of_client, check: name_of_check, .. } = programs();
    let mut client = program(name_of_client, server);
    client.args(["--binary-mode", "--max-allowed-packet=1G", "--default-character-set=utf8mb4"]);
    tool::run_on(name_of_client, client.arg("--database").arg(database), &dump.file, database)?;
    watch(IntoEvent::Checking(database));
    let mut check = program(name_of_check, server);
    let checked_by =
        tool::check(name_of_check, check.args(["--databases", "--", database]).stdin(Stdio::null()), database)?;
    if let Some(program) = checked_by {
        // It succeeds when it has looked; what it found stands in what it printed.
        let mut check = self::program(name_of_check, server);
        check.args(["--silent", "--databases", "--", database]).stdin(Stdio::null());
        let found = tool::run(name_of_check, &mut check, database)?;
        if !found.trim().is_empty() {
            return Err(IntoError::Damaged { program, database: database.clone(), said: said::sentences(&found) });
        }
    }
    let count = "SELECT COUNT(*) - 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND \
                 TABLE_TYPE <> 'VIEW';";
    let tables = ask(server, Some(database), count)?.parse().unwrap_or(0);
    Ok(Loaded { database: database.clone(), tables, checked_by })
}

fn ask(server: &Server, database: Option<&str>, statements: &str) -> Result<String, IntoError> {
    let name = programs().client;
    let mut client = program(name, server);
    client.args(["--batch", "--skip-column-names", "--execute", statements]).stdin(Stdio::null());
    if let Some(database) = database {
        client.args(["--database", database]);
    }
    let printed = tool::run(name, &mut client, database.unwrap_or("the server"))?;
    Ok(printed.trim_end().to_owned())
}

fn program(name: &str, server: &Server) -> Command {
    let place = Place {
        host: server.host.as_deref(),
        port: server.port,
        user: server.user.as_deref(),
        ca_file: server.ca_file.as_deref(),
        prove: programs().prove,
    };
    let mut command = Command::new(name);
    command.arg("--no-defaults").args(place.arguments());
    command.envs(server.password.as_ref().map(|password| (mysql::PASSWORD, password.expose_secret())));
    command
}
