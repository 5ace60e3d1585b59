//! Files that have another name in the full: renamed, moved between folders or sources, or made anew every day with the
//! date in their name.
//!
//! What did not change of such a file is known by its hash, whatever it is called. For the rest some files of the full are
//! looked at that may be what it was: those that are gone, and those in its own folder, the likeliest first. Only content
//! decides.

use std::collections::BTreeSet;

use super::reference::{FullFile, FullFiles, OldFile};
use crate::entry::EntryPath;
use crate::staging::LocalGeneration;

/// Smaller files are not worth the search.
const BYTES_MIN: u64 = 4096;
/// So many files of the full are remembered at most.
const STRAYS_MAX: usize = 20_000;
/// So many of them are looked into for each new file.
const LOOKS: usize = 4;

/// The files of the full that may have another name now.
pub(super) struct Moved {
    full: LocalGeneration,
    now: LocalGeneration,
    /// Found when the first new file comes.
    strays: Option<Vec<FullFile>>,
}

impl Moved {
    /// Those of `full` that may be among the files of `now`.
    pub(super) fn new(full: &LocalGeneration, now: &LocalGeneration) -> Self {
        Self { full: full.clone(), now: now.clone(), strays: None }
    }

    /// The file of the full that `content`, which stands at `at` in a new file of `bytes` bytes, seems to come from.
    pub(super) fn find(
        &mut self,
        path: &EntryPath,
        bytes: u64,
        at: u64,
        content: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Option<OldFile> {
        if bytes < BYTES_MIN {
            return None;
        }
        let strays = self.strays.get_or_insert_with(|| strays(&self.full, &self.now).unwrap_or_default());
        let mut likely: Vec<&FullFile> =
            strays.iter().filter(|stray| stray.bytes / 2 <= bytes && bytes / 2 <= stray.bytes).collect();
        likely.sort_by_key(|stray| {
            let other_name = stray.path.name() != path.name();
            let other_kind = kind(stray.path.name()) != kind(path.name());
            (other_name, other_kind, stray.bytes.abs_diff(bytes))
        });
        likely
            .into_iter()
            .take(LOOKS)
            .filter_map(|stray| OldFile::open(&self.full, stray))
            .find_map(|mut old| old.recognizes(at, content, buffer).then_some(old))
    }
}

/// The files of the full that are gone, and those in folders that have new files.
fn strays(full: &LocalGeneration, now: &LocalGeneration) -> Option<Vec<FullFile>> {
    let mut present = FullFiles::of(now)?.map(|file| file.path).peekable();
    let mut strays = Vec::new();
    let mut busy = BTreeSet::new();
    let mut newcomer = |path: &EntryPath| {
        if busy.len() < STRAYS_MAX {
            busy.insert(folder(path).to_vec());
        }
    };
    for file in FullFiles::of(full)? {
        while let Some(path) = present.next_if(|path| *path < file.path) {
            newcomer(&path);
        }
        if present.next_if(|path| *path == file.path).is_none() && strays.len() < STRAYS_MAX {
            strays.push(file);
        }
    }
    present.for_each(|path| newcomer(&path));
    let gone: BTreeSet<EntryPath> = strays.iter().map(|stray| stray.path.clone()).collect();
    let beside = FullFiles::of(full)?.filter(|file| busy.contains(folder(&file.path)) && !gone.contains(&file.path));
    let room = STRAYS_MAX.saturating_sub(strays.len());
    strays.extend(beside.filter(|file| file.bytes >= BYTES_MIN).take(room));
    strays.retain(|stray| stray.bytes >= BYTES_MIN);
    Some(strays)
}

fn folder(path: &EntryPath) -> &[u8] {
    let bytes = path.as_bytes();
    bytes.get(..bytes.len() - path.name().len()).unwrap_or_default()
}

/// What a name says of the kind of a file: all behind its last dot.
fn kind(name: &[u8]) -> Option<&[u8]> {
    name.iter().rposition(|byte| *byte == b'.').and_then(|dot| name.get(dot..))
}
