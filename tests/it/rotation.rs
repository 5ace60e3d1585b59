//! Disks in rotation: brought one after the other, forgotten, replaced, copied, exchanged in the middle of a run. Whatever
//! is done with them, each holds what was stored on it, and none is taken for another.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use agent::calendar::{Age, Calendar};
use agent::disks::Disk;
use agent::evidence::Log;
use agent::ids::GenerationId;
use agent::report::{self, Context, Limits};
use agent::sign::SiteKey;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use tests::Outcome;
use tests::disk;
use tests::machine::Machine;
use tests::tree::Tree;

const SLOTS: [&str; 3] = ["a", "b", "c"];
/// The last two on each disk stay.
const LAST_TWO: &str = "[rolling]\nlast = 2\nworking_days = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n\
                        [local]\nlast = 1\nworking_days = 0\nfloor = 1\n[brake]\nremove_percent = 90\n";

/// A machine whose store is a place where disks are mounted, with new disks that have no slot yet. What is mounted is a link.
fn machine(chain_generations: u32) -> Machine {
    let machine = Machine::new();
    std::fs::remove_dir(machine.world.path("store")).unwrap();
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", format!("{store}\nslots = [\"a\", \"b\", \"c\"]"));
    machine.configure(chain_generations, LAST_TWO);
    for slot in SLOTS {
        machine.world.make_folder(format!("disks/{slot}"));
    }
    machine
}

fn remove(machine: &Machine) {
    std::fs::remove_file(machine.world.path("store")).ok();
}

fn insert(machine: &Machine, disk: &str) {
    remove(machine);
    symlink(machine.world.path("disks").join(disk), machine.world.path("store")).unwrap();
}

/// Every disk gets the slot of its name.
fn assign_all(machine: &Machine) {
    for slot in SLOTS {
        insert(machine, slot);
        machine.world.offsite(["slot", slot, "--anyway"]).expect(0);
    }
}

fn night(machine: &Machine, number: u32) -> Outcome {
    machine.world.write("source/ledger", format!("night {number}").repeat(500));
    machine.backup(&[]).run()
}

/// What the run says of the store.
#[track_caller]
fn far(outcome: &Outcome) -> Value {
    outcome.json()["stores"][0].clone()
}

/// Every file of a disk, to see that nothing was done to it.
fn content(machine: &Machine, disk: &str) -> Tree {
    Tree::read(&machine.world.path("disks").join(disk))
}

#[track_caller]
fn assert_untouched_by_a_run(machine: &Machine, disk: &str, says: &[&str]) {
    let before = content(machine, disk);
    insert(machine, disk);
    let refused = night(machine, 0);
    assert_eq!(refused.code, Some(4), "{refused}");
    let why = far(&refused)["error"].to_string();
    assert!(says.iter().all(|what| why.contains(what)), "{says:?}\n{refused}");
    assert!(before.differences(&content(machine, disk)).is_empty(), "{disk} was written to");
}

#[test]
fn three_disks_are_brought_for_two_weeks_and_the_swap_is_forgotten_twice() {
    let machine = machine(1);
    // Whatever the tests lie on, this one is in this machine.
    let _mounted = disk::Disk::mount(&machine.world.path("disks/c"), 64 << 20);
    insert(&machine, "a");
    let refused = machine.world.offsite(["slot", "a"]).expect(1);
    assert!(refused.stderr.contains("this machine's own disk"), "{refused}");
    assign_all(&machine);
    let (mut stored, mut trees) = (BTreeMap::<&str, Vec<GenerationId>>::new(), BTreeMap::new());
    let mut at = SLOTS.len() - 1;
    for number in 0..14 {
        let forgotten = [4, 9].contains(&number);
        if !forgotten {
            at = (at + 1) % SLOTS.len();
        }
        let (slot, next) = (SLOTS[at], SLOTS[(at + 1) % SLOTS.len()]);
        insert(&machine, slot);
        let outcome = night(&machine, number);
        let said = far(&outcome);
        assert_eq!(said["bring"], next, "night {number}: {outcome}");
        if forgotten {
            assert_eq!(outcome.code, Some(4), "{outcome}");
            assert!(said["error"].to_string().contains("--same-disk"), "{outcome}");
            continue;
        }
        assert_eq!((outcome.code, &said["slot"]), (Some(0), &slot.into()), "night {number}: {outcome}");
        let id: GenerationId = outcome.json()["generation"]["id"].as_str().unwrap().parse().unwrap();
        trees.insert(id.clone(), Tree::read(&machine.source()));
        stored.entry(slot).or_default().push(id);
        if number > 8 {
            machine.world.offsite(["prune"]).expect(0);
        }
    }
    told(&machine, SLOTS[at], SLOTS[(at + 1) % SLOTS.len()]);
    for slot in SLOTS {
        insert(&machine, slot);
        let there: Vec<GenerationId> = machine.list().into_iter().map(|stored| stored.generation).collect();
        assert_eq!(there, stored[slot][stored[slot].len() - 2..], "on {slot}");
        machine.verify();
        for id in &there {
            trees[id].assert_equals(&machine.restored(id));
        }
    }
    lists_what_is_here(&machine);
    lists_what_is_away(&machine, &stored["a"]);
}

/// The report, `status` and `slot` say which disk is in, and which one comes next.
fn told(machine: &Machine, slot: &str, next: &str) {
    let status = machine.world.offsite(["status"]).run().stdout;
    let sentence = format!("the disk {slot} is in, and the last generation lies on it: bring {next} for the next run");
    assert!(status.contains(&sentence), "{status}");
    let shown = machine.world.offsite(["--json", "slot"]).expect(0).json();
    let rotation = &shown["rotations"][0];
    assert_eq!((&rotation["connected"], &rotation["bring"]), (&slot.into(), &next.into()), "{shown}");
    let history = Log::new(&machine.world.path("state")).read(None).unwrap();
    let entries = history.entries.iter().rev();
    let (calendar, limits) = (Calendar::new(TimeZone::UTC), Limits { drill: Age::days(35), key_proof: Age::days(190) });
    let context = Context { site: "townhall", calendar: &calendar, history: &history, limits, now: Timestamp::now() };
    let report = entries
        .filter_map(|(entry, _)| report::compose(entry, &context))
        .find(|report| format!("{report:?}").contains("`far`"));
    let wanted = format!("Take the disk {slot} of `far` away, and bring {next} for the next run.");
    assert!(format!("{report:?}").contains(&wanted), "{report:?}");
}

/// A disk that is connected lies in this machine.
fn lists_what_is_here(machine: &Machine) {
    insert(machine, "c");
    let listed = machine.world.offsite(["--json", "list"]).expect(0).json();
    let generations = listed["generations"].as_array().unwrap().iter();
    let places: Vec<&Value> = generations.flat_map(|generation| generation["places"].as_array().unwrap()).collect();
    let here = |place: &str, is: bool| {
        let copies: Vec<&&Value> = places.iter().filter(|copy| copy["place"] == place).collect();
        assert!(!copies.is_empty() && copies.iter().all(|copy| copy["on_this_machine"] == is), "{place}: {listed:#}");
    };
    here("far (c)", true);
    here("far (a)", false);
    let told = machine.world.offsite(["list"]).expect(0).stdout;
    assert!(!told.contains("Nothing is anywhere else"), "{told}");
}

/// `list` shows what lies on the disks that are not connected, and `restore` says which one to connect.
fn lists_what_is_away(machine: &Machine, on_a: &[GenerationId]) {
    remove(machine);
    let listed = machine.world.offsite(["list"]).expect(0);
    let newest = on_a.last().unwrap().as_str();
    let mut lines = listed.stdout.lines().skip_while(|line| !line.starts_with(newest)).skip(1);
    let line = lines.find(|line| line.trim_start().starts_with("far (a)")).unwrap();
    assert!(line.contains("not connected, last seen 20"), "{listed}");
    assert!(listed.stdout.contains("No disk of far is connected."), "{listed}");
    // What was pruned is not said to be anywhere.
    assert!(!listed.stdout.contains(on_a[0].as_str()), "{listed}");
    insert(machine, "b");
    let identity = machine.world.path("identity.txt");
    let arguments = ["restore", newest, "--to", "nowhere", "--identity", identity.to_str().unwrap()];
    let missing = machine.world.offsite(arguments).expect(1);
    assert!(missing.stderr.contains("on the disk far (a): connect that one"), "{missing}");
}

#[test]
fn what_is_no_disk_of_this_rotation_is_not_written_to() {
    let machine = machine(100);
    assign_all(&machine);
    insert(&machine, "a");
    assert_eq!(night(&machine, 1).code, Some(0));

    remove(&machine);
    let away = night(&machine, 2);
    assert_eq!((away.code, &far(&away)["bring"]), (Some(4), &"b".into()), "{away}");
    assert!(machine.local().len() > 1, "the copy is kept here");
    machine.world.make_folder("disks/new");
    assert_untouched_by_a_run(&machine, "new", &["there is no disk of this rotation", "offsite slot NAME"]);
    machine.world.write("disks/photos/holiday.jpg", "x");
    insert(&machine, "photos");
    machine.world.offsite(["slot", "b"]).expect(1);

    let foreign = machine.world.make_folder("disks/foreign");
    let (store, slot) = ("far".parse().unwrap(), "b".parse().unwrap());
    let other = Disk::new(&"library".parse().unwrap(), &store, &slot, Timestamp::now());
    other.write(&foreign, &SiteKey::generate().unwrap()).unwrap();
    assert_untouched_by_a_run(&machine, "foreign", &["b of library's store far", "bring b"]);
    let forged = machine.world.make_folder("disks/forged");
    let ours = Disk::new(&machine.site, &store, &slot, Timestamp::now());
    ours.write(&forged, &SiteKey::generate().unwrap()).unwrap();
    assert_untouched_by_a_run(&machine, "forged", &["this site did not sign", "bring b"]);
    let check = machine.world.offsite(["check"]).expect(4);
    assert!(check.stderr.contains("this site did not sign"), "{check}");

    // Told to, it writes to one disk twice, and goes on with its chain.
    assert_untouched_by_a_run(&machine, "a", &["is still in", "Bring b"]);
    let twice = machine.backup(&["--same-disk"]).expect(0);
    assert_eq!((far(&twice)["slot"].as_str(), far(&twice)["full"].as_bool()), (Some("a"), Some(false)), "{twice}");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_copy_of_a_disk_is_neither_that_disk_nor_another_machine() {
    let machine = machine(100);
    assign_all(&machine);
    insert(&machine, "a");
    night(&machine, 1);
    copy(&machine.world.path("disks/a"), &machine.world.path("disks/copy"));
    for (number, slot) in [(2, "b"), (3, "a"), (4, "b")] {
        insert(&machine, slot);
        assert_eq!(night(&machine, number).code, Some(0));
    }
    assert_untouched_by_a_run(&machine, "copy", &["it is a copy of that disk", "--anyway"]);
    // It becomes a disk of its own, with all that is on it, and the old one is told to be replaced.
    machine.world.offsite(["slot", "a", "--anyway"]).expect(0);
    let first = night(&machine, 5);
    assert_eq!((first.code, far(&first)["slot"].as_str()), (Some(0), Some("a")), "{first}");
    assert_eq!(machine.list().len(), 2);
    machine.verify();
    assert_untouched_by_a_run(&machine, "a", &["until another one took its place", "--anyway"]);
    insert(&machine, "b");
    assert_eq!(night(&machine, 6).code, Some(0));
    machine.verify();
}

#[test]
fn disks_that_are_exchanged_during_a_run_get_nothing_of_each_other() {
    let machine = machine(100);
    assign_all(&machine);
    insert(&machine, "b");
    assert_eq!(night(&machine, 1).code, Some(0));
    let (before_a, before_b) = (content(&machine, "a"), content(&machine, "b"));
    insert(&machine, "a");
    let script =
        format!("ln -sfn {} {}", machine.world.path("disks/b").display(), machine.world.path("store").display());
    let swap = format!(
        "[[source]]\nname = \"swap\"\ntype = \"command\"\nstdout = \"x\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]"
    );
    machine.configure(100, &format!("{LAST_TWO}{swap}"));
    let swapped = night(&machine, 2);
    assert_eq!((swapped.code, far(&swapped)["stored"].as_bool()), (Some(4), Some(false)), "{swapped}");
    assert!(far(&swapped)["error"].to_string().contains("another disk is mounted there"), "{swapped}");
    assert!(
        before_a.differences(&content(&machine, "a")).is_empty()
            && before_b.differences(&content(&machine, "b")).is_empty()
    );
    // With the right disk it is finished, and the other one goes on as if nothing had been.
    machine.configure(100, LAST_TWO);
    insert(&machine, "a");
    machine.backup(&["--resume"]).run();
    for (number, slot) in [(3, "a"), (4, "b")] {
        insert(&machine, slot);
        let outcome = night(&machine, number);
        assert_eq!(outcome.code, Some(0), "{outcome}");
        machine.verify();
    }
}
