//! The steps of a probe.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{Finding, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyPrefix, ObjectKey};
use crate::store::{Body, ByteRange, ObjectRef, ObjectStore, PutOptions};

const CREATORS: u8 = 6;

/// The place, opened in three ways.
#[derive(Clone, Copy)]
pub(super) struct Stores<'a> {
    /// As a run has it.
    pub(super) agent: &'a dyn ObjectStore,
    /// As the keeper has it.
    pub(super) keeper: &'a dyn ObjectStore,
    /// Without anything that we do about what it does not do: no look before a write, no second attempt.
    pub(super) bare: &'a dyn ObjectStore,
}

struct Probe<'a> {
    stores: Stores<'a>,
    folder: KeyPrefix,
}

pub(super) async fn run(
    stores: Stores<'_>,
    prefix: &KeyPrefix,
    nonce: &str,
    now: Timestamp,
    lock: bool,
) -> Result<Verdict> {
    let invalid = |cause| Error::new(ErrorKind::Config, "probing").store(stores.agent).because(cause);
    let folder = prefix.below("probe").and_then(|folder| folder.below(nonce)).map_err(invalid)?;
    // Here it shows whether anyone is there at all.
    let theirs = stores.agent.now().await?;
    let probe = Probe { stores, folder };
    let mut verdict = Verdict {
        at: now,
        read_back: probe.read_back().await.into(),
        ranges: probe.ranges().await.into(),
        create_only: probe.create_only().await.into(),
        one_creator: probe.one_creator().await.into(),
        listing: probe.listing().await.into(),
        checks_content: probe.checks_content().await.into(),
        parts: probe.parts().await.into(),
        refuses_taken: probe.refuses_taken().await.into(),
        lock: if lock { probe.lock(theirs).await.into() } else { Finding::Unknown("it was not asked for".to_owned()) },
        delete_refused: probe.delete_refused().await.into(),
        clock_ahead_s: theirs.duration_since(now).as_secs(),
    };
    if verdict.one_creator == Finding::Yes && matches!(verdict.refuses_taken, Finding::No(_)) {
        // Whoever looks before another one has written wins as well, if not this time.
        verdict.one_creator = verdict.refuses_taken.clone();
    }
    probe.clean().await;
    Ok(verdict)
}

/// How a step ended before it saw what it wanted to see.
enum Ended {
    No(String),
    Unknown(String),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        let mut said = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            said = format!("{said}: {cause}");
        }
        match error.kind {
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Denied | ErrorKind::Local => Self::Unknown(said),
            _ => Self::No(said),
        }
    }
}

impl From<Result<(), Ended>> for Finding {
    fn from(ended: Result<(), Ended>) -> Self {
        match ended {
            Ok(()) => Self::Yes,
            Err(Ended::No(why)) => Self::No(why),
            Err(Ended::Unknown(why)) => Self::Unknown(why),
        }
    }
}

fn no<T>(why: &str) -> Result<T, Ended> {
    Err(Ended::No(why.to_owned()))
}

fn content() -> Bytes {
    (0..=255).cycle().take(3000).collect::<Vec<u8>>().into()
}

impl Probe<'_> {
    fn key(&self, name: &str) -> Result<ObjectKey, Ended> {
        self.folder.key(name).map_err(|cause| Ended::Unknown(cause.to_string()))
    }

    async fn read(&self, key: &ObjectKey, range: ByteRange) -> Result<Vec<u8>, Ended> {
        let pieces: Vec<Bytes> = self.stores.agent.get(&key.clone().into(), range).await?.try_collect().await?;
        Ok(pieces.concat())
    }

    async fn read_back(&self) -> Result<(), Ended> {
        let key = self.key("object")?;
        self.stores.agent.put(&key, &Body::from_bytes(content()), &PutOptions::CREATE).await?;
        if self.read(&key, ByteRange::All).await? == content() { Ok(()) } else { no("other bytes came back") }
    }

    async fn ranges(&self) -> Result<(), Ended> {
        let range = ByteRange::From { offset: 1000, bytes: 500 };
        let held = self.read(&self.key("object")?, range).await?;
        if content().get(1000..1500) == Some(&held[..]) { Ok(()) } else { no("other bytes came back") }
    }

    async fn create_only(&self) -> Result<(), Ended> {
        let key = self.key("object")?;
        match self.stores.agent.put(&key, &Body::from_bytes(&b"another"[..]), &PutOptions::CREATE).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return no("an object was replaced"),
        }
        if self.read(&key, ByteRange::All).await? == content() { Ok(()) } else { no("an object was replaced") }
    }

    async fn one_creator(&self) -> Result<(), Ended> {
        let key = self.key("race")?;
        let bodies: Vec<_> = (0..CREATORS).map(|creator| Body::from_bytes(vec![creator; 2000])).collect();
        let ends = join_all(bodies.iter().map(|body| self.stores.agent.put(&key, body, &PutOptions::CREATE))).await;
        let mut winners = 0;
        for end in ends {
            match end {
                Ok(_) => winners += 1,
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        match winners {
            1 => Ok(()),
            _ => no(&format!("{winners} of {CREATORS} were told that they had won")),
        }
    }

    async fn listing(&self) -> Result<(), Ended> {
        let mut found: Vec<_> = self.stores.agent.list(&self.folder).map_ok(|meta| meta.key).try_collect().await?;
        found.sort();
        if found == [self.key("object")?, self.key("race")?] {
            Ok(())
        } else {
            no("what is there is not what is listed")
        }
    }

    async fn parts(&self) -> Result<(), Ended> {
        let Some(multipart) = self.stores.agent.multipart() else { return no("this kind of store has none") };
        let upload = multipart.begin(&self.key("parts")?, &PutOptions::CREATE).await?;
        let sent = multipart.put_part(&upload, 1, &Body::from_bytes(content())).await?;
        let held = multipart.parts(&upload).await?;
        let listed = matches!(held.as_slice(), [part] if part.etag == sent.etag && part.bytes == sent.bytes);
        if !listed {
            multipart.abort(&upload).await?;
            return no("the parts are not listed as they were sent");
        }
        multipart.complete(&upload, &[sent]).await?;
        if self.read(&self.key("parts")?, ByteRange::All).await? == content() {
            Ok(())
        } else {
            no("other bytes came back")
        }
    }

    /// What the store itself does when it is told to create what is there: objects, and uploads that are completed.
    async fn refuses_taken(&self) -> Result<(), Ended> {
        let (key, bare) = (self.key("object")?, self.stores.bare);
        match bare.put(&key, &Body::from_bytes(&b"another"[..]), &PutOptions::CREATE).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return no("it replaces an object though it is told not to, so names are looked at before"),
        }
        let key = self.key("parts")?;
        let (Some(multipart), Ok(_)) = (bare.multipart(), self.stores.agent.head(&key.clone().into()).await) else {
            return Ok(());
        };
        let upload = multipart.begin(&key, &PutOptions::CREATE).await?;
        let part = multipart.put_part(&upload, 1, &Body::from_bytes(&b"another"[..])).await?;
        let completed = multipart.complete(&upload, &[part]).await;
        // If it was completed there is nothing to give up, which is no error.
        let _ = multipart.abort(&upload).await;
        match completed {
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => no("completing an upload replaces an object, so names are looked at before"),
        }
    }

    /// What the store does with bytes that are not what was announced: damage on the way looks like that.
    async fn checks_content(&self) -> Result<(), Ended> {
        let key = self.key("damaged")?;
        let damaged = Body::with_digest(content(), *Body::from_bytes(&b"announced"[..]).sha256());
        match self.stores.bare.put(&key, &damaged, &PutOptions::CREATE).await {
            Ok(_) => return no("it takes bytes that are not what their checksum says"),
            Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Throttled) => {
                return Err(error.into());
            }
            Err(_) => {}
        }
        match self.stores.agent.head(&key.into()).await {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => no("it refuses bytes that are not what their checksum says, and keeps them"),
        }
    }

    async fn lock(&self, theirs: Timestamp) -> Result<(), Ended> {
        let key = self.key("locked")?;
        let until = theirs.checked_add(SignedDuration::from_mins(1)).map_err(|error| Ended::No(error.to_string()))?;
        let options = PutOptions { locked_until: Some(until), ..PutOptions::CREATE };
        let version = self.stores.agent.put(&key, &Body::from_bytes(content()), &options).await?.version;
        let object = ObjectRef { key, version };
        let Some(versions) = self.stores.agent.versions() else { return no("this kind of store has none") };
        let said = versions.locked_until(&object).await?;
        if said.is_none_or(|said| said.as_second() < until.as_second()) {
            return no("the store took the date and forgot it");
        }
        let Some(deletion) = self.stores.keeper.deletion() else { return no("deleting cannot be tried") };
        match deletion.delete(&object).await {
            Err(error) if matches!(error.kind, ErrorKind::Locked | ErrorKind::Denied) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return no("a locked version was deleted"),
        }
        // Of this version a credential of least rights may not even ask.
        self.stores.agent.head(&object.key.into()).await?;
        Ok(())
    }

    async fn delete_refused(&self) -> Result<(), Ended> {
        let Some(deletion) = self.stores.keeper.deletion() else { return Ok(()) };
        let object = ObjectRef::from(self.key("object")?);
        match deletion.delete(&object).await {
            Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Locked) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => no("the credential deleted an object"),
        }
    }

    /// Removes what can be removed. What cannot is harmless.
    async fn clean(&self) {
        let Some(deletion) = self.stores.keeper.deletion() else { return };
        for name in ["object", "race", "parts", "damaged"] {
            if let Ok(key) = self.folder.key(name) {
                let _ = deletion.delete(&key.into()).await;
            }
        }
    }
}
