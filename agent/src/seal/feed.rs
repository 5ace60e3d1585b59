//! The feeder: walks a generation as one tar stream, cuts it into chunks, and deals out what the chain has not.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use self::content::Old;
use super::hashes::{CACHE, FileHashes, HashReader, HashWriter};
use super::later::Later;
use super::moved::Moved;
use super::pool::{Dealer, Item, Job, Work};
use super::reference::{Full, Reference};
use super::writer::patch_extent;
use super::{SealError, SealRequest};
use crate::durable;
use crate::entry::{Entry, EntryKind, EntryPath, Mtime};
use crate::format::entries::{ENTRIES, EntryLine, GENERATION, SUMS, sum_line};
use crate::format::manifest::Extent;
use crate::format::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX, Sha256, tar};
use crate::progress::Progress;
use crate::state::{ChainRecord, ChunkHash, Location, State};

mod content;

/// A frame is dealt out when this many runs of the stream wait for it, however small it is.
const ITEMS_MAX: usize = 4096;

/// So many buffers are kept at hand.
const IDLE_MAX: usize = 4;

/// What the feeder found out about the stream.
pub(super) struct Fed {
    pub(super) stream_bytes: u64,
    pub(super) entries_at: u64,
    pub(super) entries_bytes: u64,
    pub(super) entries_sha256: Sha256,
}

struct Feeder<'a> {
    request: &'a SealRequest<'a>,
    chain: &'a ChainRecord,
    lookup: State,
    dealer: Dealer,
    progress: &'a Progress,
    /// Whether nobody wants the stream any more.
    stop: &'a (dyn Fn() -> bool + Sync),
    /// Where in the stream the next byte stands.
    position: u64,
    /// Bytes between contents of files: headers and padding.
    glue: Vec<u8>,
    /// Most content of a frame that more than one chunk shares.
    frame_bytes: usize,
    /// New plain content that is not yet worth a frame of its own.
    frame: Work,
    items: Vec<Item>,
    next_slot: u64,
    full: Option<Full>,
    moved: Option<Moved>,
    later: Later,
    /// Buffers that were not needed.
    idle: Vec<Vec<u8>>,
}

/// Walks the whole generation.
pub(super) fn feed(
    request: &SealRequest<'_>,
    pack_bytes: u64,
    lookup: State,
    dealer: Dealer,
    progress: &Progress,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Fed, SealError> {
    let full = request.full.filter(|_| !request.delivery.is_plain_full());
    let moved = full.map(|full| Moved::new(full, request.generation));
    let frame = Work { slot: 0, content: Vec::new(), chunks: Vec::new(), reference: None, output: Vec::new() };
    let mut feeder = Feeder {
        request,
        chain: &request.delivery.chain,
        lookup,
        dealer,
        progress,
        stop,
        position: 0,
        glue: Vec::new(),
        frame_bytes: usize::try_from(pack_bytes).unwrap_or(FRAME_BYTES_MAX).min(FRAME_BYTES_MAX),
        frame,
        items: Vec::new(),
        next_slot: 1,
        full: full.and_then(Full::open),
        moved,
        later: Later::open(request.later),
        idle: Vec::new(),
    };
    feeder.walk()
}

impl Feeder<'_> {
    fn walk(&mut self) -> Result<Fed, SealError> {
        let generation = self.request.generation;
        let cache = |name: &str| generation.cache_path(name);
        let mut lists = Lists::create(&cache(SUMS), &cache(ENTRIES), &cache(CACHE))?;
        let mut own = HashReader::open(&cache(CACHE));
        let mut earlier = self.request.previous.and_then(|previous| HashReader::open(&previous.cache_path(CACHE)));

        let document = generation.document_bytes()?;
        let time = generation.document()?.cut.not_after.as_second();
        self.list_entry(GENERATION, &document, time, &mut lists)?;
        for indexed in generation.entries()? {
            if (self.stop)() {
                return Err(SealError::Stopped);
            }
            let indexed = indexed?;
            let entry = &indexed.entry;
            let head = self.header(entry)?;
            let mut sha256 = None;
            if let EntryKind::File { bytes, .. } = entry.kind {
                let own = own.as_mut().and_then(|own| own.find(&entry.path));
                let earlier = earlier.as_mut().and_then(|earlier| earlier.find(&entry.path));
                let known = own.map(|known| (known, true)).or_else(|| earlier.map(|known| (known, indexed.linked)));
                let known = known.filter(|(known, _)| known.bytes == bytes);
                let hashes = self.file(&entry.path, bytes, known)?;
                sha256 = hashes.sha256;
                lists.hashes(&entry.path, &hashes)?;
            }
            lists.add(&EntryLine { entry: indexed.entry, head, sha256 })?;
        }
        drop((own, earlier));
        let (sums, entries) = lists.finish_sums()?;
        let line = self.list_file(SUMS, &sums, time)?;
        let entries = entries.finish(line)?;
        let line = self.list_file(ENTRIES, &entries, time)?;
        let EntryKind::File { bytes: entries_bytes, .. } = line.entry.kind else {
            return Err(SealError::Internal("a list is no file"));
        };
        let entries_at = self.position - entries_bytes;
        self.glue(&vec![0; tar::padding(entries_bytes)])?;
        self.glue(&tar::END)?;
        self.flush_glue()?;
        self.flush_frame()?;
        let entries_sha256 = line.sha256.ok_or(SealError::Internal("a list has no digest"))?;
        Ok(Fed { stream_bytes: self.position, entries_at, entries_bytes, entries_sha256 })
    }

    /// One of the generation's own documents, which is in memory.
    fn list_entry(&mut self, name: &str, content: &[u8], time: i64, lists: &mut Lists) -> Result<(), SealError> {
        let entry = own_entry(name, content.len() as u64, time)?;
        let head = self.header(&entry)?;
        for piece in content.chunks(CHUNK_BYTES_MAX) {
            self.new_chunk(blake3::hash(piece).into(), piece.to_vec())?;
        }
        self.pad(content.len() as u64)?;
        lists.add(&EntryLine { entry, head, sha256: Some(Sha256::of(content)) })
    }

    /// One of the lists, which lies beside the staged copy. Its padding is left to the caller's next header.
    fn list_file(&mut self, name: &str, path: &Path, time: i64) -> Result<EntryLine, SealError> {
        let bytes = std::fs::metadata(path).map_err(|e| cache_error(path, e))?.len();
        let entry = own_entry(name, bytes, time)?;
        let head = self.header(&entry)?;
        let file = File::open(path).map_err(|e| cache_error(path, e))?;
        let old = Old::of_list(self.full.as_ref().and_then(|full| full.list(name)));
        let hashes = self.content(&entry.path, file, bytes, None, old)?;
        if name != ENTRIES {
            self.pad(bytes)?;
        }
        Ok(EntryLine { entry, head, sha256: hashes.sha256 })
    }

    /// The content of a staged file, and the padding behind it. `known` are hashes from a cache, and whether the staged
    /// file is certainly the one that they were made of.
    fn file(
        &mut self,
        path: &EntryPath,
        bytes: u64,
        known: Option<(FileHashes, bool)>,
    ) -> Result<FileHashes, SealError> {
        let old = Old::of_file(self.full.as_mut().and_then(|full| full.find(path)));
        let hashes = match known {
            Some((known, true)) => self.known_content(path, bytes, known, old)?,
            known => {
                let file = self.request.generation.open_file(path)?;
                self.content(path, file, bytes, known.map(|(known, _)| known), old)?
            }
        };
        self.pad(bytes)?;
        Ok(hashes)
    }

    /// A header, which belongs to the glue before the content.
    fn header(&mut self, entry: &Entry) -> Result<u64, SealError> {
        let header = tar::header(entry);
        self.glue(&header)?;
        if matches!(entry.kind, EntryKind::File { bytes, .. } if bytes > 0) {
            self.flush_glue()?;
        }
        Ok(header.len() as u64)
    }

    fn pad(&mut self, bytes: u64) -> Result<(), SealError> {
        self.glue(&vec![0; tar::padding(bytes)])
    }

    fn glue(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        if self.glue.len() + bytes.len() > CHUNK_BYTES_MAX {
            self.flush_glue()?;
        }
        self.glue.extend_from_slice(bytes);
        Ok(())
    }

    fn flush_glue(&mut self) -> Result<(), SealError> {
        let glue = std::mem::take(&mut self.glue);
        if glue.is_empty() { Ok(()) } else { self.new_chunk(blake3::hash(&glue).into(), glue) }
    }

    /// A chunk whose content is at hand: a run of what the chain has, or new plain content.
    fn new_chunk(&mut self, hash: ChunkHash, content: Vec<u8>) -> Result<(), SealError> {
        if self.find(&hash, content.len() as u64)? { Ok(()) } else { self.plain(hash, content) }
    }

    /// Takes the next `bytes` bytes of the stream from what the chain has, if it has them.
    fn find(&mut self, hash: &ChunkHash, bytes: u64) -> Result<bool, SealError> {
        // A plain full is its packs in order, nothing left out: what was sealed before a crash is taken by position, not by hash.
        let known = if self.request.delivery.is_plain_full() {
            let sealed = self.chain.content_bytes.saturating_sub(self.position);
            if sealed > 0 && sealed < bytes {
                return Err(SealError::Internal("what was sealed before does not end where a chunk does"));
            }
            // By position, but only if it is what was sealed there: every chunk of a sealed pack is in the index.
            if sealed > 0 && self.lookup.find_chunk(self.chain, hash)?.is_none() {
                return Err(SealError::Changed(format!("at byte {} of the generation", self.position)));
            }
            (sealed > 0).then_some((Extent::Plain { from: self.position, bytes }, None))
        } else {
            self.lookup.find_chunk(self.chain, hash)?.map(|location| match location {
                Location::Plain(from) => (Extent::Plain { from, bytes }, None),
                Location::Patch { pack, patch, skip } => (Extent::Patch(patch_extent(&patch, skip, bytes)), Some(pack)),
            })
        };
        let Some((extent, pack)) = known else { return Ok(false) };
        self.item(Item::Known(extent, pack))?;
        self.position += bytes;
        Ok(true)
    }

    /// Adds new content to the frame that is being filled.
    fn plain(&mut self, hash: ChunkHash, mut content: Vec<u8>) -> Result<(), SealError> {
        let bytes = content.len();
        self.make_room(bytes)?;
        if self.frame.content.is_empty() {
            std::mem::swap(&mut self.frame.content, &mut content);
        } else {
            self.frame.content.extend_from_slice(&content);
        }
        self.put_by(content);
        self.in_frame(hash, bytes)
    }

    /// Deals the frame out that is being filled, if so many bytes more are too many for it.
    fn make_room(&mut self, bytes: usize) -> Result<(), SealError> {
        let is_full = self.frame.content.len() + bytes > self.frame_bytes;
        if is_full { self.flush_frame() } else { Ok(()) }
    }

    /// The last `bytes` bytes of the frame that is being filled are the next new chunk.
    fn in_frame(&mut self, hash: ChunkHash, bytes: usize) -> Result<(), SealError> {
        let from = (self.frame.content.len() - bytes) as u64;
        self.frame.chunks.push((hash, u32::try_from(bytes).map_err(|_| SealError::Internal("a chunk is too large"))?));
        self.position += bytes as u64;
        self.item(Item::New { slot: self.frame.slot, from, bytes: bytes as u64 })
    }

    /// Deals out a chunk that may be a patch.
    fn patch(&mut self, hash: ChunkHash, content: Vec<u8>, reference: Reference) -> Result<(), SealError> {
        let slot = self.next_slot;
        self.next_slot += 1;
        let bytes = content.len();
        self.position += bytes as u64;
        self.items.push(Item::New { slot, from: 0, bytes: bytes as u64 });
        let chunks = vec![(hash, u32::try_from(bytes).map_err(|_| SealError::Internal("a chunk is too large"))?)];
        let output = self.buffer();
        self.deal(Some(Work { slot, content, chunks, reference: Some(reference), output }))
    }

    /// An empty buffer, a used one if there is one: large allocations cost page faults.
    fn buffer(&mut self) -> Vec<u8> {
        self.idle.pop().unwrap_or_else(|| self.dealer.buffer())
    }

    /// Keeps a buffer that was not needed.
    fn put_by(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() >= CHUNK_BYTES_MAX && self.idle.len() < IDLE_MAX {
            buffer.clear();
            self.idle.push(buffer);
        }
    }

    fn item(&mut self, item: Item) -> Result<(), SealError> {
        self.items.push(item);
        if self.items.len() < ITEMS_MAX {
            return Ok(());
        }
        self.flush_frame()?;
        if self.items.is_empty() { Ok(()) } else { self.deal(None) }
    }

    fn flush_frame(&mut self) -> Result<(), SealError> {
        if self.frame.content.is_empty() {
            return if self.items.is_empty() { Ok(()) } else { self.deal(None) };
        }
        let output = self.buffer();
        let empty = Work { slot: self.next_slot, content: Vec::new(), chunks: Vec::new(), reference: None, output };
        self.next_slot += 1;
        let frame = std::mem::replace(&mut self.frame, empty);
        self.deal(Some(frame))
    }

    fn deal(&mut self, work: Option<Work>) -> Result<(), SealError> {
        let job = Job { items: std::mem::take(&mut self.items), work };
        if self.dealer.deal(job) { Ok(()) } else { Err(SealError::Stopped) }
    }
}

/// The lists that grow while the stream is walked. They lie beside the staged copy, never in the spool: they hold names.
struct Lists {
    sums: ListFile,
    entries: ListFile,
    hashes: HashWriter,
    hashes_path: std::path::PathBuf,
}

struct ListFile {
    path: std::path::PathBuf,
    draft: std::path::PathBuf,
    output: BufWriter<File>,
}

impl Lists {
    fn create(sums: &Path, entries: &Path, hashes: &Path) -> Result<Self, SealError> {
        Ok(Self {
            sums: ListFile::create(sums)?,
            entries: ListFile::create(entries)?,
            hashes: HashWriter::create(hashes).map_err(|e| cache_error(hashes, e))?,
            hashes_path: hashes.to_owned(),
        })
    }

    fn add(&mut self, line: &EntryLine) -> Result<(), SealError> {
        if let Some(sha256) = &line.sha256 {
            self.sums.write(&sum_line(sha256, &line.entry.path))?;
        }
        self.entries.entry(line)
    }

    fn hashes(&mut self, path: &EntryPath, hashes: &FileHashes) -> Result<(), SealError> {
        let sha256 = hashes.sha256.as_ref().ok_or(SealError::Internal("a file has no digest"))?;
        self.hashes.add(path, hashes, sha256).map_err(|e| cache_error(&self.hashes_path, e))
    }

    /// The list of sums is complete, and so are the hashes; the list of entries still wants the line of the sums.
    fn finish_sums(self) -> Result<(std::path::PathBuf, ListFile), SealError> {
        self.hashes.finish().map_err(|e| cache_error(&self.hashes_path, e))?;
        Ok((self.sums.close()?, self.entries))
    }
}

impl ListFile {
    fn create(path: &Path) -> Result<Self, SealError> {
        let draft = path.with_extension("new");
        let create = || {
            match std::fs::remove_file(&draft) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            durable::create_new(&draft)
        };
        let file = create().map_err(|e| cache_error(path, e))?;
        Ok(Self { path: path.to_owned(), draft, output: BufWriter::with_capacity(256 << 10, file) })
    }

    fn write(&mut self, line: &[u8]) -> Result<(), SealError> {
        self.output.write_all(line).map_err(|e| cache_error(&self.path, e))
    }

    fn entry(&mut self, line: &EntryLine) -> Result<(), SealError> {
        let text = line.encode().map_err(|e| cache_error(&self.path, e.into()))?;
        self.write(&text)
    }

    /// Only a whole list gets its name: others read it.
    fn close(mut self) -> Result<std::path::PathBuf, SealError> {
        let finished = self.output.flush().and_then(|()| self.output.get_ref().sync_all());
        let renamed = finished.and_then(|()| durable::rename(&self.draft, &self.path));
        renamed.map_err(|e| cache_error(&self.path, e))?;
        Ok(self.path)
    }

    fn finish(mut self, last: EntryLine) -> Result<std::path::PathBuf, SealError> {
        self.entry(&last)?;
        self.close()
    }
}

/// An entry for a document of the generation itself.
fn own_entry(name: &str, bytes: u64, seconds: i64) -> Result<Entry, SealError> {
    let path = EntryPath::new(name).map_err(|_| SealError::Internal("a list has no name"))?;
    let kind = EntryKind::File { bytes, sparse: false };
    Ok(Entry { path, kind, mode: 0o600, uid: 0, gid: 0, mtime: Mtime { seconds, nanoseconds: 0 } })
}

fn cache_error(path: &Path, source: std::io::Error) -> SealError {
    SealError::Cache { path: path.to_owned(), source }
}
