//! Pruning beside everything else: killed at any moment, beside a run, beside a restore. What is kept is never harmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use agent::generation::Class;
use agent::ids::GenerationId;
use agent::retention::Rules;
use agent::sign::SiteKey;
use jiff::{Timestamp, ToSpan as _};
use providers::faulty::{Call, Fault, Faulty};
use providers::{Access, ErrorKind, MemoryStore, ObjectStore, Retry};
use tests::Rng;
use tests::engine::Site;
use tests::nights::{Keeper, NO_RULES, for_agent, names_of, set_clocks};
use tests::tree::Tree;

const RULES: Rules = Rules { last: 4, weekly: 3, ..NO_RULES };

/// A site with its store in memory, its retention, and the time of its next night.
struct Office {
    site: Site,
    store: MemoryStore,
    keeper: Arc<Keeper>,
    now: Timestamp,
    rng: Rng,
    days: Vec<(GenerationId, Tree)>,
}

impl Office {
    fn new(chain_generations: u32) -> Self {
        let mut site = Site::new();
        let now: Timestamp = "2026-11-01T23:00:00Z".parse().unwrap();
        let store = MemoryStore::new(5, Access::Keeper, now);
        site.store = for_agent(&store);
        site.chain_generations = chain_generations;
        let key = SiteKey::load(&site.world.path("site.key")).unwrap();
        let keeper = Arc::new(Keeper::new(&site.name, key, RULES));
        Self { site, store, keeper, now, rng: Rng::new(3), days: Vec::new() }
    }

    /// Something changes, and the next night comes.
    fn day(&mut self) {
        set_clocks(&[&self.store], self.now);
        std::fs::write(self.site.source().join("ledger"), self.rng.bytes(20_000)).unwrap();
        std::fs::write(self.site.source().join(format!("letter-{}", self.days.len() % 5)), self.rng.bytes(3_000))
            .unwrap();
    }

    fn night(&mut self, class: Class) {
        self.day();
        let lifetime = Some("10 days".parse().unwrap()).filter(|_| class == Class::Archival);
        let report = self.site.try_backup_kept_for(class, lifetime);
        assert!(report.stores.iter().all(|outcome| outcome.result.is_ok()), "{report:?}");
        self.days.push((report.generation.unwrap().0, Tree::read(&self.site.source())));
        self.now += 24.hours();
        set_clocks(&[&self.store], self.now);
    }

    /// Restores from `store` and compares.
    #[track_caller]
    fn assert_restores(&mut self, store: Arc<dyn ObjectStore>, generation: &GenerationId) {
        let held = std::mem::replace(&mut self.site.store, store);
        let to = tempfile::tempdir_in(self.site.world.path(".")).unwrap();
        let report = self.site.restore(generation, to.path()).unwrap();
        self.site.store = held;
        assert!(report.lost.is_empty() && report.bad_packs.is_empty(), "{report:?}");
        let (_, tree) = self.days.iter().find(|(id, _)| id == generation).unwrap();
        tree.assert_equals(&Tree::read(&to.path().join("docs")));
    }
}

/// Objects by name, without the record of what was pruned.
fn rest(keeper: &Keeper, store: &dyn ObjectStore) -> BTreeSet<String> {
    keeper.objects(store).into_keys().filter(|key| !key.contains("/pruned/")).collect()
}

#[test]
fn killed_after_any_step_it_is_finished_by_the_next_and_nothing_kept_is_harmed() {
    let mut office = Office::new(3);
    for night in 0..24 {
        office.night(if night == 4 { Class::Archival } else { Class::Rolling });
    }
    let keeper = Arc::clone(&office.keeper);
    let whole = keeper.copy(&office.store, office.now);
    let plan = keeper.plan(&whole);
    let kept: BTreeSet<GenerationId> =
        plan.generations.iter().filter(|one| !one.verdict.expires()).map(|one| one.subject.id.clone()).collect();
    assert_eq!(
        (plan.brakes.as_slice(), kept.len() > 4, plan.expired().count() > 10),
        (&[][..], true, true),
        "{kept:?}"
    );
    // Some chains go as a whole, and of some a part stays.
    let freed = keeper.prune(&whole);
    assert_eq!((freed.objects as usize, freed.generations as usize), (plan.removals.len(), plan.expired().count()));
    let done = rest(&keeper, &whole);
    keeper.assert_accounted_for(&whole);
    assert!(keeper.plan(&whole).is_empty(), "planning again changes nothing");

    for alive in 0.. {
        let store = keeper.copy(&office.store, office.now);
        let dying = Faulty::new(Arc::new(store.clone()), move |call: &Call<'_>| {
            if call.earlier < alive { Fault::None } else { Fault::Refused(ErrorKind::Denied, Retry::Never) }
        });
        let plan = keeper.plan(&store);
        let ended = keeper.execute(&dying, &plan);
        let left = names_of(&keeper.proved(&store));
        assert!(kept.is_subset(&left), "after {alive} steps {:?} are gone", kept.difference(&left));
        keeper.prune(&store);
        assert_eq!(rest(&keeper, &store), done, "after {alive} steps");
        if ended.is_ok() {
            assert!(alive as usize > plan.removals.len(), "it was never killed");
            break;
        }
    }
    for generation in &kept {
        office.assert_restores(for_agent(&whole), generation);
    }
}

#[test]
fn a_run_beside_it_is_not_disturbed_at_any_of_its_steps() {
    let mut office = Office::new(3);
    for _ in 0..12 {
        office.night(Class::Rolling);
    }
    let own = for_agent(&office.store);
    for step in 0.. {
        office.day();
        // The keeper looks, plans and deletes while this call of the run waits.
        let pruned = Arc::new(AtomicBool::new(false));
        let (keeper, store, done) = (Arc::clone(&office.keeper), office.store.clone(), Arc::clone(&pruned));
        let now = office.now;
        office.site.store = Arc::new(Faulty::new(Arc::clone(&own), move |call: &Call<'_>| {
            if call.earlier == step {
                std::thread::scope(|scope| {
                    let beside = scope.spawn(|| {
                        agent::clock::simulate(Some(now));
                        keeper.prune(&store)
                    });
                    beside.join().unwrap();
                });
                done.store(true, Ordering::SeqCst);
            }
            Fault::None
        }));
        office.night(Class::Rolling);
        let last = office.days.last().unwrap().0.clone();
        office.site.store = Arc::clone(&own);
        let left = names_of(&office.keeper.proved(&office.store));
        assert!(left.contains(&last) && left.len() < 20, "step {step}: {left:?}");
        office.assert_restores(Arc::clone(&own), &last);
        if !pruned.load(Ordering::SeqCst) {
            assert!(step > 10, "a run has more than {step} steps");
            break;
        }
    }
    office.keeper.prune(&office.store);
    office.keeper.assert_accounted_for(&office.store);
}

#[test]
fn a_restore_beside_it_is_not_disturbed_at_any_of_its_steps() {
    let mut office = Office::new(3);
    for _ in 0..16 {
        office.night(Class::Rolling);
    }
    let keeper = Arc::clone(&office.keeper);
    let plan = keeper.plan(&office.store);
    // The oldest that stays: what goes lies around it, in its own chain too.
    let kept = plan.generations.iter().find(|one| !one.verdict.expires()).unwrap().subject.clone();
    assert!(plan.expired().any(|one| one.subject.chain == kept.chain), "{plan:?}");
    let steps = Arc::new(AtomicU64::new(0));
    for step in 0.. {
        let store = keeper.copy(&office.store, office.now);
        let (keeper, beside, now, seen) = (Arc::clone(&keeper), store.clone(), office.now, Arc::clone(&steps));
        let reading = Faulty::new(for_agent(&store), move |call: &Call<'_>| {
            seen.store(call.earlier, Ordering::SeqCst);
            if call.earlier == step {
                std::thread::scope(|scope| {
                    let beside = scope.spawn(|| {
                        agent::clock::simulate(Some(now));
                        keeper.prune(&beside)
                    });
                    assert!(beside.join().unwrap().generations > 0);
                });
            }
            Fault::None
        });
        // Finding the generation is part of it.
        office.assert_restores(Arc::new(reading), &kept.id);
        if steps.load(Ordering::SeqCst) < step {
            assert!(step > 20, "a restore has more than {step} steps");
            break;
        }
    }
}
