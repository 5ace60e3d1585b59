//! Asked to stop, a run finishes the parts that are under way and is gone on with by the next one; asked twice, it ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::machine::Machine;
use tests::proxy::{Fault, Proxy};
use tests::servers::{SeaweedFs, seaweedfs};
use tests::tree::Tree;
use tests::{Outcome, Rng, Running, wait_until};

/// Two parts, and a little.
const BYTES: u64 = 12 << 20;
const PART: u64 = 5 << 20;

struct Line {
    server: &'static SeaweedFs,
    bucket: String,
    proxy: Proxy,
    machine: Machine,
}

impl Line {
    fn new() -> Self {
        let server = seaweedfs();
        let bucket = server.bucket("signals").name;
        let proxy = Proxy::to(server.port());
        let machine = Machine::with_bucket(&proxy.url(), &bucket);
        std::fs::write(machine.source().join("large"), Rng::new(1).bytes(usize::try_from(BYTES).unwrap())).unwrap();
        Self { server, bucket, proxy, machine }
    }

    /// A run whose first part is under way, and takes eight seconds more.
    fn backup_with_a_part_under_way(&self) -> Running {
        self.proxy.slow(PART / 10);
        let running = self.machine.backup(&[]).start();
        wait_until(Duration::from_secs(120), "the first part to be under way", || self.proxy.bytes_up() > 1 << 20);
        running
    }

    /// The next run goes on and sends at most `bytes`.
    fn goes_on(&self, bytes: u64) {
        self.proxy.script(|_| None);
        self.proxy.slow(u64::MAX);
        self.proxy.settle();
        let before = self.proxy.bytes_up();
        let outcome = self.machine.backup(&[]).expect(0).json();
        // With the new generation, which has nothing new.
        let sent = self.proxy.bytes_up() - before;
        assert!(sent < bytes + (1 << 20), "{sent} bytes were sent instead of {bytes}");
        assert_eq!(outcome["resumed"].as_array().unwrap().len(), 1, "{outcome}");
        for stored in self.machine.list() {
            Tree::read(&self.machine.source()).assert_equals(&self.machine.restored(&stored.generation));
        }
        self.machine.assert_at_rest(false);
        assert_eq!(self.server.named_bucket(&self.bucket).unfinished(), []);
    }
}

#[test]
fn a_part_under_way_is_finished_and_not_sent_again() {
    for signal in [Signal::TERM, Signal::INT] {
        let line = Line::new();
        let running = line.backup_with_a_part_under_way();
        running.signal(signal);
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(130), "{outcome}");
        assert!(outcome.stderr.contains("Stopping where the next run can go on"), "{outcome}");
        let sent = line.proxy.bytes_up();
        assert!((PART..2 * PART).contains(&sent), "{sent} bytes were sent: one part is to be");
        line.goes_on(BYTES - PART);
    }
}

#[test]
fn the_second_signal_ends_a_run_at_once() {
    let line = Line::new();
    // The line goes silent in the middle of the first part: it cannot be finished.
    line.proxy.script(|request| request.target.contains("partNumber=1&").then_some(Fault::StallRequest(1 << 20)));
    let running = line.machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the line to go silent", || line.proxy.bytes_up() >= 1 << 20);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let asked = Instant::now();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(130), "{outcome}");
    // Less than it would wait for the part.
    assert!(asked.elapsed() < Duration::from_secs(25), "it took {:?}", asked.elapsed());
    line.goes_on(BYTES);
}

#[test]
fn a_part_that_cannot_be_finished_is_not_waited_for_long() {
    let line = Line::new();
    line.proxy.script(|request| request.target.contains("partNumber=1&").then_some(Fault::StallRequest(1 << 20)));
    let running = line.machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the line to go silent", || line.proxy.bytes_up() >= 1 << 20);
    running.signal(Signal::TERM);
    let asked = Instant::now();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(130), "{outcome}");
    // Less than a silent line is waited for.
    assert!(asked.elapsed() < Duration::from_secs(55), "it took {:?}", asked.elapsed());
    line.goes_on(BYTES);
}

#[test]
fn what_was_left_is_finished_without_a_new_copy() {
    let line = Line::new();
    let running = line.backup_with_a_part_under_way();
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, Some(130));
    line.proxy.slow(u64::MAX);
    let report = line.machine.backup(&["--resume"]).expect(0).json();
    assert!(report["generation"].is_null() && report["resumed"][0]["stored"] == true, "{report}");
    assert_eq!((line.machine.local().len(), line.machine.list().len()), (1, 1));
    line.machine.verify();
    line.machine.assert_at_rest(false);
    let nothing = line.machine.world.offsite(["backup", "--resume"]).expect(0);
    assert!(nothing.stdout.contains("Nothing was left"), "{nothing}");
    assert_eq!(line.machine.local().len(), 1);
}

#[test]
fn a_new_night_waits_for_an_old_one_no_longer_than_it_may() {
    let line = Line::new();
    let running = line.backup_with_a_part_under_way();
    running.kill();
    let (waits, goes_on) = blocking_source(&line.machine);
    let config = std::fs::read_to_string(line.machine.world.path("offsite.toml")).unwrap();
    line.machine.world.configure(&(config + "[capture]\nwait = \"1 s\"\n"));
    let running = line.machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the new copy to be under way", || waits.exists());
    assert_eq!(line.machine.list().len(), 0, "the old one was finished first");
    line.proxy.slow(u64::MAX);
    std::fs::write(goes_on, "").unwrap();
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("the new copy is made first"), "{outcome}");
    let report = outcome.json();
    assert!(report["resumed"][0]["stored"] == true && report["stores"][0]["stored"] == true, "{report}");
    assert_eq!((report["resumed"].as_array().unwrap().len(), line.machine.list().len()), (1, 2));
    line.machine.verify();
    line.machine.assert_at_rest(false);
}

#[test]
fn a_copy_under_way_is_given_up() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    let (waits, goes_on) = blocking_source(&machine);
    let running = machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the copy to be under way", || waits.exists());
    running.signal(Signal::TERM);
    let outcome: Outcome = running.wait();
    assert_eq!(outcome.code, Some(130), "{outcome}");
    assert!(outcome.stderr.contains("the next run makes a new copy"), "{outcome}");
    std::fs::write(goes_on, "").unwrap();
    let report = machine.backup(&[]).expect(0).json();
    assert_eq!(report["resumed"].as_array().unwrap().len(), 0);
    machine.assert_at_rest(false);
}

#[test]
fn a_restore_that_is_stopped_says_what_there_is_and_is_begun_again_by_the_same_command() {
    let line = Line::new();
    let store = std::fs::read_to_string(line.machine.world.path("store.toml")).unwrap();
    line.machine.world.write("store.toml", store.replace("pack = \"24 MiB\"", "pack = \"5 MiB\""));
    line.machine.configure(100, "");
    std::fs::write(line.machine.source().join("small"), "of the day").unwrap();
    line.machine.backup(&[]).expect(0);
    let key = line.machine.world.path("identity.txt").display().to_string();
    let restore = || line.machine.world.offsite(["restore", "latest", "--to", "back", "--identity", &key]);
    let to = line.machine.world.path("back");
    let is_pack = |target: &str| target.contains("/packs/") && target.contains(".age");
    // The pack with the list of what is in the generation is fetched first.
    let nothing = ["Stopped before the first file: ", "nothing in its place", "run the same command again"];
    let something = ["Stopped after ", "back/.offsite-restoring", "run the same command again"];
    for (signal, packs, says) in [(Signal::TERM, 0, nothing), (Signal::INT, 1, something)] {
        // So many packs come, and in the middle of any other the line goes silent.
        let mut whole = BTreeSet::new();
        line.proxy.script(move |request| {
            if is_pack(&request.target) && whole.len() < packs {
                whole.insert(request.target.clone());
            }
            (is_pack(&request.target) && !whole.contains(&request.target)).then_some(Fault::StallReply(1 << 10))
        });
        let asked = || line.proxy.seen().iter().filter(|(request, _)| is_pack(&request.target)).count();
        let before = asked();
        let running = restore().start();
        wait_until(Duration::from_secs(120), "packs to be under way", || {
            asked() > before && (packs == 0 || to.join(".offsite-restoring/0").exists())
        });
        running.signal(signal);
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(130), "{outcome}");
        for part in says {
            assert!(outcome.stderr.contains(part), "`{part}` is not said\n{outcome}");
        }
        assert!(!to.join("docs/large").exists(), "{outcome}");
    }
    line.proxy.script(|_| None);
    restore().expect(0);
    Tree::read(&line.machine.source()).assert_equals(&Tree::read(&to.join("docs")));
    assert!(!to.join(".offsite-restoring").exists());
}

#[test]
fn what_a_source_s_program_has_started_ends_with_it() {
    let machine = Machine::new();
    let number = machine.world.path("number");
    // It writes the number of a process that it has started in the background, and waits for it.
    let script = format!("sleep 600 & echo $! > {0}.new && mv {0}.new {0} && wait", number.display());
    let source = format!(
        "[[source]]\nname = \"slow\"\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\nstdout = \"out\"\n"
    );
    machine.configure(100, &source);
    let running = machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the program to be under way", || number.exists());
    let number = std::fs::read_to_string(number).unwrap().trim().to_owned();
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // Whoever has ended may be waiting for somebody to take note.
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert!(runs(), "{number} has never run");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, Some(130));
    wait_until(Duration::from_secs(60), "what the program has started to end", || !runs());
}

/// Adds a source whose program makes the first file when it has begun, and ends when the second one is there.
pub(crate) fn blocking_source(machine: &Machine) -> (std::path::PathBuf, std::path::PathBuf) {
    let (waits, goes_on) = (machine.world.path("waits"), machine.world.path("goes-on"));
    let script = format!("touch {} && until [ -e {} ]; do sleep 0.05; done", waits.display(), goes_on.display());
    let source = format!(
        "[[source]]\nname = \"slow\"\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\nstdout = \"out\"\n"
    );
    machine.configure(100, &source);
    (waits, goes_on)
}
