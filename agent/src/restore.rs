//! Getting a generation back, from a store or from staging: whole, one source, or files by pattern.
//!
//! Planned first, then executed: the manifest and the list of entries say which pieces of which packs are needed; each
//! pack is fetched and opened once, packs in parallel; each file is proved by its SHA-256 before it gets its name. What
//! cannot be got back is named, and everything else is got back.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use providers::{ErrorKind, ObjectStore};
use tokio::runtime::Handle;

use crate::catalog::{self, Stored};
use crate::format::Sha256;
use crate::format::commit::Commit;
use crate::format::manifest::Manifest;
use crate::format::names::{self, ChainFolder};
use crate::ids::{GenerationId, SiteName, SourceName};
use crate::keys::Identities;
use crate::progress::{Progress, Stage};
use crate::staging::LocalGeneration;

mod error;
mod extract;
mod list;
mod local;
mod packs;
mod plan;
mod proof;
mod salvage;
mod select;
mod target;
mod unfinished;
mod unpack;

pub use error::{ListError, RestoreError};
pub use extract::BadPack;
pub use packs::PackError;
pub use select::{PathPattern, PathPatternError};
#[cfg(feature = "testing")]
pub use unpack::unpack_foreign;

use error::of_no_use;
use list::Lines;
use packs::{Packs, Purpose};
use plan::Wanted;
use select::Chosen;
use target::{Files, Target};

/// Largest manifest that is opened, unpacked: about ten million extents.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// Largest manifest that is fetched: one of that size, had it hardly been compressed.
const MANIFEST_SEALED_MAX: u64 = 256 << 20;
/// How many times larger than sealed a manifest may be: ten times what was ever seen.
const MANIFEST_GROWTH_MAX: u64 = 256;
/// What every manifest may have, however small it is when sealed.
const MANIFEST_BYTES_FREE: u64 = 1 << 20;

/// The folder in that of a restore in which files lie, under numbers, until they are proved.
pub const UNFINISHED: &str = ".offsite-restoring";

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
    /// Bytes of their content.
    pub bytes: u64,
    /// What could not be had.
    pub lost: Vec<Lost>,
    /// Packs that were of no use.
    pub bad_packs: Vec<BadPack>,
    /// Every file in its place was proved by its own SHA-256. Otherwise that was not known: a local generation was never
    /// sealed, or the list was lost, and the files were put together from packs that are proved as a whole.
    pub proved_by_file: bool,
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
    let closed = target.close(restored.is_ok());
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
    let generation = &manifest.head.generation;
    let bad = match list::read(&packs, manifest)? {
        Ok(lines) => return place(&packs, request, manifest, target, &lines, progress),
        Err(bad) => bad,
    };
    target.check_room(&bad)?;
    // A store that cannot be reached is no loss; only what is not there, or not whole, is done without.
    let lost = |bad: &BadPack| !matches!(&bad.error, PackError::Store(error) if error.kind != ErrorKind::NotFound);
    if !bad.iter().all(lost) {
        return Err(RestoreError::Entries { generation: generation.clone(), bad });
    }
    tracing::warn!(%generation, "the list of what is in it is lost; what is left is looked through");
    let salvaged = salvage::salvage(&packs, manifest, target)?;
    if salvaged.lines.is_empty() {
        return Err(RestoreError::Entries { generation: generation.clone(), bad });
    }
    let chosen = select::select(&salvaged.lines, request)?;
    target.check_room(&salvaged.bad_packs)?;
    let files = begin(target, &chosen, progress)?;
    salvaged.fill(&files);
    let why = |_| salvaged.bad_packs.first().map(of_no_use);
    let mut report = finish(files, generation, target, &chosen, why);
    report.lost.extend(salvaged.nameless());
    Ok(RestoreReport { bad_packs: salvaged.bad_packs, ..report })
}

/// Restores what is wanted of `lines`, pack by pack.
fn place(
    packs: &Packs<'_>,
    request: &RestoreRequest<'_>,
    manifest: &Manifest,
    target: &Target,
    lines: &Lines,
    progress: &Progress,
) -> Result<RestoreReport, RestoreError> {
    let chosen = select::select(lines, request)?;
    let files = begin(target, &chosen, progress)?;
    let wanted: Vec<Wanted> = files
        .iter()
        .enumerate()
        .map(|(file, growing)| Wanted { from: growing.start, bytes: select::content_bytes(growing.line), file })
        .collect();
    let plan = plan::plan(manifest, &wanted);
    let mut bad_packs = extract::extract(packs, manifest, &plan, Purpose::Files, &files);
    target.check_room(&bad_packs)?;
    bad_packs.extend(extract::to_blame(packs, manifest, &plan, &files.refuted()));
    let mut harmed = BTreeMap::new();
    for bad in &bad_packs {
        for (file, ..) in plan.served_by(bad.index) {
            harmed.entry(file).or_insert(bad);
        }
    }
    let why = |file| harmed.get(&file).map(|bad| of_no_use(bad));
    let report = finish(files, &manifest.head.generation, target, &chosen, why);
    Ok(RestoreReport { bad_packs, ..report })
}

/// Makes sure that nothing is in the way, then makes the folders, and the files under their numbers.
fn begin<'a>(target: &'a Target, chosen: &Chosen<'a>, progress: &'a Progress) -> Result<Files<'a>, RestoreError> {
    let bytes = chosen.files.iter().map(|(line, _)| select::content_bytes(line)).sum();
    progress.begin(Stage::Restoring, bytes);
    target.check_free(&chosen.all())?;
    target.warn_of_little_room(&chosen.files);
    for line in &chosen.folders {
        target.folder(line).map_err(|source| target.error(source))?;
    }
    let files = Files::new(target, chosen.files.clone(), progress);
    files.create()?;
    Ok(files)
}

/// Links and folders, when all files are done; `why` tells what became of a file that is not whole, if that is known.
fn finish(
    files: Files<'_>,
    generation: &GenerationId,
    target: &Target,
    chosen: &Chosen<'_>,
    why: impl Fn(usize) -> Option<String>,
) -> RestoreReport {
    let (files, bytes, mut lost) = files.finish(why);
    lost.extend(select::finish(target, &chosen.links, &chosen.folders));
    RestoreReport {
        generation: generation.clone(),
        files,
        bytes,
        lost,
        bad_packs: Vec::new(),
        proved_by_file: chosen.files.iter().all(|(line, _)| line.sha256.is_some()),
        other_owners: target.other_owners(),
    }
}

/// Fetches, checks and opens the manifest of a generation whose document is genuine.
pub fn read_manifest(origin: &StoredOrigin<'_>, folder: &ChainFolder) -> Result<Manifest, RestoreError> {
    let generation = &origin.stored.generation;
    let refuse = |why: String| RestoreError::Refused { generation: generation.clone(), why };
    let commit = match (&origin.stored.commit, &origin.stored.trust) {
        (_, catalog::Trust::Refused(why) | catalog::Trust::Unreadable(why)) => return Err(refuse(why.clone())),
        (Some(commit), _) => commit,
        (None, _) => return Err(refuse("it has no document".to_owned())),
    };
    let key = folder.object(generation, names::MANIFEST)?;
    let read = catalog::small(origin.store.as_ref(), &key, commit.manifest.bytes.min(MANIFEST_SEALED_MAX));
    let sealed = origin.runtime.block_on(read)?;
    let key = key.to_string();
    if Sha256::of(&sealed) != commit.manifest.sha256 {
        return Err(RestoreError::ManifestDigest(key));
    }
    let opened = origin.identities.open(sealed.as_slice());
    let opened = opened.map_err(|source| RestoreError::Decrypt { key: key.clone(), source })?;
    let limit = (MANIFEST_BYTES_FREE + MANIFEST_GROWTH_MAX * sealed.len() as u64).min(MANIFEST_BYTES_MAX);
    let unpack = || {
        let mut text = Vec::new();
        let mut unpacked = zstd::Decoder::new(opened)?;
        unpacked.window_log_max(packs::WINDOW_LOG_MAX)?;
        unpacked.take(limit + 1).read_to_end(&mut text)?;
        if text.len() as u64 > limit {
            return Err(std::io::Error::other("it becomes far larger than any manifest of this program"));
        }
        Ok(text)
    };
    let text = unpack().map_err(|source| RestoreError::Unpack { key: key.clone(), source })?;
    let manifest = Manifest::decode(&text).map_err(|source| RestoreError::Manifest { key, source })?;
    let head = &manifest.head;
    let said = (&head.site, head.class, &head.chain, &head.generation, head.number, head.stream_bytes);
    let Commit { site, class, chain, generation, number, stream_bytes, .. } = commit;
    if said != (site, *class, chain, generation, *number, *stream_bytes) {
        return Err(refuse("its manifest is another generation's".to_owned()));
    }
    Ok(manifest)
}
