//! Locks and the past: what a thief with a key can do to a bucket that locks, and what comes back all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tests::machine::Machine;
use tests::proxy::{Fault, Proxy};
use tests::servers::{Bucket, Keys, s3_with_policies};
use tests::tree::{Tree, assert_same};
use tests::wait_until;
use tests::{Rng, office};

/// More than one part, so that the lock of an object made of parts is among them.
const BYTES: usize = 7 << 20;

#[test]
fn what_is_locked_outlasts_a_thief_with_every_key() {
    let server = s3_with_policies();
    let bucket = server.locking_bucket("thief");
    let lock = "mode = \"compliance\", archival = \"10 years\"";
    let machine = Machine::with_locking_bucket(&server.url(), &bucket.name, lock);
    machine.world.write("source/large", providers::conformance::noise(1, BYTES));
    office::deep(&machine.source(), 20);
    let arguments = ["--archive", "--keep", "18 months", "--label", "for the auditor"];
    let begun: Timestamp = Timestamp::now();
    let archival = machine.backup(&arguments).expect(0).json();
    let archival = archival["generation"]["id"].as_str().unwrap().to_owned();
    let before = Tree::read(&machine.source());

    let ours: Vec<_> = bucket.versions().into_iter().filter(|version| version.key.contains("/archive/")).collect();
    assert!(ours.len() >= 5, "{ours:?}");
    let dates = machine.lock_dates(ours.iter().map(|version| version.key.as_str()));
    let (until, month) = (dates.first().unwrap(), 31 * 24);
    assert_eq!(dates.len(), 1, "locked for its lifetime: {dates:?}");
    assert!((17 * month..=18 * month).contains(&until.duration_since(begun).as_hours()), "{until}");
    let at = machine.newest_object();
    for keys in [Keys::AGENT_A, Keys::KEEPER_A, Keys::SITE_A, Keys::ADMIN] {
        let seen = bucket.as_seen_by(keys);
        for version in &ours {
            assert!(!seen.try_unlock(version), "{} shortened the lock of {version:?}", keys.id);
            assert!(!seen.try_destroy(version), "{} destroyed {version:?}", keys.id);
        }
    }
    // A store tells times in whole seconds: what a thief writes within that of the last object has the same one.
    wait_until(Duration::from_secs(60), "the next second", || Timestamp::now() >= at + Duration::from_secs(1));
    plunder(&bucket);
    assert!(ours.iter().all(|version| bucket.versions().contains(version)), "a locked version is gone");

    // Now it seems as if nothing was there, or something else.
    let hidden = machine.world.offsite(["--json", "list", "--from", "far"]).run();
    assert!(!hidden.stdout.contains("\"signed\": true"), "{hidden}");
    let at = at.to_string();
    machine.restore_with(Keys::RESTORER_A);
    let listed = machine.world.offsite(["--json", "list", "--as-of", &at]).expect(0).json();
    assert_eq!(listed["generations"][0]["id"], archival.as_str(), "{listed}");
    assert_eq!(listed["generations"][0]["places"][0]["signed"], true, "{listed}");
    let identity = machine.world.path("identity.txt");
    let arguments = ["restore", &archival, "--to", "back", "--as-of", &at, "--identity", identity.to_str().unwrap()];
    machine.world.offsite(arguments).expect(0);
    assert!(before.differences(&Tree::read(&machine.world.path("back/docs"))).is_empty());
    assert_same(&machine.source(), &machine.world.path("back/docs"));
    // At a later time it was not there any more as it was signed.
    for version in &ours {
        assert!(bucket.as_seen_by(Keys::AGENT_A).try_write(&version.key, b"ransom"));
    }
    let late = ["--as-of", "2100-01-01T00:00:00Z", "--identity", identity.to_str().unwrap()];
    for (which, code) in [(archival.as_str(), 5), ("latest", 5)] {
        let refused = machine.world.offsite([&["restore", which, "--to", "late"][..], &late].concat()).expect(code);
        assert!(refused.stderr.contains("try an earlier time: `--as-of`"), "{refused}");
    }
    let listed = machine.world.offsite(["list", "--as-of", "2100-01-01T00:00:00Z"]).expect(5);
    assert!(listed.stdout.contains("REFUSED: ") && listed.stdout.contains("try an earlier time"), "{listed}");
}

/// Overwrites everything, then deletes everything, with whatever key allows it.
fn plunder(bucket: &Bucket) {
    for key in bucket.list().keys() {
        let agent = bucket.as_seen_by(Keys::AGENT_A);
        assert!(agent.try_write(key, b"ransom"), "the agent's key writes");
        assert!(!agent.try_delete(key), "the agent's key deletes");
        assert!(bucket.as_seen_by(Keys::KEEPER_A).try_delete(key));
    }
    assert!(bucket.list().is_empty());
}

#[test]
fn rolling_chains_are_locked_as_long_as_they_are_needed() {
    let server = s3_with_policies();
    let bucket = server.locking_bucket("rolling");
    let lock = "mode = \"governance\", rolling = \"30 days\"";
    let machine = Machine::with_locking_bucket(&server.url(), &bucket.name, lock);
    let mut rng = Rng::new(5);
    office::documents(&machine.source(), &mut rng, 10, 100_000);
    machine.backup(&[]).expect(0);
    office::one_day(&machine.source(), &mut rng);
    let second = machine.backup(&[]).expect(0).json();
    assert_eq!(second["stores"][0]["full"], false, "{second}");
    let ours: Vec<_> = bucket.versions().into_iter().filter(|version| version.key.contains("/rolling/")).collect();
    let dates = machine.lock_dates(ours.iter().map(|version| version.key.as_str()));
    assert_eq!(dates.len(), 1, "all objects of a chain have one date: {dates:?}");
    for keys in [Keys::AGENT_A, Keys::SITE_A] {
        assert!(ours.iter().all(|version| !bucket.as_seen_by(keys).try_destroy(version)));
    }
    // A longer lock begins a new chain: what it builds on would be free too early.
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store.replace("30 days", "60 days"));
    machine.configure(100, "");
    let third = machine.backup(&[]).expect(0).json();
    assert_eq!(third["stores"][0]["full"], true, "{third}");
    machine.verify();
}

/// Copies have the date of the chain that they are made for, whatever that of the chain they come from is.
#[test]
fn fulls_that_are_made_in_the_bucket_have_locks_of_their_own() {
    let server = s3_with_policies();
    let bucket = server.locking_bucket("copied");
    let url: providers::Url = server.url().parse().unwrap();
    let proxy = Proxy::to(url.port().unwrap());
    let lock = "mode = \"governance\", rolling = \"30 days\"";
    let machine = Machine::with_locking_bucket(&proxy.url(), &bucket.name, lock);
    let configure = |from: &str, to: &str| {
        let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
        machine.world.write("store.toml", store.replace(from, to));
        machine.configure(1, "");
    };
    configure("24 MiB", "1 MiB");
    let mut rng = Rng::new(6);
    machine.world.write("source/database", rng.bytes(5 << 20));
    let night = |copied: bool| {
        let report = machine.backup(&[]).expect(0).json();
        let stored = &report["stores"][0];
        assert!(stored["full"] == true && (stored["copied_bytes"].as_u64() > Some(4 << 20)) == copied, "{report}");
        let folder = format!("/rolling/{}/", stored["chain"].as_str().unwrap());
        let ours: Vec<_> = bucket.versions().into_iter().filter(|version| version.key.contains(&folder)).collect();
        for keys in [Keys::AGENT_A, Keys::SITE_A] {
            assert!(
                ours.iter().all(|version| !bucket.as_seen_by(keys).try_destroy(version)),
                "{} of {ours:?}",
                keys.id
            );
        }
        let dates = machine.lock_dates(ours.iter().map(|version| version.key.as_str()));
        assert!(ours.len() > 8 && dates.len() == 1, "all objects of a chain have one date: {dates:?} of {ours:?}");
        dates.into_iter().next().unwrap()
    };
    let first = night(false);
    configure("30 days", "60 days");
    machine.world.write("source/letter", "of the second day");
    let second = night(true);
    assert_eq!(second.duration_since(first).as_hours() / 24, 30);
    // Where the store does not copy, what is sent is locked.
    proxy.script(|request| {
        let copies = request.target.contains("x-id=CopyObject");
        copies.then_some(Fault::Answer { status: 403, retry_after: None })
    });
    machine.world.write("source/letter", "of the third day");
    night(false);
    machine.restored(&machine.list().pop().unwrap().generation);
    machine.verify();
}

#[test]
fn a_bucket_that_cannot_lock_gets_nothing() {
    let server = s3_with_policies();
    let bucket = server.bucket("plain");
    let lock = "mode = \"compliance\", archival = \"1 year\"";
    let machine = Machine::with_locking_bucket(&server.url(), &bucket.name, lock);
    machine.world.write("source/file", "x");
    let refused = machine.backup(&["--archive"]).run();
    assert!(refused.code == Some(4) && refused.to_string().contains("lock"), "{refused}");
    let sent: Vec<_> = bucket.list().into_keys().filter(|key| key.contains("/archive/")).collect();
    assert!(sent.is_empty(), "{sent:?}");
    // What is not to be locked is sent, and has no past.
    let rolling = machine.backup(&[]).run().json();
    assert_eq!(rolling["stores"][0]["stored"], true, "{rolling}");
    machine.restore_with(Keys::RESTORER_A);
    let past = machine.world.offsite(["list", "--as-of", "2030-01-01T00:00:00Z"]).expect(4);
    assert!(past.stderr.contains("no older versions"), "{past}");
    let local = machine.world.offsite(["list", "--from", "local", "--as-of", "2030-01-01T00:00:00Z"]).expect(2);
    assert!(local.stderr.contains("--as-of"), "{local}");
}

/// Nothing but a rule of the bucket frees room, and it is said whether there is one. Every version is accounted for.
#[test]
fn what_is_pruned_from_a_bucket_with_versions_is_hidden_and_no_more() {
    let server = s3_with_policies();
    let bucket = server.locking_bucket("hidden");
    let machine = Machine::with_bucket(&server.url(), &bucket.name);
    let rules = "prune = \"agent\"\n[rolling]\nlast = 2\nworking_days = 0\ndaily = 0\nweekly = 0\nmonthly = 0\n\
                 [brake]\nremove_percent = 90\n";
    machine.configure(1, rules);
    for night in 0..4 {
        machine.world.write("source/letter", format!("night {night}"));
        machine.backup(&[]).expect(0);
    }
    let check = machine.world.offsite(["check"]).expect(0);
    assert!(check.stdout.contains("no rule of the bucket ever removes it"), "{check}");
    let before = bucket.list();
    let pruned = machine.world.offsite(["--json", "prune"]).expect(0).json();
    let far = &pruned["places"][0];
    assert_eq!(far["versions"]["hidden"], "for_ever", "{pruned}");
    let removed: BTreeSet<String> = far["removals"].as_array().unwrap().iter().map(full_key).collect();
    assert!(removed.len() >= 10, "{removed:?}");
    // What `check` has tried the bucket with is hidden as well.
    let stored = |key: &str| !key.contains("/probe/");
    let hidden: BTreeSet<String> = bucket.hidden().into_iter().filter(|key| stored(key)).collect();
    assert_eq!(hidden, removed, "what is hidden is what was removed");
    let (mut versions, now) = (BTreeMap::<String, u32>::new(), bucket.list());
    for version in bucket.versions().into_iter().filter(|version| stored(&version.key)) {
        *versions.entry(version.key).or_default() += 1;
    }
    for (key, count) in versions {
        // One that is written again after a lost reply is one more.
        let as_written = if key.contains("heartbeat.json") { count >= 4 } else { count == 1 };
        assert!(as_written, "{count} versions of {key}");
        assert!(now.contains_key(&key) || (removed.contains(&key) && before.contains_key(&key)), "{key}");
    }
    bucket.remove_hidden_after(30, "site-a/");
    let ruled = machine.world.offsite(["--json", "prune"]).expect(0).json();
    assert_eq!(ruled["places"][0]["versions"], serde_json::json!({ "hidden": "for", "days": 30 }), "{ruled}");
    let check = machine.world.offsite(["check"]).expect(0);
    assert!(!check.stdout.contains("keeps versions"), "{check}");
    machine.verify();
}

fn full_key(object: &serde_json::Value) -> String {
    format!("site-a/{}", object["key"].as_str().unwrap())
}
