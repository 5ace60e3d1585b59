//! A look at some of the files that came back beside those that the office works with: what has not changed since the copy
//! has to be the same. It shows what no digest of ours can, since it asks the original.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;

use crate::platform::tree::{Dir, FileKind, FileStat, file_stat};

/// So many files at most, and so many bytes.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 512 << 20;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Files that had not changed and are the same.
    pub(super) same: u64,
    /// Files that should not have changed and are not the same, by path.
    pub(super) different: Vec<String>,
}

/// Compares files below `restored`, which were copied no earlier than `copied`, with those below `live`. `turn` says which
/// of many are taken.
pub(super) fn compare(restored: &Path, live: &Path, copied: Timestamp, turn: u64) -> io::Result<Compared> {
    let mut files = Vec::new();
    walk(&Dir::open(restored)?, &mut Vec::new(), &mut files)?;
    let step = files.len().div_ceil(FILES_MAX).max(1);
    let first = usize::try_from(turn % step as u64).unwrap_or(0);
    let (restored, live) = (Dir::open(restored)?, Dir::open(live)?);
    let (mut compared, mut bytes) = (Compared::default(), 0);
    for path in files.iter().skip(first).step_by(step) {
        let (Some((copy, was)), Some((now, is))) = (open(&restored, path), open(&live, path)) else { continue };
        // The time of the last change of any kind, which no program can set back.
        let touched = Timestamp::new(is.ctime.seconds, is.ctime.nanoseconds.cast_signed()).unwrap_or(Timestamp::MAX);
        if (was.bytes, was.mtime) != (is.bytes, is.mtime) || touched >= copied || bytes + is.bytes > BYTES_MAX {
            continue;
        }
        bytes += is.bytes;
        // What cannot be read now is not compared.
        let Ok((old, new)) = digest(copy).and_then(|old| Ok((old, digest(now.try_clone()?)?))) else { continue };
        if old == new {
            compared.same += 1;
        } else if file_stat(&now).is_ok_and(|after| after.ctime == is.ctime) {
            compared.different.push(String::from_utf8_lossy(&path.join(&b'/')).into_owned());
        }
    }
    Ok(compared)
}

/// Every regular file below `folder`, as the names on the way to it.
fn walk(folder: &Dir, path: &mut Vec<Vec<u8>>, files: &mut Vec<Vec<Vec<u8>>>) -> io::Result<()> {
    for inner in folder.names()? {
        path.push(inner.clone());
        match folder.stat(&inner)?.kind {
            FileKind::Folder => walk(&folder.open_dir(&inner)?, path, files)?,
            FileKind::File => files.push(path.clone()),
            FileKind::Symlink | FileKind::Special(_) => {}
        }
        path.pop();
    }
    Ok(())
}

/// The file, if there is one that can be read.
fn open(root: &Dir, path: &[Vec<u8>]) -> Option<(File, FileStat)> {
    let (last, folders) = path.split_last()?;
    let mut folder = None;
    for segment in folders {
        folder = Some(folder.as_ref().unwrap_or(root).open_dir(segment).ok()?);
    }
    let file = folder.as_ref().unwrap_or(root).open_file(last).ok()?;
    let stat = file_stat(&file).ok()?;
    (stat.kind == FileKind::File).then_some((file, stat))
}

fn digest(mut file: File) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            read => drop(hasher.update(buffer.get(..read).unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_has_not_changed_has_to_be_the_same_and_what_has_is_no_matter() {
        let (restored, live) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let write = |folder: &Path, name: &str, content: &str| {
            fs::create_dir_all(folder.join("a/b")).unwrap();
            fs::write(folder.join(name), content).unwrap();
            File::options().write(true).open(folder.join(name)).unwrap().set_modified(time).unwrap();
        };
        for (name, then, now) in
            [("same", "one", "one"), ("a/b/rotten", "two", "tow"), ("a/longer", "three", "three and more")]
        {
            write(restored.path(), name, then);
            write(live.path(), name, now);
        }
        write(restored.path(), "a/gone", "four");
        std::os::unix::fs::symlink("same", restored.path().join("link")).unwrap();
        let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let compared = compare(restored.path(), live.path(), later, 0).unwrap();
        assert_eq!(compared, Compared { same: 1, different: vec!["a/b/rotten".to_owned()] });
        // Touched after the copy: whatever the times say, it may have changed.
        let earlier = "2001-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(compare(restored.path(), live.path(), earlier, 0).unwrap(), Compared::default());
    }
}
