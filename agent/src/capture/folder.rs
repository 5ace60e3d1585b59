//! Copies a folder and all it holds into staging.
//!
//! The walk goes by open folders, in stream order, beside the same folder of the previous local generation and its index:
//! what has not changed since is linked from there. Memory holds the names of the folders on the way down, no more.

mod databases;
mod emptied;
mod file;
mod origin;
pub(super) mod room;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::vec;

use super::patterns::Choice;
use super::problems::Problems;
use super::settings::FolderSource;
use super::{Event, Watch};
use crate::entry::{Entry, EntryKind, EntryPath};
use crate::ids::SourceName;
use crate::platform::tree::{Dir, FileKind, FileStat};
use crate::staging::{Entries, IndexedEntry, LocalGeneration, SourceWriter, StagingError};

pub(super) use databases::Databases;
pub(super) use emptied::emptied;
pub(super) use origin::Frozen;

use databases::Part;
use origin::Origin;

/// What is said of a folder that a snapshot holds nothing of.
const BEYOND: &str = "another file system or subvolume is mounted or lies here, which is not in the snapshot, so what it holds \
                      was not copied; let it be a folder source of its own, without `snapshot`, and `exclude` it here";

/// What the walk needs besides the folder.
pub(super) struct Surroundings<'a> {
    /// The generation whose files may be linked.
    pub(super) previous: Option<&'a LocalGeneration>,
    /// Folders that are never copied, by file system and number: our own.
    pub(super) own: &'a [(u64, u64)],
    /// Databases in the folder that are sources of their own.
    pub(super) databases: &'a Databases,
    /// Told of what happens.
    pub(super) watch: Watch<'a>,
}

/// What is never copied, wherever it is found: the folder that snapshots are taken into. Everything in them is elsewhere.
pub(super) const SNAPSHOTS: &str = ".offsite-snapshots";

/// Copies `source` into `writer`, as it is or as it was when it was `frozen`. A folder that cannot be opened is the error of the outer result's inner text.
pub(super) fn copy(
    source: &FolderSource,
    name: &SourceName,
    writer: &mut SourceWriter,
    around: &Surroundings<'_>,
    frozen: Option<&Frozen<'_>>,
    problems: &mut Problems,
) -> Result<(), FolderError> {
    let root = Dir::open(frozen.map_or(&source.path, |frozen| &frozen.path)).map_err(FolderError::Root)?;
    let stat = root.own_stat().map_err(FolderError::Root)?;
    let names = root.names().map_err(FolderError::Root)?;
    let target = Dir::open(writer.folder()).map_err(|e| staging("open", writer, e))?;
    let path = EntryPath::new(name.as_str()).map_err(|e| FolderError::Root(std::io::Error::other(e)))?;
    let mut walk = Walk {
        source,
        name,
        origin: Origin::of(frozen),
        known: Known::of(around.previous, name)?,
        own: around.own,
        databases: around.databases,
        watch: around.watch,
        writer,
        problems,
        hard_links: HashMap::new(),
        share: true,
        stack: Vec::new(),
    };
    let previous = around.previous.and_then(|g| Dir::open(&g.data_folder(name)).ok());
    walk.writer.add(&folder_entry(path.clone(), &stat))?;
    walk.stack.push(Level {
        path,
        folder: root,
        stat,
        target: Some(target),
        previous,
        names: names.into_iter(),
        taken: source.patterns.take_root(),
    });
    walk.run()
}

/// Why a folder source has failed.
#[derive(Debug)]
pub(super) enum FolderError {
    /// The folder itself cannot be read: the source is missing, the others go on.
    Root(std::io::Error),
    /// The disk of staging is full.
    Full {
        /// What the file that did not fit needs.
        needed: u64,
    },
    /// Staging cannot go on at all.
    Staging(StagingError),
}

impl From<StagingError> for FolderError {
    fn from(error: StagingError) -> Self {
        Self::Staging(error)
    }
}

struct Walk<'a> {
    source: &'a FolderSource,
    name: &'a SourceName,
    origin: Origin<'a>,
    known: Known,
    own: &'a [(u64, u64)],
    databases: &'a Databases,
    watch: Watch<'a>,
    writer: &'a mut SourceWriter,
    problems: &'a mut Problems,
    /// Files with more names to come: where the first one stands, and how many are left.
    hard_links: HashMap<(u64, u64), (EntryPath, u64)>,
    /// Whether the file systems can share content, as far as is known.
    share: bool,
    stack: Vec<Level>,
}

/// A folder on the way down.
struct Level {
    path: EntryPath,
    folder: Dir,
    stat: FileStat,
    /// Its copy; not made until something in it is taken.
    target: Option<Dir>,
    /// Its copy in the previous generation.
    previous: Option<Dir>,
    names: vec::IntoIter<Vec<u8>>,
    /// Whether what it holds is taken without being asked for by name.
    taken: bool,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), FolderError> {
        loop {
            let depth = self.stack.len();
            let Some(level) = self.stack.last_mut() else { return Ok(()) };
            let Some(name) = level.names.next() else {
                // The folder of the source itself is closed by its writer.
                if let (Some(target), 2..) = (&level.target, depth) {
                    target.set_mode(0o500).map_err(|e| staging("make read-only", self.writer, e))?;
                }
                self.stack.pop();
                continue;
            };
            let (path, taken) = (level.path.clone(), level.taken);
            match path.join(&name) {
                Ok(path) => self.visit(&name, path, taken)?,
                Err(error) => self.problems.missing(None, error.to_string()),
            }
        }
    }

    fn visit(&mut self, name: &[u8], path: EntryPath, parent_taken: bool) -> Result<(), FolderError> {
        let choice = self.source.patterns.choose(inside(&path, self.name), parent_taken);
        let Some(level) = self.stack.last() else { return Ok(()) };
        if choice == Choice::Skip {
            return Ok(());
        }
        let stat = match level.folder.stat(name) {
            Ok(stat) => self.origin.stat(stat),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                self.problems.missing(Some(&path), format!("it cannot be looked at: {error}"));
                return Ok(());
            }
        };
        match stat.kind {
            FileKind::Folder if name == SNAPSHOTS.as_bytes() => Ok(()),
            FileKind::Folder => self.enter(name, path, &stat, choice),
            _ if choice == Choice::Look => Ok(()),
            FileKind::File => match self.databases.part(self.origin.number(&level.stat), name) {
                None => self.file(name, path, stat),
                Some(Part::Beside) => Ok(()),
                Some(Part::Database(source)) => {
                    self.problems.skipped(
                        Some(&path),
                        format!("it is left to the source `{source}`, which copies it as a database"),
                    );
                    Ok(())
                }
            },
            FileKind::Symlink => self.symlink(name, path, &stat),
            FileKind::Special(word) => {
                self.problems.skipped(Some(&path), format!("a {word} is not copied"));
                Ok(())
            }
        }
    }

    fn enter(&mut self, name: &[u8], path: EntryPath, stat: &FileStat, choice: Choice) -> Result<(), FolderError> {
        if self.own.contains(&self.origin.number(stat)) {
            self.problems.skipped(Some(&path), "it is a folder of offsite itself and is not copied".to_owned());
            return Ok(());
        }
        if self.origin.ends_at(inside(&path, self.name), stat) {
            self.problems.missing(Some(&path), BEYOND.to_owned());
        }
        let Some(level) = self.stack.last() else { return Ok(()) };
        let opened = level.folder.open_dir(name).and_then(|dir| Ok((dir.own_stat()?, dir.names()?, dir)));
        let (stat, names, folder) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                if choice == Choice::Take {
                    self.make_targets()?;
                    self.writer.add(&folder_entry(path.clone(), stat))?;
                    self.empty_target(name)?;
                }
                self.problems.missing(Some(&path), format!("the folder cannot be read: {error}"));
                return Ok(());
            }
        };
        let previous = level.previous.as_ref().and_then(|previous| previous.open_dir(name).ok());
        let taken = choice == Choice::Take;
        self.stack.push(Level { path, folder, stat, target: None, previous, names: names.into_iter(), taken });
        if taken { self.make_targets() } else { Ok(()) }
    }

    /// Records the folders on the way down that have not been yet, and makes their copies.
    fn make_targets(&mut self) -> Result<(), FolderError> {
        for at in 1..self.stack.len() {
            let (above, below) = self.stack.split_at_mut(at);
            let (Some(Level { target: Some(parent), .. }), Some(level)) = (above.last(), below.first_mut()) else {
                continue;
            };
            if level.target.is_none() {
                self.writer.add(&folder_entry(level.path.clone(), &level.stat))?;
                level.target = Some(
                    parent.create_dir(level.path.name()).map_err(|e| staging("create a folder in", self.writer, e))?,
                );
            }
        }
        Ok(())
    }

    fn empty_target(&self, name: &[u8]) -> Result<(), FolderError> {
        let Some(Level { target: Some(target), .. }) = self.stack.last() else { return Ok(()) };
        target
            .create_dir(name)
            .and_then(|dir| dir.set_mode(0o500))
            .map_err(|e| staging("create a folder in", self.writer, e))
    }

    fn symlink(&mut self, name: &[u8], path: EntryPath, stat: &FileStat) -> Result<(), FolderError> {
        let Some(level) = self.stack.last() else { return Ok(()) };
        match level.folder.read_link(name) {
            Ok(target) => self.add(path, EntryKind::Symlink { target }, stat),
            Err(error) => {
                self.problems.missing(Some(&path), format!("the link cannot be read: {error}"));
                Ok(())
            }
        }
    }

    fn file(&mut self, name: &[u8], path: EntryPath, stat: FileStat) -> Result<(), FolderError> {
        let key = (stat.dev, stat.ino);
        if let Some((first, left)) = self.hard_links.get_mut(&key) {
            let target = first.clone();
            *left -= 1;
            if *left == 0 {
                self.hard_links.remove(&key);
            }
            return self.add(path, EntryKind::HardLink { target }, &stat);
        }
        self.make_targets()?;
        let known = self.known.find(&path);
        let Some(Level { folder, target: Some(target), previous, .. }) = self.stack.last() else { return Ok(()) };
        let progress = |bytes| (self.watch)(Event::Copied { source: self.name, bytes });
        let place =
            file::Place { folder, target, previous: previous.as_ref(), name, origin: self.origin, progress: &progress };
        let copied = match place.copy(&stat, known.as_ref(), &mut self.share) {
            Ok(copied) => copied,
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                return Err(FolderError::Full { needed: stat.bytes });
            }
            Err(error) => return Err(staging("write to", self.writer, error)),
        };
        if let Some(problem) = copied.problem {
            self.problems.missing(Some(&path), problem);
        }
        let Some(file) = copied.file else { return Ok(()) };
        let kind = EntryKind::File { bytes: file.bytes, sparse: file.sparse };
        let Entry { mode, uid, gid, mtime, .. } = folder_entry(path.clone(), &file.stat).entry;
        let entry = Entry { path: path.clone(), kind, mode, uid, gid, mtime };
        self.writer.add(&IndexedEntry { entry, linked: file.linked, seen: file.seen })?;
        if file.stat.links > 1 {
            self.hard_links.insert((file.stat.dev, file.stat.ino), (path, file.stat.links - 1));
        }
        Ok(())
    }

    fn add(&mut self, path: EntryPath, kind: EntryKind, stat: &FileStat) -> Result<(), FolderError> {
        self.make_targets()?;
        let mut indexed = folder_entry(path, stat);
        indexed.entry.kind = kind;
        Ok(self.writer.add(&indexed)?)
    }
}

/// A path of the source `name`, from its folder on.
fn inside<'p>(path: &'p EntryPath, name: &SourceName) -> &'p [u8] {
    path.as_bytes().get(name.as_str().len() + 1..).unwrap_or_default()
}

fn folder_entry(path: EntryPath, stat: &FileStat) -> IndexedEntry {
    let FileStat { mode, uid, gid, mtime, .. } = *stat;
    IndexedEntry { entry: Entry { path, kind: EntryKind::Folder, mode, uid, gid, mtime }, linked: false, seen: None }
}

fn staging(operation: &'static str, writer: &SourceWriter, error: std::io::Error) -> FolderError {
    FolderError::Staging(StagingError::io(operation, writer.folder(), error))
}

/// The previous generation's entries of the source, read beside the walk.
struct Known {
    entries: Option<std::iter::Peekable<Entries>>,
}

impl Known {
    fn of(previous: Option<&LocalGeneration>, name: &SourceName) -> Result<Self, StagingError> {
        let entries = previous.map(|generation| generation.entries_of(name)).transpose()?;
        Ok(Self { entries: entries.map(Iterator::peekable) })
    }

    /// The entry of `path`, if it was there. Asked for in stream order. An index that cannot be read costs only time:
    /// everything is copied then.
    fn find(&mut self, path: &EntryPath) -> Option<IndexedEntry> {
        let entries = self.entries.as_mut()?;
        while let Some(Ok(entry)) = entries.peek() {
            if entry.entry.path >= *path {
                return entries.next_if(|e| e.as_ref().is_ok_and(|e| e.entry.path == *path))?.ok();
            }
            entries.next();
        }
        self.entries = None;
        None
    }
}

#[cfg(test)]
mod tests;
