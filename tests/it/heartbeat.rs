//! The only object that is ever overwritten, and what becomes of runs when it cannot be written, is written by half, or
//! cannot be read.

use tests::machine::Machine;
use tests::proxy::{Fault, Proxy};
use tests::servers::apache;
use tests::tree::Tree;

const REFUSED: Fault = Fault::Answer { status: 403, retry_after: None };

/// A machine whose line to its store refuses what `script` says.
fn machine() -> (Machine, Proxy) {
    let url: providers::Url = apache().collection("heartbeat").urls.http.unwrap().parse().unwrap();
    let proxy = Proxy::to(apache().port());
    let machine = Machine::with_webdav(&format!("{}{}", proxy.url(), url.path()));
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    (machine, proxy)
}

/// Refuses to give an object its name.
fn refuse_to_write(proxy: &Proxy, name: &'static str) {
    proxy.script(move |request| {
        let temporary = request.target.rsplit('/').next().and_then(|last| last.split_once('~'));
        (request.method == "MOVE" && temporary.is_some_and(|(of, _)| of == name)).then_some(REFUSED)
    });
}

/// Refuses to give an object away.
fn refuse_to_read(proxy: &Proxy, name: &'static str) {
    proxy.script(move |request| {
        (request.method == "GET" && request.target.rsplit('/').next() == Some(name)).then_some(REFUSED)
    });
}

#[track_caller]
fn is_stored_though_nobody_was_told(machine: &Machine) {
    let outcome = machine.backup(&[]).expect(4);
    assert_eq!(outcome.json()["stores"][0]["stored"], true, "{outcome}");
    assert!(outcome.stderr.contains("did not take the heartbeat"), "{outcome}");
}

#[track_caller]
fn all_is_well(machine: &Machine, generations: usize) {
    machine.backup(&[]).expect(0);
    let stored = machine.list();
    assert_eq!(stored.len(), generations);
    for one in stored {
        Tree::read(&machine.source()).assert_equals(&machine.restored(&one.generation));
    }
    machine.verify();
    machine.assert_at_rest(false);
    machine.world.offsite(["status", "--from", "far"]).expect(0);
}

#[test]
fn one_that_cannot_be_written_is_said_and_written_by_the_next_run() {
    let (machine, proxy) = machine();
    refuse_to_write(&proxy, "heartbeat.json");
    is_stored_though_nobody_was_told(&machine);
    is_stored_though_nobody_was_told(&machine);
    proxy.script(|_| None);
    all_is_well(&machine, 3);
}

#[test]
fn one_without_its_signature_is_as_good_as_none() {
    let (machine, proxy) = machine();
    machine.backup(&[]).expect(0);
    let clone = machine.clone_machine();
    refuse_to_write(&proxy, "heartbeat.json.minisig");
    is_stored_though_nobody_was_told(&machine);
    proxy.script(|_| None);
    // The new document and the old signature: nobody believes it, and a clone is found out all the same.
    machine.world.offsite(["status", "--from", "far"]).expect(4);
    let stopped = clone.backup(&[]).expect(4);
    assert!(stopped.stderr.contains("another machine stores under the same site name"), "{stopped}");
    all_is_well(&machine, 3);
}

#[test]
fn one_that_cannot_be_read_stops_a_run_before_it_sends_anything() {
    let (machine, proxy) = machine();
    machine.backup(&[]).expect(0);
    let before = machine.objects();
    for name in ["heartbeat.json", "heartbeat.json.minisig"] {
        refuse_to_read(&proxy, name);
        let refused = machine.backup(&[]).expect(4);
        assert!(refused.stderr.contains("access was denied"), "{refused}");
        assert_eq!(machine.objects(), before, "something was sent");
    }
    proxy.script(|_| None);
    // What was captured meanwhile stays on this machine.
    all_is_well(&machine, 2);
}
