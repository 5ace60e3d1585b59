//! Fulls that are made in real stores, by the program: what they cost the line, that everything comes back, and what becomes
//! of them when the machine, the line or the store fails while it copies.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent::ids::GenerationId;
use tests::machine::Machine;
use tests::proxy::{Fault, Proxy, Request};
use tests::servers::{Bucket, Collection, WebDav, apache, nextcloud_stand_in, seaweedfs};
use tests::tree::{Tree, assert_same};
use tests::{Outcome, Rng, wait_until};

const MIB: u64 = 1 << 20;
/// What the office has, in packs of a MiB.
const BYTES: u64 = 6 * MIB;

/// An office whose chains take two generations, behind a line to its store.
struct Office {
    machine: Machine,
    proxy: Proxy,
    rng: Rng,
    day: usize,
}

/// What a run cost.
struct Cost {
    report: serde_json::Value,
    outcome: Outcome,
    requests: Vec<Request>,
    up: u64,
    down: u64,
}

impl Office {
    fn in_bucket() -> (Self, Bucket) {
        let bucket = seaweedfs().bucket("copies");
        let proxy = Proxy::to(seaweedfs().port());
        (Self::of(Machine::with_bucket(&proxy.url(), &bucket.name), proxy), bucket)
    }

    fn in_collection(server: &WebDav) -> (Self, Collection) {
        let collection = server.collection("copies");
        let url: providers::Url = collection.urls.http.as_ref().unwrap().parse().unwrap();
        let proxy = Proxy::to(url.port().unwrap());
        (Self::of(Machine::with_webdav(&format!("{}{}", proxy.url(), url.path())), proxy), collection)
    }

    fn of(machine: Machine, proxy: Proxy) -> Self {
        let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
        machine.world.write("store.toml", store.replace("24 MiB", "1 MiB"));
        machine.configure(2, "");
        let mut rng = Rng::new(31);
        machine.world.write("source/database", rng.bytes(usize::try_from(BYTES).unwrap()));
        Self { machine, proxy, rng, day: 0 }
    }

    /// A little of the database is changed, and a letter comes.
    fn work(&mut self) {
        let path = self.machine.source().join("database");
        let mut database = std::fs::read(&path).unwrap();
        for at in (0..database.len()).step_by(2 << 20) {
            database[at + 5000 * self.day..][..100].copy_from_slice(&self.rng.bytes(100));
        }
        std::fs::write(path, database).unwrap();
        let letter = format!("source/letter-{}", self.day);
        self.machine.world.write(letter, self.rng.bytes(900));
        self.day += 1;
    }

    #[track_caller]
    fn night(&mut self) -> Cost {
        self.work();
        self.run()
    }

    #[track_caller]
    fn run(&self) -> Cost {
        let (seen, up, down) = (self.proxy.seen().len(), self.proxy.bytes_up(), self.proxy.bytes_down());
        let outcome = self.machine.backup(&[]).expect(0);
        Cost {
            report: outcome.json(),
            outcome,
            requests: self.proxy.seen().split_off(seen).into_iter().map(|(request, _)| request).collect(),
            up: self.proxy.bytes_up() - up,
            down: self.proxy.bytes_down() - down,
        }
    }

    /// Two nights, which fill the first chain; the next one begins another.
    fn first_chain(&mut self) {
        assert!(self.night().number("sent_bytes") > BYTES);
        assert!(!self.night().is_full());
    }

    /// What the program gives back of the newest generation is what there is now.
    #[track_caller]
    fn comes_back(&self) {
        let to = self.machine.world.path(format!("back-{}", self.day));
        let identity = self.machine.world.path("identity.txt");
        let arguments = ["restore", "latest", "--to", to.to_str().unwrap(), "--identity", identity.to_str().unwrap()];
        self.machine.world.offsite(arguments).expect(0);
        assert_same(&self.machine.source(), &to.join("docs"));
    }

    /// The newest generation by hand: the folder of its chain as a browser fetches it, and the script beside it.
    fn comes_back_by_hand(&self) {
        let newest = self.machine.list().pop().unwrap();
        let world = &self.machine.world;
        let (folder, place) = (format!("rolling/{}/", newest.chain), format!("hand-{}", self.day));
        for (path, bytes) in self.machine.contents() {
            if path.starts_with(&folder) || path == "restore.sh" {
                world.write(format!("{place}/{path}"), bytes);
            }
        }
        let (hand, out) = (world.path(&place), world.path(format!("{place}/out")));
        let mut script = Command::new("sh");
        script.arg(hand.join("restore.sh")).arg(world.path("identity.txt")).arg(hand.join(&folder));
        let run = script.arg(newest.generation.as_str()).arg(&out).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let check = Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&out).status();
        assert!(check.unwrap().success());
        let same = Command::new("diff").arg("-r").arg(self.machine.source()).arg(out.join("docs")).status();
        assert!(same.unwrap().success());
    }

    /// Names of the packs below the newest chain.
    fn newest_packs(&self) -> BTreeSet<String> {
        let folder = format!("/rolling/{}/packs/", self.machine.list().pop().unwrap().chain);
        let objects = self.machine.objects();
        objects.iter().filter_map(|key| Some(key.split_once(&folder)?.1.to_owned())).collect()
    }
}

impl Cost {
    #[track_caller]
    fn number(&self, field: &str) -> u64 {
        self.report["stores"][0][field].as_u64().unwrap_or_else(|| panic!("{:#}", self.report))
    }

    #[track_caller]
    fn is_full(&self) -> bool {
        self.report["stores"][0]["full"].as_bool().unwrap_or_else(|| panic!("{:#}", self.report))
    }

    fn count(&self, is: impl Fn(&Request) -> bool) -> usize {
        self.requests.iter().filter(|request| is(request)).count()
    }

    /// A full that was made in the store, and cost the line next to nothing.
    #[track_caller]
    fn assert_carried(&self) {
        assert!(self.is_full() && self.number("copied_bytes") > 5 * MIB, "{}", self.outcome);
        assert!(self.number("sent_bytes") < MIB / 8 && self.up < MIB / 4, "{} bytes up: {}", self.up, self.outcome);
    }
}

fn is_copy(request: &Request) -> bool {
    request.method == "COPY" || request.target.contains("x-id=CopyObject")
}

/// A pack of a full is read.
fn reads_pack(request: &Request) -> bool {
    request.method == "GET" && request.target.contains("/packs/00-")
}

/// The copy that is asked for as the `wanted`-th, from 1, meets this fault.
fn at_copy(wanted: usize, fault: Fault) -> impl FnMut(&Request) -> Option<Fault> + Send {
    let copies = AtomicUsize::new(0);
    move |request| (is_copy(request) && copies.fetch_add(1, Ordering::SeqCst) + 1 == wanted).then_some(fault)
}

/// Three chains in a row, the second and third with fulls that are made in the store.
#[track_caller]
fn costs_next_to_nothing_and_comes_back(mut office: Office, name: &str) {
    office.first_chain();
    for _ in 0..2 {
        let full = office.night();
        full.assert_carried();
        let (copies, reads) = (full.count(is_copy), full.count(reads_pack));
        assert!(copies > 5 && reads == copies, "{reads} of {copies} copies were proved: {:?}", full.requests);
        eprintln!(
            "{name}: a full of {} bytes: {copies} copies, {} requests, {} bytes sent, {} bytes read to prove them",
            full.number("content_bytes"),
            full.requests.len(),
            full.up,
            full.down
        );
        office.comes_back();
        office.comes_back_by_hand();
        assert!(!office.night().is_full());
        office.comes_back();
    }
    office.machine.world.offsite(["verify"]).expect(0);
    office.machine.assert_at_rest(true);
}

#[test]
fn a_full_that_is_made_in_a_bucket_costs_next_to_nothing_and_comes_back() {
    costs_next_to_nothing_and_comes_back(Office::in_bucket().0, "SeaweedFS");
}

#[test]
fn a_full_that_is_made_by_apache_costs_next_to_nothing_and_comes_back() {
    costs_next_to_nothing_and_comes_back(Office::in_collection(apache()).0, "Apache mod_dav");
}

#[test]
fn a_full_that_is_made_in_a_nextcloud_costs_next_to_nothing_and_comes_back() {
    costs_next_to_nothing_and_comes_back(Office::in_collection(nextcloud_stand_in()).0, "stand-in for Nextcloud");
}

/// The machine dies when one copy is made and others are under way.
#[track_caller]
fn killed_in_the_midst_of_copying(mut office: Office) {
    office.first_chain();
    office.work();
    let first = Tree::read(&office.machine.source());
    office.proxy.script(at_copy(3, Fault::StallRequest(0)));
    let running = office.machine.backup(&[]).start();
    let stalled = || office.proxy.seen().iter().any(|(_, fault)| fault.is_some());
    wait_until(Duration::from_secs(60), "the third copy", stalled);
    running.kill();
    office.proxy.script(|_| None);
    let next = office.night();
    let resumed = &next.report["resumed"][0];
    let id: GenerationId = resumed["generation"].as_str().unwrap().parse().unwrap();
    assert!(resumed["full"] == true && resumed["copied_bytes"].as_u64() > Some(5 * MIB), "{}", next.outcome);
    assert!(next.up < MIB / 4, "{} bytes up: {}", next.up, next.outcome);
    assert!(!next.is_full());
    first.assert_equals(&office.machine.restored(&id));
    office.comes_back();
    office.machine.verify();
    office.machine.assert_at_rest(true);
}

#[test]
fn killed_in_the_midst_of_copying_in_a_bucket_the_next_run_goes_on() {
    killed_in_the_midst_of_copying(Office::in_bucket().0);
}

#[test]
fn killed_in_the_midst_of_copying_in_a_collection_the_next_run_goes_on() {
    killed_in_the_midst_of_copying(Office::in_collection(apache()).0);
}

/// What passes by itself costs another request and no pack.
#[track_caller]
fn is_carried_all_the_same(mut office: Office, script: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
    office.first_chain();
    office.proxy.script(script);
    let full = office.night();
    let failed = office.proxy.seen().iter().filter(|(_, fault)| fault.is_some()).count();
    office.proxy.script(|_| None);
    assert!(failed > 0, "nothing went wrong");
    full.assert_carried();
    assert!(!full.outcome.stderr.contains("could not be copied"), "{}", full.outcome);
    office.comes_back();
    office.machine.verify();
}

#[test]
fn a_copy_whose_reply_is_lost_is_found_and_proved() {
    is_carried_all_the_same(Office::in_bucket().0, at_copy(2, Fault::LoseReply));
    is_carried_all_the_same(Office::in_collection(apache()).0, at_copy(2, Fault::LoseReply));
    // When the copy gets its name.
    let mut left = 1;
    is_carried_all_the_same(Office::in_collection(apache()).0, move |request| {
        let named = request.method == "MOVE" && request.target.contains("/packs/00-");
        (named && std::mem::take(&mut left) == 1).then_some(Fault::LoseReply)
    });
}

/// As S3 does when it fails after it has begun to answer.
#[test]
fn an_error_that_is_answered_with_200_is_one() {
    is_carried_all_the_same(Office::in_bucket().0, at_copy(2, Fault::Answer { status: 200, retry_after: None }));
}

/// Each time that a chain begins, one sentence says why it is sent.
#[track_caller]
fn where_copies_are_refused_a_full_is_sent(mut office: Office, statuses: &[u16]) {
    office.first_chain();
    for status in statuses.iter().copied() {
        office.proxy.script(move |request| is_copy(request).then_some(Fault::Answer { status, retry_after: None }));
        let full = office.night();
        assert!(full.is_full() && full.number("copied_bytes") == 0 && full.up > BYTES, "{}", full.outcome);
        assert_eq!(full.count(is_copy), 1, "a store that refuses one refuses all");
        let said: Vec<_> = full.outcome.stderr.lines().filter(|line| line.contains("could not be copied")).collect();
        assert!(said.len() == 1 && said[0].contains(&status.to_string()), "{}", full.outcome);
        assert_eq!(office.machine.list().pop().unwrap().commit.unwrap().carried_bytes, None);
        office.comes_back();
        office.night();
    }
    office.machine.verify();
    office.machine.assert_at_rest(false);
}

#[test]
fn where_a_bucket_refuses_copies_a_full_is_sent_and_it_is_said() {
    where_copies_are_refused_a_full_is_sent(Office::in_bucket().0, &[403, 405, 501]);
}

#[test]
fn where_a_collection_refuses_copies_a_full_is_sent_and_it_is_said() {
    where_copies_are_refused_a_full_is_sent(Office::in_collection(apache()).0, &[403, 405]);
}

/// The store copies a pack whose bytes are no longer what was stored, and says that all is well.
#[track_caller]
fn other_bytes_are_not_carried(mut office: Office, damage: impl Fn(&str)) {
    office.first_chain();
    let packs: Vec<String> = office.newest_packs().into_iter().filter(|name| name.starts_with("00-")).collect();
    let old = office.machine.list().pop().unwrap();
    damage(&format!("townhall/rolling/{}/packs/{}", old.chain, packs[2]));
    let full = office.night();
    assert!(full.is_full() && (4 * MIB..6 * MIB).contains(&full.number("copied_bytes")), "{}", full.outcome);
    assert!((MIB / 2..2 * MIB).contains(&full.number("sent_bytes")), "{}", full.outcome);
    let newest = office.machine.list().pop().unwrap();
    let list = office.machine.content(&format!("rolling/{}/{}.packs", newest.chain, newest.generation));
    let list = String::from_utf8(list).unwrap();
    let needs = |name: &str| list.contains(name.rsplit('-').next().unwrap());
    assert!(!needs(&packs[2]) && needs(&packs[3]), "{list}");
    office.comes_back();
    // What is damaged is found, and harms nothing but the chain that it is in.
    let found = office.machine.world.offsite(["--json", "verify"]).expect(5).json();
    let findings = found["stores"][0]["findings"].as_array().unwrap();
    assert!(findings.len() == 1 && findings[0]["object"].as_str().unwrap().ends_with(&packs[2]), "{found}");
    assert!(!findings[0]["harms"].to_string().contains(newest.generation.as_str()), "{found}");
}

#[test]
fn a_bucket_that_copies_other_bytes_is_found_out() {
    let (office, bucket) = Office::in_bucket();
    other_bytes_are_not_carried(office, |key| {
        let key = format!("site-a/{key}");
        let mut bytes = bucket.read(&key);
        bytes[5000] ^= 1;
        bucket.write(&key, &bytes);
    });
}

#[test]
fn a_collection_that_copies_other_bytes_is_found_out() {
    let (office, collection) = Office::in_collection(apache());
    other_bytes_are_not_carried(office, |key| {
        let path = collection.folder.join(key);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5000] ^= 1;
        std::fs::write(path, bytes).unwrap();
    });
}
