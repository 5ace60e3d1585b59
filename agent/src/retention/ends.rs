//! When a generation that is kept will expire at the earliest.

use jiff::{Timestamp, ToSpan as _};

use super::{Facts, Rules, Subject, judge};
use crate::calendar::Calendar;
use crate::generation::{Class, Grade};
use crate::ids::GenerationId;

/// The earliest end of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "end", content = "at")]
pub enum End {
    /// It expires with the next prune.
    Now,
    /// Not before this time.
    NotBefore(Timestamp),
    /// Not before somebody decides something, or in so many years that it makes no difference.
    Never,
}

/// Nights that are looked ahead; lifetimes beyond it are known without looking.
const NIGHTS: i32 = 1200;
/// Names of the generations to come; nobody sees them.
const TO_COME: &str = "99990101T000000Z-0000";

/// The earliest end of each of `subjects`, in their order: as if a whole generation were stored each night from now on,
/// each the full of a chain of its own.
pub fn ends(rules: &Rules, calendar: &Calendar, subjects: &[Subject], now: Timestamp) -> Vec<End> {
    let verdicts = judge(rules, calendar, subjects, now);
    let mut ends: Vec<End> =
        verdicts.iter().map(|verdict| if verdict.expires() { End::Now } else { End::Never }).collect();
    let mut sequence = subjects.iter().filter_map(|subject| Some(subject.facts.as_ref()?.sequence)).max().unwrap_or(0);
    // What is in the way now will not be when tomorrow's chain is begun.
    let alive = verdicts.iter().zip(subjects).enumerate().filter(|(_, (verdict, _))| !verdict.expires());
    let mut living: Vec<(Option<usize>, Subject)> =
        alive.map(|(at, (_, subject))| (Some(at), Subject { open: false, ..subject.clone() })).collect();
    let Ok(to_come) = TO_COME.parse::<GenerationId>() else { return ends };
    let start = now.to_zoned(calendar.zone().clone());
    for night in 1..=NIGHTS {
        let Ok(then) = start.checked_add(night.days()) else { break };
        let then = then.timestamp();
        sequence += 1;
        living.push((None, coming(&to_come, sequence, then)));
        let subjects: Vec<Subject> = living.iter().map(|(_, subject)| subject.clone()).collect();
        let verdicts = judge(rules, calendar, &subjects, then);
        let mut verdicts = verdicts.iter();
        living.retain(|(at, _)| {
            let expires = verdicts.next().is_some_and(super::Verdict::expires);
            if let (true, Some(end)) = (expires, at.and_then(|at| ends.get_mut(at))) {
                *end = End::NotBefore(then);
            }
            !expires
        });
        if living.iter().all(|(at, _)| at.is_none()) {
            break;
        }
    }
    for (at, subject) in living {
        let (Some(end), Some(until)) = (at.and_then(|at| ends.get_mut(at)), lifetime_end(calendar, &subject)) else {
            continue;
        };
        *end = End::NotBefore(until);
    }
    ends
}

fn coming(id: &GenerationId, sequence: u64, at: Timestamp) -> Subject {
    let facts = Facts {
        sequence,
        committed: at,
        grade: Grade::Exact,
        stream_bytes: 0,
        sources: None,
        lifetime: None,
        sha256: None,
        previous: None,
    };
    Subject {
        id: id.clone(),
        class: Class::Rolling,
        chain: id.clone(),
        at: Some(at),
        facts: Some(facts),
        unreadable: false,
        held: Vec::new(),
        needed: Vec::new(),
        open: false,
    }
}

/// When the lifetime of an archival generation is over, if nothing else keeps it.
fn lifetime_end(calendar: &Calendar, subject: &Subject) -> Option<Timestamp> {
    if subject.class != Class::Archival || !subject.held.is_empty() || !subject.needed.is_empty() {
        return None;
    }
    Some(calendar.after(subject.at?, subject.facts.as_ref()?.lifetime?))
}
