//! The file in which the daemon remembers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::schedule::Memory;

/// Version of the file; a field that is added does not change it.
const VERSION: u32 = 1;
const FILE: &str = "schedule.json";

/// Why what is remembered cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be used.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// Another version of the program wrote it, or it is damaged.
    #[error("what the daemon remembers, {}, is not as this version of the program writes it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Record<M> {
    version: u32,
    #[serde(flatten)]
    memory: M,
}

impl RecordError {
    pub(super) fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

/// The file, of the site with this state folder.
pub(super) fn path(state_folder: &Path) -> PathBuf {
    super::folder(state_folder).join(FILE)
}

/// What the daemon of the site with this state folder remembers; nothing if there was none yet.
pub fn read(state_folder: &Path) -> Result<Option<Memory>, RecordError> {
    let path = path(state_folder);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RecordError::new("read", &path, error)),
    };
    match serde_json::from_slice::<Record<Memory>>(&text) {
        Ok(record) if record.version == VERSION => Ok(Some(record.memory)),
        _ => Err(RecordError::Foreign { path }),
    }
}

/// Writes it down, for good.
pub(super) fn write(path: &Path, memory: &Memory) -> Result<(), RecordError> {
    let text = serde_json::to_vec_pretty(&Record { version: VERSION, memory }).map_err(io::Error::from);
    text.and_then(|text| durable::write(path, &text)).map_err(|error| RecordError::new("write", path, error))
}
