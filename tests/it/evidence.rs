//! What the evidence log holds after runs, good and bad.

use agent::evidence::{History, Log, Prune, Record, Run};
use agent::sign::SiteKey;
use tests::Rng;
use tests::machine::{Machine, Refusing};

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
