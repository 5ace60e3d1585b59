//! Sealing: a staged generation becomes packs in the spool.
//!
//! Everything here is synchronous. The feeder walks the generation as one tar stream, cuts it into chunks and finds those
//! that the chain has; workers compress the others on all cores; the writer encrypts them into packs, in order, and
//! records each finished pack. Data flow one way over bounded channels, so a slow store holds everything back and memory
//! does not grow with the data. `FORMAT.md` describes the result.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::entry::{Entry, EntryKind};
use crate::format::Sha256;
use crate::frame::FrameError;
use crate::keys::{RecipientError, Recipients};
use crate::progress::Progress;
use crate::spool::{Spool, SpoolError, full_hint};
use crate::staging::{IndexedEntry, LocalGeneration, StagingError};
use crate::state::{ChunkHash, Delivery, SealedPack, State, StateError};

use hashes::{CACHE, HashReader};

mod feed;
mod hashes;
mod landmarks;
mod later;
mod moved;
mod object;
mod pack;
mod parts;
mod pool;
mod reference;
mod writer;

pub use object::{SealedDocument, seal_document};
pub use parts::PartDigests;
pub use writer::RawExtent;

/// How to seal.
#[derive(Clone, Copy, Debug)]
pub struct SealSettings<'a> {
    /// To whom; never nobody.
    pub recipients: &'a Recipients,
    /// zstd's compression level.
    pub level: i32,
    /// A pack is finished when its sealed size reaches this.
    pub pack_bytes: u64,
    /// Packs are sent in parts of this size, if in parts: their digests are made on the way.
    pub part_bytes: Option<u64>,
    /// Threads that compress.
    pub workers: NonZeroUsize,
}

/// What to seal.
#[derive(Clone, Copy, Debug)]
pub struct SealRequest<'a> {
    /// The staged generation.
    pub generation: &'a LocalGeneration,
    /// The local generation before it, whose hashes spare reading what did not change.
    pub previous: Option<&'a LocalGeneration>,
    /// The local generation that is the chain's origin, mostly its full, if it is still there: what patches refer to.
    pub full: Option<&'a LocalGeneration>,
    /// Local generations between the origin and this one, in the order of time: what they brought whole can be referred to, too.
    pub later: &'a [LocalGeneration],
    /// The delivery it is for.
    pub delivery: &'a Delivery,
}

/// What sealing made besides packs.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Where the bytes of the stream lie, in stream order.
    pub extents: Vec<RawExtent>,
    /// Bytes of the stream.
    pub stream_bytes: u64,
    /// Where in the stream the content of `ENTRIES.jsonl` begins.
    pub entries_at: u64,
    /// Its size.
    pub entries_bytes: u64,
    /// Its digest.
    pub entries_sha256: Sha256,
}

/// Why a generation could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The staged copy cannot be read.
    #[error("the staged generation cannot be read")]
    Staging(#[from] StagingError),
    /// A staged file is not what it was.
    #[error("the staged file {0} has changed since it was captured: make a new generation with `offsite backup`")]
    Changed(String),
    /// A staged file cannot be read.
    #[error("the staged file {path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file beside the staged copy cannot be written or read.
    #[error("{} cannot be used while sealing{}", path.display(), full_hint(.source))]
    Cache {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody to seal to, or a recipient cannot be used.
    #[error("nothing can be sealed to the recipients")]
    Recipients(#[from] RecipientError),
    /// The spool cannot be written.
    #[error("a sealed pack cannot be kept")]
    Spool(#[from] SpoolError),
    /// The journal cannot be written.
    #[error("the state cannot be used while sealing")]
    State(#[from] StateError),
    /// zstd refused.
    #[error("content cannot be compressed")]
    Compress(#[from] FrameError),
    /// The one who takes the packs has stopped.
    #[error("sealing was stopped")]
    Stopped,
    /// A contradiction inside the program.
    #[error("sealing went wrong inside the program ({0}): please report this; nothing was committed")]
    Internal(&'static str),
}

/// The size of a file, and hashes of the chunks that it has or had.
type KnownFile = Result<(u64, Vec<ChunkHash>), StagingError>;

/// The files of `now`, in stream order, with the chunks that they had in `known`, that or an earlier generation. Nothing if
/// `known` was not sealed to its end.
pub(crate) fn known_files(
    now: &LocalGeneration,
    known: &LocalGeneration,
) -> Result<Option<impl Iterator<Item = KnownFile> + use<>>, StagingError> {
    let Some(mut hashes) = HashReader::open(&known.cache_path(CACHE)) else { return Ok(None) };
    Ok(Some(now.entries()?.filter_map(move |indexed| match indexed {
        Ok(IndexedEntry { entry: Entry { path, kind: EntryKind::File { bytes, .. }, .. }, .. }) => {
            let chunks = hashes.find(&path).map(|found| found.chunks);
            Some(Ok((bytes, chunks.unwrap_or_default())))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })))
}

/// Seals a generation. Each finished pack is durable in the spool and recorded in `state` before `sealed` gets it;
/// `sealed`, which is told the digests of its parts, too, may wait, and says `false` to stop, as `stop` does between chunks. After a crash the same call goes on: packs
/// that were recorded are kept.
pub fn seal(
    settings: &SealSettings<'_>,
    request: &SealRequest<'_>,
    spool: &Spool,
    state: &mut State,
    progress: &Progress,
    stop: &(dyn Fn() -> bool + Sync),
    sealed: impl FnMut(&SealedPack, Option<PartDigests>) -> bool,
) -> Result<Sealed, SealError> {
    let lookup = state.reopen()?;
    let (dealer, workers, collector) = pool::channels(settings.workers.get());
    std::thread::scope(|scope| {
        let workers = Arc::new(workers);
        for _ in 0..settings.workers.get() {
            let workers = Arc::clone(&workers);
            scope.spawn(move || workers.run(settings.level));
        }
        // The last worker to go takes the queue with it, so that the feeder is never left waiting at it.
        drop(workers);
        let feeder = scope.spawn(|| feed::feed(request, settings.pack_bytes, lookup, dealer, progress, stop));
        let written = writer::write(settings, request.delivery, spool, state, collector, sealed);
        let fed = feeder.join().unwrap_or(Err(SealError::Internal("a thread panicked")));
        // When one side fails the other only stops: the cause is what is reported.
        let (extents, fed) = match (written, fed) {
            (Ok(extents), Ok(fed)) => (extents, fed),
            (Err(SealError::Stopped), Err(cause)) => return Err(cause),
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        };
        let whole: u64 = extents.iter().map(RawExtent::bytes).sum();
        if whole != fed.stream_bytes {
            return Err(SealError::Internal("the extents do not make the stream"));
        }
        Ok(Sealed {
            extents,
            stream_bytes: fed.stream_bytes,
            entries_at: fed.entries_at,
            entries_bytes: fed.entries_bytes,
            entries_sha256: fed.entries_sha256,
        })
    })
}
