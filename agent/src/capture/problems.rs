//! What could not be copied as asked for, kept within bounds.

use std::io::ErrorKind;

use crate::entry::EntryPath;
use crate::generation::Problem;
use crate::ids::SourceName;

/// How many problems of one source are kept one by one.
const KEPT: usize = 1000;

/// What to do about a file or folder that could not be opened, behind a semicolon; nothing if nobody knows.
pub(super) fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "; connect and mount the disk that it lies on, or correct its path in the configuration",
        ErrorKind::PermissionDenied => "; let the account that `offsite` runs as read it",
        _ => "",
    }
}

/// The problems of one source.
#[derive(Debug)]
pub(super) struct Problems {
    source: SourceName,
    kept: Vec<Problem>,
    /// Problems that were only counted: with something missing, and without.
    more: [u64; 2],
}

impl Problems {
    pub(super) fn new(source: &SourceName) -> Self {
        Self { source: source.clone(), kept: Vec::new(), more: [0; 2] }
    }

    /// Something is not in the generation that should be, or is not as it should be.
    pub(super) fn missing(&mut self, path: Option<&EntryPath>, what: String) {
        self.add(path, what, true);
    }

    /// Something was left out as it has to be.
    pub(super) fn skipped(&mut self, path: Option<&EntryPath>, what: String) {
        self.add(path, what, false);
    }

    /// Whether any of it is about something that was found and has a path.
    pub(super) fn have_paths(&self) -> bool {
        self.kept.iter().any(|problem| problem.path.is_some())
    }

    /// All of them.
    pub(super) fn into_vec(mut self) -> Vec<Problem> {
        for (count, missing) in self.more.into_iter().zip([true, false]) {
            if count > 0 {
                let what = format!("and {count} more like these");
                self.kept.push(Problem { source: self.source.clone(), path: None, what, missing });
            }
        }
        self.kept
    }

    fn add(&mut self, path: Option<&EntryPath>, what: String, missing: bool) {
        let [lost, left_out] = &mut self.more;
        if self.kept.len() < KEPT {
            // As in the source: without its name.
            let path = path.map(|path| {
                let text = path.to_string();
                text.split_once('/').map(|(_, inside)| inside.to_owned()).unwrap_or(text)
            });
            self.kept.push(Problem { source: self.source.clone(), path, what, missing });
        } else if missing {
            *lost += 1;
        } else {
            *left_out += 1;
        }
    }
}
