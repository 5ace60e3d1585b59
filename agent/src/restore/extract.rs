//! Executing a plan: packs in parallel, each opened once; patches applied as soon as their reference is complete.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

use super::packs::{PackError, Packs, Purpose};
use super::plan::{Goal, Patch, Piece, Plan};
use super::target::is_full;
use super::unpack::{Taker, Unpacker};
use crate::failure::one_line;
use crate::format::manifest::{Manifest, Pack};
use crate::patch;
use crate::platform::place::{read_at, write_at};

/// Frames that may wait for a thread to unpack them.
const PASSED: usize = 1;

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
    purpose: Purpose,
    sink: &'a dyn Sink,
    references: Vec<Mutex<Gathered>>,
    /// The content of patch packs, by index in the manifest.
    patches: Vec<(usize, File)>,
    bad: Mutex<Vec<BadPack>>,
    /// Something could not be written for lack of room.
    full: AtomicBool,
}

/// A pack while it is read, and what is wanted of it: pieces by where they begin, which may overlap.
struct Reading<'r, 'a> {
    extraction: &'a Extraction<'a>,
    index: usize,
    /// Without those that are done with.
    pieces: &'a [Piece],
    passing: &'r Passing<'a>,
}

/// A frame of a pack on its way to a thread that has no pack to read.
struct Passed<'a> {
    index: usize,
    pieces: &'a [Piece],
    offset: u64,
    content: usize,
    frame: Vec<u8>,
}

/// How frames get to those threads.
struct Passing<'a> {
    frames: SyncSender<Passed<'a>>,
    /// How many more may be on their way.
    room: &'a AtomicUsize,
}

/// Reads everything in `plan`, and answers with the packs that were of no use.
pub(super) fn extract(
    packs: &Packs<'_>,
    manifest: &Manifest,
    plan: &Plan,
    purpose: Purpose,
    sink: &dyn Sink,
) -> Vec<BadPack> {
    let references = plan.patches.iter().map(|_| Mutex::new(Gathered::Waiting)).collect();
    let mut extraction = Extraction {
        packs,
        manifest,
        plan,
        purpose,
        sink,
        references,
        patches: Vec::new(),
        bad: Mutex::default(),
        full: false.into(),
    };
    for index in &plan.patch_packs {
        extraction.fetch_patches(*index);
    }
    let extraction = extraction;
    if !plan.plain.is_empty() {
        extraction.in_parallel();
    }
    extraction.bad.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Of the packs that serve `files`, whose digests are not what they should be, those that are not what the generation names.
pub(super) fn to_blame(packs: &Packs<'_>, manifest: &Manifest, plan: &Plan, files: &BTreeSet<usize>) -> Vec<BadPack> {
    let serves = |index: &usize| plan.served_by(*index).any(|(file, ..)| files.contains(&file));
    let serving = manifest.packs.iter().enumerate().filter(|(index, _)| !files.is_empty() && serves(index));
    serving.filter_map(|(index, pack)| Some(BadPack::new(packs, index, pack, packs.prove(pack).err()?))).collect()
}

impl BadPack {
    fn new(packs: &Packs<'_>, index: usize, pack: &Pack, error: PackError) -> Self {
        let key = packs.folder.pack(&pack.name).map_or_else(|_| pack.name.to_string(), |key| key.to_string());
        Self { key, error, index }
    }
}

impl Extraction<'_> {
    /// Packs are read by half of the threads; the others unpack what those pass on, and so do they when all are read. So the
    /// last packs keep every thread busy, and the content of a file comes nearly in order.
    fn in_parallel(&self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (next, room) = (AtomicUsize::new(0), AtomicUsize::new(PASSED));
        let (frames, passed) = mpsc::sync_channel(PASSED);
        let passed = Mutex::new(passed);
        std::thread::scope(|scope| {
            for n in 0..threads {
                let passing = (n < threads.div_ceil(2)).then(|| Passing { frames: frames.clone(), room: &room });
                scope.spawn(|| self.work(&next, passing, &passed, &room));
            }
            drop(frames);
        });
    }

    fn work<'b>(
        &'b self,
        next: &AtomicUsize,
        passing: Option<Passing<'b>>,
        passed: &Mutex<Receiver<Passed<'b>>>,
        room: &AtomicUsize,
    ) {
        let mut unpacker = Unpacker::new();
        if let Some(passing) = passing {
            // On a full disk, what is still to come has no place either.
            while !self.full.load(Ordering::Relaxed)
                && let Some((index, pieces)) = self.plan.plain.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let reading = Reading { extraction: self, index: *index, pieces, passing: &passing };
                self.read(reading, &mut unpacker);
            }
        }
        loop {
            let frame = passed.lock().unwrap_or_else(PoisonError::into_inner).recv();
            // Nobody reads any more.
            let Ok(frame) = frame else { break };
            room.fetch_add(1, Ordering::Relaxed);
            self.unpack(&frame, &mut unpacker);
        }
    }

    fn fetch_patches(&mut self, index: usize) {
        let Some(pack) = self.manifest.packs.get(index) else { return };
        let scratch = self.packs.kept;
        let name = format!("patches-{index}");
        let fetched = scratch.create_part(name.as_bytes()).map_err(PackError::Write).and_then(|file| {
            self.packs.patches(pack, self.purpose, |at, bytes| write_at(&file, bytes, at).map_err(PackError::Write))?;
            scratch.remove_file(name.as_bytes()).map_err(PackError::Write)?;
            Ok(file)
        });
        match fetched {
            Ok(file) => self.patches.push((index, file)),
            Err(error) => self.report(index, pack, error),
        }
    }

    fn read<'b>(&'b self, mut reading: Reading<'_, 'b>, unpacker: &mut Unpacker) {
        let Some(pack) = self.manifest.packs.get(reading.index) else { return };
        if let Err(error) = self.packs.plain(pack, self.purpose, unpacker, &mut reading) {
            self.report(reading.index, pack, error);
        }
    }

    fn unpack(&self, passed: &Passed<'_>, unpacker: &mut Unpacker) {
        let content = unpacker.frame(&passed.frame, passed.content);
        let given = content.and_then(|content| self.give_all(passed.pieces, passed.offset, content));
        if let (Err(error), Some(pack)) = (given, self.manifest.packs.get(passed.index)) {
            self.report(passed.index, pack, error);
        }
    }

    /// Gives content of a pack, from `offset` on, to whom it belongs.
    fn give_all(&self, pieces: &[Piece], offset: u64, content: &[u8]) -> Result<(), PackError> {
        let end = offset + content.len() as u64;
        for piece in reached(pieces, end) {
            let from = piece.from.max(offset);
            let to = (piece.from + piece.bytes).min(end);
            if from < to {
                let part = content.get(span(from - offset, to - offset)).unwrap_or_default();
                self.give(&piece.goal, from - piece.from, part)?;
            }
        }
        Ok(())
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
        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
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
        let bad = BadPack::new(self.packs, index, pack, error);
        if matches!(&bad.error, PackError::Write(source) if is_full(source)) {
            self.full.store(true, Ordering::Relaxed);
        } else {
            tracing::warn!(pack = bad.key, error = one_line(&bad.error), "a pack is of no use");
        }
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).push(bad);
    }
}

impl Reading<'_, '_> {
    fn done_with(&mut self, end: u64) {
        let done = reached(self.pieces, end).take_while(|piece| piece.from + piece.bytes <= end).count();
        self.pieces = self.pieces.get(done..).unwrap_or_default();
    }
}

impl Taker for Reading<'_, '_> {
    fn wants(&self, from: u64, to: u64) -> bool {
        reached(self.pieces, to).any(|piece| piece.from + piece.bytes > from)
    }

    fn passes_on(&mut self, offset: u64, content: usize, frame: &[u8]) -> bool {
        let room = self.passing.room;
        if room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_err() {
            return false;
        }
        let passed = Passed { index: self.index, pieces: self.pieces, offset, content, frame: frame.to_vec() };
        let taken = self.passing.frames.send(passed).is_ok();
        self.done_with(offset + content as u64);
        taken
    }

    fn take(&mut self, offset: u64, content: &[u8]) -> Result<(), PackError> {
        self.extraction.give_all(self.pieces, offset, content)?;
        self.done_with(offset + content.len() as u64);
        Ok(())
    }
}

/// Those of the pieces, sorted by where they begin, that begin before `end`.
fn reached(pieces: &[Piece], end: u64) -> impl Iterator<Item = &Piece> {
    pieces.iter().take_while(move |piece| piece.from < end)
}

/// A range for indexing; one that this machine cannot count is empty.
fn span(from: u64, to: u64) -> std::ops::Range<usize> {
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(from), Ok(to)) => from..to,
        _ => 0..0,
    }
}
