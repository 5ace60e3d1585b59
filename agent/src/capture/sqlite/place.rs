//! Where the copy of a database goes, and what is at hand of it from the last time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::capture::CaptureError;
use crate::capture::holder::Pinned;
use crate::capture::settings::SqliteSource;
use crate::entry::{Entry, EntryKind, EntryPath, Mtime};
use crate::generation::SourceRecord;
use crate::ids::SourceName;
use crate::platform::tree::{self, Dir, path_stat};
use crate::rows::{self, Rows};
use crate::staging::{Draft, IndexedEntry, LocalGeneration, SourceWriter, StagingError};

/// Counting the rows of one copy. It lies in memory, so a gigabyte takes about a second.
const COUNT_WITHIN: Duration = Duration::from_secs(20);

/// Under which name the position of a database has what tells next time whether it has changed.
pub(super) const STAMP: &str = "stamp";

/// What is needed for a copy and takes time to have, so that it is made before anybody is held.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) writer: SourceWriter,
    pub(super) target: Target,
    /// The copy of the last time.
    pub(super) last: Option<Last>,
}

/// Where a copy goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    file_name: Vec<u8>,
}

impl Place {
    /// In `draft`; nothing if the path of `source` names no file.
    pub(super) fn new(
        name: &SourceName,
        source: &SqliteSource,
        draft: &Draft,
        known: &Known<'_>,
    ) -> Result<Option<Self>, StagingError> {
        let Some(file_name) = source.path.file_name() else { return Ok(None) };
        let writer = draft.source(name)?;
        let target = Target { path: writer.folder().join(file_name), file_name: file_name.as_encoded_bytes().to_vec() };
        let last = known.find(name, &target.file_name);
        Ok(Some(Self { writer, target, last }))
    }
}

impl Target {
    /// Removes what was begun of a copy. There may be nothing.
    pub(super) fn remove(&self) -> Result<(), StagingError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StagingError::io("remove", &self.path, error)),
            _ => Ok(()),
        }
    }

    /// The rows of the copy's tables. What cannot be counted does not keep the copy from being one.
    pub(super) fn rows(&self) -> BTreeMap<String, Rows> {
        match rows::count(&self.path, COUNT_WITHIN) {
            Ok(rows) => BTreeMap::from([(String::from_utf8_lossy(&self.file_name).into_owned(), rows)]),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "the rows were not counted");
                BTreeMap::new()
            }
        }
    }

    /// Adds the copy to the index of `writer`, or the one that is `linked` because nothing has changed. Answers with its size
    /// in bytes.
    pub(super) fn record(
        &self,
        writer: &mut SourceWriter,
        name: &SourceName,
        pinned: &Pinned,
        linked: Option<Last>,
    ) -> Result<u64, CaptureError> {
        let failed = |e| StagingError::io("finish", &self.path, e);
        let bytes = match &linked {
            Some(last) => {
                let link = || Dir::open(writer.folder())?.link(&Dir::open(&last.folder)?, &self.file_name);
                link().map_err(failed)?;
                last.bytes
            }
            None => {
                let file = File::open(&self.path).map_err(failed)?;
                tree::set_file_mode(&file, 0o400).map_err(failed)?;
                path_stat(&self.path).map_err(failed)?.bytes
            }
        };
        let sparse = linked.as_ref().is_some_and(|last| last.sparse);
        let root = EntryPath::new(name.as_str())?;
        let path = root.join(&self.file_name)?;
        let Pinned { mode, uid, gid, mtime, .. } = *pinned;
        let entry = |path, kind, mode, mtime: Mtime| Entry { path, kind, mode, uid, gid, mtime };
        let folder = entry(root, EntryKind::Folder, 0o700, mtime);
        writer.add(&IndexedEntry { entry: folder, linked: false, seen: None })?;
        let file = entry(path, EntryKind::File { bytes, sparse }, mode, mtime);
        writer.add(&IndexedEntry { entry: file, linked: linked.is_some(), seen: None })?;
        Ok(bytes)
    }
}

/// What the previous generation has of the same databases.
#[derive(Debug)]
pub(super) struct Known<'a> {
    previous: Option<&'a LocalGeneration>,
    records: Vec<SourceRecord>,
}

/// A copy that is at hand.
#[derive(Debug)]
pub(super) struct Last {
    /// What the database had then, if that would have told of any change.
    pub(super) stamp: Option<String>,
    pub(super) path: PathBuf,
    folder: PathBuf,
    bytes: u64,
    sparse: bool,
}

impl<'a> Known<'a> {
    /// What `previous` has.
    pub(super) fn of(previous: Option<&'a LocalGeneration>) -> Result<Self, StagingError> {
        let records = previous.map(LocalGeneration::document).transpose()?.map_or_else(Vec::new, |d| d.sources);
        Ok(Self { previous, records })
    }

    /// What was counted then.
    pub(super) fn rows(&self, name: &SourceName) -> BTreeMap<String, Rows> {
        self.records.iter().find(|record| record.name == *name).map(|record| record.rows.clone()).unwrap_or_default()
    }

    fn find(&self, name: &SourceName, file_name: &[u8]) -> Option<Last> {
        let previous = self.previous?;
        let record = self.records.iter().find(|record| record.name == *name)?;
        let stamp = record.position.get(STAMP).cloned();
        let path = EntryPath::new(name.as_str()).and_then(|path| path.join(file_name)).ok()?;
        let entry = previous.entries_of(name).ok()?.filter_map(Result::ok).find(|e| e.entry.path == path)?;
        match entry.entry.kind {
            EntryKind::File { bytes, sparse } => {
                let folder = previous.data_folder(name);
                Some(Last { stamp, path: folder.join(tree::name(file_name)), folder, bytes, sparse })
            }
            _ => None,
        }
    }
}
