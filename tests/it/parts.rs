//! Large objects over bad lines to a real server: what the server has is not sent again.

use std::time::{Duration, Instant};

use tests::machine::Machine;
use tests::proxy::{Fault, Proxy};
use tests::servers::{Bucket, SeaweedFs, seaweedfs};
use tests::tree::Tree;
use tests::{Rng, wait_until};

const MIB: u64 = 1 << 20;
/// One pack of three parts.
const BYTES: u64 = 14 * MIB;
const PART: u64 = 5 * MIB;
/// The documents of generations, and what changes in the next one.
const SMALL: u64 = MIB;

struct Line {
    bucket: Bucket,
    proxy: Proxy,
    machine: Machine,
}

impl Line {
    fn to(server: &SeaweedFs, bytes: u64) -> Self {
        let bucket = server.bucket("parts");
        let proxy = Proxy::to(server.port());
        let machine = Machine::with_bucket(&proxy.url(), &bucket.name);
        std::fs::write(machine.source().join("large"), Rng::new(1).bytes(usize::try_from(bytes).unwrap())).unwrap();
        Self { bucket, proxy, machine }
    }

    /// Kills a run when the server has the first part and some of the second, where the line went silent.
    fn kill_in_the_middle(&self) {
        self.proxy.script(|request| request.target.contains("partNumber=2&").then_some(Fault::StallRequest(MIB)));
        let running = self.machine.backup(&[]).start();
        wait_until(Duration::from_secs(120), "the second part to be under way", || self.proxy.bytes_up() >= PART + MIB);
        running.kill();
        self.proxy.script(|_| None);
        self.proxy.settle();
        assert_eq!(self.bucket.unfinished().len(), 1);
    }

    /// A run that finishes the earlier one, and how many bytes it sends.
    #[track_caller]
    fn next_run(&self) -> u64 {
        let before = self.proxy.bytes_up();
        let report = self.machine.backup(&[]).expect(0).json();
        assert_eq!(report["resumed"].as_array().unwrap().len(), 1, "{report}");
        self.proxy.bytes_up() - before
    }

    #[track_caller]
    fn all_is_well(&self) {
        for stored in self.machine.list() {
            Tree::read(&self.machine.source()).assert_equals(&self.machine.restored(&stored.generation));
        }
        self.machine.verify();
        self.machine.assert_at_rest(false);
        assert_eq!(self.bucket.unfinished(), []);
    }
}

#[test]
fn killed_in_the_middle_only_missing_parts_are_sent() {
    let line = Line::to(seaweedfs(), BYTES);
    line.kill_in_the_middle();
    let sent = line.next_run();
    assert!((BYTES - PART..BYTES - PART + SMALL).contains(&sent), "{sent} bytes were sent");
    line.all_is_well();
}

#[test]
fn no_more_is_sent_in_a_second_than_the_office_allows() {
    let line = Line::to(seaweedfs(), BYTES);
    let store = std::fs::read_to_string(line.machine.world.path("store.toml")).unwrap();
    line.machine.world.write("store.toml", store + "\nrate = [{ limit = \"7 MiB/s\" }]\n");
    line.machine.configure(100, "");
    let began = Instant::now();
    line.machine.backup(&[]).expect(0);
    // Two seconds, and a little less for what is let through at once at the beginning.
    assert!(began.elapsed() > Duration::from_millis(1800), "it took only {:?}", began.elapsed());
    line.all_is_well();
}

#[test]
fn an_upload_that_the_store_has_forgotten_is_begun_anew() {
    let line = Line::to(seaweedfs(), BYTES);
    line.kill_in_the_middle();
    line.bucket.abort_all();
    let sent = line.next_run();
    assert!((BYTES..BYTES + SMALL).contains(&sent), "{sent} bytes were sent");
    line.all_is_well();
}

#[test]
fn a_lost_reply_to_the_last_step_is_resolved_by_looking() {
    let line = Line::to(seaweedfs(), BYTES);
    let mut lost = 0;
    line.proxy.script(move |request| {
        let last_step = request.method == "POST" && request.target.contains("uploadId=");
        lost += u32::from(last_step);
        (last_step && lost == 1).then_some(Fault::LoseReply)
    });
    line.machine.backup(&[]).expect(0);
    let sent = line.proxy.bytes_up();
    assert!((BYTES..BYTES + SMALL).contains(&sent), "{sent} bytes were sent");
    line.all_is_well();
}

#[test]
fn killed_before_the_reply_to_the_last_step_nothing_is_sent_again() {
    let line = Line::to(seaweedfs(), BYTES);
    line.proxy.script(|request| {
        let last_step = request.method == "POST" && request.target.contains("uploadId=");
        last_step.then_some(Fault::StallReply(0))
    });
    let running = line.machine.backup(&[]).start();
    wait_until(Duration::from_secs(120), "the object to be there", || {
        line.bucket.list().keys().any(|key| key.contains("/packs/"))
    });
    running.kill();
    line.proxy.script(|_| None);
    let sent = line.next_run();
    assert!(sent < SMALL, "{sent} bytes were sent");
    line.all_is_well();
}
