//! Databases that lie in a folder and are sources of their own: what is copied with care is not copied once more without.

use std::collections::HashMap;
use std::fs;

use crate::capture::settings::{SourceConfig, SourceKind, SqliteSource};
use crate::ids::SourceName;
use crate::platform::tree::path_stat;

/// What SQLite keeps beside a database (<https://www.sqlite.org/tempfiles.html>): it comes and goes while it is copied.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The files of all SQLite sources.
#[derive(Debug, Default)]
pub(in crate::capture) struct Databases(HashMap<Place, Part>);

/// A name in a folder, which is known by file system and number, whatever path leads to it.
type Place = ((u64, u64), Vec<u8>);

/// What a file is for the source that copies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The database.
    Database(SourceName),
    /// What lies beside it.
    Beside,
}

impl Databases {
    /// Those of `sources` that are there.
    pub(in crate::capture) fn of(sources: &[SourceConfig]) -> Self {
        let mut files = HashMap::new();
        for source in sources {
            if let SourceKind::Sqlite(database) = &source.kind
                && let Some((folder, name)) = place(database)
            {
                for suffix in BESIDE {
                    files.insert((folder, [&name, suffix.as_bytes()].concat()), Part::Beside);
                }
                files.insert((folder, name), Part::Database(source.name.clone()));
            }
        }
        Self(files)
    }

    /// What the file `name` is, if it belongs to one of them; `folder` is the file system and number of the folder it lies in.
    pub(super) fn part(&self, folder: (u64, u64), name: &[u8]) -> Option<&Part> {
        // Most offices have none in a folder, and then no name is copied for the question.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(folder, name.to_vec()))
    }
}

/// Where the database is, behind all links. One that is not there is no file of a folder either.
fn place(database: &SqliteSource) -> Option<Place> {
    let path = fs::canonicalize(&database.path).ok()?;
    let folder = path_stat(path.parent()?).ok()?;
    Some(((folder.dev, folder.ino), path.file_name()?.as_encoded_bytes().to_vec()))
}
