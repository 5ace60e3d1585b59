//! Sealed objects on their way to a store. Only ciphertext and public documents ever lie here.
//!
//! age takes a fresh key for each file, so sealing again gives other bytes: what is in the spool is what will be sent,
//! however often sending is tried.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::durable;
use crate::format::Sha256;
use crate::ids::StoreName;

/// The spool of one store: a folder of files named as the objects they become.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// Why the spool could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path} in the spool failed{}", full_hint(.source))]
pub struct SpoolError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A file of the spool that is being written. Dropped before it is kept, it is gone.
#[derive(Debug)]
pub struct Draft {
    file: tempfile::NamedTempFile,
    folder: PathBuf,
}

/// Bytes that wait below the state folder for all stores; what cannot be read does not count.
pub(crate) fn bytes(state_folder: &Path) -> u64 {
    let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let files = list(&state_folder.join("spool")).flat_map(|store| list(&store.path()).collect::<Vec<_>>());
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

impl Spool {
    /// The spool of `store` below the state folder.
    pub fn open(state_folder: &Path, store: &StoreName) -> Result<Self, SpoolError> {
        let folder = state_folder.join("spool").join(store.as_str());
        let fail = |source| SpoolError { doing: "creating", path: folder.clone(), source };
        durable::create_folder(&folder).map_err(fail)?;
        Ok(Self { folder })
    }

    /// Where the object of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new file, not yet under a name.
    pub fn draft(&self) -> Result<Draft, SpoolError> {
        let fail = |source| SpoolError { doing: "creating a file", path: self.folder.clone(), source };
        let file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder).map_err(fail)?;
        Ok(Draft { file, folder: self.folder.clone() })
    }

    /// Removes what is not in `wanted`: leftovers of a run that died before it recorded them.
    pub fn keep_only(&self, wanted: &dyn Fn(&str) -> bool) -> Result<(), SpoolError> {
        let fail = |path: &Path, source| SpoolError { doing: "cleaning", path: path.to_owned(), source };
        for entry in fs::read_dir(&self.folder).map_err(|e| fail(&self.folder, e))? {
            let path = entry.map_err(|e| fail(&self.folder, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(wanted) {
                fs::remove_file(&path).map_err(|e| fail(&path, e))?;
            }
        }
        Ok(())
    }

    /// Whether the object of this name lies here with `bytes` bytes and this digest. All of it is read.
    pub fn holds(&self, name: &str, bytes: u64, sha256: &Sha256) -> Result<bool, SpoolError> {
        let path = self.path(name);
        let read = || {
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                file => file?,
            };
            if file.metadata()?.len() != bytes {
                return Ok(false);
            }
            let mut digest = sha2::Sha256::new();
            let mut buffer = vec![0; 256 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(Sha256(digest.finalize().into()) == *sha256),
                    read => digest.update(buffer.get(..read).unwrap_or_default()),
                }
            }
        };
        read().map_err(|source| SpoolError { doing: "reading", path: path.clone(), source })
    }

    /// Removes an object that the store has.
    pub fn remove(&self, name: &str) -> Result<(), SpoolError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SpoolError { doing: "removing", path, source })
            }
            _ => Ok(()),
        }
    }
}

impl Draft {
    /// The file to write to.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Makes the file last under `name`.
    pub fn keep(self, name: &str) -> Result<(), SpoolError> {
        let path = self.folder.join(name);
        let fail = |source| SpoolError { doing: "writing", path: path.clone(), source };
        self.file.as_file().sync_all().map_err(fail)?;
        self.file.persist(&path).map_err(|error| fail(error.error))?;
        durable::sync_folder(&self.folder).map_err(fail)
    }
}

impl SpoolError {
    /// A failure while a file of the spool was being written.
    pub(crate) fn writing(path: PathBuf, source: io::Error) -> Self {
        Self { doing: "writing", path, source }
    }
}

impl Draft {
    /// The file's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

/// What to do about a full disk; nothing about other errors.
pub(crate) fn full_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full; make room, and the next run goes on where this one stopped"
        }
        _ => "",
    }
}
