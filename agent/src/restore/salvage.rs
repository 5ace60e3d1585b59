//! When the list of what is in a generation is lost with its pack: everything else is still there, and tar headers stand
//! between the files. The stream is put together as far as it goes, and the list is made anew of the headers in it.
//!
//! Only packs count that are wholly what the generation names, for the digests of the files are lost with the list.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::extract::{self, BadPack, Sink};
use super::list::Lines;
use super::packs::{Packs, Purpose};
use super::plan::{self, Wanted};
use super::select::content_bytes;
use super::target::{Files, Target, write_sparse};
use super::{Lost, RestoreError};
use crate::entry::{Entry, EntryKind, EntryPath};
use crate::format::entries::EntryLine;
use crate::format::manifest::Manifest;
use crate::format::tar::{self, read::HEADER_BYTES_MAX};
use crate::platform::place::read_at;

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// What of a generation's stream could be had.
pub(super) struct Salvaged {
    /// What its headers say.
    pub(super) lines: Lines,
    /// Packs that were of no use.
    pub(super) bad_packs: Vec<BadPack>,
    stream: File,
    bytes: u64,
    runs: Runs,
}

/// Puts the stream together in the target's own folder.
pub(super) fn salvage(packs: &Packs<'_>, manifest: &Manifest, target: &Target) -> Result<Salvaged, RestoreError> {
    const NAME: &[u8] = b"stream";
    let bytes = manifest.head.stream_bytes;
    let scratch = target.scratch();
    let create = || {
        let stream = scratch.create_part(NAME)?;
        scratch.remove_file(NAME)?;
        stream.set_len(bytes)?;
        Ok(stream)
    };
    let stream = create().map_err(|source| target.error(source))?;
    let received = Received { stream, runs: Mutex::default() };
    let plan = plan::plan(manifest, &[Wanted { from: 0, bytes, file: 0 }]);
    let bad_packs = extract::extract(packs, manifest, &plan, Purpose::Unproved, &received);
    let runs = received.runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let harmed = bad_packs.iter().flat_map(|bad| plan.served_by(bad.index)).map(|(_, at, bytes)| (at, at + bytes));
    let runs = Runs::of(runs).without(Runs::of(harmed.collect()));
    let lines = headers(&received.stream, bytes, &runs);
    Ok(Salvaged { lines, bad_packs, stream: received.stream, bytes, runs })
}

impl Salvaged {
    /// Fills `files`, which were chosen of [`lines`](Self::lines), as far as their contents could be had.
    pub(super) fn fill(&self, files: &Files<'_>) {
        for (index, growing) in files.iter().enumerate() {
            let end = growing.start + content_bytes(growing.line);
            if !self.runs.cover(growing.start, end) {
                continue;
            }
            let mut at = growing.start;
            while at < end {
                let mut piece = vec![0; usize::try_from(PIECE.min(end - at)).unwrap_or(0)];
                let copied = read_at(&self.stream, &mut piece, at).and_then(|()| files.take(index, at, &piece));
                if let Err(error) = copied {
                    tracing::warn!(%error, "a file cannot be put together");
                    break;
                }
                at += piece.len() as u64;
            }
        }
    }

    /// What has no name any more.
    pub(super) fn nameless(&self) -> Option<Lost> {
        let lost = self.bytes - self.runs.bytes();
        (lost > 0).then(|| Lost {
            path: "(what has no name any more)".to_owned(),
            why: format!(
                "{lost} bytes could not be had, among them the list of what is in the generation: files of which \
                 nothing is left are not named here"
            ),
        })
    }
}

/// The entries whose headers could be had, in the order of the stream.
fn headers(stream: &File, bytes: u64, runs: &Runs) -> Lines {
    let mut lines = Lines::new();
    let mut seen = Seen::default();
    let mut at = 0;
    while at < bytes {
        let Some(end) = runs.end_of(at) else {
            at = runs.next(at).map_or(bytes, |next| next.next_multiple_of(tar::BLOCK));
            continue;
        };
        let found = header(stream, at, end).filter(|(line, next)| *next <= bytes && seen.accepts(&line.entry));
        // After a gap, what comes next may be the middle of a file.
        let Some((line, next)) = found else {
            at += tar::BLOCK;
            continue;
        };
        seen.add(&line.entry);
        let start = at + line.head;
        lines.push((line, start));
        at = next;
    }
    lines
}

/// The entry whose header stands at `at`, and where the next one stands.
fn header(stream: &File, at: u64, end: u64) -> Option<(EntryLine, u64)> {
    let read = |bytes: u64| {
        let mut head = vec![0; usize::try_from(bytes.min(end - at)).ok()?];
        read_at(stream, &mut head, at).ok().map(|()| head)
    };
    if !tar::read::looks_like_one(&read(tar::BLOCK)?) {
        return None;
    }
    let (mut entry, head) = tar::read::entry(&read(HEADER_BYTES_MAX)?)?;
    if let EntryKind::File { sparse, .. } = &mut entry.kind {
        // Whether it had holes is not known any more; that its zeros become holes harms nobody.
        *sparse = true;
    }
    let line = EntryLine { entry, head, sha256: None };
    let content = content_bytes(&line);
    let next = (at + head).checked_add(content)?.checked_add(tar::padding(content) as u64)?;
    Some((line, next))
}

/// What keeps an archive inside an archive from being taken for the generation's own entries: their order, and that
/// nothing lies below a file.
#[derive(Default)]
struct Seen {
    last: Option<EntryPath>,
    no_folders: BTreeSet<EntryPath>,
}

impl Seen {
    fn accepts(&self, entry: &Entry) -> bool {
        let in_order = is_own(entry) || self.last.as_ref().is_none_or(|last| *last < entry.path);
        let path = entry.path.as_bytes();
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').filter_map(|(end, _)| path.get(..end));
        in_order && !ends.filter_map(|path| EntryPath::new(path).ok()).any(|path| self.no_folders.contains(&path))
    }

    fn add(&mut self, entry: &Entry) {
        if !is_own(entry) {
            self.last = Some(entry.path.clone());
        }
        if !matches!(entry.kind, EntryKind::Folder) {
            self.no_folders.insert(entry.path.clone());
        }
    }
}

/// The documents of the generation itself stand before and behind its sources.
fn is_own(entry: &Entry) -> bool {
    !entry.path.as_bytes().contains(&b'/') && !matches!(entry.kind, EntryKind::Folder)
}

struct Received {
    stream: File,
    runs: Mutex<Vec<(u64, u64)>>,
}

impl Sink for Received {
    fn take(&self, _file: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        write_sparse(&self.stream, bytes, at)?;
        let end = at + bytes.len() as u64;
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        match runs.last_mut() {
            Some((_, last)) if *last == at => *last = end,
            _ => runs.push((at, end)),
        }
        Ok(())
    }
}

/// Runs `(from, to)` of the stream, ascending and apart.
struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn of(mut runs: Vec<(u64, u64)>) -> Self {
        runs.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(runs.len());
        for (from, to) in runs {
            match joined.last_mut() {
                Some((_, last)) if *last >= from => *last = to.max(*last),
                _ => joined.push((from, to)),
            }
        }
        Self(joined)
    }

    fn without(self, other: Self) -> Self {
        let mut left = Vec::new();
        let mut cuts = other.0.into_iter().peekable();
        for (mut from, to) in self.0 {
            while let Some((cut_from, cut_to)) = cuts.peek().copied().filter(|(cut_from, _)| *cut_from < to) {
                if from < cut_from {
                    left.push((from, cut_from));
                }
                from = from.max(cut_to);
                if cut_to > to {
                    break;
                }
                cuts.next();
            }
            if from < to {
                left.push((from, to));
            }
        }
        Self(left)
    }

    /// Where the run ends that `at` lies in.
    fn end_of(&self, at: u64) -> Option<u64> {
        let run = self.0.get(self.0.partition_point(|(_, to)| *to <= at));
        run.filter(|(from, _)| *from <= at).map(|(_, to)| *to)
    }

    /// Where the first run after `at` begins.
    fn next(&self, at: u64) -> Option<u64> {
        self.0.get(self.0.partition_point(|(from, _)| *from <= at)).map(|(from, _)| *from)
    }

    fn cover(&self, from: u64, to: u64) -> bool {
        from == to || self.end_of(from).is_some_and(|end| end >= to)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_and_cut() {
        let runs = Runs::of(vec![(10, 20), (0, 5), (20, 30), (50, 60), (4, 6)]);
        assert_eq!(runs.0, [(0, 6), (10, 30), (50, 60)]);
        assert_eq!((runs.end_of(5), runs.end_of(6), runs.next(6)), (Some(6), None, Some(10)));
        assert!(runs.cover(10, 30) && runs.cover(7, 7) && !runs.cover(5, 11));
        let left = runs.without(Runs::of(vec![(2, 3), (12, 55), (58, 70)]));
        assert_eq!(left.0, [(0, 2), (3, 6), (10, 12), (55, 58)]);
        assert_eq!(left.bytes(), 10);
        assert!(left.without(Runs::of(vec![(0, 100)])).0.is_empty());
    }
}
