//! Restored dumps into a database server: all databases of a source, or none.
//!
//! Databases are loaded aside and checked by the engine's own program, and only when all of them are whole do they become
//! what they are called. A server's database that holds something is not touched unless that is asked for.

mod mariadb;
mod postgres;
mod sqlite;
mod tool;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::capture::{database_of, is_server};

/// A database server, and who may create databases there. What is not set is as for every program of the engine.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// A name or address; the folder (PostgreSQL) or the path (MariaDB) of a socket.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The account.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// The certificate authority that has to have signed for the server, by its name.
    pub ca_file: Option<PathBuf>,
}

/// What is to be loaded where.
#[derive(Clone, Debug)]
pub struct IntoRequest<'a> {
    /// The folder of one source, as it was restored.
    pub folder: &'a Path,
    /// Where to. An SQLite database needs no server; it is checked where it is.
    pub server: &'a Server,
    /// Only this database, and what it is to be called.
    pub only: Option<(&'a str, &'a str)>,
    /// Whether databases that hold something are replaced.
    pub replace: bool,
    /// How many programs load at the same time, at most.
    pub jobs: usize,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntoEvent<'a> {
    /// A database is being loaded.
    Loading(&'a str),
    /// It has been, and is being checked.
    Checking(&'a str),
}

/// A database that is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it is called.
    pub database: String,
    /// Its tables.
    pub tables: u64,
    /// What found nothing wrong with it; none if the engine's program for that is not installed.
    pub checked_by: Option<&'static str>,
}

/// Told of events, from several threads.
pub type IntoWatch<'a> = &'a (dyn Fn(IntoEvent<'_>) + Sync);

/// Why nothing was loaded. What had been made for it is gone, or is replaced by the next try.
#[derive(Debug, thiserror::Error)]
pub enum IntoError {
    /// The folder cannot be read.
    #[error("the folder {} cannot be read", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// There is no dump in it, or not the one that is asked for.
    #[error("there is no dump{} in {}", of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default(), folder.display())]
    NoDump {
        /// The folder.
        folder: PathBuf,
        /// The database.
        of: Option<String>,
    },
    /// It is no dump.
    #[error(
        "{} is the copy of a whole PostgreSQL server, which is started and not loaded: give it to the account of a server of \
         the same version as its folder of data, and start that",
        folder.display()
    )]
    WholeServer {
        /// The folder.
        folder: PathBuf,
    },
    /// A program of the engine is not there.
    #[error("the program `{program}` cannot be started; install the programs of the database server")]
    Start {
        /// The program.
        program: &'static str,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// A program of the engine failed.
    #[error("`{program}` failed for {database}: {said}")]
    Tool {
        /// The program.
        program: &'static str,
        /// What it was working on.
        database: String,
        /// The last that it said.
        said: String,
    },
    /// The database is in use by what it holds.
    #[error("the database {database} holds something already, and was not touched")]
    NotEmpty {
        /// The database.
        database: String,
    },
    /// It was loaded, and what was there before is gone, but it could not be given its name.
    #[error(
        "{database} was loaded and is whole, but could not be given its name: rename `{is_called}` by hand: {said}"
    )]
    Nameless {
        /// The database.
        database: String,
        /// What it is called.
        is_called: String,
        /// Why.
        said: String,
    },
    /// What was loaded is damaged.
    #[error("{program} finds the restored database {database} damaged: {said}")]
    Damaged {
        /// Who found out.
        program: &'static str,
        /// The database.
        database: String,
        /// What it said.
        said: String,
    },
    /// A part of it ended unexpectedly.
    #[error("a part of the restore ended unexpectedly; please report this defect")]
    Defect,
}

/// Loads the dumps in a folder into a server, checks them, and gives them their names; or changes nothing. Accounts of
/// PostgreSQL that are not there yet are made first, because the tables belong to them.
pub fn load(request: &IntoRequest<'_>, watch: IntoWatch<'_>) -> Result<Vec<Loaded>, IntoError> {
    if is_server(request.folder) {
        return Err(IntoError::WholeServer { folder: request.folder.to_owned() });
    }
    let dumps = dumps(request.folder, ".dump")?;
    if !dumps.is_empty() {
        return postgres::load(request, &choose(request, dumps)?, watch);
    }
    let dumps = self::dumps(request.folder, ".sql")?;
    if !dumps.is_empty() {
        return mariadb::load(request, &choose(request, dumps)?, watch);
    }
    let loaded = sqlite::check(request.folder, watch)?;
    if loaded.is_empty() {
        return Err(IntoError::NoDump { folder: request.folder.to_owned(), of: None });
    }
    Ok(loaded)
}

/// A dump, and what its database is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dump {
    database: String,
    file: PathBuf,
}

fn choose(request: &IntoRequest<'_>, dumps: Vec<Dump>) -> Result<Vec<Dump>, IntoError> {
    let Some((only, called)) = request.only else { return Ok(dumps) };
    let chosen: Vec<Dump> = dumps
        .into_iter()
        .filter(|dump| dump.database == only)
        .map(|dump| Dump { database: called.to_owned(), ..dump })
        .collect();
    if chosen.is_empty() {
        return Err(IntoError::NoDump { folder: request.folder.to_owned(), of: Some(only.to_owned()) });
    }
    Ok(chosen)
}

/// What a capture of PostgreSQL writes beside the dumps.
const ROLES: &str = "globals.sql";
/// The same of MariaDB.
const ACCOUNTS: &str = "server.accounts.sql";

/// The dumps in a folder whose names end so, with the names of their databases.
fn dumps(folder: &Path, ending: &str) -> Result<Vec<Dump>, IntoError> {
    let failed = |source| IntoError::Read { path: folder.to_owned(), source };
    // Where there are accounts of MariaDB, this is a database that happens to be called so.
    let of_mariadb = folder.join(ACCOUNTS).exists();
    let mut dumps = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(file) = name.to_str().filter(|name| *name != ROLES || of_mariadb) else { continue };
        if let Some(database) = database_of(file, ending) {
            dumps.push(Dump { database, file: folder.join(&name) });
        }
    }
    dumps.sort_by(|a, b| a.database.cmp(&b.database));
    Ok(dumps)
}

/// Runs `work` for all of `items`, so many at a time; the first error counts.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> Result<R, IntoError> + Sync,
) -> Result<Vec<R>, IntoError> {
    let mut results = Vec::new();
    for some in items.chunks(jobs.max(1)) {
        let done: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|item| scope.spawn(|| work(item))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(IntoError::Defect))).collect()
        });
        for result in done {
            results.push(result?);
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_found_and_called_as_their_databases() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(folder.path().join(name), "").unwrap();
        for name in ["office.dump", "globals.dump", "a%2Fb%25.dump", "globals.sql", "shop.sql", "notes.txt"] {
            write(name);
        }
        let names = |ending| -> Vec<String> {
            dumps(folder.path(), ending).unwrap().into_iter().map(|dump| dump.database).collect()
        };
        assert_eq!(names(".dump"), ["a/b%", "globals", "office"]);
        assert_eq!(names(".sql"), ["shop"]);
        write(ACCOUNTS);
        assert_eq!(names(".sql"), ["globals", "shop"]);
    }
}
