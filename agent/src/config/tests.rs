//! Whole configurations, good and bad.

use std::fs;

use super::*;

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("offsite.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn problems(text: &str) -> Vec<String> {
    let (_folder, path) = write(text);
    match Config::load(&path) {
        Err(ConfigError::Wrong { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn office() -> String {
    format!(
        "site = \"office\"\n[encryption]\nrecipients = [\"{RECIPIENT}\"]\n\
         [[source]]\nname = \"docs\"\ntype = \"folder\"\npath = \"/srv/docs\"\n\
         [[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"/mnt/usb\"\n"
    )
}

#[test]
fn what_is_not_said_has_a_default() {
    let (_folder, path) = write(&office());
    let Loaded { config, unset } = Config::load(&path).unwrap();
    assert_eq!(config.place.staging, Path::new(STAGING));
    assert_eq!(config.place.signing_key, path.with_file_name("site.key"));
    assert_eq!((config.seal.level, config.seal.spool_bytes), (3, 1 << 30));
    assert_eq!((config.chain.days, config.chain.generations), (7, 100));
    assert_eq!(config.capture.hold_limit, Duration::from_millis(500));
    assert_eq!(config.place.stores[0].pack_bytes, 64 << 20);
    assert!(unset.contains("seal.level") && unset.contains("source(folder).include"));
}

#[test]
fn everything_is_reported_in_one_go() {
    let shown = problems(
        "staging = \"staging\"\n[capture]\nhold_limit = \"1 min\"\n[seal]\nlevle = 3\n\
         [[source]]\nname = \"Docs\"\ntype = \"folder\"\npath = \"/srv\"\nexclude = [\"[\"]\n\
         [[store]]\nname = \"s\"\ntype = \"s3\"\naccess_key = \"a\"\nsecret_key = \"hunter2\"\npack = \"1 KiB\"\n\
         [[store]]\nname = \"w\"\ntype = \"webdav\"\nurl = \"ftp://x/\"\nlogin = \"digest\"\n",
    );
    let starts = [
        "line 1: staging: `staging` is no absolute path",
        "line 3: capture.hold_limit: it has to be 2 s or less",
        "line 5: seal.levle: there is no such setting; did you mean `level`?",
        "line 7: source[1].name: `Docs` is no name of a source",
        "line 10: source[1].exclude: the pattern `[` cannot be read",
        "line 11: store[1].bucket: it is missing",
        "line 15: store[1].secret_key: a secret does not stand here",
        "line 16: store[1].pack: it has to be from 1 MiB to 4 GiB",
        "line 17: store[2].user: it is missing",
        "line 17: store[2].password: it is missing",
        "line 20: store[2].url: it has to be an address",
        "site: it is missing",
        "encryption.recipients: there is no recipient",
    ];
    for start in starts {
        assert!(shown.iter().any(|line| line.starts_with(start)), "{start}\n{}", shown.join("\n"));
    }
    assert_eq!(shown.len(), starts.len(), "{}", shown.join("\n"));
    assert!(!shown.join("\n").contains("hunter2"));
}

#[test]
fn a_line_that_is_not_toml_is_named_and_not_shown() {
    let shown = problems(&office().replace("[[store]]", "[[store]]\npassword = hunter2\n"));
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].starts_with("line 9: this is not TOML"), "{shown:?}");
    assert!(!shown.join("\n").contains("hunter2"), "{shown:?}");
}

#[test]
fn nothing_is_copied_into_itself() {
    let shown = problems(&office().replace("/mnt/usb", "/srv/docs/backup"));
    assert!(shown[0].starts_with("source[1].path: it contains the directory store"), "{shown:?}");
    for inside in ["staging = \"/mnt/usb/staging\"\n", "state = \"/mnt/usb/office\"\n", "staging = \"/mnt\"\n"] {
        let shown = problems(&format!("{inside}{}", office()));
        assert!(shown[0].starts_with("store[1].path: sta"), "{shown:?}");
        assert!(shown[0].ends_with("have to be two folders, neither within the other"), "{shown:?}");
    }
    let same = format!("{}[[store]]\nname = \"nas\"\ntype = \"directory\"\npath = \"/mnt/usb\"\n", office());
    assert_eq!(problems(&same), ["store[2].path: another store has this folder already; leave one of them out"]);
}

#[test]
fn names_are_used_once() {
    let twice = format!("{}[[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"/mnt/other\"\n", office());
    assert_eq!(problems(&twice), ["store.name: two of them are called `usb`; rename one"]);
}

#[test]
fn the_rule_that_names_a_site_most_exactly_counts() {
    let (folder, path) = write("");
    for site in ["clinic-1", "clinic-10", "library", "townhall"] {
        let key = "RWR0Ht98qYJ7Oy1Ro67DXkEacLMOxMO7NXhZk3fRE7sM0d2B/iuewiZO\n";
        fs::create_dir_all(folder.path().join("sites")).unwrap();
        fs::write(folder.path().join(format!("sites/{site}.pub")), key).unwrap();
    }
    let read = |rules: &str| {
        let store = "[[store]]\nname = \"a\"\ntype = \"directory\"\npath = \"/mnt/a\"\n";
        let head = "[office]\ntime_zone = \"UTC\"\n[rolling]\ndaily = 1\nweekly = 5\nmin_age = \"3 days\"\n";
        KeeperConfig::parse(&format!("{head}{rules}{store}"), path.parent().unwrap())
    };
    let config = read(
        "[[rules]]\nsites = [\"clinic-*\", \"library\"]\n[rules.rolling]\ndaily = 2\n\
         [[rules]]\nsites = [\"clinic-1\"]\n[rules.rolling]\ndaily = 3\n[rules.brake]\nshrink_percent = 7\n\
         [rules.office]\ntime_zone = \"Europe/Berlin\"\n[[rules]]\nsites = [\"clinic-10*\"]\n[rules.rolling]\ndaily = 4\n",
    );
    let config = config.unwrap().config;
    let daily = |site: &str| config.own.get(&site.parse().unwrap()).map(|own| (own.rules.daily, own.rules.weekly));
    let found = ["clinic-1", "clinic-10", "library", "townhall"].map(daily);
    assert_eq!(found, [Some((3, 5)), Some((4, 5)), Some((2, 5)), None]);
    let one = &config.own[&"clinic-1".parse().unwrap()];
    assert_eq!((one.limits.shrink_percent, one.rules.min_age), (7, Some(crate::calendar::Age::days(3))));
    assert_eq!(one.calendar.zone().iana_name(), Some("Europe/Berlin"));
    for (rules, what) in [
        ("[[rules]]\nsites = [\"clinc-*\"]\n", "`clinc-*` fits no site"),
        ("[[rules]]\nsites = [\"library\"]\n[[rules]]\nsites = [\"library\"]\n", "library has two rules of its own"),
        ("[[rules]]\n[rules.rolling]\ndaily = 1\n", "sites: it is missing"),
        ("[local]\nlast = 1\n", "local: "),
        ("[[archival]]\nevery = \"month\"\nlifetime = \"1 year\"\n", "archival: "),
    ] {
        let problems = read(rules).unwrap_err();
        assert!(problems.len() == 1 && problems[0].to_string().contains(what), "{problems:?}");
    }
}

#[test]
fn a_lock_does_not_outlast_what_has_to_be_gone() {
    let with = |lock: &str, more: &str| {
        let store = format!("type = \"s3\"\nbucket = \"b\"\nlock = {{ mode = \"governance\", {lock} }}\n{more}");
        office().replace("type = \"directory\"\npath = \"/mnt/usb\"\n", &store)
    };
    let shown = problems(&with("rolling = \"84 days\"", "[rolling]\nmax_age = \"90 days\"\n"));
    assert!(shown.len() == 1 && shown[0].starts_with("store[1].lock: rolling = \"84 days\" and"), "{shown:?}");
    let (_folder, path) = write(&with("rolling = \"83 days\"", "[rolling]\nmax_age = \"90 days\"\n"));
    assert_eq!(lock_notes(&Config::load(&path).unwrap().config), []);

    let rules = "[rolling]\nmin_age = \"40 days\"\n[[archival]]\nevery = \"year\"\nlifetime = \"for ever\"\n\
                 [[archival]]\nevery = \"month\"\nlifetime = \"10 years\"\n";
    let notes = |lock: &str| -> Vec<String> {
        let (_folder, path) = write(&with(lock, rules));
        lock_notes(&Config::load(&path).unwrap().config).into_iter().map(|note| note.what).collect()
    };
    let all = notes("archival = \"5 years\", rolling = \"30 days\"");
    let begins = [
        "archival generations that are kept for ever are locked for 5 years",
        "archival generations with a lifetime of 10 years are locked for just that",
        "[rolling] min_age keeps everything for 40 days, but it is locked for 30 days",
    ];
    assert_eq!(all.len(), begins.len(), "{all:?}");
    assert!(all.iter().zip(begins).all(|(note, begin)| note.starts_with(begin)), "{all:?}");
    assert!(notes("rolling = \"40 days\"").iter().all(|note| note.contains("are not locked here")));
    assert_eq!(notes("archival = \"10 years\", rolling = \"40 days\"").len(), 1);
}

#[test]
fn a_rotation_has_disks_that_can_be_told_apart() {
    let with =
        |slots: &str| office().replace("path = \"/mnt/usb\"\n", &format!("path = \"/mnt/usb\"\nslots = {slots}\n"));
    let (_folder, path) = write(&with("[\"mon\", \"tue\"]"));
    let config = Config::load(&path).unwrap().config;
    assert_eq!(config.place.stores[0].slots().iter().map(ToString::to_string).collect::<Vec<_>>(), ["mon", "tue"]);
    assert_eq!(config.place.stores[0].limits(&config.place.retention.limits).newest_age.to_string(), "6 days");
    for (slots, what) in [
        ("[\"mon\"]", "a rotation has two disks or more"),
        ("[\"mon\", \"tue\", \"mon\"]", "`mon` stands there twice"),
        ("[\"mon\", \"tue\", \"w.1\"]", "`w.1` is too long, or has a dot"),
        ("[\"mon\", \"tue\", \"Wed\"]", "`Wed` is no name of a slot"),
    ] {
        let shown = problems(&with(slots));
        assert!(shown.len() == 1 && shown[0].contains(what), "{shown:?}");
    }
    let shadowed =
        format!("{}[[store]]\nname = \"usb.x\"\ntype = \"directory\"\npath = \"/mnt/other\"\n", with("[\"a\", \"b\"]"));
    assert!(problems(&shadowed)[0].contains("begins like those of the disks of usb"));
}

#[test]
fn restoring_needs_neither_sources_nor_recipients() {
    let store = "site = \"office\"\n[[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"/mnt/usb\"\n";
    let (_folder, path) = write(store);
    assert_eq!(Place::load(&path).unwrap().config.stores.len(), 1);
    let (_folder, path) = write(&office());
    assert!(Place::load(&path).is_ok());
    assert!(!problems(store).is_empty());
}

#[test]
fn a_missing_secret_is_a_problem_of_its_setting() {
    let text = office().replace(
        "[[store]]",
        "[[store]]\nname = \"dav\"\ntype = \"webdav\"\nurl = \"https://dav.example.org/\"\nuser = \"u\"\n\
         password = \"env:OFFSITE_TEST_NO_SUCH_VARIABLE\"\n[[store]]",
    );
    let (_folder, path) = write(&text);
    let missing = Config::load(&path).unwrap().config.missing_secrets();
    assert_eq!(
        missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["store[1].password: the environment variable OFFSITE_TEST_NO_SUCH_VARIABLE is not set"]
    );
}

#[test]
fn a_server_is_elsewhere_unless_its_host_says_that_it_is_here() {
    let is_elsewhere = |settings: &str| {
        let source = format!("{}[[source]]\nname = \"ledger\"\n{settings}\n", office());
        let (_folder, path) = write(&source);
        Config::load(&path).unwrap().config.sources[1].may_be_elsewhere()
    };
    for kind in ["postgres", "mariadb"] {
        let server = |host: &str| is_elsewhere(&format!("type = \"{kind}\"\n{host}"));
        for host in ["", "host = \"/run/server\"", "host = \"localhost\"", "host = \"127.0.0.1\"", "host = \"::1\""] {
            assert!(!server(host), "{kind} {host}");
        }
        assert!(server("host = \"db.example.org\"") && server("host = \"192.168.1.5\""), "{kind}");
    }
    assert!(!is_elsewhere("type = \"command\"\ncommand = [\"/bin/true\"]\nstdout = \"x\""));
}
