//! The content of one file: read once, hashed once, and hashed for people only if it changed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use sha2::Digest as _;

use super::Feeder;
use crate::entry::EntryPath;
use crate::format::{CHUNK_BYTES_MAX, Sha256};
use crate::seal::SealError;
use crate::seal::hashes::FileHashes;
use crate::seal::later::LaterFile;
use crate::seal::reference::{OldFile, Reference};
use crate::state::ChunkHash;

/// SHA-256 of a file, begun only when the file turns out to have changed: BLAKE3 tells that at a quarter of the cost.
enum LazySha256 {
    /// All chunks so far are those of the earlier file.
    Same(FileHashes),
    Running(sha2::Sha256),
}

/// So many new chunks of a file that the full does not know by name are looked for in its other files.
const LOOKS: u8 = 2;

/// What the chain's earlier generations have of a file, as far as it is on this machine.
pub(super) struct Old {
    full: Option<OldFile>,
    /// Found when they are first needed.
    later: Option<Vec<LaterFile>>,
    /// How often the full may still be searched for the file under another name.
    looks: u8,
}

impl Old {
    /// Of a staged file; `full` is the full's file of the same name.
    pub(super) fn of_file(full: Option<OldFile>) -> Self {
        let looks = if full.is_some() { 0 } else { LOOKS };
        Self { full, later: None, looks }
    }

    /// Of a list of the generation itself.
    pub(super) fn of_list(full: Option<OldFile>) -> Self {
        Self { full, later: Some(Vec::new()), looks: 0 }
    }
}

impl Feeder<'_> {
    /// Reads and hashes a file of which nothing is certain. `earlier` are the hashes of an earlier file at this path.
    pub(super) fn content(
        &mut self,
        path: &EntryPath,
        mut file: File,
        bytes: u64,
        earlier: Option<FileHashes>,
        mut old: Old,
    ) -> Result<FileHashes, SealError> {
        let mut sha256 = match earlier {
            Some(earlier) if earlier.bytes == bytes && earlier.sha256.is_some() => LazySha256::Same(earlier),
            _ => LazySha256::Running(sha2::Sha256::new()),
        };
        let mut hashes = FileHashes { bytes, ..FileHashes::default() };
        let mut at = 0;
        while at < bytes {
            let size = (bytes - at).min(CHUNK_BYTES_MAX as u64);
            let (mut content, from) = self.place(size)?;
            read(path, &mut file, size, &mut content)?;
            let new = content.get(from..).unwrap_or_default();
            let hash: ChunkHash = blake3::hash(new).into();
            sha256.add(hashes.chunks.len(), &hash, new, at, &mut file).map_err(|e| unreadable(path, e))?;
            hashes.chunks.push(hash);
            if self.request.delivery.is_plain_full() {
                self.read_in_place(hash, content, from)?;
            } else {
                self.chunk(path, bytes, hash, content, at, &mut old)?;
            }
            self.progress.add_done(size);
            at += size;
        }
        if file.read(&mut [0]).map_err(|e| unreadable(path, e))? != 0 {
            return Err(changed(path));
        }
        hashes.sha256 = Some(match sha256 {
            LazySha256::Running(running) => Sha256(running.finalize().into()),
            LazySha256::Same(earlier) => earlier.sha256.ok_or(SealError::Internal("a digest is missing"))?,
        });
        Ok(hashes)
    }

    /// A file whose hashes are certain: only what the chain has not is read, and proved to be what was hashed.
    pub(super) fn known_content(
        &mut self,
        path: &EntryPath,
        bytes: u64,
        known: FileHashes,
        mut old: Old,
    ) -> Result<FileHashes, SealError> {
        let mut file: Option<File> = None;
        let mut at = 0;
        for hash in &known.chunks {
            let size = (bytes - at).min(CHUNK_BYTES_MAX as u64);
            self.progress.add_done(size);
            if self.find(hash, size)? {
                at += size;
                continue;
            }
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(self.request.generation.open_file(path)?),
            };
            file.seek(SeekFrom::Start(at)).map_err(|e| unreadable(path, e))?;
            let mut content = self.buffer();
            read(path, file, size, &mut content)?;
            if blake3::hash(&content) != *hash {
                return Err(changed(path));
            }
            self.chunk(path, bytes, *hash, content, at, &mut old)?;
            at += size;
        }
        Ok(known)
    }

    /// A chunk of a file of `size` bytes, standing at `at`: what the chain has, a patch of what it has, or new.
    fn chunk(
        &mut self,
        path: &EntryPath,
        size: u64,
        hash: ChunkHash,
        content: Vec<u8>,
        at: u64,
        old: &mut Old,
    ) -> Result<(), SealError> {
        if (self.stop)() {
            return Err(SealError::Stopped);
        }
        if self.find(&hash, content.len() as u64)? {
            self.put_by(content);
            return Ok(());
        }
        if self.request.delivery.is_plain_full() {
            return self.plain(hash, content);
        }
        let mut bytes = self.buffer();
        match self.reference(path, size, &content, at, old, &mut bytes)? {
            Some(at) => self.patch(hash, content, Reference { at, bytes }),
            None => {
                self.put_by(bytes);
                self.plain(hash, content)
            }
        }
    }

    /// Fills `into` with old bytes of the chain that `content` seems to come from, and answers with their position.
    fn reference(
        &mut self,
        path: &EntryPath,
        size: u64,
        content: &[u8],
        at: u64,
        old: &mut Old,
        into: &mut Vec<u8>,
    ) -> Result<Option<u64>, SealError> {
        for later in old.later.get_or_insert_with(|| self.later.find(path)) {
            if let Some(position) = later.reference(at, content, &self.lookup, self.chain, into)? {
                return Ok(Some(position));
            }
        }
        if old.full.is_none() && old.looks > 0 {
            old.looks -= 1;
            old.full = self.moved.as_mut().and_then(|moved| moved.find(path, size, at, content, into));
        }
        match &mut old.full {
            Some(full) => full.reference(at, content, &self.lookup, self.chain, into),
            None => Ok(None),
        }
    }

    /// Where the next `size` bytes of a file are read to, and what there is already: all of a plain full goes into frames, so
    /// it is read to the end of the one that is being filled.
    fn place(&mut self, size: u64) -> Result<(Vec<u8>, usize), SealError> {
        if !self.request.delivery.is_plain_full() {
            return Ok((self.buffer(), 0));
        }
        self.make_room(usize::try_from(size).unwrap_or(usize::MAX))?;
        let content = match std::mem::take(&mut self.frame.content) {
            none if none.capacity() == 0 => self.buffer(),
            content => content,
        };
        let from = content.len();
        Ok((content, from))
    }

    /// A chunk of a plain full that was read to the end of its frame, at `from`: sealed before, or new.
    fn read_in_place(&mut self, hash: ChunkHash, mut content: Vec<u8>, from: usize) -> Result<(), SealError> {
        if (self.stop)() {
            return Err(SealError::Stopped);
        }
        let bytes = content.len() - from;
        let sealed_before = self.find(&hash, bytes as u64)?;
        if sealed_before {
            content.truncate(from);
        }
        self.frame.content = content;
        if sealed_before { Ok(()) } else { self.in_frame(hash, bytes) }
    }
}

/// Appends the next `size` bytes of a file, at most a chunk.
fn read(path: &EntryPath, file: &mut File, size: u64, to: &mut Vec<u8>) -> Result<(), SealError> {
    to.reserve(usize::try_from(size).unwrap_or(CHUNK_BYTES_MAX));
    let read = file.take(size).read_to_end(to).map_err(|e| unreadable(path, e))?;
    if read as u64 == size { Ok(()) } else { Err(changed(path)) }
}

impl LazySha256 {
    /// Takes the next chunk. When the first one differs, what was passed over is read again.
    fn add(&mut self, index: usize, hash: &ChunkHash, content: &[u8], at: u64, file: &mut File) -> io::Result<()> {
        if let Self::Same(earlier) = self {
            if earlier.chunks.get(index) == Some(hash) {
                return Ok(());
            }
            let mut running = sha2::Sha256::new();
            let resume = file.stream_position()?;
            file.seek(SeekFrom::Start(0))?;
            let mut before = file.take(at);
            let mut buffer = vec![0; 256 << 10];
            loop {
                let read = before.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                running.update(buffer.get(..read).unwrap_or_default());
            }
            file.seek(SeekFrom::Start(resume))?;
            *self = Self::Running(running);
        }
        if let Self::Running(running) = self {
            running.update(content);
        }
        Ok(())
    }
}

fn unreadable(path: &EntryPath, source: io::Error) -> SealError {
    SealError::Read { path: path.to_string(), source }
}

fn changed(path: &EntryPath) -> SealError {
    SealError::Changed(path.to_string())
}
