//! Why a generation is not in a store.

use std::path::PathBuf;

use providers::{ErrorKind, KeyError};

use super::Delivered;
use crate::catalog::CatalogError;
use crate::ids::SlotName;
use crate::seal::SealError;
use crate::sign::SignError;
use crate::spool::SpoolError;
use crate::staging::StagingError;
use crate::state::StateError;
use crate::upload::UploadError;

/// Why a generation is not in a store.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// Sealing failed.
    #[error("sealing the generation failed")]
    Seal(#[from] SealError),
    /// Sending failed.
    #[error("sending the generation failed")]
    Upload(#[from] UploadError),
    /// The state cannot be used.
    #[error("the state cannot be used")]
    State(#[from] StateError),
    /// The staged copy cannot be read.
    #[error("the staged generation cannot be read")]
    Staging(#[from] StagingError),
    /// The spool cannot be used.
    #[error("the spool cannot be used")]
    Spool(#[from] SpoolError),
    /// The store refused.
    #[error("the store refused")]
    Store(#[from] providers::Error),
    /// The store was seen not to do what every backup relies on.
    #[error(
        "nothing was sent, since the store was seen not to be fit for backups: {why}. When that is put right, \
         `offsite check` asks it again"
    )]
    Unfit {
        /// What it does not do.
        why: String,
    },
    /// The generation is there; nobody has been told.
    #[error(
        "the generation is stored, but the store did not take the heartbeat that tells others of it; the next run writes \
         another one"
    )]
    Heartbeat {
        /// What is stored.
        delivered: Box<Delivered>,
        /// Why.
        #[source]
        source: providers::Error,
    },
    /// What had been sealed is neither in the spool nor in the store.
    #[error(
        "`{object}` was sealed by an earlier run, and is now missing or damaged in the spool, and not in the store; sealed \
         again it would be another object"
    )]
    SpoolLost {
        /// The object's name in the spool.
        object: String,
    },
    /// What the store holds already cannot be read.
    #[error("what the store holds already cannot be made out")]
    Catalog(#[from] CatalogError),
    /// Signing failed.
    #[error("the generation cannot be signed")]
    Sign(#[from] SignError),
    /// Another machine has committed under the same name.
    #[error(
        "the store has generation number {found} of this site, and this machine knows of {known} only: another machine \
         stores under the same site name, or this one was brought back from an old copy of itself. The generation is not \
         committed. Give the other machine a site name of its own; if there is no other, move {} away (this costs one full \
         upload)", state.display()
    )]
    OtherMachine {
        /// The sequence number in the store.
        found: u64,
        /// The sequence number in the state.
        known: u64,
        /// The state database.
        state: PathBuf,
    },
    /// The disk has not got what this machine stored on it last.
    #[error(
        "this disk says that it is {slot}, but number {known}, which this machine stored on {slot}, is not on it: it is a copy \
         of that disk, or somebody removed something. Nothing was written to it. If the disk is to be used as it is, \
         `offsite slot {slot} --anyway` makes it a disk of its own"
    )]
    OtherDisk {
        /// Which slot it says it is.
        slot: SlotName,
        /// The sequence number that it should have.
        known: u64,
    },
    /// What is to be locked would be locked until a wrong date.
    #[error(
        "this machine's clock is {ahead_s} s ahead of the store's (behind it, if negative): objects would be locked until a \
         wrong date, so nothing was sent; set the clock right"
    )]
    Clock {
        /// How far, in seconds.
        ahead_s: i64,
    },
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
    /// A document could not be written.
    #[error("a document has no text form")]
    Json(#[from] serde_json::Error),
    /// A contradiction inside the program.
    #[error("storing went wrong inside the program ({0}): please report this; nothing was committed")]
    Internal(&'static str),
}

impl DeliverError {
    /// Whether the next try must fail as well: what is left of the generation on this machine, or what is in its way in
    /// the store, cannot become right by itself.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::SpoolLost { .. }
            | Self::Upload(UploadError::Foreign { .. } | UploadError::Unlocked { .. })
            | Self::Seal(SealError::Changed(_) | SealError::Staging(StagingError::Damaged { .. }))
            | Self::Staging(StagingError::Damaged { .. }) => true,
            // Such as a lock that the bucket cannot give: what was asked for will be refused each time.
            Self::Upload(UploadError::Store(error)) => error.kind == ErrorKind::Unsupported,
            Self::Seal(SealError::Read { source, .. } | SealError::Staging(StagingError::Io { source, .. }))
            | Self::Staging(StagingError::Io { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether the store has no room for more, or not for anything that large.
    pub fn is_for_lack_of_room(&self) -> bool {
        let (Self::Upload(UploadError::Store(error)) | Self::Store(error)) = self else { return false };
        error.kind == ErrorKind::OutOfSpace
    }
}
