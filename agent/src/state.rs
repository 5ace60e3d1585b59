//! What this machine remembers: the journal of each store, the index of chunks, and what lies in the spool.
//!
//! One SQLite database (WAL, `synchronous=FULL`). Every change is one transaction, made after what it records is durable;
//! a run that died goes on from here. Losing the database costs one full upload and nothing that is stored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _};

use crate::durable;
use crate::ids::SiteName;

mod chunks;
mod journal;
mod records;

pub use chunks::{ChunkHash, Location, NewChunk, NewPatch};
pub use journal::{CommitObject, Delivery, NewDelivery, Phase};
pub use records::{ChainRecord, CommittedRecord, PackRecord, SealedPack};

/// Version of the database's schema.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE chain (
  id INTEGER PRIMARY KEY, store TEXT NOT NULL, name TEXT NOT NULL, class TEXT NOT NULL, opened TEXT NOT NULL,
  content_bytes INTEGER NOT NULL DEFAULT 0, full_bytes INTEGER NOT NULL DEFAULT 0, closed INTEGER NOT NULL DEFAULT 0,
  UNIQUE (store, name)
) STRICT;
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, chain INTEGER NOT NULL REFERENCES chain(id), generation TEXT NOT NULL, number INTEGER NOT NULL,
  phase TEXT NOT NULL, sequence INTEGER, commit_sha256 TEXT, committed TEXT, stream_bytes INTEGER, added_bytes INTEGER,
  grade TEXT, UNIQUE (chain, generation)
) STRICT;
CREATE TABLE pack (
  id INTEGER PRIMARY KEY, chain INTEGER NOT NULL REFERENCES chain(id), delivery INTEGER NOT NULL REFERENCES delivery(id),
  name TEXT NOT NULL, at INTEGER NOT NULL, content INTEGER NOT NULL, sealed INTEGER NOT NULL, stored INTEGER NOT NULL
) STRICT;
CREATE INDEX pack_chain ON pack (chain, at);
CREATE TABLE patch (
  id INTEGER PRIMARY KEY, pack INTEGER NOT NULL REFERENCES pack(id), at INTEGER NOT NULL, packed INTEGER NOT NULL,
  gives INTEGER NOT NULL, reference INTEGER NOT NULL, reference_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE chunk (
  chain INTEGER NOT NULL, hash BLOB NOT NULL, at INTEGER NOT NULL, patch INTEGER,
  PRIMARY KEY (chain, hash)
) STRICT, WITHOUT ROWID;
CREATE TABLE object (
  delivery INTEGER NOT NULL REFERENCES delivery(id), rank INTEGER NOT NULL, key TEXT NOT NULL, file TEXT NOT NULL,
  bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, stored INTEGER NOT NULL, PRIMARY KEY (delivery, rank)
) STRICT;
CREATE TABLE upload (store TEXT NOT NULL, key TEXT NOT NULL, upload TEXT NOT NULL, PRIMARY KEY (store, key)) STRICT;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// The state of one site on this machine. One writer at a time: the run that holds the site's lock.
#[derive(Debug)]
pub struct State {
    connection: Connection,
    path: PathBuf,
}

/// Why the state could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder could not be made.
    #[error("the state folder {path} cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("the state database {path} failed while {doing}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It is another site's.
    #[error(
        "the state database {path} belongs to the site `{found}`, not to `{wanted}`: give each site a state folder of its own"
    )]
    OtherSite {
        /// The database.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: SiteName,
    },
    /// It is of another version.
    #[error(
        "the state database {path} has version {found}, and this program reads {SCHEMA_VERSION}: \
             use the program that wrote it, or move the database away (this costs one full upload)"
    )]
    Version {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It contradicts itself.
    #[error("the state database {path} makes no sense ({what}): move it away (this costs one full upload)")]
    Sense {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

impl State {
    /// Opens the state of `site` in `folder`, and makes it if there is none.
    pub fn open(folder: &Path, site: &SiteName) -> Result<Self, StateError> {
        let path = folder.join("state.db");
        let in_folder = |source| StateError::Folder { path: folder.to_owned(), source };
        durable::create_folder(folder).map_err(in_folder)?;
        if !path.exists() {
            durable::create_new(&path).map_err(in_folder)?;
        }
        let fail = |source| StateError::Database { path: path.clone(), doing: "being opened", source };
        let connection = Connection::open(&path).map_err(fail)?;
        prepare(&connection).map_err(fail)?;
        let state = Self { connection, path };
        state.check_owner(site)?;
        Ok(state)
    }

    /// Another connection to the same database, for another thread of the same run.
    pub fn reopen(&self) -> Result<Self, StateError> {
        let fail = |source| StateError::Database { path: self.path.clone(), doing: "being opened", source };
        let connection = Connection::open(&self.path).map_err(fail)?;
        pragmas(&connection).map_err(fail)?;
        Ok(Self { connection, path: self.path.clone() })
    }

    fn check_owner(&self, site: &SiteName) -> Result<(), StateError> {
        let doing = "its owner was being read";
        let version: i64 = self.during(doing, |c| c.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
        if version != SCHEMA_VERSION {
            return Err(StateError::Version { path: self.path.clone(), found: version });
        }
        let read = "SELECT value FROM about WHERE name = 'site'";
        let found: Option<String> = self.during(doing, |c| c.query_row(read, [], |row| row.get(0)).optional())?;
        match found {
            Some(found) if found == site.as_str() => Ok(()),
            Some(found) => Err(StateError::OtherSite { path: self.path.clone(), found, wanted: site.clone() }),
            None => {
                let write = "INSERT INTO about (name, value) VALUES ('site', ?1)";
                self.during(doing, |c| c.execute(write, [site.as_str()])).map(|_| ())
            }
        }
    }

    /// Runs `work` and names what was being done if it fails.
    fn during<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        work(&self.connection).map_err(|source| StateError::Database { path: self.path.clone(), doing, source })
    }

    /// Runs `work` as one durable change.
    fn change<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let path = &self.path;
        let run = || {
            let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|source| StateError::Database { path: path.clone(), doing, source })
    }
}

fn pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    pragmas(connection)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version == 0 && tables == 0 {
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
