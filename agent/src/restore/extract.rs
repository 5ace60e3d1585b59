//! Executing a plan: packs in parallel, each opened once; patches applied as soon as their reference is complete.

use std::cell::Cell;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::packs::{PackError, Packs};
use super::plan::{Goal, Patch, Piece, Plan};
use super::target::is_full;
use super::unpack::Unpacker;
use crate::failure::one_line;
use crate::format::manifest::{Manifest, Pack};
use crate::patch;
use crate::platform::place::{read_at, write_at};
use crate::platform::tree::Dir;

/// Who takes the bytes of files. Called from several threads at once; each byte of a file comes once.
pub(super) trait Sink: Sync {
    /// Bytes of the stream from `at` on, which belong to `file`.
    fn take(&self, file: usize, at: u64, bytes: &[u8]) -> std::io::Result<()>;
}

/// A pack that was of no use. What it should have given is missing from the files.
#[derive(Debug)]
pub struct BadPack {
    /// Its key in the store.
    pub key: String,
    /// Why.
    pub error: PackError,
    /// Its index in the manifest.
    pub(super) index: usize,
}

/// The reference of a patch, as far as it has come.
enum Gathered {
    Waiting,
    Partly { bytes: Vec<u8>, missing: u64 },
    Applied,
}

struct Extraction<'a> {
    packs: &'a Packs<'a>,
    manifest: &'a Manifest,
    plan: &'a Plan,
    sink: &'a dyn Sink,
    references: Vec<Mutex<Gathered>>,
    /// The content of patch packs, by index in the manifest.
    patches: Vec<(usize, File)>,
    bad: Mutex<Vec<BadPack>>,
    /// Something could not be written for lack of room.
    full: AtomicBool,
}

/// Reads everything in `plan`, and answers with the packs that were of no use. `keep` says which packs will be needed again.
pub(super) fn extract(
    packs: &Packs<'_>,
    manifest: &Manifest,
    plan: &Plan,
    scratch: &Dir,
    keep: bool,
    threads: usize,
    sink: &dyn Sink,
) -> Vec<BadPack> {
    let references = plan.patches.iter().map(|_| Mutex::new(Gathered::Waiting)).collect();
    let mut extraction = Extraction {
        packs,
        manifest,
        plan,
        sink,
        references,
        patches: Vec::new(),
        bad: Mutex::default(),
        full: false.into(),
    };
    for index in &plan.patch_packs {
        extraction.fetch_patches(*index, scratch);
    }
    let next = AtomicUsize::new(0);
    let extraction = extraction;
    std::thread::scope(|scope| {
        for _ in 0..threads.min(plan.plain.len()) {
            scope.spawn(|| {
                let mut unpacker = Unpacker::new();
                // On a full disk, what is still to come has no place either.
                while !extraction.full.load(Ordering::Relaxed)
                    && let Some((index, pieces)) = plan.plain.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    extraction.plain(*index, pieces, keep, &mut unpacker);
                }
            });
        }
    });
    extraction.bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Extraction<'_> {
    fn fetch_patches(&mut self, index: usize, scratch: &Dir) {
        let Some(pack) = self.manifest.packs.get(index) else { return };
        let name = format!("patches-{index}");
        let fetched = scratch.create_part(name.as_bytes()).map_err(PackError::Write).and_then(|file| {
            self.packs.patches(pack, |at, bytes| write_at(&file, bytes, at).map_err(PackError::Write))?;
            scratch.remove_file(name.as_bytes()).map_err(PackError::Write)?;
            Ok(file)
        });
        match fetched {
            Ok(file) => self.patches.push((index, file)),
            Err(error) => self.report(index, pack, error),
        }
    }

    fn plain(&self, index: usize, pieces: &[Piece], keep: bool, unpacker: &mut Unpacker) {
        let Some(pack) = self.manifest.packs.get(index) else { return };
        // Pieces are sorted by where they begin and may overlap; those before `first` are done with.
        let first = Cell::new(0);
        let reached = |end: u64| {
            let open = pieces.get(first.get()..).unwrap_or_default();
            open.iter().take_while(move |piece| piece.from < end)
        };
        let wanted = |from: u64, to: u64| reached(to).any(|piece| piece.from + piece.bytes > from);
        let read = self.packs.plain(pack, keep, unpacker, wanted, |offset, bytes| {
            let end = offset + bytes.len() as u64;
            for piece in reached(end) {
                let from = piece.from.max(offset);
                let to = (piece.from + piece.bytes).min(end);
                if from < to {
                    let part = bytes.get(span(from - offset, to - offset)).unwrap_or_default();
                    self.give(&piece.goal, from - piece.from, part)?;
                }
            }
            first.set(first.get() + reached(end).take_while(|piece| piece.from + piece.bytes <= end).count());
            Ok(())
        });
        if let Err(error) = read {
            self.report(index, pack, error);
        }
    }

    /// `moved` is how far into its piece the part begins.
    fn give(&self, goal: &Goal, moved: u64, part: &[u8]) -> Result<(), PackError> {
        match *goal {
            Goal::File { file, at } => self.sink.take(file, at + moved, part).map_err(PackError::Write),
            Goal::Reference { patch, at } => self.gather(patch, at + moved, part),
        }
    }

    fn gather(&self, index: usize, at: u64, part: &[u8]) -> Result<(), PackError> {
        let (Some(patch), Some(gathered)) = (self.plan.patches.get(index), self.references.get(index)) else {
            return Ok(());
        };
        let mut gathered = gathered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(*gathered, Gathered::Waiting) {
            let missing = patch.extent.reference_bytes;
            *gathered = Gathered::Partly { bytes: vec![0; usize::try_from(missing).unwrap_or(0)], missing };
        }
        let Gathered::Partly { bytes, missing } = &mut *gathered else { return Ok(()) };
        if let Some(place) = bytes.get_mut(span(at, at + part.len() as u64)) {
            place.copy_from_slice(part);
            *missing = missing.saturating_sub(part.len() as u64);
        }
        if *missing > 0 {
            return Ok(());
        }
        let reference = std::mem::take(bytes);
        *gathered = Gathered::Applied;
        drop(gathered);
        self.apply(patch, &reference)
    }

    /// A patch that cannot be applied leaves its files incomplete; they are what is reported.
    fn apply(&self, patch: &Patch, reference: &[u8]) -> Result<(), PackError> {
        let extent = &patch.extent;
        let Some((_, file)) = self.patches.iter().find(|(index, _)| *index == extent.pack as usize) else {
            return Ok(());
        };
        let mut packed = vec![0; usize::try_from(extent.packed).unwrap_or(0)];
        let whole = read_at(file, &mut packed, extent.from).is_ok();
        let gives = usize::try_from(extent.gives).unwrap_or(0);
        let Some(given) = whole.then(|| patch::apply_patch(reference, &packed, gives).ok()).flatten() else {
            return Ok(());
        };
        for (from, bytes, file, at) in &patch.goals {
            let part = given.get(span(*from, from + bytes)).unwrap_or_default();
            self.sink.take(*file, *at, part).map_err(PackError::Write)?;
        }
        Ok(())
    }

    fn report(&self, index: usize, pack: &Pack, error: PackError) {
        let key = self.packs.folder.pack(&pack.name).map_or_else(|_| pack.name.to_string(), |key| key.to_string());
        if matches!(&error, PackError::Write(source) if is_full(source)) {
            self.full.store(true, Ordering::Relaxed);
        } else {
            tracing::warn!(pack = key, error = one_line(&error), "a pack is of no use");
        }
        self.bad.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(BadPack { key, error, index });
    }
}

/// A range for indexing; one that this machine cannot count is empty.
fn span(from: u64, to: u64) -> std::ops::Range<usize> {
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(from), Ok(to)) => from..to,
        _ => 0..0,
    }
}
