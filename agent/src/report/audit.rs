//! The auditor's document: what was backed up when, when it was last proved that it comes back, what is kept, who holds it,
//! and whether the log that says so is whole. Pure.

mod copies;
mod page;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

pub use copies::Medium;

use super::{Context, Row, Table, counted};
use crate::config::{Size, Span};
use crate::evidence::{Drill, Entry, Record, Run};
use crate::generation::{Class, Grade};

/// What is known beside the evidence log.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The first day, in the office's time zone.
    pub from: Date,
    /// The last day.
    pub to: Date,
    /// The sources, each with its kind.
    pub sources: Vec<(String, String)>,
    /// The stores.
    pub stores: Vec<AuditStore>,
    /// What is kept, as the configuration says.
    pub retention: Vec<String>,
    /// Generations on the office's own machine.
    pub local_generations: u64,
    /// What these lie on.
    pub staging: Medium,
    /// What the sources lie on.
    pub data: Vec<Medium>,
    /// To how many keys everything is sealed.
    pub recipients: u64,
    /// The fingerprint of the site's key; nothing if signatures could not be checked.
    pub site_key: Option<String>,
}

/// One store, as configured and as found.
#[derive(Clone, Debug)]
pub struct AuditStore {
    /// Its name.
    pub name: String,
    /// Its kind in the configuration.
    pub kind: String,
    /// Where it lies.
    pub place: String,
    /// On what.
    pub medium: Medium,
    /// Whether it takes protected health information.
    pub phi: bool,
    /// The business associate agreement: with whom, and when it was signed.
    pub agreement: Option<(String, Date)>,
    /// Whether what it holds is locked against deletion, and how.
    pub lock: Option<String>,
    /// The classes whose generations are locked.
    pub locks: Vec<Class>,
    /// What it holds now, or why that could not be seen.
    pub found: Result<Found, String>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Rolling generations.
    pub rolling: u64,
    /// Archival ones.
    pub archival: u64,
    /// Generations that are not genuine.
    pub refused: u64,
    /// The instant of the oldest.
    pub oldest: Option<Timestamp>,
    /// The instant of the newest.
    pub newest: Option<Timestamp>,
}

/// The document.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// The office.
    pub site: String,
    /// The first day.
    pub from: Date,
    /// The last day.
    pub to: Date,
    /// When it was made.
    pub at: Timestamp,
    /// When, as the office's clocks show it.
    #[serde(skip)]
    made: String,
    /// What it comes to, a sentence each.
    pub summary: Vec<String>,
    /// Its tables, in order.
    pub sections: Vec<Section>,
}

/// One part of the document.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// What is to be known before its table.
    pub note: String,
    /// Its table.
    pub table: Table,
}

/// Makes the document of what the log says of the days from `from` to `to`.
pub fn audit(around: &Surroundings, context: &Context<'_>) -> Audit {
    let in_period = |entry: &&Entry| {
        let day = context.calendar.date_of(entry.at);
        (around.from..=around.to).contains(&day)
    };
    let entries: Vec<&Entry> = context.history.iter().filter(in_period).collect();
    let section = |note: &str, table: Table| Section { note: note.to_owned(), table };
    let sections = vec![
        section(
            "Three copies, on two kinds of storage, one of them off site, one that nobody can change, and no errors when it was \
             read or restored. What lies on one disk is lost together and counts once, the data itself included.",
            rules::three_two_one(around, &entries),
        ),
        section(
            "45 CFR 164.308(a)(7) and what belongs to it. What is said of technology here is what the evidence below shows; plans \
             of people are the office's own and are kept elsewhere.",
            rules::hipaa(around, &entries, context),
        ),
        section("Every run of the period, good or not.", runs(&entries, context)),
        section(
            "Restores that were rehearsed, data that was read again and compared, and keys that were proved to open it.",
            proofs(&entries, context),
        ),
        section("What is to be kept, and what is there.", retention(around, context)),
        section(
            "Everything is encrypted before it leaves the office; who holds a store holds no key to it.",
            stores(around),
        ),
        section(
            "Each entry of the log holds the digest of the one before and is signed by the site's key, so that changed, removed \
             or moved entries show. Mails of reports carry copies of its newest digest out of the office.",
            integrity(around, context),
        ),
    ];
    Audit {
        site: context.site.to_owned(),
        from: around.from,
        to: around.to,
        at: context.now,
        made: context.minute(context.now),
        summary: summary(&entries, around, context),
        sections,
    }
}

impl Audit {
    /// As a page for a browser and for paper.
    pub fn html(&self) -> String {
        page::page(self)
    }
}

fn runs_of<'a>(entries: &[&'a Entry]) -> Vec<(&'a Entry, &'a Run)> {
    let run = |entry: &&'a Entry| match &entry.record {
        Record::Run(run) => Some((*entry, run)),
        _ => None,
    };
    entries.iter().filter_map(run).collect()
}

/// Days of the period, up to today, on which no generation reached a store although people worked.
fn days_without(entries: &[&Entry], around: &Surroundings, context: &Context<'_>) -> u64 {
    let runs = runs_of(entries);
    // A run may have finished a generation of another one, and have got its own nowhere.
    let whole = runs.iter().flat_map(|(_, run)| &run.stores).filter(|store| store.stored);
    let whole: BTreeSet<&str> = whole.map(|store| store.generation.as_str()).collect();
    let generations = runs.iter().filter_map(|(_, run)| run.generation.as_ref());
    let stored: BTreeSet<Date> = generations
        .filter(|generation| whole.contains(generation.id.as_str()))
        .map(|generation| context.calendar.date_of(generation.cut_not_after))
        .collect();
    let begun = context.history.iter().next().map(|entry| context.calendar.date_of(entry.at));
    let Some(first) = begun.map(|begun| begun.max(around.from)) else { return 0 };
    // Today is not over.
    let last = around.to.min(context.calendar.date_of(context.now).yesterday().unwrap_or(around.to));
    let mut days = 0;
    let mut day = first;
    while day <= last {
        if context.calendar.is_working_day(day) && !stored.contains(&day) {
            days += 1;
        }
        let Ok(next) = day.tomorrow() else { break };
        day = next;
    }
    days
}

fn summary(entries: &[&Entry], around: &Surroundings, context: &Context<'_>) -> Vec<String> {
    let runs = runs_of(entries);
    let complete = runs.iter().filter(|(_, run)| run.exit_code == 0).count();
    let mut summary = vec![match runs.len() {
        0 => "No backup was made in this period.".to_owned(),
        all => format!(
            "{complete} of {} were complete, of one instant, and stored everywhere.",
            counted(all as u64, "backup")
        ),
    }];
    let days = days_without(entries, around, context);
    if days > 0 {
        summary.push(format!("On {} nothing reached a store.", counted(days, "working day")));
    }
    let drills: Vec<bool> = entries
        .iter()
        .filter_map(|entry| match &entry.record {
            Record::Drill(drill) if drill.not_tried.is_none() => Some(drill.passed),
            _ => None,
        })
        .collect();
    let passed = drills.iter().filter(|passed| **passed).count();
    summary.push(match drills.len() {
        0 => "No restore was rehearsed in this period.".to_owned(),
        all => format!("{passed} of {} passed.", counted(all as u64, "rehearsed restore")),
    });
    let the_log = if context.history.findings.is_empty() { "The evidence log is" } else { "THE EVIDENCE LOG IS" };
    summary.push(format!("{the_log} {}.", context.history.verdict()));
    let lacking: Vec<&str> = around
        .stores
        .iter()
        .filter(|store| !store.phi && store.agreement.is_none())
        .map(|store| store.name.as_str())
        .collect();
    if !lacking.is_empty() {
        summary.push(format!("No business associate agreement is recorded for {}.", lacking.join(", ")));
    }
    summary
}

fn runs(entries: &[&Entry], context: &Context<'_>) -> Table {
    let rows = runs_of(entries).into_iter().map(|(entry, run)| {
        let cut = run.generation.as_ref().map_or("–".to_owned(), |generation| {
            format!(
                "{} {}",
                context.calendar.date_of(generation.cut_not_after),
                context.clock(generation.cut_not_after)
            )
        });
        let (mut stored, mut lacking): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for store in run.stores.iter().filter(|store| !store.resumed) {
            if store.stored { &mut stored } else { &mut lacking }.push(store.store.as_str());
        }
        let result = match run.generation.as_ref().map(|generation| generation.grade) {
            None if run.exit_code == 0 => "finished an earlier run".to_owned(),
            None => "FAILED".to_owned(),
            Some(_) if stored.is_empty() => "STORED NOWHERE".to_owned(),
            Some(Grade::Incomplete) => {
                let shortfalls = run.generation.iter().flat_map(|generation| generation.shortfalls());
                let clauses: Vec<String> = shortfalls.map(|(clause, _)| clause).collect();
                format!("INCOMPLETE: {}", clauses.join("; "))
            }
            Some(Grade::Sequential) => "not of one instant".to_owned(),
            Some(Grade::Exact) => "complete".to_owned(),
        };
        let id = run
            .generation
            .as_ref()
            .map_or_else(|| run.messages.first().cloned().unwrap_or_default(), |generation| generation.id.clone());
        let places = match (stored.as_slice(), lacking.as_slice()) {
            ([], []) => "–".to_owned(),
            (stored, []) => stored.join(", "),
            ([], lacking) => format!("NOT in {}", lacking.join(", ")),
            (stored, lacking) => format!("{}; NOT in {}", stored.join(", "), lacking.join(", ")),
        };
        let sent = Size(run.stores.iter().filter_map(|store| store.sent_bytes).sum()).to_string();
        Row::new(run.exit_code != 0, [entry.number.to_string(), cut, result, places, sent, id])
    });
    Table::new("What was backed up", &["Entry", "As of", "Result", "Stored in", "Sent", "Generation"], rows.collect())
}

fn proofs(entries: &[&Entry], context: &Context<'_>) -> Table {
    let rows = entries.iter().filter_map(|entry| {
        let (what, result, bad) = match &entry.record {
            Record::Drill(Drill { not_tried: Some(why), .. }) => {
                ("rehearsed restore".to_owned(), format!("NOT TRIED: {why}"), true)
            }
            Record::Drill(drill) => {
                let took = Span(std::time::Duration::from_millis(drill.took_ms));
                let sound = drill.databases.iter().filter(|database| database.sound == Some(true)).count() as u64;
                let what = match (drill.generation.as_str(), drill.store.as_str()) {
                    ("", "") => "rehearsed restore: no copy could be had".to_owned(),
                    ("", store) => format!("rehearsed restore: no copy could be had from {store}"),
                    (generation, store) => format!("rehearsed restore of {generation} from {store}"),
                };
                let files = counted(drill.files, "file");
                let good = format!("passed: {files} compared, {} opened, {took}", counted(sound, "database"));
                (
                    what,
                    if drill.passed { good } else { format!("FAILED: {}", drill.findings.join("; ")) },
                    !drill.passed,
                )
            }
            Record::Verify(verify) => {
                let good = format!("whole: {} in {}", Size(verify.bytes), counted(verify.packs, "pack"));
                let bad = !verify.findings.is_empty();
                let word = if verify.read_nothing() { "COULD NOT BE READ" } else { "NOT WHOLE" };
                let result = if bad { format!("{word}: {}", verify.findings.join("; ")) } else { good };
                (format!("data in {} read again", verify.store), result, bad)
            }
            Record::KeyProof(proof) => {
                let opened = counted(proof.opens.len() as u64, "key");
                (
                    format!("keys proved by {}", proof.who),
                    format!("{opened} opened what is stored"),
                    proof.opens.is_empty(),
                )
            }
            Record::Probe(probe) => {
                let result =
                    if probe.passed { "does all that is relied on".to_owned() } else { probe.findings.join("; ") };
                (format!("what {} really does", probe.store), result, !probe.passed)
            }
            Record::Run(_) | Record::Prune(_) | Record::Undelivered(_) | Record::Unknown => return None,
        };
        Some(Row::new(bad, [entry.number.to_string(), context.minute(entry.at), what, result]))
    });
    Table::new("That it can be restored", &["Entry", "When", "What", "Result"], rows.collect())
}

fn retention(around: &Surroundings, context: &Context<'_>) -> Table {
    let mut rows: Vec<Row> =
        around.retention.iter().map(|rule| Row::new(false, ["as configured".to_owned(), rule.clone()])).collect();
    let day = |at: Option<Timestamp>| at.map_or("–".to_owned(), |at| context.minute(at));
    for store in &around.stores {
        let found = match &store.found {
            Ok(found) => format!(
                "{} rolling and {} archival; oldest {}, newest {}{}",
                found.rolling,
                found.archival,
                day(found.oldest),
                day(found.newest),
                if found.refused > 0 { format!("; {} NOT GENUINE", found.refused) } else { String::new() }
            ),
            Err(why) => format!("could not be seen: {why}"),
        };
        let bad = store.found.as_ref().map_or(true, |found| found.refused > 0);
        rows.push(Row::new(bad, [format!("as found in {}", store.name), found]));
    }
    let local = counted(around.local_generations, "generation");
    rows.push(Row::new(false, ["as found at the office".to_owned(), local]));
    let removed = context.history.iter().filter_map(|entry| match &entry.record {
        Record::Prune(prune) => Some(prune.removed.len() as u64),
        _ => None,
    });
    rows.push(Row::new(false, ["removed by retention so far".to_owned(), counted(removed.sum(), "generation")]));
    Table::new("What is kept", &["", "Generations"], rows)
}

fn stores(around: &Surroundings) -> Table {
    let rows = around.stores.iter().map(|store| {
        let agreement = match &store.agreement {
            Some((with, signed)) => format!("with {with}, signed {signed}"),
            None => "none recorded".to_owned(),
        };
        let phi = if store.phi { "yes" } else { "no" };
        let lock = store.lock.clone().unwrap_or_else(|| "not locked".to_owned());
        let bad = store.phi && store.agreement.is_none();
        Row::new(bad, [store.name.clone(), format!("{}, {}", store.kind, store.place), phi.to_owned(), agreement, lock])
    });
    let head = ["Store", "Where", "Health information", "Business associate agreement", "Locked against deletion"];
    Table::new("Who holds it", &head, rows.collect())
}

fn integrity(around: &Surroundings, context: &Context<'_>) -> Table {
    let history = context.history;
    let all = history.entries.len() as u64;
    let signed = match (history.signed, &around.site_key) {
        (Some(signed), Some(key)) => {
            let unsigned = history.unsigned_clause().map(|clause| format!("; {clause}")).unwrap_or_default();
            format!("{signed} of {all} signed by the site's key {key}{unsigned}")
        }
        _ => "not checked: this machine does not know the site's key".to_owned(),
    };
    let mut rows = vec![
        Row::new(false, ["Entries".to_owned(), all.to_string()]),
        Row::new(history.signed.is_some_and(|signed| signed < all), ["Signatures".to_owned(), signed]),
    ];
    if let Some(anchor) = history.anchor() {
        rows.push(Row::new(
            false,
            ["Newest entry".to_owned(), format!("{}: SHA-256 {}", anchor.number, anchor.sha256)],
        ));
    }
    match history.findings.as_slice() {
        [] if history.lacks_key_now() => {
            let shown = "none up to the last signed entry; of those after it, which are only chained, the newest could have been \
                         replaced or removed without a trace";
            rows.push(Row::new(true, ["Changes".to_owned(), shown.to_owned()]));
        }
        [] => rows.push(Row::new(false, ["Changes".to_owned(), "none: every entry is as it was written".to_owned()])),
        findings => rows.extend(findings.iter().map(|finding| {
            let line =
                if finding.line == 0 { "NOT WHOLE".to_owned() } else { format!("NOT WHOLE, line {}", finding.line) };
            Row::new(true, [line, finding.what.clone()])
        })),
    }
    Table::new("The evidence log", &[], rows)
}
