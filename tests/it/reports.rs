//! Reports arrive where they should, through real servers, each with its own sentence; and no failure to deliver one spoils
//! a run, loses a report or shows a secret.

use agent::calendar::{Age, Calendar};
use agent::config::{Config, ReportsConfig};
use agent::evidence::{Drill, KeyProof, Log, Record, Run, RunGeneration, RunSource, RunStore, Verify};
use agent::generation::{Class, CutMethod, Grade};
use agent::notify::{self, Outbox};
use agent::report::{self, Context, Limits, Report, Standing};
use agent::sign::SiteKey;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::machine::{Machine, Refusing};
use tests::servers::{MAIL_PASSWORD, MAIL_USER, Sink, mariadb};
use tests::{Rng, World, tls};

/// The settings of a mail server: with STARTTLS and a login.
pub(crate) fn smtp(world: &World, sink: &Sink) -> String {
    let password = world.write("smtp-password", MAIL_PASSWORD);
    format!(
        "[smtp]\nhost = \"localhost\"\nport = {}\nuser = \"{MAIL_USER}\"\npassword = \"file:{}\"\nca_file = \"{}\"\n\
         from = \"Backup <backup@office.example>\"\n",
        sink.starttls,
        password.display(),
        tls::authority().ca.display()
    )
}

pub(crate) fn mail(name: &str, when: &str) -> String {
    format!("[[mail]]\nname = \"{name}\"\nto = [\"{name}@office.example\"]\nwhen = \"{when}\"\n")
}

/// A machine with a file to copy, whose reports go to `sink`, with more settings.
pub(crate) fn machine(sink: &Sink, more: &str) -> Machine {
    let machine = Machine::new();
    std::fs::write(machine.source().join("one"), Rng::new(5).bytes(50_000)).unwrap();
    machine.configure(100, &format!("{}{more}", smtp(&machine.world, sink)));
    machine
}

pub(crate) fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_else(|| panic!("no {field} in {record}"))
}

/// The subjects of the mails to somebody.
pub(crate) fn subjects(sink: &Sink, name: &str) -> Vec<String> {
    let to = format!("{name}@office.example");
    let mails = sink.mails();
    let his = mails.iter().filter(|mail| mail["to"][0] == to.as_str());
    his.map(|mail| text(mail, "subject").to_owned()).collect()
}

#[test]
fn a_good_run_is_told_in_one_sentence_to_who_wants_every_run() {
    let sink = Sink::start();
    let machine = machine(&sink, &(mail("boss", "every run") + &mail("provider", "failures")));
    let outcome = machine.backup(&[]).expect(0);
    assert!(outcome.stderr.is_empty(), "{outcome}");
    let mails = sink.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    let mail = &mails[0];
    assert_eq!(
        (&mail["tls"], &mail["login"], &mail["to"][0]),
        (&true.into(), &true.into(), &"boss@office.example".into())
    );
    assert_eq!((text(mail, "from"), text(mail, "automatic")), ("backup@office.example", "auto-generated"));
    assert_eq!(text(mail, "subject"), "townhall: backup complete");
    let (first, rest) = text(mail, "text").split_once('\n').unwrap();
    for part in ["is complete: 1 folder as of ", ", stored in 1 place, ", "KiB sent", "no drill yet."] {
        assert!(first.contains(part), "`{part}` is not in `{first}`");
    }
    assert!(rest.contains("Where it is") && rest.contains("evidence log up to entry 1"), "{rest}");
    let html = text(mail, "html");
    assert!(html.contains("is complete: 1 folder") && html.contains("All is well"), "{html}");
    // Nothing is fetched when it is opened, and nothing runs.
    for foreign in ["src=", "href=", "url(", "<script", "http:", "https:", "<link", "<img"] {
        assert!(!html.contains(foreign), "{foreign} is in the mail");
    }
    assert_eq!(machine.world.offsite(["--json", "status"]).expect(0).json()["attention"], serde_json::json!([]));
}

#[test]
fn a_mail_that_is_refused_for_a_while_waits_and_arrives_once() {
    let sink = Sink::start();
    let machine = machine(&sink, &mail("boss", "every run"));
    for answer in ["451 4.3.0 try again later", "550 5.1.1 nobody here"] {
        sink.refuse_mails(Some(answer));
        let outcome = machine.backup(&[]).expect(0);
        assert!(outcome.stderr.contains("was not delivered") && outcome.stderr.contains(&answer[4..]), "{outcome}");
        assert!(outcome.stderr.contains("it is kept and tried again"), "{outcome}");
        assert!(!outcome.to_string().contains(MAIL_PASSWORD), "{outcome}");
    }
    // The server is gone altogether, then back.
    sink.server.kill();
    machine.backup(&[]).expect(0);
    let status = machine.world.offsite(["status"]).expect(0);
    assert_eq!(
        status.stdout.matches("the report to `boss` (townhall: backup complete) was not delivered").count(),
        3,
        "{status}"
    );
    assert!(sink.mails().is_empty());
    for file in tests::office::paths(&machine.world.path("state")).into_iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(MAIL_PASSWORD.len()).any(|part| part == MAIL_PASSWORD.as_bytes()), "{}", file.display());
    }
    sink.refuse_mails(None);
    sink.start_again();
    machine.backup(&[]).expect(0);
    let mails = sink.mails();
    let ids: std::collections::BTreeSet<&str> = mails.iter().map(|mail| text(mail, "id")).collect();
    assert_eq!((mails.len(), ids.len()), (4, 4), "{mails:?}");
    machine.backup(&[]).expect(0);
    assert_eq!(sink.mails().len(), 5);
}

#[test]
fn each_kind_of_bad_run_has_its_own_sentence() {
    let sink = Sink::start();
    let machine = machine(&sink, "");
    let mails = mail("boss", "every run") + &mail("provider", "failures");
    let smtp = smtp(&machine.world, &sink);
    let nas = machine.world.make_folder("nas");
    let second = format!("[[store]]\nname = \"nas\"\ntype = \"directory\"\npath = \"{}\"\n", nas.display());
    machine.configure(100, &format!("{smtp}{mails}{second}"));
    let last = |subject: &str, sentence: &str, todo: &str| {
        for name in ["boss", "provider"] {
            assert_eq!(subjects(&sink, name).last().unwrap(), subject);
        }
        let (mails, kind) = (sink.mails(), subject);
        let mail = mails.last().unwrap();
        let verdict = text(mail, "text").lines().next().unwrap();
        assert!(verdict.contains(sentence), "{kind}: `{sentence}` is not in `{verdict}`");
        assert!(text(mail, "text").contains(todo), "{kind}: `{todo}` is not in\n{}", text(mail, "text"));
        assert!(text(mail, "html").contains("What needs doing"), "{mail}");
    };

    let nas = Refusing::new(&nas);
    machine.backup(&[]).expect(4);
    last(
        "townhall: backup not stored everywhere",
        "only 1 of 2 places: `nas` has not got it",
        "`nas` has not got it. ",
    );

    let far = Refusing::new(&machine.world.path("store"));
    machine.backup(&[]).expect(4);
    last("townhall: backup FAILED", "is in NO store. ", "The newest copy in a store is as of");
    drop((nas, far));

    let fails = "[[source]]\nname = \"dump\"\ntype = \"command\"\ncommand = [\"/bin/false\", \"{staging}\"]\n";
    machine.configure(100, &format!("{smtp}{mails}{fails}"));
    machine.backup(&[]).expect(3);
    last(
        "townhall: backup INCOMPLETE",
        "is INCOMPLETE: `dump` is missing; the rest is stored in 1 place",
        "`dump` is missing: The",
    );

    machine.configure(100, &format!("{smtp}{mails}"));
    std::fs::rename(machine.source(), machine.world.path("moved")).unwrap();
    machine.backup(&[]).expect(2);
    last("townhall: backup FAILED", "FAILED: the run was not begun", "`offsite check` names everything");
    std::fs::rename(machine.world.path("moved"), machine.source()).unwrap();
}

#[test]
fn a_table_without_snapshots_has_a_mail_of_its_own() {
    let sink = Sink::start();
    let machine = machine(&sink, "");
    let shop = mariadb().database("shop");
    mariadb().sql(&shop, "CREATE TABLE old (id INTEGER) ENGINE = MyISAM");
    let source = format!(
        "[[source]]\nname = \"shop\"\ntype = \"mariadb\"\nhost = \"{}\"\nuser = \"root\"\ndatabases = [\"{shop}\"]\n",
        mariadb().socket.display()
    );
    machine.configure(100, &format!("{}{}{source}", smtp(&machine.world, &sink), mail("provider", "failures")));
    machine.backup(&[]).expect(3);
    assert_eq!(subjects(&sink, "provider"), ["townhall: backup NOT OF ONE INSTANT"]);
    let mails = sink.mails();
    let said = text(&mails[0], "text");
    let sentence = "is whole, but NOT OF ONE INSTANT: 1 database and 1 folder were copied one after another until";
    assert!(said.lines().next().unwrap().contains(sentence) && said.contains("compare the last minutes"), "{said}");
}

/// From the fault to the mail, with nothing in between but the program.
#[test]
fn neglect_and_damage_are_told_to_whom_they_concern() {
    let sink = Sink::start();
    let machine = machine(&sink, "");
    let path = |name: &str| machine.world.path(name).display().to_string();
    let wishes = [("boss", "every run"), ("provider", "failures"), ("owner", "weekly"), ("clerk", "daily")];
    let mails: String = wishes.iter().map(|(name, when)| mail(name, when)).collect();
    let drill = format!("[drill]\nidentity = \"{}\"\nscratch = \"{}\"\n", path("identity.txt"), path("scratch"));
    let limits = "[report]\ndrill_within = \"1 days\"\nkey_proof_within = \"2 days\"\n";
    machine.configure(100, &format!("{}{mails}{limits}{drill}", smtp(&machine.world, &sink)));
    // This office began three days ago, and nobody has tried anything since.
    let (log, key) = (Log::new(&machine.world.make_folder("state")), SiteKey::load(&machine.world.path("site.key")));
    tests::office::set_mode(&machine.world.path("state"), 0o700);
    let began = Timestamp::now() - SignedDuration::from_hours(72);
    log.append(&machine.site, Record::Verify(Verify::default()), Some(&key.unwrap()), began).unwrap();

    machine.backup(&[]).expect(0);
    let reminder = "townhall: please prove that the copies can come back";
    assert_eq!(subjects(&sink, "boss"), ["townhall: backup complete", reminder]);
    assert_eq!(subjects(&sink, "provider"), [reminder]);
    let last = || text(sink.mails().last().unwrap(), "text").to_owned();
    assert!(
        last().contains("no rehearsed restore has passed in the 3 days of this log (the limit is 1 day)"),
        "{}",
        last()
    );
    assert!(last().contains("nobody has proved in the 3 days of this log"), "{}", last());
    // Within the week nobody is reminded again.
    machine.world.offsite(["tidings"]).expect(0);
    assert_eq!(subjects(&sink, "provider").len(), 1);

    let is_pack = |path: &std::path::PathBuf| path.is_file() && path.parent().unwrap().ends_with("packs");
    let pack = tests::office::paths(&machine.world.path("store")).into_iter().find(is_pack).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    machine.world.offsite(["drill"]).expect(5);
    for (name, _) in wishes {
        assert_eq!(subjects(&sink, name).last().unwrap(), "townhall: REHEARSED RESTORE FAILED", "{name}");
    }
    assert!(last().starts_with("THE REHEARSED RESTORE FAILED: ") && last().contains("is of no use"), "{}", last());

    // When another day and another week have begun.
    let memory = machine.world.path("state/reports.json");
    let mut then: Value = serde_json::from_slice(&std::fs::read(&memory).unwrap()).unwrap();
    for (name, hours) in [("clerk", 25), ("owner", 8 * 24)] {
        then["summaries"][name] = (Timestamp::now() - SignedDuration::from_hours(hours)).to_string().into();
    }
    std::fs::write(&memory, then.to_string()).unwrap();
    machine.world.offsite(["tidings"]).expect(0);
    let word = |name: &str| subjects(&sink, name).last().unwrap().clone();
    assert_eq!(word("clerk"), "townhall: the last day: 1 of 1 backups complete, and 1 thing is NOT as it should be");
    assert_eq!(word("owner"), "townhall: the last week: 1 of 1 backups complete, and 1 thing is NOT as it should be");
    assert!(last().starts_with("In the last ") && last().contains("THE REHEARSED RESTORE FAILED"), "{}", last());
}

fn source(name: &str) -> RunSource {
    RunSource { name: name.to_owned(), source: "sqlite".to_owned(), entries: 1, bytes: 1 << 29 }
}

/// A run whose sources were copied one after another.
fn sequential_run(at: Timestamp) -> Run {
    let generation = RunGeneration {
        id: "20261122T222900Z-7f3a".to_owned(),
        class: Class::Rolling,
        grade: Grade::Sequential,
        label: None,
        cut_not_before: at,
        cut_not_after: at,
        cut_method: CutMethod::None,
        held_us_max: 0,
        sources: ["ledger", "stock"].map(source).to_vec(),
        problems: Vec::new(),
    };
    let store = RunStore {
        store: "far".to_owned(),
        slot: None,
        bring: None,
        generation: generation.id.clone(),
        resumed: false,
        stored: true,
        full: Some(true),
        content_bytes: Some(1 << 30),
        sent_bytes: Some(1 << 29),
        exit_code: 0,
        messages: Vec::new(),
        notes: Vec::new(),
    };
    Run { exit_code: 3, generation: Some(generation), stores: vec![store], ..Run::default() }
}

/// Sends a report as a run would, and gives back the mail that arrived.
fn sent(report: &Report, config: &ReportsConfig, outbox: &Outbox, sink: &Sink) -> Value {
    for message in notify::messages(report, config).unwrap() {
        outbox.put(&message).unwrap();
    }
    let lock = outbox.lock(report.at).unwrap().unwrap();
    let delivery = notify::deliver(outbox, &lock, config, true, report.at).unwrap();
    assert!(delivery.waiting.is_empty() && delivery.given_up.is_empty(), "{delivery:?}");
    sink.mails().pop().unwrap()
}

#[test]
fn what_is_no_run_is_told_too() {
    let sink = Sink::start();
    let machine = machine(&sink, &(mail("provider", "failures") + &mail("owner", "weekly")));
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let config = Config::parse(&config, &machine.world.path("")).unwrap().config.place.reports;
    let (state, began) = (machine.world.make_folder("state-of-a-test"), "2026-01-05T22:30:00Z".parse().unwrap());
    let (log, outbox, site) = (Log::new(&state), Outbox::new(&state), "townhall".parse().unwrap());
    let append = |record, at: Timestamp| log.append(&site, record, None, at).unwrap();
    append(Record::Verify(Verify { store: "far".to_owned(), packs: 7, ..Verify::default() }), began);
    let failed = Drill {
        generation: "20261122T233004Z-7f3a".to_owned(),
        store: "far".to_owned(),
        findings: vec!["the database `ledger` has 3 rows in `entry` where 5 were counted".to_owned()],
        ..Drill::default()
    };
    let now: Timestamp = "2026-11-22T22:30:00Z".parse().unwrap();
    let entry = append(Record::Drill(failed), now);
    let history = log.read(None).unwrap();
    let calendar = Calendar::new(TimeZone::get("Europe/Berlin").unwrap());
    let limits = Limits { drill: Age::days(35), key_proof: Age::days(190) };
    let context = Context { site: "townhall", calendar: &calendar, history: &history, limits, now };

    let report = report::compose(&entry, &context).unwrap();
    let mail = sent(&report, &config, &outbox, &sink);
    assert_eq!(text(&mail, "subject"), "townhall: REHEARSED RESTORE FAILED");
    assert!(
        text(&mail, "text").starts_with("THE REHEARSED RESTORE FAILED: the database `ledger` has 3 rows"),
        "{mail}"
    );
    assert!(text(&mail, "text").contains("`offsite backup --full`"), "{mail}");
    // Louder than a failed backup: it goes to those as well who get a summary otherwise.
    assert_eq!((subjects(&sink, "provider").len(), subjects(&sink, "owner").len()), (1, 1));

    let unreached = Drill { store: "far".to_owned(), findings: vec!["far is away".to_owned()], ..Drill::default() };
    let told = report::compose(&append(Record::Drill(unreached), now), &context).unwrap();
    assert!(
        told.text().contains("none could be had from `far`") && told.text().contains("`offsite check`"),
        "{told:?}"
    );
    let untried = Drill { not_tried: Some("the drive is not connected".to_owned()), ..Drill::default() };
    let told = report::compose(&append(Record::Drill(untried), now), &context).unwrap();
    assert_eq!(told.verdict, "The rehearsed restore could NOT BE TRIED: the drive is not connected.");
    for (stores, part) in [(&["far"][..], "not be had from `far`"), (&["far", "usb"], "from none of `far`, `usb`")] {
        let asked = stores.iter().map(|store| (*store).to_owned()).collect();
        let away = Drill { asked, not_tried: Some("no store can be read".to_owned()), ..Drill::default() };
        let told = report::compose(&append(Record::Drill(away), now), &context).unwrap();
        assert!(told.text().contains(part), "`{part}` is not in {}", told.text());
    }

    let nags = Standing::of(&history).nags(limits, &calendar, now);
    assert_eq!(nags.len(), 2, "{nags:?}");
    let mail = sent(&report::reminder(&nags, &context), &config, &outbox, &sink);
    assert_eq!(text(&mail, "subject"), "townhall: please prove that the copies can come back");
    assert!(text(&mail, "text").contains("`offsite key check --identity FILE`"), "{mail}");
    assert_eq!(subjects(&sink, "owner").len(), 1);
    append(Record::KeyProof(KeyProof { opens: vec!["age1…".to_owned()], ..KeyProof::default() }), now);
    let proved = log.read(None).unwrap();
    assert_eq!(Standing::of(&proved).nags(limits, &calendar, now).len(), 1);

    let report = report::compose(&append(Record::Run(sequential_run(now)), now), &context).unwrap();
    let mail = sent(&report, &config, &outbox, &sink);
    assert_eq!(text(&mail, "subject"), "townhall: backup NOT OF ONE INSTANT");
    let whole =
        "Tonight's backup is whole, but NOT OF ONE INSTANT: 2 databases were copied one after another until 23:30:00";
    assert!(text(&mail, "text").starts_with(whole) && text(&mail, "text").contains("hold_limit"), "{mail}");

    let due = "2026-11-21T22:30:00Z".parse().unwrap();
    let mail = sent(&report::overdue("nightly", due, &context), &config, &outbox, &sink);
    assert_eq!(text(&mail, "subject"), "townhall: nightly is OVERDUE");
    assert!(
        text(&mail, "text").contains("`nightly` is OVERDUE: it should have run at 2026-11-21 23:30, 24 hours ago"),
        "{mail}"
    );
}

#[test]
fn a_share_that_is_not_mounted_is_told_each_night_until_it_is_or_somebody_says_that_this_is_right() {
    let sink = Sink::start();
    let machine = machine(&sink, &mail("provider", "failures"));
    let other = machine.world.write("other/file", "always there");
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let other =
        format!("[[source]]\nname = \"other\"\ntype = \"folder\"\npath = \"{}\"\n", other.parent().unwrap().display());
    let config = machine.world.configure(&format!("{config}{other}"));
    let config = std::fs::read_to_string(config).unwrap();
    let night = |code: i32, mails: usize| {
        machine.backup(&[]).expect(code);
        assert_eq!(subjects(&sink, "provider").len(), mails);
    };
    night(0, 0);
    let (share, away) = (machine.source(), machine.source().with_extension("away"));
    std::fs::rename(&share, &away).unwrap();
    std::fs::create_dir(&share).unwrap();
    night(3, 1);
    // A night that was incomplete is none to compare with, and neither is one without even the empty folder.
    night(3, 2);
    std::fs::remove_dir(&share).unwrap();
    night(3, 3);
    std::fs::create_dir(&share).unwrap();
    night(3, 4);
    assert_eq!(subjects(&sink, "provider"), ["townhall: backup INCOMPLETE"; 4]);
    let mails = sink.mails();
    let told = text(mails.last().unwrap(), "text");
    for part in [
        "is INCOMPLETE: `docs` is empty; the rest is stored in 1 place",
        "Nothing of `docs` is in the copy, since its folder is empty on the server, as when a network drive is not connected",
        "1 file or folder was copied from it into 2",
        "say `may_be_empty = true`",
    ] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    assert!(!told.contains("`docs` is missing"), "{told}");
    // It is filled again, and then emptied on purpose.
    std::fs::write(share.join("two"), "new").unwrap();
    night(0, 4);
    std::fs::remove_file(share.join("two")).unwrap();
    night(3, 5);
    machine.world.configure(&config.replacen("type = \"folder\"\n", "type = \"folder\"\nmay_be_empty = true\n", 1));
    night(0, 5);
    // Who has said so once need not go on saying so.
    machine.world.configure(&config);
    night(0, 5);
}

#[test]
fn a_disk_that_is_not_mounted_is_told_once() {
    let sink = Sink::start();
    let machine = machine(&sink, &mail("provider", "failures"));
    machine.backup(&[]).expect(0);
    let store = machine.world.path("store");
    std::fs::rename(&store, store.with_extension("away")).unwrap();
    std::fs::create_dir(&store).unwrap();
    machine.backup(&[]).expect(0);
    assert_eq!(subjects(&sink, "provider"), ["townhall: backup complete, with a warning"]);
    assert!(text(&sink.mails()[0], "text").contains("missing or cut short in far"), "{:?}", sink.mails());
    machine.backup(&[]).expect(0);
    assert_eq!(subjects(&sink, "provider").len(), 1);
}

#[test]
fn what_a_run_found_is_told_by_the_next_one_if_it_died() {
    let sink = Sink::start();
    let machine = machine(&sink, &mail("provider", "failures"));
    machine.backup(&[]).expect(0);
    let store = machine.world.path("store");
    let dies = |night: usize, moment: &str, at: &str| {
        std::fs::rename(&store, store.with_extension(format!("away-{night}"))).unwrap();
        std::fs::create_dir(&store).unwrap();
        let died = machine.backup(&[]).env("OFFSITE_DIE_AT", moment).run();
        assert!(died.code.is_none() && died.stderr.contains(&format!("died {at}\n")), "{died}");
    };
    // Between the end of the old chain and the beginning of a new one, after that, and when this store has the generation,
    // but not yet all others.
    for (night, moment, at) in [
        (1, "2", "after: a chain was closed"),
        (2, "4", "after: a run was begun"),
        (3, "20", "after: the commit was recorded"),
    ] {
        dies(night, moment, at);
        let report = machine.backup(&[]).expect(0).json();
        let stored = ["resumed", "stores"].into_iter().flat_map(|list| report[list].as_array().unwrap());
        assert_eq!(stored.filter_map(|stored| stored["notes"].as_array()).flatten().count(), 1, "{report:#}");
        assert_eq!(subjects(&sink, "provider").len(), night);
        let mails = sink.mails();
        assert!(text(mails.last().unwrap(), "text").contains("missing or cut short in far"), "{mails:?}");
        machine.backup(&[]).expect(0);
        assert_eq!(subjects(&sink, "provider").len(), night);
    }
    // Rather twice than never.
    dies(4, "21", "before: what was told was recorded");
    for mails in [5, 5] {
        machine.backup(&[]).expect(0);
        assert_eq!(subjects(&sink, "provider").len(), mails);
    }
}

#[test]
fn damage_is_told_at_once() {
    let sink = Sink::start();
    let machine = machine(&sink, &mail("provider", "failures"));
    machine.backup(&[]).expect(0);
    machine.world.offsite(["verify"]).expect(0);
    assert_eq!(subjects(&sink, "provider"), [""; 0]);
    let is_pack = |path: &std::path::PathBuf| path.is_file() && path.parent().unwrap().ends_with("packs");
    let pack = tests::office::paths(&machine.world.path("store")).into_iter().find(is_pack).unwrap();
    std::fs::remove_file(&pack).unwrap();
    machine.world.offsite(["verify"]).expect(5);
    assert_eq!(subjects(&sink, "provider").last().unwrap(), "townhall: what is stored is NOT WHOLE");
    let mails = sink.mails();
    assert!(text(mails.last().unwrap(), "text").contains("it is missing"), "{mails:?}");
    // It stays so until everything was read again.
    let status = || machine.world.offsite(["status"]).expect(0).stdout;
    assert!(
        status().contains("NEEDS ATTENTION") && status().contains("what is stored in far was NOT WHOLE"),
        "{}",
        status()
    );
    machine.backup(&["--full"]).expect(0);
    assert!(status().contains("`offsite backup --full`"), "{}", status());
}
