//! Restoring from staging: the files are at hand, and are proved all the same where their digests are known.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use super::select::{self, content_bytes};
use super::target::{Files, Target};
use super::{ListError, RestoreError, RestoreReport, RestoreRequest};
use crate::entry::EntryKind;
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
        let files = super::begin(request, &target, &chosen, progress)?;
        for (index, file) in files.iter().enumerate() {
            let staged = generation.open_file(&file.line.entry.path).map_err(std::io::Error::other);
            let copied = staged.and_then(|staged| copy(staged, index, file.start, content_bytes(file.line), &files));
            if let Err(error) = copied {
                tracing::warn!(path = %file.line.entry.path, %error, "a staged file cannot be read");
            }
        }
        let why = |_| "its staged copy cannot be read".to_owned();
        Ok(super::finish(files, generation.id(), &target, &chosen, why))
    };
    let restored = restore();
    let closed = target.close();
    let report = restored?;
    closed.map(|()| report)
}

fn copy(mut file: File, index: usize, start: u64, bytes: u64, files: &Files<'_>) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < bytes {
        let read = file.read(&mut buffer)?;
        if read == 0 || done + read as u64 > bytes {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        files.take(index, start + done, buffer.get(..read).unwrap_or_default())?;
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
