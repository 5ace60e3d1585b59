//! A folder that held something and holds nothing now: more likely a share that is not mounted than an office that has
//! removed everything.

use std::path::Path;

use super::super::settings::FolderSource;
use crate::config::Size;
use crate::generation::{Document, SourceRecord};
use crate::ids::GenerationId;
use crate::staging::{self, LocalGeneration};

/// Entries of a source that holds nothing: the folder itself.
const ROOT: u64 = 1;

/// What is to be said of a folder that `now` holds nothing and held something before. It is said with each generation, until
/// the folder holds something or somebody has said that it may be empty: a night that was told as incomplete is none to compare
/// the next one with. One that was never filled is as it should be.
pub(in crate::capture) fn emptied(
    source: &FolderSource,
    now: &SourceRecord,
    previous: Option<&LocalGeneration>,
) -> Option<String> {
    if now.entries > ROOT || source.may_be_empty {
        return None;
    }
    let path = source.path.display();
    let copied = match before(now, previous?)? {
        Before::Held { entries, bytes, id } => {
            let held = if entries == 1 {
                "1 file or folder was".to_owned()
            } else {
                format!("{entries} files and folders were")
            };
            format!("{held} copied from it into {id} ({})", Size(bytes))
        }
        Before::Emptied => {
            "it held something in an earlier generation, which is not on this machine any more".to_owned()
        }
    };
    Some(format!(
        "the folder {path} is empty, and {copied}; mount the share or disk that it lies on, or, if it was emptied on purpose, say \
         `may_be_empty = true` in its [[source]]: until then every generation is called incomplete"
    ))
}

/// What is known of a folder that is empty now.
enum Before {
    /// It held so many files and folders, of so many bytes, when this generation was made.
    Held { entries: u64, bytes: u64, id: GenerationId },
    /// It was empty in all generations that are left, and one of them says that it should not have been.
    Emptied,
}

/// What the newest generation in which the source was whole says of it; nothing if it was empty then as well, or if there is
/// none and nothing was missed either.
fn before(now: &SourceRecord, previous: &LocalGeneration) -> Option<Before> {
    let root = previous.folder().parent().unwrap_or(Path::new(""));
    let mut was_emptied = false;
    // What cannot be read cannot be compared with.
    let generations = staging::generations(root).unwrap_or_default();
    for generation in generations.iter().rev().filter(|one| one.id() <= previous.id()) {
        let Ok(document) = generation.document() else { continue };
        let same = |record: &&SourceRecord| record.name == now.name && record.kind == now.kind;
        let Some(record) = document.sources.iter().find(same) else { continue };
        let entries = record.entries.saturating_sub(ROOT);
        if entries > 0 {
            return Some(Before::Held { entries, bytes: record.bytes, id: generation.id().clone() });
        }
        if !was_missing(&document, record) {
            return None;
        }
        was_emptied |= record.entries == ROOT;
    }
    was_emptied.then_some(Before::Emptied)
}

fn was_missing(document: &Document, record: &SourceRecord) -> bool {
    let mut problems = document.problems.iter();
    problems.any(|problem| problem.source == record.name && problem.missing)
}
