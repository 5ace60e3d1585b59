//! Configurations: the examples are good, and bad ones are refused as a whole, before anything is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use agent::config::{Config, KeeperConfig, Loaded, Problem};
use tests::servers::{USER, apache};
use tests::{World, tls};

const RECIPIENT: &str = "age1c6jmkffv5mrt7vecchjcghtzytyp5gxg0p909q8a6l39hq3cjczs06mx3h";

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(examples.len() >= 8, "{examples:?}");
    examples
}

/// As it is, but for the other files that it names.
fn read(world: &World, path: &Path) -> String {
    let recipients = world.write("recipients.txt", format!("# elsewhere\n{RECIPIENT}\n"));
    let holidays = world.write("holidays.ics", "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n");
    let text = std::fs::read_to_string(path).unwrap();
    text.replace("/etc/offsite/recipients.txt", &recipients.to_string_lossy())
        .replace("/etc/offsite/holidays.ics", &holidays.to_string_lossy())
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn every_example_is_a_good_configuration() {
    let world = World::new();
    for path in examples() {
        if path.ends_with("keeper.toml") {
            continue;
        }
        if let Err(problems) = Config::parse(&read(&world, &path), Path::new("/etc/offsite")) {
            panic!("{} is wrong:\n{}", path.display(), shown(&problems));
        }
    }
}

#[test]
fn the_keepers_example_is_good_and_misses_no_setting_of_its_own() {
    let world = World::new();
    let path = examples().into_iter().find(|path| path.ends_with("keeper.toml")).unwrap();
    world.write("sites/main-street.pub", "RWR0Ht98qYJ7Oy1Ro67DXkEacLMOxMO7NXhZk3fRE7sM0d2B/iuewiZO\n");
    let sites = world.path("sites").display().to_string();
    let text = std::fs::read_to_string(path).unwrap().replace("/etc/offsite/sites", &sites);
    let loaded =
        KeeperConfig::parse(&text, Path::new("/etc/offsite")).unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert_eq!(loaded.config.sites.len(), 1);
    let unset: Vec<_> =
        loaded.unset.iter().filter(|key| key.starts_with("keeper.") || !key.contains(['.', '('])).collect();
    assert!(unset.is_empty(), "examples/keeper.toml does not show {unset:?}");
}

#[test]
fn the_full_example_misses_no_setting() {
    let world = World::new();
    let path = examples().into_iter().find(|path| path.ends_with("full.toml")).unwrap();
    let text = read(&world, &path);
    let Loaded { unset, .. } =
        Config::parse(&text, Path::new("/etc/offsite")).unwrap_or_else(|problems| panic!("{}", shown(&problems)));
    let set = settings(&toml::from_str(&text).unwrap(), "");
    let missing: Vec<_> = unset.difference(&set).collect();
    assert!(missing.is_empty(), "examples/full.toml does not show {missing:?}");
}

/// The settings of a table as `store(s3).region`.
fn settings(table: &toml::Table, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(below) if prefix.is_empty() => found.extend(settings(below, &format!("{key}."))),
            toml::Value::Array(items) if prefix.is_empty() && items.iter().all(toml::Value::is_table) => {
                for item in items.iter().filter_map(toml::Value::as_table) {
                    let kind = item.get("type").and_then(toml::Value::as_str);
                    let kind = kind.map(|kind| format!("({kind})")).unwrap_or_default();
                    found.extend(settings(item, &format!("{key}{kind}.")));
                }
            }
            toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
                for item in items.iter().filter_map(toml::Value::as_table) {
                    found.extend(item.keys().map(|inner| format!("{prefix}{key}.{inner}")));
                }
            }
            _ => drop(found.insert(format!("{prefix}{key}"))),
        }
    }
    found
}

#[test]
fn every_setting_of_the_full_example_has_a_comment() {
    let path = examples().into_iter().find(|path| path.ends_with("full.toml")).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let mut explained: BTreeSet<&str> = ["name", "type", "path", "url", "user", "password", "token"].into();
    let mut commented = false;
    for line in text.lines() {
        let key = line.split_once(" = ").map(|(key, _)| key).filter(|key| !key.starts_with(['#', ' ']));
        if let Some(key) = key {
            assert!(commented || explained.contains(key), "`{key}` has no comment where it first stands");
            explained.insert(key);
        }
        // A comment explains all settings until the next empty line.
        commented = line.starts_with('#') || (commented && !line.is_empty());
    }
}

/// A world with a good configuration, of which a test makes a bad one.
fn office() -> (World, String) {
    let world = World::new();
    let documents = world.make_folder("documents");
    let store = world.make_folder("store");
    let text = format!(
        "site = \"office\"\nstaging = \"{}\"\nstate = \"{}\"\n[encryption]\nrecipients = [\"{RECIPIENT}\"]\n\
         [[source]]\nname = \"documents\"\ntype = \"folder\"\npath = \"{}\"\n\
         [[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"{}\"\n",
        world.path("staging").display(),
        world.path("state").display(),
        documents.display(),
        store.display(),
    );
    (world, text)
}

/// What `offsite check` finds, as keys.
fn keys_of_problems(world: &World, text: &str) -> Vec<String> {
    world.configure(text);
    let document = world.offsite(["--json", "check"]).expect(2).json();
    assert!(!world.path("staging").exists() && !world.path("state").exists(), "something was written");
    let problems = document["error"]["problems"].as_array().unwrap().clone();
    for problem in &problems {
        assert!(problem["what"].as_str().unwrap().len() > 20, "{problem} does not say what to do");
    }
    problems.iter().map(|problem| problem["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_good_configuration_passes() {
    let (world, text) = office();
    world.configure(&text);
    world.offsite(["check"]).expect(0);
}

#[test]
fn all_that_is_wrong_is_said_in_one_go() {
    let (world, text) = office();
    let text = text
        .replace("site = ", "sitte = 1\nsite = ")
        .replace(RECIPIENT, "age1notakey")
        .replace("type = \"folder\"", "type = \"folder\"\nexcludes = []")
        + "[[store]]\nname = \"dav\"\ntype = \"webdav\"\nurl = \"https://dav.example.org/\"\nuser = \"u\"\n\
           password = \"hunter2\"\n";
    let found = keys_of_problems(&world, &text);
    assert_eq!(found, ["sitte", "encryption.recipients", "source[1].excludes", "store[2].password"]);
    let outcome = world.offsite(["check"]).expect(2);
    assert!(outcome.stderr.contains("line 1: sitte") && outcome.stderr.contains("did you mean `site`?"), "{outcome}");
    assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
}

#[test]
fn a_configuration_without_recipients_is_refused() {
    let (world, text) = office();
    let without = text.replace(&format!("[encryption]\nrecipients = [\"{RECIPIENT}\"]\n"), "");
    assert_eq!(keys_of_problems(&world, &without), ["encryption.recipients"]);
    let empty = text.replace(&format!("\"{RECIPIENT}\""), "");
    assert_eq!(keys_of_problems(&world, &empty), ["encryption.recipients"]);
}

#[test]
fn a_secret_key_in_place_of_a_recipient_is_not_repeated() {
    let (world, text) = office();
    let secret = world.path("secret.txt");
    world.offsite(["key", "new", secret.to_str().unwrap()]).expect(0);
    let secret = std::fs::read_to_string(secret).unwrap().lines().last().unwrap().to_owned();
    world.configure(&text.replace(RECIPIENT, &secret));
    let outcome = world.offsite(["--json", "check"]).expect(2);
    assert!(outcome.stderr.contains("secret key"), "{outcome}");
    assert!(!outcome.to_string().contains(&secret), "{outcome}");
}

#[test]
fn what_is_not_there_is_found_before_the_run() {
    let (world, text) = office();
    let text = text
        + "[[source]]\nname = \"ledger\"\ntype = \"sqlite\"\npath = \"/no/such/ledger.db\"\n\
         [[source]]\nname = \"mail\"\ntype = \"command\"\ncommand = [\"/no/such/program\", \"{staging}\"]\n\
         [[store]]\nname = \"nas\"\ntype = \"directory\"\npath = \"/no/such/drive\"\n";
    assert_eq!(keys_of_problems(&world, &text), ["source[2].path", "source[3].command", "store[2].path"]);
}

#[test]
fn what_cannot_be_read_as_what_it_is_said_to_be_is_found_before_the_run() {
    let (world, text) = office();
    world.write("ledger.db", "these are no pages of a database");
    world.write("empty.db", "");
    let source = |name: &str, kind: &str, path: &str| {
        let path = world.path(path);
        format!("[[source]]\nname = \"{name}\"\ntype = \"{kind}\"\npath = \"{}\"\n", path.display())
    };
    // A database that nobody has written to yet is an empty file.
    let text = text
        + &source("no-database", "sqlite", "ledger.db")
        + &source("no-folder", "folder", "ledger.db")
        + &source("no-file", "sqlite", "documents")
        + &source("new", "sqlite", "empty.db");
    assert_eq!(keys_of_problems(&world, &text), ["source[2].path", "source[3].path", "source[4].path"]);
}

#[test]
fn a_store_that_refuses_or_does_not_answer_is_found_before_the_run() {
    let (world, text) = office();
    world.write("password", "not the password");
    let url = apache().collection("refused").urls.https_digest.unwrap();
    let store = |name: &str, url: &str, login: &str| {
        let (ca, password) = (tls::authority().ca.display(), world.path("password"));
        format!(
            "[[store]]\nname = \"{name}\"\ntype = \"webdav\"\nurl = \"{url}\"\nlogin = \"{login}\"\nuser = \"{USER}\"\n\
             password = \"file:{}\"\nca_file = \"{ca}\"\n",
            password.display()
        )
    };
    let text = text
        + &store("wrong-password", &url, "digest")
        + &store("wrong-login", &url, "basic")
        + &store("nobody-there", "https://127.0.0.1:9/", "basic");
    world.configure(&text);
    let outcome = world.offsite(["--json", "check"]).expect(4);
    let problems = outcome.json()["error"]["problems"].as_array().unwrap().clone();
    let keys: Vec<_> = problems.iter().map(|problem| problem["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["store[2].name", "store[3].name", "store[4].name"], "{outcome}");
    for (problem, words) in problems.iter().zip(["password", "login = \"digest\"", "url"]) {
        assert!(problem["what"].as_str().unwrap().contains(words), "`{words}` is not said\n{outcome}");
    }
    assert!(!world.path("staging").exists() && !world.path("state").exists(), "something was written");
    // With something wrong on this machine as well, all of it is said, and it is the configuration's fault.
    world.configure(&text.replace("/documents", "/no-documents"));
    let outcome = world.offsite(["--json", "check"]).expect(2);
    assert_eq!(outcome.json()["error"]["problems"].as_array().unwrap().len(), 4, "{outcome}");
}

#[test]
fn a_missing_secret_is_named_with_its_setting() {
    let (world, text) = office();
    let text = text
        + "[[source]]\nname = \"mail\"\ntype = \"command\"\ncommand = [\"/bin/true\", \"{staging}\"]\n\
           secret_env = { PGPASSWORD = \"env:NOT_SET\" }\n\
           [[store]]\nname = \"cloud\"\ntype = \"s3\"\nbucket = \"b\"\naccess_key = \"a\"\nsecret_key = \"file:/no/secret\"\n";
    assert_eq!(keys_of_problems(&world, &text), ["store[2].secret_key", "source[2].secret_env"]);
}

#[test]
fn a_missing_configuration_says_how_to_get_one() {
    let world = World::new();
    let outcome = world.offsite(["check"]).expect(2);
    assert!(outcome.stderr.contains("offsite init"), "{outcome}");
}

#[test]
fn what_is_no_file_or_has_no_end_is_no_configuration() {
    let world = World::new();
    let fifo = world.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let large = world.write("large.toml", "");
    std::fs::OpenOptions::new().write(true).open(&large).unwrap().set_len(1 << 40).unwrap();
    for (path, said) in [
        (Path::new("/dev/zero"), "it is no file"),
        (fifo.as_path(), "it is no file"),
        (world.path(".").as_path(), "it is no file"),
        (large.as_path(), "larger than any configuration"),
    ] {
        let refused = world.offsite(["--config", path.to_str().unwrap(), "list"]).expect(2);
        assert!(refused.stderr.contains(said) && refused.peak_kib < 100 << 10, "{}: {refused}", path.display());
    }
}
