//! Restoring from staging: the files are at hand, and are proved all the same where their digests are known.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use super::select::{self, content_bytes};
use super::target::{Files, Target, is_full};
use super::{ListError, RestoreError, RestoreReport, RestoreRequest};
use crate::entry::EntryKind;
use crate::failure::one_line;
use crate::format::entries::{ENTRIES, EntryLine};
use crate::format::tar;
use crate::progress::Progress;
use crate::restore::extract::Sink as _;
use crate::staging::LocalGeneration;

/// Restores what is asked for from `generation`.
pub(super) fn restore(
    generation: &LocalGeneration,
    request: &RestoreRequest<'_>,
    progress: &Progress,
) -> Result<RestoreReport, RestoreError> {
    let lines = lines(generation)?;
    let chosen = select::select(&lines, request)?;
    let target = Target::open(request.to, request.overwrite)?;
    let restore = || -> Result<RestoreReport, RestoreError> {
        let files = super::begin(&target, &chosen, progress)?;
        let mut lost = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            let copied = match generation.open_file(&file.line.entry.path) {
                Ok(staged) => copy(staged, index, file.start, content_bytes(file.line), &files),
                Err(error) => Err(CopyError::Read(one_line(&error))),
            };
            match copied {
                Ok(()) => {}
                Err(CopyError::Read(why)) => drop(lost.insert(index, format!("its staged copy cannot be read: {why}"))),
                Err(CopyError::Write(error)) if is_full(&error) => return Err(target.error(error)),
                Err(CopyError::Write(error)) => drop(lost.insert(index, format!("it could not be written: {error}"))),
            }
        }
        let why = |file| lost.get(&file).cloned();
        Ok(super::finish(files, generation.id(), &target, &chosen, why))
    };
    let restored = restore();
    let closed = target.close(restored.is_ok());
    let report = restored?;
    closed.map(|()| report)
}

/// Which side of a copy failed.
enum CopyError {
    Read(String),
    Write(std::io::Error),
}

fn copy(mut file: File, index: usize, start: u64, bytes: u64, files: &Files<'_>) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < bytes {
        let read = file.read(&mut buffer).map_err(|error| CopyError::Read(error.to_string()))?;
        if read == 0 || done + read as u64 > bytes {
            return Err(CopyError::Read("it is not as long as it was".to_owned()));
        }
        let piece = buffer.get(..read).unwrap_or_default();
        files.take(index, start + done, piece).map_err(CopyError::Write)?;
        done += read as u64;
    }
    Ok(())
}

/// The entries: from the list that sealing left, which has digests; else from the index.
fn lines(generation: &LocalGeneration) -> Result<Vec<(EntryLine, u64)>, RestoreError> {
    let mut lines = Vec::new();
    let mut position = 0;
    let mut add = |line: EntryLine| {
        let start = position + line.head;
        let bytes = content_bytes(&line);
        position = start + bytes + tar::padding(bytes) as u64;
        // The generation's own documents are not among the staged files.
        if line.entry.path.as_bytes().contains(&b'/') || matches!(line.entry.kind, EntryKind::Folder) {
            lines.push((line, start));
        }
    };
    if let Ok(list) = File::open(generation.cache_path(ENTRIES)) {
        for text in BufReader::new(list).split(b'\n') {
            let line = text.map_err(ListError::Read).and_then(|text| Ok(EntryLine::decode(&text)?));
            add(line.map_err(|source| RestoreError::List { generation: generation.id().clone(), source })?);
        }
        return Ok(lines);
    }
    for indexed in generation.entries()? {
        let entry = indexed?.entry;
        let head = tar::header(&entry).len() as u64;
        add(EntryLine { entry, head, sha256: None });
    }
    Ok(lines)
}
