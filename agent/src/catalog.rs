//! Which generations of a site a store holds, and which of them are genuine.
//!
//! A generation exists if its signature does. What cannot be verified is listed as such, never hidden and never trusted.

mod elsewhere;

use std::collections::BTreeMap;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use providers::{ByteRange, ErrorKind, KeyError, KeyPrefix, ObjectKey, ObjectStore};

use crate::failure::one_line;
use crate::format::Sha256;
use crate::format::commit::{self, Commit, CommitError, Heartbeat};
use crate::format::names::{self, ChainFolder};
use crate::generation::Class;
use crate::ids::{ChainId, GenerationId, SiteName};
use crate::sign::{SignError, SitePublicKey};
use crate::state::CommittedRecord;

pub use elsewhere::{Elsewhere, Misplaced, elsewhere};

/// Generation documents read at once.
const PARALLEL: usize = 8;
/// Generations that a listing may have: far above what any policy keeps, far below what would harm a reader.
const GENERATIONS_MAX: usize = 100_000;
/// Objects that a listing may have: packs of a hundred TiB.
pub(crate) const OBJECTS_MAX: usize = 2_000_000;
/// Generations that may be unreadable before the store is called unreadable: each may cost minutes of trying.
const UNREADABLE_MAX: usize = 50;
/// A signature file is four lines.
pub(crate) const SIGNATURE_BYTES_MAX: u64 = 4 << 10;

/// One generation in a store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Rolling or archival: by the folder it lies in.
    pub class: Class,
    /// The chain: by the folder it lies in.
    pub chain: ChainId,
    /// The generation: by its name.
    pub generation: GenerationId,
    /// What its document says, if it is genuine or there was no key to check it with.
    pub commit: Option<Commit>,
    /// SHA-256 of the document.
    pub sha256: Option<Sha256>,
    /// When the store took its signature, by the store's clock.
    pub at: Option<Timestamp>,
    /// Whether it is genuine.
    pub trust: Trust,
}

/// Whether a generation is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The site signed it, and it lies where it belongs.
    Signed,
    /// There was no key to check the signature with.
    Unchecked,
    /// It is not the site's, or was tampered with.
    Refused(String),
    /// The store has it, and does not give its document or its signature away: a bad sector, a right that is missing. It may
    /// be genuine, so it counts as there, and nothing of its chain is removed.
    Unreadable(String),
}

impl Trust {
    /// Why it is of no use, if it is.
    pub fn complaint(&self) -> Option<&str> {
        match self {
            Self::Signed | Self::Unchecked => None,
            Self::Refused(why) | Self::Unreadable(why) => Some(why),
        }
    }
}

/// A generation that was listed: where it lies, and when the store took its signature.
pub type ListedGeneration = (Class, ChainId, GenerationId, Option<Timestamp>);

/// Why the catalog of a store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The store refused or does not answer.
    #[error("the generations in the store cannot be listed")]
    Store(#[from] providers::Error),
    /// An object that should be small is not.
    #[error("`{key}` is larger than {limit} bytes: it was not written by this program and is not read")]
    TooLarge {
        /// The object.
        key: ObjectKey,
        /// The most it may have.
        limit: u64,
    },
    /// Somebody else signs for this site.
    #[error(
        "the heartbeat in the store is signed by the key {found}, which is not this machine's: another machine stores under \
             the same site name; nothing was sent, give one of them a name of its own"
    )]
    OtherKey {
        /// The fingerprint of the key.
        found: String,
    },
    /// The listing does not end.
    #[error(
        "the store lists more than {GENERATIONS_MAX} generations or {OBJECTS_MAX} objects of this site: this is no listing \
         of ours"
    )]
    Endless,
    /// Generations are listed, and their documents cannot be had.
    #[error("{count} generations are in the store, and cannot be read: {why}")]
    Unreadable {
        /// How many.
        count: usize,
        /// Why the first of them cannot.
        why: String,
    },
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
}

/// All generations of `site` in `store`, by time. `key` is the site's public key; without it nothing is verified.
pub async fn list(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
) -> Result<Vec<Stored>, CatalogError> {
    list_classes(store, site, key, &[Class::Rolling, Class::Archival]).await
}

/// As [`list`], of archival generations only.
pub async fn list_archival(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
) -> Result<Vec<Stored>, CatalogError> {
    list_classes(store, site, key, &[Class::Archival]).await
}

async fn list_classes(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
    classes: &[Class],
) -> Result<Vec<Stored>, CatalogError> {
    let root = names::site_prefix(site)?;
    let mut found = BTreeMap::new();
    let mut looked_at = 0;
    for class in classes.iter().copied() {
        let prefix = root.below(match class {
            Class::Rolling => names::ROLLING,
            Class::Archival => names::ARCHIVE,
        })?;
        let mut objects = store.list(&prefix);
        while let Some(object) = objects.try_next().await? {
            // A listing may name an object twice.
            if let Some((chain, generation)) = prefix.strip(&object.key).and_then(signature_of) {
                found.insert((class, chain, generation), object.modified);
            }
            looked_at += 1;
            if found.len() > GENERATIONS_MAX || looked_at > OBJECTS_MAX {
                return Err(CatalogError::Endless);
            }
        }
    }
    let found = found.into_iter().map(|((class, chain, generation), at)| (class, chain, generation, at)).collect();
    read_all(store, site, key, found).await
}

/// Every one of `listed`, verified, by time. One that cannot be read is said to be so; if that is so of all of them, it is
/// the store that cannot be read.
pub async fn read_all(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
    listed: Vec<ListedGeneration>,
) -> Result<Vec<Stored>, CatalogError> {
    let count = listed.len();
    let reads =
        listed.into_iter().map(|(class, chain, generation, at)| read(store, site, key, class, chain, generation, at));
    let mut reads = futures_util::stream::iter(reads).buffer_unordered(PARALLEL);
    let (mut stored, mut unreadable) = (Vec::new(), 0);
    while let Some(read) = reads.try_next().await? {
        if let Trust::Unreadable(why) = &read.trust {
            unreadable += 1;
            if unreadable == count || unreadable > UNREADABLE_MAX {
                return Err(CatalogError::Unreadable { count, why: why.clone() });
            }
        }
        stored.push(read);
    }
    stored.sort_by(|a, b| (&a.generation, a.class as u8).cmp(&(&b.generation, b.class as u8)));
    Ok(stored)
}

/// One generation, verified, whose signature the store took `at`. It is an error only if the store cannot be read, not if
/// the generation cannot.
pub async fn read(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
    class: Class,
    chain: ChainId,
    generation: GenerationId,
    at: Option<Timestamp>,
) -> Result<Stored, CatalogError> {
    let folder = ChainFolder::new(site, class, &chain)?;
    let signature_key = folder.object(&generation, names::SIGNATURE)?;
    let document = small(store, &folder.object(&generation, names::COMMIT)?, commit::BYTES_MAX).await;
    let signature = small(store, &signature_key, SIGNATURE_BYTES_MAX).await;
    let of_no_use = |trust: Trust| {
        let (chain, generation) = (chain.clone(), generation.clone());
        Ok(Stored { class, chain, generation, commit: None, sha256: None, at, trust })
    };
    let refused = |why: &str| of_no_use(Trust::Refused(why.to_owned()));
    let (document, signature) = match (document, signature) {
        (Ok(document), Ok(signature)) => (document, signature),
        (Err(CatalogError::Store(error)), _) | (_, Err(CatalogError::Store(error)))
            if error.kind == ErrorKind::NotFound =>
        {
            return refused("its document or its signature is missing");
        }
        (Err(CatalogError::TooLarge { .. }), _) | (_, Err(CatalogError::TooLarge { .. })) => {
            return refused("its document or its signature is impossibly large");
        }
        (Err(error), _) | (_, Err(error)) => {
            return match error {
                error if !is_of_one_object(store, &signature_key, &error).await => Err(error),
                CatalogError::Store(error) => of_no_use(Trust::Unreadable(one_line(&error))),
                error => Err(error),
            };
        }
    };
    let trust = match key {
        None => Trust::Unchecked,
        Some(key) => match std::str::from_utf8(&signature).map(|signature| key.verify(&document, signature)) {
            Ok(Ok(_)) => Trust::Signed,
            _ => {
                return refused("its signature is not this site's: it was forged, damaged, or made by another machine");
            }
        },
    };
    let commit = match Commit::decode(&document) {
        Ok(commit) => commit,
        Err(CommitError::Newer(version)) => {
            return refused(&format!("it has version {version} of the format: get the current `offsite`"));
        }
        Err(CommitError::Json(_)) => return refused("its document cannot be read"),
        Err(error @ CommitError::Sense(_)) => return refused(&error.to_string()),
    };
    if commit.site != *site || commit.class != class || commit.chain != chain || commit.generation != generation {
        return refused("it is another generation under a false name: an old one replayed, or moved");
    }
    let sha256 = Some(Sha256::of(&document));
    Ok(Stored { class, chain, generation, commit: Some(commit), sha256, at, trust })
}

/// Whether `error` says something of one object and not of the store: it is refused for good, or the store, asked what it
/// knows of `key`, answers.
pub(crate) async fn is_of_one_object(store: &dyn ObjectStore, key: &ObjectKey, error: &CatalogError) -> bool {
    let CatalogError::Store(error) = error else { return false };
    match error.kind {
        ErrorKind::Config | ErrorKind::Local => false,
        ErrorKind::Unavailable | ErrorKind::Throttled => match store.head(&key.clone().into()).await {
            Ok(_) => true,
            Err(error) => error.kind == ErrorKind::NotFound,
        },
        _ => true,
    }
}

/// What the heartbeat of a site says about the generations that were listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing newer than what is there, or nothing was ever stored.
    Fits,
    /// There are generations, but there is no heartbeat.
    Absent,
    /// It was damaged or forged, or a run died between the heartbeat and its signature.
    Unproved,
    /// It names a generation that is not there, newer than all that are.
    Ahead(Box<Heartbeat>),
    /// Whatever it says: what this machine stored there last is not there.
    Lost {
        /// The generation.
        generation: GenerationId,
        /// Its number.
        sequence: u64,
    },
}

impl Pulse {
    /// The generation that should be there and is not.
    pub fn missing(&self) -> Option<&GenerationId> {
        match self {
            Self::Fits | Self::Absent | Self::Unproved => None,
            Self::Ahead(beat) => Some(&beat.generation),
            Self::Lost { generation, .. } => Some(generation),
        }
    }

    /// What is wrong, if anything, and what to do.
    pub fn complaint(&self) -> Option<String> {
        match self {
            Self::Fits => None,
            Self::Absent => Some(
                "it is missing, so nothing shows whether the newest generations are still there; the next run of \
                 `offsite backup` writes it anew"
                    .to_owned(),
            ),
            Self::Unproved => Some(
                "it cannot be read, or its signature is not this site's: it was damaged or forged, or a run died while it \
                 wrote it; the next run of `offsite backup` writes it anew"
                    .to_owned(),
            ),
            Self::Ahead(beat) => Some(format!(
                "it names {} (number {}) as the newest generation, and that is not there: newer generations were \
                 removed, or old ones put in their place; find out who can write to the store. What is listed is \
                 genuine all the same and can be restored by its name. If the store keeps older versions, \
                 `offsite list --as-of TIME` shows what was there before",
                beat.generation, beat.sequence
            )),
            Self::Lost { generation, sequence } => Some(format!(
                "this machine stored {generation} (number {sequence}) there last, and it is not there: it was removed, or this \
                 is another disk, bucket or folder than then; find out which, and who can write to it. If the store keeps \
                 older versions, `offsite list --as-of TIME` shows what was there before. The next run of `offsite backup` \
                 stores a full generation"
            )),
        }
    }
}

/// Compares the heartbeat with `listed`, which is all that the store has of the site.
pub async fn pulse(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: &SitePublicKey,
    listed: &[Stored],
) -> Result<Pulse, CatalogError> {
    let read = match read_heartbeat(store, site, key).await {
        // What cannot be read keeps nobody from what can; only a run has to know what it says.
        Err(error) if is_of_one_object(store, &names::site_prefix(site)?.key(names::HEARTBEAT)?, &error).await => {
            Beat::Unproved
        }
        read => read?,
    };
    let beat = match read {
        Beat::Absent if listed.is_empty() => return Ok(Pulse::Fits),
        Beat::Absent => return Ok(Pulse::Absent),
        Beat::Unproved | Beat::OtherKey(_) => return Ok(Pulse::Unproved),
        Beat::Genuine(beat) => beat,
    };
    let genuine = listed.iter().filter(|stored| stored.trust == Trust::Signed);
    let mut genuine = genuine.filter_map(|stored| Some((stored.commit.as_ref()?.sequence, stored.sha256?)));
    // A run that died after its commit leaves a heartbeat that is behind: nothing is missing then.
    let there = genuine.any(|(sequence, sha256)| sequence > beat.sequence || sha256 == beat.sha256)
        || listed.iter().any(|one| one.generation == beat.generation && matches!(one.trust, Trust::Unreadable(_)));
    Ok(if there { Pulse::Fits } else { Pulse::Ahead(beat) })
}

/// The heartbeat of a site, if there is one and it is genuine. One that is not is as good as none: a run that died
/// between the heartbeat and its signature leaves the two apart. One that is signed by another key is an error: somebody
/// else stores under this name, or the site's key was replaced.
pub async fn heartbeat(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: &SitePublicKey,
) -> Result<Option<Heartbeat>, CatalogError> {
    Ok(match read_heartbeat(store, site, key).await? {
        Beat::Genuine(beat) => Some(*beat),
        Beat::Absent | Beat::Unproved => None,
        Beat::OtherKey(found) => return Err(CatalogError::OtherKey { found }),
    })
}

enum Beat {
    Absent,
    Unproved,
    OtherKey(String),
    Genuine(Box<Heartbeat>),
}

async fn read_heartbeat(store: &dyn ObjectStore, site: &SiteName, key: &SitePublicKey) -> Result<Beat, CatalogError> {
    let root = names::site_prefix(site)?;
    let document = small(store, &root.key(names::HEARTBEAT)?, commit::BYTES_MAX).await;
    let signature = small(store, &root.key(&format!("{}.minisig", names::HEARTBEAT))?, SIGNATURE_BYTES_MAX).await;
    let not_found =
        |error: &CatalogError| matches!(error, CatalogError::Store(error) if error.kind == ErrorKind::NotFound);
    let (document, signature) = match (document, signature) {
        (Ok(document), Ok(signature)) => (document, signature),
        (Err(document), Err(signature)) if not_found(&document) && not_found(&signature) => return Ok(Beat::Absent),
        (Err(error), _) | (_, Err(error)) => {
            // Half of it, or something far too large, is none of ours.
            let none = not_found(&error) || matches!(error, CatalogError::TooLarge { .. });
            return if none { Ok(Beat::Unproved) } else { Err(error) };
        }
    };
    let genuine = match std::str::from_utf8(&signature).map(|signature| key.verify(&document, signature)) {
        Ok(Err(SignError::OtherKey { found, .. })) => return Ok(Beat::OtherKey(found)),
        verified => verified.is_ok_and(|verified| verified.is_ok()),
    };
    let beat: Option<Box<Heartbeat>> = serde_json::from_slice(&document).ok();
    Ok(beat.filter(|beat| genuine && beat.site == *site).map_or(Beat::Unproved, Beat::Genuine))
}

/// The newest genuine generation of a site, by sequence: what the next one is chained to when local memory is lost.
pub async fn newest(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: &SitePublicKey,
) -> Result<Option<CommittedRecord>, CatalogError> {
    let stored = list(store, site, Some(key)).await?;
    let records = stored.into_iter().filter_map(|stored| {
        let commit = stored.commit?;
        Some(CommittedRecord {
            generation: commit.generation,
            sequence: commit.sequence,
            commit_sha256: stored.sha256?,
            committed: commit.committed,
            grade: commit.grade,
            stream_bytes: commit.stream_bytes,
            added_bytes: commit.added_bytes,
        })
    });
    Ok(records.max_by_key(|record| record.sequence))
}

/// Keys and sizes of everything below `prefix`.
pub async fn objects(store: &dyn ObjectStore, prefix: &KeyPrefix) -> Result<BTreeMap<ObjectKey, u64>, CatalogError> {
    let mut found = BTreeMap::new();
    let mut looked_at = 0;
    let mut objects = store.list(prefix);
    while let Some(object) = objects.try_next().await? {
        found.insert(object.key, object.bytes);
        looked_at += 1;
        if looked_at > OBJECTS_MAX {
            return Err(CatalogError::Endless);
        }
    }
    Ok(found)
}

/// Reads an object of at most `limit` bytes.
pub async fn small(store: &dyn ObjectStore, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, CatalogError> {
    let mut stream = store.get(&key.clone().into(), ByteRange::All).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.try_next().await? {
        if bytes.len() as u64 + piece.len() as u64 > limit {
            return Err(CatalogError::TooLarge { key: key.clone(), limit });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Chain and generation that `path` (below the folder of its class) is the signature of.
fn signature_of(path: &str) -> Option<(ChainId, GenerationId)> {
    let (chain, name) = path.split_once('/')?;
    let generation = name.strip_suffix(names::SIGNATURE)?.strip_suffix('.')?;
    Some((chain.parse().ok()?, generation.parse().ok()?))
}
