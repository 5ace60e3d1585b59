//! A store that fails as it is told to, for tests: refusals, lost replies, bodies that break or are damaged.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::key::{KeyPrefix, ObjectKey};
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore,
    ObjectVersion, Part, PartLimits, PutOptions, Sha256Digest, Upload, Versions,
};

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The store refuses with this kind, for ever or for now.
    Refused(ErrorKind, Retry),
    /// The store does what it was asked to; the caller hears of a broken line.
    LostReply,
    /// A body that is read breaks after so many bytes; any other call fails.
    BrokenAfter(u64),
    /// One bit of the byte at this place of a body that is read is turned; any other call is as it should be.
    Damaged(u64),
}

/// One call of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The name of the method.
    pub method: &'static str,
    /// The key or prefix it is about; empty if none.
    pub about: &'a str,
    /// How many calls were made before.
    pub earlier: u64,
}

/// What goes wrong, call by call.
type Plan = Box<dyn Fn(&Call<'_>) -> Fault + Send + Sync>;

/// A store whose every call first asks what is to go wrong with it.
pub struct Faulty {
    store: Arc<dyn ObjectStore>,
    plan: Plan,
    calls: AtomicU64,
}

impl Faulty {
    /// Wraps `store`; `plan` is asked once for every call, and once for every listing.
    pub fn new(store: Arc<dyn ObjectStore>, plan: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) -> Self {
        Self { store, plan: Box::new(plan), calls: AtomicU64::new(0) }
    }

    /// How many calls were made so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn fault(&self, method: &'static str, about: &str) -> Fault {
        let earlier = self.calls.fetch_add(1, Ordering::SeqCst);
        (self.plan)(&Call { method, about, earlier })
    }

    async fn call<T>(&self, method: &'static str, about: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fault(method, about) {
            Fault::None | Fault::Damaged(_) => work.await,
            Fault::Refused(kind, retry) => Err(Error::new(kind, method).store(self).retry(retry)),
            Fault::LostReply => {
                work.await?;
                Err(self.broken(method))
            }
            Fault::BrokenAfter(_) => Err(self.broken(method)),
        }
    }

    /// A listing that fails once, and goes on when it is polled again.
    fn listing<'a, T: Send + 'a>(
        &self,
        method: &'static str,
        prefix: &KeyPrefix,
        items: BoxStream<'a, Result<T>>,
    ) -> BoxStream<'a, Result<T>> {
        let failure = match self.fault(method, prefix.as_str()) {
            Fault::None | Fault::Damaged(_) => return items,
            Fault::Refused(kind, retry) => Error::new(kind, method).store(self).retry(retry),
            Fault::LostReply | Fault::BrokenAfter(_) => self.broken(method),
        };
        stream::iter([Err(failure)]).chain(items).boxed()
    }

    fn broken(&self, method: &'static str) -> Error {
        let error = Error::new(ErrorKind::Unavailable, method).store(self).retry(Retry::Later { after: None });
        error.because("the line broke, as the test wants it")
    }

    fn parts(&self) -> Result<&dyn Multipart> {
        self.store.multipart().ok_or_else(|| Error::new(ErrorKind::Unsupported, "sending parts").store(self))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Faulty {
    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        self.call("put", key.as_str(), self.store.put(key, body, options)).await
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        let fault = self.fault("get", object.key.as_str());
        match fault {
            Fault::Refused(kind, retry) => return Err(Error::new(kind, "get").store(self).retry(retry)),
            Fault::LostReply => return Err(self.broken("get")),
            Fault::None | Fault::BrokenAfter(_) | Fault::Damaged(_) => {}
        }
        let content = self.store.get(object, range).await?;
        Ok(match fault {
            Fault::BrokenAfter(bytes) => broken_after(content, bytes, self.broken("get")),
            Fault::Damaged(at) => damaged(content, at),
            _ => content,
        })
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        self.call("head", object.key.as_str(), self.store.head(object)).await
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        self.listing("list", prefix, self.store.list(prefix))
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
        self.call("sweep", prefix.as_str(), self.store.sweep(prefix, before)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.call("now", "", self.store.now()).await
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        self.store.multipart().map(|_| self as _)
    }

    fn copying(&self) -> Option<&dyn Copying> {
        self.store.copying().map(|_| self as _)
    }

    fn versions(&self) -> Option<&dyn Versions> {
        self.store.versions().map(|_| self as _)
    }

    fn deletion(&self) -> Option<&dyn Deletion> {
        self.store.deletion().map(|_| self as _)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Multipart for Faulty {
    fn part_limits(&self) -> PartLimits {
        let nothing = PartLimits { part_bytes_min: 0, part_bytes_max: 0, parts_max: 0 };
        self.store.multipart().map_or(nothing, Multipart::part_limits)
    }

    fn parts_are_known_by_size(&self) -> bool {
        self.store.multipart().is_some_and(Multipart::parts_are_known_by_size)
    }

    async fn begin(&self, key: &ObjectKey, options: &PutOptions) -> Result<Upload> {
        self.call("begin", key.as_str(), self.parts()?.begin(key, options)).await
    }

    async fn put_part(&self, upload: &Upload, number: u32, body: &Body) -> Result<Part> {
        self.call("put_part", &upload.key, self.parts()?.put_part(upload, number, body)).await
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        self.call("parts", &upload.key, self.parts()?.parts(upload)).await
    }

    async fn complete(&self, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta> {
        self.call("complete", &upload.key, self.parts()?.complete(upload, parts)).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.call("abort", &upload.key, self.parts()?.abort(upload)).await
    }

    fn unfinished<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<Upload>> {
        match self.store.multipart() {
            Some(inner) => self.listing("unfinished", prefix, inner.unfinished(prefix)),
            None => stream::empty().boxed(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Copying for Faulty {
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>> {
        let inner = self.store.copying();
        let inner = inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "copy").store(self))?;
        self.call("copy", to.as_str(), inner.copy(from, to, locked_until)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Versions for Faulty {
    fn list_versions<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectVersion>> {
        match self.store.versions() {
            Some(inner) => self.listing("list_versions", prefix, inner.list_versions(prefix)),
            None => stream::empty().boxed(),
        }
    }

    async fn locked_until(&self, object: &ObjectRef) -> Result<Option<Timestamp>> {
        let inner = self.store.versions();
        let inner = inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "locked_until").store(self))?;
        self.call("locked_until", object.key.as_str(), inner.locked_until(object)).await
    }

    async fn hidden_for(&self, prefix: &KeyPrefix) -> Result<Option<u32>> {
        let inner = self.store.versions();
        let inner = inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "hidden_for").store(self))?;
        self.call("hidden_for", prefix.as_str(), inner.hidden_for(prefix)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Deletion for Faulty {
    async fn delete(&self, object: &ObjectRef) -> Result<()> {
        let inner = self.store.deletion();
        let inner = inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "delete").store(self))?;
        self.call("delete", object.key.as_str(), inner.delete(object)).await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.store).finish()
    }
}

fn broken_after(content: ByteStream, bytes: u64, failure: Error) -> ByteStream {
    stream::unfold(Some((content, bytes, failure)), |state| async move {
        let (mut content, left, failure) = state?;
        let piece = match content.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some((Err(error), None)),
        };
        match usize::try_from(left).ok().filter(|left| *left < piece.len()) {
            None => Some((Ok(piece.clone()), Some((content, left - piece.len() as u64, failure)))),
            Some(0) => Some((Err(failure), None)),
            Some(left) => Some((Ok(piece.slice(..left)), Some((stream::iter([Ok(piece)]).boxed(), 0, failure)))),
        }
    })
    .boxed()
}

fn damaged(content: ByteStream, at: u64) -> ByteStream {
    let mut begins = 0;
    content
        .map(move |piece| {
            let piece = piece?;
            let place = usize::try_from(at.wrapping_sub(begins)).ok();
            begins += piece.len() as u64;
            let mut changed = BytesMut::from(&piece[..]);
            match place.and_then(|place| changed.get_mut(place)) {
                Some(byte) => *byte ^= 1,
                None => return Ok(piece),
            }
            Ok(Bytes::from(changed))
        })
        .boxed()
}
