//! Rehearsing a restore: a generation comes back from a store into scratch, every database in it is opened and looked
//! through, and the outcome is a [`Verdict`].
//!
//! Nothing of staging is used, and nothing but the scratch folder is written to. What goes wrong is a finding: a drill that
//! could not be made to its end is a failed one, and says why. Only where there is no scratch folder nothing was tried.

mod checks;
mod live;
mod mariadb;
mod postgres;
mod rehearsal;
mod scratch;
mod server;
mod settings;
mod sqlite;
mod verdict;

use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use providers::ErrorKind;

use crate::catalog::CatalogError;
use crate::clock;
use crate::failure::one_line;
use crate::format::names::{ChainFolder, MANIFEST};
use crate::ids::{SourceName, StoreName};
use crate::platform;
use crate::progress::Progress;
use crate::report::counted;
use crate::restore::{self, BadPack, Lost, PackError, RestoreError, RestoreReport, RestoreRequest, StoredOrigin};

pub use scratch::{ScratchError, serve_sweeper, sweep};
pub use settings::{Ask, Check, DrillSettings, SweeperProgram};
pub use verdict::{About, Finding, OpenedDatabase, Outcome, VERSION, Verdict};

use rehearsal::Rehearsal;
use scratch::Scratch;

/// Left free on the disk of the scratch folder, for everybody else.
const RESERVE: u64 = 256 << 20;
/// So many lost files are named one by one.
const NAMED_MAX: usize = 20;

/// What is to be rehearsed.
#[derive(Clone, Copy)]
pub struct DrillRequest<'a> {
    /// The generation, its store, and what opens it.
    pub origin: StoredOrigin<'a>,
    /// What the store is called.
    pub store: &'a StoreName,
    /// Where, and what has to be found.
    pub settings: &'a DrillSettings,
    /// The folders that the office works with, to compare with.
    pub live: &'a [(SourceName, PathBuf)],
    /// How to start the process that clears the scratch away.
    pub sweeper: &'a SweeperProgram,
}

/// Rehearses. `tell` is called with a line for the person who waits, each time something that may take long begins. Without a
/// folder to work in nothing is tried, and nothing is known of the generation.
pub fn drill(
    request: &DrillRequest<'_>,
    progress: &Progress,
    began: Timestamp,
    tell: &dyn Fn(&str),
) -> Result<Verdict, ScratchError> {
    let scratch = Scratch::open(&request.settings.scratch, request.sweeper)?;
    let mut verdict = Verdict::begin(began);
    let stored = request.origin.stored;
    verdict.generation = Some(stored.generation.to_string());
    verdict.store = Some(request.store.to_string());
    verdict.within_ms = request.settings.restore_within.map(|within| millis(within.as_millis()));
    if let Some(commit) = &stored.commit {
        verdict.cut = Some(commit.cut);
        verdict.grade = Some(commit.grade);
        verdict.fetched_bytes = commit.needed_bytes;
    }
    rehearse(request, scratch, progress, &mut verdict, tell);
    Ok(verdict.end(clock::now()))
}

fn rehearse(
    request: &DrillRequest<'_>,
    scratch: Scratch,
    progress: &Progress,
    verdict: &mut Verdict,
    tell: &dyn Fn(&str),
) {
    let needed = request.origin.stored.commit.as_ref().map_or(0, |commit| commit.stream_bytes);
    if let Err(what) = room(&scratch, request.settings, needed, 0, "what is in the generation") {
        return verdict.find(About::Scratch, what);
    }
    let restored = scratch.path().join("restored");
    let restoring = RestoreRequest { to: &restored, source: None, paths: None, overwrite: false };
    let began = Instant::now();
    match restore::from_store(&request.origin, &restoring, progress) {
        Ok(report) => {
            verdict.restore_ms = millis(began.elapsed().as_millis());
            (verdict.files, verdict.bytes) = (report.files, report.bytes);
            // What did not come only because the store went away says nothing of the copy.
            if let Some(what) = out_of_reach(&report).filter(|_| !answers(request)) {
                verdict.find(About::Store, what);
                return close(scratch, verdict);
            }
            judge_files(&report, verdict);
            Rehearsal { request, scratch: &scratch, restored: &restored, verdict, tell }.open_all();
            judge_time(verdict);
        }
        Err(error) => {
            let (about, what) = judge_error(request, &error);
            verdict.find(about, what);
        }
    }
    close(scratch, verdict);
}

fn close(scratch: Scratch, verdict: &mut Verdict) {
    let path = scratch.path().to_owned();
    if let Err(error) = scratch.close() {
        let what = format!("the scratch folder {} could not be removed: {error}; remove it by hand", path.display());
        verdict.find(About::Scratch, what);
    }
}

/// Whether so many more bytes may be put into the scratch folder, that holds `held` already.
fn room(scratch: &Scratch, settings: &DrillSettings, needed: u64, held: u64, what: &str) -> Result<(), String> {
    use crate::config::Size;
    let folder = settings.scratch.display();
    if let Some(limit) = settings.scratch_limit
        && held.saturating_add(needed) > limit
    {
        return Err(format!(
            "the scratch folder {folder} may hold {}, and {what} needs {}; raise `[drill] scratch_limit`",
            Size(limit),
            Size(held.saturating_add(needed))
        ));
    }
    match platform::free_bytes(scratch.path()) {
        Ok(free) if free >= needed.saturating_add(RESERVE) => Ok(()),
        Ok(free) => Err(format!(
            "the disk of the scratch folder {folder} has {} free, and {what} needs {} and some reserve; let `[drill] scratch` \
             name a folder on a larger disk",
            Size(free),
            Size(needed)
        )),
        Err(error) => Err(format!("the free space of {folder} cannot be had: {error}")),
    }
}

/// Why packs could not be had from the store, if nothing else is wrong with what came back.
fn out_of_reach(report: &RestoreReport) -> Option<String> {
    let first = report.bad_packs.first()?;
    let about_store = report.bad_packs.iter().all(|bad| about_pack(bad).0 == About::Store);
    let explained = |lost: &Lost| report.bad_packs.iter().any(|bad| lost.why.contains(bad.key.as_str()));
    let what =
        || format!("the pack `{}` could not be fetched: {}; look at the store", first.key, one_line(&first.error));
    (about_store && report.lost.iter().all(explained)).then(what)
}

fn judge_files(report: &RestoreReport, verdict: &mut Verdict) {
    for bad in &report.bad_packs {
        let (about, remedy) = about_pack(bad);
        // The store is there, and does not give this.
        let about = if about == About::Store { About::Pack } else { about };
        verdict.find(about, format!("the pack `{}` is of no use: {}; {remedy}", bad.key, one_line(&bad.error)));
    }
    // What lacks a pack that was just named needs no word of its own.
    let (for_want, others): (Vec<_>, Vec<_>) =
        report.lost.iter().partition(|lost| report.bad_packs.iter().any(|bad| lost.why.contains(bad.key.as_str())));
    if let Some(first) = for_want.first() {
        let files = counted(for_want.len() as u64, "file");
        let nameless = format!("{files} did not come back for want of that");
        verdict.find_file(format!("{nameless}, such as {}", first.path), nameless);
    }
    for lost in others.iter().take(NAMED_MAX) {
        let what = format!("{} did not come back: {}", lost.path, lost.why);
        // What has no slash in it has no name any more, or is ours.
        match lost.path.split_once('/') {
            Some((source, _)) => {
                verdict.find_file(what, format!("a file of `{source}` did not come back: {}", lost.why));
            }
            None => verdict.find(About::File, what),
        }
    }
    let more = others.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        verdict.find(About::File, format!("{} more did not come back", counted(more as u64, "file")));
    }
    if !report.proved_by_file && report.lost.is_empty() {
        verdict.find(About::File, "the list of digests is lost, so the files could not be compared with it");
    }
}

/// Whether the store can be asked for the generation, so that what it does not give of it is not to be had.
fn answers(request: &DrillRequest<'_>) -> bool {
    let StoredOrigin { store, site, stored, runtime, .. } = &request.origin;
    let folder = ChainFolder::new(site, stored.class, &stored.chain);
    let manifest = folder.and_then(|folder| folder.object(&stored.generation, MANIFEST));
    manifest.is_ok_and(|manifest| runtime.block_on(store.head(&manifest.into())).is_ok())
}

/// Whether a store that fails so may be out of reach: then nothing is known of what it holds.
fn is_away(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Denied | ErrorKind::Throttled | ErrorKind::Unavailable)
}

fn about_pack(bad: &BadPack) -> (About, &'static str) {
    match &bad.error {
        PackError::Write(_) => (About::Scratch, "let `[drill] scratch` name a folder on a larger disk"),
        PackError::Store(error) if is_away(error.kind) => (About::Store, "look at the store"),
        PackError::Decrypt(_) => (About::Identity, "name the key of a recipient"),
        _ => (
            About::Pack,
            "`offsite verify` tells what else is harmed, and `offsite backup --full` makes a generation that needs none of it",
        ),
    }
}

fn judge_error(request: &DrillRequest<'_>, error: &RestoreError) -> (About, String) {
    let generation = &request.origin.stored.generation;
    match error {
        RestoreError::Decrypt { .. } => {
            let what = format!(
                "the secret key does not open {generation}: it was sealed to others; take the key of one of the recipients \
                 that `offsite key show` prints, and see what it opens with `offsite key check`"
            );
            (About::Identity, what)
        }
        RestoreError::Target { .. } | RestoreError::Full { .. } => (About::Scratch, one_line(error)),
        RestoreError::Catalog(CatalogError::Store(source)) if is_away(source.kind) && !answers(request) => {
            (About::Store, one_line(error))
        }
        RestoreError::Entries { bad, .. } => {
            let about = bad.iter().map(|bad| about_pack(bad).0).find(|about| *about != About::Store);
            if about.is_none() && !answers(request) {
                return (About::Store, one_line(error));
            }
            let what = format!("{}; `offsite verify` tells which generations are whole", one_line(error));
            (about.unwrap_or(About::Pack), what)
        }
        RestoreError::Staging(_) | RestoreError::Key(_) | RestoreError::Exists { .. } => {
            (About::Machine, one_line(error))
        }
        RestoreError::Refused { .. }
        | RestoreError::Nothing { .. }
        | RestoreError::Catalog(_)
        | RestoreError::ManifestDigest(_)
        | RestoreError::Unpack { .. }
        | RestoreError::Manifest { .. }
        | RestoreError::List { .. } => (About::Generation, one_line(error)),
    }
}

fn judge_time(verdict: &mut Verdict) {
    use crate::config::Span;
    let took = verdict.restore_ms + verdict.load_ms;
    if let Some(within) = verdict.within_ms.filter(|within| took > *within) {
        let span = |ms| Span(std::time::Duration::from_millis(ms));
        let what = format!(
            "it took {} until everything was back, and the office needs it within {} (`[drill] restore_within`): {} for the \
             files, {} for the database servers",
            span(took),
            span(within),
            span(verdict.restore_ms),
            span(verdict.load_ms)
        );
        verdict.find(About::Time, what);
    }
}

fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX)
}
