//! The keeper's counter-signature (`verified/<generation>-<key>.json`): that somebody else than the site has read every
//! byte of a generation and found it as the site signed it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::Sha256;
use crate::generation::Class;
use crate::ids::{ChainId, GenerationId, SiteName};

/// Folder of the counter-signatures, below the site's prefix.
pub const FOLDER: &str = "verified";

/// `verified/<generation>-<key>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// `verified`.
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
    /// SHA-256 of its document, `<generation>.json`.
    pub sha256: Sha256,
    /// Packs that it needs, each read whole and found to be what its name says.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// None of them was read earlier than this day.
    pub since: Timestamp,
    /// When this was written, by the store's clock.
    pub verified: Timestamp,
}

/// The word that begins a counter-signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only one.
    Verified,
}

impl Verified {
    /// The document as text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// What the signature's trusted comment says.
    pub fn trusted_comment(&self) -> String {
        format!("offsite verified site={} generation={}", self.site, self.generation)
    }

    /// Its name below the folder of the site; `key` is the fingerprint of the keeper's key.
    pub fn name(generation: &GenerationId, key: &str) -> String {
        format!("{FOLDER}/{generation}-{key}.json")
    }
}
