//! A finished generation in staging.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::index::{self, Entries};
use super::{PARTIAL, StagingError};
use crate::durable;
use crate::entry::EntryPath;
use crate::generation::Document;
use crate::ids::{GenerationId, SourceName};
use crate::platform;
use crate::platform::tree::Dir;

/// A finished generation in staging. It does not change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalGeneration {
    folder: PathBuf,
    id: GenerationId,
}

impl LocalGeneration {
    pub(super) fn at(root: &Path, id: GenerationId) -> Self {
        Self { folder: root.join(id.as_str()), id }
    }

    /// Those of `all`, which are in the order of time, that came after one and before another.
    pub fn between<'l>(all: &'l [Self], one: &GenerationId, other: &GenerationId) -> &'l [Self] {
        let (first, end) = (all.partition_point(|g| g.id <= *one), all.partition_point(|g| g.id < *other));
        all.get(first..end).unwrap_or_default()
    }

    /// Which one.
    pub fn id(&self) -> &GenerationId {
        &self.id
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file with what it says of itself, written last.
    pub fn document_path(&self) -> PathBuf {
        self.folder.join("generation.json")
    }

    /// What it says of itself.
    pub fn document(&self) -> Result<Document, StagingError> {
        let bytes = self.document_bytes()?;
        let path = self.document_path();
        let document: Document = serde_json::from_slice(&bytes)
            .map_err(|e| StagingError::Damaged { path: path.clone(), reason: e.to_string() })?;
        if document.generation != self.id {
            let reason = format!("it is of generation {}", document.generation);
            return Err(StagingError::Damaged { path, reason });
        }
        Ok(document)
    }

    /// The document's bytes, the same ones each time.
    pub fn document_bytes(&self) -> Result<Vec<u8>, StagingError> {
        let path = self.document_path();
        fs::read(&path).map_err(|e| StagingError::io("read", &path, e))
    }

    /// The generation whose staged files were linked where nothing had changed; it may be gone by now.
    pub fn previous(&self) -> Result<Option<GenerationId>, StagingError> {
        let path = self.index_folder().join("previous");
        match fs::read_to_string(&path) {
            Ok(text) => match text.parse() {
                Ok(id) => Ok(Some(id)),
                Err(error) => Err(StagingError::Damaged { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StagingError::io("read", &path, error)),
        }
    }

    /// The sources in it, by name.
    pub fn sources(&self) -> Result<Vec<SourceName>, StagingError> {
        index::sources(&self.index_folder())
    }

    /// All entries in stream order: sources by name, and in each the order of [`EntryPath`].
    pub fn entries(&self) -> Result<Entries, StagingError> {
        Ok(Entries::new(self.index_folder(), self.sources()?))
    }

    /// The entries of one source; none if it is not in this generation.
    pub fn entries_of(&self, source: &SourceName) -> Result<Entries, StagingError> {
        let sources = self.sources()?.into_iter().filter(|name| name == source).collect();
        Ok(Entries::new(self.index_folder(), sources))
    }

    /// Opens the staged file of a file entry.
    pub fn open_file(&self, path: &EntryPath) -> Result<File, StagingError> {
        let data = self.folder.join("data");
        let failed = |e| StagingError::io("open", data.join(platform::tree::name(path.as_bytes())), e);
        let mut segments = path.segments().peekable();
        let mut folder = Dir::open(&data).map_err(failed)?;
        while let Some(segment) = segments.next() {
            if segments.peek().is_none() {
                return folder.open_file(segment).map_err(failed);
            }
            folder = folder.open_dir(segment).map_err(failed)?;
        }
        Err(failed(io::ErrorKind::NotFound.into()))
    }

    /// Where another part of the program may keep what it knows about this generation: only what can be made anew.
    pub fn cache_path(&self, name: &str) -> PathBuf {
        self.folder.join("cache").join(name)
    }

    /// The folder with the staged files of `source`.
    pub fn data_folder(&self, source: &SourceName) -> PathBuf {
        self.folder.join("data").join(source.as_str())
    }

    /// Removes the generation. Killed in between, it leaves an [`Abandoned`](super::Abandoned) folder, never half a
    /// generation.
    pub fn remove(self) -> Result<(), StagingError> {
        let dying = self.folder.with_file_name(format!("{}{PARTIAL}", self.id));
        durable::rename(&self.folder, &dying).map_err(|e| StagingError::io("remove", &self.folder, e))?;
        platform::tree::remove_tree(&dying).map_err(|e| StagingError::io("remove", &dying, e))
    }

    fn index_folder(&self) -> PathBuf {
        self.folder.join("index")
    }
}
