//! The same for the generations on this machine: read-only folders that share what did not change.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;

use super::{Holds, Judged};
use crate::calendar::Calendar;
use crate::format::Sha256;
use crate::format::pruned::Ranges;
use crate::generation::Class;
use crate::ids::GenerationId;
use crate::retention::{Brake, End, Evidence, Facts, Limits, Rules, Subject, Verdict, brakes, ends, judge};
use crate::staging::{LocalGeneration, Staging, StagingError};

/// What is to be done on this machine.
#[derive(Clone, Debug)]
pub struct LocalPlan {
    /// Every generation, with what becomes of it.
    pub generations: Vec<Judged>,
    /// What speaks against it.
    pub brakes: Vec<Brake>,
    /// The plan in sixteen digits.
    pub hash: String,
}

/// What is to go of `local` at `now`. `needed` says what else a generation is needed for.
pub fn plan(
    local: &[LocalGeneration],
    rules: &Rules,
    limits: &Limits,
    calendar: &Calendar,
    holds: &Holds,
    needed: &BTreeMap<GenerationId, Vec<String>>,
    now: Timestamp,
) -> LocalPlan {
    let subjects = subjects(local, holds, needed);
    let verdicts = judge(rules, calendar, &subjects, now);
    let ends = ends(rules, calendar, &subjects, now);
    let evidence = Evidence {
        now,
        ours: now,
        calendar,
        subjects: &subjects,
        verdicts: &verdicts,
        pruned: &Ranges::default(),
        heartbeat: None,
        // Nobody signs what never leaves, and numbers are given here.
        numbered: false,
        unsigned: &[],
        remembered: None,
    };
    let brakes = brakes(&evidence, limits);
    let hash = hash(&verdicts, &brakes);
    let judged = |((subject, verdict), end): ((Subject, Verdict), End)| Judged { subject, verdict, end };
    LocalPlan { generations: subjects.into_iter().zip(verdicts).zip(ends).map(judged).collect(), brakes, hash }
}

impl LocalPlan {
    /// Whether nothing speaks against it, or what does was lifted by `lifted`, hashes of plans.
    pub fn is_free(&self, lifted: &[String]) -> bool {
        self.brakes.is_empty() || lifted.contains(&self.hash)
    }
}

/// Removes the generations that expire, and answers how many. Each goes in one step, and touches no other: what they share
/// are links to the same bytes. The caller has looked whether the plan [is free](LocalPlan::is_free).
pub fn execute(staging: &Staging, plan: &LocalPlan) -> Result<u64, StagingError> {
    let mut removed = 0;
    for local in staging.generations()? {
        let expires = |judged: &Judged| judged.subject.id == *local.id() && judged.verdict.expires();
        if plan.generations.iter().any(expires) {
            local.remove()?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The generations as retention sees them; what cannot be read is never touched. All are judged by the rules of this
/// machine, whatever they are off site.
fn subjects(local: &[LocalGeneration], holds: &Holds, needed: &BTreeMap<GenerationId, Vec<String>>) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = local
        .iter()
        .map(|local| Subject {
            id: local.id().clone(),
            class: Class::Rolling,
            chain: local.id().clone(),
            at: written(local),
            facts: facts(local),
            unreadable: false,
            held: holds.reasons(local.id()).to_vec(),
            needed: needed.get(local.id()).cloned().unwrap_or_default(),
            open: false,
        })
        .collect();
    subjects.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    for (sequence, subject) in (1..).zip(&mut subjects) {
        if let Some(facts) = &mut subject.facts {
            facts.sequence = sequence;
        }
    }
    if let Some(newest) = subjects.iter_mut().rfind(|subject| subject.facts.is_some()) {
        newest.needed.push("the next run copies from it".to_owned());
    }
    subjects
}

/// When the file system took it, by its own clock.
fn written(local: &LocalGeneration) -> Option<Timestamp> {
    let modified = fs::metadata(local.document_path()).and_then(|metadata| metadata.modified()).ok()?;
    Timestamp::try_from(modified).ok()
}

fn facts(local: &LocalGeneration) -> Option<Facts> {
    let document = local.document().ok()?;
    Some(Facts {
        sequence: 0,
        committed: document.cut.not_after,
        grade: document.grade,
        stream_bytes: document.sources.iter().map(|source| source.bytes).sum(),
        sources: u32::try_from(document.sources.len()).ok(),
        lifetime: None,
        sha256: None,
        previous: None,
    })
}

fn hash(verdicts: &[Verdict], brakes: &[Brake]) -> String {
    let expire = verdicts.iter().filter(|verdict| verdict.expires()).map(|verdict| format!("expire {}\n", verdict.id));
    let brakes = brakes.iter().map(|brake| format!("{brake}\n"));
    let text: String = ["local\n".to_owned()].into_iter().chain(expire).chain(brakes).collect();
    Sha256::of(text.as_bytes()).to_string().chars().take(16).collect()
}
