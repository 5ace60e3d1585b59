//! The list of what is in a generation: fetched, proved, and checked before anything is done with it.

use std::collections::BTreeSet;

use super::extract::{self, BadPack, Sink};
use super::packs::{Packs, Purpose};
use super::plan::{self, Wanted};
use super::select::content_bytes;
use super::{ListError, RestoreError};
use crate::entry::{EntryKind, EntryPath};
use crate::format::Sha256;
use crate::format::entries::EntryLine;
use crate::format::manifest::Manifest;
use crate::format::tar;

/// Largest list of entries that is read.
const ENTRIES_BYTES_MAX: u64 = 8 << 30;

/// Lines, and where in the stream the content of each begins.
pub(super) type Lines = Vec<(EntryLine, u64)>;

/// The list, or the packs for lack of which it cannot be had.
pub(super) fn read(packs: &Packs<'_>, manifest: &Manifest) -> Result<Result<Lines, Vec<BadPack>>, RestoreError> {
    let head = &manifest.head;
    let refuse = |source| RestoreError::List { generation: head.generation.clone(), source };
    if head.entries_bytes > ENTRIES_BYTES_MAX {
        return Err(refuse(ListError::Sense("it is impossibly long")));
    }
    let list = List::new(head.entries_at, head.entries_bytes);
    let wanted = [Wanted { from: head.entries_at, bytes: head.entries_bytes, file: 0 }];
    let plan = plan::plan(manifest, &wanted);
    let mut bad = extract::extract(packs, manifest, &plan, Purpose::List, &list);
    let text = list.bytes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if Sha256::of(&text) != head.entries_sha256 {
        if bad.is_empty() {
            bad = extract::to_blame(packs, manifest, &plan, &BTreeSet::from([0]));
        }
        return Ok(Err(bad));
    }
    decode(&text, head.stream_bytes).map(Ok).map_err(refuse)
}

fn decode(text: &[u8], stream_bytes: u64) -> Result<Lines, ListError> {
    let mut lines = Vec::new();
    let mut position = 0_u64;
    for text in text.split_inclusive(|b| *b == b'\n') {
        let line = EntryLine::decode(text)?;
        let content = content_bytes(&line);
        let start = position.checked_add(line.head).ok_or(ListError::Sense("its sizes overflow"))?;
        position = start
            .checked_add(content)
            .and_then(|end| end.checked_add(tar::padding(content) as u64))
            .filter(|end| *end <= stream_bytes)
            .ok_or(ListError::Sense("it names more bytes than the stream has"))?;
        lines.push((line, start));
    }
    check(&lines)?;
    Ok(lines)
}

/// Each path once, each folder before what it holds, nothing below a file or a link, and hard links to files before them.
fn check(lines: &[(EntryLine, u64)]) -> Result<(), ListError> {
    let mut folders: BTreeSet<&[u8]> = BTreeSet::new();
    let targets = lines.iter().filter_map(|(line, _)| match &line.entry.kind {
        EntryKind::HardLink { target } => Some(target.as_bytes()),
        _ => None,
    });
    let mut targets: BTreeSet<&[u8]> = targets.collect();
    let mut linked: BTreeSet<&[u8]> = BTreeSet::new();
    let mut last: Option<&EntryPath> = None;
    for (line, _) in lines {
        let path = &line.entry.path;
        let bytes = path.as_bytes();
        let refuse = |what| Err(ListError::Entry { path: path.to_string(), what });
        let own = !bytes.contains(&b'/') && !matches!(line.entry.kind, EntryKind::Folder);
        if !own && last.is_some_and(|last| last >= path) {
            return refuse("stands there twice, or out of order");
        }
        if let Some(end) = bytes.iter().rposition(|b| *b == b'/')
            && !folders.contains(bytes.get(..end).unwrap_or_default())
        {
            return refuse("lies below something that is no folder");
        }
        match &line.entry.kind {
            EntryKind::Folder => {
                folders.insert(bytes);
            }
            EntryKind::File { .. } if targets.remove(bytes) => {
                linked.insert(bytes);
            }
            EntryKind::HardLink { target } if !linked.contains(target.as_bytes()) => {
                return refuse("is a hard link to something that is no file before it");
            }
            _ => {}
        }
        if !own {
            last = Some(path);
        }
    }
    Ok(())
}

/// The list of entries as it is put together in memory.
struct List {
    at: u64,
    bytes: std::sync::Mutex<Vec<u8>>,
}

impl List {
    fn new(at: u64, bytes: u64) -> Self {
        Self { at, bytes: std::sync::Mutex::new(vec![0; usize::try_from(bytes).unwrap_or(0)]) }
    }
}

impl Sink for List {
    fn take(&self, _file: usize, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut list = self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = usize::try_from(at - self.at).map_err(std::io::Error::other)?;
        match list.get_mut(start..start + bytes.len()) {
            Some(place) => place.copy_from_slice(bytes),
            None => return Err(std::io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}
