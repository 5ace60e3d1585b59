//! What this machine remembers: the journal of each store, the index of chunks, and what lies in the spool.
//!
//! One SQLite database (WAL, `synchronous=FULL`). Every change is one transaction, made after what it records is durable;
//! a run that died goes on from here. Losing the database costs one full upload and nothing that is stored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::durable;
use crate::ids::SiteName;

mod carried;
mod chunks;
mod disks;
mod error;
mod journal;
mod mortal;
mod notes;
mod pruned;
mod records;

pub use carried::{CarriedPack, CopyOrder};
pub use chunks::{ChunkHash, Location, NewChunk, NewPatch};
pub use disks::DiskRecord;
pub use error::StateError;
pub use journal::{CommitObject, Delivery, NewDelivery, Phase};
pub use records::{ChainRecord, CommittedRecord, PackRecord, SealedPack};

/// Version of the database's schema.
const SCHEMA_VERSION: i64 = 2;
/// The database's name in the state folder.
const FILE: &str = "state.db";
const OPENING: &str = "it was opened";
/// Asks for the site.
const WHOSE: &str = "SELECT value FROM about WHERE name = 'site'";
/// How long one connection waits for another one's change, which takes as long as the disk does.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
CREATE TABLE chain (
  id INTEGER PRIMARY KEY, store TEXT NOT NULL, name TEXT NOT NULL, class TEXT NOT NULL, opened TEXT NOT NULL,
  content_bytes INTEGER NOT NULL DEFAULT 0, full_bytes INTEGER NOT NULL DEFAULT 0, closed INTEGER NOT NULL DEFAULT 0,
  origin TEXT, UNIQUE (store, name)
) STRICT;
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, chain INTEGER NOT NULL REFERENCES chain(id), generation TEXT NOT NULL, number INTEGER NOT NULL,
  phase TEXT NOT NULL, sequence INTEGER, commit_sha256 TEXT, committed TEXT, stream_bytes INTEGER, added_bytes INTEGER,
  grade TEXT, UNIQUE (chain, generation)
) STRICT;
CREATE TABLE pack (
  id INTEGER PRIMARY KEY, chain INTEGER NOT NULL REFERENCES chain(id), delivery INTEGER NOT NULL REFERENCES delivery(id),
  name TEXT NOT NULL, at INTEGER NOT NULL, content INTEGER NOT NULL, sealed INTEGER NOT NULL, stored INTEGER NOT NULL,
  source TEXT
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

impl State {
    /// Opens the state of `site` in `folder`, and makes it if there is none. One of another site, of another version, or
    /// damaged is refused, and left as it is.
    pub fn open(folder: &Path, site: &SiteName) -> Result<Self, StateError> {
        let path = folder.join(FILE);
        let in_folder = |source| StateError::folder(folder, source);
        durable::create_folder(folder).map_err(in_folder)?;
        if !path.try_exists().map_err(in_folder)? {
            Self::make(folder, &path, site)?;
        }
        let connection = Connection::open(&path).map_err(|source| StateError::database(&path, OPENING, source))?;
        let state = Self { connection, path };
        state.during(OPENING, |c| c.busy_timeout(BUSY_LIMIT))?;
        let version = state.during(OPENING, |c| c.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
        if version != SCHEMA_VERSION {
            return Err(StateError::Version { path: state.path, found: version });
        }
        state.during(OPENING, pragmas)?;
        state.check_owner(site)?;
        Ok(state)
    }

    /// The site that the state in `folder` belongs to, as far as that can be read. Asking makes no state.
    pub fn site_of(folder: &Path) -> Option<String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(folder.join(FILE), flags).ok()?;
        connection.busy_timeout(BUSY_LIMIT).ok()?;
        connection.query_row(WHOSE, [], |row| row.get(0)).ok()
    }

    /// Another connection to the same database, for another thread of the same run.
    pub fn reopen(&self) -> Result<Self, StateError> {
        let fail = |source| StateError::database(&self.path, OPENING, source);
        let connection = Connection::open(&self.path).map_err(fail)?;
        connection.busy_timeout(BUSY_LIMIT).and_then(|()| pragmas(&connection)).map_err(fail)?;
        Ok(Self { connection, path: self.path.clone() })
    }

    /// Reads the whole database and refuses one that is damaged: once for each run, before anything is decided by it.
    pub fn check(&self) -> Result<(), StateError> {
        let sound: String =
            self.during("it was checked", |c| c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if sound == "ok" { Ok(()) } else { Err(StateError::Damaged { path: self.path.clone(), what: sound }) }
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new state at `path`: whole beside its place first, so that no other process ever opens half of one. One
    /// that another process put there meanwhile stays.
    fn make(folder: &Path, path: &Path, site: &SiteName) -> Result<(), StateError> {
        let in_folder = |source| StateError::folder(folder, source);
        let draft = durable::Draft::beside(path).map_err(in_folder)?;
        let fail = |source| StateError::database(path, OPENING, source);
        let connection = Connection::open(draft.path()).map_err(fail)?;
        let mut state = Self { connection, path: path.to_owned() };
        state.during(OPENING, pragmas)?;
        state.change("the state was made", |t| {
            t.execute_batch(SCHEMA)?;
            t.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            t.execute("INSERT INTO about (name, value) VALUES ('site', ?1)", [site.as_str()]).map(drop)
        })?;
        // With the last connection the write-ahead log goes into the database itself.
        state.connection.close().map_err(|(_, source)| fail(source))?;
        draft.publish(path).map_err(in_folder)
    }

    fn check_owner(&self, site: &SiteName) -> Result<(), StateError> {
        let found: Option<String> = self.during(OPENING, |c| c.query_row(WHOSE, [], |row| row.get(0)).optional())?;
        match found {
            Some(found) if found == site.as_str() => Ok(()),
            Some(found) => Err(StateError::OtherSite { path: self.path.clone(), found, wanted: site.clone() }),
            None => Err(StateError::Damaged { path: self.path.clone(), what: "it names no site".to_owned() }),
        }
    }

    /// Runs `work` and names what was being done if it fails.
    fn during<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        work(&self.connection).map_err(|source| StateError::database(&self.path, doing, source))
    }

    /// Runs `work` as one durable change: a fact. Every change of the state goes through here.
    fn change<T>(
        &mut self,
        fact: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let path = &self.path;
        let run = || {
            let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            mortal::moment("before", fact);
            transaction.commit()?;
            mortal::moment("after", fact);
            Ok(result)
        };
        run().map_err(|source| StateError::database(path, fact, source))
    }
}

fn pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

#[cfg(test)]
mod tests;
