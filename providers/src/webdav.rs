//! A folder of a WebDAV server (RFC 4918).
//!
//! A write goes to a temporary name in the same folder, is looked at, and is moved to its name with `Overwrite: F`. The
//! name is looked at before, because one server overwrites regardless (unless this one was seen not to), and after. Servers prove the size of an object,
//! nothing more: its content is proved when it is read. Temporary names hold a `~`, which no key can.

mod chunked;
mod classify;
mod client;
mod login;
mod multistatus;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::exact::exact;
use crate::key::{KeyPrefix, ObjectKey};
use crate::settings::{Access, Policy, Seen, WebdavSettings};
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore, PutMode,
    PutOptions, Sha256Digest, Versions, sweep_uploads,
};
use crate::transport::Expect;

use chunked::Uploads;
use classify::refused;
use client::{Ask, Client, pieces};
use multistatus::{Entry, http_date};

/// A store on a WebDAV server.
pub(crate) struct WebdavStore {
    client: Client,
    access: Access,
    seen: Seen,
    address: String,
    /// Where it takes parts, if it is a Nextcloud.
    uploads: Option<Uploads>,
}

impl WebdavStore {
    /// Opens without asking the server anything.
    pub(crate) fn new(settings: &WebdavSettings, access: Access, policy: &Policy, seen: Seen) -> Result<Self> {
        let address = settings.url.host_str().unwrap_or_default().to_owned();
        let client = Client::new(settings, policy).map_err(|error| error.store(&settings.url))?;
        Ok(Self { client, access, seen, address, uploads: Uploads::of(&settings.url) })
    }

    fn named<'a>(&'a self, key: &'a ObjectKey) -> impl Fn(Error) -> Error + 'a {
        move |error| error.key(key).store(self)
    }

    fn no_versions(&self, operation: &'static str, object: &ObjectRef) -> Result<()> {
        match object.version {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Unsupported, operation)
                .key(&object.key)
                .store(self)
                .because("a WebDAV server keeps no versions")),
        }
    }

    async fn write(&self, key: &ObjectKey, content: Bytes, mode: PutMode) -> Result<()> {
        const OPERATION: &str = "storing";
        let taken = || Error::new(ErrorKind::AlreadyExists, OPERATION);
        self.client.make_folders(OPERATION, key.folder().as_str()).await?;
        let looks = mode == PutMode::Create && self.seen.looks_before(content.len() as u64);
        if looks && self.client.look_at_file(OPERATION, key.as_str()).await?.is_some() {
            return Err(taken());
        }
        let temporary = format!("{key}~{:016x}", random());
        let written = self.write_temporary(key, &temporary, &content, mode).await;
        if written.is_err() {
            // It may be there in part. If this fails too, the sweep finds it.
            let _ = self.client.tell(OPERATION, &Ask::new("DELETE", &temporary), &[200, 204]).await;
        }
        written
    }

    async fn write_temporary(&self, key: &ObjectKey, temporary: &str, content: &Bytes, mode: PutMode) -> Result<()> {
        const OPERATION: &str = "storing";
        let mut put = Ask::new("PUT", temporary)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        put.body = content.clone();
        if let Err(error) = self.client.tell(OPERATION, &put, &[200, 201, 204]).await {
            let (NotFound | Unavailable) = error.kind else { return Err(error) };
            // 404, 409 or 500: the folder is gone. If it is not, nothing is lost by another try.
            self.client.forget_folders();
            self.client.make_folders(OPERATION, key.folder().as_str()).await?;
            if error.kind == Unavailable {
                return Err(error);
            }
            self.client.tell(OPERATION, &put, &[200, 201, 204]).await?;
        }
        self.expect_size(temporary, content.len() as u64).await?;
        self.rename(OPERATION, temporary, key.as_str(), mode).await?;
        self.expect_size(key.as_str(), content.len() as u64).await
    }

    fn refuse_lock(&self, operation: &'static str, key: &ObjectKey, locked_until: Option<Timestamp>) -> Result<()> {
        if locked_until.is_none() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Unsupported, operation);
        Err(self.named(key)(error.because("WebDAV cannot lock objects against deletion")))
    }

    fn destination(&self, operation: &'static str, name: &str) -> Result<HeaderValue> {
        HeaderValue::try_from(self.client.address(name))
            .map_err(|cause| Error::new(ErrorKind::Config, operation).because(cause))
    }

    /// Gives a temporary file its name.
    async fn rename(&self, operation: &'static str, temporary: &str, name: &str, mode: PutMode) -> Result<()> {
        self.make_of("MOVE", operation, temporary, name, mode).await
    }

    /// Moves or copies the file `from` to `name`.
    async fn make_of(
        &self,
        method: &'static str,
        operation: &'static str,
        from: &str,
        name: &str,
        mode: PutMode,
    ) -> Result<()> {
        let overwrite = if mode == PutMode::Overwrite { "T" } else { "F" };
        let mut ask = Ask::new(method, from)
            .header(HeaderName::from_static("destination"), self.destination(operation, name)?)
            .header(HeaderName::from_static("overwrite"), HeaderValue::from_static(overwrite));
        ask.expect = Expect::ASSEMBLY;
        self.client.tell(operation, &ask, &[200, 201, 204]).await
    }

    /// Copies by way of a temporary name, for a server may show a copy that it is still writing.
    async fn duplicate(&self, from: &ObjectKey, to: &ObjectKey) -> Result<()> {
        const OPERATION: &str = "copying to";
        let source = self.client.look_at_file(OPERATION, from.as_str()).await?;
        let bytes = source.and_then(|entry| entry.bytes).ok_or_else(|| Error::new(NotFound, OPERATION))?;
        self.client.make_folders(OPERATION, to.folder().as_str()).await?;
        if self.client.look_at_file(OPERATION, to.as_str()).await?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, OPERATION));
        }
        let temporary = format!("{to}~{:016x}", random());
        let copy = async {
            self.make_of("COPY", OPERATION, from.as_str(), &temporary, PutMode::Create).await?;
            self.expect_size(&temporary, bytes).await?;
            self.rename(OPERATION, &temporary, to.as_str(), PutMode::Create).await?;
            self.expect_size(to.as_str(), bytes).await
        };
        let copied = copy.await;
        if copied.is_err() {
            // It may be there. If this fails too, the sweep finds it.
            let _ = self.client.tell(OPERATION, &Ask::new("DELETE", &temporary), &[200, 204]).await;
        }
        copied
    }

    async fn expect_size(&self, name: &str, bytes: u64) -> Result<()> {
        let found = self.client.look_at_file("storing", name).await?;
        match found.as_ref().and_then(|entry| entry.bytes) {
            Some(held) if held == bytes => Ok(()),
            held => {
                let held = held.map_or("nothing".to_owned(), |held| format!("{held} bytes"));
                let why = format!("the server holds {held} instead of {bytes} bytes");
                Err(Error::new(ErrorKind::Corrupt, "storing").retry(LATER).because(why))
            }
        }
    }

    /// Reads the file `name`, or the part of it that `range` names; errors are `named` by the caller.
    async fn read(
        &self,
        operation: &'static str,
        name: &str,
        range: ByteRange,
        named: &(dyn Fn(Error) -> Error + Sync),
    ) -> Result<ByteStream> {
        let mut ask = Ask::new("GET", name);
        ask.expect = Expect::OBJECT;
        let wanted = match range {
            ByteRange::All => None,
            ByteRange::From { bytes: 0, .. } => return Ok(stream::empty().boxed()),
            ByteRange::From { offset, bytes } => {
                let last = offset.checked_add(bytes - 1).filter(|last| *last < u64::MAX - 1);
                let text = format!("bytes={offset}-{}", last.map_or(String::new(), |last| last.to_string()));
                let value = HeaderValue::try_from(text);
                let value = value.map_err(|cause| named(Error::new(ErrorKind::Protocol, operation).because(cause)))?;
                ask = ask.header(header::RANGE, value);
                Some((offset, bytes))
            }
        };
        let answer = self.client.send(operation, &ask).await.map_err(named)?;
        let strange = |why: &'static str| Err(named(Error::new(ErrorKind::Protocol, operation).because(why)));
        let begins = || {
            let text = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
            text.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok()
        };
        match (answer.status(), wanted) {
            (StatusCode::OK, None) => {}
            (StatusCode::PARTIAL_CONTENT, Some((offset, _))) if begins() == Some(offset) => {}
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => return Ok(stream::empty().boxed()),
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => {
                return strange("the answer is not the range that was asked for");
            }
            (status, _) => return Err(named(refused(operation, status, answer.headers()))),
        }
        let bytes = match promised_bytes(answer.headers()) {
            Some(bytes) => bytes,
            // Without a length nothing would show a body that was cut short.
            None => {
                let entry = self.client.look_at_file(operation, name).await.map_err(named)?;
                let untold = || named(Error::new(ErrorKind::Protocol, operation).because("the server tells no size"));
                entry.and_then(|entry| entry.bytes).ok_or_else(untold)?
            }
        };
        let broken = named(Error::new(ErrorKind::Unavailable, operation).retry(LATER));
        let content = exact(pieces(operation, answer.into_body()), bytes, broken);
        Ok(match wanted {
            // Some servers take a range only for its beginning.
            Some((_, wanted)) if wanted < bytes => first(content, wanted),
            _ => content,
        })
    }

    /// The objects directly in `folder`; the folders in it are put on `pending`.
    async fn list_folder(&self, folder: &str, pending: &mut Vec<String>) -> Result<Vec<ObjectMeta>> {
        let found = self.client.look_into("listing", folder).await.map_err(|error| error.store(self))?;
        let mut objects = Vec::new();
        for (name, entry) in found {
            if entry.is_folder && name.parse::<KeyPrefix>().is_ok() {
                pending.push(name);
            } else if let (Ok(key), false) = (name.parse(), entry.is_folder) {
                objects.push(self.meta(key, &entry, "listing")?);
            }
        }
        Ok(objects)
    }

    fn meta(&self, key: ObjectKey, entry: &Entry, operation: &'static str) -> Result<ObjectMeta> {
        match entry.bytes {
            Some(bytes) => Ok(ObjectMeta { key, bytes, version: None, sha256: None, modified: entry.modified }),
            None => {
                let error = Error::new(ErrorKind::Protocol, operation).because("the server does not tell its size");
                Err(self.named(&key)(error))
            }
        }
    }
}

/// Paths of the entries of an answer to PROPFIND; none if it is no such answer.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn paths_in(xml: &[u8]) -> Vec<String> {
    multistatus::parse(xml).unwrap_or_default().into_iter().map(|entry| entry.path).collect()
}

#[async_trait]
impl ObjectStore for WebdavStore {
    fn limits(&self) -> Limits {
        // What a widespread server takes in one request if nobody has told it otherwise.
        Limits { put_bytes_max: 1 << 30, requests_max: 16 }
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        self.refuse_lock("storing", key, options.locked_until)?;
        let content = body.read().await;
        let content =
            content.map_err(|cause| self.named(key)(Error::new(ErrorKind::Local, "storing").because(cause)))?;
        self.write(key, content, options.mode).await.map_err(self.named(key))?;
        Ok(ObjectMeta { key: key.clone(), bytes: body.len(), version: None, sha256: None, modified: None })
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        const OPERATION: &str = "reading";
        self.no_versions(OPERATION, object)?;
        self.read(OPERATION, object.key.as_str(), range, &self.named(&object.key)).await
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        const OPERATION: &str = "looking at";
        self.no_versions(OPERATION, object)?;
        let named = self.named(&object.key);
        let found = self.client.look_at_file(OPERATION, object.key.as_str()).await.map_err(&named)?;
        let entry = found.ok_or_else(|| named(Error::new(ErrorKind::NotFound, OPERATION)))?;
        self.meta(object.key.clone(), &entry, OPERATION)
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        let pending = vec![prefix.as_str().to_owned()];
        stream::unfold((pending, 0), move |(mut pending, looked_into)| async move {
            let folder = pending.pop()?;
            if looked_into == FOLDERS_MAX || pending.len() > FOLDERS_MAX {
                let endless =
                    Error::new(ErrorKind::Protocol, "listing").store(self).because("there is no end of folders");
                return Some((stream::iter(vec![Err(endless)]), (Vec::new(), looked_into)));
            }
            let items = match self.list_folder(&folder, &mut pending).await {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => {
                    pending.push(folder);
                    vec![Err(error)]
                }
            };
            Some((stream::iter(items), (pending, looked_into + 1)))
        })
        .flatten()
        .boxed()
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
        const OPERATION: &str = "removing leftovers";
        let (mut swept, mut pending) = (0, vec![prefix.as_str().to_owned()]);
        let mut looked_into = 0;
        while let Some(folder) = pending.pop() {
            looked_into += 1;
            if looked_into > FOLDERS_MAX || pending.len() > FOLDERS_MAX {
                return Err(Error::new(ErrorKind::Protocol, OPERATION)
                    .store(self)
                    .because("there is no end of folders"));
            }
            let found = self.client.look_into(OPERATION, &folder).await.map_err(|error| error.store(self))?;
            for (name, entry) in found {
                if entry.is_folder && name.parse::<KeyPrefix>().is_ok() {
                    pending.push(name);
                } else if !entry.is_folder && is_temporary(&name) && entry.modified.is_some_and(|at| at < before) {
                    let done = self.client.tell(OPERATION, &Ask::new("DELETE", &name), &[200, 204, 404]).await;
                    done.map_err(|error| error.store(self))?;
                    swept += 1;
                }
            }
        }
        if self.uploads.is_some() {
            swept += sweep_uploads(self, prefix, before).await?;
        }
        Ok(swept)
    }

    async fn now(&self) -> Result<Timestamp> {
        const OPERATION: &str = "asking the time of";
        let answer = self.client.send(OPERATION, &Ask::new("OPTIONS", "")).await.map_err(|error| error.store(self))?;
        let date = answer.headers().get(header::DATE).and_then(|date| http_date(date.to_str().ok()?));
        date.ok_or_else(|| Error::new(ErrorKind::Protocol, OPERATION).store(self).because("the answer has no `Date`"))
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        self.uploads.as_ref().filter(|_| self.seen.takes_parts).map(|_| self as &dyn Multipart)
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
impl Copying for WebdavStore {
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>> {
        self.refuse_lock("copying to", to, locked_until)?;
        self.duplicate(from, to).await.map_err(self.named(to))?;
        Ok(None)
    }
}

#[async_trait]
impl Deletion for WebdavStore {
    async fn delete(&self, object: &ObjectRef) -> Result<()> {
        const OPERATION: &str = "deleting";
        self.no_versions(OPERATION, object)?;
        let ask = Ask::new("DELETE", object.key.as_str());
        self.client.tell(OPERATION, &ask, &[200, 204, 404]).await.map_err(self.named(&object.key))
    }
}

impl fmt::Display for WebdavStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the WebDAV server {}", self.address)
    }
}

impl fmt::Debug for WebdavStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebdavStore({:?}, {:?})", self.client.address(""), self.access)
    }
}

use ErrorKind::{NotFound, Unavailable};

const LATER: Retry = Retry::Later { after: None };

/// The length of an answer, by its own header or as that of its range.
fn promised_bytes(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name)?.to_str().ok();
    if let Some(bytes) = text(header::CONTENT_LENGTH) {
        return bytes.parse().ok();
    }
    let (first, last) = text(header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split('/').next()?.split_once('-')?;
    last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
}

/// No more than the first `wanted` bytes of `content`.
fn first(content: ByteStream, wanted: u64) -> ByteStream {
    stream::unfold((content, wanted), |(mut content, left)| async move {
        if left == 0 {
            return None;
        }
        let piece = content.next().await?;
        let piece = piece.map(|mut piece| piece.split_to(piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))));
        let left = left - piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Some((piece, (content, left)))
    })
    .boxed()
}

/// A place has far fewer folders: a few for each chain. A server that goes on naming new ones is not followed for ever.
const FOLDERS_MAX: usize = 200_000;

fn is_temporary(name: &str) -> bool {
    name.rsplit_once('~').is_some_and(|(key, random)| {
        random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()) && key.parse::<ObjectKey>().is_ok()
    })
}

/// Enough chance that no two writers choose one temporary name.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
