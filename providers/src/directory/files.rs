//! The file work of a directory store, all of it blocking.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::key::ObjectKey;
use crate::settings::Mark;
use crate::store::{Body, ByteRange, ObjectMeta};

/// Bytes that one read asks for.
pub(super) const PIECE_BYTES: u64 = 1 << 20;

/// An error if one of the folders between `root` and `path` is a link: what lies behind it is not in the store. Those that
/// are missing lead nowhere.
fn through_folders(root: &Path, path: &Path) -> io::Result<()> {
    let below = path.parent().and_then(|folder| folder.strip_prefix(root).ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut folder = root.to_owned();
    for name in below {
        folder.push(name);
        match folder.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => {
                let why = format!("{} is a link, which a store must not hold", folder.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => break,
            Ok(_) => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

/// Whether the disk at `root` bears `mark`. One that bears none may be on its way back, like one that is not there.
pub(super) fn bears(root: &Path, mark: &Mark) -> io::Result<bool> {
    let mut content = Vec::new();
    let file = File::open(root.join(&mark.file)).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound if root.is_dir() => {
            let why = format!("the disk that was mounted at {} is not there any more", root.display());
            io::Error::new(io::ErrorKind::NotConnected, why)
        }
        _ => cause,
    })?;
    file.take(mark.content.len() as u64 + 1).read_to_end(&mut content)?;
    Ok(content == mark.content)
}

/// Which side of a write failed.
pub(super) enum WriteError {
    /// The file that is to be stored.
    Body(io::Error),
    /// The store.
    Store(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(cause: io::Error) -> Self {
        Self::Store(cause)
    }
}

/// Writes `body` durably to `path` below `root`; answers its size.
pub(super) fn write(root: &Path, path: &Path, body: &Body, replace: bool) -> Result<u64, WriteError> {
    through_folders(root, path)?;
    let folder = path.parent().ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
    make_folders(root, folder)?;
    if !replace && path.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    if !replace && link(body, path)? {
        sync_folder(folder)?;
        return Ok(body.len());
    }
    // Removed by its guard if anything below fails.
    let name = path.file_name().unwrap_or_default();
    let mut prefix = name.to_os_string();
    prefix.push("~");
    let temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .rand_bytes(12)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .tempfile_in(folder)?;
    let bytes = copy(body, temporary.as_file())?;
    if bytes != body.len() {
        let why = format!("it has {bytes} bytes instead of {}", body.len());
        return Err(WriteError::Body(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
    }
    temporary.as_file().sync_all()?;
    let temporary = temporary.into_temp_path();
    if replace {
        temporary.persist(path).map_err(|failed| failed.error)?;
    } else {
        name_without_replacing(&temporary, path)?;
    }
    sync_folder(folder)?;
    Ok(bytes)
}

/// Gives the object at `from` the name `to`, which must be free, as well. Where the file system has no links, its bytes are
/// copied.
pub(super) fn copy_object(root: &Path, from: &Path, to: &Path) -> io::Result<()> {
    through_folders(root, from)?;
    through_folders(root, to)?;
    let meta = from.symlink_metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folders(root, folder)?;
    match rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Ok(()) => sync_folder(folder),
        Err(Errno::EXIST) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => match write(root, to, &Body::from_file(from.to_owned(), meta.len(), [0; 32]), false) {
            Ok(_) => Ok(()),
            Err(WriteError::Body(cause) | WriteError::Store(cause)) => Err(cause),
        },
    }
}

/// What lies at `path`. Anything but a plain file is no object.
pub(super) fn meta(root: &Path, key: ObjectKey, path: &Path) -> io::Result<ObjectMeta> {
    through_folders(root, path)?;
    let meta = path.symlink_metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(ObjectMeta { key, bytes: meta.len(), version: None, sha256: None, modified: modified(&meta) })
}

/// The file at `path`, placed at the first byte of `range`; and the offsets where the range begins and ends.
pub(super) fn open_range(root: &Path, path: &Path, range: ByteRange) -> io::Result<(File, u64, u64)> {
    use std::io::Seek as _;
    through_folders(root, path)?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (start, end) = match range {
        ByteRange::All => (0, meta.len()),
        ByteRange::From { offset, bytes } => (offset, offset.saturating_add(bytes).min(meta.len())),
    };
    file.seek(io::SeekFrom::Start(start))?;
    Ok((file, start, end))
}

/// Exactly `wanted` bytes, and the file again.
pub(super) fn read_piece(mut file: File, wanted: u64) -> io::Result<(Bytes, File)> {
    let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
    let read = (&mut file).take(wanted).read_to_end(&mut piece)?;
    if read as u64 != wanted {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
    }
    Ok((piece.into(), file))
}

/// The objects directly in `folder`, and the folders in it. An absent folder below a present root is empty.
pub(super) fn list_folder(root: &Path, folder: &Path) -> io::Result<(Vec<ObjectMeta>, Vec<PathBuf>)> {
    through_folders(root, &folder.join("_"))?;
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && root.is_dir() => return Ok((Vec::new(), Vec::new())),
        entries => entries?,
    };
    let (mut found, mut folders) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry?.path();
        let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str).and_then(|name| name.parse().ok()) else {
            continue;
        };
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => folders.push(path),
            Ok(meta) if meta.is_file() => {
                let modified = modified(&meta);
                found.push(ObjectMeta { key, bytes: meta.len(), version: None, sha256: None, modified });
            }
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok((found, folders))
}

/// Removes the temporary files below `folder` that were last written before `before`.
pub(super) fn sweep(root: &Path, folder: &Path, before: Timestamp) -> io::Result<u64> {
    through_folders(root, &folder.join("_"))?;
    let mut removed = 0;
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.is_file()
                && is_temporary(&entry.file_name().to_string_lossy())
                && modified(&meta).is_some_and(|modified| modified < before)
            {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// The clock of the file system, which on a NAS is the NAS's own.
pub(super) fn clock(root: &Path) -> io::Result<Timestamp> {
    let written = || {
        let mut file = tempfile::Builder::new().prefix("clock~").tempfile_in(root)?;
        file.write_all(b"?")?;
        file.as_file().metadata()
    };
    let meta = match written() {
        // The file system dates a folder without taking any room for it; and room is made by who knows the time.
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            touched(root)
        }
        written => written,
    }?;
    modified(&meta).ok_or_else(|| io::Error::other("the file system gave a time out of range"))
}

/// What is known of `folder` when its file system has just set the time of its last change.
fn touched(folder: &Path) -> io::Result<fs::Metadata> {
    let folder = File::open(folder)?;
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::futimens(&folder, &Timestamps { last_access: now, last_modification: now })?;
    folder.metadata()
}

/// Removes `path` durably, and the folders that this leaves empty.
pub(super) fn delete(root: &Path, path: &Path) -> io::Result<()> {
    through_folders(root, path)?;
    match fs::remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && root.is_dir() => return Ok(()),
        done => done?,
    }
    let mut folder = path.parent();
    while let Some(current) = folder.filter(|folder| *folder != root) {
        match fs::remove_dir(current) {
            // Somebody who deletes beside us was first.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(_) => match sync_folder(current) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                done => return done,
            },
            Ok(()) => {}
        }
        folder = current.parent();
    }
    sync_folder(root)
}

fn is_temporary(name: &str) -> bool {
    name.rsplit_once('~').is_some_and(|(key, random)| {
        !random.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric()) && key.parse::<ObjectKey>().is_ok()
    })
}

fn modified(meta: &fs::Metadata) -> Option<Timestamp> {
    meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok())
}

/// Gives the file that the body lies in the name `path` as well, if it lies on the same file system and is nobody else's:
/// nothing has to be copied then. Says whether it did.
fn link(body: &Body, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(from) = body.path() else { return Ok(false) };
    // What is wrong with the file shows when it is copied.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(from);
    let Ok((meta, file)) = opened.and_then(|file| Ok((file.metadata()?, file))) else { return Ok(false) };
    let ours = meta.is_file() && meta.nlink() == 1 && meta.mode() & 0o777 == 0o600;
    if !ours || meta.len() != body.len() {
        return Ok(false);
    }
    file.sync_all()?;
    match rustix::fs::linkat(CWD, from, CWD, path, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Err(io::ErrorKind::AlreadyExists.into()),
        // Another file system, or one without links: it is copied.
        Err(_) => Ok(false),
    }
}

fn copy(body: &Body, mut to: &File) -> Result<u64, WriteError> {
    match (body.bytes(), body.path()) {
        (Some(bytes), _) => Ok(to.write_all(bytes).map(|()| bytes.len() as u64)?),
        (None, Some(path)) => {
            let mut from = File::open(path).map_err(WriteError::Body)?;
            Ok(io::copy(&mut from, &mut to)?)
        }
        (None, None) => Ok(0),
    }
}

/// Makes `folder` and what is missing above it, up to but not including `root`, so that it survives a power cut.
fn make_folders(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|_| folder.starts_with(root)).ok_or(io::ErrorKind::NotFound)?;
    make_folders(root, parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }?;
    sync_folder(parent)
}

/// Gives `temporary` the name `path`, which must be free. Where the file system has no such rename (NFS), a hard link
/// does the same; where it has neither, the write is refused.
fn name_without_replacing(temporary: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        named => return Ok(named?),
    }
    match rustix::fs::linkat(CWD, temporary, CWD, path, AtFlags::empty()) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this file system can neither rename without replacing nor make hard links",
        )),
        linked => Ok(linked?),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems have nothing to do here and say so.
        Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_disk_is_told_by_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark { file: "mark".to_owned(), content: b"tue".to_vec() };
        assert_eq!(bears(folder.path(), &mark).unwrap_err().kind(), io::ErrorKind::NotConnected);
        for (content, is) in [("tue", true), ("tu", false), ("tue ", false), ("wed", false)] {
            fs::write(folder.path().join("mark"), content).unwrap();
            assert_eq!(bears(folder.path(), &mark).unwrap(), is, "{content}");
        }
        let gone = bears(&folder.path().join("gone"), &mark).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_private_file_is_taken_as_it_is_and_any_other_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        fs::create_dir(&root).unwrap();
        for (name, mode, names) in [("private", 0o600, 2), ("open", 0o644, 1)] {
            let from = folder.path().join(name);
            fs::write(&from, name).unwrap();
            fs::set_permissions(&from, fs::Permissions::from_mode(mode)).unwrap();
            let body = Body::from_file(from.clone(), name.len() as u64, [0; 32]);
            let to = root.join("packs").join(name);
            assert_eq!(write(&root, &to, &body, false).map_err(|_| ()), Ok(name.len() as u64));
            let meta = fs::metadata(&to).unwrap();
            assert_eq!((meta.nlink(), meta.mode() & 0o777), (names, 0o600), "{name}");
            assert!(
                matches!(write(&root, &to, &body, false), Err(WriteError::Store(e)) if e.kind() == io::ErrorKind::AlreadyExists)
            );
            fs::remove_file(&from).unwrap();
            assert_eq!(fs::read(&to).unwrap(), name.as_bytes());
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (folder.path().join("store"), folder.path().join("elsewhere"));
        for made in [&root, &elsewhere] {
            fs::create_dir(made).unwrap();
        }
        fs::write(elsewhere.join("object"), "not ours").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("site")).unwrap();
        let (path, new) = (root.join("site/object"), root.join("site/new/object"));
        let key = || "site/object".parse().unwrap();
        let refused = |kind: io::ErrorKind| assert_eq!(kind, io::ErrorKind::NotADirectory);
        refused(open_range(&root, &path, ByteRange::All).unwrap_err().kind());
        refused(meta(&root, key(), &path).unwrap_err().kind());
        refused(list_folder(&root, &root.join("site")).unwrap_err().kind());
        refused(delete(&root, &path).unwrap_err().kind());
        refused(sweep(&root, &root.join("site"), Timestamp::MAX).unwrap_err().kind());
        refused(copy_object(&root, &path, &root.join("copy")).unwrap_err().kind());
        let written = write(&root, &new, &Body::from_bytes("ours"), false);
        assert!(matches!(written, Err(WriteError::Store(cause)) if cause.kind() == io::ErrorKind::NotADirectory));
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
        // The folder of the store itself may be one.
        std::os::unix::fs::symlink(&root, folder.path().join("mount")).unwrap();
        assert!(list_folder(&folder.path().join("mount"), &folder.path().join("mount")).is_ok());
    }
}
