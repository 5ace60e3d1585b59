//! The main job through the program: what it says and with which exit code it ends when not everything is well.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tests::machine::Machine;
use tests::{Outcome, World};

/// An office with a folder, a database, a directory store and two keys, configured by `offsite init`.
struct Office {
    world: World,
    key: String,
}

impl Office {
    fn new() -> Self {
        let world = World::new();
        for number in 0..40 {
            world.write(format!("documents/letter-{number}.txt"), format!("Dear customer {number}\n").repeat(500));
        }
        let database = rusqlite::Connection::open(world.path("ledger.db")).unwrap();
        database.execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY); INSERT INTO entry VALUES (1)").unwrap();
        world.make_folder("usb");
        let path = |name: &str| world.path(name).display().to_string();
        let (documents, ledger, usb) = (path("documents"), path("ledger.db"), path("usb"));
        let (key, second) = (path("keys/office.txt"), path("keys/second.txt"));
        let (staging, state) = (path("staging"), path("state"));
        world
            .offsite([
                "init",
                "--site",
                "office",
                "--source",
                &documents,
                "--source",
                &ledger,
                "--store",
                &usb,
                "--new-identity",
                &key,
                "--new-identity",
                &second,
                "--staging",
                &staging,
                "--state",
                &state,
            ])
            .expect(0);
        Self { world, key }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.world.offsite(arguments).run()
    }

    #[track_caller]
    fn expect(&self, code: i32, arguments: &[&str]) -> Outcome {
        self.world.offsite(arguments).expect(code)
    }

    /// The objects in the store whose paths contain `part`.
    fn stored(&self, part: &str) -> Vec<PathBuf> {
        let mut found: Vec<_> = files(&self.world.path("usb"));
        found.retain(|path| path.to_str().unwrap().contains(part));
        assert!(!found.is_empty(), "nothing is stored like {part}");
        found
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn one_night_and_the_day_after() {
    let office = Office::new();
    let report = office.expect(0, &["--json", "backup", "--label", "first night"]).json();
    assert_eq!(report["generation"]["grade"], "exact");
    assert_eq!(report["generation"]["label"], "first night");
    assert_eq!(report["stores"][0]["stored"], true);
    let id = report["generation"]["id"].as_str().unwrap();
    let listed = office.expect(0, &["list"]).stdout;
    assert!(listed.contains(id) && listed.contains("full") && listed.contains("\"first night\""), "{listed}");
    // Its store is a folder beside its data; only tests that run in a container may have both on another machine.
    let json = office.expect(0, &["--json", "list", "--from", "usb"]).json();
    let here = json["generations"][0]["places"][0]["on_this_machine"] == true;
    for told in ["The newest that is whole in a store: ", "Nothing is anywhere else: "] {
        assert_eq!(listed.contains(told), here, "{told}\n{listed}");
    }
    let status = office.expect(0, &["status"]).stdout;
    assert!(status.contains(id) && status.contains("all went well"), "{status}");
    office.expect(0, &["verify"]);
    for verb in ["check", "verify", "backup"] {
        let quiet = office.expect(0, &["-q", verb]);
        assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet}");
    }
    for (to, from) in [("from-store", &["--identity", &office.key][..]), ("from-here", &["--from", "local"][..])] {
        office.expect(0, &[&["restore", id, "--to", to][..], from].concat());
        let restored = office.world.path(to);
        assert_eq!(
            std::fs::read(restored.join("documents/letter-7.txt")).unwrap(),
            std::fs::read(office.world.path("documents/letter-7.txt")).unwrap()
        );
        assert!(restored.join("ledger/ledger.db").exists());
    }
}

#[test]
fn a_restore_never_overwrites_and_says_so() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    let own = office.world.write("to/documents/letter-1.txt", "mine");
    let refused = office.expect(1, &["restore", "latest", "--to", "to"]);
    assert!(refused.stderr.contains("letter-1.txt") && refused.stderr.contains("--overwrite"), "{refused}");
    assert_eq!(std::fs::read(&own).unwrap(), b"mine");
    assert_eq!(files(&office.world.path("to")), std::slice::from_ref(&own), "something was restored");
    office.expect(0, &["restore", "latest", "--to", "to", "--overwrite"]);
    assert_ne!(std::fs::read(&own).unwrap(), b"mine");
}

#[test]
fn what_is_stored_opens_with_a_key_only() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    let without = office.expect(2, &["restore", "latest", "--to", "to", "--from", "usb"]);
    assert!(without.stderr.contains("--identity"), "{without}");
    office.expect(0, &["key", "new", "stranger.txt"]);
    let stranger = office.expect(1, &["restore", "latest", "--to", "to", "--identity", "stranger.txt"]);
    assert!(stranger.stderr.contains("identity"), "{stranger}");
    office.expect(2, &["restore", "latest", "--to", "to", "--identity", "no-such-file"]);
    assert!(!office.world.path("to/documents").exists());
}

#[test]
fn a_flipped_bit_is_found_without_a_key() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    let pack = office.stored("/packs/")[0].clone();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let found = office.expect(5, &["verify"]);
    assert!(found.stderr.contains(pack.file_name().unwrap().to_str().unwrap()), "{found}");
    // What the advice says gives a generation that needs nothing of what is damaged.
    assert!(found.stderr.contains("`offsite backup --full`"), "{found}");
    let full = office.expect(0, &["--json", "backup", "--full"]).json();
    assert_eq!(full["stores"][0]["full"], true);
    office.expect(0, &["verify", "latest"]);
    office.expect(0, &["restore", "latest", "--to", "whole", "--identity", &office.key]);
    let id = pack.ancestors().nth(2).unwrap().file_name().unwrap().to_str().unwrap();
    office.expect(5, &["restore", id, "--to", "to", "--identity", &office.key]);
    std::fs::remove_file(&pack).unwrap();
    let missing = office.expect(5, &["verify", "--sample", "1"]);
    assert!(missing.stderr.contains("missing"), "{missing}");
}

#[test]
fn a_forged_generation_is_listed_as_refused_and_never_restored() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    let documents = office.stored("Z-");
    let document = documents.iter().find(|path| path.extension().is_some_and(|end| end == "json")).unwrap();
    let text = std::fs::read_to_string(document).unwrap();
    std::fs::write(document, text.replace("\"sequence\": 1", "\"sequence\": 9")).unwrap();
    let listed = office.expect(5, &["list"]);
    assert!(listed.stdout.contains("REFUSED"), "{listed}");
    office.expect(5, &["verify"]);
    let none = office.expect(5, &["restore", "latest", "--to", "to", "--identity", &office.key]);
    assert!(none.stderr.contains("none of them is known to be this site's"), "{none}");
    let id = document.file_stem().unwrap().to_str().unwrap();
    let refused = office.expect(5, &["restore", id, "--to", "to", "--identity", &office.key]);
    assert!(refused.stderr.contains("refused"), "{refused}");
}

#[test]
fn an_absent_drive_fails_its_store_and_no_other() {
    let office = Office::new();
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let other = office.world.make_folder("nas");
    let store = format!("[[store]]\nname = \"nas\"\ntype = \"directory\"\npath = \"{}\"\n", other.display());
    office.world.configure(&(config + &store));
    std::fs::rename(office.world.path("usb"), office.world.path("unplugged")).unwrap();
    let outcome = office.expect(4, &["--json", "backup"]);
    let report = outcome.json();
    assert_eq!((&report["stores"][0]["stored"], &report["stores"][1]["stored"]), (&false.into(), &true.into()));
    assert!(outcome.stderr.contains("is the drive connected"), "{outcome}");
    assert!(!outcome.stderr.contains("attempts"), "it waited for somebody to connect it\n{outcome}");
    office.expect(4, &["check"]);
    let status = office.expect(0, &["status"]);
    assert!(
        status.stdout.contains("FAILED (exit code 4)") && status.stdout.contains("is the drive connected"),
        "{status}"
    );
    let last = office.expect(0, &["--json", "status"]).json();
    assert_eq!((&last["last_run"]["exit_code"], &last["last_run"]["failed"][0]["store"]), (&4.into(), &"usb".into()));
    office.expect(0, &["restore", "latest", "--to", "to", "--from", "nas", "--identity", &office.key]);
}

#[test]
fn what_is_missing_from_a_generation_is_an_exit_code() {
    let office = Office::new();
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let source = "[[source]]\nname = \"dump\"\ntype = \"command\"\ncommand = [\"/bin/false\", \"{staging}\"]\n";
    office.world.configure(&(config + source));
    let outcome = office.expect(3, &["backup"]);
    assert!(outcome.stdout.contains("INCOMPLETE") && outcome.stdout.contains("dump"), "{outcome}");
    let restored = office.expect(0, &["restore", "latest", "--to", "to", "--identity", &office.key]);
    assert!(restored.stdout.contains("INCOMPLETE"), "{restored}");
}

#[test]
fn a_source_that_is_gone_keeps_no_other_from_being_copied_and_is_named_wherever_one_looks() {
    let office = Office::new();
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let away = office.world.path("no-server").display().to_string();
    let server = format!("[[source]]\nname = \"shop\"\ntype = \"mariadb\"\nhost = \"{away}\"\nuser = \"root\"\n");
    office.world.configure(&(config + &server));
    std::fs::rename(office.world.path("ledger.db"), office.world.path("moved.db")).unwrap();
    let outcome = office.expect(3, &["backup"]);
    for part in ["MISSING: ledger: ", "connect and mount the disk", "MISSING: shop: "] {
        assert!(outcome.stdout.contains(part), "`{part}` is not in {outcome}");
    }
    let warning = "INCOMPLETE: `ledger` is missing; `shop` is missing; everything else is in it\n  what to do: ";
    assert!(outcome.stderr.contains(warning), "{outcome}");
    let status = office.expect(0, &["status"]).stdout;
    assert!(status.contains("the last backup is INCOMPLETE: `ledger` is missing: "), "{status}");
    let check = office.expect(2, &["check"]);
    assert!(check.stderr.contains("ledger.db cannot be read") && check.stderr.contains("shop: "), "{check}");
    let report = office.expect(0, &["report", "--from", "2026-01-01"]).stdout;
    assert!(
        report.contains("INCOMPLETE: `ledger` is missing") || report.contains("ledger</code> is missing"),
        "{report}"
    );

    let key = office.key.as_str();
    let restore = |to: &str, more: &[&str]| {
        office.run(&[&["restore", "latest", "--to", to, "--identity", key][..], more].concat())
    };
    for (to, more) in [("all", &[][..]), ("part", &["--source", "documents"]), ("here", &["--from", "local"])] {
        let restored = restore(to, more);
        assert_eq!(restored.code, Some(0), "{restored}");
        assert!(restored.stdout.contains("NOT IN IT: `ledger` is missing: "), "{restored}");
        assert!(restored.stdout.contains("NOT IN IT: `shop` is missing: "), "{restored}");
    }
    let nothing = restore("none", &["--source", "ledger"]);
    assert_eq!(nothing.code, Some(1), "{nothing}");
    assert!(nothing.stderr.contains("this generation is incomplete, and `ledger` is missing"), "{nothing}");

    // Where nothing at all can be copied nothing is stored.
    office.world.configure(&std::fs::read_to_string(office.world.path("offsite.toml")).unwrap().replace(&server, ""));
    std::fs::rename(office.world.path("documents"), office.world.path("moved")).unwrap();
    let nothing = office.expect(2, &["backup"]);
    assert!(nothing.stderr.contains("the run was not begun, and nothing was written"), "{nothing}");
}

#[test]
fn a_folder_that_has_become_empty_is_no_perfect_backup_and_one_that_was_never_filled_is() {
    let office = Office::new();
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let inbox = office.world.make_folder("inbox").display().to_string();
    office.world.configure(&format!("{config}[[source]]\nname = \"inbox\"\ntype = \"folder\"\npath = \"{inbox}\"\n"));
    office.expect(0, &["backup"]);
    std::fs::rename(office.world.path("documents"), office.world.path("moved")).unwrap();
    office.world.make_folder("documents");
    let outcome = office.expect(3, &["backup"]);
    for part in
        ["MISSING: documents: the folder ", " is empty, and 40 files and folders were copied", "mount the share"]
    {
        assert!(outcome.stdout.contains(part), "`{part}` is not in {outcome}");
    }
    assert!(!outcome.stdout.contains("MISSING: inbox"), "{outcome}");
    assert!(outcome.stderr.contains("INCOMPLETE: `documents` is empty; everything else is in it"), "{outcome}");
    let status = office.expect(0, &["status"]).stdout;
    assert!(status.contains("the last backup is INCOMPLETE: `documents` is empty: the folder"), "{status}");
    // Until somebody says that it was meant.
    office.expect(3, &["backup"]);
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    office.world.configure(&config.replacen("type = \"folder\"", "type = \"folder\"\nmay_be_empty = true", 1));
    office.expect(0, &["backup"]);
}

#[test]
fn a_store_that_has_lost_what_it_held_gets_everything_anew_and_that_is_not_kept_quiet() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    std::fs::rename(office.world.path("usb"), office.world.path("real-usb")).unwrap();
    office.world.make_folder("usb");
    let report = office.expect(0, &["--json", "backup"]).json();
    assert_eq!((&report["stores"][0]["stored"], &report["stores"][0]["full"]), (&true.into(), &true.into()));
    let note = report["stores"][0]["notes"][0].as_str().unwrap();
    assert!(note.contains(" missing or cut short in usb") && note.contains("whether this is the right disk"), "{note}");
    let status = || office.expect(0, &["status"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status().contains("NEEDS ATTENTION") && status().contains(note), "{}", status());
    // The right one again: what the other got is not there.
    std::fs::rename(office.world.path("usb"), office.world.path("other-usb")).unwrap();
    std::fs::rename(office.world.path("real-usb"), office.world.path("usb")).unwrap();
    let outcome = office.expect(0, &["backup"]);
    assert!(
        outcome.stdout.contains("WARNING: ") && outcome.stdout.contains(" missing or cut short in usb"),
        "{outcome}"
    );
    let outcome = office.expect(0, &["backup"]);
    assert!(!outcome.stdout.contains("WARNING: ") && status().contains("all went well"), "{outcome}{}", status());
}

#[test]
fn what_this_account_may_not_read_is_found_before_a_run_finds_it() {
    let office = Office::new();
    tests::office::set_mode(&office.world.path("documents/letter-3.txt"), 0o000);
    // Root may read everything, until it gives that up.
    let script =
        "if [ \"$(id -u)\" = 0 ]; then set -- setpriv --inh-caps=-all --bounding-set=-all; fi\n\"$@\" offsite check";
    let outcome = office.world.shell(script).expect(2);
    for part in ["may not read one file or folder in ", "such as letter-3.txt", "setfacl -R -m u:", "by `exclude`"] {
        assert!(outcome.stderr.contains(part), "`{part}` is not in {outcome}");
    }
}

#[test]
fn a_generation_that_is_not_there_is_named() {
    let office = Office::new();
    let early = office.expect(1, &["restore", "latest", "--to", "to"]);
    assert!(early.stderr.contains("offsite list"), "{early}");
    office.expect(1, &["verify"]);
    office.expect(0, &["backup"]);
    let unknown = "20200101T000000Z-0000";
    let outcome = office.expect(1, &["restore", unknown, "--to", "to", "--identity", &office.key]);
    assert!(outcome.stderr.contains(unknown), "{outcome}");
    office.expect(2, &["restore", "yesterday", "--to", "to"]);
    office.expect(2, &["restore", "latest", "--to", "to", "--from", "nowhere", "--identity", &office.key]);
}

#[test]
fn a_new_machine_needs_the_sheet_and_a_key() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    let shown = office.expect(0, &["--json", "key", "show"]).json();
    let site_key = shown["site_key"].as_str().unwrap();
    // What the sheet says is enough, as it stands there.
    let sheet = office.expect(0, &["key", "sheet"]).stdout;
    let lines = sheet.split_once("--- offsite.toml ---\n").unwrap().1.split_once("--- end ---").unwrap().0;
    let printed = office.world.write("printed.toml", lines);
    let printed = printed.to_str().unwrap();
    let key = office.key.as_str();
    let by_sheet = ["--config", printed, "--json", "restore", "latest", "--to", "by-sheet", "--identity", key];
    assert_eq!(office.expect(0, &by_sheet).json()["signature_checked"], true);
    std::fs::remove_file(office.world.path("site.key")).unwrap();
    let usb = office.world.path("usb");
    let config = format!(
        "site = \"office\"\nstaging = \"{0}/s\"\nstate = \"{0}/t\"\n[signing]\npublic_key = \"{site_key}\"\n\
         [[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"{1}\"\n",
        office.world.path("new").display(),
        usb.display()
    );
    office.world.configure(&config);
    let restored = office.expect(0, &["--json", "restore", "latest", "--to", "to", "--identity", &office.key]).json();
    assert_eq!(restored["signature_checked"], true);
    office.world.configure(&config.replace(&format!("public_key = \"{site_key}\"\n"), ""));
    let unchecked = office.expect(0, &["list"]);
    assert!(unchecked.stdout.contains("signatures were not checked"), "{unchecked}");
    assert_ne!(office.run(&["backup"]).code, Some(0));
}

#[test]
fn a_lost_state_keeps_the_signing_key_and_a_lost_key_is_not_replaced_in_silence() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    std::fs::remove_dir_all(office.world.path("state")).unwrap();
    office.expect(0, &["backup"]);
    let listed = office.expect(0, &["--json", "list"]).json();
    assert_eq!(listed["generations"].as_array().unwrap().len(), 2, "{listed}");
    let key = office.world.path("site.key");
    std::fs::remove_file(&key).unwrap();
    let lost = office.expect(2, &["backup"]);
    assert!(lost.stderr.contains("offsite key site") && !key.exists(), "{lost}");
    office.expect(2, &["check"]);
    let status = office.expect(0, &["status"]).stdout;
    assert!(status.contains("FAILED (exit code 2)") && status.contains("signing.key"), "{status}");
    // Nor where nothing is said of it, but this machine knows of generations.
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let unsaid: String =
        config.lines().filter(|line| !line.starts_with("key = ")).map(|line| format!("{line}\n")).collect();
    office.world.configure(&unsaid);
    let lost = office.expect(2, &["backup"]);
    assert!(lost.stderr.contains("generations of this machine") && !key.exists(), "{lost}");
    office.expect(0, &["key", "site"]);
    assert!(key.exists());
    office.expect(2, &["key", "site"]);
}

#[test]
fn a_machine_without_memory_makes_a_signing_key_and_says_so() {
    let office = Office::new();
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let unsaid: String =
        config.lines().filter(|line| !line.starts_with("key = ")).map(|line| format!("{line}\n")).collect();
    office.world.configure(&unsaid);
    std::fs::remove_file(office.world.path("site.key")).unwrap();
    let first = office.expect(0, &["backup"]);
    assert!(first.stderr.contains("NEW SIGNING KEY") && office.world.path("site.key").exists(), "{first}");
}

#[test]
fn a_missing_secret_closes_its_store_and_no_other() {
    let office = Office::new();
    office.expect(0, &["backup"]);
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let cloud = "[[store]]\nname = \"cloud\"\ntype = \"s3\"\nbucket = \"b\"\naccess_key = \"a\"\nsecret_key = \"env:NOT_SET\"\n";
    office.world.configure(&config.replacen("[[store]]", &format!("{cloud}[[store]]"), 1));
    let key = ["--identity", office.key.as_str()];
    office.expect(0, &[&["restore", "latest", "--to", "one", "--from", "usb"][..], &key].concat());
    let any = office.expect(0, &[&["restore", "latest", "--to", "two"][..], &key].concat());
    assert!(any.stderr.contains("cloud cannot be opened"), "{any}");
    office.expect(2, &[&["restore", "latest", "--to", "three", "--from", "cloud"][..], &key].concat());
    let listed = office.expect(2, &["list"]);
    assert!(listed.stdout.contains("    usb        full, ") && listed.stderr.contains("NOT_SET"), "{listed}");
    let verified = office.expect(2, &["verify"]);
    assert!(verified.stdout.contains("all of it is whole") && verified.stderr.contains("NOT_SET"), "{verified}");
    office.expect(0, &["status"]);
    office.expect(0, &["key", "sheet"]);
    let backup = office.expect(2, &["--json", "backup"]).json();
    assert_eq!(backup["error"]["problems"][0]["key"], "store[1].secret_key");
}

#[test]
fn what_an_administrator_writes_into_the_state_of_an_account_belongs_to_the_account() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.configure(100, "");
    machine.backup(&[]).expect(0);
    let account = 12_345;
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(account), Some(account)).unwrap();
    let (state, staging) = (machine.world.path("state"), machine.world.path("staging"));
    let below = |folder: &Path| tests::office::paths(folder);
    for path in below(&state).iter().chain([&state, &staging]) {
        give(path);
    }
    machine.world.offsite(["verify"]).expect(0);
    machine.world.offsite(["status"]).expect(0);
    let owners = || below(&state).into_iter().map(|path| (std::fs::metadata(&path).unwrap().uid(), path));
    assert_eq!(owners().filter(|(owner, _)| *owner != account).collect::<Vec<_>>(), []);
    let log = std::fs::read(state.join("evidence.jsonl")).unwrap();
    let last = std::fs::read(state.join("last-run.json")).unwrap();
    let refused = machine.backup(&[]).expect(2);
    assert!(refused.stderr.contains("belongs to the account 12345"), "{refused}");
    assert!(!refused.stderr.contains("chmod"), "{refused}");
    assert_eq!(std::fs::read(state.join("evidence.jsonl")).unwrap(), log, "a refused run wrote into the log");
    assert_eq!(std::fs::read(state.join("last-run.json")).unwrap(), last);
}

#[test]
fn a_site_with_the_state_of_another_is_refused_and_leaves_it_alone() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.configure(100, "");
    machine.backup(&[]).expect(0);
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    machine.world.configure(&config.replacen("site = \"townhall\"", "site = \"other\"", 1));
    let state = machine.world.path("state");
    let kept =
        || ["evidence.jsonl", "evidence.head", "last-run.json"].map(|name| std::fs::read(state.join(name)).unwrap());
    let before = kept();
    for verb in ["check", "backup"] {
        let refused = machine.world.offsite([verb]).expect(2);
        assert!(refused.stderr.contains("belongs to the site `townhall`, not to `other`"), "{refused}");
        assert_eq!(kept(), before, "{verb} wrote into the state of another site");
    }
    assert!(!state.join("probe-far.json").exists());
}
