//! Dumps into a PostgreSQL server.
//!
//! Each database is loaded under a name that says that it is unfinished, and renamed when all have been loaded and checked.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use secrecy::ExposeSecret as _;

use super::{Dump, IntoError, IntoEvent, IntoRequest, IntoWatch, Loaded, Server, in_parallel, tool};
use crate::failure::one_line;
use crate::psql;

const CLIENT: &str = "psql";
const RESTORE: &str = "pg_restore";
const CHECK: &str = "pg_amcheck";

/// Where databases are created from.
const MAINTENANCE: &str = "postgres";

/// Tables of a database that are not the server's own.
const TABLES: &str = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') \
                      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

pub(super) fn load(request: &IntoRequest<'_>, dumps: &[Dump], watch: IntoWatch<'_>) -> Result<Vec<Loaded>, IntoError> {
    let server = request.server;
    let there = ask(server, MAINTENANCE, "SELECT datname FROM pg_database")?;
    let there: BTreeSet<&str> = there.lines().collect();
    for dump in dumps.iter().filter(|dump| there.contains(dump.database.as_str())) {
        if !request.replace && ask(server, &dump.database, &format!("SELECT count(*) {TABLES}"))? != "0" {
            return Err(IntoError::NotEmpty { database: dump.database.clone() });
        }
    }
    make_roles(request)?;
    let loaded = in_parallel(dumps, request.jobs, |dump| load_one(request, dump, watch)).inspect_err(|_| {
        for dump in dumps {
            // What cannot be dropped has a name that says what it is, and the next try does.
            let _dropped = drop_unfinished(server, &dump.database);
        }
    })?;
    for dump in dumps {
        let (name, is_called) = (quote(&dump.database), unfinished(&dump.database));
        if there.contains(dump.database.as_str()) {
            ask(server, MAINTENANCE, &format!("DROP DATABASE {name} WITH (FORCE)"))?;
        }
        ask(server, MAINTENANCE, &format!("ALTER DATABASE {} RENAME TO {name}", quote(&is_called))).map_err(
            |error| IntoError::Nameless { database: dump.database.clone(), is_called, said: one_line(&error) },
        )?;
    }
    Ok(loaded)
}

/// What a database is called until it is whole: short enough whatever its name is.
fn unfinished(database: &str) -> String {
    let hash = blake3::hash(database.as_bytes()).to_hex();
    format!("offsite_unfinished_{}", hash.get(..16).unwrap_or_default())
}

fn drop_unfinished(server: &Server, database: &str) -> Result<(), IntoError> {
    let name = quote(&unfinished(database));
    ask(server, MAINTENANCE, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).map(drop)
}

/// Makes the roles that are not there. Those that are there, their passwords too, stay as they are; tablespaces belong to
/// the old machine's disks.
fn make_roles(request: &IntoRequest<'_>) -> Result<(), IntoError> {
    let path = request.folder.join("globals.sql");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // The source may have been restored in part.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(IntoError::Read { path, source }),
    };
    let there = ask(request.server, MAINTENANCE, "SELECT quote_ident(rolname) FROM pg_roles")?;
    let there: BTreeSet<&str> = there.lines().collect();
    let wanted = roles_to_make(&text, &there);
    // All of them or none.
    let mut client = client(request.server, MAINTENANCE);
    let client = client.args(["--single-transaction", "--file=-"]);
    let run = |pipe| tool::run(CLIENT, client.stdin(pipe), MAINTENANCE);
    psql::fed(wanted, run).map_err(|source| IntoError::Read { path, source })?.map(drop)
}

fn roles_to_make(globals: &str, there: &BTreeSet<&str>) -> String {
    let keep = |line: &&str| !line.contains(" TABLESPACE ") && role_of(line).is_none_or(|role| !there.contains(role));
    psql::plain_lines(globals).filter(keep).collect::<Vec<_>>().join("\n")
}

/// Whose line it is, as statements name him.
fn role_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("CREATE ROLE ").or_else(|| line.strip_prefix("ALTER ROLE "))?;
    let end = match rest.strip_prefix('"') {
        Some(quoted) => quoted.find('"')? + 2,
        None => rest.find([' ', ';'])?,
    };
    rest.get(..end)
}

fn load_one(request: &IntoRequest<'_>, dump: &Dump, watch: IntoWatch<'_>) -> Result<Loaded, IntoError> {
    let (server, database) = (request.server, &dump.database);
    watch(IntoEvent::Loading(database));
    drop_unfinished(server, database)?;
    let aside = unfinished(database);
    for statement in definition(dump, &quote(&aside))? {
        ask(server, MAINTENANCE, &statement)?;
    }
    let mut restore = program(RESTORE, server, &aside);
    restore
        .args(["--exit-on-error", "--no-tablespaces", "--no-password"])
        .arg(format!("--jobs={}", request.jobs.max(1)));
    restore.args(["--dbname", &aside]).arg(&dump.file).stdin(Stdio::null());
    tool::run(RESTORE, &mut restore, database)?;
    watch(IntoEvent::Checking(database));
    // Statistics are not in a dump.
    let tables = ask(server, &aside, &format!("ANALYZE; SELECT count(*) {TABLES}"))?.parse().unwrap_or(0);
    let checked_by = check(request, &aside, database)?;
    Ok(Loaded { database: database.clone(), tables, checked_by })
}

/// Who found nothing wrong with what was loaded into the database `aside`; nobody if that is not possible here.
fn check(request: &IntoRequest<'_>, aside: &str, database: &str) -> Result<Option<&'static str>, IntoError> {
    let server = request.server;
    let possible = "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND EXISTS (SELECT FROM \
                    pg_available_extensions WHERE name = 'amcheck')";
    if ask(server, aside, possible)? != "t" {
        return Ok(None);
    }
    let had = ask(server, aside, "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'")? == "1";
    let mut check = program(CHECK, server, aside);
    check.args(["--no-password", "--install-missing", "--jobs", &request.jobs.max(1).to_string(), aside]);
    let checked_by = tool::check(CHECK, check.stdin(Stdio::null()), database)?;
    if !had {
        ask(server, aside, "DROP EXTENSION IF EXISTS amcheck")?;
    }
    Ok(checked_by)
}

/// The statements of a dump that make its database, for one that is called `name`: encoding, locale, owner, settings.
fn definition(dump: &Dump, name: &str) -> Result<Vec<String>, IntoError> {
    let mut command = Command::new(RESTORE);
    command.args(["--create", "--schema-only", "--no-tablespaces", "--file=-"]).arg(&dump.file).stdin(Stdio::null());
    Ok(renamed(&tool::run(RESTORE, &mut command, &dump.database)?, name))
}

fn renamed(script: &str, name: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut old = None;
    for line in script.lines() {
        if let Some(rest) = line.strip_prefix("-- Name: ")
            && old.is_some()
            && !rest.contains("; Type: DATABASE")
        {
            break;
        }
        if let Some((called, options)) =
            line.strip_prefix("CREATE DATABASE ").and_then(|rest| rest.split_once(" WITH "))
        {
            statements.push(format!("CREATE DATABASE {name} WITH {options}"));
            old = Some(format!("ALTER DATABASE {called} "));
        } else if let Some(rest) = old.as_ref().and_then(|old| line.strip_prefix(old.as_str())) {
            statements.push(format!("ALTER DATABASE {name} {rest}"));
        }
    }
    statements
}

fn ask(server: &Server, database: &str, statements: &str) -> Result<String, IntoError> {
    let mut client = client(server, database);
    let printed = tool::run(CLIENT, client.args(["--command", statements]).stdin(Stdio::null()), database)?;
    Ok(printed.trim_end().to_owned())
}

fn client(server: &Server, database: &str) -> Command {
    let mut client = program(CLIENT, server, database);
    client.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--set=ON_ERROR_STOP=1"]);
    client
}

fn program(name: &str, server: &Server, database: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PGDATABASE", database).env("PGAPPNAME", "offsite").env("PGCONNECT_TIMEOUT", "20");
    command.envs(server.host.as_ref().map(|host| ("PGHOST", host)));
    command.envs(server.port.map(|port| ("PGPORT", port.to_string())));
    command.envs(server.user.as_ref().map(|user| ("PGUSER", user)));
    command.envs(server.password.as_ref().map(|password| ("PGPASSWORD", password.expose_secret())));
    if let Some(path) = &server.ca_file {
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", path);
    }
    command
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roles_that_are_missing_are_made() {
        let globals = "\\restrict x\nSET client_encoding = 'UTF8';\nCREATE ROLE clerk;\nALTER ROLE clerk WITH LOGIN;\n\
                       CREATE ROLE \"A b\";\nCREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\n\
                       CREATE TABLESPACE fast LOCATION '/x';\nGRANT a TO b;";
        let there = ["postgres", "\"A b\""].into();
        let made = roles_to_make(globals, &there);
        let expected = "SET client_encoding = 'UTF8';\nCREATE ROLE clerk;\nALTER ROLE clerk WITH LOGIN;\nGRANT a TO b;";
        assert_eq!(made, expected);
    }

    #[test]
    fn a_database_is_made_as_it_was_under_another_name() {
        let script = "-- Name: office; Type: DATABASE; Schema: -; Owner: clerk\nCREATE DATABASE office WITH TEMPLATE = \
                      template0 ENCODING = 'UTF8';\nALTER DATABASE office OWNER TO clerk;\n\\connect office\n\
                      -- Name: office; Type: DATABASE PROPERTIES; Schema: -; Owner: clerk\n\
                      ALTER DATABASE office SET work_mem TO '8MB';\n\
                      -- Name: f(); Type: FUNCTION; Schema: public; Owner: x\nALTER DATABASE office SET a TO 'b';";
        let expected = [
            "CREATE DATABASE \"x\" WITH TEMPLATE = template0 ENCODING = 'UTF8';",
            "ALTER DATABASE \"x\" OWNER TO clerk;",
            "ALTER DATABASE \"x\" SET work_mem TO '8MB';",
        ];
        assert_eq!(renamed(script, "\"x\""), expected);
    }
}
