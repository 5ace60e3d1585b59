//! What speaks against deleting anything: each brake stops all of it, and says why.
//!
//! Retention deletes on the word of clocks, lists and signatures. When one of them does not fit the others, somebody or
//! something is wrong, and what would be deleted may be what is needed most. A person looks, and lifts the brakes of the
//! one plan that he has seen.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{CLOCK_TOLERANCE, Facts, Subject, Verdict, day};
use crate::calendar::{Age, Calendar};
use crate::format::pruned::Ranges;
use crate::generation::Grade;
use crate::ids::GenerationId;

/// A time that a generation was stored at may contradict the times in documents by so much: a clock that was wrong by hours
/// once is no reason to stop for months.
const DATE_TOLERANCE: SignedDuration = SignedDuration::from_hours(26);
/// The newest generation is compared with so many before it: with their middle one, so that what happened last night does
/// not become the measure tomorrow.
const COMPARED: usize = 10;

/// Where the brakes take hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The newest complete generation is not older than this.
    pub newest_age: Age,
    /// The newest generation is not smaller by more than so many percent.
    pub shrink_percent: u32,
    /// The newest generation is not larger by more than so many percent.
    pub grow_percent: u32,
    /// A plan does not remove more than so many percent of the generations.
    pub remove_percent: u32,
}

/// Everything that a plan is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The place's clock.
    pub now: Timestamp,
    /// This machine's clock at the same moment.
    pub ours: Timestamp,
    /// The office's calendar.
    pub calendar: &'a Calendar,
    /// Every generation in the place.
    pub subjects: &'a [Subject],
    /// What becomes of each.
    pub verdicts: &'a [Verdict],
    /// Sequence numbers that earlier prunes removed, by their signed records.
    pub pruned: &'a Ranges,
    /// The newest sequence number that the heartbeat knows of.
    pub heartbeat: Option<u64>,
    /// Whether each sequence number is one generation of this place, so that none may be missing.
    pub numbered: bool,
    /// Objects that should bear this site's signature and do not.
    pub unsigned: &'a [String],
    /// What this machine remembers to have stored there and not pruned; `None` if it remembers nothing.
    pub remembered: Option<&'a BTreeMap<u64, GenerationId>>,
}

/// Why nothing is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "brake")]
pub enum Brake {
    /// The place's clock and ours disagree.
    Clocks {
        /// The place's.
        place: Timestamp,
        /// Ours.
        ours: Timestamp,
    },
    /// The place took a generation at a time that contradicts the documents, or in the future.
    Dates {
        /// Which one.
        generation: GenerationId,
        /// When, says the place.
        at: Timestamp,
    },
    /// Something is not signed by this site.
    Signature {
        /// Generations or objects.
        what: Vec<String>,
    },
    /// Generations are missing that nobody pruned, or were exchanged.
    Gap {
        /// What is wrong.
        what: Vec<String>,
    },
    /// The newest complete generation is too old, or there is none.
    Stale {
        /// The newest complete one, and when it was stored.
        newest: Option<(GenerationId, Timestamp)>,
    },
    /// The newest generation is much smaller or larger than those before it.
    Size {
        /// The newest one.
        generation: GenerationId,
        /// Its size in bytes.
        bytes: u64,
        /// What is usual.
        usual: u64,
    },
    /// The newest generation lacks sources that those before it have.
    Sources {
        /// The newest one.
        generation: GenerationId,
        /// How many it has.
        sources: u32,
        /// What is usual.
        usual: u32,
    },
    /// The plan removes too much.
    Share {
        /// So many generations.
        removes: u64,
        /// Of so many.
        of: u64,
    },
    /// This machine remembers something else than the store has.
    Memory {
        /// What differs.
        what: Vec<String>,
    },
}

/// Everything that speaks against a plan; nothing if nothing does.
pub fn brakes(evidence: &Evidence<'_>, limits: &Limits) -> Vec<Brake> {
    let mut brakes = Vec::new();
    let Evidence { now, ours, .. } = *evidence;
    if now.duration_since(ours).abs() > CLOCK_TOLERANCE {
        brakes.push(Brake::Clocks { place: now, ours });
    }
    let listed = by_sequence(evidence.subjects);
    brakes.extend(dates(evidence, &listed));
    brakes.extend(signature(evidence));
    if evidence.numbered {
        brakes.extend(gap(evidence, &listed));
    }
    brakes.extend(stale(evidence, limits, &listed));
    brakes.extend(size(limits, &listed));
    brakes.extend(sources(&listed));
    brakes.extend(share(evidence, limits));
    brakes.extend(memory(evidence));
    brakes
}

type Listed<'a> = [(&'a Subject, &'a Facts)];

fn by_sequence(subjects: &[Subject]) -> Vec<(&Subject, &Facts)> {
    let mut listed: Vec<_> = subjects.iter().filter_map(|subject| Some((subject, subject.facts.as_ref()?))).collect();
    listed.sort_by_key(|(_, facts)| facts.sequence);
    listed
}

/// A generation is committed after the one before it was stored, and stored after it was committed; and nothing is stored
/// in the future. Copying a store to another place gives all of it new dates, and so does writing over it.
fn dates(evidence: &Evidence<'_>, listed: &Listed<'_>) -> Option<Brake> {
    let later = |a: Timestamp, b: Timestamp, tolerance: SignedDuration| a.duration_since(b) > tolerance;
    let wrong = |(subject, facts): &(&Subject, &Facts), next: Option<&(&Subject, &Facts)>| {
        let at = subject.at?;
        let in_future = later(at, evidence.now, CLOCK_TOLERANCE);
        let before_commit = later(facts.committed, at, DATE_TOLERANCE);
        let after_next = next.is_some_and(|(_, next)| later(at, next.committed, DATE_TOLERANCE));
        (in_future || before_commit || after_next).then(|| Brake::Dates { generation: subject.id.clone(), at })
    };
    listed.iter().enumerate().find_map(|(at, one)| wrong(one, listed.get(at + 1)))
}

fn signature(evidence: &Evidence<'_>) -> Option<Brake> {
    let foreign = evidence.subjects.iter().filter(|subject| subject.facts.is_none() && !subject.unreadable);
    let what: Vec<String> =
        foreign.map(|subject| subject.id.to_string()).chain(evidence.unsigned.iter().cloned()).collect();
    (!what.is_empty()).then_some(Brake::Signature { what })
}

/// Every number up to the newest is a generation that is there, or one that was pruned. One that cannot be read may be any
/// that is missing.
fn gap(evidence: &Evidence<'_>, listed: &Listed<'_>) -> Option<Brake> {
    let mut what = Vec::new();
    let newest = listed.last().map_or(0, |(_, facts)| facts.sequence).max(evidence.heartbeat.unwrap_or(0));
    let mut known = evidence.pruned.clone();
    for (_, facts) in listed {
        known.insert(facts.sequence);
    }
    let unreadable = evidence.subjects.iter().filter(|subject| subject.unreadable).count() as u64;
    let missing = known.missing(newest);
    let lacking: u64 = missing.iter().map(|(first, last)| last - first + 1).sum();
    for (first, last) in missing.into_iter().filter(|_| lacking > unreadable) {
        what.push(if first == last {
            format!("number {first} is not there")
        } else {
            format!("numbers {first} to {last} are not there")
        });
    }
    for pair in listed.windows(2) {
        let [(before, earlier), (subject, facts)] = pair else { continue };
        if earlier.sequence == facts.sequence {
            what.push(format!("{} and {} have the same number {}", before.id, subject.id, facts.sequence));
        } else if earlier.sequence + 1 == facts.sequence && facts.previous != earlier.sha256 {
            what.push(format!("{} does not name {} as the one before it", subject.id, before.id));
        }
    }
    (!what.is_empty()).then_some(Brake::Gap { what })
}

fn stale(evidence: &Evidence<'_>, limits: &Limits, listed: &Listed<'_>) -> Option<Brake> {
    let complete = listed.iter().filter(|(_, facts)| facts.grade >= Grade::Sequential);
    let newest = complete.filter_map(|(subject, _)| Some((subject.id.clone(), subject.at?))).next_back();
    let fresh = newest.as_ref().is_some_and(|(_, at)| evidence.now < evidence.calendar.after(*at, limits.newest_age));
    let nothing_there = evidence.subjects.is_empty();
    (!fresh && !nothing_there).then_some(Brake::Stale { newest })
}

fn size(limits: &Limits, listed: &Listed<'_>) -> Option<Brake> {
    let (newest, usual) = newest_and_usual(listed, |facts| Some(facts.stream_bytes))?;
    let (bytes, percent) = (newest.1.stream_bytes, |percent: u32| u128::from(usual) * u128::from(percent) / 100);
    let small = u128::from(bytes) < percent(100_u32.saturating_sub(limits.shrink_percent));
    let large = u128::from(bytes) > percent(100_u32.saturating_add(limits.grow_percent));
    (small || large).then(|| Brake::Size { generation: newest.0.id.clone(), bytes, usual })
}

fn sources(listed: &Listed<'_>) -> Option<Brake> {
    let (newest, usual) = newest_and_usual(listed, |facts| facts.sources)?;
    let sources = newest.1.sources?;
    (sources < usual).then(|| Brake::Sources { generation: newest.0.id.clone(), sources, usual })
}

/// The newest generation, and the middle value of those before it.
fn newest_and_usual<'a, T: Ord + Copy>(
    listed: &Listed<'a>,
    value: impl Fn(&Facts) -> Option<T>,
) -> Option<((&'a Subject, &'a Facts), T)> {
    let (newest, before) = listed.split_last()?;
    let mut values: Vec<T> = before.iter().rev().filter_map(|(_, facts)| value(facts)).take(COMPARED).collect();
    values.sort_unstable();
    Some((*newest, *values.get(values.len() / 2)?))
}

fn share(evidence: &Evidence<'_>, limits: &Limits) -> Option<Brake> {
    let of = evidence.subjects.iter().filter(|subject| subject.facts.is_some()).count() as u64;
    let removes = evidence.verdicts.iter().filter(|verdict| verdict.expires()).count() as u64;
    (removes * 100 > of * u64::from(limits.remove_percent)).then_some(Brake::Share { removes, of })
}

fn memory(evidence: &Evidence<'_>) -> Option<Brake> {
    let remembered = evidence.remembered?;
    let listed: BTreeMap<u64, &GenerationId> =
        by_sequence(evidence.subjects).into_iter().map(|(subject, facts)| (facts.sequence, &subject.id)).collect();
    let mut what = Vec::new();
    for (sequence, id) in remembered {
        match listed.get(sequence) {
            Some(found) if *found == id => {}
            Some(found) => what.push(format!("number {sequence} is {id} here, and {found} there")),
            None if evidence.pruned.contains(*sequence) => {}
            None if evidence.subjects.iter().any(|subject| subject.unreadable && subject.id == *id) => {}
            None => what.push(format!("{id} (number {sequence}) was stored from here, and is not there")),
        }
    }
    let newest = remembered.last_key_value().map_or(0, |(sequence, _)| *sequence);
    for (sequence, id) in listed.range(newest + 1..) {
        what.push(format!("{id} (number {sequence}) is there, and was not stored from here"));
    }
    (!what.is_empty()).then_some(Brake::Memory { what })
}

impl Brake {
    /// The brake in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clocks { .. } => "clocks",
            Self::Dates { .. } => "dates",
            Self::Signature { .. } => "signature",
            Self::Gap { .. } => "gap",
            Self::Stale { .. } => "stale",
            Self::Size { .. } => "size",
            Self::Sources { .. } => "sources",
            Self::Share { .. } => "share",
            Self::Memory { .. } => "memory",
        }
    }
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        match self {
            Self::Clocks { place, ours } => {
                write!(f, "its clock shows {place}, this machine's {ours}; set the one that is wrong")
            }
            Self::Dates { generation, at } => write!(
                f,
                "{generation} was stored at {at}, it says, which does not fit what was signed before and after: a clock was \
                 wrong, the store was copied from elsewhere, or somebody wrote over it"
            ),
            Self::Signature { what } => write!(
                f,
                "not signed by this site: {}; find out who can write there, look at it, and remove it by hand",
                what.join(", ")
            ),
            Self::Gap { what } => write!(
                f,
                "{}, and it was not pruned: somebody removed, hid or exchanged it; find out who can write there",
                what.join("; ")
            ),
            Self::Stale { newest: None } => f.write_str("there is no complete generation"),
            Self::Stale { newest: Some((generation, at)) } => write!(
                f,
                "the newest complete generation is {generation}, of {}: see why there is no newer one, before older ones go",
                day(*at)
            ),
            Self::Size { generation, bytes, usual } => write!(
                f,
                "{generation} has {bytes} bytes, and {usual} are usual: see that nothing is missing from it, and nothing in \
                 it that should not be"
            ),
            Self::Sources { generation, sources, usual } => {
                write!(f, "{generation} has {sources} sources, and {usual} are usual: see that none was lost")
            }
            Self::Share { removes, of } => write!(f, "{removes} of {of} generations would go: see that this is meant"),
            Self::Memory { what } => write!(
                f,
                "{}; another machine stores there, this one was brought back from an old copy, or the store was",
                what.join("; ")
            ),
        }
    }
}
