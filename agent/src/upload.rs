//! Sending sealed objects from the spool to a store, several at once, each resumable in its middle.
//!
//! What the store says it has is believed only where it agrees with the bytes in the spool; a part or an object that is
//! missing or different is sent (again). Retries happen inside the store; nothing here tries twice.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use providers::{Body, ErrorKind, Multipart, ObjectKey, ObjectStore, Part, PutOptions, Retry, Upload};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::config::Size;
use crate::deliver::LockTerms;
use crate::format::Sha256;
use crate::ids::{SlotName, StoreName};
use crate::progress::Progress;
use crate::seal::PartDigests;
use crate::state::{State, StateError};

/// How long what is under way may take to finish when somebody asks to stop.
const FINISH_LIMIT: Duration = Duration::from_secs(20);

/// Smaller pieces than this are the smallest there are.
const LARGE_BYTES: u64 = 2 << 20;

/// So many objects are sent at once: enough to fill the line of an office, and each has one part in memory.
const PARALLEL_MAX: usize = 4;

/// Turns true when somebody asks to stop.
pub type Interrupt = watch::Receiver<bool>;

/// A store that generations are sent to.
#[derive(Clone, Debug)]
pub struct StoreTarget {
    /// What this machine remembers of it by: its name in the configuration, or that of the disk of a rotation.
    pub name: StoreName,
    /// Which disk it is, if it is one of a rotation.
    pub disk: Option<Inserted>,
    /// The store, opened for the agent.
    pub store: Arc<dyn ObjectStore>,
    /// A pack is finished at this size.
    pub pack_bytes: u64,
    /// Objects larger than this are sent in parts of this size, where the store can take parts.
    pub part_bytes: u64,
    /// How long its objects are locked, if they are.
    pub lock: Option<LockTerms>,
    /// Why nothing may be sent there, as its last probe found: it does not do what every backup relies on.
    pub unfit: Option<String>,
}

/// A disk of a rotation that is connected now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// The store, as the configuration calls it.
    pub store: StoreName,
    /// Which slot it is.
    pub slot: SlotName,
    /// Which one comes next.
    pub bring: SlotName,
}

impl StoreTarget {
    /// The store's name in the configuration.
    pub fn store_name(&self) -> &StoreName {
        self.disk.as_ref().map_or(&self.name, |disk| &disk.store)
    }

    /// The size of parts, within the limits of the store. Of a very large object they are larger.
    pub(crate) fn part_bytes(&self, multipart: &dyn Multipart) -> u64 {
        let limits = multipart.part_limits();
        self.part_bytes.clamp(limits.part_bytes_min, limits.part_bytes_max)
    }
}

/// An object in the spool.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// What the caller knows it by.
    pub id: i64,
    /// Its key in the store.
    pub key: ObjectKey,
    /// Its file.
    pub path: std::path::PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Those of its parts, if they are known.
    pub parts: Option<PartDigests>,
    /// Until when nobody can delete it, if it is to be locked.
    pub locked_until: Option<Timestamp>,
}

impl Spooled {
    /// A new object, locked if it is to be.
    fn options(&self) -> PutOptions {
        PutOptions { locked_until: self.locked_until, ..PutOptions::CREATE }
    }
}

/// Why an object is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The store refused or does not answer.
    #[error(transparent)]
    Store(#[from] providers::Error),
    /// The store does not take parts as it should.
    #[error(
        "the store does not take objects in parts as others do; run `offsite check`, which finds out what it really does: \
         then they are sent whole"
    )]
    NoParts(#[source] providers::Error),
    /// The line breaks whenever a large piece is sent.
    #[error(
        "the line broke each time before {} were through; over a bad line smaller packs get further: set pack = \"1 MiB\" for \
         this store",
        Size(*bytes)
    )]
    Breaks {
        /// Bytes of the piece.
        bytes: u64,
        /// How it ended the last time.
        #[source]
        source: providers::Error,
    },
    /// The spool cannot be read, or is not what was sealed.
    #[error("the spooled object {path} cannot be sent")]
    Spool {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The state cannot be used.
    #[error("the state cannot be used while sending")]
    State(#[from] StateError),
    /// An object of that name is there, and it is another.
    #[error(
        "`{key}` is in the store already, with other content: nothing was overwritten; see whether another machine \
             stores under this site's name"
    )]
    Foreign {
        /// The object.
        key: ObjectKey,
    },
    /// It is there, but not locked as it has to be.
    #[error(
        "`{key}` is in the store already, and not locked until {until}: it was put there before the configuration asked for a \
         lock"
    )]
    Unlocked {
        /// The object.
        key: ObjectKey,
        /// Until when it should be locked.
        until: Timestamp,
    },
    /// Somebody asked to stop.
    #[error("sending was interrupted; the next run goes on from here")]
    Interrupted,
    /// A contradiction inside the program.
    #[error("sending went wrong inside the program ({0}): please report this")]
    Internal(&'static str),
}

/// Sends what comes over `objects`, at most `parallel` at once, until the channel closes. `stored` is told of each object
/// that the store has. The first failure ends it; what is under way is given up and resumed another time.
///
/// When somebody asks to stop, no other object and no other part is begun, and those under way get a while to finish.
pub async fn send_all(
    target: &StoreTarget,
    state: &mut State,
    mut objects: mpsc::Receiver<Spooled>,
    interrupt: Interrupt,
    progress: &Arc<Progress>,
    mut stored: impl FnMut(&mut State, &Spooled) -> Result<(), UploadError>,
) -> Result<(), UploadError> {
    let parallel = target.store.limits().requests_max.clamp(1, PARALLEL_MAX);
    let mut sending: JoinSet<(Result<Spooled, UploadError>, Vec<u8>)> = JoinSet::new();
    // Each object has one part in memory, and leaves its buffer to the next one.
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    let mut open = true;
    let mut asked = interrupt.clone();
    let mut stop_at: Option<Instant> = None;
    while open || !sending.is_empty() {
        tokio::select! {
            object = objects.recv(), if open && sending.len() < parallel => match object {
                Some(object) => {
                    let (target, state, progress) = (target.clone(), state.reopen()?, Arc::clone(progress));
                    let interrupt = interrupt.clone();
                    let mut buffer = buffers.pop().unwrap_or_default();
                    sending.spawn(async move {
                        let sent = send(&target, state, &object, &mut buffer, &progress, &interrupt).await;
                        (sent.map(|()| object), buffer)
                    });
                }
                None => open = false,
            },
            Some(sent) = sending.join_next() => {
                let (sent, buffer) = sent.map_err(|_| UploadError::Internal("a task panicked"))?;
                buffers.push(buffer);
                match sent {
                    Ok(object) => stored(state, &object)?,
                    Err(UploadError::Interrupted) => {}
                    Err(error) => return Err(error),
                }
            }
            _ = asked.wait_for(|stop| *stop), if stop_at.is_none() => {
                objects.close();
                open = false;
                stop_at = Some(Instant::now() + FINISH_LIMIT);
            }
            () = sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => break,
        }
    }
    if stop_at.is_some() { Err(UploadError::Interrupted) } else { Ok(()) }
}

/// Sends one object, in parts if it is large and the store takes parts. An equal object that is there already is a success.
/// Parts are read into `buffer`.
pub async fn send(
    target: &StoreTarget,
    mut state: State,
    object: &Spooled,
    buffer: &mut Vec<u8>,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(), UploadError> {
    let store = target.store.as_ref();
    match store.multipart() {
        Some(multipart) if object.bytes > target.part_bytes => {
            send_parts(target, multipart, &mut state, object, buffer, progress, interrupt).await
        }
        _ => {
            // In memory it is one part, and not beside another.
            *buffer = Vec::new();
            let body = Body::from_file(object.path.clone(), object.bytes, object.sha256.0);
            let put = store.put(&object.key, &body, &object.options()).await;
            match put {
                Err(error) if error.kind == ErrorKind::AlreadyExists => same_object(store, object).await?,
                other => drop(other.map_err(|error| not_through(error, object.bytes))?),
            }
            progress.add_sent(object.bytes);
            Ok(())
        }
    }
}

/// Whether the store has the object, proved by its content.
pub async fn is_there(store: &dyn ObjectStore, object: &Spooled) -> Result<bool, UploadError> {
    Ok(providers::holds(store, &object.key, object.bytes, &object.sha256.0).await?.is_some())
}

/// Makes sure that the object of this name in the store is the one in the spool, proved by its content, and locked as long
/// as it has to be.
async fn same_object(store: &dyn ObjectStore, object: &Spooled) -> Result<(), UploadError> {
    if !is_there(store, object).await? {
        return Err(UploadError::Foreign { key: object.key.clone() });
    }
    check_lock(store, object).await
}

/// Makes sure that the object in the store, which is the one in the spool, is locked as long as it has to be.
async fn check_lock(store: &dyn ObjectStore, object: &Spooled) -> Result<(), UploadError> {
    let Some(until) = object.locked_until else { return Ok(()) };
    let said = match store.versions() {
        Some(versions) => versions.locked_until(&object.key.clone().into()).await?,
        None => None,
    };
    if providers::lasts_until(said, until) {
        Ok(())
    } else {
        Err(UploadError::Unlocked { key: object.key.clone(), until })
    }
}

/// Sends an object in parts. An upload that the store has forgotten is begun anew, once.
async fn send_parts(
    target: &StoreTarget,
    multipart: &dyn Multipart,
    state: &mut State,
    object: &Spooled,
    buffer: &mut Vec<u8>,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(), UploadError> {
    let mut anew = false;
    loop {
        let Some((upload, held)) = begin_or_resume(target, multipart, state, object).await? else {
            progress.add_sent(object.bytes);
            return Ok(());
        };
        let sent = send_missing(target, multipart, object, (&upload, &held), buffer, progress, interrupt).await;
        match sent {
            Ok(()) => return Ok(state.set_upload(&target.name, object.key.as_str(), None)?),
            Err(UploadError::Store(error)) if error.kind == ErrorKind::NotFound => {
                state.set_upload(&target.name, object.key.as_str(), None)?;
                // The reply to an earlier `complete` may have been lost: whether the object is there decides.
                if is_there(target.store.as_ref(), object).await? {
                    return check_lock(target.store.as_ref(), object).await;
                }
                if anew {
                    return Err(error.into());
                }
                tracing::info!(key = object.key.as_str(), "the store has forgotten an upload; it is begun anew");
                anew = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sends the parts of an upload that the store does not hold, and makes the object of all of them.
async fn send_missing(
    target: &StoreTarget,
    multipart: &dyn Multipart,
    object: &Spooled,
    (upload, held): (&Upload, &[Part]),
    buffer: &mut Vec<u8>,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(), UploadError> {
    let limits = multipart.part_limits();
    let size = target.part_bytes(multipart).max(object.bytes.div_ceil(u64::from(limits.parts_max.max(1))));
    let mut parts = Vec::new();
    for (number, offset) in (1_u32..).zip((0..object.bytes).step_by(usize::try_from(size).unwrap_or(usize::MAX))) {
        if *interrupt.borrow() {
            return Err(UploadError::Interrupted);
        }
        let content = read_part(&object.path, offset, size.min(object.bytes - offset), std::mem::take(buffer))?;
        let body = match object.parts.as_ref().and_then(|parts| parts.find(number, size)) {
            Some(sha256) => Body::with_digest(content.clone(), sha256.0),
            None => Body::from_bytes(content.clone()),
        };
        let is_sent = |part: &&Part| {
            let by_size = multipart.parts_are_known_by_size() && part.bytes == body.len();
            part.number == number && (by_size || part.is_of(&body))
        };
        let part = match held.iter().find(is_sent) {
            Some(part) => Part { sha256: Some(*body.sha256()), ..part.clone() },
            None => {
                let put = multipart.put_part(upload, number, &body).await;
                put.map_err(|error| match error.kind {
                    ErrorKind::Corrupt if Sha256::of(&content).0 != *body.sha256() => rotten(&object.path),
                    _ => not_through(error, body.len()),
                })?
            }
        };
        progress.add_sent(part.bytes);
        parts.push(part);
        drop(body);
        // Otherwise the transport has not yet let go of it, and the next part gets another one.
        if content.is_unique() {
            *buffer = content.into();
        }
    }
    match multipart.complete(upload, &parts).await {
        Err(error) if error.kind == ErrorKind::AlreadyExists => same_object(target.store.as_ref(), object).await,
        other => other.map(|_| ()).map_err(UploadError::from),
    }
}

/// The upload that an earlier run began, with the parts the store holds of it; or a new one, recorded before the first
/// part is sent; or nothing, if the object turns out to be there.
async fn begin_or_resume(
    target: &StoreTarget,
    multipart: &dyn Multipart,
    state: &mut State,
    object: &Spooled,
) -> Result<Option<(Upload, Vec<Part>)>, UploadError> {
    let recorded = state.upload(&target.name, object.key.as_str())?;
    if let Some(upload) = recorded.and_then(|text| serde_json::from_str::<Upload>(&text).ok()) {
        match multipart.parts(&upload).await {
            Ok(parts) => return Ok(Some((upload, parts))),
            // Forgotten by the store, or completed with a lost reply.
            Err(error) if error.kind == ErrorKind::NotFound => {
                if is_there(target.store.as_ref(), object).await? {
                    check_lock(target.store.as_ref(), object).await?;
                    state.set_upload(&target.name, object.key.as_str(), None)?;
                    return Ok(None);
                }
                tracing::info!(key = object.key.as_str(), "the store has forgotten an upload; it is begun anew");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let upload = multipart.begin(&object.key, &object.options()).await.map_err(|error| match error.kind {
        ErrorKind::Protocol => UploadError::NoParts(error),
        _ => error.into(),
    })?;
    let text = serde_json::to_string(&upload).map_err(|_| UploadError::Internal("an upload has no text form"))?;
    state.set_upload(&target.name, object.key.as_str(), Some(&text))?;
    Ok(Some((upload, Vec::new())))
}

/// The spool does not hold any more what was put into it.
fn rotten(path: &Path) -> UploadError {
    let source =
        std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not what was sealed: look after this disk");
    UploadError::Spool { path: path.to_owned(), source }
}

/// What it means that a piece of so many bytes was not taken.
fn not_through(error: providers::Error, bytes: u64) -> UploadError {
    let broke = error.kind == ErrorKind::Unavailable && matches!(error.retry, Retry::Exhausted { .. });
    if broke && bytes >= LARGE_BYTES { UploadError::Breaks { bytes, source: error } } else { error.into() }
}

/// Reading a part is short next to sending it, so it happens where the task runs.
fn read_part(path: &Path, offset: u64, bytes: u64, mut part: Vec<u8>) -> Result<Bytes, UploadError> {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        part.clear();
        part.reserve_exact(usize::try_from(bytes).unwrap_or(0));
        if file.take(bytes).read_to_end(&mut part)? as u64 == bytes {
            Ok(part.into())
        } else {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    };
    read().map_err(|source| UploadError::Spool { path: path.to_owned(), source })
}
