//! What can go wrong with the state.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::SCHEMA_VERSION;
use crate::ids::SiteName;
use crate::platform;

/// With less room than this a disk counts as full when SQLite cannot say why a write failed.
const ROOM_MIN: u64 = 1 << 20;

/// Why the state could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder could not be made.
    #[error("the state folder {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no room for it.
    #[error(
        "the disk of the state {} is full: make room, and the next run goes on where this one stopped",
        path.display()
    )]
    Full {
        /// The database, or its folder.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("the state database {} failed while {doing}", path.display())]
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
        "the state database {} belongs to the site `{found}`, not to `{wanted}`: give each site a state folder of its own",
        path.display()
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
        "the state database {} has version {found}, and this program reads {SCHEMA_VERSION}: \
         use the program that wrote it, or move this file away (this costs one full upload)", path.display()
    )]
    Version {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It is no database, or contradicts itself.
    #[error(
        "the state database {} is damaged ({what}): move this file away. The next run then makes a full upload; nothing \
         that is stored is lost", path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StateError {
    /// The state folder failed.
    pub(super) fn folder(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Folder { path: path.to_owned(), source },
        }
    }

    /// SQLite failed on `path`.
    pub(super) fn database(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            // Its shared memory did not fit: SQLite calls that a failure to read or write.
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if is_full(&path) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, what: source.to_string() }
            }
            _ => Self::Database { path, doing, source },
        }
    }
}

fn is_full(path: &Path) -> bool {
    path.parent().is_some_and(|folder| platform::free_bytes(folder).is_ok_and(|free| free < ROOM_MIN))
}
