//! What a place really does, found out with small objects of our own below `probe/`.
//!
//! A server's word is not taken for anything here: each finding comes from doing it and looking at what became of it.

mod steps;

use std::fmt;

use jiff::Timestamp;

use crate::error::Result;
use crate::key::KeyPrefix;
use crate::open::{open, unguarded};
use crate::settings::{Access, Policy, Seen, StoreSettings};

/// What a place was seen to do. Plain data, to be kept and compared with the next one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// When, by this machine's clock.
    pub at: Timestamp,
    /// What was stored is what is read.
    pub read_back: Finding,
    /// Parts of objects can be read.
    pub ranges: Finding,
    /// What is there is listed, and nothing else.
    pub listing: Finding,
    /// A name that is taken is not given again.
    pub create_only: Finding,
    /// Of several who create one name at once, one wins.
    pub one_creator: Finding,
    /// A name that is taken is refused by the place itself, also if nobody looks before: `If-None-Match: *` in storing
    /// and in completing an upload, `Overwrite: F` in moving.
    pub refuses_taken: Finding,
    /// Bytes that are not what their checksum says are refused.
    pub checks_content: Finding,
    /// Objects can be sent in parts, and the parts are listed.
    pub parts: Finding,
    /// A locked object cannot be deleted.
    pub lock: Finding,
    /// The credential of these settings cannot delete.
    pub delete_refused: Finding,
    /// How far the place's clock is ahead of this machine's, in seconds; negative if behind.
    pub clock_ahead_s: i64,
}

/// One ability, as found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It was seen.
    Yes,
    /// It was seen not to be so.
    No(String),
    /// It could not be tried.
    Unknown(String),
}

impl Verdict {
    /// All findings with their names, in a fixed order.
    pub fn findings(&self) -> [(&'static str, &Finding); 10] {
        [
            ("read back", &self.read_back),
            ("ranges", &self.ranges),
            ("listing", &self.listing),
            ("create only", &self.create_only),
            ("one creator", &self.one_creator),
            ("refuses taken names", &self.refuses_taken),
            ("checks content", &self.checks_content),
            ("parts", &self.parts),
            ("lock", &self.lock),
            ("delete refused", &self.delete_refused),
        ]
    }

    /// What speaks against backups to the place; everything else is a limit that can be lived with.
    pub fn obstacles(&self) -> Vec<(&'static str, &Finding)> {
        let needed = ["read back", "ranges", "listing", "create only"];
        let found = self.findings().into_iter();
        found.filter(|(name, finding)| needed.contains(name) && **finding != Finding::Yes).collect()
    }

    /// Whether backups to the place would be right.
    pub fn is_usable(&self) -> bool {
        self.obstacles().is_empty()
    }

    /// What the place is to be opened with. What is not known is tried.
    pub fn seen(&self) -> Seen {
        let not_denied = |finding: &Finding| !matches!(finding, Finding::No(_));
        Seen {
            refuses_taken: self.refuses_taken == Finding::Yes,
            checks_content: not_denied(&self.checks_content),
            takes_parts: not_denied(&self.parts),
            locks: not_denied(&self.lock),
        }
    }

    /// What the place did at `earlier` and does no more, by name.
    pub fn lost_since(&self, earlier: &Self) -> Vec<&'static str> {
        let pairs = self.findings().into_iter().zip(earlier.findings());
        let lost = pairs.filter(|((_, now), (_, then))| **then == Finding::Yes && matches!(now, Finding::No(_)));
        lost.map(|((name, _), _)| name).collect()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No(why) => write!(f, "no: {why}"),
            Self::Unknown(why) => write!(f, "not known: {why}"),
        }
    }
}

/// Finds out what the place of `settings` does, below `prefix` (the site's), with names that hold `nonce`.
///
/// `lock` also tries a lock, of one minute: it leaves an object behind that nobody can delete for that long. What the
/// credential may delete is deleted again; the rest stays below `probe/`, a few small objects for each probe.
///
/// Fails only if the place cannot be spoken to at all.
pub async fn probe(
    settings: &StoreSettings,
    policy: &Policy,
    prefix: &KeyPrefix,
    nonce: &str,
    now: Timestamp,
    lock: bool,
) -> Result<Verdict> {
    let agent = open(settings, Access::Agent, policy)?;
    // Opened as the keeper opens it, with the agent's credential: what that can delete is seen by trying.
    let keeper = open(settings, Access::Keeper, policy)?;
    let bare = unguarded(settings, Access::Agent, policy, Seen { refuses_taken: true, ..Seen::default() })?;
    let stores = steps::Stores { agent: &*agent, keeper: &*keeper, bare: &*bare };
    steps::run(stores, prefix, nonce, now, lock).await
}

#[cfg(test)]
mod tests;
