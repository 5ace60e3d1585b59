//! A disk that is full stops a run with a sentence that says which one, takes nothing away, and costs nothing but time:
//! with room again, the next run goes on.

use std::path::Path;
use std::time::Duration;

use tests::disk::Disk;
use tests::machine::Machine;
use tests::tree::Tree;
use tests::{Outcome, Rng, wait_until};

const MIB: u64 = 1 << 20;

#[test]
fn staging() {
    let machine = Machine::new();
    let disk = Disk::mount(&machine.world.path("staging"), 8 * MIB);
    let mut rng = Rng::new(1);
    std::fs::write(machine.source().join("document"), rng.bytes(2 << 20)).unwrap();
    machine.backup(&[]).expect(0);
    let before = (machine.local(), machine.objects());

    std::fs::write(machine.source().join("large"), rng.bytes(10 << 20)).unwrap();
    // Before anything is written, `check` and `backup` say what lacks.
    for verb in ["check", "backup"] {
        let full = machine.world.offsite(["--json", verb]).expect(1);
        assert_says(&full, &["staging: the disk of", "has no room for a generation: it takes 1"]);
        let problems = full.json()["error"]["problems"].clone();
        assert_eq!(problems.as_array().map(Vec::len), Some(1), "{full}");
        assert_eq!(problems[0]["key"], "staging", "{full}");
    }
    assert_eq!((machine.local(), machine.objects()), before);

    disk.resize(32 * MIB);
    goes_on(&machine, 0);
}

/// What has not changed is linked, and takes no room; holes do not either.
#[test]
fn staging_with_room_for_what_is_new() {
    let machine = Machine::new();
    let _disk = Disk::mount(&machine.world.path("staging"), 8 * MIB);
    let mut rng = Rng::new(2);
    std::fs::write(machine.source().join("document"), rng.bytes(5 << 20)).unwrap();
    std::fs::File::create(machine.source().join("hole")).unwrap().set_len(1 << 30).unwrap();
    // A change of the last moment could be followed by one that leaves no trace, so it does not count as known.
    let changed = || machine.source().join("document").metadata().unwrap().modified().unwrap().elapsed();
    wait_until(Duration::from_secs(60), "the document to be a second old", || {
        changed().unwrap() > Duration::from_secs(1)
    });
    machine.backup(&[]).expect(0);
    std::fs::write(machine.source().join("new"), rng.bytes(1 << 20)).unwrap();
    goes_on(&machine, 0);
}

/// What a program will write is not known before.
#[test]
fn staging_while_it_is_written() {
    let machine = Machine::new();
    let disk = Disk::mount(&machine.world.path("staging"), 8 * MIB);
    let mut rng = Rng::new(1);
    std::fs::write(machine.source().join("document"), rng.bytes(2 << 20)).unwrap();
    machine.backup(&[]).expect(0);
    let before = (machine.local(), machine.objects());

    std::fs::write(machine.source().join("new"), rng.bytes(2 << 20)).unwrap();
    let command = "command = [\"/bin/sh\", \"-c\", \"head -c 5M /dev/urandom > {staging}/dump\"]\n";
    machine.configure(100, &format!("[[source]]\nname = \"dump\"\ntype = \"command\"\n{command}"));
    let full = machine.backup(&[]).expect(1);
    assert_says(&full, &["staging", "has no room", "free some space"]);
    assert_eq!((machine.local(), machine.objects()), before);
    machine.assert_at_rest(false);

    disk.resize(32 * MIB);
    goes_on(&machine, 0);
}

#[test]
fn staging_while_its_copy_is_sealed() {
    let machine = Machine::new();
    let disk = Disk::mount(&machine.world.path("staging"), 8 * MIB);
    std::fs::write(machine.source().join("document"), Rng::new(1).bytes(2 << 20)).unwrap();
    // The copy is made; nothing is sealed.
    machine.backup(&[]).env("OFFSITE_DIE_AT", "4").run();
    disk.fill(0);
    let full = machine.backup(&[]).expect(1);
    assert_says(&full, &["full"]);
    disk.make_room();
    goes_on(&machine, 1);
}

/// Something far too large holds up nothing after it for ever.
#[test]
fn a_store() {
    let machine = Machine::new();
    let _disk = Disk::mount(&machine.world.path("store"), 8 * MIB);
    let mut rng = Rng::new(1);
    std::fs::write(machine.source().join("document"), rng.bytes(100_000)).unwrap();
    machine.backup(&[]).expect(0);
    std::fs::write(machine.source().join("enormous"), rng.bytes(20 << 20)).unwrap();
    assert_says(&machine.backup(&[]).expect(4), &["the store is full"]);
    // As long as it is there, a newer one is no better.
    let again = machine.backup(&[]).expect(4).json();
    let stored = |report: &serde_json::Value| report["stores"][0]["stored"].as_bool().unwrap();
    assert!(!stored(&again), "{again}");

    std::fs::remove_file(machine.source().join("enormous")).unwrap();
    std::fs::write(machine.source().join("document"), rng.bytes(50_000)).unwrap();
    let outcome = machine.backup(&[]).expect(4);
    assert_says(&outcome, &["it was given up for a newer generation"]);
    assert!(stored(&outcome.json()), "{outcome}");
    assert!(stored(&machine.backup(&[]).expect(0).json()));
    let newest = machine.list().pop().unwrap().generation;
    Tree::read(&machine.source()).assert_equals(&machine.restored(&newest));
    machine.assert_at_rest(true);
}

/// The next full is known to be too large before it is made.
#[test]
fn a_store_and_a_spool_without_room_for_another_full() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), Rng::new(1).bytes(3 << 20)).unwrap();
    let store = Disk::mount(&machine.world.path("store"), 8 * MIB);
    private_folder(&machine.world.path("state"));
    let spool = Disk::mount(&machine.world.path("state/spool"), 8 * MIB);
    machine.backup(&[]).expect(0);
    let check = |code: i32| machine.world.offsite(["check"]).expect(code);
    check(0);
    store.fill(MIB);
    let told = check(4);
    assert_says(&told, &["store[1].path", " free, and the last full generation took 3 MiB there", "offsite prune"]);
    store.make_room();
    spool.fill(MIB);
    assert_says(&check(1), &["state: the disk of", "may take up to 3 MiB of it", "`[spool] limit`"]);
    spool.make_room();
    // What a run that died has left there is part of what the next one needs.
    machine.world.write("state/spool/far/waits", Rng::new(2).bytes(3 << 20));
    spool.fill(MIB);
    check(0);
    spool.make_room();
    check(0);
}

/// What is too full for a run is too full for nothing but a run.
#[test]
fn a_store_that_is_to_be_pruned() {
    let machine = Machine::new();
    let rules = "prune = \"agent\"\n[rolling]\nlast = 1\nworking_days = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n\
                 [brake]\nremove_percent = 90\n";
    machine.configure(1, rules);
    let disk = Disk::mount(&machine.world.path("store"), 8 * MIB);
    let mut rng = Rng::new(1);
    for _ in 0..4 {
        std::fs::write(machine.source().join("document"), rng.bytes(1 << 20)).unwrap();
        machine.backup(&[]).expect(0);
    }
    let before = machine.objects();
    disk.fill(0);
    machine.world.offsite(["prune"]).expect(0);
    let after = machine.objects();
    assert_eq!(machine.list().len(), 1);
    assert!(after.len() < before.len() && after.iter().any(|key| key.contains("/pruned/")), "{after:?}");
    for name in ["townhall/RESTORE.txt", "townhall/restore.sh"] {
        assert!(after.contains(name), "{name} was not put back");
    }
    disk.make_room();
    machine.world.offsite(["verify"]).expect(0);
    machine.backup(&[]).expect(0);
    machine.world.offsite(["prune"]).expect(0);
}

#[test]
fn the_spool() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), Rng::new(1).bytes(3 << 20)).unwrap();
    private_folder(&machine.world.path("state"));
    let disk = Disk::mount(&machine.world.path("state/spool"), 8 * MIB);
    disk.fill(MIB / 2);
    let full = machine.backup(&[]).expect(1);
    assert_says(&full, &["the disk is full", "state/spool", "goes on where this one stopped"]);
    assert_eq!(machine.list().len(), 0);
    disk.make_room();
    goes_on(&machine, 1);
}

#[test]
fn the_state() {
    let machine = Machine::new();
    let state = Disk::mount(&machine.world.path("state"), 4 * MIB);
    let _spool = Disk::mount(&machine.world.path("state/spool"), 64 * MIB);
    let mut rng = Rng::new(1);
    let mut full = 0;
    // So much room that it fails when the state is opened, when the first fact is written, and later.
    for room in [0, 16 << 10, 48 << 10, 64 << 10, 80 << 10, 96 << 10, 128 << 10] {
        std::fs::write(machine.source().join("document"), rng.bytes(3 << 20)).unwrap();
        state.fill(room);
        let outcome = machine.backup(&[]).run();
        if outcome.code != Some(0) {
            assert_eq!(outcome.code, Some(1), "{room} bytes left\n{outcome}");
            assert_says(&outcome, &["is full", "state"]);
            full += 1;
        }
        state.make_room();
        let report = machine.backup(&[]).expect(0).json();
        let new = report["generation"]["id"].as_str().unwrap().parse().unwrap();
        Tree::read(&machine.source()).assert_equals(&machine.restored(&new));
        machine.assert_at_rest(false);
    }
    assert!(full >= 3, "it was full {full} times only");
    machine.verify();
}

#[track_caller]
fn assert_says(outcome: &Outcome, words: &[&str]) {
    for word in words {
        assert!(outcome.stderr.contains(word), "`{word}` is not said\n{outcome}");
    }
}

/// The next run finishes `resumed` generations and makes its own.
#[track_caller]
fn goes_on(machine: &Machine, resumed: usize) {
    let report = machine.backup(&[]).expect(0).json();
    assert_eq!(report["resumed"].as_array().unwrap().len(), resumed, "{report}");
    for stored in machine.list().iter().rev().take(1 + resumed) {
        Tree::read(&machine.source()).assert_equals(&machine.restored(&stored.generation));
    }
    machine.verify();
    machine.assert_at_rest(false);
}

fn private_folder(path: &Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}
