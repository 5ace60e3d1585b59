//! Restoring as a person does it: over what is there, to a disk that is too small, from the wrong place.

use std::path::Path;
use std::time::Duration;

use agent::generation::Class;
use tests::disk::Disk;
use tests::engine::Site;
use tests::machine::Machine;
use tests::proxy::{Fault, Proxy};
use tests::servers::apache;
use tests::tree::{self, Tree};
use tests::{Outcome, Rng, office, wait_until};

const MIB: u64 = 1 << 20;

#[track_caller]
fn assert_says(outcome: &Outcome, words: &[&str]) {
    for word in words {
        assert!(outcome.stderr.contains(word) || outcome.stdout.contains(word), "`{word}` is not said\n{outcome}");
    }
}

#[test]
fn what_is_there_is_replaced_if_that_is_asked_for() {
    let site = Site::in_memory();
    office::zoo(&site.source(), &mut Rng::new(71));
    let generation = site.backup(Class::Rolling);
    let restore = |more: &[&str], code| {
        let words = ["restore", generation.as_str(), "--to", "back", "--identity", "identity.txt"];
        site.world.offsite(words.iter().chain(more)).expect(code)
    };
    restore(&[], 0);
    let back = site.world.path("back/docs");
    // Another file, another link, a file in place of a link, and a second name that is a file of its own now.
    std::fs::write(back.join("-rf"), "something else").unwrap();
    std::fs::remove_file(back.join("links/odd")).unwrap();
    std::os::unix::fs::symlink("elsewhere", back.join("links/odd")).unwrap();
    std::fs::remove_file(back.join("links/out")).unwrap();
    std::fs::write(back.join("links/out"), "no link").unwrap();
    std::fs::remove_file(back.join("links/two")).unwrap();
    std::fs::write(back.join("links/two"), "no second name").unwrap();
    assert_says(&restore(&[], 1), &["exist already", "--overwrite"]);
    restore(&["--overwrite"], 0);
    tree::assert_same(&site.source(), &back);
}

/// A restore that is killed leaves files in their places, and others half done.
#[test]
fn one_that_died_is_begun_anew_and_touches_nothing_else() {
    let server = apache();
    let url: providers::Url = server.collection("restoring").urls.http.unwrap().parse().unwrap();
    let proxy = Proxy::to(server.port());
    let machine = Machine::with_webdav(&format!("{}{}", proxy.url(), url.path()));
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store.replace("24 MiB", "1 MiB"));
    machine.configure(100, "");
    let mut rng = Rng::new(74);
    for number in 0..8 {
        std::fs::write(machine.source().join(format!("document-{number}")), rng.bytes(1 << 20)).unwrap();
    }
    std::fs::hard_link(machine.source().join("document-0"), machine.source().join("second-name")).unwrap();
    std::os::unix::fs::symlink("document-0", machine.source().join("link")).unwrap();
    machine.backup(&[]).expect(0);
    let world = &machine.world;
    let back = world.make_folder("back");
    world.write("back/own", "somebody's own");
    let first = back.join("docs/document-0");
    let words = ["restore", "latest", "--to", "back", "--identity", "identity.txt"];
    proxy.script(|request| request.target.contains("/packs/00-0004-").then_some(Fault::StallReply(1000)));
    let mut restoring = world.offsite(words).start();
    wait_until(Duration::from_secs(60), "the first file", || !restoring.runs() || first.exists());
    restoring.kill();
    proxy.script(|_| None);
    assert!(first.exists() && back.join(".offsite-restoring").exists());
    let restore = |code| world.offsite(words).expect(code);
    // What somebody has changed meanwhile is his.
    std::fs::write(&first, "changed").unwrap();
    assert_says(&restore(1), &["exist already", "docs/document-0"]);
    assert_eq!(std::fs::read(&first).unwrap(), b"changed");
    std::fs::remove_file(&first).unwrap();
    // What else the first one left is still known to be its own.
    restore(0);
    tree::assert_same(&machine.source(), &back.join("docs"));
    assert_eq!(std::fs::read_to_string(back.join("own")).unwrap(), "somebody's own");
    assert!(!back.join(".offsite-restoring").exists());

    // A folder of that name that is not ours, and one of a restore that goes on.
    let other = world.make_folder("other/.offsite-restoring");
    world.write("other/.offsite-restoring/mine", "somebody's own");
    let words = ["restore", "latest", "--to", "other", "--identity", "identity.txt"];
    assert_says(&world.offsite(words).expect(1), &["this program did not make"]);
    assert!(other.join("mine").exists());
    std::fs::remove_file(other.join("mine")).unwrap();
    let log = world.write("other/.offsite-restoring/placed", "offsite\n");
    let held = std::fs::File::open(log).unwrap();
    held.lock().unwrap();
    assert_says(&world.offsite(words).expect(1), &["another restore to it is under way"]);
}

#[test]
fn nothing_is_restored_into_what_is_backed_up_or_backs_it_up() {
    let site = Site::in_memory();
    std::fs::write(site.source().join("document"), "of the day").unwrap();
    site.backup(Class::Rolling);
    let trees = || ["store", "staging", "state", "source"].map(|name| Tree::read(&site.world.path(name)));
    let before = trees();
    std::os::unix::fs::symlink(site.world.path("store"), site.world.path("link")).unwrap();
    for (to, what) in [
        ("store/townhall", "a store"),
        ("store", "a store"),
        ("link/deeper", "a store"),
        (".", "contains the folder"),
        ("staging/back", "the staging folder"),
        ("state/spool/back", "the state folder"),
        ("source", "a source"),
        ("source/.offsite-restoring", "a source"),
    ] {
        let words = ["restore", "latest", "--to", to, "--identity", "identity.txt"];
        assert_says(&site.world.offsite(words).expect(2), &["nothing can be restored to", what, "what to do: "]);
    }
    before.iter().zip(trees()).for_each(|(before, after)| before.assert_equals(&after));
}

#[test]
fn what_there_is_nothing_of_is_told_what_there_is() {
    let site = Site::in_memory();
    std::fs::write(site.source().join("document"), "of the day").unwrap();
    site.backup(Class::Rolling);
    for wrong in [["--source", "ledger"], ["--path", "document"]] {
        let words = ["restore", "latest", "--to", "back", "--identity", "identity.txt"];
        assert_says(
            &site.world.offsite(words.iter().chain(&wrong)).expect(1),
            &["its sources are docs", "what to do: "],
        );
        assert!(!site.world.path("back").exists(), "an empty folder was left");
    }
    site.world.write("file", "in the way");
    let words = ["restore", "latest", "--to", "file", "--identity", "identity.txt"];
    assert_says(&site.world.offsite(words).expect(1), &["file cannot be restored to", "what to do: name a new folder"]);
}

/// A disk with room for half of what is restored: what is said is about that disk, not about packs.
fn to_a_small_disk(machine: &Machine, to: &Path, arguments: &[&str]) {
    let disk = Disk::mount(to, 6 * MIB);
    let target = to.to_str().unwrap();
    let words = [&["restore", "latest", "--to", target][..], arguments].concat();
    let full = machine.world.offsite(&words).expect(1);
    assert_says(&full, &[&format!("the disk of {target} is full"), "what to do: ", "--to", "--overwrite"]);
    for wrong in ["damaged", "of no use", "LOST", "staged copy"] {
        assert!(!full.stderr.contains(wrong), "`{wrong}` is said\n{full}");
    }
    disk.resize(32 * MIB);
    machine.world.offsite([&words[..], &["--overwrite"]].concat()).expect(0);
    Tree::read(&machine.source()).assert_equals(&Tree::read(&to.join("docs")));
}

#[test]
fn a_full_disk_is_what_is_blamed_for_a_full_disk() {
    let machine = Machine::in_memory();
    let mut rng = Rng::new(72);
    for number in 0..12 {
        std::fs::write(machine.source().join(format!("document-{number}")), rng.bytes(1 << 20)).unwrap();
    }
    machine.backup(&[]).expect(0);
    to_a_small_disk(&machine, &machine.world.path("from-a-store"), &["--identity", "identity.txt"]);
    to_a_small_disk(&machine, &machine.world.path("from-here"), &[]);
    // Not even the list of what is in it finds a place.
    let disk = Disk::mount(&machine.world.path("no-room"), MIB);
    disk.fill(0);
    let arguments = ["restore", "latest", "--to", "no-room", "--identity", "identity.txt"];
    assert_says(&machine.world.offsite(arguments).expect(1), &["is full", "what to do: "]);
}

#[test]
fn a_newer_copy_on_this_machine_is_pointed_out() {
    let machine = Machine::in_memory();
    std::fs::write(machine.source().join("document"), "of the first day").unwrap();
    machine.backup(&[]).expect(0);
    // On the second day the power fails when the copy is made and nothing is stored yet.
    std::fs::write(machine.source().join("document"), "of the second day").unwrap();
    machine.backup(&[]).env("OFFSITE_DIE_AT", "1").run();
    let newest = machine.local().into_iter().next_back().unwrap();
    let restore = |what: &str, to: &str, code| {
        machine.world.offsite(["restore", what, "--to", to, "--identity", "identity.txt"]).expect(code)
    };
    let note = format!("a newer copy, {newest}");
    assert_says(&restore("latest", "one", 0), &[&note, "--from local"]);
    let document = machine.world.path("one/docs/document");
    assert_eq!(std::fs::read_to_string(document).unwrap(), "of the first day");
    // One that only this machine has.
    assert_says(&restore(newest.as_str(), "two", 1), &["there is no generation", "--from local"]);
}

#[test]
fn a_misspelt_site_is_told_which_there_are() {
    let machine = Machine::in_memory();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.backup(&[]).expect(0);
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let config = config.replace("site = \"townhall\"", "site = \"townhal\"");
    // Another machine, which has nothing of its own yet.
    machine.world.configure(&config.replace("/staging\"", "/other-staging\"").replace("/state\"", "/other-state\""));
    let hint = ["townhall", "site = \"townhal\""];
    assert_says(&machine.world.offsite(["list"]).expect(1), &[&hint[..], &["no generation of townhal yet"]].concat());
    assert_says(&machine.world.offsite(["verify"]).expect(1), &hint);
    let restore = ["restore", "latest", "--to", "back", "--identity", "identity.txt"];
    assert_says(&machine.world.offsite(restore).expect(1), &hint);
    let document = machine.world.offsite(["--json", "list"]).expect(1).json();
    assert_eq!(document["other_sites"][0], "townhall", "{document}");
}

#[test]
fn a_store_one_folder_too_deep_or_too_high_is_told_where_it_begins() {
    let machine = Machine::in_memory();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.backup(&[]).expect(0);
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let disk = machine.world.make_folder("disk").display().to_string();
    std::fs::rename(machine.world.path("store"), machine.world.path("disk/copies")).unwrap();
    // Another machine; and this one, which knows the generation, and has it in staging.
    let other = config.replace("/staging\"", "/other-staging\"").replace("/state\"", "/other-state\"");
    let (list, verify) = (["list"], ["verify"]);
    let restore = ["restore", "latest", "--to", "back", "--identity", "identity.txt"];
    let here = |place: &str| format!("\"{}\"", machine.world.path(place).display());
    for (place, hint) in [
        ("copies/townhall", "the `path` of the store far leads into the folder of a site; let it end 1 folder earlier"),
        ("copies/townhall/rolling", "let it end 2 folders earlier"),
        ("", "the `path` of the store far ends too early: generations lie in its folder `copies`; add that to it"),
    ] {
        let place = format!("\"{disk}/{place}\"");
        machine.world.configure(&other.replace(&here("store"), &place));
        for verb in [&list[..], &verify, &restore] {
            assert_says(&machine.world.offsite(verb).expect(1), &[hint]);
        }
        machine.world.configure(&config.replace(&here("store"), &place));
        for (verb, code) in [(&list[..], 1), (&verify, 5), (&restore, 1)] {
            assert_says(&machine.world.offsite(verb).expect(code), &[hint]);
        }
    }
    let right = other.replace(&here("store"), &format!("\"{disk}/copies\""));
    machine.world.configure(&right);
    machine.world.offsite(restore).expect(0);
    machine.world.offsite(verify).expect(0);
    // One that is whole makes up for no other.
    let near = |place: &str| format!("{right}\n[[store]]\nname = \"near\"\ntype = \"directory\"\npath = \"{place}\"\n");
    machine.world.configure(&near(&disk));
    assert_says(&machine.world.offsite(verify).expect(1), &["the store near ends too early"]);
    let document = machine.world.offsite(["--json", "verify"]).expect(1).json();
    assert!(document["misplaced"][0].as_str().unwrap().contains("the store near"), "{document}");
    // In a place of many, what others keep deeper down says nothing of ours.
    let many = machine.world.make_folder("many").display().to_string();
    machine.world.make_folder("many/others");
    std::fs::rename(machine.world.path("disk/copies/townhall"), machine.world.path("many/others/village")).unwrap();
    machine.world.make_folder("many/x/townhall");
    machine.world.write("many/x/townhall/heartbeat.json", "{}");
    machine.world.configure(&other.replace(&here("store"), &format!("\"{many}\"")));
    machine.world.offsite(list).expect(0);
}

#[test]
fn the_smallest_sample_reads_something() {
    let machine = Machine::in_memory();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.backup(&[]).expect(0);
    let verified = machine.world.offsite(["verify", "--sample", "1"]).expect(0);
    assert_says(&verified, &["1 pack read"]);
}
