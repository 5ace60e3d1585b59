//! What is copied at leisure: folders and the output of commands, while the databases are being copied.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;

use super::folder::{self, Databases, FolderError, Frozen, Surroundings};
use super::problems::{self, Problems};
use super::settings::{CommandSource, FolderSource, SourceConfig, SourceKind};
use super::{CaptureError, CaptureRequest, Copies, Event, Watch, command, empty_record, written};
use crate::clock;
use crate::generation::SourceRecord;
use crate::platform;
use crate::staging::{Draft, LocalGeneration};

/// Copies the sources that are not cut: at leisure, while the databases are being copied. Two are copied at once: folders, or
/// a folder and a database, for whose copy all would otherwise wait. `databases_copied` breaks off when these are copied.
pub(super) fn copy_others(
    request: &CaptureRequest<'_>,
    draft: &Draft,
    previous: Option<&LocalGeneration>,
    watch: Watch<'_>,
    databases_copied: Receiver<Infallible>,
) -> Result<Copies, CaptureError> {
    let (own, databases) = (own_folders(request, draft), Databases::of(request.sources));
    let around = Surroundings { previous, own: &own, databases: &databases, watch };
    let others = request.sources.iter().filter(|source| !source.kind.is_cut());
    let (commands, folders): (Vec<_>, Vec<_>) =
        others.partition(|source| matches!(source.kind, SourceKind::Command(_)));
    let copy = |source: &SourceConfig, copies: &mut Copies| {
        watch(Event::Started { source: &source.name });
        let mut problems = Problems::new(&source.name);
        copies.records.push(copy_other(source, draft, &around, &mut problems)?);
        copies.problems.push(problems);
        Ok::<_, CaptureError>(())
    };
    // Commands first: what they copy is more likely to belong together with the databases. One after another: they may use the
    // same engine, or write into a folder.
    let mut commanded = Copies::default();
    commands.into_iter().try_for_each(|source| copy(source, &mut commanded))?;
    let next = AtomicUsize::new(0);
    let copy_some = || {
        let mut copies = Copies::default();
        while let Some(source) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
            copy(source, &mut copies).inspect_err(|_| next.store(folders.len(), Ordering::Relaxed))?;
        }
        Ok::<_, CaptureError>(copies)
    };
    thread::scope(|scope| {
        let copy_some = &copy_some;
        let other = scope.spawn(move || {
            let _copied = databases_copied.recv();
            copy_some()
        });
        let mut copies = commanded;
        copies.add(copy_some()?);
        copies.add(other.join().unwrap_or(Err(CaptureError::Defect))?);
        Ok(copies)
    })
}

/// Our own folders, by file system and number.
pub(super) fn own_folders(request: &CaptureRequest<'_>, draft: &Draft) -> Vec<(u64, u64)> {
    let folders = request.own_folders.iter().map(PathBuf::as_path).chain([draft.root()]);
    // One that is not there yet cannot be met.
    folders.filter_map(|folder| platform::tree::path_stat(folder).ok()).map(|stat| (stat.dev, stat.ino)).collect()
}

/// Copies a folder, as it is or as it was when it was `frozen`, and records what became of it.
pub(super) fn copy_folder(
    source: &FolderSource,
    record: &mut SourceRecord,
    draft: &Draft,
    around: &Surroundings<'_>,
    frozen: Option<&Frozen<'_>>,
    problems: &mut Problems,
) -> Result<(), CaptureError> {
    let mut writer = draft.source(&record.name)?;
    match folder::copy(source, &record.name, &mut writer, around, frozen, problems) {
        Ok(()) => {
            let written = writer.finish()?;
            (record.entries, record.bytes) = (written.entries, written.bytes);
            // What was left out was there.
            if !problems.have_paths()
                && let Some(what) = folder::emptied(source, record, around.previous)
            {
                problems.missing(None, what);
            }
        }
        Err(FolderError::Root(why)) => {
            writer.discard()?;
            let remedy = problems::remedy(&why);
            problems.missing(None, format!("the folder {} cannot be read: {why}{remedy}", source.path.display()));
        }
        Err(FolderError::Full { needed }) => {
            return Err(CaptureError::NoSpace { folder: draft.root().to_owned(), needed });
        }
        Err(FolderError::Staging(error)) => return Err(error.into()),
    }
    record.finished = clock::now();
    Ok(())
}

/// What a command writes.
fn copy_command(
    command: &CommandSource,
    record: &mut SourceRecord,
    draft: &Draft,
    problems: &mut Problems,
) -> Result<(), CaptureError> {
    let writer = draft.source(&record.name)?;
    match command::run(command, writer.folder()) {
        Ok(()) => written::record(writer, record, problems)?,
        Err(why) => {
            writer.discard()?;
            problems.missing(None, why);
        }
    }
    record.finished = clock::now();
    Ok(())
}

fn copy_other(
    source: &SourceConfig,
    draft: &Draft,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Result<SourceRecord, CaptureError> {
    let mut record = empty_record(&source.name, source.kind.word(), clock::now());
    match &source.kind {
        SourceKind::Folder(folder) => copy_folder(folder, &mut record, draft, around, None, problems)?,
        SourceKind::Command(command) => copy_command(command, &mut record, draft, problems)?,
        SourceKind::Sqlite(_) | SourceKind::MariaDb(_) | SourceKind::Postgres(_) => {}
    }
    Ok(record)
}
