//! Getting a generation back, from a store or from staging: whole, one source, or files by pattern.
//!
//! Planned first, then executed: the manifest and the list of entries say which pieces of which packs are needed; each
//! pack is fetched and opened once, packs in parallel; each file is proved by its SHA-256 before it gets its name. What
//! cannot be got back is named, and everything else is got back.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use providers::{KeyError, ObjectStore};
use tokio::runtime::Handle;

use crate::catalog::{self, CatalogError, Stored};
use crate::entry::{EntryKind, EntryPath};
use crate::format::Sha256;
use crate::format::entries::{EntryLine, EntryLineError};
use crate::format::manifest::{Manifest, ManifestError};
use crate::format::names::{self, ChainFolder};
use crate::format::tar;
use crate::ids::{GenerationId, SiteName, SourceName};
use crate::keys::Identities;
use crate::progress::{Progress, Stage};
use crate::staging::{LocalGeneration, StagingError};

mod extract;
mod local;
mod packs;
mod plan;
mod select;
mod target;

pub use extract::BadPack;
pub use packs::PackError;
pub use select::{PathPattern, PathPatternError};

use extract::Sink;
use packs::Packs;
use plan::Wanted;
use target::{Files, Target};

/// Largest manifest that is opened, unpacked: about ten million extents.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Largest list of entries that is read.
const ENTRIES_BYTES_MAX: u64 = 8 << 30;

/// What to restore, and where to.
#[derive(Clone, Copy, Debug)]
pub struct RestoreRequest<'a> {
    /// The folder to restore to; made if it is not there.
    pub to: &'a Path,
    /// Only this source.
    pub source: Option<&'a SourceName>,
    /// Only paths that match, `<source>/<path>`.
    pub paths: Option<&'a PathPattern>,
    /// Existing files may be replaced.
    pub overwrite: bool,
}

/// A generation in a store, and what is needed to read it.
#[derive(Clone, Copy)]
pub struct StoredOrigin<'a> {
    /// The store.
    pub store: &'a Arc<dyn ObjectStore>,
    /// The office.
    pub site: &'a SiteName,
    /// The generation, as the catalog has it.
    pub stored: &'a Stored,
    /// What opens it.
    pub identities: &'a Identities,
    /// Where requests run.
    pub runtime: &'a Handle,
}

/// What a restore did.
#[derive(Debug)]
pub struct RestoreReport {
    /// The generation.
    pub generation: GenerationId,
    /// Files in their places.
    pub files: u64,
    /// Bytes of content wanted.
    pub bytes: u64,
    /// What could not be had.
    pub lost: Vec<Lost>,
    /// Packs that were of no use.
    pub bad_packs: Vec<BadPack>,
    /// Some files belong to whoever restored them: setting owners is the administrator's right.
    pub other_owners: bool,
}

/// A file that could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its path in the generation.
    pub path: String,
    /// Why.
    pub why: String,
}

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
    #[error("the generation has nothing of that source or of those paths")]
    Nothing,
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
    #[error("the manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// The list of entries is not there.
    #[error("the list of what is in the generation cannot be had{}", first_bad(.0))]
    Entries(Vec<BadPack>),
    /// The list of entries cannot be used.
    #[error("the list of what is in the generation cannot be used")]
    EntryLine(#[from] EntryLineError),
    /// The list of entries contradicts the manifest.
    #[error("the list of what is in the generation makes no sense: {0}")]
    Sense(&'static str),
    /// The local generation cannot be read.
    #[error("the local generation cannot be read")]
    Staging(#[from] StagingError),
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
}

/// Restores from a store.
pub fn from_store(
    origin: &StoredOrigin<'_>,
    request: &RestoreRequest<'_>,
    progress: &Progress,
) -> Result<RestoreReport, RestoreError> {
    let folder = ChainFolder::new(origin.site, origin.stored.class, &origin.stored.chain)?;
    let manifest = read_manifest(origin, &folder)?;
    let target = Target::open(request.to, request.overwrite)?;
    let restored = restore_from_packs(origin, request, &folder, &manifest, &target, progress);
    let closed = target.close();
    let report = restored?;
    closed.map(|()| report)
}

/// Restores from a local generation.
pub fn from_local(
    generation: &LocalGeneration,
    request: &RestoreRequest<'_>,
    progress: &Progress,
) -> Result<RestoreReport, RestoreError> {
    local::restore(generation, request, progress)
}

fn restore_from_packs(
    origin: &StoredOrigin<'_>,
    request: &RestoreRequest<'_>,
    folder: &ChainFolder,
    manifest: &Manifest,
    target: &Target,
    progress: &Progress,
) -> Result<RestoreReport, RestoreError> {
    let packs = Packs {
        store: Arc::clone(origin.store),
        runtime: origin.runtime,
        folder,
        identities: origin.identities,
        kept: target.scratch(),
    };
    let lines = read_entries(&packs, manifest, target)?;
    let chosen = select::select(&lines, request)?;
    let bytes = chosen.files.iter().map(|(line, _)| select::content_bytes(line)).sum();
    progress.begin(Stage::Restoring, bytes);
    target.check_free(&chosen.all())?;
    for line in &chosen.folders {
        target.folder(line).map_err(|source| RestoreError::Target { path: request.to.to_owned(), source })?;
    }
    let files = Files::new(target, chosen.files, progress);
    files.create()?;
    let wanted: Vec<Wanted> = files
        .iter()
        .enumerate()
        .map(|(file, growing)| Wanted { from: growing.start, bytes: select::content_bytes(growing.line), file })
        .collect();
    let plan = plan::plan(manifest, &wanted);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bad_packs = extract::extract(&packs, manifest, &plan, target.scratch(), false, threads, &files);
    let why = bad_packs.first().map_or_else(
        || "a patch it needs cannot be applied".to_owned(),
        |bad| format!("`{}` is of no use: {}", bad.key, bad.error),
    );
    let (restored, mut lost) = files.finish(&why);
    lost.extend(select::finish(target, &chosen.links, &chosen.folders));
    let generation = manifest.head.generation.clone();
    Ok(RestoreReport { generation, files: restored, bytes, lost, bad_packs, other_owners: target.other_owners() })
}

/// Fetches, checks and opens the manifest of a generation whose document is genuine.
pub fn read_manifest(origin: &StoredOrigin<'_>, folder: &ChainFolder) -> Result<Manifest, RestoreError> {
    let generation = &origin.stored.generation;
    let refuse = |why: String| RestoreError::Refused { generation: generation.clone(), why };
    let commit = match (&origin.stored.commit, &origin.stored.trust) {
        (_, catalog::Trust::Refused(why)) => return Err(refuse(why.clone())),
        (Some(commit), _) => commit,
        (None, _) => return Err(refuse("it has no document".to_owned())),
    };
    let key = folder.object(generation, names::MANIFEST)?;
    let read = catalog::small(origin.store.as_ref(), &key, commit.manifest.bytes.min(MANIFEST_BYTES_MAX));
    let sealed = origin.runtime.block_on(read)?;
    let key = key.to_string();
    if Sha256::of(&sealed) != commit.manifest.sha256 {
        return Err(RestoreError::ManifestDigest(key));
    }
    let opened = origin.identities.open(sealed.as_slice());
    let opened = opened.map_err(|source| RestoreError::Decrypt { key: key.clone(), source })?;
    let unpack = || {
        let mut text = Vec::new();
        let mut unpacked = zstd::Decoder::new(opened)?;
        unpacked.window_log_max(packs::WINDOW_LOG_MAX)?;
        unpacked.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = unpack().map_err(|source| RestoreError::Unpack { key, source })?;
    let manifest = Manifest::decode(&text)?;
    let head = &manifest.head;
    if (&head.site, &head.chain, &head.generation) != (&commit.site, &commit.chain, &commit.generation) {
        return Err(refuse("its manifest is another generation's".to_owned()));
    }
    Ok(manifest)
}

/// The list of entries, with where in the stream each one's content begins.
fn read_entries(
    packs: &Packs<'_>,
    manifest: &Manifest,
    target: &Target,
) -> Result<Vec<(EntryLine, u64)>, RestoreError> {
    let head = &manifest.head;
    if head.entries_bytes > ENTRIES_BYTES_MAX {
        return Err(RestoreError::Sense("it is impossibly long"));
    }
    let list = List::new(head.entries_at, head.entries_bytes);
    let wanted = [Wanted { from: head.entries_at, bytes: head.entries_bytes, file: 0 }];
    let plan = plan::plan(manifest, &wanted);
    let bad = extract::extract(packs, manifest, &plan, target.scratch(), true, 1, &list);
    let text = list.bytes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if Sha256::of(&text) != head.entries_sha256 {
        return Err(RestoreError::Entries(bad));
    }
    let mut lines = Vec::new();
    let mut position = 0_u64;
    for text in text.split_inclusive(|b| *b == b'\n') {
        let line = EntryLine::decode(text)?;
        let content = select::content_bytes(&line);
        let start = position.checked_add(line.head).ok_or(RestoreError::Sense("its sizes overflow"))?;
        position = start
            .checked_add(content)
            .and_then(|end| end.checked_add(tar::padding(content) as u64))
            .filter(|end| *end <= head.stream_bytes)
            .ok_or(RestoreError::Sense("it names more bytes than the stream has"))?;
        lines.push((line, start));
    }
    check_paths(&lines)?;
    Ok(lines)
}

/// Each path once, each folder before what it holds, and nothing below a file or a link.
fn check_paths(lines: &[(EntryLine, u64)]) -> Result<(), RestoreError> {
    let mut folders: BTreeSet<&[u8]> = BTreeSet::new();
    let mut last: Option<&EntryPath> = None;
    for (line, _) in lines {
        let path = &line.entry.path;
        let bytes = path.as_bytes();
        let own = !bytes.contains(&b'/') && !matches!(line.entry.kind, EntryKind::Folder);
        if !own && last.is_some_and(|last| last >= path) {
            return Err(RestoreError::Sense("it names a path twice, or out of order"));
        }
        if let Some(end) = bytes.iter().rposition(|b| *b == b'/')
            && !folders.contains(bytes.get(..end).unwrap_or_default())
        {
            return Err(RestoreError::Sense("it names a path below something that is no folder"));
        }
        if matches!(line.entry.kind, EntryKind::Folder) {
            folders.insert(bytes);
        }
        if !own {
            last = Some(path);
        }
    }
    Ok(())
}

/// The list of entries as it is put together in memory.
struct List {
    at: u64,
    bytes: std::sync::Mutex<Vec<u8>>,
}

impl List {
    fn new(at: u64, bytes: u64) -> Self {
        Self { at, bytes: std::sync::Mutex::new(vec![0; usize::try_from(bytes).unwrap_or(0)]) }
    }
}

impl Sink for List {
    fn take(&self, _file: usize, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut list = self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = usize::try_from(at - self.at).map_err(std::io::Error::other)?;
        match list.get_mut(start..start + bytes.len()) {
            Some(place) => place.copy_from_slice(bytes),
            None => return Err(std::io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}

fn first_bad(bad: &[BadPack]) -> String {
    bad.first().map_or_else(String::new, |bad| format!(": `{}` is of no use: {}", bad.key, bad.error))
}
