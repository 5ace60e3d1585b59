//! A line that drops again and again: a generation gets through, and everybody can see how far it is.

use std::time::Duration;

use tests::machine::Machine;
use tests::proxy::Proxy;
use tests::servers::seaweedfs;
use tests::tree::Tree;
use tests::{Rng, wait_until};

const MIB: u64 = 1 << 20;
/// What all connections together carry before all of them break: of 256 KiB/s, ten seconds.
const DROP: u64 = 5 * MIB / 2;

fn machine(proxy: &Proxy, mib: usize) -> Machine {
    let machine = Machine::with_bucket(&proxy.url(), &seaweedfs().bucket("weak").name);
    std::fs::write(machine.source().join("large"), Rng::new(1).bytes(mib << 20)).unwrap();
    machine
}

fn with_packs_of(machine: &Machine, size: &str) {
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store.replace("24 MiB", size));
    machine.configure(100, "");
}

#[track_caller]
fn all_is_well(machine: &Machine, orphans: bool) {
    let newest = machine.list().pop().unwrap().generation;
    Tree::read(&machine.source()).assert_equals(&machine.restored(&newest));
    machine.verify();
    machine.assert_at_rest(orphans);
}

/// Sent four at a time, nothing would ever get through. By hand, `OFFSITE_DROP_SECONDS=10` makes it a line of 256 KiB/s
/// that drops so often.
#[test]
fn a_line_that_drops_finishes_a_generation_and_shows_when() {
    let proxy = Proxy::to(seaweedfs().port());
    let machine = machine(&proxy, 24);
    with_packs_of(&machine, "1 MiB");
    let real = std::env::var("OFFSITE_DROP_SECONDS").ok().map(|text| Duration::from_secs(text.parse().unwrap()));
    proxy.slow(if real.is_some() { MIB / 4 } else { MIB });
    match real {
        Some(time) => proxy.drops_each(time),
        None => proxy.drops_every(DROP),
    }
    let mut running = machine.backup(&["-v"]).start();
    let mut seen = serde_json::Value::Null;
    wait_until(Duration::from_secs(120), "status to say when it will be done", || {
        assert!(running.runs(), "it was done before anybody could look");
        seen = machine.world.offsite(["--json", "status"]).expect(0).json()["running"].clone();
        // It is reckoned from what is sealed so far, and true when enough is.
        seen["done_at"].is_string() && (24 * MIB..32 * MIB).contains(&seen["to_send_bytes"].as_u64().unwrap())
    });
    assert!(seen["sent_bytes"].as_u64().unwrap() > 0 && seen["bytes_per_second"].as_u64().unwrap() > 0, "{seen}");
    if real.is_none() {
        proxy.slow(u64::MAX);
    }
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains(" are sent, ") && outcome.stderr.contains("done in about"), "{outcome}");
    eprintln!("{seen}\n{} bytes were sent\n{}", proxy.bytes_up(), outcome.stderr);
    // Four at a time, everything that was under way at a drop was sent for nothing.
    assert!(proxy.bytes_up() < 48 * MIB, "{} bytes were sent", proxy.bytes_up());
    let status = machine.world.offsite(["--json", "status"]).expect(0).json();
    assert!(status["running"].is_null(), "{status}");
    all_is_well(&machine, false);
}

/// Parts of a bucket cannot be smaller than 5 MiB. What to do about it is said, and does it.
#[test]
fn a_line_that_lets_no_part_through_wants_smaller_packs() {
    let proxy = Proxy::to(seaweedfs().port());
    let machine = machine(&proxy, 6);
    proxy.drops_every(DROP);
    let failed = machine.backup(&[]).expect(4);
    assert!(failed.stderr.contains("set pack = \"1 MiB\""), "{failed}");
    assert_eq!(machine.list().len(), 0);
    with_packs_of(&machine, "1 MiB");
    let given_up = machine.backup(&[]).expect(4);
    assert!(given_up.stderr.contains("larger than the configuration asks for"), "{given_up}");
    assert_eq!(given_up.json()["stores"][0]["stored"], true, "{given_up}");
    all_is_well(&machine, true);
    machine.backup(&[]).expect(0);
}
