//! What holds for every history, by chance and by shrinking.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;

use super::*;
use crate::calendar::Calendar;
use crate::format::names::PackName;

/// One night of a random history.
#[derive(Clone, Debug)]
struct Night {
    hours_after: u16,
    grade: Grade,
    class: Class,
    lifetime: Option<u16>,
    held: bool,
    foreign: bool,
    open: bool,
}

fn night() -> impl Strategy<Value = Night> {
    let grade = prop_oneof![4 => Just(Grade::Exact), 1 => Just(Grade::Sequential), 1 => Just(Grade::Incomplete)];
    let class = prop_oneof![6 => Just(Class::Rolling), 1 => Just(Class::Archival)];
    let rare = || prop::bool::weighted(0.05);
    (0..100_u16, grade, class, prop::option::of(1..900_u16), rare(), rare(), rare()).prop_map(
        |(hours_after, grade, class, lifetime, held, foreign, open)| Night {
            hours_after,
            grade,
            class,
            lifetime,
            held,
            foreign,
            open,
        },
    )
}

fn rules() -> impl Strategy<Value = Rules> {
    let age = || prop::option::weighted(0.3, 1..400_u16);
    (0..8_u32, 0..12_u32, 0..12_u32, 0..8_u32, 0..14_u32, age(), age(), 0..4_u32).prop_map(
        |(last, working_days, daily, weekly, monthly, min_age, max_age, floor)| {
            let (min_age, max_age) = (min_age.map(Age::days), max_age.map(Age::days));
            Rules { last, working_days, daily, weekly, monthly, min_age, max_age, floor }
        },
    )
}

/// The history and the time after it.
fn history(nights: &[Night]) -> (Vec<Subject>, Timestamp) {
    let mut at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut subjects = Vec::new();
    for (sequence, night) in (1..).zip(nights) {
        at += i64::from(night.hours_after).hours();
        let id = GenerationId::new(Timestamp::UNIX_EPOCH + i64::try_from(sequence).unwrap().hours());
        let facts = Facts {
            sequence,
            committed: at,
            grade: night.grade,
            stream_bytes: 1000,
            sources: None,
            lifetime: night.lifetime.map(Age::days).filter(|_| night.class == Class::Archival),
            sha256: None,
            previous: None,
        };
        subjects.push(Subject {
            chain: id.clone(),
            id,
            class: night.class,
            at: Some(at),
            facts: Some(facts).filter(|_| !night.foreign),
            unreadable: false,
            held: if night.held { vec!["a reason".to_owned()] } else { Vec::new() },
            needed: Vec::new(),
            open: night.open && night.class == Class::Rolling,
        });
    }
    (subjects, at + 12.hours())
}

fn kept(rules: &Rules, calendar: &Calendar, subjects: &[Subject], now: Timestamp) -> BTreeSet<GenerationId> {
    let verdicts = judge(rules, calendar, subjects, now);
    verdicts.into_iter().filter(|verdict| !verdict.expires()).map(|verdict| verdict.id).collect()
}

fn berlin() -> Calendar {
    Calendar::new(TimeZone::get("Europe/Berlin").unwrap())
        .with_holidays(["12-25", "01-01"].map(|day| day.parse().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_must_stay_stays(nights in prop::collection::vec(night(), 1..120), rules in rules()) {
        let (subjects, now) = history(&nights);
        let kept = kept(&rules, &berlin(), &subjects, now);
        let genuine = || subjects.iter().filter(|subject| subject.facts.is_some());
        let grade = |subject: &Subject| subject.facts.as_ref().unwrap().grade;
        // No rules leave none; if there is an exact one, an exact one stays.
        if let Some(best) = genuine().map(grade).max() {
            prop_assert!(genuine().any(|subject| grade(subject) == best && kept.contains(&subject.id)));
        }
        for subject in &subjects {
            if !subject.held.is_empty() || subject.facts.is_none() || subject.open {
                prop_assert!(kept.contains(&subject.id), "{:?} went", subject);
            }
        }
        let newest = genuine().rfind(|subject| subject.class == Class::Rolling);
        if let (Some(newest), true) = (newest, rules.floor > 0 || (rules.last > 0 && rules.max_age.is_none())) {
            prop_assert!(kept.contains(&newest.id), "the newest went");
        }
    }

    #[test]
    fn longer_rules_never_keep_less(
        nights in prop::collection::vec(night(), 1..120),
        rules in rules(),
        more in (0..3_u32, 0..3_u32, 0..3_u32, 0..3_u32, 0..3_u32, 0..3_u32, 0..50_u16),
    ) {
        let (subjects, now) = history(&nights);
        let longer = |age: Age| Age::days(u16::try_from(age.least_days()).unwrap() + more.6);
        let wider = Rules {
            last: rules.last + more.0,
            working_days: rules.working_days + more.1,
            daily: rules.daily + more.2,
            weekly: rules.weekly + more.3,
            monthly: rules.monthly + more.4,
            floor: rules.floor + more.5,
            min_age: rules.min_age.map(longer),
            max_age: rules.max_age.map(longer),
        };
        let (narrow, wide) = (kept(&rules, &berlin(), &subjects, now), kept(&wider, &berlin(), &subjects, now));
        prop_assert!(narrow.is_subset(&wide), "{:?} keeps less than {:?}", wider, rules);
    }

    #[test]
    fn planning_twice_changes_nothing(nights in prop::collection::vec(night(), 1..120), rules in rules()) {
        let (subjects, now) = history(&nights);
        let first = kept(&rules, &berlin(), &subjects, now);
        let left: Vec<Subject> = subjects.into_iter().filter(|subject| first.contains(&subject.id)).collect();
        prop_assert_eq!(&kept(&rules, &berlin(), &left, now), &first);
        // In whatever order a store lists them.
        let backwards: Vec<Subject> = left.into_iter().rev().collect();
        prop_assert_eq!(&kept(&rules, &berlin(), &backwards, now), &first);
    }

    #[test]
    fn no_pack_of_a_kept_generation_is_removed(
        needs in prop::collection::vec((any::<bool>(), prop::collection::btree_set(0..30_u32, 0..20)), 1..12),
        orphans in prop::collection::btree_set(0..40_u32, 0..10),
        flags in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        unreadable in prop::option::of(0..12_usize),
    ) {
        let (open, foreign, begun, leftovers_go) = flags;
        let pack = |order: u32| PackName { number: 0, order, sha256: Sha256::of(&order.to_le_bytes()), patches: order.is_multiple_of(3) };
        let id = |at: usize| GenerationId::new(Timestamp::UNIX_EPOCH + i64::try_from(at).unwrap().hours());
        let mut chain = ChainFiles { open, foreign, begun, ..ChainFiles::default() };
        let mut packs: BTreeSet<PackName> = orphans.iter().map(|order| pack(*order)).collect();
        let mut needed = BTreeSet::new();
        for (at, (keep, orders)) in needs.iter().enumerate() {
            let own: BTreeSet<PackName> = orders.iter().map(|order| pack(*order)).collect();
            packs.extend(&own);
            if *keep {
                needed.extend(own.iter().map(|name| format!("packs/{name}")));
                needed.extend(["json", "json.minisig", "packs", "manifest.age"].map(|end| format!("{}.{end}", id(at))));
                chain.kept.push(KeptPacks { id: id(at), packs: Some(own).filter(|_| unreadable != Some(at)) });
            } else {
                chain.expired.insert(id(at));
            }
            for end in ["json", "json.minisig", "packs", "manifest.age"] {
                let path = format!("{}.{end}", id(at));
                chain.objects.push((format!("s/rolling/c/{path}").parse().unwrap(), path, 1));
            }
        }
        chain.objects.extend(packs.iter().map(|name| {
            let path = format!("packs/{name}");
            (format!("s/rolling/c/{path}").parse().unwrap(), path, 1)
        }));
        let removals = removals(&chain, leftovers_go);
        for removal in &removals {
            let path = removal.key.as_str().strip_prefix("s/rolling/c/").unwrap();
            prop_assert!(!needed.contains(path), "{} is needed", path);
        }
        prop_assert!(removals.is_sorted_by_key(|removal| removal.step));
        let untouched = open || foreign || chain.kept.iter().any(|kept| kept.packs.is_none());
        prop_assert!(!untouched || removals.is_empty());
        // When nothing is kept of a chain, nothing is left of it.
        if !untouched && chain.kept.is_empty() {
            prop_assert_eq!(removals.len(), chain.objects.len());
        }
    }
}
