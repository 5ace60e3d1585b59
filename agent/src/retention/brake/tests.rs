//! Each brake, with what it is for: generations that are good, that a plan would delete, and that only the brake saves.

use std::collections::BTreeSet;

use jiff::ToSpan as _;
use jiff::tz::TimeZone;

use super::*;
use crate::format::Sha256;
use crate::format::names::PackName;
use crate::generation::Class;
use crate::retention::{ChainFiles, KeptPacks, Rules, judge, removals};

/// A place, and what somebody does to it.
struct Place {
    rules: Rules,
    limits: Limits,
    calendar: Calendar,
    subjects: Vec<Subject>,
    now: Timestamp,
    ours: Timestamp,
    pruned: Ranges,
    heartbeat: Option<u64>,
    unsigned: Vec<String>,
    remembered: Option<BTreeMap<u64, GenerationId>>,
}

const RULES: Rules =
    Rules { last: 3, working_days: 0, daily: 30, weekly: 0, monthly: 0, min_age: None, max_age: None, floor: 1 };

impl Place {
    /// Twenty nights, the last one this one; all is well.
    fn healthy() -> Self {
        let start: Timestamp = "2026-11-01T23:00:00Z".parse().unwrap();
        let now = start + (19 * 24 + 12).hours();
        let subjects =
            (1..=20_u32).map(|night| subject(night, start + (24 * (i64::from(night) - 1)).hours())).collect();
        Self {
            rules: RULES,
            limits: Limits { newest_age: Age::days(3), shrink_percent: 50, grow_percent: 300, remove_percent: 100 },
            calendar: Calendar::new(TimeZone::UTC),
            subjects,
            now,
            ours: now,
            pruned: Ranges::default(),
            heartbeat: Some(20),
            unsigned: Vec::new(),
            remembered: None,
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        judge(&self.rules, &self.calendar, &self.subjects, self.now)
    }

    /// The numbers of generations that the rules alone would delete.
    fn expired(&self) -> Vec<u64> {
        let verdicts = self.verdicts();
        let expired = self.subjects.iter().zip(&verdicts).filter(|(_, verdict)| verdict.expires());
        expired.map(|(subject, _)| subject.facts.as_ref().unwrap().sequence).collect()
    }

    fn brakes(&self) -> Vec<&'static str> {
        let verdicts = self.verdicts();
        let evidence = Evidence {
            now: self.now,
            ours: self.ours,
            calendar: &self.calendar,
            subjects: &self.subjects,
            verdicts: &verdicts,
            pruned: &self.pruned,
            heartbeat: self.heartbeat,
            numbered: true,
            unsigned: &self.unsigned,
            remembered: self.remembered.as_ref(),
        };
        brakes(&evidence, &self.limits).iter().map(Brake::name).collect()
    }

    fn facts(&mut self, number: usize) -> &mut Facts {
        self.subjects[number - 1].facts.as_mut().unwrap()
    }
}

fn digest(number: u32) -> Sha256 {
    Sha256::of(&number.to_le_bytes())
}

fn subject(number: u32, at: Timestamp) -> Subject {
    let id = GenerationId::new(at);
    let facts = Facts {
        sequence: u64::from(number),
        committed: at,
        grade: Grade::Exact,
        stream_bytes: 1_000_000,
        sources: Some(5),
        lifetime: None,
        sha256: Some(digest(number)),
        previous: Some(digest(number - 1)).filter(|_| number > 1),
    };
    Subject {
        chain: id.clone(),
        id,
        class: Class::Rolling,
        at: Some(at),
        facts: Some(facts),
        unreadable: false,
        held: Vec::new(),
        needed: Vec::new(),
        open: false,
    }
}

#[test]
fn where_all_is_well_nothing_speaks_against_it() {
    let place = Place::healthy();
    assert_eq!((place.expired(), place.brakes()), (vec![], vec![]));
}

#[test]
fn clocks_that_disagree_would_make_everything_too_old() {
    let mut place = Place::healthy();
    place.rules.max_age = Some(Age::days(60));
    assert_eq!((place.expired(), place.brakes()), (vec![], vec![]));
    // The store's clock jumps a year ahead; the next night comes by it, too.
    let ahead = 365 * 24;
    place.now += ahead.hours();
    place.subjects.push(subject(21, place.now - 1.hours()));
    place.subjects[20].facts.as_mut().unwrap().committed = place.ours - 1.hours();
    place.heartbeat = Some(21);
    assert_eq!(place.expired(), (1..=20).collect::<Vec<_>>());
    assert_eq!(place.brakes(), ["clocks"]);
}

#[test]
fn a_store_that_was_copied_would_have_all_of_it_on_one_day() {
    let mut place = Place::healthy();
    for (minute, subject) in (1_i32..).zip(&mut place.subjects) {
        subject.at = Some(place.now - 1.hours() + i64::from(minute).minutes());
    }
    assert_eq!(place.expired(), (1..=17).collect::<Vec<_>>());
    assert_eq!(place.brakes(), ["dates"]);
}

#[test]
fn what_others_sign_would_push_out_what_is_ours() {
    let mut place = Place::healthy();
    place.rules = Rules { daily: 0, last: 20, ..RULES };
    assert_eq!((place.expired(), place.brakes()), (vec![], vec![]));
    let junk = |number: u32| {
        subject(number, "2026-11-21T01:00:00Z".parse::<Timestamp>().unwrap() + i64::from(number).minutes())
    };
    let mut believed = Place::healthy();
    believed.rules = place.rules;
    believed.subjects.extend((21..=40).map(junk));
    // If what is not signed counted, all of ours would go.
    assert_eq!(believed.expired(), (1..=20).collect::<Vec<_>>());
    place.subjects.extend((21..=40).map(junk).map(|subject| Subject { facts: None, ..subject }));
    assert_eq!(place.verdicts().iter().filter(|verdict| verdict.expires()).count(), 0);
    assert_eq!(place.brakes(), ["signature"]);
    // The same for what should be signed and lies elsewhere, such as a release of somebody else.
    let mut place = Place::healthy();
    place.unsigned.push("townhall/holds/x".to_owned());
    assert_eq!(place.brakes(), ["signature"]);
}

#[test]
fn a_generation_that_was_hidden_would_lose_its_packs() {
    let mut place = Place::healthy();
    let hidden = place.subjects.remove(9);
    // Its chain is the one of the generation before; the thief hid its documents, and could not touch the packs.
    let chain = &place.subjects[8];
    let pack = |order: u32| PackName { number: order, order: 1, sha256: digest(order), patches: false };
    let object = |name: &PackName| {
        let path = format!("packs/{name}");
        (format!("townhall/rolling/{}/{path}", chain.id).parse().unwrap(), path, 1)
    };
    let files = |kept: &[&Subject]| ChainFiles {
        objects: [pack(0), pack(1)].iter().map(object).collect(),
        kept: kept
            .iter()
            .map(|subject| KeptPacks {
                id: subject.id.clone(),
                packs: Some(if subject.id == hidden.id {
                    BTreeSet::from([pack(0), pack(1)])
                } else {
                    [pack(0)].into()
                }),
            })
            .collect(),
        ..ChainFiles::default()
    };
    assert_eq!(removals(&files(&[chain, &hidden]), false).len(), 0);
    assert_eq!(removals(&files(&[chain]), false).len(), 1, "the pack of the hidden one goes");
    assert_eq!(place.brakes(), ["gap"]);
    // What a prune removed is no gap.
    place.pruned.insert(10);
    assert_eq!(place.brakes(), [""; 0]);
    // The newest was hidden: the heartbeat knows of it.
    place.subjects.pop();
    assert_eq!(place.brakes(), ["gap"]);
}

#[test]
fn an_exchanged_generation_is_no_link_of_the_chain() {
    let mut place = Place::healthy();
    place.rules = Rules { daily: 0, ..RULES };
    place.facts(12).sha256 = Some(digest(99));
    assert!(!place.expired().is_empty());
    assert_eq!(place.brakes(), ["gap"]);
}

#[test]
fn no_new_generation_for_weeks_would_let_the_old_ones_age_away() {
    let mut place = Place::healthy();
    place.rules.max_age = Some(Age::days(30));
    assert_eq!((place.expired(), place.brakes()), (vec![], vec![]));
    place.now += (24 * 40).hours();
    place.ours = place.now;
    assert_eq!(place.expired(), (1..=19).collect::<Vec<_>>());
    assert_eq!(place.brakes(), ["stale"]);
    // Incomplete ones night after night are no new generation.
    for night in 21..=60_u32 {
        let at = "2026-11-01T23:00:00Z".parse::<Timestamp>().unwrap() + (24 * (i64::from(night) - 1)).hours();
        place.subjects.push(subject(night, at));
        place.facts(night as usize).grade = Grade::Incomplete;
    }
    assert!(place.expired().contains(&19));
    assert_eq!(place.brakes(), ["stale"]);
}

#[test]
fn a_few_nights_with_most_of_the_office_gone_would_push_out_the_whole_ones() {
    for (bytes, expected) in [(100_000, "size"), (9_000_000, "size")] {
        let mut place = Place::healthy();
        place.rules = Rules { daily: 0, ..RULES };
        for night in 18..=20 {
            place.facts(night).stream_bytes = bytes;
        }
        // Every generation that is whole goes.
        assert_eq!(place.expired(), (1..=17).collect::<Vec<_>>());
        assert_eq!(place.brakes(), [expected]);
    }
}

#[test]
fn a_source_that_was_lost_would_go_with_the_last_that_have_it() {
    let mut place = Place::healthy();
    place.rules = Rules { daily: 0, ..RULES };
    for night in 18..=20 {
        place.facts(night).sources = Some(4);
    }
    assert_eq!(place.expired(), (1..=17).collect::<Vec<_>>());
    assert_eq!(place.brakes(), ["sources"]);
}

#[test]
fn a_slip_in_the_rules_would_delete_most_of_what_is_there() {
    let mut place = Place::healthy();
    place.limits.remove_percent = 50;
    assert_eq!((place.expired(), place.brakes()), (vec![], vec![]));
    place.rules = Rules { daily: 3, ..RULES };
    assert_eq!(place.expired(), (1..=17).collect::<Vec<_>>());
    assert_eq!(place.brakes(), ["share"]);
}

#[test]
fn a_store_that_was_brought_back_from_an_old_copy_would_lose_what_it_still_has() {
    let mut place = Place::healthy();
    let known: BTreeMap<u64, GenerationId> =
        (1..).zip(place.subjects.iter().map(|subject| subject.id.clone())).collect();
    place.remembered = Some(known);
    place.rules = Rules { daily: 0, last: 5, ..RULES };
    // Only the first eighteen are there, and the heartbeat of that time.
    place.subjects.truncate(18);
    place.heartbeat = Some(18);
    assert_eq!(place.expired(), (1..=13).collect::<Vec<_>>());
    assert_eq!(place.brakes(), ["memory"]);
    // Another machine stores under the same name.
    let mut place = Place::healthy();
    place.remembered = Some(BTreeMap::from([(1, place.subjects[0].id.clone()), (19, place.subjects[18].id.clone())]));
    assert_eq!(place.brakes(), ["memory"]);
}
