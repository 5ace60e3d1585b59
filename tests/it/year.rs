//! Nights on a simulated clock: a small office, two stores, of which one can copy what it has, retention every night, an
//! archival generation every quarter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, FileTimes};

use agent::calendar::Calendar;
use agent::generation::Class;
use agent::ids::GenerationId;
use agent::prune::{Holds, local};
use agent::retention::{ArchivalRule, Period, Rules, due};
use agent::sign::SiteKey;
use agent::staging::Staging;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use providers::{Access, MemoryStore};
use tests::Rng;
use tests::engine::Site;
use tests::nights::{Keeper, LIMITS, NO_RULES, for_agent, names_of, set_clocks};
use tests::tree::Tree;

/// So many nights unless the environment wants another number: `OFFSITE_TEST_NIGHTS=365` is the whole year.
const NIGHTS: i64 = 16;
const ROLLING: Rules = Rules { last: 3, daily: 7, weekly: 4, monthly: 12, ..NO_RULES };
const LOCAL: Rules = Rules { last: 3, working_days: 10, floor: 3, ..NO_RULES };

#[test]
fn every_night_leaves_what_the_rules_say_and_all_of_it_comes_back() {
    let nights = std::env::var("OFFSITE_TEST_NIGHTS").ok().map_or(NIGHTS, |nights| nights.parse().unwrap());
    let mut site = Site::in_memory();
    let start: Timestamp = "2026-01-01T22:00:00Z".parse().unwrap();
    let store = |seed| MemoryStore::new(seed, Access::Keeper, start);
    let stores = [store(1), store(2).without_copying()];
    site.store = for_agent(&stores[0]);
    site.second = Some(for_agent(&stores[1]));
    let calendar = Calendar::new(TimeZone::get("Europe/Berlin").unwrap());
    let key = SiteKey::load(&site.world.path("site.key")).unwrap();
    let mut keeper = Keeper::new(&site.name, key, ROLLING);
    keeper.calendar = calendar.clone();
    let quarterly = [ArchivalRule { every: Period::Quarter, lifetime: Some("10 years".parse().unwrap()) }];

    let mut rng = Rng::new(8);
    let mut trees: BTreeMap<GenerationId, Tree> = BTreeMap::new();
    let (mut rolling, mut archival) = (Vec::new(), Vec::new());
    let (mut sent, mut copied, mut freed) = ([0; 2], [0; 2], [0; 2]);
    for night in 0..nights {
        let now = start + (24 * night).hours();
        set_clocks(&[&stores[0], &stores[1]], now);
        one_day(&site, &mut rng, night);
        let mut runs = vec![(Class::Rolling, None)];
        let there: Vec<_> = archival.iter().map(|(_, at)| (*at, quarterly[0].lifetime)).collect();
        runs.extend(due(&quarterly, &calendar, &there, now).map(|lifetime| (Class::Archival, lifetime)));
        for (minute, (class, lifetime)) in (0_i64..).zip(runs) {
            let now = now + minute.minutes();
            set_clocks(&[&stores[0], &stores[1]], now);
            let report = site.try_backup_kept_for(class, lifetime);
            for (which, outcome) in report.stores.iter().enumerate() {
                let delivered = outcome.result.as_ref().unwrap();
                sent[which] += delivered.sent_bytes;
                copied[which] += delivered.copied_bytes;
            }
            let id = report.generation.unwrap().0;
            dated(&site, &id, now);
            trees.insert(id.clone(), Tree::read(&site.source()));
            if class == Class::Rolling { &mut rolling } else { &mut archival }.push((id, now));
        }
        for (store, freed) in stores.iter().zip(&mut freed) {
            *freed += keeper.prune(store).bytes;
        }
        prune_local(&site, &calendar, now + 10.minutes());
    }

    let last = start + (24 * (nights - 1)).hours();
    for store in &stores {
        keeper.assert_accounted_for(store);
        let stored = keeper.proved(store);
        let open: BTreeSet<GenerationId> = stored
            .iter()
            .filter(|one| one.class == Class::Rolling && one.chain == stored_chain(&stored))
            .map(|one| one.generation.clone())
            .collect();
        let mut expected = expected(&rolling, &calendar);
        expected.extend(open);
        expected.extend(archival.iter().map(|(id, _)| id.clone()));
        assert_eq!(names_of(&stored), expected);
        assert!(keeper.plan(store).is_empty(), "planning again changes nothing");
    }
    for (which, store) in stores.iter().enumerate() {
        site.store = for_agent(store);
        assert_all_come_back(&site, &names_of(&keeper.proved(store)), &trees);
        let objects = keeper.objects(store);
        let used: usize = objects.values().map(Vec::len).sum();
        eprint!("store {which}: {} bytes sent, {} copied, {} freed, ", sent[which], copied[which], freed[which]);
        eprintln!("{used} used by {} objects", objects.len());
    }
    let local = agent::staging::generations(&site.world.path("staging")).unwrap();
    assert!((10..=20).contains(&local.len()) || nights < 14, "{} local generations", local.len());
    assert!(copied[1] == 0 && (nights < 14 || copied[0] > 0 && sent[0] < sent[1]), "{sent:?} sent, {copied:?} copied");
    eprintln!("{nights} nights until {last}: {} local generations", local.len());
}

fn assert_all_come_back(site: &Site, generations: &BTreeSet<GenerationId>, trees: &BTreeMap<GenerationId, Tree>) {
    for generation in generations {
        let to = tempfile::tempdir_in(site.world.path(".")).unwrap();
        let report = site.restore(generation, to.path()).unwrap();
        assert!(report.lost.is_empty(), "{report:?}");
        trees[generation].assert_equals(&Tree::read(&to.path().join("docs")));
    }
}

/// Letters come and go, and pages of a ledger change.
fn one_day(site: &Site, rng: &mut Rng, night: i64) {
    let ledger = site.source().join("ledger");
    let mut pages = std::fs::read(&ledger).unwrap_or_else(|_| rng.bytes(200_000));
    let at = usize::try_from(night).unwrap() * 997 % 190_000;
    pages[at..at + 4096].copy_from_slice(&rng.bytes(4096));
    pages.extend(rng.bytes(200));
    std::fs::write(ledger, pages).unwrap();
    std::fs::write(site.source().join(format!("letter-{}", night % 20)), rng.bytes(2000)).unwrap();
}

/// The chain that can still grow: that of the newest.
fn stored_chain(stored: &[agent::catalog::Stored]) -> GenerationId {
    stored.iter().rfind(|one| one.class == Class::Rolling).unwrap().chain.clone()
}

/// The rules once more, in other words: a mistake would have to be made twice.
fn expected(rolling: &[(GenerationId, Timestamp)], calendar: &Calendar) -> BTreeSet<GenerationId> {
    let mut expected = BTreeSet::new();
    let mut newest_of = |count: usize, name: &dyn Fn(Date) -> String| {
        let mut seen: Vec<String> = Vec::new();
        for (id, at) in rolling.iter().rev() {
            let name = name(calendar.date_of(*at));
            if !seen.contains(&name) {
                seen.push(name);
                if seen.len() <= count {
                    expected.insert(id.clone());
                }
            }
        }
    };
    newest_of(7, &|day| day.to_string());
    newest_of(4, &|day| format!("{}-{}", day.iso_week_date().year(), day.iso_week_date().week()));
    newest_of(12, &|day| day.strftime("%Y-%m").to_string());
    expected
}

/// The file system's clock cannot be simulated: the local generation gets its time by hand.
fn dated(site: &Site, id: &GenerationId, now: Timestamp) {
    let path = site.world.path("staging").join(id.as_str()).join("generation.json");
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(now.into())).unwrap();
}

fn prune_local(site: &Site, calendar: &Calendar, now: Timestamp) {
    let staging = Staging::open(&site.world.path("staging"), now).unwrap();
    let state = agent::state::State::open(&site.world.path("state"), &site.name).unwrap();
    let mut needed: BTreeMap<GenerationId, Vec<String>> = BTreeMap::new();
    for store in ["nas", "usb"] {
        let chain = state.open_chain(&store.parse().unwrap()).unwrap();
        needed.entry(chain.unwrap().origin).or_default().push(store.to_owned());
    }
    let generations = staging.generations().unwrap();
    let plan = local::plan(&generations, &LOCAL, &LIMITS, calendar, &Holds::default(), &needed, now);
    assert!(plan.brakes.is_empty(), "{:?}", plan.brakes);
    local::execute(&staging, &plan).unwrap();
}
