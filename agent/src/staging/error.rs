//! What can go wrong in staging.

use std::io;
use std::path::{Path, PathBuf};

use super::Holder;

/// Why staging could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// Another run works here.
    #[error("another run holds the folder {}{}; wait for it to end", root.display(), named(holder.as_ref()))]
    Locked {
        /// The folder: that of staging or that of the state.
        root: PathBuf,
        /// Who holds it, if it could be read.
        holder: Option<Holder>,
    },
    /// Other accounts can enter the folder.
    #[error(
        "the staging folder {} is not of this account, or not closed to others; run offsite as the account that it belongs \
         to, and run `chmod 700` on it", root.display()
    )]
    NotPrivate {
        /// The staging folder.
        root: PathBuf,
    },
    /// The disk or the quota is full.
    #[error("the disk of {} is full; free some space or let the setting `staging` name a folder on a larger one", path.display())]
    OutOfSpace {
        /// What was to be written.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The operating system refused.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A local generation is not as it was written.
    #[error("the local generation file {} is damaged ({reason}); take the generation from a store instead", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Entries were handed over in an order in which they cannot be stored: a defect of the program.
    #[error("the entry {path} came out of order; please report this defect")]
    OutOfOrder {
        /// The entry.
        path: String,
    },
}

impl StagingError {
    /// `operation` (a verb, perhaps with words up to the object) failed on `path`. A full disk gets its own variant.
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::OutOfSpace { path, source },
            _ => Self::Io { operation, path, source },
        }
    }
}

fn named(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, host, since }) => format!(" (process {pid} on {host}, since {since})"),
        None => String::new(),
    }
}
