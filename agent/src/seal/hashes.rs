//! The hashes of a local generation's files, kept beside it so that what did not change is not read or hashed again.
//!
//! A cache, local and disposable: each record is a path, a size, the SHA-256 of the content and the BLAKE3 of each chunk,
//! in stream order. The file is written under another name and renamed when it is whole.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::entry::EntryPath;
use crate::format::{CHUNK_BYTES_MAX, Sha256};
use crate::state::ChunkHash;

const MAGIC: &[u8; 16] = b"offsite hashes 1";

/// Name of the cache in the folder of a local generation.
pub(super) const CACHE: &str = "hashes";

/// What is known of one file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileHashes {
    pub(super) bytes: u64,
    pub(super) sha256: Option<Sha256>,
    pub(super) chunks: Vec<ChunkHash>,
}

/// Reads a cache in step with the stream.
pub(super) struct HashReader {
    input: BufReader<File>,
    next: Option<(EntryPath, FileHashes)>,
}

/// Writes a cache.
pub(super) struct HashWriter {
    output: BufWriter<File>,
    draft: PathBuf,
    path: PathBuf,
}

/// How many chunks a file of `bytes` bytes has.
pub(super) fn chunk_count(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_BYTES_MAX as u64)
}

impl HashReader {
    /// Opens the cache at `path`; `None` if there is none that is whole.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let mut input = BufReader::with_capacity(256 << 10, File::open(path).ok()?);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).ok()?;
        if &magic != MAGIC {
            return None;
        }
        let mut reader = Self { input, next: None };
        reader.advance();
        Some(reader)
    }

    /// What is known of `path`. Paths are asked for in stream order.
    pub(super) fn find(&mut self, path: &EntryPath) -> Option<FileHashes> {
        while self.next.as_ref().is_some_and(|(next, _)| next < path) {
            self.advance();
        }
        if self.next.as_ref().is_some_and(|(next, _)| next == path) {
            let found = self.next.take().map(|(_, hashes)| hashes);
            self.advance();
            return found;
        }
        None
    }

    /// A cache that cannot be read is at its end: what it would have told is found out anew.
    fn advance(&mut self) {
        self.next = self.read().ok();
    }

    fn read(&mut self) -> io::Result<(EntryPath, FileHashes)> {
        let mut number = [0; 8];
        self.input.read_exact(&mut number)?;
        let path_bytes = u64::from_le_bytes(number);
        self.input.read_exact(&mut number)?;
        let bytes = u64::from_le_bytes(number);
        let mut sha256 = [0; 32];
        self.input.read_exact(&mut sha256)?;
        let mut path =
            vec![0; usize::try_from(path_bytes).ok().filter(|n| *n < 1 << 20).ok_or(io::ErrorKind::InvalidData)?];
        self.input.read_exact(&mut path)?;
        let path = EntryPath::new(path).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut chunks = Vec::new();
        for _ in 0..chunk_count(bytes) {
            let mut hash = [0; 32];
            self.input.read_exact(&mut hash)?;
            chunks.push(hash);
        }
        Ok((path, FileHashes { bytes, sha256: Some(Sha256(sha256)), chunks }))
    }
}

impl HashWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let draft = path.with_extension("new");
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut output = BufWriter::with_capacity(256 << 10, durable::create_new(&draft)?);
        output.write_all(MAGIC)?;
        Ok(Self { output, draft, path: path.to_owned() })
    }

    /// Adds what is known of one file. Files come in stream order.
    pub(super) fn add(&mut self, path: &EntryPath, hashes: &FileHashes, sha256: &Sha256) -> io::Result<()> {
        self.output.write_all(&(path.as_bytes().len() as u64).to_le_bytes())?;
        self.output.write_all(&hashes.bytes.to_le_bytes())?;
        self.output.write_all(&sha256.0)?;
        self.output.write_all(path.as_bytes())?;
        hashes.chunks.iter().try_for_each(|hash| self.output.write_all(hash))
    }

    /// Makes the cache whole, and on disk before it has its name: what a power cut leaves of it would be believed.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.output.flush()?;
        self.output.get_ref().sync_all()?;
        durable::rename(&self.draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_found_in_stream_order_and_a_damaged_end_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CACHE);
        let name = |n: u32| EntryPath::new(format!("docs/{n:03}")).unwrap();
        let known = |n: u32| FileHashes {
            bytes: u64::from(n) << 19,
            sha256: Some(Sha256::of(&n.to_le_bytes())),
            chunks: vec![[n as u8; 32]; chunk_count(u64::from(n) << 19) as usize],
        };
        let mut writer = HashWriter::create(&path).unwrap();
        for n in 0..100 {
            writer.add(&name(n), &known(n), &known(n).sha256.unwrap()).unwrap();
        }
        assert!(HashReader::open(&path).is_none(), "readable before it is whole");
        writer.finish().unwrap();

        let mut reader = HashReader::open(&path).unwrap();
        assert_eq!(reader.find(&name(3)), Some(known(3)));
        assert_eq!(reader.find(&EntryPath::new("docs/050x").unwrap()), None);
        assert_eq!(reader.find(&name(99)), Some(known(99)));
        assert_eq!(reader.find(&name(200)), None);

        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut reader = HashReader::open(&path).unwrap();
        assert_eq!((reader.find(&name(98)), reader.find(&name(99))), (Some(known(98)), None));
    }
}
