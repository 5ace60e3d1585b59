//! The index of one source: a line of JSON per entry, in stream order, compressed. Read and written as a stream, so that
//! millions of entries need no more memory than one.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StagingError;
use crate::durable;
use crate::entry::{Entry, EntryKind, EntryPath, Mtime, escape, unescape};
use crate::ids::SourceName;

/// An entry, and what the next capture and the sealing want to know about its staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedEntry {
    /// The entry.
    pub entry: Entry,
    /// Whether the staged file is the same inode as the file of the same path in the generation that
    /// [`LocalGeneration::previous`](super::LocalGeneration::previous) names: the same bytes, which need not be read again.
    pub linked: bool,
    /// How the source file looked when it was copied, or `None` if that does not tell whether it has changed since.
    pub seen: Option<Seen>,
}

/// What, with size and time of change, tells whether a source file is still the one that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The file system it lay on.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// Last change of its content or of what is known about it.
    pub ctime: Mtime,
}

/// The entries of some sources, in stream order.
#[derive(Debug)]
pub struct Entries {
    folder: PathBuf,
    /// Sources still to be opened, the next one last.
    waiting: Vec<SourceName>,
    reader: Option<Reader>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: EntryPath,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    sparse: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: Mtime,
    #[serde(default, skip_serializing_if = "is_false")]
    linked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
}

pub(super) struct Writer {
    path: PathBuf,
    output: zstd::Encoder<'static, BufWriter<File>>,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Reader {
    path: PathBuf,
    input: BufReader<Input>,
    line: Vec<u8>,
    last: Option<EntryPath>,
}

struct Input(zstd::Decoder<'static, BufReader<File>>);

pub(super) fn index_file(folder: &Path, source: &SourceName) -> PathBuf {
    folder.join(format!("{source}{SUFFIX}"))
}

const SUFFIX: &str = ".jsonl.zst";

/// The sources that have an index in `folder`, in order.
pub(super) fn sources(folder: &Path) -> Result<Vec<SourceName>, StagingError> {
    let names = super::names(folder)?;
    let mut sources: Vec<SourceName> =
        names.iter().filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).collect();
    sources.sort();
    Ok(sources)
}

impl Writer {
    pub(super) fn create(folder: &Path, source: &SourceName) -> Result<Self, StagingError> {
        let path = index_file(folder, source);
        let open = || {
            let mut output = zstd::Encoder::new(BufWriter::new(durable::create_new(&path)?), 1)?;
            output.include_checksum(true)?;
            Ok(output)
        };
        let output = open().map_err(|e| StagingError::io("create", &path, e))?;
        Ok(Self { path, output, line: Vec::new() })
    }

    pub(super) fn add(&mut self, entry: &IndexedEntry) -> Result<(), StagingError> {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, &Line::from(entry)).map_err(io::Error::from);
        self.line.push(b'\n');
        written
            .and_then(|()| self.output.write_all(&self.line))
            .map_err(|e| StagingError::io("write to", &self.path, e))
    }

    pub(super) fn finish(self) -> Result<(), StagingError> {
        let Self { path, output, .. } = self;
        let finish = || output.finish()?.flush();
        finish().map_err(|e| StagingError::io("write to", &path, e))
    }
}

impl Entries {
    pub(super) fn new(folder: PathBuf, mut sources: Vec<SourceName>) -> Self {
        sources.reverse();
        Self { folder, waiting: sources, reader: None }
    }
}

impl Iterator for Entries {
    type Item = Result<IndexedEntry, StagingError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.read().transpose() {
                    Some(Ok(entry)) => return Some(Ok(entry)),
                    Some(Err(error)) => {
                        // What follows a damaged place is not to be trusted: the iteration ends.
                        self.reader = None;
                        self.waiting.clear();
                        return Some(Err(error));
                    }
                    None => self.reader = None,
                }
            }
            let source = self.waiting.pop()?;
            match Reader::open(index_file(&self.folder, &source)) {
                Ok(reader) => self.reader = Some(reader),
                Err(error) => {
                    self.waiting.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Reader {
    fn open(path: PathBuf) -> Result<Self, StagingError> {
        let input = File::open(&path).and_then(zstd::Decoder::new).map_err(|e| StagingError::io("open", &path, e))?;
        Ok(Self { path, input: BufReader::new(Input(input)), line: Vec::new(), last: None })
    }

    fn read(&mut self) -> Result<Option<IndexedEntry>, StagingError> {
        self.line.clear();
        let read = self.input.read_until(b'\n', &mut self.line);
        let damaged = |reason: String| StagingError::Damaged { path: self.path.clone(), reason };
        if read.map_err(|e| damaged(e.to_string()))? == 0 {
            return Ok(None);
        }
        let line: Line = serde_json::from_slice(&self.line).map_err(|e| damaged(e.to_string()))?;
        let entry = line.entry().map_err(damaged)?;
        if self.last.as_ref().is_some_and(|last| *last >= entry.entry.path) {
            return Err(damaged(format!("{} is out of order", entry.entry.path)));
        }
        self.last = Some(entry.entry.path.clone());
        Ok(Some(entry))
    }
}

impl io::Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

impl From<&IndexedEntry> for Line {
    fn from(indexed: &IndexedEntry) -> Self {
        let Entry { path, kind, mode, uid, gid, mtime } = &indexed.entry;
        let (kind, bytes, sparse, target) = match kind {
            EntryKind::File { bytes, sparse } => (Kind::File, Some(*bytes), *sparse, None),
            EntryKind::Folder => (Kind::Folder, None, false, None),
            EntryKind::Symlink { target } => (Kind::Symlink, None, false, Some(escape(target))),
            EntryKind::HardLink { target } => (Kind::HardLink, None, false, Some(escape(target.as_bytes()))),
        };
        let (path, mode, uid, gid, mtime) = (path.clone(), *mode, *uid, *gid, *mtime);
        Self { path, kind, bytes, sparse, target, mode, uid, gid, mtime, linked: indexed.linked, seen: indexed.seen }
    }
}

impl Line {
    fn entry(self) -> Result<IndexedEntry, String> {
        let target = || {
            let text = self.target.as_deref().ok_or_else(|| "a link has no target".to_owned())?;
            unescape(text).ok_or_else(|| format!("the target of {} cannot be read", self.path))
        };
        let kind = match self.kind {
            Kind::File => EntryKind::File {
                bytes: self.bytes.ok_or_else(|| format!("{} has no size", self.path))?,
                sparse: self.sparse,
            },
            Kind::Folder => EntryKind::Folder,
            Kind::Symlink => EntryKind::Symlink { target: target()? },
            Kind::HardLink => EntryKind::HardLink { target: EntryPath::new(target()?).map_err(|e| e.to_string())? },
        };
        let Self { path, mode, uid, gid, mtime, linked, seen, .. } = self;
        Ok(IndexedEntry { entry: Entry { path, kind, mode, uid, gid, mtime }, linked, seen })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}
