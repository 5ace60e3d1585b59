//! The contract between the agent and a place off site. `providers/README.md` says it in prose.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, TryStreamExt as _};
use jiff::Timestamp;

use crate::error::Result;
use crate::key::{KeyPrefix, ObjectKey};

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// The bytes of an object or of a range of it, in pieces.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// One configured place that keeps whole objects under names.
///
/// An object is there entirely or not at all; readers never see part of a write. What a store cannot do it refuses,
/// and never ignores. Abilities beyond the minimum are held ([`multipart`](Self::multipart) and its like), not flagged.
#[async_trait]
pub trait ObjectStore: fmt::Debug + fmt::Display + Send + Sync {
    /// Plain limits of this store.
    fn limits(&self) -> Limits;

    /// Stores one object in one request. When it returns, the object is durable, and what the store could say of it
    /// (size, checksum) has been compared with `body`.
    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta>;

    /// Reads an object, or the part of it that `range` names. A body that ends early is an error, never a short stream.
    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream>;

    /// What the store knows of an object, without its bytes.
    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta>;

    /// Every object whose key begins with `prefix`, at any depth, in no promised order, page by page.
    /// Names that are no [`ObjectKey`] are not ours and are left out.
    ///
    /// An error that may pass ([`Retry::Later`](crate::Retry::Later)) does not end the stream: polling on asks for the
    /// same page again. The same holds for every other listing.
    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>>;

    /// Gives up what interrupted writes left below `prefix` and nobody has touched since `before`: temporary files,
    /// unfinished uploads. Answers how many. Objects are never touched.
    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64>;

    /// The store's own clock: retention and lock dates are reckoned by it.
    async fn now(&self) -> Result<Timestamp>;

    /// Sending one object in parts that survive a restart.
    fn multipart(&self) -> Option<&dyn Multipart>;

    /// Making an object of another one inside the store.
    fn copying(&self) -> Option<&dyn Copying>;

    /// Older versions of objects.
    fn versions(&self) -> Option<&dyn Versions>;

    /// Deleting; a store opened for the agent's daily work holds none.
    fn deletion(&self) -> Option<&dyn Deletion>;
}

/// Sending one object in parts. All calls may be repeated.
#[async_trait]
pub trait Multipart: Send + Sync {
    /// Sizes and counts the store accepts.
    fn part_limits(&self) -> PartLimits;

    /// Whether nothing but the size is known of a part that [`parts`](Self::parts) lists. Such parts count as sent, and
    /// [`complete`](Self::complete) reads the object back before it gets its name.
    fn parts_are_known_by_size(&self) -> bool {
        false
    }

    /// Opens an upload of an object that must be new: [`PutMode::Overwrite`] is refused. The answer is plain data, to be
    /// kept until the object is there.
    async fn begin(&self, key: &ObjectKey, options: &PutOptions) -> Result<Upload>;

    /// Sends one part; a part sent again replaces the former.
    async fn put_part(&self, upload: &Upload, number: u32, body: &Body) -> Result<Part>;

    /// The parts that the store holds, by number; a number may come twice, with different tags. A forgotten upload is
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>>;

    /// Makes the object of `parts`, which name their digests: some stores ask for them, and not all list them. If the reply was lost and the upload is gone, look at the object with `head`.
    async fn complete(&self, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta>;

    /// Gives an upload up; an unknown one is no error.
    async fn abort(&self, upload: &Upload) -> Result<()>;

    /// Uploads below `prefix` that were begun and neither completed nor aborted.
    fn unfinished<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<Upload>>;
}

/// Gives up the unfinished uploads below `prefix` that were begun before `before`; answers how many.
pub(crate) async fn sweep_uploads(store: &dyn Multipart, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
    let mut swept = 0;
    let mut unfinished = store.unfinished(prefix);
    while let Some(upload) = unfinished.try_next().await? {
        if upload.begun.is_some_and(|begun| begun < before) {
            store.abort(&upload).await?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Making an object of another one without its bytes passing through this machine.
#[async_trait]
pub trait Copying: Send + Sync {
    /// Makes the object `to`, which must be new, of the object `from`, with a lock of its own if it is to have one: that of
    /// `from` does not count. Answers with the SHA-256 that the store itself computed of what it copied, if it did; otherwise
    /// whether the copy is what it should be is for the caller to prove. What is larger than
    /// [`put_bytes_max`](Limits::put_bytes_max) may be refused.
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) may also mean that an earlier reply was lost.
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>>;
}

/// Reading a store as it was at an earlier time.
#[async_trait]
pub trait Versions: Send + Sync {
    /// Every version of every object below `prefix`, delete markers included.
    fn list_versions<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectVersion>>;

    /// Until when a version is locked, as the store itself reports it.
    async fn locked_until(&self, object: &ObjectRef) -> Result<Option<Timestamp>>;

    /// After how many days a rule of the place removes whatever below `prefix` was deleted or replaced, and so only hidden;
    /// `None` if no rule does.
    async fn hidden_for(&self, prefix: &KeyPrefix) -> Result<Option<u32>>;
}

/// Whether a lock that lasts until `said`, as a store reports it, lasts until `until`. Stores keep whole seconds.
pub fn lasts_until(said: Option<Timestamp>, until: Timestamp) -> bool {
    said.is_some_and(|said| said.as_second() >= until.as_second())
}

/// Removing objects; held only where retention is executed.
#[async_trait]
pub trait Deletion: Send + Sync {
    /// Removes one object; an absent one is no error.
    async fn delete(&self, object: &ObjectRef) -> Result<()>;
}

/// Numbers that a caller must respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest object that one `put` may carry, in bytes.
    pub put_bytes_max: u64,
    /// Requests that may be under way at once.
    pub requests_max: usize,
}

/// Numbers of a multipart transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLimits {
    /// Smallest part but the last, in bytes.
    pub part_bytes_min: u64,
    /// Largest part, in bytes.
    pub part_bytes_max: u64,
    /// Most parts of one upload.
    pub parts_max: u32,
}

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOptions {
    /// What happens if the name is taken.
    pub mode: PutMode,
    /// Set in the writing request itself; a store that cannot lock refuses.
    pub locked_until: Option<Timestamp>,
}

/// What happens if the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// The write fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Create,
    /// The object is replaced, in one step.
    Overwrite,
}

impl PutOptions {
    /// A new object, not locked.
    pub const CREATE: Self = Self { mode: PutMode::Create, locked_until: None };
    /// A new object or a replaced one, not locked.
    pub const OVERWRITE: Self = Self { mode: PutMode::Overwrite, locked_until: None };
}

/// An object, or one version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its name.
    pub key: ObjectKey,
    /// Its version; the newest if absent.
    pub version: Option<String>,
}

impl From<ObjectKey> for ObjectRef {
    fn from(key: ObjectKey) -> Self {
        Self { key, version: None }
    }
}

/// Which bytes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of them.
    All,
    /// `bytes` bytes from `offset` on, or fewer where the object ends: none at all from beyond its end.
    From {
        /// First byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// What a store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: u64,
    /// Its version, if the store keeps versions.
    pub version: Option<String>,
    /// Its SHA-256, if the store itself computed and reports it.
    pub sha256: Option<Sha256Digest>,
    /// When it was written, by the store's clock.
    pub modified: Option<Timestamp>,
}

impl ObjectMeta {
    /// The object, in this very version.
    pub fn object(&self) -> ObjectRef {
        ObjectRef { key: self.key.clone(), version: self.version.clone() }
    }
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Name and version.
    pub object: ObjectRef,
    /// Its size; 0 for a delete marker.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
    /// Whether it hides the object instead of holding bytes.
    pub delete_marker: bool,
}

/// An upload in parts, as plain data to be journaled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Upload {
    /// The key the object will have.
    pub key: String,
    /// The store's name for the upload.
    pub id: String,
    /// When it was begun, if the store says so.
    pub begun: Option<Timestamp>,
    /// Until when the object will be locked, as `begin` was told; unknown of a listed upload.
    #[serde(default)]
    pub locked_until: Option<Timestamp>,
}

/// One part that a store holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// Its size.
    pub bytes: u64,
    /// The store's tag for it.
    pub etag: String,
    /// Its SHA-256, where known: always in what [`Multipart::put_part`] answers, seldom in what
    /// [`Multipart::parts`] lists.
    pub sha256: Option<Sha256Digest>,
}

impl Part {
    /// Whether what the store says of the part proves that it holds these bytes: by SHA-256, or where the store reports
    /// none, by an ETag that is an MD5. Anything else proves nothing.
    pub fn is_of(&self, body: &Body) -> bool {
        if self.bytes != body.len() {
            return false;
        }
        match (&self.sha256, &body.content) {
            (Some(sha256), _) => sha256 == body.sha256(),
            (None, Content::Memory(bytes)) => {
                use md5::Digest as _;
                let md5: String = md5::Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
                self.etag.trim_matches('"').eq_ignore_ascii_case(&md5)
            }
            (None, Content::File { .. }) => false,
        }
    }
}

/// Bytes to send, which can be read again for another attempt.
#[derive(Clone)]
pub struct Body {
    content: Content,
    sha256: Sha256Digest,
}

#[derive(Clone)]
enum Content {
    Memory(Bytes),
    File { path: PathBuf, bytes: u64 },
}

impl Body {
    /// A body in memory; its digest is computed here.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        use sha2::Digest as _;
        let bytes = bytes.into();
        let sha256 = sha2::Sha256::digest(&bytes).into();
        Self { content: Content::Memory(bytes), sha256 }
    }

    /// A body in memory whose digest is known. The caller vouches for it: a store that checks refuses a body with another one, and
    /// others take it as it is.
    pub fn with_digest(bytes: impl Into<Bytes>, sha256: Sha256Digest) -> Self {
        Self { content: Content::Memory(bytes.into()), sha256 }
    }

    /// A whole file whose size and digest are known. It must never be written again: a store on the same file system takes
    /// a private file as it is instead of copying it.
    pub fn from_file(path: PathBuf, bytes: u64, sha256: Sha256Digest) -> Self {
        Self { content: Content::File { path, bytes }, sha256 }
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// SHA-256 of all its bytes.
    pub fn sha256(&self) -> &Sha256Digest {
        &self.sha256
    }

    /// The file the body lies in, if it does not lie in memory.
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.content {
            Content::Memory(_) => None,
            Content::File { path, .. } => Some(path),
        }
    }

    /// The bytes themselves, if they lie in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Memory(bytes) => Some(bytes),
            Content::File { .. } => None,
        }
    }

    /// All its bytes. A file is read whole: bodies are packs or parts, whose size the caller limits.
    pub async fn read(&self) -> std::io::Result<Bytes> {
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::File { path, bytes } => {
                let read = tokio::fs::read(path).await?;
                if read.len() as u64 != *bytes {
                    return Err(std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        format!("{} has {} bytes instead of {bytes}", path.display(), read.len()),
                    ));
                }
                Ok(read.into())
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}
