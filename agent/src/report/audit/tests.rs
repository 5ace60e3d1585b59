//! What the auditor's document claims is what the log and the stores show.

use jiff::tz::TimeZone;

use super::*;
use crate::calendar::{Age, Calendar};
use crate::evidence::{History, RunGeneration, RunStore};
use crate::format::Sha256;
use crate::generation::CutMethod;
use crate::report::Limits;

fn disk(name: &str) -> Medium {
    Medium::Disk(name.to_owned())
}

fn around() -> Surroundings {
    Surroundings {
        from: "2026-11-16".parse().unwrap(),
        to: "2026-11-18".parse().unwrap(),
        sources: Vec::new(),
        stores: Vec::new(),
        retention: Vec::new(),
        local_generations: 1,
        staging: disk("sda"),
        data: vec![disk("sda")],
        recipients: 2,
        site_key: None,
    }
}

fn run(day: u32, stores: &[(u32, bool)]) -> Record {
    let at: Timestamp = format!("2026-11-{day}T20:00:00Z").parse().unwrap();
    let id = |day: u32| format!("202611{day}T200000Z-7f3a");
    let store = |(of, stored): &(u32, bool)| RunStore {
        store: "far".to_owned(),
        slot: None,
        bring: None,
        generation: id(*of),
        resumed: *of != day,
        stored: *stored,
        full: None,
        content_bytes: None,
        sent_bytes: None,
        exit_code: 0,
        messages: Vec::new(),
        notes: Vec::new(),
    };
    let generation = RunGeneration {
        id: id(day),
        class: Class::Rolling,
        grade: Grade::Exact,
        label: None,
        cut_not_before: at,
        cut_not_after: at,
        cut_method: CutMethod::Single,
        held_us_max: 0,
        sources: Vec::new(),
        problems: Vec::new(),
    };
    Record::Run(Run { generation: Some(generation), stores: stores.iter().map(store).collect(), ..Run::default() })
}

/// Days without a generation off site, of the runs of some nights from Monday, the 16th, to Wednesday.
fn missed(runs: Vec<Record>) -> u64 {
    let mut history = History::default();
    for (number, record) in (1..).zip(runs) {
        let at = "2026-11-16T06:00:00Z".parse().unwrap();
        let entry = Entry { version: 1, site: "townhall".to_owned(), number, at, previous: None, mended: None, record };
        history.entries.push((entry, Sha256::of(b"")));
    }
    let calendar = Calendar::new(TimeZone::UTC);
    let limits = Limits { drill: Age::days(35), key_proof: Age::days(190) };
    let now = "2026-11-19T12:00:00Z".parse().unwrap();
    let context = Context { site: "townhall", calendar: &calendar, history: &history, limits, now };
    let entries: Vec<&Entry> = history.iter().collect();
    days_without(&entries, &around(), &context)
}

#[test]
fn a_day_counts_by_its_own_generation_whichever_run_finished_it() {
    let late = vec![run(16, &[(16, false)]), run(17, &[(16, true), (17, true)]), run(18, &[(18, true)])];
    assert_eq!(missed(late), 0);
    let nowhere = vec![run(16, &[(16, false)]), run(17, &[(16, true), (17, false)]), run(18, &[(18, true)])];
    assert_eq!(missed(nowhere), 1);
}

fn store(name: &str, medium: Medium) -> AuditStore {
    AuditStore {
        name: name.to_owned(),
        kind: "s3".to_owned(),
        place: "a place".to_owned(),
        medium,
        phi: false,
        agreement: None,
        lock: None,
        locks: Vec::new(),
        found: Ok(Found { rolling: 3, ..Found::default() }),
    }
}

fn service(name: &str) -> AuditStore {
    store(name, Medium::Service { kind: "s3".to_owned(), store: name.to_owned() })
}

#[test]
fn a_lock_counts_where_it_locks_something() {
    let locked = |locks: Vec<Class>| {
        let store = AuditStore { lock: Some("compliance".to_owned()), locks, ..service("far") };
        let table = rules::three_two_one(&Surroundings { stores: vec![store], ..around() }, &[]);
        serde_json::to_string(&table).unwrap()
    };
    assert!(locked(vec![Class::Archival]).contains("no store has locked what it holds"));
    assert!(!locked(vec![Class::Rolling]).contains("no store has locked what it holds"));
}

#[test]
fn what_is_lost_together_is_one_copy_and_one_kind_of_storage() {
    // Whether three copies, two kinds and one off site are there, and what was counted.
    let judge = |stores: Vec<AuditStore>, staging: Medium| {
        let table = rules::three_two_one(&Surroundings { stores, staging, ..around() }, &[]);
        let met = table.rows.iter().take(3).map(|row| !row.bad).collect::<Vec<_>>();
        (met, table.rows[0].cells[3].clone())
    };
    let (met, copies) = judge(vec![store("near", disk("sda"))], disk("sda"));
    assert_eq!(met, [false, false, false]);
    assert_eq!(
        copies,
        "1: the data itself; not counted: `near` lies on a disk that the data itself lies on; the office's own copies lie on a \
         disk that the data itself lies on"
    );
    let (met, copies) = judge(vec![store("near", disk("sdb"))], disk("sdb"));
    assert_eq!(met, [false, false, false]);
    assert_eq!(copies, "2: the data itself, `near`; not counted: the office's own copies lie on what `near` lies on");
    // Two disks in one machine are two copies, and one kind.
    assert_eq!(judge(vec![store("near", disk("sdb"))], disk("sdc")).0, [true, false, false]);
    assert_eq!(judge(vec![store("near", disk("sdb")), service("cloud")], disk("sda")).0, [true, true, true]);
    let (met, copies) = judge(vec![store("near", Medium::Unknown), service("cloud")], disk("sda"));
    assert_eq!(met, [false, true, true]);
    assert!(copies.contains("what `near` lies on could not be seen"), "{copies}");
    // Of a server that may be another machine it is not known what its data lies on: it is no kind, and nothing is on its disk.
    let around = Surroundings { data: vec![Medium::Unknown], stores: vec![service("cloud")], ..around() };
    let table = rules::three_two_one(&around, &[]);
    assert_eq!(table.rows[0].cells[3], "3: the data itself, `cloud`, the office's own copies");
    assert_eq!(table.rows[1].cells[3], "2 kinds: s3, disks of the office's machine");
    // A folder of another machine may stand in the same room.
    assert_eq!(judge(vec![store("nas", Medium::Network("nas:/x".to_owned()))], disk("sdc")).0, [true, true, false]);
}
