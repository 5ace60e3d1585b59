//! A prefix of a bucket in S3-compatible storage, through the vendor's own client.
//!
//! "S3-compatible" is a claim: what servers really do differs, and `providers/README.md` says how. This store therefore
//! proves the content of every object from the reply or by reading it back, looks before it creates, and asks whether
//! the bucket can lock before it relies on a lock.

mod classify;
mod client;
mod copy;
mod lock;
mod multipart;
mod pages;
mod tags;
mod versions;

use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::exact::exact;
use crate::key::{KeyPrefix, ObjectKey};
use crate::proof;
use crate::settings::{Access, Policy, S3Settings, Seen};
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore, PutMode,
    PutOptions, Versions, sweep_uploads,
};
use crate::transport::{self, Transport};

use classify::classify;
use client::KnownDigest;
use pages::{Page, pages};
use tags::Said;

/// A store in a bucket.
pub(crate) struct S3Store {
    settings: S3Settings,
    access: Access,
    seen: Seen,
    transport: Transport,
    client: OnceCell<Client>,
    lock_state: OnceCell<lock::LockState>,
}

impl S3Store {
    /// Opens without asking the server anything.
    pub(crate) fn new(settings: &S3Settings, access: Access, policy: &Policy, seen: Seen) -> Result<Self> {
        let transport = Transport::new(settings.ca_file.as_deref(), policy)?;
        let (client, lock_state) = (OnceCell::new(), OnceCell::new());
        let store = Self { settings: settings.clone(), access, seen, transport, client, lock_state };
        if settings.bucket.is_empty() {
            return Err(store.error(ErrorKind::Config, "opening the store").because("no bucket is named"));
        }
        Ok(store)
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| client::client(&self.settings, &self.transport)).await
    }

    fn bucket(&self) -> &str {
        &self.settings.bucket
    }

    /// The key as the bucket knows it.
    fn full(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.settings.prefix)
    }

    /// The key of a name in the bucket, if it is one of ours.
    fn own(&self, name: &str) -> Option<ObjectKey> {
        name.strip_prefix(self.settings.prefix.as_str())?.parse().ok()
    }

    fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, operation).store(self)
    }

    fn failed<E>(&self, operation: &'static str, key: &ObjectKey, cause: SdkError<E, HttpResponse>) -> Error
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        classify(operation, cause).key(key).store(self)
    }

    /// The same of a request for one object. Where a credential may list only what lies below its own prefix, servers do not
    /// say that an object is not there, but that access is denied; a listing of just this name tells.
    async fn failed_for<E>(
        &self,
        operation: &'static str,
        object: &ObjectRef,
        cause: SdkError<E, HttpResponse>,
    ) -> Error
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let error = self.failed(operation, &object.key, cause);
        if error.kind != ErrorKind::Denied || object.version.is_some() || !self.is_absent(&object.key).await {
            return error;
        }
        self.error(ErrorKind::NotFound, operation).key(&object.key)
    }

    /// Whether the listing says so; what cannot be listed may be there.
    async fn is_absent(&self, key: &ObjectKey) -> bool {
        let name = self.full(key);
        let request = self.client().await.list_objects_v2().bucket(self.bucket()).prefix(&name).max_keys(1);
        let listed = request.send().await;
        listed.is_ok_and(|listed| listed.contents().iter().all(|object| object.key() != Some(name.as_str())))
    }

    /// Refuses to create what is there. Not every server looks by itself, so we do, before it is asked to, unless it was
    /// seen to; a credential that may not look leaves it to the server.
    async fn refuse_taken(&self, operation: &'static str, key: &ObjectKey) -> Result<()> {
        match self.head(&key.clone().into()).await {
            Ok(_) => Err(self.error(ErrorKind::AlreadyExists, operation).key(key)),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A server that takes bodies that are not what their checksum says only repeats what it was told.
    fn believed<'a>(&self, checksum: Option<&'a str>) -> Option<&'a str> {
        checksum.filter(|_| self.seen.checks_content)
    }

    /// Where a reply proves nothing, the object is read back. `None`: it is not what was sent.
    async fn read_back(
        &self,
        said: Said,
        held: impl Future<Output = Result<Option<ObjectMeta>>>,
    ) -> Result<Option<ObjectMeta>> {
        if said == Said::Other { Ok(None) } else { held.await }
    }

    /// A store without versions may answer with the object it has, whatever version was asked for.
    fn refuse_other_version(&self, operation: &'static str, object: &ObjectRef, said: Option<&str>) -> Result<()> {
        if object.version.is_none() || object.version.as_deref() == said {
            return Ok(());
        }
        let error = self.error(ErrorKind::NotFound, operation).key(&object.key);
        Err(error.because("the store answered with another version"))
    }

    fn corrupt(&self, operation: &'static str, key: &ObjectKey) -> Error {
        self.error(ErrorKind::Corrupt, operation).key(key).because("the store holds other bytes than were sent to it")
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn limits(&self) -> Limits {
        Limits { put_bytes_max: 5 << 30, requests_max: 64 }
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        const OPERATION: &str = "storing";
        if options.locked_until.is_some() {
            self.refuse_without_lock(OPERATION, key).await?;
        }
        if options.mode == PutMode::Create && self.seen.looks_before(body.len()) {
            self.refuse_taken(OPERATION, key).await?;
        }
        let content = body.read().await;
        let content = content.map_err(|cause| self.error(ErrorKind::Local, OPERATION).key(key).because(cause))?;
        let lock = options.locked_until.map(|until| self.lock(until));
        let request = self.client().await.put_object().bucket(self.bucket()).key(self.full(key));
        let request = request
            .content_type("application/octet-stream")
            .checksum_sha256(tags::sha256_text(body.sha256()))
            .set_if_none_match((options.mode == PutMode::Create).then(|| "*".to_owned()))
            .set_object_lock_mode(lock.as_ref().map(|lock| lock.mode.clone()))
            .set_object_lock_retain_until_date(lock.map(|lock| lock.until))
            .body(content.clone().into());
        let sent = request.customize().interceptor(KnownDigest::new(body.sha256())).send().await;
        let reply = sent.map_err(|cause| lock::refused(self.failed(OPERATION, key, cause), options))?;
        let checksum = self.believed(reply.checksum_sha256());
        let said = tags::of_body(&content, body.sha256(), checksum, reply.e_tag());
        let version = reply.version_id().map(str::to_owned);
        let meta = ObjectMeta { key: key.clone(), bytes: body.len(), version, sha256: None, modified: None };
        let meta = match said {
            Said::Ours => meta,
            said => {
                let held = proof::holds(self, key, body.len(), body.sha256());
                self.read_back(said, held).await?.ok_or_else(|| self.corrupt(OPERATION, key))?
            }
        };
        if let Some(until) = options.locked_until {
            self.prove_locked(OPERATION, &meta.object(), until).await?;
        }
        Ok(meta)
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        const OPERATION: &str = "reading";
        let asked = match range {
            ByteRange::All => None,
            ByteRange::From { bytes: 0, .. } => return Ok(stream::empty().boxed()),
            ByteRange::From { offset, bytes } => Some(match offset.checked_add(bytes) {
                Some(end) if end < u64::MAX => format!("bytes={offset}-{}", end - 1),
                _ => format!("bytes={offset}-"),
            }),
        };
        let request = self.client().await.get_object().bucket(self.bucket()).key(self.full(&object.key));
        let reply = match request.set_version_id(object.version.clone()).set_range(asked).send().await {
            Ok(reply) => reply,
            // Beyond the end there is nothing to read.
            Err(cause) if cause.raw_response().is_some_and(|answer| answer.status().as_u16() == 416) => {
                return Ok(stream::empty().boxed());
            }
            Err(cause) => return Err(self.failed_for(OPERATION, object, cause).await),
        };
        self.refuse_other_version(OPERATION, object, reply.version_id())?;
        let named = |error: Error| error.key(&object.key).store(self);
        let wanted = promised_bytes(&reply, range).map_err(named)?;
        let place = self.error(ErrorKind::Unavailable, OPERATION).key(&object.key).retry(LATER);
        let pieces = stream::unfold(reply.body, |mut body| async move {
            let piece = body.next().await?;
            Some((piece.map_err(|cause| transport::describe(&cause)), body))
        });
        Ok(exact(pieces.boxed(), wanted, place))
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        let request = self.client().await.head_object().bucket(self.bucket()).key(self.full(&object.key));
        let reply = request.set_version_id(object.version.clone()).send().await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(cause) => return Err(self.failed_for("looking at", object, cause).await),
        };
        self.refuse_other_version("looking at", object, reply.version_id())?;
        let bytes = reply.content_length().and_then(|bytes| u64::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| {
            self.error(ErrorKind::Protocol, "looking at").key(&object.key).because("the answer has no size")
        })?;
        Ok(ObjectMeta {
            key: object.key.clone(),
            bytes,
            version: reply.version_id().map(str::to_owned),
            // Some servers echo whatever checksum the writer claimed.
            sha256: None,
            modified: reply.last_modified().and_then(timestamp),
        })
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        pages(self, "listing", move |token: Option<String>| async move {
            let request = self.client().await.list_objects_v2().bucket(self.bucket());
            let request = request.prefix(format!("{}{prefix}", self.settings.prefix));
            let reply = request.set_continuation_token(token).send().await;
            let reply = reply.map_err(|cause| classify("listing", cause).store(self))?;
            let found = reply.contents().iter().filter_map(|object| {
                let key = self.own(object.key()?).filter(|key| prefix.strip(key).is_some())?;
                Some(ObjectMeta {
                    key,
                    bytes: u64::try_from(object.size()?).ok()?,
                    version: None,
                    sha256: None,
                    modified: object.last_modified().and_then(timestamp),
                })
            });
            let more = reply.is_truncated().unwrap_or_default();
            let next = reply.next_continuation_token().filter(|_| more).map(str::to_owned);
            Ok(Page { items: found.collect(), next })
        })
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: Timestamp) -> Result<u64> {
        sweep_uploads(self, prefix, before).await
    }

    async fn now(&self) -> Result<Timestamp> {
        const OPERATION: &str = "asking the time of";
        // A name that no object can have: whatever the answer, it carries the server's time.
        let absent = format!("{}~clock", self.settings.prefix);
        let answer = self.client().await.head_object().bucket(self.bucket()).key(absent).send().await;
        let no_time = || self.error(ErrorKind::Protocol, OPERATION).because("the answer has no `Date`");
        let Err(failed) = answer else { return Err(no_time()) };
        let date = failed.raw_response().map(|answer| answer.headers().get("date").and_then(http_date));
        match date {
            Some(date) => date.ok_or_else(no_time),
            None => Err(classify(OPERATION, failed).store(self)),
        }
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        self.seen.takes_parts.then_some(self)
    }

    fn copying(&self) -> Option<&dyn Copying> {
        Some(self)
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

impl fmt::Display for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bucket {}", self.settings.bucket)?;
        if let Some(host) = self.settings.endpoint.as_ref().and_then(|url| url.host_str()) {
            write!(f, " at {host}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("settings", &self.settings).field("access", &self.access).finish()
    }
}

const LATER: Retry = Retry::Later { after: None };

/// How many bytes the answer must have; and that it is the range that was asked for.
fn promised_bytes(reply: &GetObjectOutput, range: ByteRange) -> Result<u64> {
    let strange = |why| Err(Error::new(ErrorKind::Protocol, "reading").because(why));
    let Some(bytes) = reply.content_length().and_then(|bytes| u64::try_from(bytes).ok()) else {
        return strange("the answer has no size");
    };
    let ByteRange::From { offset, bytes: wanted } = range else { return Ok(bytes) };
    let begins = reply.content_range().and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    if begins != Some(offset) || bytes > wanted {
        return strange("the answer is not the range that was asked for");
    }
    Ok(bytes)
}

fn timestamp(date: &aws_sdk_s3::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?).ok()
}

fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}
