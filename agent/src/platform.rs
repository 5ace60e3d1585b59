//! What differs between operating systems. Everything else in the program is the same on all of them.
//!
//! Each function here has one meaning and one body per system; a port is a second body.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

pub(crate) mod copy;
pub(crate) mod medium;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod service;
pub(crate) mod subvolume;
pub(crate) mod tree;

/// Makes the names in `folder` last over a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates a folder, and what is missing above it, that only its owner can enter.
pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Opens a file to read; a pipe does not wait for its writer.
pub(crate) fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Options that create files only their owner can read.
pub(crate) fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Lets everybody read a file that is open.
pub(crate) fn let_others_read(file: &File) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

/// The permission bits of a file, with set-uid, set-gid and sticky.
pub(crate) fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

/// Writes everything that lies on the file system of `folder` to disk: one call for many files.
pub(crate) fn sync_file_system(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Bytes that this account can still write in the file system of `folder`.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether nobody but the owner of `folder` can enter it, and this account owns it.
pub(crate) fn is_private(folder: &Path) -> io::Result<bool> {
    let stat = tree::path_stat(folder)?;
    Ok(stat.mode & 0o077 == 0 && stat.uid == u64::from(rustix::process::geteuid().as_raw()))
}

/// Whether this account may do everything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number of the account that this process runs as.
pub(crate) fn account_number() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The name of that account, or its number if it has none.
pub(crate) fn account_name() -> String {
    name_of(u64::from(account_number()))
}

/// The account that `path` belongs to, if it is there and is not this process's own.
pub(crate) fn other_owner(path: &Path) -> Option<String> {
    let owner = tree::path_stat(path).ok()?.uid;
    (owner != u64::from(account_number())).then(|| name_of(owner))
}

fn name_of(account: u64) -> String {
    let number = account.to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = accounts.lines().map(|line| line.split(':'));
    let name = lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or(number)
}

/// What an administrator makes in the folder of another account belongs to that account.
pub(crate) fn give_to_owner_of_folder(path: &Path) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    // By handles: whoever owns the folder can put something else in the place of what is in it.
    let folder = tree::Dir::open(path.parent().filter(|path| *path != Path::new("")).unwrap_or(Path::new(".")))?;
    let owner = folder.own_stat()?;
    let (Ok(uid), Ok(gid), Some(name)) = (u32::try_from(owner.uid), u32::try_from(owner.gid), path.file_name()) else {
        return Ok(());
    };
    if uid == 0 {
        return Ok(());
    }
    let name = name.as_encoded_bytes();
    match folder.stat(name)?.kind {
        tree::FileKind::Folder => folder.open_dir(name)?.give_itself(uid, gid),
        _ => folder.give_file(name, uid, gid),
    }
}

/// Whether this account can create files in `folder`.
pub(crate) fn can_write(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD};
    Ok(rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Whether this account owns the file.
pub(crate) fn is_mine(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Since when a file has been where it is, as far as the system knows: the last change of what is known about it.
pub(crate) fn there_since(metadata: &Metadata) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(metadata.ctime(), i32::try_from(metadata.ctime_nsec()).ok()?).ok()
}
