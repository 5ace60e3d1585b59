//! Large objects over bad lines to what stands in for a Nextcloud: its uploads in parts go on where they stopped.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tests::machine::Machine;
use tests::proxy::{Fault, Proxy, Request};
use tests::servers::nextcloud_stand_in;
use tests::tree::Tree;
use tests::{Rng, wait_until};

const MIB: u64 = 1 << 20;
/// One pack of three parts.
const BYTES: u64 = 20 * MIB;
const PART: u64 = 8 * MIB;
const SMALL: u64 = MIB;

struct Line {
    uploads: PathBuf,
    proxy: Proxy,
    machine: Machine,
}

impl Line {
    fn new() -> Self {
        let server = nextcloud_stand_in();
        let url: providers::Url = server.collection("office").urls.http.unwrap().parse().unwrap();
        let proxy = Proxy::to(url.port().unwrap());
        let machine = Machine::with_webdav(&format!("{}{}", proxy.url(), url.path()));
        std::fs::write(machine.source().join("large"), Rng::new(1).bytes(usize::try_from(BYTES).unwrap())).unwrap();
        let data = server.folder.parent().unwrap().parent().unwrap();
        Self { uploads: data.join("uploads").join(tests::servers::USER), proxy, machine }
    }

    /// Uploads of this line's machine that are begun and not finished; and their folders on the server's disk.
    fn unfinished(&self) -> Vec<PathBuf> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let everything = providers::KeyPrefix::default();
        let found = self.machine.store.multipart().unwrap().unfinished(&everything).try_collect::<Vec<_>>();
        runtime.block_on(found).unwrap().into_iter().map(|upload| self.uploads.join(upload.id)).collect()
    }

    /// Kills a run when the server has the first part and some of the second, where the line went silent.
    fn kill_in_the_middle(&self) {
        let second = |request: &Request| request.method == "PUT" && request.target.ends_with("/00002");
        self.proxy.script(move |request| second(request).then_some(Fault::StallRequest(MIB)));
        let running = self.machine.backup(&[]).start();
        wait_until(Duration::from_secs(120), "the second part to be under way", || self.proxy.bytes_up() >= PART + MIB);
        running.kill();
        self.proxy.script(|_| None);
        self.proxy.settle();
    }

    #[track_caller]
    fn next_run(&self) -> u64 {
        let before = self.proxy.bytes_up();
        self.machine.backup(&[]).expect(0);
        self.proxy.bytes_up() - before
    }

    #[track_caller]
    fn all_is_well(&self) {
        for stored in self.machine.list() {
            Tree::read(&self.machine.source()).assert_equals(&self.machine.restored(&stored.generation));
        }
        self.machine.verify();
        self.machine.assert_at_rest(false);
    }
}

#[test]
fn killed_in_the_middle_only_missing_parts_are_sent() {
    let line = Line::new();
    line.kill_in_the_middle();
    let sent = line.next_run();
    assert!((BYTES - PART..BYTES - PART + SMALL).contains(&sent), "{sent} bytes were sent");
    line.all_is_well();
}

#[test]
fn an_upload_that_the_server_has_removed_is_begun_anew() {
    let line = Line::new();
    line.kill_in_the_middle();
    let begun = line.unfinished();
    assert_eq!(begun.len(), 1, "{begun:?}");
    std::fs::remove_dir_all(&begun[0]).unwrap();
    let sent = line.next_run();
    assert!((BYTES..BYTES + SMALL).contains(&sent), "{sent} bytes were sent");
    line.all_is_well();
}

/// The gateway gives up, the server is still at it, and then the parts are gone: they have become the object.
#[test]
fn an_assembly_that_outlasts_the_gateway_is_looked_for() {
    let line = Line::new();
    let mut asked = 0;
    line.proxy.script(move |request| {
        let assembles = request.method == "MOVE" && request.target.ends_with("/.file");
        asked += u32::from(assembles);
        match asked {
            1 if assembles => Some(Fault::Answer { status: 504, retry_after: None }),
            2 if assembles => Some(Fault::Answer { status: 423, retry_after: None }),
            3 if assembles => Some(Fault::LoseReply),
            _ => None,
        }
    });
    line.machine.backup(&[]).expect(0);
    let sent = line.proxy.bytes_up();
    assert!((BYTES..BYTES + SMALL).contains(&sent), "{sent} bytes were sent");
    assert_eq!(line.unfinished(), Vec::<PathBuf>::new());
    line.all_is_well();
}

/// Nothing gets its name before it was read back.
#[test]
fn what_was_put_together_wrongly_is_sent_again() {
    let line = Line::new();
    let mut read = 0;
    line.proxy.script(move |request| {
        let reads_back = request.method == "GET" && request.target.contains("/packs/");
        read += u32::from(reads_back);
        (reads_back && read == 1).then_some(Fault::FlipReply(BYTES / 2))
    });
    let failed = line.machine.backup(&[]).expect(5);
    assert!(failed.stderr.contains("not what was sent"), "{failed}");
    assert_eq!(line.machine.list().len(), 0);
    let sent = line.next_run();
    assert!((BYTES..BYTES + SMALL).contains(&sent), "{sent} bytes were sent");
    line.all_is_well();
}
