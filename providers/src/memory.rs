//! A store in memory for tests, stricter than any real one: it keeps versions and locks, lists in a shuffled order,
//! gives tags that mean nothing, and holds to every rule about parts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyPrefix, ObjectKey};
use crate::settings::Access;
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore,
    ObjectVersion, Part, PartLimits, PutMode, PutOptions, Sha256Digest, Upload, Versions,
};

/// Bytes of one piece of a body that is read.
const PIECE_BYTES: usize = 1 << 16;

/// A store in memory. Clones share what is stored.
#[derive(Clone)]
pub struct MemoryStore {
    access: Access,
    part_limits: PartLimits,
    copies: bool,
    state: Arc<Mutex<State>>,
}

struct State {
    objects: BTreeMap<ObjectKey, Vec<Version>>,
    uploads: BTreeMap<String, Pending>,
    random: u64,
    now: Timestamp,
}

#[derive(Clone)]
struct Version {
    id: String,
    content: Option<Bytes>,
    sha256: Option<Sha256Digest>,
    modified: Timestamp,
    locked_until: Option<Timestamp>,
}

struct Pending {
    key: ObjectKey,
    options: PutOptions,
    begun: Timestamp,
    parts: BTreeMap<u32, (Part, Bytes)>,
}

impl MemoryStore {
    /// An empty store whose accidents (listing order, tags) follow from `seed`, and whose clock stands at `now`.
    pub fn new(seed: u64, access: Access, now: Timestamp) -> Self {
        let state = State { objects: BTreeMap::new(), uploads: BTreeMap::new(), random: seed | 1, now };
        let part_limits = PartLimits { part_bytes_min: 5 << 20, part_bytes_max: 5 << 30, parts_max: 10_000 };
        Self { access, part_limits, copies: true, state: Arc::new(Mutex::new(state)) }
    }

    /// The same with other rules for parts, so that tests need not move much.
    #[must_use]
    pub fn with_part_limits(mut self, part_limits: PartLimits) -> Self {
        self.part_limits = part_limits;
        self
    }

    /// The same as one of a kind that cannot copy.
    #[must_use]
    pub fn without_copying(mut self) -> Self {
        self.copies = false;
        self
    }

    /// The same store, opened for someone else.
    #[must_use]
    pub fn opened_for(&self, access: Access) -> Self {
        Self { access, ..self.clone() }
    }

    /// Moves the store's clock.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = now;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: ErrorKind, operation: &'static str, key: &ObjectKey) -> Error {
        Error::new(kind, operation).key(key).store(self)
    }

    fn find(&self, operation: &'static str, object: &ObjectRef) -> Result<Version> {
        let state = self.state();
        let versions = state.objects.get(&object.key).map_or(&[][..], Vec::as_slice);
        let found = match &object.version {
            None => versions.last(),
            Some(id) => versions.iter().find(|version| version.id == *id),
        };
        found
            .filter(|version| version.content.is_some())
            .cloned()
            .ok_or_else(|| self.error(ErrorKind::NotFound, operation, &object.key))
    }

    fn shuffled<T>(&self, mut items: Vec<T>) -> Vec<T> {
        let mut state = self.state();
        for end in (1..items.len()).rev() {
            let other = state.random() % (end as u64 + 1);
            items.swap(end, usize::try_from(other).unwrap_or(0));
        }
        items
    }
}

impl State {
    // xorshift64*: no more chance than a test needs.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn store(
        &mut self,
        key: &ObjectKey,
        content: Bytes,
        sha256: Option<Sha256Digest>,
        options: &PutOptions,
    ) -> Option<ObjectMeta> {
        let id = format!("v{:016x}", self.random());
        let modified = self.now;
        let versions = self.objects.entry(key.clone()).or_default();
        if options.mode == PutMode::Create && versions.last().is_some_and(|newest| newest.content.is_some()) {
            return None;
        }
        let version = Version { id, content: Some(content), sha256, modified, locked_until: options.locked_until };
        let meta = version.meta(key);
        versions.push(version);
        Some(meta)
    }
}

impl Version {
    fn meta(&self, key: &ObjectKey) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            bytes: self.content.as_ref().map_or(0, |content| content.len() as u64),
            version: Some(self.id.clone()),
            sha256: self.sha256,
            modified: Some(self.modified),
        }
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn limits(&self) -> Limits {
        Limits { put_bytes_max: 5 << 30, requests_max: 64 }
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        let content = body.read().await.map_err(|cause| self.error(ErrorKind::Local, "storing", key).because(cause))?;
        if Body::from_bytes(content.clone()).sha256() != body.sha256() {
            return Err(self.error(ErrorKind::Corrupt, "storing", key));
        }
        self.state()
            .store(key, content, Some(*body.sha256()), options)
            .ok_or_else(|| self.error(ErrorKind::AlreadyExists, "storing", key))
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        let content = self.find("reading", object)?.content.unwrap_or_default();
        let (start, end) = match range {
            ByteRange::All => (0, content.len()),
            ByteRange::From { offset, bytes } => {
                let clamp = |at: u64| usize::try_from(at).map_or(content.len(), |at| at.min(content.len()));
                (clamp(offset), clamp(offset.saturating_add(bytes)))
            }
        };
        let wanted = content.slice(start..end);
        let pieces: Vec<_> = wanted.chunks(PIECE_BYTES).map(|piece| Ok(wanted.slice_ref(piece))).collect();
        Ok(stream::iter(pieces).boxed())
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        Ok(self.find("looking at", object)?.meta(&object.key))
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        let found: Vec<_> = self
            .state()
            .objects
            .iter()
            .filter(|(key, _)| prefix.strip(key).is_some())
            .filter_map(|(key, versions)| {
                versions.last().filter(|newest| newest.content.is_some()).map(|newest| newest.meta(key))
            })
            .collect();
        stream::iter(self.shuffled(found)).map(Ok).boxed()
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
        let mut state = self.state();
        let all = state.uploads.len();
        state.uploads.retain(|_, upload| prefix.strip(&upload.key).is_none() || upload.begun >= before);
        Ok((all - state.uploads.len()) as u64)
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.state().now)
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        Some(self)
    }

    fn copying(&self) -> Option<&dyn Copying> {
        if self.copies { Some(self) } else { None }
    }

    fn versions(&self) -> Option<&dyn Versions> {
        Some(self)
    }

    fn deletion(&self) -> Option<&dyn Deletion> {
        match self.access {
            Access::Agent => None,
            Access::Keeper => Some(self),
        }
    }
}

#[async_trait]
impl Multipart for MemoryStore {
    fn part_limits(&self) -> PartLimits {
        self.part_limits
    }

    async fn begin(&self, key: &ObjectKey, options: &PutOptions) -> Result<Upload> {
        if options.mode == PutMode::Overwrite {
            return Err(self.error(ErrorKind::Unsupported, "beginning", key));
        }
        let mut state = self.state();
        let (id, begun) = (format!("u{:016x}", state.random()), state.now);
        state
            .uploads
            .insert(id.clone(), Pending { key: key.clone(), options: *options, begun, parts: BTreeMap::new() });
        Ok(Upload { key: key.to_string(), id, begun: Some(begun), locked_until: options.locked_until })
    }

    async fn put_part(&self, upload: &Upload, number: u32, body: &Body) -> Result<Part> {
        let fail = |kind| Error::new(kind, "storing a part of").store(self);
        if number == 0 || number > self.part_limits.parts_max || body.len() > self.part_limits.part_bytes_max {
            return Err(fail(ErrorKind::Protocol).because(format!("part {number} is outside of the limits")));
        }
        let content = body.read().await.map_err(|cause| fail(ErrorKind::Local).because(cause))?;
        let mut state = self.state();
        let etag = format!("\"t{:x}\"", state.random());
        let part = Part { number, bytes: body.len(), etag, sha256: Some(*body.sha256()) };
        let pending = state.uploads.get_mut(&upload.id).ok_or_else(|| fail(ErrorKind::NotFound))?;
        pending.parts.insert(number, (part.clone(), content));
        Ok(part)
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let state = self.state();
        let pending = state.uploads.get(&upload.id);
        let pending = pending.ok_or_else(|| Error::new(ErrorKind::NotFound, "listing the parts of").store(self))?;
        Ok(pending.parts.values().map(|(part, _)| part.clone()).collect())
    }

    async fn complete(&self, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta> {
        let fail = |kind| Error::new(kind, "completing").store(self);
        let mut state = self.state();
        let pending = state.uploads.get(&upload.id).ok_or_else(|| fail(ErrorKind::NotFound))?;
        let mut content = BytesMut::new();
        for (at, part) in parts.iter().enumerate() {
            let held = pending.parts.get(&part.number).filter(|(held, _)| held.etag == part.etag);
            let (held, bytes) =
                held.ok_or_else(|| fail(ErrorKind::Protocol).because("a part is not as it was named"))?;
            let rising = at == 0 || parts.get(at - 1).is_some_and(|former| former.number < part.number);
            let large = at + 1 == parts.len() || held.bytes >= self.part_limits.part_bytes_min;
            if !rising || !large {
                return Err(fail(ErrorKind::Protocol).because("parts must rise, and be large but for the last"));
            }
            content.extend_from_slice(bytes);
        }
        let (key, options) = (pending.key.clone(), pending.options);
        let stored = state.store(&key, content.freeze(), None, &options);
        let stored = stored.ok_or_else(|| fail(ErrorKind::AlreadyExists).key(&key))?;
        state.uploads.remove(&upload.id);
        Ok(stored)
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.state().uploads.remove(&upload.id);
        Ok(())
    }

    fn unfinished<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<Upload>> {
        let found: Vec<_> = self
            .state()
            .uploads
            .iter()
            .filter(|(_, pending)| prefix.strip(&pending.key).is_some())
            .map(|(id, pending)| Upload {
                key: pending.key.to_string(),
                id: id.clone(),
                begun: Some(pending.begun),
                locked_until: None,
            })
            .collect();
        stream::iter(self.shuffled(found)).map(Ok).boxed()
    }
}

#[async_trait]
impl Copying for MemoryStore {
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>> {
        let content = self.find("copying", &from.clone().into())?.content.unwrap_or_default();
        let body = Body::from_bytes(content);
        self.put(to, &body, &PutOptions { locked_until, ..PutOptions::CREATE }).await?;
        Ok(Some(*body.sha256()))
    }
}

#[async_trait]
impl Versions for MemoryStore {
    fn list_versions<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectVersion>> {
        let mut found = Vec::new();
        for (key, versions) in self.state().objects.iter().filter(|(key, _)| prefix.strip(key).is_some()) {
            found.extend(versions.iter().map(|version| ObjectVersion {
                object: ObjectRef { key: key.clone(), version: Some(version.id.clone()) },
                bytes: version.meta(key).bytes,
                modified: version.modified,
                delete_marker: version.content.is_none(),
            }));
        }
        stream::iter(self.shuffled(found)).map(Ok).boxed()
    }

    async fn locked_until(&self, object: &ObjectRef) -> Result<Option<Timestamp>> {
        Ok(self.find("asking for the lock of", object)?.locked_until)
    }

    async fn hidden_for(&self, _prefix: &KeyPrefix) -> Result<Option<u32>> {
        Ok(None)
    }
}

#[async_trait]
impl Deletion for MemoryStore {
    async fn delete(&self, object: &ObjectRef) -> Result<()> {
        let mut state = self.state();
        let (id, now) = (format!("v{:016x}", state.random()), state.now);
        let Some(versions) = state.objects.get_mut(&object.key) else { return Ok(()) };
        match &object.version {
            None if versions.last().is_none_or(|newest| newest.content.is_none()) => {}
            None => versions.push(Version { id, content: None, sha256: None, modified: now, locked_until: None }),
            Some(gone) => {
                let locked = |version: &Version| version.locked_until.is_some_and(|until| until > now);
                if versions.iter().any(|version| version.id == *gone && locked(version)) {
                    return Err(self.error(ErrorKind::Locked, "deleting", &object.key));
                }
                versions.retain(|version| version.id != *gone);
            }
        }
        if versions.is_empty() {
            state.objects.remove(&object.key);
        }
        Ok(())
    }
}

impl fmt::Display for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({:?})", self.access)
    }
}
