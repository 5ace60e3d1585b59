//! A generation while it is being written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::index::{IndexedEntry, Writer, index_file};
use super::{LocalGeneration, PARTIAL, StagingError};
use crate::durable;
use crate::entry::{EntryKind, EntryPath};
use crate::generation::Document;
use crate::ids::{GenerationId, SourceName};
use crate::platform;
use crate::platform::tree::Dir;

/// A generation that is being written. Dropped without [`Draft::finish`], as when the process is killed, its folder stays
/// behind as [`Abandoned`](super::Abandoned).
#[derive(Debug)]
pub struct Draft {
    root: PathBuf,
    id: GenerationId,
    folder: PathBuf,
}

/// One source of a draft: takes its entries in stream order. Sources of one draft can be written at the same time.
pub struct SourceWriter {
    source: SourceName,
    data: PathBuf,
    index: PathBuf,
    writer: Writer,
    last: Option<EntryPath>,
    written: Written,
}

/// How much a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries.
    pub entries: u64,
    /// Bytes of content of its files.
    pub bytes: u64,
}

impl Draft {
    pub(super) fn create(
        root: &Path,
        id: &GenerationId,
        previous: Option<&LocalGeneration>,
    ) -> Result<Self, StagingError> {
        let name = format!("{id}{PARTIAL}");
        let folder = root.join(&name);
        let create = || {
            let folder = Dir::open(root)?.create_dir(name.as_bytes())?;
            for inner in ["data", "index", "cache"] {
                folder.create_dir(inner.as_bytes())?;
            }
            io::Result::Ok(())
        };
        create().map_err(|e| StagingError::io("create the folder", &folder, e))?;
        if let Some(previous) = previous {
            let path = folder.join("index").join("previous");
            durable::write(&path, previous.id().as_str().as_bytes())
                .map_err(|e| StagingError::io("write", &path, e))?;
        }
        Ok(Self { root: root.to_owned(), id: id.clone(), folder })
    }

    /// The generation that is being written.
    pub fn id(&self) -> &GenerationId {
        &self.id
    }

    /// The staging folder it lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its folder for now.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> Result<u64, StagingError> {
        platform::free_bytes(&self.root).map_err(|e| StagingError::io("ask for the free space of", &self.root, e))
    }

    /// Begins a source: an empty folder for its files, and its index.
    pub fn source(&self, source: &SourceName) -> Result<SourceWriter, StagingError> {
        let data = self.folder.join("data").join(source.as_str());
        platform::create_private_folder(&data).map_err(|e| StagingError::io("create the folder", &data, e))?;
        let index = self.folder.join("index");
        let writer = Writer::create(&index, source)?;
        Ok(SourceWriter { source: source.clone(), data, index, writer, last: None, written: Written::default() })
    }

    /// Removes what has been written of a source that nobody is writing any more, as if it had not been begun. It may not
    /// have been.
    pub fn remove(&self, source: &SourceName) -> Result<(), StagingError> {
        let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        let index = index_file(&self.folder.join("index"), source);
        if let Err(error) = fs::remove_file(&index)
            && !gone(&error)
        {
            return Err(StagingError::io("remove", &index, error));
        }
        let data = self.folder.join("data").join(source.as_str());
        match platform::tree::remove_tree(&data) {
            Err(error) if !gone(&error) => Err(StagingError::io("remove", &data, error)),
            _ => Ok(()),
        }
    }

    /// Makes the generation one of the finished ones: everything is on disk, and cannot be changed, when this returns.
    pub fn finish(self, document: &Document) -> Result<LocalGeneration, StagingError> {
        let path = self.folder.join("generation.json");
        let mut bytes = serde_json::to_vec_pretty(document).map_err(|e| StagingError::io("write", &path, e.into()))?;
        bytes.push(b'\n');
        durable::write(&path, &bytes).map_err(|e| StagingError::io("write", &path, e))?;
        for name in ["data", "index"] {
            let path = self.folder.join(name);
            let close = Dir::open(&path).and_then(|dir| dir.set_mode(0o500));
            close.map_err(|e| StagingError::io("make read-only", &path, e))?;
        }
        // One call for however many files: none of them was synced by itself.
        platform::sync_file_system(&self.folder).map_err(|e| StagingError::io("write to disk", &self.folder, e))?;
        let finished = self.root.join(self.id.as_str());
        durable::rename(&self.folder, &finished).map_err(|e| StagingError::io("rename", &self.folder, e))?;
        Ok(LocalGeneration::at(&self.root, self.id))
    }

    /// Removes what has been written.
    pub fn discard(self) -> Result<(), StagingError> {
        platform::tree::remove_tree(&self.folder).map_err(|e| StagingError::io("remove", &self.folder, e))
    }
}

impl SourceWriter {
    /// The folder the files of this source are written to.
    pub fn folder(&self) -> &Path {
        &self.data
    }

    /// Appends an entry. Its path is inside the source and stands after the one before it.
    pub fn add(&mut self, entry: &IndexedEntry) -> Result<(), StagingError> {
        let path = &entry.entry.path;
        let inside = path.segments().next() == Some(self.source.as_str().as_bytes());
        if !inside || self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(StagingError::OutOfOrder { path: path.to_string() });
        }
        self.writer.add(entry)?;
        self.last = Some(path.clone());
        self.written.entries += 1;
        if let EntryKind::File { bytes, .. } = entry.entry.kind {
            self.written.bytes += bytes;
        }
        Ok(())
    }

    /// Ends the source. Its files are read-only already, and so are the folders in it.
    pub fn finish(self) -> Result<Written, StagingError> {
        self.writer.finish()?;
        let index = index_file(&self.index, &self.source);
        fs::File::open(&index)
            .and_then(|file| platform::tree::set_file_mode(&file, 0o400))
            .map_err(|e| StagingError::io("make read-only", &index, e))?;
        Dir::open(&self.data)
            .and_then(|dir| dir.set_mode(0o500))
            .map_err(|e| StagingError::io("make read-only", &self.data, e))?;
        Ok(self.written)
    }

    /// Removes what has been written of the source, as if it had not been begun.
    pub fn discard(self) -> Result<(), StagingError> {
        let index = index_file(&self.index, &self.source);
        fs::remove_file(&index).map_err(|e| StagingError::io("remove", &index, e))?;
        platform::tree::remove_tree(&self.data).map_err(|e| StagingError::io("remove", &self.data, e))
    }
}

impl std::fmt::Debug for SourceWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceWriter").field("source", &self.source).finish_non_exhaustive()
    }
}
