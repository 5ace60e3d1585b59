//! What the evidence log holds after runs, good and bad.

use agent::evidence::{History, Log, Prune, Record, Run};
use agent::sign::SiteKey;
use tests::Rng;
use tests::machine::{Machine, Refusing};
use tests::servers::Sink;

use crate::reports::{self, mail};

/// The log of a machine, its signatures checked.
fn history(machine: &Machine) -> History {
    let key = SiteKey::load(&machine.world.path("site.key")).unwrap();
    let history = Log::new(&machine.world.path("state")).read(Some(key.public())).unwrap();
    assert_eq!((history.findings.len(), history.signed), (0, Some(history.entries.len() as u64)), "{history:?}");
    history
}

fn runs(history: &History) -> Vec<&Run> {
    let records = history.iter().map(|entry| &entry.record);
    records.filter_map(|record| if let Record::Run(run) = record { Some(run) } else { None }).collect()
}

#[test]
fn every_run_leaves_an_entry_whether_it_was_good_or_not() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("one"), Rng::new(5).bytes(50_000)).unwrap();
    let good = machine.backup(&["--label", "first"]).expect(0).json();
    let refusing = Refusing::new(&machine.world.path("store"));
    machine.backup(&[]).expect(4);
    drop(refusing);
    // There is nothing to copy.
    std::fs::rename(machine.source(), machine.world.path("elsewhere")).unwrap();
    machine.backup(&[]).expect(2);
    std::fs::rename(machine.world.path("elsewhere"), machine.source()).unwrap();
    // Two of the same kind are one line, and no name of a file is kept.
    for name in ["pipe-one", "pipe-two"] {
        let (pipe, kind) = (machine.source().join(name), rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, pipe, kind, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    }
    machine.backup(&[]).expect(0);

    let history = history(&machine);
    let text = std::fs::read_to_string(Log::new(&machine.world.path("state")).path()).unwrap();
    assert!(!text.contains("pipe-one"), "{text}");
    let runs = runs(&history);
    let codes: Vec<u8> = runs.iter().map(|run| run.exit_code).collect();
    assert_eq!(codes, [0, 4, 2, 0]);
    let generation = runs[0].generation.as_ref().unwrap();
    assert_eq!(generation.id, good["generation"]["id"].as_str().unwrap());
    assert_eq!((generation.label.as_deref(), generation.sources.len()), (Some("first"), 1));
    assert!(runs[0].stores[0].stored && runs[0].stores[0].sent_bytes > Some(50_000), "{:?}", runs[0]);
    assert!(!runs[1].stores[0].stored && !runs[1].stores[0].messages.is_empty(), "{:?}", runs[1]);
    assert!(runs[2].generation.is_none() && runs[2].messages.concat().contains("cannot be read"), "{:?}", runs[2]);
    let problems = &runs[3].generation.as_ref().unwrap().problems;
    assert_eq!((problems.len(), problems[0].files), (1, Some(2)), "{problems:?}");
}

#[test]
fn what_retention_removed_and_what_stopped_it_is_kept() {
    let machine = Machine::new();
    let rules = |percent: u8| {
        format!(
            "[rolling]\nlast = 1\nworking_days = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n[local]\nlast = 1\nworking_days = 0\n\
             floor = 1\n[brake]\nremove_percent = {percent}\n"
        )
    };
    machine.configure(1, &rules(10));
    for night in ["monday", "tuesday", "wednesday"] {
        std::fs::write(machine.source().join(night), night).unwrap();
        machine.backup(&[]).expect(0);
    }
    machine.world.offsite(["prune", "--dry-run"]).run();
    assert_eq!(history(&machine).entries.len(), 3, "looking is no deed");
    machine.world.offsite(["prune"]).expect(1);
    machine.configure(1, &rules(100));
    let first = machine.list()[0].generation.to_string();
    machine.world.offsite(["prune"]).expect(0);
    let history = history(&machine);
    let records = history.iter().map(|entry| &entry.record);
    let prunes: Vec<&Prune> =
        records.filter_map(|record| if let Record::Prune(prune) = record { Some(prune) } else { None }).collect();
    let far: Vec<&&Prune> = prunes.iter().filter(|prune| prune.store == "far").collect();
    assert_eq!((far.len(), far[0].removed.len(), far[1].removed.len(), far[1].kept), (2, 0, 2, 1), "{prunes:?}");
    assert!(!far[0].refused.is_empty() && far[1].removed.contains(&first) && far[1].freed_bytes > 0, "{prunes:?}");
    assert!(prunes.iter().any(|prune| prune.store == "local" && prune.removed.len() == 2), "{prunes:?}");
}

#[test]
fn the_auditor_sees_what_was_done_and_whether_the_log_is_whole() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("one"), Rng::new(5).bytes(50_000)).unwrap();
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store.clone() + "\nphi = true\n");
    machine.configure(100, "");
    let refused = machine.world.offsite(["--json", "backup"]).expect(2).json();
    assert_eq!(refused["error"]["problems"][0]["key"], "store[1].phi");
    let agreed = "\nphi = true\nbaa = { with = \"Example <Storage> Inc.\", signed = 2026-01-15 }\n";
    machine.world.write("store.toml", store + agreed);
    machine.configure(100, "");
    let good = machine.backup(&[]).expect(0).json();
    machine.world.offsite(["verify"]).expect(0);
    let report = |more: &[&str]| machine.world.offsite([&["report", "--from", "2026-01-01"], more].concat());
    let file = machine.world.path("report.html");
    report(&["--output", file.to_str().unwrap()]).expect(0);
    let page = std::fs::read_to_string(&file).unwrap();
    for part in [
        good["generation"]["id"].as_str().unwrap(),
        "with Example &lt;Storage&gt; Inc., signed 2026-01-15",
        "164.308(a)(7)(ii)(A)",
        "3-2-1-1-0",
        "1: the data itself; not counted: ",
        "the office&#39;s own copies lie on ",
        "The evidence log is whole, 2 entries.",
        "2 of 2 signed by the site&#39;s key",
        "1 rolling and 0 archival",
        "rolling, in every store: the newest 7, the last of each of 10 working days, the last of each of 14 days",
        "data in far read again",
    ] {
        assert!(page.contains(part), "`{part}` is not in {page}");
    }
    for foreign in ["src=", "href=", "url(", "<script", "http:", "https:"] {
        assert!(!page.contains(foreign), "{foreign} is in the page");
    }
    report(&["--output", file.to_str().unwrap()]).expect(1);
    report(&["--to", "2025-12-31"]).expect(2);

    let log = machine.world.path("state/evidence.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen("\"exit_code\":0", "\"exit_code\":3", 1)).unwrap();
    let changed = report(&[]).expect(0).stdout;
    assert!(changed.contains("THE EVIDENCE LOG IS NOT WHOLE: entry 1 is not what was signed: changed"), "{changed}");
    std::fs::write(&log, text.lines().next().unwrap().to_owned() + "\n").unwrap();
    let cut = report(&[]).expect(0).stdout;
    assert!(cut.contains("the log ends with entry 1, and its signed head says 2: the end was cut off"), "{cut}");
}

#[test]
fn what_was_done_while_the_key_was_away_is_told_the_same_everywhere() {
    let sink = Sink::start();
    let machine = reports::machine(&sink, &mail("boss", "every run"));
    machine.backup(&[]).expect(0);
    let (key, away) = (machine.world.path("site.key"), machine.world.path("away.key"));
    std::fs::rename(&key, &away).unwrap();
    machine.backup(&[]).expect(2);
    let mailed = || reports::text(sink.mails().last().unwrap(), "text").to_owned();
    let status = || machine.world.offsite(["status"]).expect(0).stdout;
    let page = || machine.world.offsite(["report", "--from", "2026-01-01"]).expect(0).stdout.replace("&#39;", "'");
    let clause = "entry 2 is not signed, because the site's key was away when it was added";
    for told in [mailed(), status(), page()] {
        assert!(told.contains(clause) && !told.contains("NOT WHOLE"), "{told}");
    }
    assert!(status().contains("put the site's signing key back"), "{}", status());
    std::fs::rename(&away, &key).unwrap();
    machine.backup(&[]).expect(0);
    for told in [mailed(), page()] {
        assert!(told.contains(&format!("whole, 3 entries; {clause}")) && !told.contains("NOT WHOLE"), "{told}");
    }
    assert!(!status().contains("not signed"), "{}", status());
}
