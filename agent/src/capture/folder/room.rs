//! How much room a folder's copy would take, by a walk that looks at every file and opens none.

use std::collections::HashSet;
use std::vec;

use super::super::patterns::Choice;
use super::super::settings::FolderSource;
use super::{Known, SNAPSHOTS, file};
use crate::entry::EntryPath;
use crate::ids::SourceName;
use crate::platform::tree::{Dir, FileKind, FileStat};
use crate::staging::LocalGeneration;

/// Every file takes whole blocks of this many bytes.
const BLOCK: u64 = 4096;

/// Bytes that the copy of `source` takes; files that have not changed since `previous` take none. What cannot be looked at
/// is left out: the capture itself reports it.
pub(crate) fn bytes(
    source: &FolderSource,
    name: &SourceName,
    previous: Option<&LocalGeneration>,
    own: &[(u64, u64)],
) -> u64 {
    let (Ok(root), Ok(path)) = (Dir::open(&source.path), EntryPath::new(name.as_str())) else { return 0 };
    let names = root.names().unwrap_or_default().into_iter();
    let known = Known::of(previous, name).unwrap_or(Known { entries: None });
    let mut walk = Walk { source, prefix: name.as_str().len() + 1, known, own, linked: HashSet::new(), bytes: 0 };
    let mut stack = vec![Level { path, folder: root, names, taken: source.patterns.take_root() }];
    while let Some(level) = stack.last_mut() {
        match level.names.next() {
            Some(name) => {
                let inner = walk.visit(level, &name);
                stack.extend(inner);
            }
            None => drop(stack.pop()),
        }
    }
    walk.bytes
}

struct Walk<'a> {
    source: &'a FolderSource,
    /// Length of the source's name in a path, with its slash.
    prefix: usize,
    known: Known,
    own: &'a [(u64, u64)],
    /// Files with several names that have been counted.
    linked: HashSet<(u64, u64)>,
    bytes: u64,
}

struct Level {
    path: EntryPath,
    folder: Dir,
    names: vec::IntoIter<Vec<u8>>,
    taken: bool,
}

impl Walk<'_> {
    /// Counts what `name` is, or answers with the folder to walk through next.
    fn visit(&mut self, level: &Level, name: &[u8]) -> Option<Level> {
        let path = level.path.join(name).ok()?;
        let inside = path.as_bytes().get(self.prefix..).unwrap_or_default();
        let choice = self.source.patterns.choose(inside, level.taken);
        if choice == Choice::Skip {
            return None;
        }
        let stat = level.folder.stat(name).ok()?;
        match stat.kind {
            FileKind::Folder if name == SNAPSHOTS.as_bytes() => None,
            FileKind::Folder if !self.own.contains(&(stat.dev, stat.ino)) => {
                let folder = level.folder.open_dir(name).ok()?;
                let names = folder.names().ok()?.into_iter();
                Some(Level { path, folder, names, taken: choice == Choice::Take })
            }
            FileKind::File if choice == Choice::Take => {
                self.count(&path, &stat);
                None
            }
            _ => None,
        }
    }

    fn count(&mut self, path: &EntryPath, stat: &FileStat) {
        let counted = stat.links > 1 && !self.linked.insert((stat.dev, stat.ino));
        if !counted && !self.known.find(path).is_some_and(|known| file::is_unchanged(stat, &known)) {
            self.bytes += stat.allocated.min(stat.bytes.next_multiple_of(BLOCK));
        }
    }
}
