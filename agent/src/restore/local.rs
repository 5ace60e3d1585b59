//! Restoring from staging: the files are at hand, and are proved all the same where their digests are known.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};

use super::select::{self, content_bytes};
use super::target::{Files, Target};
use super::{RestoreError, RestoreReport, RestoreRequest};
use crate::entry::EntryKind;
use crate::format::entries::{ENTRIES, EntryLine};
use crate::format::tar;
use crate::progress::{Progress, Stage};
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
    let bytes = chosen.files.iter().map(|(line, _)| content_bytes(line)).sum();
    progress.begin(Stage::Restoring, bytes);
    let target = Target::open(request.to, request.overwrite)?;
    let restore = || -> Result<RestoreReport, RestoreError> {
        target.check_free(&chosen.all())?;
        for line in &chosen.folders {
            target.folder(line).map_err(|source| RestoreError::Target { path: request.to.to_owned(), source })?;
        }
        let files = Files::new(&target, chosen.files, progress);
        files.create()?;
        for (index, growing) in files.iter().enumerate() {
            let copied = generation.open_file(&growing.line.entry.path).map_err(std::io::Error::other);
            let copied = copied.and_then(|file| copy(file, index, growing.start, content_bytes(growing.line), &files));
            if let Err(error) = copied {
                tracing::warn!(path = %growing.line.entry.path, %error, "a staged file cannot be read");
            }
        }
        let (restored, mut lost) = files.finish("its staged copy cannot be read");
        lost.extend(select::finish(&target, &chosen.links, &chosen.folders));
        let other_owners = target.other_owners();
        let generation = generation.id().clone();
        Ok(RestoreReport { generation, files: restored, bytes, lost, bad_packs: Vec::new(), other_owners })
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
            let text = text.map_err(|_| RestoreError::Sense("it cannot be read"))?;
            add(EntryLine::decode(&text)?);
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
