//! Putting restored files in their places, with owners, permissions and times as they were.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::tree::Dir;
use crate::entry::{Entry, Mtime};

/// What could not be set although the content is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attributes {
    /// All are as they were.
    Restored,
    /// Only the owner is another: setting it is the administrator's right.
    OtherOwner,
}

impl Dir {
    /// Creates the new private file `name`, to be filled piece by piece.
    pub(crate) fn create_part(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Opens a file that [`create_part`](Self::create_part) made.
    pub(crate) fn open_part(&self, name: &[u8]) -> io::Result<File> {
        Ok(fs::openat(&self.0, name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// Moves `name` into the folder `to` as `new_name`, replacing what is there.
    pub(crate) fn move_to(&self, name: &[u8], to: &Dir, new_name: &[u8]) -> io::Result<()> {
        Ok(fs::renameat(&self.0, name, &to.0, new_name)?)
    }

    /// Makes the symbolic link `name`; the target is not looked at.
    pub(crate) fn symlink(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.0, name)?)
    }

    /// Gives the file `from_name` of the folder `from` a second name here.
    pub(crate) fn hard_link(&self, from: &Dir, from_name: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(fs::linkat(&from.0, from_name, &self.0, name, AtFlags::empty())?)
    }

    /// Sets owner, permissions and time of this folder.
    pub(crate) fn restore_attributes(&self, entry: &Entry) -> io::Result<Attributes> {
        attributes(&self.0, entry)
    }

    /// Sets owner and time of the symbolic link `name`.
    pub(crate) fn restore_link_attributes(&self, name: &[u8], entry: &Entry) -> io::Result<Attributes> {
        let (uid, gid) = owner(entry)?;
        let owned = fs::chownat(&self.0, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        fs::utimensat(&self.0, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        denied_is_other_owner(owned)
    }
}

/// Sets owner, permissions and time of an open file.
pub(crate) fn restore_attributes(file: &File, entry: &Entry) -> io::Result<Attributes> {
    attributes(file, entry)
}

/// Writes all of `bytes` at `offset`, whatever other threads write elsewhere in the file.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Fills `buffer` with what lies at `offset`; an error if the file ends before.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

/// Owner first: changing it takes the set-user-id bit away.
fn attributes(file: impl AsFd, entry: &Entry) -> io::Result<Attributes> {
    let (uid, gid) = owner(entry)?;
    let owned = fs::fchown(&file, Some(uid), Some(gid));
    let owner = denied_is_other_owner(owned)?;
    // A file that now belongs to somebody else must not run with that somebody's rights.
    let mode = if owner == Attributes::Restored { entry.mode } else { entry.mode & 0o1777 };
    fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    fs::futimens(&file, &times(entry.mtime))?;
    Ok(owner)
}

fn owner(entry: &Entry) -> io::Result<(Uid, Gid)> {
    let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (number(entry.uid), number(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "this system has no such owner")),
    }
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn denied_is_other_owner(owned: rustix::io::Result<()>) -> io::Result<Attributes> {
    match owned {
        Ok(()) => Ok(Attributes::Restored),
        Err(rustix::io::Errno::PERM) => Ok(Attributes::OtherOwner),
        Err(error) => Err(error.into()),
    }
}
