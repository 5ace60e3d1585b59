//! Killed at any moment, a run is finished by the next one: nothing is lost, sent wrongly, committed twice or left over.
//!
//! Every durable change of the program passes one place, which can let it die just before and just after: the loops here
//! find all moments by themselves, and end with the run that nothing disturbed.

use std::collections::BTreeSet;
use std::path::Path;

use tests::machine::Machine;
use tests::servers::seaweedfs;
use tests::tree::Tree;
use tests::{Outcome, Rng, office};

/// The fact of the first run only.
const FIRST: [&str; 1] = ["the state was made"];
/// Facts of every run; the last one when a chain is full.
const EVERY: [&str; 7] = [
    "a run was begun",
    "a sealed pack was recorded",
    "a stored pack was recorded",
    "the commit was prepared",
    "a stored document was recorded",
    "the commit was recorded",
    "a chain was closed",
];
/// Where the store takes parts.
const PARTS: [&str; 1] = ["an upload was recorded"];
/// When an earlier generation cannot be finished.
const GIVING_UP: [&str; 1] = ["a run was abandoned"];

/// When packs of the chain before cannot be copied.
const NOT_COPYING: [&str; 1] = ["packs that are not carried were recorded"];

/// When a run has told what it found; `reports` dies there.
const TELLING: [&str; 1] = ["what was told was recorded"];

/// What prunes remember; `retention` dies there.
const PRUNING: [&str; 1] = ["a prune was recorded"];

/// A fact that somebody adds needs a test here that dies beside it.
#[test]
fn every_fact_of_the_program_is_died_at() {
    let mut facts = BTreeSet::new();
    let state = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/state");
    let files = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for file in files.chain([state.with_extension("rs")]) {
        let text = std::fs::read_to_string(file).unwrap();
        for call in text.split(".change(").skip(1) {
            facts.insert(call.trim_start().strip_prefix('"').unwrap().split('"').next().unwrap().to_owned());
        }
    }
    let known = [&FIRST[..], &EVERY, &PARTS, &GIVING_UP, &NOT_COPYING, &TELLING, &PRUNING].concat();
    assert_eq!(facts, known.into_iter().map(str::to_owned).collect());
}

#[test]
fn the_first_run_of_all() {
    let mut died = BTreeSet::new();
    for moment in 1..=2 * FIRST.len() {
        let machine = Machine::new();
        std::fs::write(machine.source().join("document"), "of the first day").unwrap();
        let outcome = machine.backup(&[]).env("OFFSITE_DIE_AT", moment.to_string()).run();
        died.insert(fact(&outcome));
        let new = machine.backup(&[]).expect(0).json()["generation"]["id"].as_str().unwrap().parse().unwrap();
        Tree::read(&machine.source()).assert_equals(&machine.restored(&new));
        machine.assert_at_rest(false);
    }
    assert_eq!(died, both_sides(&FIRST));
}

#[test]
fn fulls() {
    let machine = Machine::new();
    machine.configure(1, "");
    machine.backup(&[]).expect(0);
    let died = die_everywhere(&machine, &[], |day, rng| replace(&machine, day, rng, 2_300_000));
    assert_eq!(died, both_sides(&EVERY));
}

/// One pack is damaged each time, so that its copy is not what it should be. What comes after the first sealed pack is as in
/// any other run.
#[test]
fn fulls_that_are_made_in_the_store() {
    let machine = Machine::new();
    machine.configure(1, "");
    let mut rng = Rng::new(6);
    let mut database = rng.bytes(2_200_000);
    let (mut died, mut moment, mut rounds) = (BTreeSet::new(), 0, 0);
    // The old chain is closed by the fact that begins the new one.
    let wanted =
        both_sides(&["a run was begun", "a stored pack was recorded", NOT_COPYING[0], "a sealed pack was recorded"]);
    while !wanted.is_subset(&died) {
        moment += 1;
        std::fs::write(machine.source().join("database"), &database).unwrap();
        machine.backup(&["--full"]).expect(0);
        let newest = machine.list().pop().unwrap();
        let packs = machine.world.path("store/townhall/rolling").join(newest.chain.as_str()).join("packs");
        let pack = office::paths(&packs).swap_remove(1);
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&pack, bytes).unwrap();

        database[700..][..100].copy_from_slice(&rng.bytes(100));
        std::fs::write(machine.source().join("database"), &database).unwrap();
        let first = Tree::read(&machine.source());
        let outcome = machine.backup(&[]).env("OFFSITE_DIE_AT", moment.to_string()).run();
        if outcome.code == Some(0) {
            // Sealing and storing go side by side, so runs differ.
            (moment, rounds) = (0, rounds + 1);
            assert!(rounds < 5, "{died:?}");
            continue;
        }
        let next = machine.backup(&[]).expect(0).json();
        assert_carried(&machine);
        let new = next["generation"]["id"].as_str().unwrap().parse().unwrap();
        first.assert_equals(&machine.restored(&new));
        machine.assert_at_rest(true);
        died.insert(fact(&outcome));
    }
}

/// The same where a server makes the copies.
#[test]
fn fulls_that_a_server_makes() {
    let server = seaweedfs();
    let bucket = server.bucket("crash-copies");
    let machine = Machine::with_bucket(&server.url(), &bucket.name);
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store.replace("24 MiB", "1 MiB"));
    machine.configure(1, "");
    let mut rng = Rng::new(7);
    let mut database = rng.bytes(2_300_000);
    std::fs::write(machine.source().join("database"), &database).unwrap();
    machine.backup(&[]).expect(0);
    let mut died = BTreeSet::new();
    // Up to the second copy, before a byte is sealed.
    for moment in 1..=6 {
        database[700..][..100].copy_from_slice(&rng.bytes(100));
        std::fs::write(machine.source().join("database"), &database).unwrap();
        let first = Tree::read(&machine.source());
        let outcome = machine.backup(&[]).env("OFFSITE_DIE_AT", moment.to_string()).run();
        died.insert(fact(&outcome));
        let next = machine.backup(&[]).expect(0).json();
        assert_carried(&machine);
        let new = next["generation"]["id"].as_str().unwrap().parse().unwrap();
        first.assert_equals(&machine.restored(&new));
        machine.assert_at_rest(true);
    }
    assert_eq!(died, both_sides(&["a run was begun", "a stored pack was recorded"]));
    machine.verify();
}

/// The newest full is made of packs of an earlier chain.
#[track_caller]
fn assert_carried(machine: &Machine) {
    let newest = machine.list().pop().unwrap();
    let carried = newest.commit.unwrap().carried_bytes;
    assert!(carried.is_some_and(|bytes| bytes > 1 << 20), "{carried:?}");
}

#[test]
fn incrementals() {
    let machine = Machine::new();
    let mut rng = Rng::new(5);
    std::fs::write(machine.source().join("database"), rng.bytes(3 << 20)).unwrap();
    machine.backup(&[]).expect(0);
    let died = die_everywhere(&machine, &[], |day, rng| {
        // A page of each MiB changes, which makes patches, and something is new.
        let path = machine.source().join("database");
        let mut database = std::fs::read(&path).unwrap();
        for at in (0..database.len()).step_by(1 << 20) {
            database[at + 700 * day..][..100].copy_from_slice(&rng.bytes(100));
        }
        std::fs::write(path, database).unwrap();
        replace(&machine, day, rng, 1_200_000);
    });
    let facts: Vec<_> = EVERY.into_iter().filter(|fact| *fact != "a chain was closed").collect();
    assert_eq!(died, both_sides(&facts));
}

#[test]
fn archival_generations() {
    let machine = Machine::new();
    machine.backup(&[]).expect(0);
    let died = die_everywhere(&machine, &["--archive"], |day, rng| replace(&machine, day, rng, 1_200_000));
    let facts: Vec<_> = EVERY.into_iter().filter(|fact| *fact != "a chain was closed").collect();
    assert_eq!(died, both_sides(&facts));
}

#[test]
fn packs_in_parts() {
    let server = seaweedfs();
    let bucket = server.bucket("crash");
    let machine = Machine::with_bucket(&server.url(), &bucket.name);
    machine.backup(&[]).expect(0);
    let died = die_everywhere(&machine, &[], |day, rng| replace(&machine, day, rng, 6 << 20));
    let facts: Vec<_> = EVERY.into_iter().filter(|fact| *fact != "a chain was closed").collect();
    assert_eq!(died, both_sides(&[&facts[..], &PARTS].concat()));
}

#[test]
fn generations_whose_staged_copy_is_gone() {
    let machine = Machine::new();
    let mut rng = Rng::new(9);
    for moment in 1.. {
        replace(&machine, moment, &mut rng, 2_300_000);
        // Far enough to have sent something.
        let half = machine.backup(&[]).env("OFFSITE_DIE_AT", "9").run();
        assert!(half.code.is_none(), "{half}");
        for generation in machine.local() {
            remove_local(&machine, generation.as_str());
        }
        let died = machine.backup(&[]).env("OFFSITE_DIE_AT", moment.to_string()).run();
        let next = machine.backup(&[]).run();
        assert!(matches!(next.code, Some(0 | 4)), "{next}");
        let new = next.json()["generation"]["id"].as_str().unwrap().parse().unwrap();
        Tree::read(&machine.source()).assert_equals(&machine.restored(&new));
        machine.verify();
        machine.assert_at_rest(true);
        if !GIVING_UP.contains(&fact(&died).1.as_str()) {
            assert!(moment > 2, "nothing was given up\n{died}");
            return;
        }
    }
}

/// Lets the program die at every moment in turn, each time on another day; the next run has to make all good. Answers at
/// which sides of which facts it died.
fn die_everywhere(
    machine: &Machine,
    arguments: &[&str],
    mut one_day: impl FnMut(usize, &mut Rng),
) -> BTreeSet<(String, String)> {
    let mut rng = Rng::new(2);
    let mut died = BTreeSet::new();
    for moment in 1.. {
        one_day(moment, &mut rng);
        let before = machine.local();
        let first = Tree::read(&machine.source());
        let outcome = machine.backup(arguments).env("OFFSITE_DIE_AT", moment.to_string()).run();
        if outcome.code == Some(0) {
            break;
        }
        assert_eq!(outcome.code, None, "{outcome}");
        let (side, fact) = fact(&outcome);
        let captured = machine.local().difference(&before).next().cloned();

        std::fs::write(machine.source().join("of-the-next-day"), rng.bytes(1000)).unwrap();
        let second = Tree::read(&machine.source());
        let next = machine.backup(arguments).expect(0).json();
        let new = next["generation"]["id"].as_str().unwrap().parse().unwrap();
        let because = format!("it died {side}: {fact}");
        let begun = fact != "a chain was closed" && (side.as_str(), fact.as_str()) != ("before", "a run was begun");
        let stored: Vec<_> = machine.list().into_iter().map(|stored| stored.generation).collect();
        if let Some(captured) = captured {
            assert_eq!(stored.contains(&captured), begun, "{because}");
            if begun {
                first.assert_equals(&machine.restored(&captured));
            }
        }
        second.assert_equals(&machine.restored(&new));
        // A pack may have been carried over for something that has changed since.
        machine.assert_at_rest(machine.list().pop().unwrap().commit.unwrap().carried_bytes.is_some());
        died.insert((side, fact));
    }
    machine.verify();
    died
}

/// Beside which fact a killed run died, and on which side of it.
#[track_caller]
fn fact(outcome: &Outcome) -> (String, String) {
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("died "));
    let (side, fact) = line.and_then(|line| line.split_once(": ")).unwrap_or_else(|| panic!("{outcome}"));
    (side.to_owned(), fact.to_owned())
}

fn both_sides(facts: &[&str]) -> BTreeSet<(String, String)> {
    let side = |side: &str| facts.iter().map(|fact| (side.to_owned(), (*fact).to_owned())).collect::<Vec<_>>();
    [side("before"), side("after")].concat().into_iter().collect()
}

/// The documents of another day: yesterday's are gone.
fn replace(machine: &Machine, day: usize, rng: &mut Rng, bytes: usize) {
    let _yesterday = std::fs::remove_file(machine.source().join(format!("day-{}", day - 1)));
    std::fs::write(machine.source().join(format!("day-{day}")), rng.bytes(bytes)).unwrap();
}

/// Staged copies are read-only, also for whoever made them.
fn remove_local(machine: &Machine, generation: &str) {
    let folder = machine.world.path("staging").join(generation);
    let removed =
        std::process::Command::new("sh").args(["-c", "chmod -R u+w \"$1\" && rm -r \"$1\"", "sh"]).arg(folder).status();
    assert!(removed.unwrap().success());
}
