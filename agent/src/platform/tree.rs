//! Folders by handle: every name is looked up in an open folder and never through a link, so that neither a path
//! longer than the system allows nor somebody who swaps a folder for a link can lead elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::entry::Mtime;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Dir(pub(super) OwnedFd);

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStat {
    /// What it is.
    pub(crate) kind: FileKind,
    /// Permission bits, at most `0o7777`.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u64,
    /// Group.
    pub(crate) gid: u64,
    /// The file system it lies on.
    pub(crate) dev: u64,
    /// Its number there.
    pub(crate) ino: u64,
    /// How many names it has.
    pub(crate) links: u64,
    /// Size of its content.
    pub(crate) bytes: u64,
    /// Bytes it takes on disk.
    pub(crate) allocated: u64,
    /// Last change of its content.
    pub(crate) mtime: Mtime,
    /// Last change of its content or of what is known about it.
    pub(crate) ctime: Mtime,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// With content.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe; the word says which.
    Special(&'static str),
}

impl Dir {
    /// Opens `path`, which may lead through links.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens the folder `name`, which must not be a link.
    pub(crate) fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Creates the new folder `name`, private (0700), and opens it.
    pub(crate) fn create_dir(&self, name: &[u8]) -> io::Result<Self> {
        fs::mkdirat(&self.0, name, Mode::RWXU)?;
        self.open_dir(name)
    }

    /// The names in this folder, sorted, without `.` and `..`.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether this account may read the file `name`.
    pub(crate) fn may_read(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::accessat(&self.0, name, fs::Access::READ_OK, AtFlags::EACCESS)?)
    }

    /// What is known of `name`; of a link, not of what it points to.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<FileStat> {
        Ok(fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// What is known of this folder.
    pub(crate) fn own_stat(&self) -> io::Result<FileStat> {
        Ok(fs::fstat(&self.0)?.into())
    }

    /// What the link `name` points to.
    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    /// Opens the file `name` to read. A link is refused, and a pipe does not wait for its writer.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Creates the new file `name` with permissions 0400 and opens it to write.
    pub(crate) fn create_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name, flags, Mode::RUSR)?.into())
    }

    /// Gives the file `name` of the folder `from` the same name here as well.
    pub(crate) fn link(&self, from: &Dir, name: &[u8]) -> io::Result<()> {
        Ok(fs::linkat(&from.0, name, &self.0, name, AtFlags::empty())?)
    }

    /// Removes the file or link `name`.
    pub(crate) fn remove_file(&self, name: &[u8]) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes `name` and, if it is a folder, all that it holds, whatever its permissions.
    pub(crate) fn remove_tree(&self, name: &[u8]) -> io::Result<()> {
        if self.stat(name)?.kind != FileKind::Folder {
            return self.remove_file(name);
        }
        let folder = self.open_dir(name)?;
        folder.set_mode(0o700)?;
        for inner in folder.names()? {
            folder.remove_tree(&inner)?;
        }
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Gives this folder and all that it holds to an account, each file by its handle and the folder itself last. Links stay
    /// whose they are. A file with several names is an error: one of them may be somebody else's.
    pub(crate) fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        for name in self.names()? {
            match self.stat(&name)?.kind {
                FileKind::Folder => self.open_dir(&name)?.give(uid, gid)?,
                FileKind::File => self.give_file(&name, uid, gid)?,
                FileKind::Symlink | FileKind::Special(_) => {}
            }
        }
        self.give_itself(uid, gid)
    }

    /// Gives this folder to an account, and nothing that it holds.
    pub(crate) fn give_itself(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(fs::fchown(&self.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Gives the file `name`, which has no other name, to an account.
    pub(crate) fn give_file(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let file = self.open_file(name)?;
        let stat = file_stat(&file)?;
        if stat.kind != FileKind::File || stat.links != 1 {
            let why = format!("`{}` is no file, or has other names", crate::entry::escape(name));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Sets the permission bits of the file `name`, which is known to be no link.
    pub(crate) fn set_mode_of(&self, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(fs::chmodat(&self.0, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
    }

    /// Sets the permission bits of this folder.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }
}

/// Sets the permission bits of an open file.
pub(crate) fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// What is known of an open file.
pub(crate) fn file_stat(file: &File) -> io::Result<FileStat> {
    Ok(fs::fstat(file)?.into())
}

/// What is known of what `path` leads to.
pub(crate) fn path_stat(path: &Path) -> io::Result<FileStat> {
    Ok(fs::stat(path)?.into())
}

/// Removes `path` and all that it holds, whatever its permissions.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder"));
    };
    Dir::open(parent)?.remove_tree(name.as_bytes())
}

/// Bytes that are a name in a file system, as the standard library takes them.
pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

impl From<fs::Stat> for FileStat {
    #[expect(
        clippy::unnecessary_cast,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's types differ between machines; sizes are never negative and nanoseconds below 10^9"
    )]
    fn from(stat: fs::Stat) -> Self {
        Self {
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => FileKind::File,
                FileType::Directory => FileKind::Folder,
                FileType::Symlink => FileKind::Symlink,
                FileType::Fifo => FileKind::Special("pipe"),
                FileType::Socket => FileKind::Special("socket"),
                FileType::BlockDevice | FileType::CharacterDevice => FileKind::Special("device"),
                FileType::Unknown => FileKind::Special("file of unknown kind"),
            },
            mode: stat.st_mode & 0o7777,
            uid: u64::from(stat.st_uid),
            gid: u64::from(stat.st_gid),
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            bytes: stat.st_size as u64,
            allocated: (stat.st_blocks as u64).saturating_mul(512),
            mtime: Mtime { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u32 },
            ctime: Mtime { seconds: stat.st_ctime as i64, nanoseconds: stat.st_ctime_nsec as u32 },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_given_away_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (home, elsewhere) = (folder.path().join("home"), folder.path().join("elsewhere"));
        for made in [&home.join("data"), &elsewhere] {
            std::fs::create_dir_all(made).unwrap();
            std::fs::write(made.join("file"), "x").unwrap();
        }
        symlink(&elsewhere, home.join("data/link")).unwrap();
        symlink(elsewhere.join("file"), home.join("data/file-link")).unwrap();
        let root = rustix::process::geteuid().is_root();
        let own = std::fs::metadata(&home).unwrap();
        let (uid, gid) = if root { (12_345, 12_345) } else { (own.uid(), own.gid()) };
        Dir::open(&home).unwrap().give(uid, gid).unwrap();
        let owner = |path: &Path| std::fs::symlink_metadata(path).unwrap().uid();
        assert_eq!([home.clone(), home.join("data"), home.join("data/file")].map(|path| owner(&path)), [uid; 3]);
        assert_eq!([elsewhere.clone(), elsewhere.join("file")].map(|path| owner(&path)), [own.uid(); 2]);
        // A second name of somebody else's file.
        std::fs::hard_link(elsewhere.join("file"), home.join("data/second")).unwrap();
        Dir::open(&home).unwrap().give(uid, gid).unwrap_err();
        assert_eq!(owner(&elsewhere.join("file")), own.uid());
    }
}
