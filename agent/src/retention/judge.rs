//! Rules × generations × now: for each generation all reasons to keep it, or none.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};

use super::{CLOCK_TOLERANCE, Facts, Reason, Rules, Subject, Verdict};
use crate::calendar::Calendar;
use crate::generation::Class;

/// A rolling generation that rules apply to.
struct Counted<'s> {
    index: usize,
    facts: &'s Facts,
    at: Timestamp,
}

/// The day, or the first day of the week or month, that a generation stands for; nothing if it stands for none.
type Bucket<'b> = &'b dyn Fn(&Counted<'_>) -> Option<Date>;

/// What becomes of each of `subjects`, in their order. `now` is the place's own clock.
pub fn judge(rules: &Rules, calendar: &Calendar, subjects: &[Subject], now: Timestamp) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = subjects
        .iter()
        .map(|subject| Verdict {
            id: subject.id.clone(),
            class: subject.class,
            reasons: reasons_of_its_own(rules, calendar, subject, now),
        })
        .collect();
    let mut keep = |index: usize, reason: Reason| {
        if let Some(verdict) = verdicts.get_mut(index) {
            verdict.reasons.push(reason);
        }
    };
    let counted = counted(subjects, now);
    for newest in counted.iter().take(as_usize(rules.floor)) {
        keep(newest.index, Reason::Floor);
    }
    let young = |one: &&Counted<'_>| rules.max_age.is_none_or(|age| now < calendar.after(one.at, age));
    for newest in counted.iter().take(as_usize(rules.last)).filter(young) {
        keep(newest.index, Reason::Last);
    }
    let date = |one: &Counted<'_>| calendar.date_of(one.at);
    let working = |one: &Counted<'_>| Some(date(one)).filter(|day| calendar.is_working_day(*day));
    let mut keep_last_of = |count: u32, bucket: Bucket<'_>, reason: fn(Date) -> Reason| {
        for (key, one) in representatives(&counted, bucket, count) {
            if young(&one) {
                keep(one.index, reason(key));
            }
        }
    };
    keep_last_of(rules.working_days, &working, |day| Reason::WorkingDay { day });
    keep_last_of(rules.daily, &|one| Some(date(one)), |day| Reason::Daily { day });
    keep_last_of(rules.weekly, &|one| Some(monday(date(one))), |monday| Reason::Weekly { monday });
    keep_last_of(rules.monthly, &|one| Some(date(one).first_of_month()), |first| Reason::Monthly { first });
    if let Some(best) = best(subjects, now) {
        keep(best, Reason::Best);
    }
    for verdict in &mut verdicts {
        verdict.reasons.sort();
    }
    verdicts
}

/// The generation that stays whatever the rules say: of those that are this site's, the newest of the best grade.
pub fn best(subjects: &[Subject], now: Timestamp) -> Option<usize> {
    // One from the future may be anything; it is the best only if there is no other.
    let rank = |subject: &Subject, facts: &Facts| (!is_future(subject, now), facts.grade, facts.sequence);
    let genuine =
        subjects.iter().enumerate().filter_map(|(at, subject)| Some((at, rank(subject, subject.facts.as_ref()?))));
    genuine.max_by_key(|(_, rank)| *rank).map(|(at, _)| at)
}

/// Reasons that need no look at the others.
fn reasons_of_its_own(rules: &Rules, calendar: &Calendar, subject: &Subject, now: Timestamp) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = subject.held.iter().map(|why| Reason::Held { why: why.clone() }).collect();
    reasons.extend(subject.needed.iter().map(|what| Reason::Needed { what: what.clone() }));
    if subject.open {
        reasons.push(Reason::Open);
    }
    let Some(facts) = &subject.facts else {
        reasons.push(if subject.unreadable { Reason::Unreadable } else { Reason::Foreign });
        return reasons;
    };
    let Some(at) = subject.at else {
        reasons.push(Reason::NoTime);
        return reasons;
    };
    if is_future(subject, now) {
        reasons.push(Reason::Future);
    }
    if let (Class::Rolling, Some(age)) = (subject.class, rules.min_age) {
        let until = calendar.after(at, age);
        reasons.extend((now < until).then_some(Reason::Young { until }));
    }
    match (subject.class, facts.lifetime) {
        (Class::Rolling, _) => {}
        (Class::Archival, None) => reasons.push(Reason::ForEver),
        (Class::Archival, Some(lifetime)) => {
            let until = calendar.after(at, lifetime);
            reasons.extend((now < until).then_some(Reason::Lifetime { until }));
        }
    }
    reasons
}

/// The rolling generations that count, newest first: this site's, with a time that is not in the future.
fn counted(subjects: &[Subject], now: Timestamp) -> Vec<Counted<'_>> {
    let mut counted: Vec<Counted<'_>> = subjects
        .iter()
        .enumerate()
        .filter(|(_, subject)| subject.class == Class::Rolling && !is_future(subject, now))
        .filter_map(|(index, subject)| Some(Counted { index, facts: subject.facts.as_ref()?, at: subject.at? }))
        .collect();
    counted.sort_by_key(|one| std::cmp::Reverse(one.facts.sequence));
    counted
}

/// Of each of the newest `count` days (or weeks, or months) that have a generation, the newest of the best grade.
fn representatives<'c, 's>(counted: &'c [Counted<'s>], bucket: Bucket<'_>, count: u32) -> Vec<(Date, &'c Counted<'s>)> {
    let mut buckets: BTreeMap<Date, &Counted<'_>> = BTreeMap::new();
    for one in counted {
        let Some(key) = bucket(one) else { continue };
        let better =
            |held: &&Counted<'_>| (held.facts.grade, held.facts.sequence) < (one.facts.grade, one.facts.sequence);
        if buckets.get(&key).is_none_or(better) {
            buckets.insert(key, one);
        }
    }
    buckets.into_iter().rev().take(as_usize(count)).collect()
}

fn is_future(subject: &Subject, now: Timestamp) -> bool {
    subject.at.is_some_and(|at| at.duration_since(now) > CLOCK_TOLERANCE)
}

fn monday(day: Date) -> Date {
    if day.weekday() == Weekday::Monday { day } else { day.nth_weekday(-1, Weekday::Monday).unwrap_or(day) }
}

fn as_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
