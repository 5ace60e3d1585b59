//! A bad sector, a right that is missing, a link in the place of an object: what cannot be read is named, and stops nothing but
//! itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::catalog::{self, CatalogError, Trust};
use agent::generation::Class;
use agent::ids::GenerationId;
use agent::retention::Rules;
use agent::sign::SiteKey;
use jiff::{Timestamp, ToSpan as _};
use providers::faulty::{Call, Fault, Faulty};
use providers::{Access, ErrorKind, MemoryStore, ObjectStore, Retry};
use tests::Rng;
use tests::engine::Site;
use tests::machine::Machine;
use tests::nights::{Keeper, NO_RULES, for_agent, names_of, set_clocks};
use tests::tree::Tree;

/// The document of a generation that is a chain of its own.
fn document(machine: &Machine, id: &GenerationId) -> PathBuf {
    machine.world.path(format!("store/townhall/rolling/{id}/{id}.json"))
}

/// Nobody can read it from now on, whatever his rights.
fn spoil(path: &Path) {
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
}

/// The newest that can be read, and its number.
fn newest(machine: &Machine) -> (GenerationId, u64) {
    let listed = machine.world.offsite(["--json", "list", "--from", "far"]).expect(4).json();
    let all = listed["generations"].as_array().unwrap().iter();
    let numbered = all.filter_map(|one| Some((one["places"][0]["sequence"].as_u64()?, one["id"].as_str()?)));
    let (number, id) = numbered.max().unwrap();
    (id.parse().unwrap(), number)
}

#[test]
fn one_generation_that_cannot_be_read_is_named_and_passed_over() {
    let machine = Machine::in_memory();
    machine.configure(1, "");
    let mut days = Vec::new();
    for day in 0..3 {
        std::fs::write(machine.source().join("ledger"), format!("of day {day}")).unwrap();
        machine.backup(&[]).expect(0);
        days.push((machine.list().pop().unwrap().generation, Tree::read(&machine.source())));
    }
    let ids: Vec<&str> = days.iter().map(|(id, _)| id.as_str()).collect();
    spoil(&document(&machine, &days[1].0));

    let listed = machine.world.offsite(["list"]).expect(4);
    assert!(listed.stdout.contains(&format!("UNREADABLE: {} in far: ", ids[1])), "{listed}");
    assert!(ids.iter().all(|id| listed.stdout.contains(id)) && !listed.stdout.contains("REFUSED"), "{listed}");
    for (id, tree) in [&days[0], &days[2]] {
        let words = ["restore", id.as_str(), "--to", id.as_str(), "--identity", "identity.txt"];
        machine.world.offsite(words).expect(0);
        tree.assert_equals(&Tree::read(&machine.world.path(id.as_str()).join("docs")));
    }
    let wanted = ["restore", ids[1], "--to", "back", "--identity", "identity.txt"];
    assert!(machine.world.offsite(wanted).expect(5).stderr.contains("makes no sense"));

    let verified = machine.world.offsite(["--json", "verify"]).expect(5).json();
    let findings = verified["stores"][0]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{verified}");
    assert_eq!(findings[0]["harms"][0], ids[1], "{verified}");
    assert_eq!(verified["stores"][0]["packs"], 2, "the others were not read: {verified}");

    let plan = machine.world.offsite(["--json", "prune", "--dry-run"]).expect(0).json();
    let brakes = plan["places"][0]["brakes"].as_array().unwrap();
    assert!(brakes.is_empty(), "{plan}");

    // A machine that forgot everything goes on from the newest there is, whether that can be read or not.
    machine.backup(&[]).expect(0);
    let (newest, number) = newest(&machine);
    assert_eq!(number, 4);
    spoil(&document(&machine, &newest));
    let latest = ["restore", "latest", "--to", "latest", "--identity", "identity.txt"];
    let outdated = machine.world.offsite(latest).expect(4);
    assert!(outdated.stderr.contains(newest.as_str()) && outdated.stderr.contains(ids[2]), "{outdated}");
    std::fs::remove_dir_all(machine.world.path("state")).unwrap();
    machine.backup(&[]).expect(0);
    assert_eq!(self::newest(&machine).1, 5);
}

/// Somebody who can write to the store has removed all of it, the heartbeat too.
#[test]
fn a_store_that_was_emptied_is_not_taken_for_a_new_one() {
    let machine = Machine::in_memory();
    std::fs::write(machine.source().join("ledger"), "of the day").unwrap();
    machine.backup(&[]).expect(0);
    let (stored, documents) = (machine.list().pop().unwrap().generation, Tree::read(&machine.source()));
    std::fs::remove_dir_all(machine.world.path("store/townhall")).unwrap();
    let listed = machine.world.offsite(["list"]).expect(5);
    assert!(listed.stdout.contains(&format!("MISSING from far: this machine stored {stored}")), "{listed}");
    let listed = machine.world.offsite(["--json", "list", "--from", "far"]).expect(5).json();
    assert_eq!(listed["heartbeats"][0]["missing"], stored.as_str(), "{listed}");
    let verified = machine.world.offsite(["verify"]).expect(5);
    assert!(verified.stderr.contains(stored.as_str()), "{verified}");
    // A new machine, and this one after its next run, know of nothing that is missing.
    machine.backup(&[]).expect(0);
    machine.world.offsite(["list"]).expect(0);
    let newest = machine.list().pop().unwrap().generation;
    documents.assert_equals(&machine.restored(&newest));
}

/// Documents whose keys end like this cannot be read, and the store says that it is not there at the moment.
fn failing(store: &MemoryStore, end: &str, kind: ErrorKind) -> Arc<dyn ObjectStore> {
    let end = end.to_owned();
    Arc::new(Faulty::new(Arc::new(store.clone()), move |call: &Call<'_>| {
        let hit = call.method == "get" && call.about.ends_with(&end);
        if hit { Fault::Refused(kind, Retry::Never) } else { Fault::None }
    }))
}

#[test]
fn what_cannot_be_read_is_kept_and_the_rest_goes_by_the_rules() {
    let mut site = Site::new();
    let mut now: Timestamp = "2026-11-01T23:00:00Z".parse().unwrap();
    let store = MemoryStore::new(5, Access::Keeper, now);
    (site.store, site.chain_generations) = (for_agent(&store), 1);
    let mut ids = Vec::new();
    let mut rng = Rng::new(4);
    for _ in 0..8 {
        set_clocks(&[&store], now);
        std::fs::write(site.source().join("ledger"), rng.bytes(20_000)).unwrap();
        ids.push(site.backup(Class::Rolling));
        now += 24.hours();
    }
    set_clocks(&[&store], now);
    let key = SiteKey::load(&site.world.path("site.key")).unwrap();
    let keeper = Keeper::new(&site.name, key, Rules { last: 3, ..NO_RULES });
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::Corrupt] {
        let store = keeper.copy(&store, now);
        let broken = failing(&store, &format!("{}.json", ids[2]), kind);
        let plan = keeper.plan(broken.as_ref());
        assert_eq!(plan.brakes, [], "{kind:?}");
        keeper.execute(broken.as_ref(), &plan).unwrap();
        let left = names_of(&keeper.proved(&store));
        assert_eq!(left.into_iter().collect::<Vec<_>>(), [&ids[2], &ids[5], &ids[6], &ids[7]].map(Clone::clone));
    }
    // What somebody hid is missing all the same: one that cannot be read stands for one and no more.
    let store = keeper.copy(&store, now);
    let hidden = agent::format::names::ChainFolder::new(&site.name, Class::Rolling, &ids[4]).unwrap();
    let signature = hidden.object(&ids[4], agent::format::names::SIGNATURE).unwrap();
    site.block_on(store.deletion().unwrap().delete(&signature.into())).unwrap();
    let broken = failing(&store, &format!("{}.json", ids[2]), ErrorKind::Unavailable);
    assert_eq!(keeper.plan(broken.as_ref()).brakes.iter().map(|brake| brake.name()).collect::<Vec<_>>(), ["gap"]);
}

#[test]
fn where_nothing_can_be_read_it_is_the_store_that_cannot() {
    let mut site = Site::in_memory();
    site.chain_generations = 1;
    for day in 0..3 {
        std::fs::write(site.source().join("ledger"), format!("of day {day}")).unwrap();
        site.backup(Class::Rolling);
    }
    let list = |site: &Site, plan: fn(&Call<'_>) -> Fault| {
        let store = Faulty::new(Arc::clone(&site.store), plan);
        site.block_on(catalog::list(&store, &site.name, Some(site.public())))
    };
    let denied = list(&site, |call| match call.method {
        "get" => Fault::Refused(ErrorKind::Denied, Retry::Never),
        _ => Fault::None,
    });
    assert!(matches!(denied, Err(CatalogError::Unreadable { count: 3, .. })), "{denied:?}");
    let gone = list(&site, |call| match call.method {
        "list" => Fault::None,
        _ => Fault::Refused(ErrorKind::Unavailable, Retry::Never),
    });
    assert!(matches!(gone, Err(CatalogError::Store(_))), "{gone:?}");
    let one = list(&site, |call| match (call.method, call.earlier) {
        ("get", 1..3) => Fault::Refused(ErrorKind::Unavailable, Retry::Never),
        _ => Fault::None,
    });
    let unreadable = |one: &catalog::Stored| matches!(one.trust, Trust::Unreadable(_));
    assert!((1..3).contains(&one.unwrap().iter().filter(|one| unreadable(one)).count()));
}
