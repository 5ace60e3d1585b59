//! The local folder that captures are written to: one folder per generation.
//!
//! ```text
//! <root>/lock                          held by the one run that may write here
//! <root>/<generation>/generation.json  the document
//! <root>/<generation>/index/…          what is known of each entry, one file per source, in stream order
//! <root>/<generation>/data/<source>/…  the staged files
//! <root>/<generation>/cache/…          what other parts of the program keep about it; can be deleted
//! <root>/<generation>.partial/         the same while it is being written, or while it is being removed
//! ```
//!
//! A finished generation never changes. Owners, modes, times, links and everything else that is not content live in the
//! index: the staged files themselves are private and read-only.

mod draft;
mod error;
mod index;
mod local;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::durable;
use crate::ids::GenerationId;
use crate::platform;

pub use draft::{Draft, SourceWriter, Written};
pub use error::StagingError;
pub use index::{Entries, IndexedEntry, Seen};
pub use local::LocalGeneration;

const PARTIAL: &str = ".partial";
const LOCK: &str = "lock";

/// The staging folder, locked: nobody else writes to it while this lives.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    _lock: FolderLock,
}

/// A folder in which nobody else works. The lock goes with this value, also when the process is killed.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// What a run that did not end left behind.
#[derive(Debug)]
pub struct Abandoned {
    path: PathBuf,
}

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// When it took the lock.
    pub since: Timestamp,
}

impl Staging {
    /// Opens the staging folder `root` and locks it; creates it, private (0700), if it is missing.
    ///
    /// [`StagingError::Locked`] names who holds the lock. A folder that others can enter is refused.
    pub fn open(root: &Path, now: Timestamp) -> Result<Self, StagingError> {
        durable::create_folder(root).map_err(|e| StagingError::io("create the folder", root, e))?;
        if !platform::is_private(root).map_err(|e| StagingError::io("look at", root, e))? {
            return Err(StagingError::NotPrivate { root: root.to_owned() });
        }
        let lock = FolderLock::take(root, now)?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The finished generations, oldest first.
    pub fn generations(&self) -> Result<Vec<LocalGeneration>, StagingError> {
        generations(&self.root)
    }

    /// Begins a generation. `previous` is the one that unchanged files may be linked from.
    pub fn begin(&self, id: &GenerationId, previous: Option<&LocalGeneration>) -> Result<Draft, StagingError> {
        Draft::create(&self.root, id, previous)
    }

    /// What earlier runs left behind. Drafts of this run are among it: ask before [`Staging::begin`].
    pub fn abandoned(&self) -> Result<Vec<Abandoned>, StagingError> {
        let names = names(&self.root)?;
        let partial = names.into_iter().filter(|name| name.ends_with(PARTIAL));
        Ok(partial.map(|name| Abandoned { path: self.root.join(name) }).collect())
    }

    /// Bytes that can still be written to the file system of this folder.
    pub fn free_bytes(&self) -> Result<u64, StagingError> {
        platform::free_bytes(&self.root).map_err(|e| StagingError::io("ask for the free space of", &self.root, e))
    }
}

/// The finished generations in the staging folder `root`, oldest first. Needs no lock; a folder that is not there holds
/// none.
pub fn generations(root: &Path) -> Result<Vec<LocalGeneration>, StagingError> {
    let ids = names(root)?.into_iter().filter_map(|name| name.parse::<GenerationId>().ok());
    let mut found: Vec<_> = ids.map(|id| LocalGeneration::at(root, id)).collect();
    found.sort_by(|a, b| a.id().cmp(b.id()));
    Ok(found)
}

impl FolderLock {
    /// Locks the folder `root`. [`StagingError::Locked`] names who holds it.
    pub fn take(root: &Path, now: Timestamp) -> Result<Self, StagingError> {
        let path = root.join(LOCK);
        let failed = |e| StagingError::io("lock", &path, e);
        let mut file = durable::open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed)?;
                let holder = serde_json::from_str(&text).ok();
                return Err(StagingError::Locked { root: root.to_owned(), holder });
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let holder = Holder { pid: std::process::id(), host: platform::host_name(), since: now };
        let text = serde_json::to_vec(&holder).map_err(|e| failed(e.into()))?;
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text)).map_err(failed)?;
        Ok(Self { file })
    }

    /// Who holds the lock of the folder `root` now; nothing if nobody does, or that cannot be told.
    pub fn holder(root: &Path) -> Option<Holder> {
        let mut file = File::open(root.join(LOCK)).ok()?;
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).ok()?;
                serde_json::from_str(&text).ok()
            }
            _ => None,
        }
    }
}

impl Drop for FolderLock {
    /// Closing the file is not enough: a process that is just being started has a copy of it for a moment.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a folder could not be unlocked; the end of this process does it");
        }
    }
}

impl Abandoned {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), StagingError> {
        platform::tree::remove_tree(&self.path).map_err(|e| StagingError::io("remove", &self.path, e))
    }
}

fn names(root: &Path) -> Result<Vec<String>, StagingError> {
    let failed = |e| StagingError::io("list the folder", root, e);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not text is none of ours.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
