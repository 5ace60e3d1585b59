//! Files that are either there whole, on disk, or not there. The only module that renames.
//!
//! What an administrator writes this way into the folder of another account belongs to that account, which has to use it
//! afterwards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::platform;

/// Writes `bytes` to `path` in one step: after a crash the file is the old one or the new one, and private (0600).
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = draft_of(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(parent(path)?)
}

/// As [`write()`], of a file that is worth nothing after a crash: whoever reads it finds the old one or the new one, and a loss
/// of power may leave neither.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = draft_of(path)?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// As [`write()`], of a file that is for others to read (0644).
pub fn write_for_others(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = draft_of(path)?;
    file.write_all(bytes)?;
    platform::let_others_read(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(parent(path)?)
}

/// Renames `from` to `to` and makes the change last. Both lie in one file system.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let (old, new) = (parent(from)?, parent(to)?);
    sync_folder(new)?;
    if old != new { sync_folder(old) } else { Ok(()) }
}

/// Makes what was created in or removed from `folder` last.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    platform::sync_folder(folder)
}

/// Creates `folder` and what is missing above it, private (0700). One that exists is left as it is.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    platform::create_private_folder(folder)
}

/// Creates the new file `path`, private (0600); an existing one is an error.
pub fn create_new(path: &Path) -> io::Result<File> {
    platform::private_file(OpenOptions::new().write(true).create_new(true)).open(path)
}

/// Opens the file `path` to read and write it. One that is missing is made: empty, private (0600).
pub fn open(path: &Path) -> io::Result<File> {
    let is_new = path.symlink_metadata().is_err();
    let mut options = OpenOptions::new();
    let file = platform::private_file(options.read(true).write(true).create(true).truncate(false)).open(path)?;
    if is_new {
        give(path);
    }
    Ok(file)
}

/// Creates `folder`, private (0700), in a folder that is there. One that exists is left as it is.
pub fn add_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_folder(folder)?;
    give(folder);
    Ok(())
}

/// A new private file (0600) that others see only once it is whole. One that is not published is removed.
#[derive(Debug)]
pub struct Draft {
    path: tempfile::TempPath,
}

impl Draft {
    /// An empty draft in the folder of `path`.
    pub fn beside(path: &Path) -> io::Result<Self> {
        Ok(Self { path: draft_of(path)?.into_temp_path() })
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the draft, which its writer has synced, the name `path`, unless something has that name by now.
    pub fn publish(self, path: &Path) -> io::Result<()> {
        match self.publish_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sync_folder(parent(path)?),
            published => published,
        }
    }

    /// The same; it is an error if something has that name by now.
    pub fn publish_new(self, path: &Path) -> io::Result<()> {
        self.path.persist_noclobber(path).map_err(|failed| failed.error)?;
        sync_folder(parent(path)?)
    }
}

fn draft_of(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let draft = tempfile::Builder::new().prefix(".new-").tempfile_in(parent(path)?)?;
    give(draft.path());
    Ok(draft)
}

fn give(path: &Path) {
    // A file system that knows no owners, or does not obey this account, refuses. What is written matters more.
    if let Err(error) = platform::give_to_owner_of_folder(path) {
        tracing::debug!("{} could not be given to the owner of its folder: {error}", path.display());
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => Ok(folder),
        Some(_) => Ok(Path::new(".")),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder")),
    }
}
