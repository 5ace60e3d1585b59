//! Copies of a file's content, with its holes, and without moving bytes where the file system can share them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{ioctl_ficlone, seek, statfs};
use rustix::io::Errno;

use super::tree::{FileStat, path_stat};

/// Makes the empty file `to` share the content of `from`; says whether it does. False means that these file systems
/// cannot, or not now; `to` is still empty.
pub(crate) fn share_content(from: &File, to: &File) -> io::Result<bool> {
    let bytes = from.metadata()?.len();
    match ioctl_ficlone(to, from) {
        // ZFS 2.2 has said so of files whose end was not yet written to disk, and left that out.
        Ok(()) if to.metadata()?.len() >= bytes => return Ok(true),
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => return Err(error.into()),
        // What a file system says that has no shared blocks, or not of this file and not now, differs; so does a kernel that
        // hides the call.
        Ok(()) | Err(_) => {}
    }
    to.set_len(0)?;
    Ok(false)
}

/// What a Btrfs file system calls itself.
pub(super) const BTRFS: i64 = 0x9123_683E;

/// Whether a copy from `from` to `to` is likely to share its content: both lie on one file system of a kind that can.
/// Whether it really does shows only when it is tried.
pub(crate) fn may_share(from: &Path, to: &Path) -> bool {
    const SHARING: [i64; 3] = [BTRFS, 0x5846_5342 /* XFS */, 0xCA45_1A4E /* bcachefs */];
    let kind = |path: &Path| Some((path_stat(path).ok()?.dev, statfs(path).ok()?.f_type));
    let (Some((from, from_type)), Some((to, to_type))) = (kind(from), kind(to)) else { return false };
    // Parts of one Btrfs have numbers of their own.
    SHARING.contains(&from_type) && from_type == to_type && (from == to || from_type == BTRFS)
}

/// After so many bytes it is told how far a copy is.
const PIECE: u64 = 1 << 20;

/// Copies the first `stat.bytes` bytes of `from`, or what there is of them, into the empty file `to`. Holes stay holes.
/// Tells `progress` of the bytes as they are copied.
pub(crate) fn copy_content(from: &File, to: &File, stat: &FileStat, mut progress: impl FnMut(u64)) -> io::Result<()> {
    let mut progress = |bytes| {
        progress(bytes);
        Ok::<_, io::Error>(())
    };
    if stat.allocated >= stat.bytes {
        return copy_range(from, to, stat.bytes, &mut progress);
    }
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, stat.bytes)? {
        { from }.seek(SeekFrom::Start(start))?;
        { to }.seek(SeekFrom::Start(start))?;
        copy_range(from, to, end - start, &mut progress)?;
        at = end;
    }
    to.set_len(stat.bytes)
}

/// Whether both files hold the same.
pub(crate) fn same_content(one: &File, other: &File) -> io::Result<bool> {
    const PIECE: usize = 256 << 10;
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    loop {
        let read = one.read_at(&mut left, at)?;
        let (Some(left), Some(right)) = (left.get(..read), right.get_mut(..read)) else { return Ok(false) };
        match other.read_exact_at(right, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            done => done?,
        }
        if left != right {
            return Ok(false);
        }
        if read == 0 {
            return Ok(other.read_at(&mut [0], at)? == 0);
        }
        at += read as u64;
    }
}

/// Copies up to `bytes` bytes from where both files stand, inside the kernel where it can. Tells `progress` of the bytes as
/// they are copied, which may end it.
pub(crate) fn copy_range<E: From<io::Error>>(
    from: &File,
    to: &File,
    mut bytes: u64,
    progress: &mut impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    while bytes > 0 {
        let copied = io::copy(&mut from.take(bytes.min(PIECE)), &mut &*to)?;
        progress(copied)?;
        bytes -= copied;
        if copied == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether `file` has a hole before its end.
pub(crate) fn has_hole(file: &File, stat: &FileStat) -> io::Result<bool> {
    if stat.allocated >= stat.bytes {
        return Ok(false);
    }
    match seek(file, rustix::fs::SeekFrom::Hole(0)) {
        Ok(hole) => Ok(hole < stat.bytes),
        // Empty now.
        Err(Errno::NXIO) => Ok(false),
        // No such question on this file system: no holes then.
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The next stretch of data at or after `at` and before `bytes`.
fn next_data(file: &File, at: u64, bytes: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= bytes {
        return Ok(None);
    }
    let start = match seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(start) if start < bytes => start,
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, bytes))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, rustix::fs::SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(bytes))))
}
