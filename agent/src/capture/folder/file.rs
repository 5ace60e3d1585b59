//! Copies one file, so that what is staged is what it held at one moment, or says that this was not possible.

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use super::origin::Origin;
use crate::entry::EntryKind;
use crate::platform::copy::{copy_content, has_hole, same_content, share_content};
use crate::platform::tree::{Dir, FileStat, file_stat};
use crate::staging::{IndexedEntry, Seen};

/// Where a file is copied from and to.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Dir,
    pub(super) target: &'a Dir,
    pub(super) previous: Option<&'a Dir>,
    pub(super) name: &'a [u8],
    pub(super) origin: Origin<'a>,
    /// Told of bytes as they are copied.
    pub(super) progress: &'a dyn Fn(u64),
}

/// What became of it.
pub(super) struct Copied {
    /// What was staged, if anything.
    pub(super) file: Option<Staged>,
    /// Why that is not what it should be.
    pub(super) problem: Option<String>,
}

/// A staged file.
pub(super) struct Staged {
    pub(super) stat: FileStat,
    pub(super) bytes: u64,
    pub(super) sparse: bool,
    pub(super) linked: bool,
    pub(super) seen: Option<Seen>,
}

/// How often a file is tried that changes while it is read.
const TRIES: u32 = 3;

/// Between two tries, and how old a change must be for the next one to be told from it: some ticks of the clock that
/// file times are taken from.
const PAUSE: Duration = Duration::from_millis(30);

impl Place<'_> {
    /// Copies or links the file. An error is one of staging.
    pub(super) fn copy(&self, stat: &FileStat, known: Option<&IndexedEntry>, share: &mut bool) -> io::Result<Copied> {
        if let Some(file) = self.link(stat, known) {
            return Ok(Copied { file: Some(file), problem: None });
        }
        let mut last = None;
        for attempt in 1..=TRIES {
            let from = match self.folder.open_file(self.name) {
                Ok(from) => from,
                Err(error) => return self.unreadable(attempt, last, &error),
            };
            if last.is_some() {
                self.target.remove_file(self.name)?;
            } else if let Some(file) = self.link_equal(&from, known) {
                return Ok(Copied { file: Some(file), problem: None });
            }
            let to = self.target.create_file(self.name)?;
            match self.copy_once(&from, &to, share) {
                Ok((file, true)) => return Ok(Copied { file: Some(file), problem: None }),
                Ok((file, false)) => last = Some(file),
                Err(error) if is_full(&error) => return Err(error),
                Err(error) => {
                    self.target.remove_file(self.name)?;
                    return Ok(missing(format!("it cannot be read: {error}")));
                }
            }
            if attempt < TRIES {
                thread::sleep(PAUSE);
            }
        }
        let problem = format!("it was being written to each of the {TRIES} times it was read; the copy may be torn");
        Ok(Copied { file: last, problem: Some(problem) })
    }

    /// Links the staged file of the previous generation if the source has not changed since.
    fn link(&self, stat: &FileStat, known: Option<&IndexedEntry>) -> Option<Staged> {
        let known = known?;
        let EntryKind::File { bytes, sparse } = known.entry.kind else { return None };
        if !is_unchanged(stat, known) {
            return None;
        }
        // A file can have only so many links; then it is copied anew.
        self.target.link(self.previous?, self.name).ok()?;
        Some(Staged { stat: *stat, bytes, sparse, linked: true, seen: known.seen })
    }

    /// Links the staged file of the previous generation if `from`, which looks changed, holds the same as it: written anew,
    /// copied back, touched. What is linked need not be read again.
    fn link_equal(&self, from: &File, known: Option<&IndexedEntry>) -> Option<Staged> {
        let EntryKind::File { bytes, sparse } = known?.entry.kind else { return None };
        let before = self.stat(from).ok()?;
        if before.bytes != bytes || !same_content(from, &self.previous?.open_file(self.name).ok()?).ok()? {
            return None;
        }
        let after = self.stat(from).ok()?;
        if !is_stable(&before, &after, self.origin) {
            return None;
        }
        self.target.link(self.previous?, self.name).ok()?;
        (self.progress)(bytes);
        Some(Staged { stat: after, bytes, sparse, linked: true, seen: seen(&after, self.origin) })
    }

    /// One try, and whether the file stayed as it was meanwhile.
    fn copy_once(&self, from: &File, to: &File, share: &mut bool) -> io::Result<(Staged, bool)> {
        let before = self.stat(from)?;
        if *share {
            *share = share_content(from, to)?;
            if *share {
                (self.progress)(before.bytes);
            }
        }
        if !*share {
            copy_content(from, to, &before, self.progress)?;
        }
        let after = self.stat(from)?;
        let staged = file_stat(to)?;
        let stable = is_stable(&before, &after, self.origin) && staged.bytes == after.bytes;
        // A torn copy must never be taken for the file that has come to rest since.
        let seen = if stable { seen(&after, self.origin) } else { None };
        let file = Staged { stat: after, bytes: staged.bytes, sparse: has_hole(to, &staged)?, linked: false, seen };
        Ok((file, stable))
    }

    fn stat(&self, from: &File) -> io::Result<FileStat> {
        Ok(self.origin.stat(file_stat(from)?))
    }

    fn unreadable(&self, attempt: u32, last: Option<Staged>, error: &io::Error) -> io::Result<Copied> {
        if error.kind() != io::ErrorKind::NotFound {
            if last.is_some() {
                self.target.remove_file(self.name)?;
            }
            return Ok(missing(format!("it cannot be opened: {error}")));
        }
        let problem = match (attempt, &last) {
            (1, _) => "it vanished before it could be read",
            _ => "it changed while it was read and then vanished; the copy may be torn",
        };
        Ok(Copied { file: last, problem: Some(problem.to_owned()) })
    }
}

/// Whether the file is still the one that was copied as `known`.
pub(super) fn is_unchanged(stat: &FileStat, known: &IndexedEntry) -> bool {
    let EntryKind::File { bytes, .. } = known.entry.kind else { return false };
    let now = Seen { dev: stat.dev, ino: stat.ino, ctime: stat.ctime };
    known.seen == Some(now) && bytes == stat.bytes && known.entry.mtime == stat.mtime
}

/// Whether a file did not change between two looks.
fn is_stable(before: &FileStat, after: &FileStat, origin: Origin<'_>) -> bool {
    let fresh = !origin.is_frozen() && origin.has_seen_within(before.mtime, PAUSE);
    !fresh && before.bytes == after.bytes && before.mtime == after.mtime
}

/// What will tell next time that the file is the same, unless a change right now could leave its times as they are.
fn seen(stat: &FileStat, origin: Origin<'_>) -> Option<Seen> {
    // Whole seconds mean a file system that counts in seconds, or in two.
    let coarse = stat.ctime.nanoseconds == 0 && stat.mtime.nanoseconds == 0;
    let margin = if coarse { Duration::from_secs(3) } else { Duration::from_millis(100) };
    let trusted = !origin.has_seen_within(stat.ctime, margin);
    trusted.then_some(Seen { dev: stat.dev, ino: stat.ino, ctime: stat.ctime })
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

fn missing(problem: String) -> Copied {
    Copied { file: None, problem: Some(problem) }
}
