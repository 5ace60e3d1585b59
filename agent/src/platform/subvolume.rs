//! Subvolumes of Btrfs: the parts of such a file system that it can take snapshots of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::copy::BTRFS;
use super::tree::path_stat;

/// The number that the root of a subvolume has in it.
const ROOT: u64 = 256;

/// The number of the empty folder that stands in a snapshot where another subvolume was: a snapshot ends there.
pub(crate) const ELSEWHERE: u64 = 2;

/// A folder as part of a subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subvolume {
    /// Where the subvolume begins.
    pub(crate) root: PathBuf,
    /// The folder, from there.
    pub(crate) inside: PathBuf,
    /// The number of the file system, which each subvolume has for itself.
    pub(crate) dev: u64,
}

/// Why a folder is in no subvolume that could be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSubvolume {
    /// The folder cannot be looked at.
    #[error("the folder {} cannot be looked at: {source}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It lies on another file system.
    #[error("the folder {} does not lie on Btrfs", .0.display())]
    OtherKind(PathBuf),
    /// Only a part of the subvolume is mounted there.
    #[error("the root of the subvolume that {} lies in is mounted nowhere above it", .0.display())]
    NoRoot(PathBuf),
}

impl Subvolume {
    /// The one that `folder` lies in.
    pub(crate) fn of(folder: &Path) -> Result<Self, NoSubvolume> {
        let failed = |source| NoSubvolume::Folder { folder: folder.to_owned(), source };
        let path = fs::canonicalize(folder).map_err(failed)?;
        let kind = statfs(&path).map_err(|error| failed(error.into()))?.f_type;
        if kind != BTRFS {
            return Err(NoSubvolume::OtherKind(folder.to_owned()));
        }
        let dev = path_stat(&path).map_err(failed)?.dev;
        for root in path.ancestors() {
            let stat = path_stat(root).map_err(failed)?;
            if stat.dev != dev {
                break;
            }
            if stat.ino == ROOT {
                let inside = path.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
                return Ok(Self { root: root.to_owned(), inside, dev });
            }
        }
        Err(NoSubvolume::NoRoot(folder.to_owned()))
    }
}
