//! What stands between the agent and every store: so many requests at once, and another attempt where one may help.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::SemaphorePermit;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyPrefix, ObjectKey};
use crate::lanes::Lanes;
use crate::proof;
use crate::retry::{Attempts, retry};
use crate::settings::Policy;
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore,
    ObjectVersion, Part, PartLimits, PutOptions, Sha256Digest, Upload, Versions, lasts_until,
};

/// A store with retries and a limit on requests.
pub(crate) struct Guarded {
    store: Arc<dyn ObjectStore>,
    policy: Policy,
    lanes: Lanes,
}

impl Guarded {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, policy: &Policy) -> Self {
        let lanes = Lanes::new(policy.requests_max.min(store.limits().requests_max));
        Self { store, policy: policy.clone(), lanes }
    }

    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.lanes.enter().await
    }

    /// Whether an object is locked as long as it is to be.
    async fn is_locked(&self, meta: &ObjectMeta, until: Option<Timestamp>) -> bool {
        let Some(until) = until else { return true };
        let Some(versions) = self.store.versions() else { return false };
        let object = ObjectRef { key: meta.key.clone(), version: meta.version.clone() };
        let said = versions.locked_until(&object).await.ok().flatten();
        lasts_until(said, until)
    }

    fn inner_multipart(&self) -> Result<&dyn Multipart> {
        self.store.multipart().ok_or_else(|| Error::new(ErrorKind::Unsupported, "sending parts").store(self))
    }

    fn inner_versions(&self) -> Result<&dyn Versions> {
        self.store.versions().ok_or_else(|| Error::new(ErrorKind::Unsupported, "reading versions").store(self))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Guarded {
    fn limits(&self) -> Limits {
        Limits { requests_max: self.policy.requests_max, ..self.store.limits() }
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let slot = self.slot().await;
            let mut done = self.store.put(key, body, options).await;
            let slot = self.lanes.judge(slot, done.as_ref().err());
            if attempts.is_repeated() && is(&done, ErrorKind::AlreadyExists) {
                // Perhaps what is there is ours, and only its reply was lost.
                if let Ok(Some(ours)) = proof::holds(&*self.store, key, body.len(), body.sha256()).await
                    && self.is_locked(&ours, options.locked_until).await
                {
                    done = Ok(ours);
                }
            }
            drop(slot);
            match done {
                Ok(meta) => return Ok(meta),
                Err(failed) => attempts.wait_after(failed).await?,
            }
        }
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        let content = retry(&self.policy, || async {
            let _slot = self.slot().await;
            self.store.get(object, range).await
        })
        .await?;
        Ok(resumed(self.store.clone(), self.policy.clone(), object.clone(), range, content))
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        retry(&self.policy, || async {
            let _slot = self.slot().await;
            self.store.head(object).await
        })
        .await
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        persistent(&self.policy, self.store.list(prefix))
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
        retry(&self.policy, || self.store.sweep(prefix, before)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        retry(&self.policy, || self.store.now()).await
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
impl Multipart for Guarded {
    fn part_limits(&self) -> PartLimits {
        let nothing = PartLimits { part_bytes_min: 0, part_bytes_max: 0, parts_max: 0 };
        self.store.multipart().map_or(nothing, Multipart::part_limits)
    }

    fn parts_are_known_by_size(&self) -> bool {
        self.store.multipart().is_some_and(Multipart::parts_are_known_by_size)
    }

    async fn begin(&self, key: &ObjectKey, options: &PutOptions) -> Result<Upload> {
        let inner = self.inner_multipart()?;
        retry(&self.policy, || async {
            let _slot = self.slot().await;
            inner.begin(key, options).await
        })
        .await
    }

    async fn put_part(&self, upload: &Upload, number: u32, body: &Body) -> Result<Part> {
        let inner = self.inner_multipart()?;
        retry(&self.policy, || async {
            let slot = self.slot().await;
            let done = inner.put_part(upload, number, body).await;
            drop(self.lanes.judge(slot, done.as_ref().err()));
            done
        })
        .await
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let inner = self.inner_multipart()?;
        retry(&self.policy, || inner.parts(upload)).await
    }

    async fn complete(&self, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta> {
        let inner = self.inner_multipart()?;
        let mut attempts = Attempts::new(&self.policy);
        loop {
            let slot = self.slot().await;
            let mut done = inner.complete(upload, parts).await;
            if attempts.is_repeated()
                && (is(&done, ErrorKind::NotFound) || is(&done, ErrorKind::AlreadyExists))
                && let Ok(key) = upload.key.parse()
                && let Ok(Some(ours)) = proof::holds_parts(&*self.store, &key, parts).await
                && self.is_locked(&ours, upload.locked_until).await
            {
                done = Ok(ours);
            }
            drop(slot);
            match done {
                Ok(meta) => return Ok(meta),
                Err(failed) => attempts.wait_after(failed).await?,
            }
        }
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        let inner = self.inner_multipart()?;
        retry(&self.policy, || inner.abort(upload)).await
    }

    fn unfinished<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<Upload>> {
        match self.inner_multipart() {
            Ok(inner) => persistent(&self.policy, inner.unfinished(prefix)),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Copying for Guarded {
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>> {
        let inner = self.store.copying();
        let inner = inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "copying to").store(self))?;
        retry(&self.policy, || async {
            let _slot = self.slot().await;
            inner.copy(from, to, locked_until).await
        })
        .await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Versions for Guarded {
    fn list_versions<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectVersion>> {
        match self.inner_versions() {
            Ok(inner) => persistent(&self.policy, inner.list_versions(prefix)),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn locked_until(&self, object: &ObjectRef) -> Result<Option<Timestamp>> {
        let inner = self.inner_versions()?;
        retry(&self.policy, || inner.locked_until(object)).await
    }

    async fn hidden_for(&self, prefix: &KeyPrefix) -> Result<Option<u32>> {
        let inner = self.inner_versions()?;
        retry(&self.policy, || inner.hidden_for(prefix)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Deletion for Guarded {
    async fn delete(&self, object: &ObjectRef) -> Result<()> {
        let inner = self.store.deletion();
        let inner = inner.ok_or_else(|| Error::new(ErrorKind::Unsupported, "deleting").store(self))?;
        retry(&self.policy, || async {
            let _slot = self.slot().await;
            inner.delete(object).await
        })
        .await
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").field(&self.store).finish()
    }
}

fn is<T>(done: &Result<T>, kind: ErrorKind) -> bool {
    done.as_ref().is_err_and(|error| error.kind == kind)
}

/// A listing that polls on over failures that pass: the inner stream then asks for the same page again.
fn persistent<'a, T: Send + 'a>(policy: &Policy, items: BoxStream<'a, Result<T>>) -> BoxStream<'a, Result<T>> {
    let state = Some((items, Attempts::new(policy)));
    stream::unfold(state, |state| async move {
        let (mut items, mut attempts) = state?;
        loop {
            match items.next().await? {
                Ok(item) => {
                    if attempts.is_repeated() {
                        attempts.advanced();
                    }
                    return Some((Ok(item), Some((items, attempts))));
                }
                Err(failed) => {
                    if let Err(given_up) = attempts.wait_after(failed).await {
                        return Some((Err(given_up), None));
                    }
                }
            }
        }
    })
    .boxed()
}

struct Reading {
    content: Option<ByteStream>,
    attempts: Attempts,
    offset: u64,
    end: u64,
}

/// A body that goes on where the line broke.
fn resumed(
    store: Arc<dyn ObjectStore>,
    policy: Policy,
    object: ObjectRef,
    range: ByteRange,
    content: ByteStream,
) -> ByteStream {
    let (offset, end) = match range {
        ByteRange::All => (0, u64::MAX),
        ByteRange::From { offset, bytes } => (offset, offset.saturating_add(bytes)),
    };
    let reading = Reading { content: Some(content), attempts: Attempts::new(&policy), offset, end };
    stream::unfold(Some(reading), move |reading| {
        let (store, object) = (store.clone(), object.clone());
        async move {
            let mut reading = reading?;
            loop {
                let failed = match &mut reading.content {
                    Some(content) => match content.next().await? {
                        Ok(piece) => {
                            reading.offset += piece.len() as u64;
                            if reading.attempts.is_repeated() {
                                reading.attempts.advanced();
                            }
                            return Some((Ok(piece), Some(reading)));
                        }
                        Err(failed) => failed,
                    },
                    None if reading.offset >= reading.end => return None,
                    None => {
                        let rest = ByteRange::From { offset: reading.offset, bytes: reading.end - reading.offset };
                        match store.get(&object, rest).await {
                            Ok(content) => {
                                reading.content = Some(content);
                                continue;
                            }
                            Err(failed) => failed,
                        }
                    }
                };
                reading.content = None;
                if let Err(given_up) = reading.attempts.wait_after(failed).await {
                    return Some((Err(given_up), None));
                }
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests;
