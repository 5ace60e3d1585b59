//! `prune`, `hold`, `release`, `list` and archival generations by the calendar, as a person uses them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde_json::Value;
use tests::machine::Machine;
use tests::tree::Tree;
use tests::{Outcome, Rng, wait_until};

/// Each generation is a chain, and the last two stay.
const LAST_TWO: &str = "prune = \"agent\"\n[rolling]\nlast = 2\nworking_days = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n\
                        [local]\nlast = 2\nworking_days = 0\nfloor = 1\n[brake]\nremove_percent = 90\n";

fn machine(chain_generations: u32, nights: usize) -> Machine {
    let machine = Machine::new();
    machine.configure(chain_generations, LAST_TWO);
    let mut rng = Rng::new(4);
    for night in 0..nights {
        std::fs::write(machine.source().join(format!("letter-{night}")), rng.bytes(5000)).unwrap();
        machine.backup(&[]).expect(0);
    }
    machine
}

fn prune(machine: &Machine, arguments: &[&str]) -> tests::Offsite {
    machine.world.offsite([&["--json", "prune"], arguments].concat())
}

#[track_caller]
fn place<'d>(document: &'d Value, name: &str) -> &'d Value {
    document["places"].as_array().unwrap().iter().find(|place| place["place"] == name).unwrap()
}

fn ids(machine: &Machine) -> Vec<String> {
    machine.list().iter().map(|stored| stored.generation.to_string()).collect()
}

#[test]
fn what_is_shown_is_what_is_done() {
    let machine = machine(1, 5);
    let (before, generations, local) = (machine.objects(), ids(&machine), machine.local());
    let planned = prune(&machine, &["--dry-run"]).expect(0).json();
    assert_eq!((machine.objects(), machine.local()), (before.clone(), local), "looking changed something");
    let done = prune(&machine, &[]).expect(0).json();
    for what in ["removals", "hash"] {
        assert_eq!(place(&planned, "far")[what], place(&done, "far")[what], "{what}");
    }
    let decided = |document: &Value| -> Vec<(String, String)> {
        let generations = place(document, "far")["generations"].as_array().unwrap();
        generations.iter().map(|one| (one["id"].to_string(), one["reasons"].to_string())).collect()
    };
    assert_eq!(decided(&planned), decided(&done));
    let far = place(&done, "far");
    assert_eq!((far["ended"].as_str(), far["removed"]["objects"].as_u64()), (Some("pruned"), Some(15)));
    let removed: BTreeSet<String> =
        far["removals"].as_array().unwrap().iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect();
    let gone: BTreeSet<String> = before.difference(&machine.objects()).cloned().collect();
    assert_eq!(removed, gone);
    // The signatures go first, the packs last.
    let steps: Vec<&str> =
        far["removals"].as_array().unwrap().iter().map(|object| kind(object["key"].as_str().unwrap())).collect();
    assert!(steps.is_sorted() && steps.contains(&"1 signature") && steps.contains(&"3 pack"), "{steps:?}");
    assert_eq!(ids(&machine), generations[3..]);
    assert_eq!(machine.local().len(), 2);
    machine.verify();
    for generation in &generations[3..] {
        assert!(machine.restored(&generation.parse().unwrap()).0.len() > 3);
    }
    let again = prune(&machine, &[]).expect(0).json();
    assert_eq!(place(&again, "far")["removals"].as_array().unwrap().len(), 0);
    // What is pruned is neither a loss nor a gap, and the next nights go on.
    machine.world.offsite(["verify"]).expect(0);
    machine.world.offsite(["list"]).expect(0);
    std::fs::write(machine.source().join("more"), "more").unwrap();
    let new = machine.backup(&[]).expect(0).json()["generation"]["id"].as_str().unwrap().parse().unwrap();
    Tree::read(&machine.source()).assert_equals(&machine.restored(&new));
    prune(&machine, &[]).expect(0);
}

fn kind(key: &str) -> &'static str {
    if key.ends_with(".minisig") {
        "1 signature"
    } else if key.contains("/packs/") {
        "3 pack"
    } else {
        "2 document"
    }
}

#[test]
fn the_chain_of_tonight_is_left_alone_and_so_is_what_its_patches_need() {
    let machine = machine(100, 5);
    let before = ids(&machine);
    let done = prune(&machine, &[]).expect(0).json();
    assert_eq!(ids(&machine), before, "{done}");
    let local: Vec<String> = machine.local().iter().map(ToString::to_string).collect();
    assert_eq!(local, [&before[..1], &before[3..]].concat(), "the open chain's first one is the reference");
    let reasons = place(&done, "local")["generations"][0]["reasons"].to_string();
    assert!(reasons.contains("refer to it"), "{reasons}");
    let next = machine.backup(&[]).expect(0).json();
    assert_eq!(next["stores"][0]["full"], false);
    machine.verify();
}

#[test]
fn what_is_held_stays_in_every_place_until_it_is_released() {
    let machine = machine(1, 4);
    let all = ids(&machine);
    let held = machine.world.offsite(["--json", "hold", &all[0], "--reason", "case 4711"]).expect(0).json();
    assert_eq!(held["places"].to_string(), "[\"far\",\"local\"]");
    prune(&machine, &[]).expect(0);
    assert_eq!(ids(&machine), [&all[..1], &all[2..]].concat());
    assert!(machine.local().contains(&all[0].parse().unwrap()));
    let listed = machine.world.offsite(["list"]).expect(0);
    assert_eq!(listed.stdout.matches("HELD: case 4711").count(), 2, "{listed}");
    // Losing all memory of it changes nothing.
    std::fs::remove_dir_all(machine.world.path("state")).unwrap();
    prune(&machine, &[]).expect(0);
    assert_eq!(ids(&machine).len(), 3);
    machine.world.offsite(["release", &all[0], "--reason", "case closed"]).expect(0);
    prune(&machine, &[]).expect(0);
    assert_eq!(ids(&machine), all[2..]);
    assert!(!machine.local().contains(&all[0].parse().unwrap()));
    // Nobody can hold what is not there, or without saying why.
    machine.world.offsite(["hold", &all[0], "--reason", "too late"]).expect(1);
    machine.world.offsite(["hold", &all[3], "--reason", " "]).expect(2);
}

#[test]
fn junk_among_the_records_does_not_end_the_counting() {
    let machine = machine(1, 4);
    let junk = machine.world.write(format!("store/townhall/pruned/{}.json", u64::MAX), "junk");
    prune(&machine, &[]).expect(0);
    assert_eq!((ids(&machine).len(), junk.exists()), (2, false));
    machine.world.offsite(["verify"]).expect(0);
}

#[test]
fn a_release_that_the_site_did_not_sign_releases_nothing() {
    let machine = machine(1, 4);
    let all = ids(&machine);
    machine.world.offsite(["hold", &all[0], "--reason", "case 4711"]).expect(0);
    let holds = machine.world.path("store/townhall/holds");
    let text = std::fs::read_to_string(holds.join(format!("{}-0001.json", all[0]))).unwrap();
    let forged = text.replace("\"number\": 1", "\"number\": 2").replace("\"held\": true", "\"held\": false");
    assert_ne!(forged, text);
    std::fs::write(holds.join(format!("{}-0002.json", all[0])), forged).unwrap();
    // Half of a pair, as an interrupted run leaves: it counts for nothing.
    prune(&machine, &[]).expect(0);
    assert!(ids(&machine).contains(&all[0]));
    // With somebody else's signature it stops everything.
    let other = std::fs::read(holds.join(format!("{}-0001.json.minisig", all[0]))).unwrap();
    std::fs::write(holds.join(format!("{}-0002.json.minisig", all[0])), other).unwrap();
    let braked = prune(&machine, &[]).expect(1).json();
    assert_eq!(place(&braked, "far")["brakes"][0]["name"], "signature");
    assert!(ids(&machine).contains(&all[0]));
}

#[test]
fn a_brake_stops_everything_and_is_lifted_for_one_plan() {
    let machine = machine(1, 6);
    machine.configure(1, &LAST_TWO.replace("remove_percent = 90", "remove_percent = 50"));
    let before = machine.objects();
    let braked = prune(&machine, &[]).expect(1);
    assert_eq!(machine.objects(), before);
    let document = braked.json();
    let (far, local) = (place(&document, "far"), place(&document, "local"));
    assert_eq!((far["ended"].as_str(), far["brakes"][0]["name"].as_str()), (Some("braked"), Some("share")));
    assert!(braked.stderr.contains("--lift"), "{braked}");
    let (hash, local) = (far["hash"].as_str().unwrap(), local["hash"].as_str().unwrap());
    // A plan that is not today's is not passed over in silence.
    let unknown = machine.world.offsite(["prune", "--lift", "0123456789abcdef", "--lift", hash]).expect(2);
    assert!(unknown.stderr.contains("0123456789abcdef` fits no plan of today"), "{unknown}");
    assert!(unknown.stderr.contains(&format!("--lift {hash}")) && unknown.stderr.contains(local), "{unknown}");
    assert_eq!(machine.objects(), before);
    prune(&machine, &["--lift", hash, "--lift", local]).expect(0);
    assert_eq!((ids(&machine).len(), machine.local().len()), (2, 2));
}

#[test]
fn a_hidden_generation_is_a_gap() {
    let machine = machine(1, 5);
    let all = ids(&machine);
    let folder = machine.world.path("store/townhall/rolling").join(&all[1]);
    std::fs::remove_file(folder.join(format!("{}.json.minisig", all[1]))).unwrap();
    let before = machine.objects();
    let document = prune(&machine, &[]).expect(1).json();
    let names: Vec<&str> = place(&document, "far")["brakes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|brake| brake["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["gap", "memory"]);
    assert_eq!(machine.objects(), before);
}

#[test]
fn what_the_keeper_prunes_is_left_to_it() {
    let machine = machine(1, 5);
    machine.configure(1, &LAST_TWO.replace("\"agent\"", "\"keeper\""));
    let before = machine.objects();
    let document = prune(&machine, &[]).expect(0).json();
    assert_eq!(place(&document, "far")["ended"], "left_to_keeper");
    assert_eq!((machine.objects(), machine.local().len()), (before, 2));
}

#[test]
fn a_local_generation_goes_without_touching_another() {
    let machine = machine(1, 0);
    let letter = machine.source().join("letter-0");
    std::fs::write(&letter, "dear").unwrap();
    // What was written just before a run is copied again by the next one.
    let age = || std::fs::metadata(&letter).unwrap().modified().unwrap().elapsed().unwrap_or_default();
    wait_until(Duration::from_secs(60), "the letter to be old", || age() > Duration::from_millis(300));
    for _ in 0..4 {
        machine.backup(&[]).expect(0);
    }
    let folders = || -> Vec<_> {
        let ids = machine.local();
        ids.iter().map(|id| machine.world.path("staging").join(id.as_str()).join("data/docs/letter-0")).collect()
    };
    let before = folders();
    let look = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.ino(), meta.mode(), meta.mtime_nsec(), std::fs::read(path).unwrap())
    };
    let last = look(&before[3]);
    assert!(look(&before[1]) == last, "what did not change is one file");
    prune(&machine, &[]).expect(0);
    assert!(!before[0].exists() && !before[1].exists());
    assert!(look(&before[3]) == last, "another generation was touched");
    assert_eq!(last.1 & 0o222, 0, "it can be written to");
}

#[test]
fn archival_generations_are_made_by_the_calendar_and_by_hand() {
    let machine = Machine::new();
    let rules = |more: &str| format!("{LAST_TWO}[[archival]]\nevery = \"year\"\nlifetime = \"for ever\"\n{more}");
    machine.configure(1, &rules(""));
    std::fs::write(machine.source().join("letter"), "dear").unwrap();
    let first = machine.backup(&[]).expect(0).json();
    let archival = first["archival"]["generation"]["id"].as_str().unwrap().to_owned();
    assert!(machine.backup(&[]).expect(0).json().get("archival").is_none(), "one a year is enough");
    // Another machine in its place knows of it from the store.
    std::fs::remove_dir_all(machine.world.path("state")).unwrap();
    assert!(machine.backup(&[]).expect(0).json().get("archival").is_none());
    // By hand, for a while: not the year's, and no reason not to make one a month.
    machine.backup(&["--archive", "--label", "before the upgrade", "--keep", "30 days"]).expect(0);
    machine.configure(1, &rules("[[archival]]\nevery = \"month\"\nlifetime = \"5 years\"\n"));
    assert!(machine.backup(&[]).expect(0).json().get("archival").is_none(), "the year's is the month's as well");
    let done = prune(&machine, &[]).expect(0).json();
    let far = place(&done, "far")["generations"].as_array().unwrap().clone();
    let reasons = |id: &str| far.iter().find(|one| one["id"] == id).unwrap()["reasons"].to_string();
    assert!(reasons(&archival).contains("for_ever"), "{far:?}");
    assert_eq!(far.iter().filter(|one| one["class"] == "archival").count(), 2);
    assert!(far.iter().any(|one| one["reasons"].to_string().contains("lifetime")), "{far:?}");
    machine.verify();
}

#[test]
fn it_is_finished_if_it_died_beside_what_it_remembers() {
    let machine = machine(1, 5);
    for (moment, side) in [(1, "before"), (2, "after")] {
        let outcome: Outcome = prune(&machine, &[]).env("OFFSITE_DIE_AT", moment.to_string()).run();
        assert_eq!(outcome.code, None, "{outcome}");
        assert!(outcome.stderr.contains(&format!("died {side}: a prune was recorded")), "{outcome}");
        machine.verify();
        prune(&machine, &[]).expect(0);
        let state = rusqlite::Connection::open(machine.world.path("state/state.db")).unwrap();
        let count = |sql: &str| state.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM delivery WHERE phase = 'committed'"), 2);
        assert_eq!(
            count(
                "SELECT count(*) FROM pack WHERE chain NOT IN (SELECT chain FROM delivery WHERE phase = 'committed')"
            ),
            0
        );
        assert_eq!(ids(&machine).len(), 2);
        // On this machine the last two, and the one that patches refer to, if that is neither.
        assert!(matches!(machine.local().len(), 2 | 3), "{:?}", machine.local());
        for night in 0..3 {
            std::fs::write(machine.source().join(format!("more-{night}")), format!("{moment}")).unwrap();
            machine.backup(&[]).expect(0);
        }
    }
}
