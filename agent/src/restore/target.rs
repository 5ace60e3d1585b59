//! Where restored files go: built aside under numbers, proved by SHA-256, and only then put under their names.
//!
//! Every folder is opened by its name in its parent and never through a link, so nothing outside the target is touched,
//! whatever the list of entries says.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::extract::{BadPack, Sink};
use super::packs::PackError;
use super::proof::Proof;
use super::unfinished::Placed;
use super::{Lost, RestoreError, UNFINISHED};
use crate::config::Size;
use crate::durable;
use crate::entry::{EntryKind, EntryPath};
use crate::format::Sha256;
use crate::format::entries::EntryLine;
use crate::platform;
use crate::platform::place::{self, Attributes};
use crate::platform::tree::{self, Dir, FileKind, FileStat};
use crate::progress::Progress;

/// Folder inside the target in which files are built; it is gone when the restore has ended. No source has such a name.
const WORK: &[u8] = UNFINISHED.as_bytes();
/// A link on its way to a name that is taken. Files have numbers.
const LINK: &[u8] = b"link";
/// Zeros of this length in a sparse file are left out.
const HOLE: usize = 4096;

/// The folder that is restored to.
pub(super) struct Target {
    path: PathBuf,
    root: Dir,
    work: Dir,
    placed: Placed,
    overwrite: bool,
    /// It was not there before.
    is_new: bool,
    other_owners: AtomicBool,
}

/// A file that is being put together.
pub(super) struct Growing<'a> {
    /// What it shall be.
    pub(super) line: &'a EntryLine,
    /// Where in the stream its content begins.
    pub(super) start: u64,
    proof: Proof,
}

/// The files that a restore puts together, and what became of them.
pub(super) struct Files<'a> {
    target: &'a Target,
    files: Vec<Growing<'a>>,
    lost: Mutex<Vec<Lost>>,
    /// Indexes of those that are not what was backed up.
    refuted: Mutex<BTreeSet<usize>>,
    restored: AtomicU64,
    restored_bytes: AtomicU64,
    progress: &'a Progress,
}

impl Target {
    /// Opens the folder `path`, and makes it if it is not there. What a restore left there that died is begun anew.
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Self, RestoreError> {
        let is_new = !path.exists();
        let open = || {
            durable::create_folder(path)?;
            let root = Dir::open(path)?;
            let (work, placed) = Placed::begin(&root, WORK)?;
            Ok((root, work, placed))
        };
        let failed = |source| {
            let path = path.to_owned();
            if is_full(&source) { RestoreError::Full { path, source } } else { RestoreError::Target { path, source } }
        };
        let (root, work, placed) = open().map_err(failed)?;
        Ok(Self { path: path.to_owned(), root, work, placed, overwrite, is_new, other_owners: AtomicBool::new(false) })
    }

    /// A private folder for what is needed meanwhile.
    pub(super) fn scratch(&self) -> &Dir {
        &self.work
    }

    /// Removes what was needed meanwhile, and the folder itself if it was made for nothing. Of a restore that came to nothing
    /// it is kept which files are its own, for the next one.
    pub(super) fn close(&self, is_done: bool) -> Result<(), RestoreError> {
        let removed = if is_done || self.placed.is_empty() {
            self.root.remove_tree(WORK)
        } else {
            Placed::keep_only_log(&self.work)
        };
        removed.map_err(|source| self.error(source))?;
        if self.is_new {
            // One that holds something stays.
            std::fs::remove_dir(&self.path).ok();
        }
        Ok(())
    }

    /// Whether some owner could not be set.
    pub(super) fn other_owners(&self) -> bool {
        self.other_owners.load(Ordering::Relaxed)
    }

    /// Nothing that exists is in the way, or it may be replaced. All conflicts are found before anything is fetched.
    pub(super) fn check_free(&self, lines: &[&EntryLine]) -> Result<(), RestoreError> {
        let mut taken = Vec::new();
        for line in lines {
            if self.is_taken(line)? {
                taken.push(line.entry.path.to_string());
            }
        }
        if taken.is_empty() { Ok(()) } else { Err(RestoreError::Exists { path: self.path.clone(), taken }) }
    }

    /// Whether something lies where `line` belongs that may not be replaced; a link or file in place of a folder on the way
    /// counts as what it is.
    fn is_taken(&self, line: &EntryLine) -> Result<bool, RestoreError> {
        let path = &line.entry.path;
        let mut folder = None;
        let mut segments = path.segments().peekable();
        while let Some(segment) = segments.next() {
            let here = folder.as_ref().unwrap_or(&self.root);
            let stat = match here.stat(segment) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(self.error(error)),
            };
            if segments.peek().is_none() {
                return Ok(match (&line.entry.kind, stat.kind) {
                    (EntryKind::Folder, kind) => kind != FileKind::Folder,
                    (_, FileKind::Folder) => true,
                    _ => !self.may_replace(here, segment, &stat, line),
                });
            }
            if stat.kind != FileKind::Folder {
                return Err(RestoreError::Exists { path: self.path.clone(), taken: vec![path.to_string()] });
            }
            folder = Some(here.open_dir(segment).map_err(|error| self.error(error))?);
        }
        Ok(false)
    }

    /// Whether `found`, which lies in `folder` where `line` belongs, may be replaced.
    fn may_replace(&self, folder: &Dir, name: &[u8], found: &FileStat, line: &EntryLine) -> bool {
        self.overwrite || self.placed.has(folder, name, found, line)
    }

    /// The folder that `path` lies in, made as far as it is missing; and the last segment.
    fn parent<'p>(&self, path: &'p EntryPath) -> io::Result<(Option<Dir>, &'p [u8])> {
        let mut folder: Option<Dir> = None;
        let mut segments = path.segments().peekable();
        while let Some(segment) = segments.next() {
            if segments.peek().is_none() {
                return Ok((folder, segment));
            }
            folder = Some(self.enter(folder.as_ref().unwrap_or(&self.root), segment)?);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn enter(&self, folder: &Dir, name: &[u8]) -> io::Result<Dir> {
        match folder.open_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.create_dir(name) {
                // Another thread was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folder.open_dir(name),
                created => created,
            },
            opened => opened,
        }
    }

    /// Makes a folder, with permissions that let us work in it.
    pub(super) fn folder(&self, line: &EntryLine) -> io::Result<()> {
        let (parent, name) = self.parent(&line.entry.path)?;
        self.enter(parent.as_ref().unwrap_or(&self.root), name).map(|_| ())
    }

    /// Gives a folder its permissions, when everything in it is done.
    pub(super) fn finish_folder(&self, line: &EntryLine) -> io::Result<()> {
        let (parent, name) = self.parent(&line.entry.path)?;
        let folder = parent.as_ref().unwrap_or(&self.root).open_dir(name)?;
        self.note(folder.restore_attributes(&line.entry)?);
        Ok(())
    }

    /// Makes a symbolic or hard link.
    pub(super) fn link(&self, line: &EntryLine) -> io::Result<()> {
        let (parent, name) = self.parent(&line.entry.path)?;
        let parent = parent.as_ref().unwrap_or(&self.root);
        match parent.stat(name) {
            Ok(found) if self.may_replace(parent, name, &found, line) => {}
            _ => return self.link_at(line, parent, name),
        }
        // What is there keeps its name until the new link takes it.
        self.link_at(line, &self.work, LINK)?;
        self.work.move_to(LINK, parent, name)?;
        match self.work.remove_file(LINK) {
            // It stays behind if both are names of one file already.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn link_at(&self, line: &EntryLine, folder: &Dir, name: &[u8]) -> io::Result<()> {
        match &line.entry.kind {
            EntryKind::Symlink { target } => {
                folder.symlink(name, target)?;
                self.note(folder.restore_link_attributes(name, &line.entry)?);
                Ok(())
            }
            EntryKind::HardLink { target } => {
                let (from, from_name) = self.parent(target)?;
                folder.hard_link(from.as_ref().unwrap_or(&self.root), from_name, name)
            }
            EntryKind::File { .. } | EntryKind::Folder => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn note(&self, attributes: Attributes) {
        if attributes == Attributes::OtherOwner {
            self.other_owners.store(true, Ordering::Relaxed);
        }
    }

    /// The target cannot be used, because of `source`.
    pub(super) fn error(&self, source: io::Error) -> RestoreError {
        let path = self.path.clone();
        if is_full(&source) { RestoreError::Full { path, source } } else { RestoreError::Target { path, source } }
    }

    /// An error if one of `bad` is of no use only because the disk of the target is full.
    pub(super) fn check_room(&self, bad: &[BadPack]) -> Result<(), RestoreError> {
        let full = bad.iter().find_map(|bad| match &bad.error {
            PackError::Write(source) if is_full(source) => Some(source.kind()),
            _ => None,
        });
        full.map_or(Ok(()), |kind| Err(self.error(kind.into())))
    }

    /// A file system that compresses may hold more than it says, so this is for a person to judge.
    pub(super) fn warn_of_little_room(&self, files: &[(&EntryLine, u64)]) {
        let solid = files.iter().filter(|(line, _)| !matches!(line.entry.kind, EntryKind::File { sparse: true, .. }));
        let needed: u64 = solid.map(|(line, _)| size(line)).sum();
        let free = platform::free_bytes(&self.path).unwrap_or(u64::MAX);
        if needed > free {
            let (needed, free) = (Size(needed), Size(free));
            tracing::warn!(
                "the files to restore have {needed}, and the disk of {} has {free} free",
                self.path.display()
            );
        }
    }
}

impl<'a> Files<'a> {
    /// `files` are lines of files and where in the stream their contents begin.
    pub(super) fn new(target: &'a Target, files: Vec<(&'a EntryLine, u64)>, progress: &'a Progress) -> Self {
        let grow = |(line, start): (&'a EntryLine, u64)| Growing { line, start, proof: Proof::default() };
        let files = files.into_iter().map(grow).collect();
        let (restored, restored_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let (lost, refuted) = (Mutex::default(), Mutex::default());
        Self { target, files, lost, refuted, restored, restored_bytes, progress }
    }

    /// The files.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Growing<'a>> {
        self.files.iter()
    }

    /// Makes every file, at its full length and still under its number. Empty ones are done with.
    pub(super) fn create(&self) -> Result<(), RestoreError> {
        for (index, file) in self.files.iter().enumerate() {
            let create = || {
                let part = self.target.work.create_part(&number(index))?;
                part.set_len(size(file.line))
            };
            create().map_err(|source| self.target.error(source))?;
            if size(file.line) == 0 {
                self.complete(index, file, Sha256::of(&[]));
            }
        }
        Ok(())
    }

    /// Indexes of the files that are whole and not what was backed up.
    pub(super) fn refuted(&self) -> BTreeSet<usize> {
        self.refuted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many files are in their places, how many bytes they have, and what could not be had; `why` may know it of those that
    /// are not whole or not what was backed up, by their index.
    pub(super) fn finish(self, why: impl Fn(usize) -> Option<String>) -> (u64, u64, Vec<Lost>) {
        let mut lost = self.lost.into_inner().unwrap_or_else(PoisonError::into_inner);
        let refuted = self.refuted.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (index, file) in self.files.iter().enumerate() {
            let else_why = match refuted.contains(&index) {
                true => "its content is not what was backed up (SHA-256 differs)",
                false if file.proof.reached() < size(file.line) => "a patch it needs cannot be applied",
                false => continue,
            };
            let why = why(index).unwrap_or_else(|| else_why.to_owned());
            lost.push(Lost { path: file.line.entry.path.to_string(), why });
        }
        lost.sort_by(|a, b| a.path.cmp(&b.path));
        (self.restored.into_inner(), self.restored_bytes.into_inner(), lost)
    }

    fn complete(&self, index: usize, file: &Growing<'_>, found: Sha256) {
        match self.prove_and_place(index, file, found) {
            // Lists of ours, which lie beside the sources, are nobody's files.
            Ok(true) if file.line.entry.path.segments().count() > 1 => {
                self.restored.fetch_add(1, Ordering::Relaxed);
                self.restored_bytes.fetch_add(size(file.line), Ordering::Relaxed);
            }
            Ok(true) => {}
            Ok(false) => {
                self.refuted.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
            }
            Err(error) => self.lose(file, format!("it could not be written: {error}")),
        }
    }

    /// A file that is not what was backed up never gets its name.
    fn prove_and_place(&self, index: usize, file: &Growing<'_>, found: Sha256) -> io::Result<bool> {
        let name = number(index);
        if file.line.sha256.is_some_and(|wanted| wanted != found) {
            self.target.work.remove_file(&name)?;
            return Ok(false);
        }
        let part = self.target.work.open_part(&name)?;
        self.target.note(place::restore_attributes(&part, &file.line.entry)?);
        let (parent, last) = self.target.parent(&file.line.entry.path)?;
        let parent = parent.as_ref().unwrap_or(&self.target.root);
        if parent.stat(last).is_ok_and(|found| !self.target.may_replace(parent, last, &found, file.line)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.target.placed.add(&tree::file_stat(&part)?)?;
        self.target.work.move_to(&name, parent, last)?;
        Ok(true)
    }

    fn lose(&self, file: &Growing<'_>, why: String) {
        let lost = Lost { path: file.line.entry.path.to_string(), why };
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(lost);
    }
}

impl Sink for Files<'_> {
    fn take(&self, index: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = self.files.get(index) else { return Ok(()) };
        let part = self.target.work.open_part(&number(index))?;
        let offset = at - file.start;
        if matches!(file.line.entry.kind, EntryKind::File { sparse: true, .. }) {
            write_sparse(&part, bytes, offset)?;
        } else {
            place::write_at(&part, bytes, offset)?;
        }
        self.progress.add_done(bytes.len() as u64);
        if let Some(found) = file.proof.add(&part, offset, bytes, size(file.line))? {
            drop(part);
            self.complete(index, file, found);
        }
        Ok(())
    }
}

/// Writes to a file that has its full length already, so that zeros need not be written.
pub(super) fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    static ZEROS: [u8; HOLE] = [0; HOLE];
    let mut at = offset;
    for piece in bytes.chunks(HOLE) {
        if ZEROS.get(..piece.len()) != Some(piece) {
            place::write_at(file, piece, at)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// Whether it is for lack of room that something could not be written.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn size(line: &EntryLine) -> u64 {
    match line.entry.kind {
        EntryKind::File { bytes, .. } => bytes,
        _ => 0,
    }
}

fn number(index: usize) -> Vec<u8> {
    index.to_string().into_bytes()
}
