//! Requests cost money where they are counted: a generation takes few, however much the chain holds already.

use std::collections::BTreeMap;

use tests::Rng;
use tests::machine::Machine;
use tests::proxy::Proxy;
use tests::servers::seaweedfs;

/// Requests of one run, by method; a listing is one of its own.
fn of_a_run(machine: &Machine, proxy: &Proxy) -> BTreeMap<String, usize> {
    let before = proxy.seen().len();
    machine.backup(&[]).expect(0);
    let mut counts = BTreeMap::new();
    for (request, _) in &proxy.seen()[before..] {
        let listing = request.method == "GET" && request.target.contains("list-type=2");
        let method = if listing { "LIST" } else { &request.method };
        *counts.entry(method.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn a_generation_takes_few_requests() {
    let bucket = seaweedfs().bucket("requests");
    let proxy = Proxy::to(seaweedfs().port());
    let machine = Machine::with_bucket(&proxy.url(), &bucket.name);
    let path = machine.source().join("database");
    let mut rng = Rng::new(1);
    let mut content = rng.bytes(40 << 20);
    std::fs::write(&path, &content).unwrap();
    let mut runs = vec![of_a_run(&machine, &proxy), of_a_run(&machine, &proxy)];
    for _ in 0..4 {
        for at in (0..content.len()).step_by(1 << 20) {
            content[at..at + 100].copy_from_slice(&rng.bytes(100));
        }
        std::fs::write(&path, &content).unwrap();
        runs.push(of_a_run(&machine, &proxy));
    }
    let total = |run: &BTreeMap<String, usize>| run.values().sum::<usize>();
    // Two packs of 24 MiB, of which the server gets parts of 5 MiB.
    assert!(total(&runs[0]) <= 60, "a full of two packs: {:?}", runs[0]);
    assert!(total(&runs[1]) <= 24, "nothing new: {:?}", runs[1]);
    for run in &runs[2..] {
        assert!(total(run) <= 28, "a day's work: {runs:?}");
    }
    // One that the server was too busy for is made again.
    assert!(total(&runs[5]) <= total(&runs[2]) + 2, "a chain that grows takes more requests: {runs:?}");
    eprintln!("requests of runs, the full first: {runs:?}");
}

/// With the sizes that a store has if nobody says others: packs of 64 MiB, sent in parts of 8 MiB.
#[test]
fn a_full_takes_a_dozen_requests_for_each_pack() {
    let bucket = seaweedfs().bucket("requests-of-a-full");
    let proxy = Proxy::to(seaweedfs().port());
    let machine = Machine::with_bucket(&proxy.url(), &bucket.name);
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    let sizes = "\npack = \"24 MiB\"\npart = \"5 MiB\"";
    assert!(store.contains(sizes));
    machine.world.write("store.toml", store.replace(sizes, ""));
    machine.configure(100, "");
    std::fs::write(machine.source().join("photographs"), Rng::new(2).bytes(130 << 20)).unwrap();
    let full = of_a_run(&machine, &proxy);
    let packs = machine.objects().iter().filter(|key| key.contains("/packs/")).count();
    let total = full.values().sum::<usize>();
    // Two that the server was too busy for are made again.
    assert!(packs == 2 && total <= 20 + 12 * packs + 2, "{packs} packs: {full:?}");
    eprintln!("requests of a full of {packs} packs: {full:?}");
}
