//! How much room a folder's copy would take, and what of it may not be read, by a walk that looks at every file and opens none.

use std::collections::HashSet;
use std::io;
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
/// is left out: the capture itself reports it. Databases that are left to sources of their own are counted: rather too much.
pub(crate) fn bytes(
    source: &FolderSource,
    name: &SourceName,
    previous: Option<&LocalGeneration>,
    own: &[(u64, u64)],
) -> u64 {
    let known = Known::of(previous, name).unwrap_or(Known { entries: None });
    let mut walk = Walk { known, ..Walk::new(source, name, own) };
    walk.all(name);
    walk.bytes
}

/// What of `source` this account may not read: at most `limit` files and folders, as paths in it.
pub(crate) fn unreadable(source: &FolderSource, name: &SourceName, own: &[(u64, u64)], limit: usize) -> Vec<String> {
    let mut walk = Walk { shut_max: limit, ..Walk::new(source, name, own) };
    walk.all(name);
    walk.shut
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
    /// So much that may not be read is looked for, and then the walk ends; 0 if it is not looked for.
    shut_max: usize,
    shut: Vec<String>,
}

struct Level {
    path: EntryPath,
    folder: Dir,
    names: vec::IntoIter<Vec<u8>>,
    taken: bool,
}

impl<'a> Walk<'a> {
    fn new(source: &'a FolderSource, name: &SourceName, own: &'a [(u64, u64)]) -> Self {
        let prefix = name.as_str().len() + 1;
        let (known, linked) = (Known { entries: None }, HashSet::new());
        Self { source, prefix, known, own, linked, bytes: 0, shut_max: 0, shut: Vec::new() }
    }

    /// Walks through the whole source. One that cannot be opened has nothing in it.
    fn all(&mut self, name: &SourceName) {
        let (Ok(folder), Ok(path)) = (Dir::open(&self.source.path), EntryPath::new(name.as_str())) else { return };
        let names = folder.names().unwrap_or_default().into_iter();
        let mut stack = vec![Level { path, folder, names, taken: self.source.patterns.take_root() }];
        while let Some(level) = stack.last_mut() {
            if self.shut_max > 0 && self.shut.len() >= self.shut_max {
                return;
            }
            match level.names.next() {
                Some(name) => {
                    let inner = self.visit(level, &name);
                    stack.extend(inner);
                }
                None => drop(stack.pop()),
            }
        }
    }

    /// Counts what `name` is, or answers with the folder to walk through next.
    fn visit(&mut self, level: &Level, name: &[u8]) -> Option<Level> {
        let path = level.path.join(name).ok()?;
        let inside = path.as_bytes().get(self.prefix..).unwrap_or_default();
        let choice = self.source.patterns.choose(inside, level.taken);
        if choice == Choice::Skip {
            return None;
        }
        let stat = level.folder.stat(name).map_err(|error| self.refused(&error, inside)).ok()?;
        match stat.kind {
            FileKind::Folder if name == SNAPSHOTS.as_bytes() => None,
            FileKind::Folder if !self.own.contains(&(stat.dev, stat.ino)) => {
                let opened = level.folder.open_dir(name).and_then(|folder| Ok((folder.names()?, folder)));
                let (names, folder) = opened.map_err(|error| self.refused(&error, inside)).ok()?;
                Some(Level { path, folder, names: names.into_iter(), taken: choice == Choice::Take })
            }
            FileKind::File if choice == Choice::Take => {
                if self.shut_max > 0
                    && let Err(error) = level.folder.may_read(name)
                {
                    self.refused(&error, inside);
                }
                self.count(&path, &stat);
                None
            }
            _ => None,
        }
    }

    /// Notes what may not be read. What has vanished is no matter of rights.
    fn refused(&mut self, error: &io::Error, inside: &[u8]) {
        if self.shut_max > 0 && error.kind() == io::ErrorKind::PermissionDenied {
            self.shut.push(String::from_utf8_lossy(inside).into_owned());
        }
    }

    fn count(&mut self, path: &EntryPath, stat: &FileStat) {
        let counted = stat.links > 1 && !self.linked.insert((stat.dev, stat.ino));
        if !counted && !self.known.find(path).is_some_and(|known| file::is_unchanged(stat, &known)) {
            self.bytes += stat.allocated.min(stat.bytes.next_multiple_of(BLOCK));
        }
    }
}
