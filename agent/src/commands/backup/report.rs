//! What a run did, for people and for programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::last::NotStored;
use crate::backup::{BackupReport, Outcome, OutcomeError};
use crate::catalog::CatalogError;
use crate::commands::show;
use crate::commands::stores::ClosedStore;
use crate::config::Size;
use crate::deliver::{DeliverError, Delivered};
use crate::disks::DiskError;
use crate::evidence;
use crate::failure::{self, Failure, Kind};
use crate::generation::{Class, CutMethod, Document, Grade};
use crate::ids::StoreName;
use crate::upload::UploadError;

/// The report of a run.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Report {
    generation: Option<Generation>,
    stores: Vec<Stored>,
    resumed: Vec<Stored>,
    /// The archival generation that was due by the calendar.
    #[serde(skip_serializing_if = "Option::is_none")]
    archival: Option<Box<Report>>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    archival_failed: Option<ArchivalFailed>,
}

#[derive(Debug, Serialize)]
struct ArchivalFailed {
    exit_code: u8,
    messages: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Generation {
    id: String,
    class: Class,
    grade: Grade,
    label: Option<String>,
    cut_not_before: Timestamp,
    cut_not_after: Timestamp,
    cut_method: CutMethod,
    held_us_max: u64,
    sources: Vec<Source>,
    problems: Vec<Trouble>,
    /// The same as the evidence log keeps it.
    #[serde(skip)]
    record: evidence::RunGeneration,
}

#[derive(Debug, Serialize)]
struct Source {
    name: String,
    kind: String,
    entries: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Trouble {
    source: String,
    path: Option<String>,
    what: String,
    missing: bool,
}

#[derive(Debug, Serialize)]
struct Stored {
    store: String,
    /// What the state remembers it by.
    #[serde(skip)]
    place: StoreName,
    /// Which disk, if it is one of a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<String>,
    /// Which disk comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    bring: Option<String>,
    generation: String,
    stored: bool,
    chain: Option<String>,
    full: Option<bool>,
    content_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    sent_packs: Option<u64>,
    copied_bytes: Option<u64>,
    exit_code: u8,
    error: Vec<String>,
    /// What somebody has to look into although it is stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Report {
    pub(in crate::commands) fn of(report: &BackupReport) -> Self {
        let mut report = Self {
            generation: report.generation.as_ref().map(|(id, document)| generation(id.as_str(), document)),
            stores: report.stores.iter().map(stored).collect(),
            resumed: report.resumed.iter().map(stored).collect(),
            archival: None,
            archival_failed: None,
        };
        once(report.all_stored());
        report
    }

    /// The same with the rotations of which no disk could be written to.
    pub(super) fn with_missing_disks(mut self, missing: &[ClosedStore<'_>]) -> Self {
        let Some(generation) = self.generation.as_ref().map(|generation| generation.id.clone()) else { return self };
        self.stores.extend(missing.iter().map(|missing| Stored {
            store: missing.config.name.to_string(),
            place: missing.config.name.clone(),
            slot: None,
            bring: missing.disk().and_then(DiskError::bring).map(ToString::to_string),
            generation: generation.clone(),
            stored: false,
            chain: None,
            full: None,
            content_bytes: None,
            sent_bytes: None,
            sent_packs: None,
            copied_bytes: None,
            exit_code: missing.kind().code(),
            error: missing.messages(),
            notes: Vec::new(),
        }));
        self
    }

    /// The same with what became of the archival generation that was due, if one was.
    pub(super) fn with_archival(self, archival: Result<Option<BackupReport>, Failure>) -> Self {
        match archival {
            Ok(report) => {
                let mut report = Self { archival: report.map(|report| Box::new(Self::of(&report))), ..self };
                once(report.all_stored());
                report
            }
            Err(failure) => {
                let failed = ArchivalFailed { exit_code: failure.kind().code(), messages: failure.chain() };
                Self { archival_failed: Some(failed), ..self }
            }
        }
    }

    /// The worst of what happened: a store that has not got it counts more than something missing from it.
    pub(in crate::commands) fn exit_code(&self) -> u8 {
        let stores = self.stores.iter().chain(&self.resumed).map(|stored| stored.exit_code);
        let archival = self.archival.iter().map(|report| report.exit_code());
        let failed = self.archival_failed.iter().map(|failed| failed.exit_code);
        let worst = stores.chain(archival).chain(failed).filter(|code| *code != 0).max_by_key(|code| match *code {
            code if code == Kind::Interrupted.code() => 3,
            code if code == Kind::Failed.code() => 2,
            code if code == Kind::Incomplete.code() => 0,
            _ => 1,
        });
        let incomplete = self.generation.as_ref().is_some_and(|generation| generation.grade != Grade::Exact);
        worst.unwrap_or(if incomplete { Kind::Incomplete.code() } else { 0 })
    }

    /// The new generation and its grade.
    pub(super) fn generation(&self) -> Option<(&str, Grade)> {
        self.generation.as_ref().map(|generation| (generation.id.as_str(), generation.grade))
    }

    /// What is not in the new generation that should be, each with its reason.
    pub(super) fn missing(&self) -> Vec<String> {
        let shortfalls = self.generation.iter().flat_map(|generation| generation.record.shortfalls());
        shortfalls.map(|(clause, why)| format!("{clause}: {why}")).collect()
    }

    /// Whether an earlier run had begun to bring `generation` into `store`, and this one went on with it.
    pub(super) fn went_on_with(&self, store: &str, generation: &str) -> bool {
        self.resumed.iter().any(|stored| stored.store == store && stored.generation == generation)
    }

    /// What is not where it should be.
    pub(super) fn not_stored(&self) -> Vec<NotStored> {
        let archival = self.archival.iter().flat_map(|report| report.resumed.iter().chain(&report.stores));
        let failed = self.resumed.iter().chain(&self.stores).chain(archival).filter(|stored| !stored.stored);
        failed
            .map(|stored| NotStored {
                store: stored.store.clone(),
                generation: stored.generation.clone(),
                messages: stored.error.clone(),
            })
            .collect()
    }

    /// What somebody has to look into although all was stored.
    pub(super) fn notes(&self) -> Vec<String> {
        self.stores.iter().chain(&self.resumed).flat_map(|stored| stored.notes.iter().cloned()).collect()
    }

    /// The same as the evidence log keeps it, for each place that the state remembers.
    pub(super) fn found(&self) -> impl Iterator<Item = (&StoreName, &[String])> {
        let found = self.stores.iter().chain(&self.resumed).filter(|stored| !stored.notes.is_empty());
        found.map(|stored| (&stored.place, stored.notes.as_slice()))
    }

    /// In the order in which it was stored.
    fn all_stored(&mut self) -> Vec<&mut Stored> {
        let archival = self.archival.iter_mut().flat_map(|report| report.all_stored());
        self.resumed.iter_mut().chain(&mut self.stores).chain(archival).collect()
    }

    /// The run as the evidence log keeps it.
    pub(super) fn record(&self, began: Timestamp) -> evidence::Run {
        let resumed = self.resumed.iter().map(|stored| stored.record(true));
        evidence::Run {
            began: Some(began),
            exit_code: self.exit_code(),
            generation: self.generation.as_ref().map(|generation| generation.record.clone()),
            stores: self.stores.iter().map(|stored| stored.record(false)).chain(resumed).collect(),
            messages: if self.generation.is_some() {
                Vec::new()
            } else {
                self.resumed.iter().flat_map(|stored| stored.error.clone()).collect()
            },
            hints: Vec::new(),
        }
    }

    /// Whether nothing was done, since there was nothing to finish.
    pub(super) fn is_empty(&self) -> bool {
        self.generation.is_none() && self.resumed.is_empty()
    }

    pub(in crate::commands) fn text(&self) -> String {
        let mut text = String::new();
        if self.is_empty() {
            text.push_str("Nothing was left to finish.\n");
        }
        if let Some(generation) = &self.generation {
            generation.write(&mut text);
        }
        for stored in &self.resumed {
            text.push_str(&format!("{}, left by an earlier run:\n", stored.generation));
            stored.write(&mut text);
        }
        if !self.stores.is_empty() {
            text.push_str("Stored:\n");
        }
        for stored in &self.stores {
            stored.write(&mut text);
        }
        if let Some(archival) = &self.archival {
            text.push_str(&format!("An archival generation was due:\n{}", archival.text()));
        }
        text
    }

    /// What went wrong, with its causes.
    pub(in crate::commands) fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for stored in self.stores.iter().chain(&self.resumed).filter(|stored| !stored.error.is_empty()) {
            let error = stored.error.join("\n  because: ");
            let is = if stored.stored { "is" } else { "is not" };
            let said = stored.error.iter().any(|line| line.contains("; ") || line.contains("`offsite "));
            let remedy = match said {
                true => "",
                false => {
                    "\n  what to do: `offsite check` says what is in the way; when that is mended, the next run goes on by itself"
                }
            };
            lines.push(format!("error: {} {is} in {}: {error}{remedy}", stored.generation, stored.shown()));
        }
        lines.extend(self.generation.iter().filter_map(Generation::complaint));
        lines.extend(self.archival.iter().flat_map(|report| report.complaints()));
        if let Some(failed) = &self.archival_failed {
            let why = failed.messages.join("\n  because: ");
            lines.push(format!("error: an archival generation is due, and could not be made: {why}"));
        }
        lines
    }
}

impl Generation {
    /// Why it is not what was asked for, and what to do.
    fn complaint(&self) -> Option<String> {
        match self.grade {
            Grade::Exact => None,
            Grade::Sequential => Some(
                "warning: the generation is whole, but its sources are not of one instant; see the problems above\n  what to \
                 do: after a restore, compare the last minutes of work in all programs; `offsite check` says what a database \
                 server has to allow"
                    .to_owned(),
            ),
            Grade::Incomplete => {
                let clauses: Vec<String> = self.record.shortfalls().into_iter().map(|(clause, _)| clause).collect();
                Some(format!(
                    "warning: the generation is INCOMPLETE: {}; everything else is in it\n  what to do: mend what stands \
                     behind MISSING above, see that `offsite check` finds nothing, and run `offsite backup` again; until then \
                     only an earlier generation has what is missing",
                    clauses.join("; ")
                ))
            }
        }
    }

    fn write(&self, text: &mut String) {
        let label = self.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
        let _ = writeln!(text, "Generation {}{label}: {}", self.id, show::grade(self.grade));
        let at = show::time(self.cut_not_after);
        let _ = match self.cut_method {
            CutMethod::None => writeln!(text, "  copied one after another until {at}"),
            _ if self.held_us_max == 0 => writeln!(text, "  as of {at}; nobody had to wait"),
            _ => writeln!(text, "  as of {at}; writers waited {:.1} ms at most", self.held_us_max as f64 / 1000.0),
        };
        for source in &self.sources {
            let files = if source.entries == 1 { "file or folder" } else { "files and folders" };
            let size = Size(source.bytes).to_string();
            let _ = writeln!(text, "  {:24} {:8} {size:>10}  {} {files}", source.name, source.kind, source.entries);
        }
        for problem in &self.problems {
            let path = problem.path.as_ref().map(|path| format!("/{path}")).unwrap_or_default();
            let kind = if problem.missing { "MISSING" } else { "note" };
            let _ = writeln!(text, "  {kind}: {}{path}: {}", problem.source, problem.what);
        }
    }
}

impl Stored {
    /// The store, and the disk if it is one of a rotation.
    fn shown(&self) -> String {
        self.slot.as_ref().map_or_else(|| self.store.clone(), |slot| show::disk(&self.store, slot))
    }

    fn record(&self, resumed: bool) -> evidence::RunStore {
        evidence::RunStore {
            store: self.store.clone(),
            slot: self.slot.clone(),
            bring: self.bring.clone(),
            generation: self.generation.clone(),
            resumed,
            stored: self.stored,
            full: self.full,
            content_bytes: self.content_bytes,
            sent_bytes: self.sent_bytes,
            exit_code: self.exit_code,
            messages: self.error.clone(),
            notes: self.notes.clone(),
        }
    }

    fn write(&self, text: &mut String) {
        let (Some(full), Some(sent), Some(packs), Some(content)) =
            (self.full, self.sent_bytes, self.sent_packs, self.content_bytes)
        else {
            let _ = writeln!(text, "  {:24} NOT STORED", self.shown());
            return;
        };
        let kind = if full { "full" } else { "incremental" };
        let packs = show::counted(packs, "pack");
        let (sent, content) = (Size(sent), Size(content));
        let copied =
            self.copied_bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("{} copied there, ", Size(bytes)));
        let copied = copied.unwrap_or_default();
        let _ = writeln!(text, "  {:24} {kind}, {copied}{sent} sent in {packs} for {content} of content", self.shown());
        for note in &self.notes {
            let _ = writeln!(text, "  WARNING: {note}");
        }
        if let (Some(slot), Some(bring)) = (&self.slot, &self.bring) {
            let _ = writeln!(text, "  {:24} take the disk {slot} away, and bring {bring} for the next run", "");
        }
    }
}

/// What was found in a place comes with each generation that is stored there until it was told, and is to be told once.
fn once(all: Vec<&mut Stored>) {
    let mut told = BTreeSet::new();
    for stored in all {
        stored.notes.retain(|note| told.insert((stored.place.clone(), note.clone())));
    }
}

fn generation(id: &str, document: &Document) -> Generation {
    Generation {
        id: id.to_owned(),
        class: document.class,
        grade: document.grade,
        label: document.label.clone(),
        cut_not_before: document.cut.not_before,
        cut_not_after: document.cut.not_after,
        cut_method: document.cut.method,
        held_us_max: document.cut.held_us_max,
        sources: document
            .sources
            .iter()
            .map(|source| Source {
                name: source.name.to_string(),
                kind: source.kind.clone(),
                entries: source.entries,
                bytes: source.bytes,
            })
            .collect(),
        record: evidence::RunGeneration::of(document),
        problems: document
            .problems
            .iter()
            .map(|problem| Trouble {
                source: problem.source.to_string(),
                path: problem.path.clone(),
                what: problem.what.clone(),
                missing: problem.missing,
            })
            .collect(),
    }
}

fn stored(outcome: &Outcome) -> Stored {
    let delivered: Option<&Delivered> = outcome.delivered();
    let error = outcome.result.as_ref().err();
    Stored {
        store: outcome.store.to_string(),
        place: outcome.place.clone(),
        slot: outcome.disk.as_ref().map(|disk| disk.slot.to_string()),
        bring: outcome.disk.as_ref().map(|disk| disk.bring.to_string()),
        generation: outcome.generation.to_string(),
        stored: delivered.is_some(),
        chain: delivered.map(|delivered| delivered.chain.to_string()),
        full: delivered.map(|delivered| delivered.full),
        content_bytes: delivered.map(|delivered| delivered.stream_bytes),
        sent_bytes: delivered.map(|delivered| delivered.sent_bytes),
        sent_packs: delivered.map(|delivered| delivered.sent_packs),
        copied_bytes: delivered.map(|delivered| delivered.copied_bytes),
        exit_code: error.map_or(0, |error| kind(error).code()),
        error: error.map(|error| failure::chain(error)).unwrap_or_default(),
        notes: delivered.map(|delivered| delivered.notes.clone()).unwrap_or_default(),
    }
}

fn kind(error: &OutcomeError) -> Kind {
    match error {
        OutcomeError::Deliver(error) => kind_of_delivery(error),
        OutcomeError::Abandoned
        | OutcomeError::GivenUp(_)
        | OutcomeError::LargerPacks
        | OutcomeError::TooLarge(_)
        | OutcomeError::Behind => Kind::Store,
    }
}

/// Whether it is the store's fault, this machine's, or nobody's.
fn kind_of_delivery(error: &DeliverError) -> Kind {
    match error {
        DeliverError::Upload(UploadError::Interrupted) => Kind::Interrupted,
        DeliverError::Upload(UploadError::Store(error) | UploadError::Breaks { source: error, .. })
        | DeliverError::Store(error)
        | DeliverError::Heartbeat { source: error, .. }
        | DeliverError::Catalog(CatalogError::Store(error)) => show::kind_of_store(error),
        DeliverError::Upload(UploadError::Foreign { .. } | UploadError::NoParts(_))
        | DeliverError::Catalog(_)
        | DeliverError::OtherDisk { .. }
        | DeliverError::OtherMachine { .. }
        | DeliverError::Unfit { .. } => Kind::Store,
        _ => Kind::Failed,
    }
}
