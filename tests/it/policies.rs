//! The policies of `deploy/policies`, as a real server carries them out: each role can do its work, and nothing else.

use tests::machine::Machine;
use tests::servers::{Keys, s3_with_policies};

/// Names of another site, and some that are meant to be taken for the agent's own.
const OTHERS: [&str; 3] = ["site-b/rolling/x", "site-ab/rolling/x", "x"];
/// One that a server may take for what it says, a name of the agent's own, or for a way into the other site.
const DOTTED: &str = "site-a/../site-b/rolling/x";

#[test]
fn an_agent_reaches_nothing_but_its_own_site() {
    let server = s3_with_policies();
    let bucket = server.bucket("apart");
    for key in ["site-a/rolling/x", "site-b/rolling/x", "site-ab/rolling/x", "x"] {
        bucket.write(key, b"kept");
    }
    let agent = bucket.as_seen_by(Keys::AGENT_A);
    assert!(agent.try_read("site-a/rolling/x") && agent.try_list("site-a/"), "its own");
    for key in OTHERS {
        assert!(!agent.try_read(key), "it read {key}");
        assert!(!agent.try_head(key), "it looked at {key}");
        assert!(!agent.try_write(key, b"ransom"), "it overwrote {key}");
        assert!(!agent.try_delete(key), "it deleted {key}");
        assert!(!agent.try_copy(key, "site-a/stolen"), "it copied {key} to itself");
        assert!(!agent.try_copy("site-a/rolling/x", key), "it copied over {key}");
    }
    for prefix in ["", "s", "site-", "site-b/", "site-ab/", "site-b/rolling/"] {
        assert!(!agent.try_list(prefix), "it listed {prefix:?}");
    }
    let other = bucket.as_seen_by(Keys::AGENT_B);
    assert!(!other.try_read("site-a/rolling/x") && !other.try_write("site-a/rolling/x", b"ransom"));
    assert!(!agent.try_delete("site-a/rolling/x"), "it deleted what is its own");
    for key in ["site-a/rolling/x", "site-b/rolling/x", "site-ab/rolling/x", "x"] {
        assert_eq!(bucket.read(key), b"kept", "{key}");
    }
    assert!(!bucket.list().contains_key("site-a/stolen"));
    assert!(!agent.try_read(DOTTED) && !agent.try_copy(DOTTED, "site-a/stolen"), "it read {DOTTED}");
    agent.try_write(DOTTED, b"ransom");
    agent.try_copy("site-a/rolling/x", DOTTED);
    agent.try_delete(DOTTED);
    assert_eq!(bucket.read("site-b/rolling/x"), b"kept", "it got into the other site");
}

#[test]
fn an_agents_key_is_enough_for_its_work() {
    let server = s3_with_policies();
    let bucket = server.bucket("work");
    let machine = Machine::with_agents_key(&server.url(), &bucket.name, "");
    // In parts, and in one piece.
    machine.world.write("source/large", providers::conformance::noise(3, 7 << 20));
    machine.world.offsite(["check"]).expect(0);
    machine.backup(&[]).expect(0);
    machine.world.write("source/small", "x");
    machine.backup(&[]).expect(0);
    machine.backup(&["--archive"]).expect(0);
    machine.world.offsite(["list"]).expect(0);
    machine.world.offsite(["verify"]).expect(0);
    machine.verify();
}

#[test]
fn a_keeper_deletes_and_cannot_replace_and_a_restorer_only_reads() {
    let server = s3_with_policies();
    let bucket = server.locking_bucket("roles");
    for key in ["site-a/one/rolling/x", "site-b/one/rolling/x"] {
        bucket.write(key, b"kept");
    }
    let version = bucket.versions().remove(0);
    let (keeper, restorer) = (bucket.as_seen_by(Keys::KEEPER_A), bucket.as_seen_by(Keys::RESTORER_A));
    assert!(restorer.try_read("site-a/one/rolling/x") && restorer.try_list("site-a/"));
    assert!(!restorer.try_write("site-a/one/rolling/y", b"x") && !restorer.try_delete("site-a/one/rolling/x"));
    assert!(!restorer.try_read("site-b/one/rolling/x") && !restorer.try_list("site-b/") && !restorer.try_list(""));
    assert!(!restorer.try_destroy(&version));
    assert!(keeper.try_read("site-a/one/rolling/x") && keeper.try_list("site-a/"));
    assert!(keeper.try_write("site-a/one/verified/x", b"") && keeper.try_write("site-a/one/pruned/x", b""));
    assert!(!keeper.try_write("site-a/one/rolling/x", b"ransom"), "it replaced a backup");
    assert!(!keeper.try_read("site-b/one/rolling/x") && !keeper.try_delete("site-b/one/rolling/x"));
    assert!(!keeper.try_destroy(&version), "it destroyed a version");
    assert!(keeper.try_delete("site-a/one/rolling/x"));
}
