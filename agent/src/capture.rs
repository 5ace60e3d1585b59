//! Hot copies of all sources of an office, as they were at one instant, into staging.
//!
//! [`protocol`] is the order in which the instant is had, [`holder`] the process that keeps SQLite's writers waiting for
//! it; then every kind of source has its module. What cannot be copied becomes a problem of the generation, and the other
//! sources go on; only staging itself can make a capture fail.

mod command;
mod folder;
mod freeze;
mod guard;
mod holder;
mod leisure;
mod mariadb;
mod patterns;
mod pivots;
mod postgres;
mod problems;
mod protocol;
mod room;
mod session;
mod settings;
mod snapshots;
mod sqlite;
mod written;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::calendar::Age;
use crate::clock;
use crate::config::Size;
use crate::entry::PathError;
use crate::generation::{Class, Cut, CutMethod, Document, Grade, Problem, Role, SourceRecord};
use crate::ids::{SiteName, SourceName};
use crate::platform;
use crate::staging::{Draft, LocalGeneration, StagingError};

use folder::{Databases, Surroundings};
use freeze::FreezeSet;
use leisure::{copy_others, own_folders};
use mariadb::MariaDbSet;
use pivots::Pivots;
use postgres::{PhysicalSet, PostgresSet};
use problems::Problems;
use protocol::Party;
use snapshots::SnapshotSet;
use sqlite::SqliteSet;

pub(crate) use command::wait;
pub use holder::{HolderError, HolderProgram, serve as serve_holder};
pub use patterns::{PatternError, Patterns};
pub(crate) use postgres::{database_of, is_server};
pub use room::{room_needed, unreadable};
pub use settings::{
    CommandHold, CommandSource, CutSettings, Dialect, EnvValue, FolderSource, MariaDbSource, Output, PostgresMode,
    PostgresSource, SnapshotKind, SourceConfig, SourceKind, SqliteSource,
};

/// What is to be captured.
#[derive(Clone, Debug)]
pub struct CaptureRequest<'a> {
    /// The office.
    pub site: &'a SiteName,
    /// Where the generation will be kept.
    pub class: Class,
    /// What the operator calls it.
    pub label: Option<&'a str>,
    /// How long an archival generation is kept; for ever if absent.
    pub lifetime: Option<Age>,
    /// The sources, each with a name of its own.
    pub sources: &'a [SourceConfig],
    /// How the instant is had.
    pub cut: &'a CutSettings,
    /// How to start a holder.
    pub holder: &'a HolderProgram,
    /// Folders of our own, which are left out of folder sources: staging, spool, state.
    pub own_folders: &'a [PathBuf],
}

/// What happens in a capture, as it happens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The instant has been had, or given up.
    Cut(&'a Cut),
    /// A source is being copied.
    Started {
        /// Which.
        source: &'a SourceName,
    },
    /// Some more of it has been.
    Copied {
        /// Which.
        source: &'a SourceName,
        /// So many bytes more.
        bytes: u64,
    },
}

/// Told of events, from several threads.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// Why there is no generation at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Staging failed.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The disk is too small, or too full.
    #[error(
        "the disk of the staging folder {} has no room for the capture, which needs {} more; free some space, or let \
         the setting `staging` name a folder on a larger disk", folder.display(), Size(*needed)
    )]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Bytes that are needed at least.
        needed: u64,
    },
    /// The helper for SQLite cannot work at all.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// A name cannot be used in a path.
    #[error(transparent)]
    Name(#[from] PathError),
    /// A thread of the capture ended unexpectedly.
    #[error("a part of the capture ended unexpectedly; please report this defect")]
    Defect,
}

/// Captures all sources into `draft`, and finishes it.
///
/// The generation's document says what is missing from it and why, and whether it is of one instant. An error means that
/// there is none: the draft stays behind, to be removed.
pub fn capture(
    request: &CaptureRequest<'_>,
    draft: Draft,
    previous: Option<&LocalGeneration>,
    watch: Watch<'_>,
) -> Result<LocalGeneration, CaptureError> {
    platform::process::raise_open_files();
    let started = clock::now();
    check_space(request, &draft)?;
    let (databases, others) = thread::scope(|scope| {
        let (copying, copied) = channel();
        let (mut copied, mut others, draft) = (Some(copied), None, &draft);
        let databases = cut_databases(request, draft, previous, watch, || {
            if let Some(copied) = copied.take() {
                others = Some(scope.spawn(move || copy_others(request, draft, previous, watch, copied)));
            }
        });
        drop(copying);
        let others = others.map_or(Ok(Ok(Copies::default())), |others| others.join());
        (databases, others.map_err(|_| CaptureError::Defect))
    });
    let (mut cut, mut copies) = databases?;
    copies.add(others??);
    copies.settle(&mut cut);
    if !request.sources.iter().any(|source| source.kind.is_cut()) {
        (cut.not_before, cut.not_after) = (started, clock::now());
    }
    let document = document(request, &draft, cut, copies);
    Ok(draft.finish(&document)?)
}

/// So many cuts are made if the copies do not come to an end that were pinned at the ones before.
const CUTS: u32 = 3;

/// No other cut is made after this long: what takes hours is not begun anew.
const CUT_AGAIN_WITHIN: Duration = Duration::from_secs(600);

/// Cuts and copies the databases. `had` is told each time that the instant is past and nobody is held any more.
fn cut_databases(
    request: &CaptureRequest<'_>,
    draft: &Draft,
    previous: Option<&LocalGeneration>,
    watch: Watch<'_>,
    mut had: impl FnMut(),
) -> Result<(Cut, Copies), CaptureError> {
    let begin = Instant::now();
    let (mut tries, mut failed) = (0, Vec::new());
    let mut physical = PhysicalSet::new(request.sources, request.cut);
    for number in 1.. {
        let last = number >= CUTS || begin.elapsed() > CUT_AGAIN_WITHIN;
        physical.prepare(draft, watch)?;
        let (mut cut, mut copies) = cut_once(request, draft, previous, watch, !last, &mut physical, &mut had)?;
        cut.tries += tries;
        cut.failed_tries.splice(0..0, failed);
        match copies.void.take() {
            Some(why) if !last => (tries, failed) = (cut.tries, [cut.failed_tries, vec![why]].concat()),
            void => {
                copies.void = void;
                copies.add(physical.finish(watch)?);
                return Ok((cut, copies));
            }
        }
        let anew = |source: &&SourceConfig| source.kind.is_cut() && !source.kind.outlives_cuts();
        for source in request.sources.iter().filter(anew) {
            draft.remove(&source.name)?;
        }
    }
    Err(CaptureError::Defect)
}

/// One cut and its copies, which stop when they are void if there will be another cut.
fn cut_once(
    request: &CaptureRequest<'_>,
    draft: &Draft,
    previous: Option<&LocalGeneration>,
    watch: Watch<'_>,
    again: bool,
    physical: &mut PhysicalSet<'_>,
    had: &mut impl FnMut(),
) -> Result<(Cut, Copies), CaptureError> {
    let (mut databases, mut engines, mut servers, mut clusters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for source in request.sources {
        match &source.kind {
            SourceKind::Sqlite(sqlite) => databases.push((&source.name, sqlite)),
            SourceKind::MariaDb(mariadb) => servers.push((&source.name, mariadb)),
            SourceKind::Postgres(postgres) if postgres.mode == PostgresMode::Logical => {
                clusters.push((&source.name, postgres));
            }
            SourceKind::Command(command) => engines.push((&source.name, command)),
            SourceKind::Postgres(_) | SourceKind::Folder(_) => {}
        }
    }
    let mut engines = FreezeSet::open(&engines, request.holder, draft)?;
    let mut folders = SnapshotSet::open(request.sources, request.site, draft, request.cut);
    let mut clusters = PostgresSet::open(&clusters, physical.members() == 0, request.cut);
    let mut servers = MariaDbSet::open(&servers, draft, request.cut)?;
    let mut databases = SqliteSet::open(&databases, request.holder, request.cut, draft, previous)?;
    let mut pivots = Pivots::new(&mut clusters, physical, &mut folders);
    let mut parties: Vec<&mut dyn Party> = vec![&mut databases, &mut engines, &mut servers, &mut pivots];
    parties.retain(|party| party.members() > 0);
    let cut = protocol::cut(&mut parties, request.cut, &protocol::RealTime::start());
    watch(Event::Cut(&cut));
    let cluster_guards = clusters.guard();
    let copied: Result<Copies, CaptureError> = thread::scope(|scope| {
        // Their dumps have begun already.
        let dumped = scope.spawn(|| {
            let guards = servers.guard();
            servers.copy(guards, again, watch)
        });
        // Their servers keep the log for us meanwhile.
        let received = scope.spawn(|| physical.receive());
        let commanded = scope.spawn(|| engines.copy(watch));
        // Those first whose writers are still held.
        let mut copies = databases.copy(again, watch, had)?;
        copies.add(clusters.copy(cluster_guards, draft, again, watch)?);
        copies.add(dumped.join().map_err(|_| CaptureError::Defect)??);
        copies.add(commanded.join().map_err(|_| CaptureError::Defect)??);
        let received = received.join().map_err(|_| CaptureError::Defect)?;
        copies.void = copies.void.take().or(received.err());
        Ok(copies)
    });
    let mut copies = copied?;
    // Last, since a snapshot can wait, and may take long.
    if copies.void.is_none() || !again {
        let (own, databases) = (own_folders(request, draft), Databases::of(request.sources));
        copies.add(folders.copy(draft, &Surroundings { previous, own: &own, databases: &databases, watch })?);
    }
    Ok((cut, copies))
}

/// Whether the server of `source`, if it has one, would let a capture do its work: it is asked. The error is one sentence
/// that says what to do. Nothing is left at the server.
pub fn check_server(source: &SourceConfig) -> Result<(), String> {
    match &source.kind {
        SourceKind::Postgres(source) => postgres::check(source),
        SourceKind::MariaDb(source) => mariadb::check(source),
        SourceKind::Sqlite(_) | SourceKind::Folder(_) | SourceKind::Command(_) => Ok(()),
    }
}

/// Whether each folder of `sources` that is to be had in a snapshot could be: one is taken and removed. What keeps it from it
/// is one sentence that says what to do.
pub fn check_snapshots<'a>(sources: &'a [SourceConfig], site: &SiteName) -> Vec<(&'a SourceName, String)> {
    snapshots::check(sources, site)
}

/// What became of some sources.
#[derive(Debug, Default)]
struct Copies {
    records: Vec<SourceRecord>,
    problems: Vec<Problems>,
    /// Why the copies are not of one instant although they had been pinned at one: another cut may help.
    void: Option<String>,
    /// Why they are not of one instant, whatever is done.
    flaw: Option<String>,
}

impl Copies {
    fn add(&mut self, more: Self) {
        self.records.extend(more.records);
        self.problems.extend(more.problems);
        self.void = self.void.take().or(more.void);
        self.flaw = self.flaw.take().or(more.flaw);
    }

    /// Brings what was copied and how it was cut into agreement.
    fn settle(&mut self, cut: &mut Cut) {
        if let Some(why) = self.void.take().or(self.flaw.take()) {
            cut.method = CutMethod::None;
            cut.failed_tries.push(why);
        }
        let is_snapshot = |record: &SourceRecord| record.kind == "folder" && record.role == Role::Pivot;
        let snapshot = self.records.iter().any(is_snapshot);
        for record in &mut self.records {
            record.role = match (cut.method, record.role) {
                (CutMethod::None, _) => Role::Leisure,
                // Nothing would show that it has not changed.
                (_, Role::Pivot) if is_snapshot(record) => Role::Pivot,
                (_, Role::Pivot) if snapshot => Role::Proved,
                (CutMethod::Optimistic, Role::Pivot) => Role::Proved,
                (_, role) => role,
            };
        }
        cut.held_us_max = self.records.iter().map(|record| record.held_us).max().unwrap_or(0);
    }
}

/// Refuses to begin what cannot end: the databases at least have to fit.
fn check_space(request: &CaptureRequest<'_>, draft: &Draft) -> Result<(), CaptureError> {
    let bytes = request.sources.iter().map(|source| match &source.kind {
        SourceKind::Sqlite(sqlite) => room::database_bytes(sqlite, draft.root()),
        SourceKind::MariaDb(_) | SourceKind::Postgres(_) | SourceKind::Folder(_) | SourceKind::Command(_) => 0,
    });
    let needed: u64 = bytes.sum();
    if needed > draft.free_bytes()? {
        return Err(CaptureError::NoSpace { folder: draft.root().to_owned(), needed });
    }
    Ok(())
}

fn document(request: &CaptureRequest<'_>, draft: &Draft, cut: Cut, copies: Copies) -> Document {
    let mut sources = copies.records;
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let mut problems: Vec<Problem> = copies.problems.into_iter().flat_map(Problems::into_vec).collect();
    problems.sort_by(|a, b| (&a.source, &a.path).cmp(&(&b.source, &b.path)));
    let grade = if problems.iter().any(|problem| problem.missing) {
        Grade::Incomplete
    } else if cut.method == CutMethod::None {
        Grade::Sequential
    } else {
        Grade::Exact
    };
    Document {
        version: 1,
        site: request.site.clone(),
        generation: draft.id().clone(),
        class: request.class,
        label: request.label.map(ToOwned::to_owned),
        lifetime: request.lifetime,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        grade,
        cut,
        sources,
        problems,
    }
}

/// What a source is recorded with before anything of it is known.
fn empty_record(name: &SourceName, kind: &str, now: Timestamp) -> SourceRecord {
    SourceRecord {
        name: name.clone(),
        kind: kind.to_owned(),
        engine: None,
        role: Role::Leisure,
        pinned_at: None,
        held_us: 0,
        position: BTreeMap::new(),
        started: now,
        finished: now,
        entries: 0,
        bytes: 0,
        rows: BTreeMap::new(),
    }
}
