//! The generation document of a store (`<generation>.json`): plain, free of content, signed last. Also the heartbeat.
//!
//! Together with its signature it is the commit: a generation exists if and only if both are there and fit.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calendar::Age;
use crate::format::{Sha256, VERSION};
use crate::generation::{Class, Grade};
use crate::ids::{ChainId, GenerationId, SiteName};
use crate::schedule::Promise;

/// Largest document that a reader accepts, in bytes.
pub const BYTES_MAX: u64 = 64 << 10;

/// `<generation>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// `generation`.
    pub offsite: Kind,
    /// Version of the format.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// Rolling or archival.
    pub class: Class,
    /// The chain.
    pub chain: ChainId,
    /// The generation.
    pub generation: GenerationId,
    /// Its number in the chain; 0 is the full.
    pub number: u32,
    /// Its place among all generations the site ever committed in this store, from 1.
    pub sequence: u64,
    /// How far the copy is of one instant and whole.
    pub grade: Grade,
    /// The cut is not later than this.
    pub cut: Timestamp,
    /// When it was committed, by the site's clock.
    pub committed: Timestamp,
    /// How long an archival generation is kept, by the store's clock; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Age>,
    /// How many sources it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<u32>,
    /// Bytes of the restored stream.
    pub stream_bytes: u64,
    /// Bytes of all packs it needs.
    pub needed_bytes: u64,
    /// Bytes of the packs that it added.
    pub added_bytes: u64,
    /// Of a full that is made of copies of an earlier chain's packs: their bytes. It is not its packs in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_bytes: Option<u64>,
    /// The manifest.
    pub manifest: ObjectDigest,
    /// The list of packs.
    pub packs: ObjectDigest,
    /// The generation committed before it in this store, if any.
    pub previous: Option<Previous>,
}

/// The word that begins a generation document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only one.
    Generation,
}

/// Size and digest of an object that belongs to the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDigest {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
}

/// The link to the generation before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its id.
    pub generation: GenerationId,
    /// SHA-256 of its generation document.
    pub sha256: Sha256,
}

/// `heartbeat.json`: that the site is alive, and what its newest generation is. Free of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Version of the format.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// When it was written, by the site's clock.
    pub written: Timestamp,
    /// The newest generation committed in this store.
    pub generation: GenerationId,
    /// Its sequence number.
    pub sequence: u64,
    /// SHA-256 of its generation document.
    pub sha256: Sha256,
    /// Its grade.
    pub grade: Grade,
    /// When the site will be heard of again; absent if nothing happens there by itself.
    #[serde(flatten)]
    pub promise: Option<Promise>,
}

/// Why a generation document was refused.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No JSON, or fields are missing or wrong.
    #[error("the generation document cannot be read")]
    Json(#[from] serde_json::Error),
    /// A newer program wrote it.
    #[error("the generation document has version {0}, which is newer than this program: get the current `offsite`")]
    Newer(u32),
    /// Its numbers are impossible.
    #[error("the generation document makes no sense: {0}")]
    Sense(&'static str),
}

impl Commit {
    /// The document as text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a document. Whether it is genuine is the signature's business, and comes first.
    pub fn decode(text: &[u8]) -> Result<Self, CommitError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(text)?;
        if version > VERSION {
            return Err(CommitError::Newer(version));
        }
        let commit: Self = serde_json::from_slice(text)?;
        commit.check()?;
        Ok(commit)
    }

    /// Whoever holds a site's key signs whatever numbers he likes: what is reckoned with must be within the format.
    fn check(&self) -> Result<(), CommitError> {
        let (manifest, packs) = (self.manifest.bytes, self.packs.bytes);
        let sizes = [self.stream_bytes, self.needed_bytes, self.added_bytes, manifest, packs, self.sequence];
        if sizes.into_iter().any(|number| number >> 63 > 0) {
            return Err(CommitError::Sense("a number is larger than the format allows"));
        }
        if self.carried_bytes.is_some_and(|carried| self.number > 0 || carried > self.added_bytes) {
            return Err(CommitError::Sense("it says that it was made of more copies than it has"));
        }
        Ok(())
    }

    /// What the signature's trusted comment says, so that a person who checks it by hand sees what he has.
    pub fn trusted_comment(&self) -> String {
        format!("offsite site={} generation={} sequence={}", self.site, self.generation, self.sequence)
    }
}
