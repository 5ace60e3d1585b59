//! How much room a generation takes in staging, as far as that can be known before it is made.

use std::path::{Path, PathBuf};

use super::folder;
use super::settings::{SourceConfig, SourceKind, SqliteSource};
use super::sqlite::{file_bytes, log_bytes};
use crate::platform;
use crate::staging::LocalGeneration;

/// Bytes that a generation of `sources` takes in the folder `staging`: databases and files as large as they are, what
/// servers and programs write as large as it was in `previous`.
///
/// With `changed_only`, files of folders that have not changed since `previous` count nothing, since they are linked from
/// there; finding that out takes longer. `own` are folders of our own, which are never copied.
pub fn room_needed(
    sources: &[SourceConfig],
    staging: &Path,
    own: &[PathBuf],
    previous: Option<&LocalGeneration>,
    changed_only: bool,
) -> u64 {
    let own = numbers(own);
    let before = previous.and_then(|generation| generation.document().ok());
    let as_before = |source: &SourceConfig| {
        let record = before.iter().flat_map(|document| &document.sources).find(|record| record.name == source.name);
        record.map_or(0, |record| record.bytes)
    };
    let bytes = sources.iter().map(|source| match &source.kind {
        SourceKind::Sqlite(sqlite) => database_bytes(sqlite, staging),
        // A copy that shares its blocks with the original takes no room.
        SourceKind::Folder(folder) if platform::copy::may_share(&folder.path, staging) => 0,
        SourceKind::Folder(folder) => {
            folder::room::bytes(folder, &source.name, previous.filter(|_| changed_only), &own)
        }
        SourceKind::Postgres(_) | SourceKind::MariaDb(_) | SourceKind::Command(_) => as_before(source),
    });
    bytes.fold(0, u64::saturating_add)
}

/// What a copy of an SQLite database takes in the folder `staging`: of one that shares its blocks, what the log holds.
pub(super) fn database_bytes(source: &SqliteSource, staging: &Path) -> u64 {
    if platform::copy::may_share(&source.path, staging) { log_bytes(source) } else { file_bytes(source) }
}

/// What of a folder source this account may not read, as paths in it: the first `limit` of all. Nothing of other sources.
pub fn unreadable(source: &SourceConfig, own: &[PathBuf], limit: usize) -> Vec<String> {
    match &source.kind {
        SourceKind::Folder(folder) => folder::room::unreadable(folder, &source.name, &numbers(own), limit),
        SourceKind::Sqlite(_) | SourceKind::Postgres(_) | SourceKind::MariaDb(_) | SourceKind::Command(_) => Vec::new(),
    }
}

/// What the file system knows folders by. One that is not there yet cannot be met.
fn numbers(folders: &[PathBuf]) -> Vec<(u64, u64)> {
    let stats = folders.iter().filter_map(|folder| platform::tree::path_stat(folder).ok());
    stats.map(|stat| (stat.dev, stat.ino)).collect()
}
