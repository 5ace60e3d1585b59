//! Retention carried out in one place: everything is looked at, a plan is made of it, and exactly that plan is executed.
//!
//! [`survey()`] reads, [`plan`] is pure, [`execute()`] deletes; nothing else in the program does. Why no lock is needed against
//! runs and restores beside it, `ARCHITECTURE.md` says. This machine's own generations go by the same rules ([`local`]).

mod execute;
mod hidden;
mod holds;
pub mod local;
mod survey;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use providers::{KeyError, ObjectKey};

use crate::calendar::Calendar;
use crate::catalog::CatalogError;
use crate::format::pruned::{Folder, Kind, Pruned, Ranges};
use crate::format::{Sha256, VERSION};
use crate::generation::Class;
use crate::ids::{ChainId, GenerationId, SiteName};
use crate::retention::{
    Brake, ChainFiles, End, Evidence, LEFTOVER_AGE, Limits, Removal, Rules, Subject, Verdict, brakes, ends, judge,
    removals,
};
use crate::sign::{SignError, SitePublicKey};
use crate::state::StateError;

pub use execute::{Freed, execute};
pub use hidden::{Hidden, hidden};
pub use holds::{Decision, Holds, decide, read_holds};
pub use survey::{Survey, list_site, pruned_before, subjects, survey};

/// Whose generations are kept by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// The office.
    pub site: &'a SiteName,
    /// Its public key.
    pub key: &'a SitePublicKey,
    /// Whose records of what was pruned are believed.
    pub pruners: &'a [SitePublicKey],
    /// The office's calendar.
    pub calendar: &'a Calendar,
    /// The rules for rolling generations; archival ones carry their lifetime.
    pub rules: &'a Rules,
    /// Where the brakes take hold.
    pub limits: &'a Limits,
}

/// What is to be done in one place: what [`execute()`] does, and what a person is shown before.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The place's clock.
    pub now: Timestamp,
    /// Every generation, with what becomes of it and the earliest end of it, in the order of time.
    pub generations: Vec<Judged>,
    /// Every object that goes, in order.
    pub removals: Vec<Removal>,
    /// What speaks against it. Nothing is done while there is any that was not lifted.
    pub brakes: Vec<Brake>,
    /// Folders of chains of which nothing can go, and why.
    pub untouched: Vec<String>,
    /// The plan in sixteen digits: by it a person lifts the brakes of this plan and of no other.
    pub hash: String,
    /// What is written down before anything goes.
    pub(crate) record: Option<Pruned>,
    /// Records that are of no use once this plan is done.
    pub(crate) old_records: Vec<ObjectKey>,
}

/// A generation and what becomes of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The generation.
    pub subject: Subject,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Its earliest end.
    pub end: End,
}

/// Why a place could not be looked at, or pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The generations could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store refused or does not answer.
    #[error("the store refused while {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: providers::Error,
    },
    /// The store was opened without the right to delete.
    #[error("the store cannot delete with these rights: nothing was removed")]
    NoDeletion,
    /// There is no signature without a key.
    #[error("what is decided here has to be signed")]
    Sign(#[from] SignError),
    /// Something speaks against it.
    #[error("nothing was removed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Braked(Vec<Brake>),
    /// What this machine remembers cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// Somebody asked to stop.
    #[error("it was interrupted; the next prune goes on from there")]
    Interrupted,
    /// A document could not be written.
    #[error("a document has no text form")]
    Json(#[from] serde_json::Error),
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
}

/// What is to go of what `survey` found, and what speaks against it. `remembered` is what this machine knows to have stored
/// there, if it remembers anything; `alive` are chains that an upload from this machine is still going to.
pub fn plan(
    survey: &Survey,
    keeping: &Keeping<'_>,
    remembered: Option<&BTreeMap<u64, GenerationId>>,
    alive: &BTreeSet<ChainId>,
) -> Plan {
    let subjects = survey::subjects(&survey.generations, &survey.holds);
    let verdicts = judge(keeping.rules, keeping.calendar, &subjects, survey.now);
    let ends = ends(keeping.rules, keeping.calendar, &subjects, survey.now);
    let pruned = survey.record.as_ref().map(|record| record.sequences.clone()).unwrap_or_default();
    let evidence = Evidence {
        now: survey.now,
        ours: survey.ours,
        calendar: keeping.calendar,
        subjects: &subjects,
        verdicts: &verdicts,
        pruned: &pruned,
        heartbeat: survey.heartbeat,
        numbered: true,
        unsigned: &survey.unsigned,
        remembered,
    };
    let brakes = brakes(&evidence, keeping.limits);
    let (removals, emptied, untouched) = objects(survey, keeping.calendar, &subjects, &verdicts, alive);
    let expired: Vec<&Subject> =
        subjects.iter().zip(&verdicts).filter(|(_, verdict)| verdict.expires()).map(|(subject, _)| subject).collect();
    let record = (!expired.is_empty()).then(|| record(survey, keeping.site, pruned, &expired, emptied));
    let hash = hash(keeping.site, &verdicts, &removals, &brakes);
    let generations = subjects.into_iter().zip(verdicts).zip(ends);
    Plan {
        now: survey.now,
        generations: generations.map(|((subject, verdict), end)| Judged { subject, verdict, end }).collect(),
        removals,
        brakes,
        untouched,
        hash,
        old_records: if record.is_some() { survey.records.clone() } else { survey.older_records() },
        record,
    }
}

impl Plan {
    /// Whether nothing speaks against it, or what does was lifted by `lifted`, hashes of plans.
    pub fn is_free(&self, lifted: &[String]) -> bool {
        self.brakes.is_empty() || lifted.contains(&self.hash)
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.removals.is_empty() && self.old_records.is_empty()
    }

    /// The generations that go.
    pub fn expired(&self) -> impl Iterator<Item = &Judged> {
        self.generations.iter().filter(|judged| judged.verdict.expires())
    }
}

/// The objects that go, the folders that nothing is left of, and what stays though nothing keeps it.
fn objects(
    survey: &Survey,
    calendar: &Calendar,
    subjects: &[Subject],
    verdicts: &[Verdict],
    alive: &BTreeSet<ChainId>,
) -> (Vec<Removal>, Vec<Folder>, Vec<String>) {
    let (mut going, mut emptied, mut untouched) = (Vec::new(), Vec::new(), Vec::new());
    for ((class, chain), found) in &survey.chains {
        let mut files = ChainFiles { open: alive.contains(chain), ..found.clone() };
        for (subject, verdict) in subjects.iter().zip(verdicts) {
            if subject.class != *class || subject.chain != *chain {
                continue;
            }
            files.open |= subject.open && *class == Class::Rolling;
            files.foreign |= subject.facts.is_none();
            if verdict.expires() {
                files.kept.retain(|kept| kept.id != subject.id);
                files.expired.insert(subject.id.clone());
            }
        }
        let quiet = |at| survey.now > calendar.after(at, LEFTOVER_AGE);
        let removals = removals(&files, files.written.is_some_and(quiet));
        if removals.is_empty() && !files.expired.is_empty() {
            untouched.push(format!("{chain}: not all of it can be read, or something in it is not this site's"));
        }
        if files.kept.is_empty() && !removals.is_empty() {
            emptied.push(Folder { class: *class, chain: chain.clone() });
        }
        going.extend(removals);
    }
    going.sort();
    (going, emptied, untouched)
}

fn record(survey: &Survey, site: &SiteName, mut pruned: Ranges, expired: &[&Subject], folders: Vec<Folder>) -> Pruned {
    for facts in expired.iter().filter_map(|subject| subject.facts.as_ref()) {
        pruned.insert(facts.sequence);
    }
    Pruned {
        offsite: Kind::Pruned,
        version: VERSION,
        site: site.clone(),
        number: survey.next_record,
        written: survey.now,
        sequences: pruned,
        folders,
    }
}

/// What is done and what speaks against it, and nothing that changes by itself from one minute to the next.
fn hash(site: &SiteName, verdicts: &[Verdict], removals: &[Removal], brakes: &[Brake]) -> String {
    let mut text = format!("site {site}\n");
    for verdict in verdicts.iter().filter(|verdict| verdict.expires()) {
        text.push_str(&format!("expire {}\n", verdict.id));
    }
    for removal in removals {
        text.push_str(&format!("remove {}\n", removal.key));
    }
    for brake in brakes {
        match brake {
            Brake::Clocks { .. } => text.push_str("clocks\n"),
            other => text.push_str(&format!("{other}\n")),
        }
    }
    Sha256::of(text.as_bytes()).to_string().chars().take(16).collect()
}
