//! Why nothing was restored.

use std::path::PathBuf;

use providers::KeyError;

use super::extract::BadPack;
use crate::catalog::CatalogError;
use crate::failure::one_line;
use crate::format::entries::EntryLineError;
use crate::format::manifest::ManifestError;
use crate::ids::GenerationId;
use crate::staging::StagingError;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be used.
    #[error("{} cannot be restored to", path.display())]
    Target {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The disk of the target is full.
    #[error(
        "the disk of {} is full: files that are complete are in their places, the others are not there", path.display()
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Files are in the way.
    #[error("{} files exist already in {}, such as {}: nothing was restored", taken.len(), path.display(), taken.first().map_or("", String::as_str))]
    Exists {
        /// The folder.
        path: PathBuf,
        /// What is in the way.
        taken: Vec<String>,
    },
    /// The generation is not genuine.
    #[error("the generation {generation} is refused: {why}")]
    Refused {
        /// Which.
        generation: GenerationId,
        /// Why.
        why: String,
    },
    /// Nothing matches.
    #[error("the generation has nothing of that source or of those paths; its sources are {}", sources.join(", "))]
    Nothing {
        /// The sources that it has.
        sources: Vec<String>,
    },
    /// A document of the generation cannot be fetched.
    #[error("the generation cannot be read")]
    Catalog(#[from] CatalogError),
    /// The manifest is not the one that was signed.
    #[error(
        "the manifest `{0}` is not the one that was signed: it was damaged or exchanged; try another store, or another generation"
    )]
    ManifestDigest(String),
    /// The manifest cannot be opened.
    #[error("the manifest `{key}` cannot be opened with this identity: it was sealed to others")]
    Decrypt {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: age::DecryptError,
    },
    /// The manifest cannot be unpacked.
    #[error("the manifest `{key}` cannot be unpacked")]
    Unpack {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The manifest cannot be used.
    #[error("the manifest `{key}` is signed, but not one that this program writes")]
    Manifest {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The list of entries is not there, nor enough else to do without.
    #[error("the list of what is in {generation} cannot be had{}", first_bad(bad))]
    Entries {
        /// Which generation.
        generation: GenerationId,
        /// The packs for lack of which.
        bad: Vec<BadPack>,
    },
    /// The list of entries cannot be used.
    #[error(
        "the list of what is in {generation} is signed, but not one that this program writes: nothing was restored"
    )]
    List {
        /// Which generation.
        generation: GenerationId,
        /// Why.
        #[source]
        source: ListError,
    },
    /// The local generation cannot be read.
    #[error("the local generation cannot be read")]
    Staging(#[from] StagingError),
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
}

/// Why a list of entries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read from the disk.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// A line makes no sense by itself.
    #[error(transparent)]
    Line(#[from] EntryLineError),
    /// An entry makes no sense where it stands.
    #[error("`{path}` {what}")]
    Entry {
        /// Its path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It makes no sense as a whole.
    #[error("{0}")]
    Sense(&'static str),
}

/// A pack that was of no use, in words.
pub(super) fn of_no_use(bad: &BadPack) -> String {
    format!("`{}` is of no use: {}", bad.key, one_line(&bad.error))
}

fn first_bad(bad: &[BadPack]) -> String {
    bad.first().map_or_else(String::new, |bad| format!(": {}", of_no_use(bad)))
}
