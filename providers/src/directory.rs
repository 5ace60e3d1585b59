//! A folder of this machine as a store: a disk, a NAS, a USB drive.
//!
//! Every write goes to a temporary name in the same folder, reaches the disk, and takes its name in one step that
//! cannot replace anything; then the folder reaches the disk. Temporary names hold a `~`, which no key can.

mod files;

use std::fmt;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::key::{KeyPrefix, ObjectKey};
use crate::settings::{Access, DirectorySettings, Mark};
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore, PutMode,
    PutOptions, Sha256Digest, Versions,
};

/// A store in a folder of this machine.
#[derive(Clone)]
pub(crate) struct DirectoryStore {
    root: PathBuf,
    mark: Option<Mark>,
    access: Access,
}

impl DirectoryStore {
    /// Nothing is touched; an absent folder shows when the store is used.
    pub(crate) fn new(settings: &DirectorySettings, access: Access) -> Result<Self> {
        let store = Self { root: settings.path.clone(), mark: settings.mark.clone(), access };
        if !settings.path.is_absolute() {
            let why = "the folder must be given from the root (`/…`)";
            return Err(Error::new(ErrorKind::Config, "opening the store").store(&store).because(why));
        }
        Ok(store)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn folder(&self, prefix: &KeyPrefix) -> PathBuf {
        self.root.join(prefix.as_str())
    }

    fn error(&self, operation: &'static str, key: Option<&ObjectKey>, cause: io::Error) -> Error {
        // An unplugged drive must not look like an empty store or a missing object.
        let gone = cause.kind() == io::ErrorKind::NotFound && !self.root.is_dir();
        // It will not come back while somebody waits.
        let (kind, retry) = if gone { (ErrorKind::Unavailable, Retry::Never) } else { classify(&cause) };
        let error = Error::new(kind, operation).store(self).retry(retry);
        let error = if gone {
            error.because(format!("the folder {} is not there; is the drive connected?", self.root.display()))
        } else {
            error.because(cause)
        };
        match key {
            Some(key) => error.key(key),
            None => error,
        }
    }

    /// Runs file work off the async threads, on the disk that this store was opened on and on no other.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: Option<&ObjectKey>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mark) = self.mark.clone() else { return self.run_anyway(operation, key, work).await };
        let root = self.root.clone();
        let work = move || files::bears(&root, &mark).and_then(|same| if same { work().map(Some) } else { Ok(None) });
        self.run_anyway(operation, key, work).await?.ok_or_else(|| {
            let why = "another disk is mounted there than when this began: nothing is done on it";
            Error::new(ErrorKind::Unavailable, operation).store(self).because(why)
        })
    }

    /// The same on whatever disk is there: for a file that is open already.
    async fn run_anyway<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: Option<&ObjectKey>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        done.map_err(|cause| self.error(operation, key, cause))
    }

    fn no_versions(&self, operation: &'static str, object: &ObjectRef) -> Result<()> {
        match object.version {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Unsupported, operation)
                .key(&object.key)
                .store(self)
                .because("a directory keeps no versions")),
        }
    }

    fn refuse_lock(&self, operation: &'static str, key: &ObjectKey, locked_until: Option<Timestamp>) -> Result<()> {
        match locked_until {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Unsupported, operation)
                .key(key)
                .store(self)
                .because("a directory cannot lock objects against deletion")),
        }
    }

    /// One folder's worth of the listing; the folders found are put on `pending`.
    async fn list_folder(&self, folder: PathBuf, pending: &mut Vec<PathBuf>) -> Result<Vec<ObjectMeta>> {
        let root = self.root.clone();
        let (found, folders) = self.run("listing", None, move || files::list_folder(&root, &folder)).await?;
        pending.extend(folders);
        Ok(found)
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    fn limits(&self) -> Limits {
        Limits { put_bytes_max: u64::MAX, requests_max: usize::MAX }
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        self.refuse_lock("storing", key, options.locked_until)?;
        let (root, path) = (self.root.clone(), self.path(key));
        let (source, replace) = (body.clone(), options.mode == PutMode::Overwrite);
        let work = move || files::write(&root, &path, &source, replace);
        let written = self.run("storing", Some(key), move || Ok(work())).await?;
        let bytes = written.map_err(|failed| match failed {
            files::WriteError::Body(cause) => {
                Error::new(ErrorKind::Local, "storing").key(key).store(self).because(cause)
            }
            files::WriteError::Store(cause) => self.error("storing", Some(key), cause),
        })?;
        Ok(ObjectMeta { key: key.clone(), bytes, version: None, sha256: None, modified: None })
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        self.no_versions("reading", object)?;
        let (root, path) = (self.root.clone(), self.path(&object.key));
        let (file, start, end) =
            self.run("reading", Some(&object.key), move || files::open_range(&root, &path, range)).await?;
        let state = (self.clone(), object.key.clone(), Some(file), start);
        Ok(stream::unfold(state, move |(store, key, file, offset)| async move {
            let file = file.filter(|_| offset < end)?;
            let wanted = files::PIECE_BYTES.min(end - offset);
            let read = store.run_anyway("reading", Some(&key), move || files::read_piece(file, wanted)).await;
            match read {
                Ok((piece, file)) => Some((Ok(piece), (store, key, Some(file), offset + wanted))),
                Err(error) => Some((Err(error), (store, key, None, end))),
            }
        })
        .boxed())
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        self.no_versions("looking at", object)?;
        let (root, key, path) = (self.root.clone(), object.key.clone(), self.path(&object.key));
        self.run("looking at", Some(&object.key), move || files::meta(&root, key, &path)).await
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        let pending = vec![self.folder(prefix)];
        stream::unfold(pending, move |mut pending| async move {
            let folder = pending.pop()?;
            let page = self.list_folder(folder.clone(), &mut pending).await;
            if page.is_err() {
                pending.push(folder);
            }
            let items = match page {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((stream::iter(items), pending))
        })
        .flatten()
        .boxed()
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
        let (root, folder) = (self.root.clone(), self.folder(prefix));
        self.run("removing leftovers", None, move || files::sweep(&root, &folder, before)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        let root = self.root.clone();
        self.run("asking the time", None, move || files::clock(&root)).await
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        None
    }

    fn copying(&self) -> Option<&dyn Copying> {
        Some(self)
    }

    fn versions(&self) -> Option<&dyn Versions> {
        None
    }

    fn deletion(&self) -> Option<&dyn Deletion> {
        match self.access {
            Access::Agent => None,
            Access::Keeper => Some(self),
        }
    }
}

#[async_trait]
impl Copying for DirectoryStore {
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>> {
        self.refuse_lock("copying to", to, locked_until)?;
        let (root, old, new) = (self.root.clone(), self.path(from), self.path(to));
        self.run("copying to", Some(to), move || files::copy_object(&root, &old, &new)).await?;
        Ok(None)
    }
}

#[async_trait]
impl Deletion for DirectoryStore {
    async fn delete(&self, object: &ObjectRef) -> Result<()> {
        self.no_versions("deleting", object)?;
        let (root, path) = (self.root.clone(), self.path(&object.key));
        self.run("deleting", Some(&object.key), move || files::delete(&root, &path)).await
    }
}

impl fmt::Display for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the folder {}", self.root.display())
    }
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryStore({:?}, {:?})", self.root, self.access)
    }
}

fn classify(cause: &io::Error) -> (ErrorKind, Retry) {
    use io::ErrorKind as Io;
    // A link where an object should be.
    if rustix::io::Errno::from_io_error(cause) == Some(rustix::io::Errno::LOOP) {
        return (ErrorKind::Protocol, Retry::Never);
    }
    let kind = match cause.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::OutOfSpace,
        Io::UnexpectedEof => ErrorKind::Corrupt,
        Io::Unsupported => ErrorKind::Unsupported,
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::InvalidInput => ErrorKind::Protocol,
        _ => return (ErrorKind::Unavailable, Retry::Later { after: None }),
    };
    (kind, Retry::Never)
}
