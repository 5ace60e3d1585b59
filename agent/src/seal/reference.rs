//! The chain's full on this machine: old bytes that new content may be a patch of.
//!
//! A patch is only as good as the reference that the restorer will have, which is the *stored* content. So old bytes count
//! only if the index of chunks knows them, and where it knows them is the position that the patch will name. Nothing has to
//! be known of where the staged copy's bytes were put when it was sealed, for which chain, and what became of its packs.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use super::SealError;
use super::landmarks::{Landmarks, same_place};
use crate::entry::{EntryKind, EntryPath};
use crate::format::CHUNK_BYTES_MAX;
use crate::patch::REFERENCE_MAX;
use crate::staging::{Entries, LocalGeneration};
use crate::state::{ChainRecord, State};

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

/// The full's files, in step with the stream.
pub(super) struct Full {
    generation: LocalGeneration,
    files: FullFiles,
    /// The file that comes next.
    next: Option<FullFile>,
}

/// A file of the full.
#[derive(Clone, Debug)]
pub(super) struct FullFile {
    pub(super) path: EntryPath,
    pub(super) bytes: u64,
}

/// All files of the full, in stream order. It ends at what cannot be read.
pub(super) struct FullFiles(Entries);

/// One file of the full.
pub(super) struct OldFile {
    file: File,
    bytes: u64,
    /// Built when content is not found at its old place.
    landmarks: Option<Landmarks>,
    /// Positions of its chunks, as far as they were looked for and found.
    positions: Vec<Option<u64>>,
}

/// Old bytes, and their position.
pub(super) struct Reference {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl FullFiles {
    /// Those of a local generation, in their order; `None` if it cannot be read.
    pub(super) fn of(generation: &LocalGeneration) -> Option<Self> {
        generation.entries().ok().map(Self)
    }
}

impl Iterator for FullFiles {
    type Item = FullFile;

    fn next(&mut self) -> Option<FullFile> {
        loop {
            let entry = self.0.next()?.ok()?.entry;
            if let EntryKind::File { bytes, .. } = entry.kind {
                return Some(FullFile { path: entry.path, bytes });
            }
        }
    }
}

impl Full {
    /// Opens the local generation that was sealed as the full. One that cannot be read is none: then nothing is patched.
    pub(super) fn open(generation: &LocalGeneration) -> Option<Self> {
        let mut files = FullFiles::of(generation)?;
        let next = files.next();
        Some(Self { generation: generation.clone(), files, next })
    }

    /// The full's file at `path`. Paths are asked for in stream order.
    pub(super) fn find(&mut self, path: &EntryPath) -> Option<OldFile> {
        while self.next.as_ref().is_some_and(|next| next.path < *path) {
            self.next = self.files.next();
        }
        let found = self.next.take_if(|next| next.path == *path)?;
        self.next = self.files.next();
        OldFile::open(&self.generation, &found)
    }

    /// The full's own list of this name, if it was kept.
    pub(super) fn list(&self, name: &str) -> Option<OldFile> {
        let file = File::open(self.generation.cache_path(name)).ok()?;
        let bytes = file.metadata().ok()?.len();
        Some(OldFile::new(file, bytes))
    }
}

impl OldFile {
    /// The staged copy of a file of the full; `None` if it cannot be opened.
    pub(super) fn open(full: &LocalGeneration, found: &FullFile) -> Option<Self> {
        full.open_file(&found.path).ok().map(|file| Self::new(file, found.bytes))
    }

    fn new(file: File, bytes: u64) -> Self {
        let chunks = usize::try_from(bytes.div_ceil(CHUNK)).unwrap_or(0);
        Self { file, bytes, landmarks: None, positions: vec![None; chunks] }
    }

    /// Whether `content`, which stands at `at` in a file of another name, seems to come from this one. Nothing is proved.
    pub(super) fn recognizes(&mut self, at: u64, content: &[u8], into: &mut Vec<u8>) -> bool {
        let place = at..(at + content.len() as u64).min(self.bytes);
        if !place.is_empty() && self.read(&place, into) && same_place(into, content) {
            return true;
        }
        if self.landmarks.is_none() {
            self.landmarks = self.file.rewind().and_then(|()| Landmarks::read(&mut self.file)).ok();
        }
        self.landmarks.as_ref().is_some_and(|landmarks| landmarks.locate(content).is_some())
    }

    /// Fills `into` with the old bytes that `content`, which stands at `at` in its file, seems to come from, and answers with
    /// their position in the full. Old bytes that cannot be read or proved are none.
    pub(super) fn reference(
        &mut self,
        at: u64,
        content: &[u8],
        state: &State,
        chain: &ChainRecord,
        into: &mut Vec<u8>,
    ) -> Result<Option<u64>, SealError> {
        if self.bytes <= REFERENCE_MAX as u64 {
            let all = 0..self.bytes;
            return if self.read(&all, into) { self.prove(&all, all.clone(), state, chain, into) } else { Ok(None) };
        }
        if at < self.bytes && self.landmarks.is_none() {
            let place = at..(at + content.len() as u64).min(self.bytes);
            let chunks = self.chunks_of(&place);
            if !self.read(&chunks, into) {
                return Ok(None);
            }
            if part(into, &chunks, &place).is_some_and(|range| same_place(into.get(range).unwrap_or_default(), content))
            {
                return self.prove(&chunks, place, state, chain, into);
            }
            let Ok(landmarks) = self.file.rewind().and_then(|()| Landmarks::read(&mut self.file)) else {
                return Ok(None);
            };
            self.landmarks = Some(landmarks);
        }
        let Some(run) = self.landmarks.as_ref().and_then(|landmarks| landmarks.locate(content)) else {
            return Ok(None);
        };
        let chunks = self.chunks_of(&run);
        if self.read(&chunks, into) { self.prove(&chunks, run, state, chain, into) } else { Ok(None) }
    }

    /// Leaves of `bytes`, which are those of `chunks`, those of `run`, and answers with their position, if the chain has
    /// these chunks as they are, one behind the other.
    fn prove(
        &mut self,
        chunks: &Range<u64>,
        run: Range<u64>,
        state: &State,
        chain: &ChainRecord,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<u64>, SealError> {
        let mut first = None;
        for (chunk, at) in bytes.chunks(CHUNK_BYTES_MAX).zip((chunks.start..).step_by(CHUNK_BYTES_MAX)) {
            let known = usize::try_from(at / CHUNK).ok().and_then(|index| self.positions.get_mut(index));
            let Some(known) = known else { return Ok(None) };
            if known.is_none() {
                *known = state.find_plain(chain, &blake3::hash(chunk).into())?;
            }
            let Some(position) = *known else { return Ok(None) };
            if position != *first.get_or_insert(position) + (at - chunks.start) {
                return Ok(None);
            }
        }
        let (Some(first), Some(range)) = (first, part(bytes, chunks, &run).filter(|range| !range.is_empty())) else {
            return Ok(None);
        };
        bytes.truncate(range.end);
        bytes.drain(..range.start);
        Ok(Some(first + (run.start - chunks.start)))
    }

    /// The whole chunks that `run` lies in.
    fn chunks_of(&self, run: &Range<u64>) -> Range<u64> {
        run.start / CHUNK * CHUNK..run.end.next_multiple_of(CHUNK).min(self.bytes)
    }

    /// Fills `into` with the bytes of `run`; says whether it could.
    fn read(&mut self, run: &Range<u64>, into: &mut Vec<u8>) -> bool {
        let Ok(wanted) = usize::try_from(run.end - run.start) else { return false };
        into.clear();
        into.reserve_exact(wanted);
        let file = &mut self.file;
        let read = file.seek(SeekFrom::Start(run.start)).and_then(|_| file.take(wanted as u64).read_to_end(into));
        read.is_ok_and(|read| read == wanted)
    }
}

/// Where in `bytes`, which are those of `chunks`, those of `run` lie.
fn part(bytes: &[u8], chunks: &Range<u64>, run: &Range<u64>) -> Option<Range<usize>> {
    let start = usize::try_from(run.start.checked_sub(chunks.start)?).ok()?;
    let end = usize::try_from(run.end.checked_sub(chunks.start)?).ok()?;
    (end <= bytes.len()).then_some(start..end)
}
