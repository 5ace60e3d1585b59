//! Disks in rotation: of a directory store that has slots, one disk after the other is connected in the same place, and each
//! is one slot. Which one, a document on the disk itself says, signed by the site.
//!
//! Every disk is a place of its own, with its own chains, numbers, heartbeat and memory on this machine. So another disk in
//! the same place never looks like a store that has lost something, or like another machine's.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::format::VERSION;
use crate::ids::{GenerationId, SiteName, SlotName, StoreName};
use crate::sign::{SignError, SiteKey, SitePublicKey};
use crate::state::DiskRecord;

/// The document's name in the folder of the store.
pub const FILE: &str = "offsite-disk.json";
/// Largest document or signature that is read, in bytes.
const BYTES_MAX: u64 = 4 << 10;
/// Hexadecimal digits of a disk's own number.
const ID_DIGITS: usize = 16;
/// Longest name of a slot, so that the name of its place in the state has room.
pub const SLOT_NAME_MAX: usize = 20;
/// Longest name of a store that has slots.
pub const STORE_NAME_MAX: usize = 64 - SLOT_NAME_MAX - ID_DIGITS - 2;
/// What systems put on a disk by themselves.
const NOT_OURS: [&str; 9] = [
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".Trashes",
    ".Spotlight-V100",
    ".fseventsd",
    ".DS_Store",
    ".TemporaryItems",
    "autorun.inf",
];

/// `offsite-disk.json`: what a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `disk`.
    pub offsite: Kind,
    /// Version of the format.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// The store, as its configuration calls it.
    pub store: StoreName,
    /// The slot.
    pub slot: SlotName,
    /// The disk's own number: sixteen hexadecimal digits that no other disk has.
    pub disk: String,
    /// When it got its slot, by the site's clock.
    pub assigned: Timestamp,
}

/// The word that begins the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only one.
    Disk,
}

/// A disk that was recognized, and the bytes that say what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is.
    pub disk: Disk,
    /// Its name in this machine's state.
    pub place: StoreName,
    /// The document as it lies there.
    pub text: Vec<u8>,
}

/// Why what is connected is not a disk that can be written to, or not now.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The folder is not there.
    #[error("the folder {} is not there: connect and mount the disk {bring}", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
        /// The disk that is wanted.
        bring: SlotName,
    },
    /// It cannot be read.
    #[error("what disk is at {} cannot be read", path.display())]
    Unreadable {
        /// The document.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing says which disk it is.
    #[error(
        "there is no disk of this rotation at {}: either none is mounted there, and {bring} is wanted; or a new one is, and \
         `offsite slot NAME` makes it one of the slots",
        path.display()
    )]
    Unnamed {
        /// The folder.
        path: PathBuf,
        /// The disk that is wanted.
        bring: SlotName,
    },
    /// It is somebody else's.
    #[error("the disk at {} is {slot} of {site}'s store {store}, not this one's: bring {bring}", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is, it says.
        site: SiteName,
        /// Of which store.
        store: StoreName,
        /// Which slot.
        slot: SlotName,
        /// The disk that is wanted.
        bring: SlotName,
    },
    /// Its document is none, or not signed by this site.
    #[error(
        "the disk at {} says what it is in a way that this site did not sign: bring {bring}, and find out where this one was",
        path.display()
    )]
    NotGenuine {
        /// The folder.
        path: PathBuf,
        /// The disk that is wanted.
        bring: SlotName,
    },
    /// The configuration has no such slot.
    #[error("the disk at {} is {slot}, and the configuration has no such slot: bring {bring}", path.display())]
    NoSlot {
        /// The folder.
        path: PathBuf,
        /// Which slot.
        slot: SlotName,
        /// The disk that is wanted.
        bring: SlotName,
    },
    /// Another disk has taken its place.
    #[error(
        "the disk at {} was {slot} until another one took its place, which holds {generation}: bring {bring}; to use this one \
         again, `offsite slot NAME --anyway` gives it a slot",
        path.display()
    )]
    Replaced {
        /// The folder.
        path: PathBuf,
        /// Which slot.
        slot: SlotName,
        /// The newest generation on the other one.
        generation: GenerationId,
        /// The disk that is wanted.
        bring: SlotName,
    },
    /// The last generation lies on it.
    #[error(
        "the disk {slot} is still in, and the last generation ({generation}) lies on it: a loss tonight would take both. Bring \
         {bring}; `offsite backup --same-disk` writes to {slot} all the same"
    )]
    Same {
        /// Which slot.
        slot: SlotName,
        /// The generation.
        generation: GenerationId,
        /// The disk that is wanted.
        bring: SlotName,
    },
}

impl DiskError {
    /// Whether simply no disk of the rotation is connected.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Unnamed { .. })
    }

    /// The disk that is wanted instead, if that is known.
    pub fn bring(&self) -> Option<&SlotName> {
        match self {
            Self::Unreadable { .. } => None,
            Self::Absent { bring, .. }
            | Self::Unnamed { bring, .. }
            | Self::Foreign { bring, .. }
            | Self::NotGenuine { bring, .. }
            | Self::NoSlot { bring, .. }
            | Self::Replaced { bring, .. }
            | Self::Same { bring, .. } => Some(bring),
        }
    }
}

impl Disk {
    /// A disk that gets its slot now, with a number that no other has.
    pub fn new(site: &SiteName, store: &StoreName, slot: &SlotName, now: Timestamp) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self {
            offsite: Kind::Disk,
            version: VERSION,
            site: site.clone(),
            store: store.clone(),
            slot: slot.clone(),
            disk: format!("{:016x}", RandomState::new().hash_one(now.as_nanosecond())),
            assigned: now,
        }
    }

    /// Writes it into `folder`: the signature first, so that a document never lies there without one.
    pub fn write(&self, folder: &Path, key: &SiteKey) -> Result<(), WriteError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        text.push(b'\n');
        let comment =
            format!("offsite disk site={} store={} slot={} disk={}", self.site, self.store, self.slot, self.disk);
        let signature = key.sign(&text, &comment)?;
        durable::write_for_others(&folder.join(format!("{FILE}.minisig")), signature.as_bytes())?;
        Ok(durable::write_for_others(&folder.join(FILE), &text)?)
    }

    /// Its name in the state; nothing if the document is not of the form that this program writes.
    fn place(&self) -> Option<StoreName> {
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let sound = self.disk.len() == ID_DIGITS && self.disk.bytes().all(digits) && self.version <= VERSION;
        format!("{}.{}.{}", self.store, self.slot, self.disk).parse().ok().filter(|_| sound)
    }
}

/// Why a disk got no slot.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It cannot be written.
    #[error("the disk cannot be written")]
    Io(#[from] io::Error),
    /// The document cannot be signed.
    #[error("what the disk is cannot be signed")]
    Sign(#[from] SignError),
}

/// The rotation of one store, as its configuration has it.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// The office.
    pub site: &'a SiteName,
    /// The store.
    pub store: &'a StoreName,
    /// Where its disks are mounted, one after the other.
    pub path: &'a Path,
    /// Its slots, in the order in which they are brought.
    pub slots: &'a [SlotName],
    /// What the site's documents are signed with. Without it, a disk is believed: nothing is to be written then.
    pub key: Option<&'a SitePublicKey>,
    /// What this machine remembers of its disks, as [`State::disks`](crate::state::State::disks) gives it.
    pub seen: &'a [DiskRecord],
}

impl Rotation<'_> {
    /// The disk that is connected.
    pub fn recognize(&self) -> Result<Known, DiskError> {
        let (path, bring) = (self.path.to_owned(), self.bring(None));
        if !self.path.is_dir() {
            return Err(DiskError::Absent { path, bring });
        }
        let file = |name: &str| {
            let file = self.path.join(name);
            small(&file).map_err(|source| DiskError::Unreadable { path: file, source })
        };
        let Some(text) = file(FILE)? else { return Err(DiskError::Unnamed { path, bring }) };
        let Ok(disk) = serde_json::from_slice::<Disk>(&text) else { return Err(DiskError::NotGenuine { path, bring }) };
        if disk.site != *self.site || disk.store != *self.store {
            let Disk { site, store, slot, .. } = disk;
            return Err(DiskError::Foreign { path, site, store, slot, bring });
        }
        if let Some(key) = self.key {
            let signature = file(&format!("{FILE}.minisig"))?.and_then(|signature| String::from_utf8(signature).ok());
            if signature.is_none_or(|signature| key.verify(&text, &signature).is_err()) {
                return Err(DiskError::NotGenuine { path, bring });
            }
        }
        if !self.slots.contains(&disk.slot) {
            return Err(DiskError::NoSlot { path, slot: disk.slot, bring });
        }
        let Some(place) = disk.place() else { return Err(DiskError::NotGenuine { path, bring }) };
        match self.successor(&disk, &place) {
            Some(generation) => Err(DiskError::Replaced { path, slot: disk.slot, generation, bring }),
            None => Ok(Known { disk, place, text }),
        }
    }

    /// The newest generation on another disk that took the place of this one after it was last of use.
    fn successor(&self, disk: &Disk, place: &StoreName) -> Option<GenerationId> {
        let own = self.seen.iter().find(|seen| seen.place == *place).and_then(|seen| seen.last.as_ref());
        let since = own.map_or(disk.assigned, |last| last.committed.max(disk.assigned));
        let others = self.seen.iter().filter(|seen| seen.slot == disk.slot && seen.place != *place);
        let last = others.filter_map(|seen| seen.last.as_ref()).find(|last| last.committed > since)?;
        Some(last.generation.clone())
    }

    /// That the last generation lies on `known`, if it does.
    pub fn same(&self, known: &Known) -> Option<DiskError> {
        let newest = self.seen.first().filter(|seen| seen.place == known.place)?;
        Some(DiskError::Same {
            slot: known.disk.slot.clone(),
            generation: newest.last.as_ref()?.generation.clone(),
            bring: self.bring(Some(&known.disk.slot)),
        })
    }

    /// The slot that is wanted after `slot`; without one, after the disk that the last generation lies on.
    pub fn bring(&self, slot: Option<&SlotName>) -> SlotName {
        let last = || self.seen.first().filter(|seen| seen.last.is_some()).map(|seen| &seen.slot);
        let at = slot.or_else(last).and_then(|slot| self.slots.iter().position(|known| known == slot));
        let next = at.map_or(0, |at| (at + 1) % self.slots.len());
        #[expect(clippy::indexing_slicing, reason = "the configuration refuses a rotation of fewer than two disks")]
        self.slots[next].clone()
    }
}

/// What lies in `folder` and is neither this site's nor put there by a system.
pub fn others(folder: &Path, site: &SiteName) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let ours = name == site.as_str() || name.starts_with(FILE) || name.starts_with(".Trash-");
        if !ours && !NOT_OURS.contains(&name.as_str()) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// A small file; nothing if there is none.
fn small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(BYTES_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(text))
}
