//! What is walked through: a folder in use, or as it is in a snapshot, in which nothing changes any more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock;
use crate::entry::Mtime;
use crate::platform::subvolume::ELSEWHERE;
use crate::platform::tree::{Dir, FileStat};

/// A folder as it is in a snapshot.
#[derive(Debug)]
pub(in crate::capture) struct Frozen<'a> {
    /// Where it lies in the snapshot.
    pub(in crate::capture) path: PathBuf,
    /// Where it is in use.
    pub(in crate::capture) live: &'a Path,
    /// The number of the file system that it has there.
    pub(in crate::capture) dev: u64,
    /// When the snapshot had been taken.
    pub(in crate::capture) at: Timestamp,
    /// How long that took.
    pub(in crate::capture) took: Duration,
}

/// Where files are read, and what that means for what is known of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a>(Option<&'a Frozen<'a>>);

impl<'a> Origin<'a> {
    /// The folder in use, unless it is `frozen`.
    pub(super) fn of(frozen: Option<&'a Frozen<'a>>) -> Self {
        Self(frozen)
    }

    /// Whether nothing changes any more.
    pub(super) fn is_frozen(self) -> bool {
        self.0.is_some()
    }

    /// What is known of a file as the folder in use would show it: each snapshot has another number of the file system, by
    /// which every file would look changed.
    pub(super) fn stat(self, stat: FileStat) -> FileStat {
        FileStat { dev: self.0.map_or(stat.dev, |frozen| frozen.dev), ..stat }
    }

    /// File system and number by which a file or folder is known, wherever it was looked at.
    pub(super) fn number(self, stat: &FileStat) -> (u64, u64) {
        let FileStat { dev, ino, .. } = self.stat(*stat);
        (dev, ino)
    }

    /// Whether something else lies in the folder in use where the folder `inside` is, which the snapshot has nothing of.
    pub(super) fn ends_at(self, inside: &[u8], stat: &FileStat) -> bool {
        let Some(frozen) = self.0 else { return false };
        let live = || Dir::open(frozen.live).and_then(|folder| folder.stat(inside));
        // One that is gone by now, or lies too deep for a path, has nothing mounted on it that could be told.
        stat.ino == ELSEWHERE || live().is_ok_and(|live| live.dev != frozen.dev)
    }

    /// Whether a file that changed at `time` had done so less than `span` before it was fixed what is read: then a further
    /// change may have left that time as it is. A time in the future is not: nothing is known about its clock.
    pub(super) fn has_seen_within(self, time: Mtime, span: Duration) -> bool {
        let (now, took) = self.0.map_or_else(|| (clock::now(), Duration::ZERO), |frozen| (frozen.at, frozen.took));
        let then = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
        let age = now.as_nanosecond() - then;
        age >= 0 && age.unsigned_abs() < (span + took).as_nanos()
    }
}
