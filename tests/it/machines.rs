//! Several machines, lost memories, and memories that are not this machine's: nothing is sent that does harm.

use std::path::Path;
use std::time::Duration;

use tests::machine::Machine;
use tests::tree::Tree;
use tests::{Outcome, Rng, wait_until};

use crate::signals::blocking_source;

/// A machine that has stored two generations.
fn settled() -> Machine {
    let machine = Machine::new();
    for day in ["monday", "tuesday"] {
        std::fs::write(machine.source().join(day), Rng::new(3).bytes(100_000)).unwrap();
        machine.backup(&[]).expect(0);
    }
    machine
}

#[test]
fn a_second_run_says_who_holds_the_lock() {
    let machine = settled();
    let (waits, goes_on) = blocking_source(&machine);
    let running = machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the first run to be under way", || waits.exists());
    let holder = format!("process {}", running.pid());
    let second = machine.backup(&[]).expect(6);
    assert!(second.stderr.contains(&holder) && second.stderr.contains("since"), "{second}");
    assert_eq!(second.json()["error"]["kind"], "locked");
    // Another staging folder, but the same memory.
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let staging = machine.world.path("staging").display().to_string();
    machine.world.write("other.toml", config.replace(&staging, &format!("{staging}-2")));
    let third = machine.backup(&[]).env("OFFSITE_CONFIG", machine.world.path("other.toml")).expect(6);
    assert!(third.stderr.contains(&holder), "{third}");
    // Looking is no run.
    machine.world.offsite(["status"]).expect(0);
    std::fs::write(goes_on, "").unwrap();
    assert_eq!(running.wait().code, Some(0));
    machine.assert_at_rest(false);
}

#[test]
fn a_cloned_machine_is_stopped_before_it_sends_anything() {
    let machine = settled();
    let clone = machine.clone_machine();
    machine.backup(&[]).expect(0);
    let before = clone.objects();
    let stopped = clone.backup(&[]).expect(4);
    for said in ["another machine stores under the same site name", "site name of its own", "state.db"] {
        assert!(stopped.stderr.contains(said), "{said} is not said\n{stopped}");
    }
    assert_eq!(clone.objects(), before, "something was sent");
    // Who is told first, stops; the other one goes on.
    machine.backup(&[]).expect(0);
    machine.assert_at_rest(false);
}

#[test]
fn a_clone_is_recognized_without_a_heartbeat_as_well() {
    let machine = settled();
    let clone = machine.clone_machine();
    machine.backup(&[]).expect(0);
    std::fs::remove_file(machine.world.path("store/townhall/heartbeat.json")).unwrap();
    let before = clone.objects();
    clone.backup(&[]).expect(4);
    assert_eq!(clone.objects(), before, "something was sent");
    // For the machine itself it is no loss.
    machine.backup(&[]).expect(0);
    assert!(machine.world.path("store/townhall/heartbeat.json").exists());
}

#[test]
fn a_lost_state_costs_one_full_upload() {
    let machine = settled();
    let before = machine.list().len();
    std::fs::remove_dir_all(machine.world.path("state")).unwrap();
    let status = machine.world.offsite(["status"]).expect(0);
    assert!(status.stdout.contains("the next run makes a full upload"), "{status}");
    let report = machine.backup(&[]).expect(0).json();
    assert_eq!(report["stores"][0]["full"], true);
    assert_eq!(machine.list().len(), before + 1);
    let report = machine.backup(&[]).expect(0).json();
    assert_eq!(report["stores"][0]["full"], false);
    machine.verify();
    for stored in machine.list().iter().skip(1) {
        Tree::read(&machine.source()).assert_equals(&machine.restored(&stored.generation));
    }
}

#[test]
fn a_state_of_somebody_else_is_refused_and_left_alone() {
    let machine = settled();
    let state = machine.world.path("state/state.db");
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    machine.world.configure(&config.replace("site = \"townhall\"", "site = \"school\""));
    // The configuration is wrong.
    refused(&machine, &state, 2, &["townhall", "school", "a state folder and a staging folder of its own"]);
    machine.world.configure(&config);

    let whole = std::fs::read(&state).unwrap();
    rusqlite::Connection::open(&state).unwrap().pragma_update(None, "user_version", 9).unwrap();
    refused(&machine, &state, 1, &["version 9", "use the program that wrote it"]);

    std::fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    refused(&machine, &state, 1, &["damaged", "move this file away"]);
    std::fs::write(&state, "no database").unwrap();
    refused(&machine, &state, 1, &["damaged", "move this file away"]);
    // As the message says.
    std::fs::rename(&state, machine.world.path("damaged.db")).unwrap();
    let report = machine.backup(&[]).expect(0).json();
    assert_eq!(report["stores"][0]["full"], true);
    machine.verify();
}

/// A backup is refused with this exit code and these words; neither the state nor the store is touched.
#[track_caller]
fn refused(machine: &Machine, state: &Path, code: i32, words: &[&str]) -> Outcome {
    let (before, objects) = (std::fs::read(state).unwrap(), machine.objects());
    let outcome = machine.backup(&[]).expect(code);
    for word in words {
        assert!(outcome.stderr.contains(word), "`{word}` is not said\n{outcome}");
    }
    assert!(std::fs::read(state).unwrap() == before, "the state was changed");
    assert_eq!(machine.objects(), objects);
    outcome
}

#[test]
fn a_spool_that_is_gone_or_damaged_is_given_up() {
    for damage in [remove_all as fn(&Path), flip_all] {
        let machine = Machine::new();
        machine.configure(1, "");
        std::fs::write(machine.source().join("large"), Rng::new(4).bytes(3 << 20)).unwrap();
        // A pack is sealed and nothing is stored.
        machine.backup(&[]).env("OFFSITE_DIE_AT", "6").run();
        damage(&machine.world.path("state/spool/far"));
        let outcome = machine.backup(&[]).expect(4);
        let report = outcome.json();
        assert_eq!((&report["resumed"][0]["stored"], &report["stores"][0]["stored"]), (&false.into(), &true.into()));
        assert!(outcome.stderr.contains("it was given up"), "{outcome}");
        machine.backup(&[]).expect(0);
        machine.verify();
        machine.assert_at_rest(true);
    }
}

fn remove_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

fn flip_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
}
