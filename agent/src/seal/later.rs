//! What increments of the chain brought whole, on this machine: old bytes that the full has not.
//!
//! Rows that were added since the full lie beyond its end, and most days change some of them. A reference may be any plain
//! content of the chain: it is there as it is, so the depth stays one. Where that is, the index of chunks knows by the hashes
//! that are kept beside each local generation; the bytes are those of the staged copy, as long as local retention keeps it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use super::SealError;
use super::hashes::{CACHE, HashReader};
use super::landmarks::same_place;
use crate::entry::EntryPath;
use crate::format::CHUNK_BYTES_MAX;
use crate::staging::LocalGeneration;
use crate::state::{ChainRecord, ChunkHash, State};

/// So many local generations are looked into, the newest ones.
pub(super) const GENERATIONS_MAX: usize = 16;

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

/// Local generations after the full, the newest first, with their hashes in step with the stream.
pub(super) struct Later(Vec<(LocalGeneration, HashReader)>);

/// One file in one of them.
pub(super) struct LaterFile {
    generation: LocalGeneration,
    path: EntryPath,
    bytes: u64,
    chunks: Vec<ChunkHash>,
    /// Opened when it is needed.
    file: Option<File>,
}

impl Later {
    /// Those of `generations`, which are in the order of time, whose hashes were kept.
    pub(super) fn open(generations: &[LocalGeneration]) -> Self {
        let newest = generations.iter().rev().take(GENERATIONS_MAX);
        Self(newest.filter_map(|g| Some((g.clone(), HashReader::open(&g.cache_path(CACHE))?))).collect())
    }

    /// The files at `path`. Paths are asked for in stream order, each once.
    pub(super) fn find(&mut self, path: &EntryPath) -> Vec<LaterFile> {
        let file = |(generation, hashes): &mut (LocalGeneration, HashReader)| {
            let found = hashes.find(path)?;
            let (generation, path) = (generation.clone(), path.clone());
            Some(LaterFile { generation, path, bytes: found.bytes, chunks: found.chunks, file: None })
        };
        self.0.iter_mut().filter_map(file).collect()
    }
}

impl LaterFile {
    /// Fills `into` with the chunk at `at`, and answers with its position, if an increment brought it whole and `content` has
    /// something in common with it. What cannot be read or proved is none.
    pub(super) fn reference(
        &mut self,
        at: u64,
        content: &[u8],
        state: &State,
        chain: &ChainRecord,
        into: &mut Vec<u8>,
    ) -> Result<Option<u64>, SealError> {
        let hash = usize::try_from(at / CHUNK).ok().and_then(|index| self.chunks.get(index)).copied();
        let Some(hash) = hash else { return Ok(None) };
        // What the origin has is looked for there, where more than a chunk is at hand.
        let Some(position) = state.find_plain(chain, &hash)?.filter(|position| *position >= chain.full_bytes) else {
            return Ok(None);
        };
        let proved = self.read(at, into) && blake3::hash(into) == hash && same_place(into, content);
        Ok(proved.then_some(position))
    }

    fn read(&mut self, at: u64, into: &mut Vec<u8>) -> bool {
        if self.file.is_none() {
            self.file = self.generation.open_file(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        let wanted = (self.bytes - at.min(self.bytes)).min(CHUNK);
        into.clear();
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.take(wanted).read_to_end(into));
        read.is_ok_and(|read| read as u64 == wanted)
    }
}
