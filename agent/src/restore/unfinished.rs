//! What a restore that died put in its places: its own files, which the next one may replace unasked.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::entry::EntryKind;
use crate::format::entries::EntryLine;
use crate::platform::tree::{Dir, FileKind, FileStat};

/// The file in the folder of a restore that names what it has put in place, by the numbers of the files there.
const LOG: &[u8] = b"placed";
/// How it begins, so that a folder that somebody else made is not taken for one of ours.
const HEADER: [u8; 8] = *b"offsite\n";
/// Largest that is read: of sixteen million files.
const LOG_BYTES_MAX: u64 = 128 << 20;

/// What restores into one folder have put in place, this one and one before it that died.
#[derive(Debug)]
pub(super) struct Placed {
    /// Locked as long as the restore goes on.
    log: File,
    before: BTreeSet<u64>,
    any: AtomicBool,
}

impl Placed {
    /// Makes the folder `name` in `root` for a restore, in place of the one that a restore left that died; and opens it.
    /// A folder of that name that is none of ours is an error, and so is one of a restore that goes on.
    pub(super) fn begin(root: &Dir, name: &[u8]) -> io::Result<(Dir, Self)> {
        let before = match root.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
            Ok(_) => take_over(root, name)?,
        };
        let work = root.create_dir(name)?;
        let mut log = work.create_part(LOG)?;
        lock(&log)?;
        let known: Vec<u8> = before.iter().flat_map(|number| number.to_le_bytes()).collect();
        if let Err(error) = log.write_all(&[&HEADER[..], &known].concat()) {
            root.remove_tree(name)?;
            return Err(error);
        }
        let any = AtomicBool::new(!before.is_empty());
        Ok((work, Self { log, before, any }))
    }

    /// Remembers that `file` is about to get its name.
    pub(super) fn add(&self, file: &FileStat) -> io::Result<()> {
        self.any.store(true, Ordering::Relaxed);
        (&self.log).write_all(&file.ino.to_le_bytes())
    }

    /// Whether nothing was put in place yet.
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Removes everything else from the folder of a restore.
    pub(super) fn keep_only_log(work: &Dir) -> io::Result<()> {
        work.names()?.iter().filter(|name| *name != LOG).try_for_each(|name| work.remove_tree(name))
    }

    /// Whether `found`, the file `name` in `folder`, is what a restore that died put there for `line`, and was not changed
    /// since.
    pub(super) fn has(&self, folder: &Dir, name: &[u8], found: &FileStat, line: &EntryLine) -> bool {
        let known = self.before.contains(&found.ino);
        match &line.entry.kind {
            EntryKind::File { bytes, .. } => {
                known && found.kind == FileKind::File && found.bytes == *bytes && found.mtime == line.entry.mtime
            }
            EntryKind::HardLink { .. } => known && found.kind == FileKind::File,
            // A link says all that it is.
            EntryKind::Symlink { target } => {
                !self.before.is_empty()
                    && found.kind == FileKind::Symlink
                    && folder.read_link(name).is_ok_and(|found| found == *target)
            }
            EntryKind::Folder => false,
        }
    }
}

/// Removes the folder that a restore left that died; answers which files that had put in place.
fn take_over(root: &Dir, name: &[u8]) -> io::Result<BTreeSet<u64>> {
    let foreign = || {
        let why = "there is something called `.offsite-restoring` in it that this program did not make; rename it";
        io::Error::new(io::ErrorKind::AlreadyExists, why)
    };
    if root.stat(name)?.kind != FileKind::Folder {
        return Err(foreign());
    }
    let folder = root.open_dir(name)?;
    if folder.names()?.is_empty() {
        root.remove_tree(name)?;
        return Ok(BTreeSet::new());
    }
    let log = folder.open_file(LOG).map_err(|_| foreign())?;
    let mut text = Vec::new();
    if log.metadata()?.is_file() {
        lock(&log)?;
        (&log).take(LOG_BYTES_MAX).read_to_end(&mut text)?;
    }
    let numbers = text.strip_prefix(&HEADER[..]);
    // It died before it had written even that.
    let Some(numbers) = numbers.or(text.is_empty().then_some(&[])) else { return Err(foreign()) };
    let before = numbers.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect();
    root.remove_tree(name)?;
    Ok(before)
}

fn lock(log: &File) -> io::Result<()> {
    match log.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another restore to it is under way; wait for its end"))
        }
        // A file system without locks: nothing tells two restores from each other there.
        Err(TryLockError::Error(_)) => Ok(()),
    }
}
