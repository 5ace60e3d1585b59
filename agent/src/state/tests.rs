//! Facts are remembered, and nothing that was given up is ever referred to.

use super::*;
use crate::format::Sha256;
use crate::format::names::PackName;
use crate::generation::Class;
use crate::ids::StoreName;

fn opened() -> (tempfile::TempDir, State) {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path(), &"townhall".parse().unwrap()).unwrap();
    (folder, state)
}

fn pack(state: &State, order: u32, at: u64, patches: Vec<NewPatch>, chunks: Vec<NewChunk>) -> SealedPack {
    let name = PackName { number: 0, order, sha256: Sha256::of(&order.to_be_bytes()), patches: !patches.is_empty() };
    SealedPack { id: state.next_pack_id().unwrap(), name, at, content: 1000, sealed: 300, patches, chunks }
}

#[test]
fn another_sites_state_is_not_used() {
    let (folder, state) = opened();
    drop(state);
    assert_eq!(State::site_of(folder.path()).as_deref(), Some("townhall"));
    let error = State::open(folder.path(), &"school".parse().unwrap()).unwrap_err();
    assert!(matches!(error, StateError::OtherSite { .. }), "{error}");
    rusqlite::Connection::open(folder.path().join("state.db")).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = State::open(folder.path(), &"townhall".parse().unwrap()).unwrap_err();
    assert!(matches!(error, StateError::Version { found: 7, .. }), "{error}");
}

#[test]
fn processes_that_open_a_new_state_at_once_all_find_it_whole() {
    let site = "townhall".parse().unwrap();
    for _ in 0..50 {
        let folder = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for opener in [(); 4].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    State::open(folder.path(), &site).map(drop)
                })
            }) {
                opener.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn a_damaged_state_is_not_used_and_not_touched() {
    let (folder, mut state) = opened();
    for number in 0..200 {
        state.set_upload(&"nas".parse().unwrap(), &format!("key-{number}"), Some(&"x".repeat(300))).unwrap();
    }
    state.check().unwrap();
    let path = state.path().to_owned();
    drop(state);
    // In its middle: only reading all of it shows that.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xaa);
    std::fs::write(&path, &bytes).unwrap();
    let site = "townhall".parse().unwrap();
    let found = State::open(folder.path(), &site).and_then(|state| state.check()).unwrap_err();
    assert!(matches!(found, StateError::Damaged { .. }), "{found}");
    std::fs::write(&path, "this was a database").unwrap();
    let found = State::open(folder.path(), &site).unwrap_err();
    assert!(matches!(found, StateError::Damaged { .. }), "{found}");
    assert_eq!(std::fs::read(&path).unwrap(), b"this was a database");
}

#[test]
fn chunks_of_sealed_packs_are_found_until_the_delivery_is_abandoned() {
    let (_folder, mut state) = opened();
    let store = "nas".parse().unwrap();
    let generation = "20261122T233004Z-7f3a".parse().unwrap();
    let now = crate::clock::now();
    let new =
        NewDelivery { store: &store, class: Class::Rolling, generation: &generation, chain: None, now, notes: &[] };
    let delivery = state.begin(&new).unwrap();
    assert_eq!((delivery.number, delivery.phase), (0, Phase::Sealing));

    let plain = NewChunk { hash: [1; 32], at: 500, patch: None };
    let first = pack(&state, 1, 0, vec![], vec![plain]);
    state.pack_sealed(&delivery, &first).unwrap();
    let patch = NewPatch { at: 9, packed: 99, gives: 999, reference: 0, reference_bytes: 800 };
    let patched = NewChunk { hash: [2; 32], at: 7, patch: Some(0) };
    let second = pack(&state, 2, 0, vec![patch], vec![patched]);
    state.pack_sealed(&delivery, &second).unwrap();

    let chain = &delivery.chain;
    assert_eq!(state.find_chunk(chain, &[1; 32]).unwrap(), Some(Location::Plain(500)));
    let wanted = Location::Patch { pack: second.id, patch, skip: 7 };
    assert_eq!(state.find_chunk(chain, &[2; 32]).unwrap(), Some(wanted));
    assert_eq!(state.find_chunk(chain, &[3; 32]).unwrap(), None);
    assert_eq!(state.unfinished(&store).unwrap().unwrap().chain.content_bytes, 1000);
    assert_eq!(state.packs(chain, delivery.id).unwrap().len(), 2);
    assert_eq!(state.packs(chain, -1).unwrap().len(), 0, "packs of an uncommitted generation are nobody else's");

    state.abandon(&delivery).unwrap();
    assert_eq!(state.find_chunk(chain, &[1; 32]).unwrap(), None);
    assert_eq!(state.find_chunk(chain, &[2; 32]).unwrap(), None);
    assert!(state.unfinished(&store).unwrap().is_none() && state.open_chain(&store).unwrap().is_none());
}

#[test]
fn all_chains_are_closed_wherever_they_are_and_however_far() {
    let (_folder, mut state) = opened();
    let stores = ["nas", "disk-b"].map(|name| name.parse().unwrap());
    let generation = "20261122T233004Z-7f3a".parse().unwrap();
    let now = crate::clock::now();
    let [whole, begun] = stores.each_ref().map(|store| {
        let new = NewDelivery { store, class: Class::Rolling, generation: &generation, chain: None, now, notes: &[] };
        let delivery = state.begin(&new).unwrap();
        let pack = pack(&state, 1, 0, vec![], vec![NewChunk { hash: [1; 32], at: 500, patch: None }]);
        state.pack_sealed(&delivery, &pack).unwrap();
        delivery
    });
    state.committed(&whole).unwrap();
    assert!(state.open_chain(&stores[0]).unwrap().is_some());
    state.close_chains().unwrap();
    assert!(state.open_chain(&stores[0]).unwrap().is_none());
    assert_eq!(state.find_chunk(&whole.chain, &[1; 32]).unwrap(), None);
    // What is under way can be finished, and nothing joins it then.
    assert_eq!(state.unfinished(&stores[1]).unwrap().unwrap().id, begun.id);
    assert!(state.find_chunk(&begun.chain, &[1; 32]).unwrap().is_some());
    state.committed(&begun).unwrap();
    assert!(state.open_chain(&stores[1]).unwrap().is_none());
    assert_eq!(state.packs(&begun.chain, begun.id).unwrap().len(), 0);
}

#[test]
fn what_was_found_is_known_until_it_was_told() {
    let (_folder, mut state) = opened();
    let [nas, other] = ["nas", "nas-b"].map(|name| name.parse::<StoreName>().unwrap());
    let (one, two) = ("20261122T233004Z-7f3a".parse().unwrap(), "20261123T233004Z-7f3a".parse().unwrap());
    let (class, now) = (Class::Rolling, crate::clock::now());
    let notes = |notes: &[&str]| notes.iter().map(|note| (*note).to_owned()).collect::<Vec<_>>();
    let new = |generation, notes| NewDelivery { store: &nas, class, generation, chain: None, now, notes };
    let first = state.begin(&new(&one, &[])).unwrap();
    // A run finds something, closes the chain for it, and dies; the next one finds something else.
    state.close_chain(&first.chain, &notes(&["packs are gone", "packs are damaged"])).unwrap();
    let found = notes(&["packs are damaged", "it is another disk"]);
    let second = state.begin(&new(&two, &found)).unwrap();
    assert_eq!(state.notes(&nas).unwrap(), ["packs are gone", "packs are damaged", "it is another disk"]);
    assert_eq!(state.notes(&other).unwrap(), notes(&[]));
    // A generation that is committed may be one of many that the run is to store before it tells anything.
    state.committed(&second).unwrap();
    assert_eq!(state.notes(&nas).unwrap().len(), 3);
    state.told(&nas, &notes(&["packs are gone", "it is another disk"])).unwrap();
    state.told(&other, &notes(&["packs are damaged"])).unwrap();
    assert_eq!(state.notes(&nas).unwrap(), ["packs are damaged"]);
    state.told(&nas, &notes(&["packs are damaged"])).unwrap();
    assert_eq!(state.notes(&nas).unwrap(), notes(&[]));
}
