//! The program as a person meets it: first steps, keys, help.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{World, offsite_program};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Arguments of `init` for a folder, two keys and a directory store, all in the world's own folders.
fn init_arguments(world: &World) -> Vec<String> {
    world.make_folder("documents");
    world.make_folder("usb");
    let path = |name: &str| world.path(name).display().to_string();
    let mut arguments = vec!["init".to_owned(), "--site".to_owned(), "main-street".to_owned()];
    for (option, value) in [
        ("--source", path("documents")),
        ("--store", path("usb")),
        ("--new-identity", path("keys/office.txt")),
        ("--new-identity", path("keys/elsewhere.txt")),
        ("--staging", path("staging")),
        ("--state", path("state")),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    arguments
}

#[test]
fn init_writes_what_check_accepts() {
    let world = World::new();
    let written = world.offsite(init_arguments(&world)).expect(0);
    for file in ["offsite.toml", "keys/office.txt", "keys/elsewhere.txt", "site.key", "recovery-sheet.html"] {
        assert_eq!(mode(&world.path(file)), 0o600, "{file}");
        assert!(written.stdout.contains(file), "{file} is not named\n{written}");
    }
    for folder in ["staging", "state", "keys"] {
        assert_eq!(mode(&world.path(folder)), 0o700, "{folder}");
    }
    world.offsite(["check"]).expect(0);
    let jobs = |world: &World| -> Vec<String> {
        let status = world.offsite(["--json", "status"]).expect(0).json();
        let jobs = status["schedule"]["jobs"].as_array().unwrap();
        jobs.iter().map(|job| job["run"].as_array().unwrap()[0].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(jobs(&world), ["backup", "prune", "verify", "check"]);
    assert!(written.stdout.contains("do it each month; FILE is a secret key"), "{written}");
    let sheet = std::fs::read_to_string(world.path("recovery-sheet.html")).unwrap();
    assert!(sheet.contains("main-street") && sheet.contains("age1") && !sheet.contains("AGE-SECRET-KEY-1Q"));
    assert!(!sheet.contains("AGE-SECRET-KEY-1") || sheet.contains("AGE-SECRET-KEY-1..."), "{sheet}");
}

/// From `init` to what the schedule is to do by itself, each job once.
#[test]
fn every_job_that_init_writes_does_its_work() {
    let world = World::new();
    let mut arguments = init_arguments(&world);
    let key = world.path("keys/office.txt").display().to_string();
    let nowhere = [arguments.clone(), vec!["--drill-identity".to_owned(), world.path("no").display().to_string()]];
    assert!(world.offsite(nowhere.concat()).expect(2).stderr.contains("there is no file"));
    arguments.extend(["--drill-identity".to_owned(), key.clone()]);
    let written = world.offsite(arguments).expect(0);
    assert!(written.stdout.contains(&format!("drill --identity {key}")), "{written}");
    let config = std::fs::read_to_string(world.path("offsite.toml")).unwrap();
    let scratch = format!("[drill]\nscratch = \"{}\"", world.path("scratch").display());
    world.configure(&config.replace("[drill]", &scratch));
    let jobs = world.offsite(["--json", "status"]).expect(0).json()["schedule"]["jobs"].clone();
    let runs: Vec<Vec<&str>> = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["run"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect())
        .collect();
    assert_eq!(runs.iter().map(|run| run[0]).collect::<Vec<_>>(), ["backup", "prune", "verify", "check", "drill"]);
    for run in runs {
        world.offsite(run).expect(0);
    }
    let log = std::fs::read_to_string(world.path("state/evidence.jsonl")).unwrap();
    // Where nothing had to go, prune has nothing to show.
    for kind in ["run", "verify", "probe", "drill"] {
        assert!(log.contains(&format!("\"kind\":\"{kind}\"")), "{kind} left no evidence\n{log}");
    }
    let status = world.offsite(["status"]).expect(0).stdout;
    assert!(!status.contains("FAILED") && status.contains("Last drill"), "{status}");
}

/// A person at a terminal, whose every second answer is wrong.
#[test]
fn init_says_what_is_wrong_with_an_answer_when_it_is_given() {
    let world = World::new();
    for folder in ["documents", "old/documents", "usb"] {
        world.make_folder(folder);
    }
    world.write("taken.txt", "something of value");
    let path = |name: &str| world.path(name).display().to_string();
    let answers = [
        "Main Street".to_owned(),
        "main-street".to_owned(),
        path("no-folder"),
        path("documents"),
        path("old/documents"),
        String::new(),
        path("no-drive"),
        "https://me:secret@dav.example.org/".to_owned(),
        path("usb"),
        String::new(),
        "age1notakey".to_owned(),
        path("taken.txt"),
        path("office.txt"),
        path("office.txt"),
        path("elsewhere.txt"),
        path("usb"),
        path("office.txt"),
    ];
    let command =
        format!("{} init --staging {} --state {}", offsite_program().display(), path("staging"), path("state"));
    let mut terminal = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(world.path(""))
        .env("OFFSITE_CONFIG", world.path("offsite.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = terminal.stdin.take().unwrap();
    keyboard.write_all((answers.join("\n") + "\n").as_bytes()).unwrap();
    let output = terminal.wait_with_output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success(), "{screen}");
    let said = [
        "no-folder is neither a folder nor an SQLite database",
        "no-drive is not there",
        "name and password do not belong into the address",
        "taken.txt is taken",
        "office.txt is taken",
        "usb is none of the keys above",
    ];
    for said in said {
        assert!(screen.contains(said), "`{said}` was not said\n{screen}");
    }
    assert_eq!(std::fs::read_to_string(world.path("taken.txt")).unwrap(), "something of value");
    let checked = world.offsite(["--json", "check"]).expect(0).json();
    let names: Vec<_> = checked["sources"].as_array().unwrap().iter().map(|source| source["name"].as_str()).collect();
    assert_eq!(names, [Some("documents"), Some("documents-2")]);
    // On one disk, and with the keys still here: said, and no failure.
    let notes: Vec<_> = checked["notes"].as_array().unwrap().iter().map(|note| note["key"].as_str().unwrap()).collect();
    assert_eq!(notes, ["store[1].path", "encryption.recipients", "encryption.recipients"], "{checked}");
}

#[test]
fn init_never_overwrites() {
    let world = World::new();
    world.offsite(init_arguments(&world)).expect(0);
    let before = std::fs::read(world.path("offsite.toml")).unwrap();
    let outcome = world.offsite(init_arguments(&world)).expect(2);
    for file in ["offsite.toml", "keys/office.txt", "keys/elsewhere.txt", "recovery-sheet.html"] {
        assert!(outcome.stderr.contains(file), "{file} is not named\n{outcome}");
    }
    assert!(!outcome.stderr.contains("site.key"), "the key of the site is not to be moved away\n{outcome}");
    assert_eq!(std::fs::read(world.path("offsite.toml")).unwrap(), before);
    // Without a configuration, the signing key that is there stays the site's.
    let key = std::fs::read(world.path("site.key")).unwrap();
    for file in ["offsite.toml", "keys/office.txt", "keys/elsewhere.txt", "recovery-sheet.html"] {
        std::fs::remove_file(world.path(file)).unwrap();
    }
    world.offsite(init_arguments(&world)).expect(0);
    assert_eq!(std::fs::read(world.path("site.key")).unwrap(), key);
}

#[test]
fn init_insists_on_a_second_key_and_on_answers() {
    let world = World::new();
    let mut arguments = init_arguments(&world);
    let second = arguments.iter().rposition(|argument| argument == "--new-identity").unwrap();
    arguments.drain(second..second + 2);
    let outcome = world.offsite(&arguments).expect(2);
    assert!(outcome.stderr.contains("only one key"), "{outcome}");
    assert!(!world.path("offsite.toml").exists() && !world.path("keys").exists());
    arguments.push("--one-key-is-enough".to_owned());
    world.offsite(&arguments).expect(0);
    // Nobody is there to be asked.
    let empty = World::new();
    let outcome = empty.offsite(["--json", "init"]).expect(2);
    let problems = outcome.json()["error"]["problems"].as_array().unwrap().len();
    assert_eq!(problems, 4, "{outcome}");
}

#[test]
fn keys_are_those_of_age() {
    let world = World::new();
    world.offsite(init_arguments(&world)).expect(0);
    let shown = world.offsite(["--json", "key", "show"]).expect(0).json();
    let recipients = shown["recipients"].as_array().unwrap().clone();
    assert_eq!(recipients.len(), 2);
    // age's own program derives the same public key, and opens what it sealed to it.
    let secret = world.path("keys/office.txt");
    let derived = Command::new("age-keygen").arg("-y").arg(&secret).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&derived.stdout).trim(), recipients[0].as_str().unwrap());
    let proof = world.offsite(["--json", "key", "check", "--identity", secret.to_str().unwrap()]).expect(0).json();
    assert_eq!(proof["opens"], serde_json::json!([recipients[0]]));
    assert_eq!(proof["cannot_open"], serde_json::json!([recipients[1]]));
}

#[test]
fn an_identity_that_opens_nothing_is_told_from_one_that_does() {
    let world = World::new();
    world.offsite(init_arguments(&world)).expect(0);
    let stranger = world.path("stranger.txt");
    world.offsite(["key", "new", stranger.to_str().unwrap()]).expect(0);
    let outcome = world.offsite(["key", "check", "--identity", stranger.to_str().unwrap()]).expect(5);
    assert!(outcome.stderr.contains("opens nothing"), "{outcome}");
}

#[test]
fn a_secret_key_under_a_passphrase_is_one_that_age_opens() {
    let world = World::new();
    let passphrase = world.write("passphrase", "correct horse\n");
    let (file, place) = (world.path("protected.age"), format!("file:{}", passphrase.display()));
    let file = file.to_str().unwrap();
    let new = world.offsite(["key", "new", file, "--passphrase", &place]).expect(0);
    let shown = world.offsite(["key", "show", file, "--passphrase", &place]).expect(0);
    assert_eq!(new.stdout, shown.stdout);
    assert!(std::fs::read(file).unwrap().starts_with(b"age-encryption.org/v1\n-> scrypt "));
    let nobody = world.offsite(["key", "show", file]).expect(2);
    assert!(nobody.stderr.contains("--passphrase"), "{nobody}");
    let wrong = world.write("wrong", "wrong horse\n");
    world.offsite(["key", "show", file, "--passphrase", &format!("file:{}", wrong.display())]).expect(1);
    let clear = world.offsite(["key", "new", "x", "--passphrase", "hunter2"]).expect(2);
    assert!(!world.path("x").exists(), "{clear}");
}

#[test]
fn the_site_key_is_one_of_minisign() {
    let world = World::new();
    let key = agent::sign::SiteKey::generate().unwrap();
    let data = world.write("generation.json", b"{}\n");
    world.write("generation.json.minisig", key.sign(b"{}\n", "sequence 7").unwrap());
    let check = |public: &str| {
        let mut minisign = Command::new("minisign");
        minisign.args(["-V", "-P", public, "-m"]).arg(&data).stdin(Stdio::null()).output().unwrap()
    };
    let good = check(&key.public().to_string());
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).contains("sequence 7"));
    assert!(!check(&agent::sign::SiteKey::generate().unwrap().public().to_string()).status.success());
}

#[test]
fn the_recovery_sheet_holds_the_secret_only_when_told_to() {
    let world = World::new();
    world.offsite(init_arguments(&world)).expect(0);
    let secret_file = world.path("keys/office.txt");
    let secret = std::fs::read_to_string(&secret_file).unwrap().lines().last().unwrap().to_owned();
    let without = world.offsite(["key", "sheet"]).expect(0);
    assert!(!without.stdout.contains(&secret));
    let arguments = ["key", "sheet", "--identity", secret_file.to_str().unwrap(), "--output", "sheet.txt"];
    let with = world.offsite(arguments).expect(0);
    assert!(!with.to_string().contains(&secret), "{with}");
    assert!(std::fs::read_to_string(world.path("sheet.txt")).unwrap().contains(&secret));
    assert_eq!(mode(&world.path("sheet.txt")), 0o600);
    world.offsite(arguments).expect(1);
    // A key that opens nothing would make a sheet that opens nothing.
    let stranger = world.path("stranger.txt");
    let stranger = stranger.to_str().unwrap();
    world.offsite(["key", "new", stranger]).expect(0);
    let refused = world.offsite(["key", "sheet", "--identity", stranger, "--output", "other.txt"]).expect(5);
    assert!(refused.stderr.contains("opens nothing") && !world.path("other.txt").exists(), "{refused}");
}

#[test]
fn the_man_page_and_completions_name_every_verb() {
    let world = World::new();
    let help = world.offsite(["--help"]).expect(0).stdout;
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"init") && verbs.contains(&"key"), "{verbs:?}");
    let man = world.offsite(["man"]).expect(0).stdout;
    for shell in ["bash", "zsh", "fish"] {
        let script = world.offsite(["completions", shell]).expect(0).stdout;
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        assert!(man.contains(&format!(".SH \"OFFSITE {}\"", verb.to_uppercase())), "{verb}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let world = World::new();
    world.offsite(["no-such-verb"]).expect(2);
    world.offsite::<&str>([]).expect(2);
}

#[test]
fn the_demo_shows_the_whole_main_job() {
    let world = World::new();
    let outcome = world.offsite(["--json", "demo", "demo"]).expect(0);
    let shown = outcome.json();
    assert_eq!(shown["generations"].as_array().unwrap().len(), 2);
    assert_eq!(shown["generations"][0]["stores"][0]["full"], true);
    assert_eq!(shown["generations"][1]["stores"][0]["full"], false);
    assert_eq!(shown["restored"]["documents"], 241);
    assert!(outcome.stderr.contains("Nobody who wrote to a database saw an error"), "{outcome}");
    // What it says a person can do afterwards.
    let config = world.path("demo/offsite.toml");
    let config = config.to_str().unwrap();
    let listed = world.offsite(["--config", config, "--json", "list"]).expect(0).json();
    assert_eq!(listed["generations"].as_array().unwrap().len(), 2);
    world.offsite(["--config", config, "check"]).expect(0);
    world.offsite(["--config", config, "status"]).expect(0);
    let identity = world.path("demo/secret-key.txt");
    let path = ["--path", "documents/letters/letter-000.txt"];
    let again = ["--config", config, "restore", "latest", "--to", "again", "--identity", identity.to_str().unwrap()];
    world.offsite(again.iter().chain(&path)).expect(0);
    let letter = std::fs::read(world.path("again/documents/letters/letter-000.txt")).unwrap();
    assert_eq!(letter, std::fs::read(world.path("demo/office/documents/letters/letter-000.txt")).unwrap());
    // A folder that is there is left alone.
    world.offsite(["demo", "demo"]).expect(2);
}

#[test]
fn programs_are_told_of_a_wrong_command_line_as_of_every_failure() {
    let world = World::new();
    for wrong in [&["--json", "list", "--nonsense"][..], &["list", "--json", "--from", "-"], &["--json", "nonsense"]] {
        let refused = world.offsite(wrong).expect(2);
        let document = refused.json();
        assert_eq!((&document["exit_code"], &document["error"]["kind"]), (&2.into(), &"usage".into()), "{refused}");
        let message = document["error"]["messages"][0].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains("error:") && refused.stderr.contains(message), "{refused}");
    }
    assert_eq!(world.offsite(["list", "--nonsense"]).expect(2).stdout, "");
    assert!(world.offsite(["--json", "--help"]).expect(0).stdout.contains("Usage:"));
}
