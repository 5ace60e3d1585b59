//! Chains: every generation of a chain comes back as it was, and a day's work costs a day's work.

use std::path::PathBuf;

use agent::generation::Class;
use tests::engine::Site;
use tests::tree::{self, Tree};
use tests::{Rng, office};

#[test]
fn a_generation_with_one_of_everything_comes_back_as_it_was() {
    let site = Site::new();
    office::zoo(&site.source(), &mut Rng::new(1));
    let generation = site.backup(Class::Rolling);
    let to = site.world.path("restored");
    let report = site.restore(&generation, &to).unwrap();
    assert_eq!((report.lost, report.bad_packs.len()), (vec![], 0));
    tree::assert_same(&site.source(), &to.join("docs"));
}

#[test]
fn each_of_seven_days_in_a_chain_comes_back_as_it_was() {
    let site = Site::new();
    let mut rng = Rng::new(7);
    office::zoo(&site.source(), &mut rng);
    office::documents(&site.source(), &mut rng, 400, 8 << 20);
    let mut days = Vec::new();
    for day in 0..7 {
        let generation = site.backup(Class::Rolling);
        // Owners and times are compared too, so what a day was is kept as it was read, not as a copy.
        days.push((generation, Tree::read(&site.source()).without_special(), format!("day-{day}")));
        office::one_day(&site.source(), &mut rng);
    }
    let chains: Vec<_> = site.list().into_iter().map(|stored| stored.chain).collect();
    assert!(chains.iter().all(|chain| *chain == days[0].0), "not one chain: {chains:?}");
    for (generation, original, name) in &days {
        let to = site.world.path(name);
        let report = site.restore(generation, &to).unwrap();
        assert_eq!((report.lost, report.bad_packs.len()), (vec![], 0), "{name}");
        original.assert_equals(&Tree::read(&to.join("docs")));
    }
}

#[test]
fn a_changed_page_costs_a_patch_and_not_a_chunk() {
    let site = Site::new();
    let path = site.source().join("database");
    let mut rng = Rng::new(3);
    let mut content = rng.bytes(16 << 20);
    std::fs::write(&path, &content).unwrap();
    site.backup(Class::Rolling);
    let before = stored_bytes(&site);
    for at in (0..content.len()).step_by(1 << 20) {
        content[at + 500_000..at + 500_100].copy_from_slice(&rng.bytes(100));
    }
    std::fs::write(&path, &content).unwrap();
    let generation = site.backup(Class::Rolling);
    let sent = stored_bytes(&site) - before;
    assert!(sent < 64 << 10, "16 changes of 100 bytes cost {sent} bytes");
    let to = site.world.path("restored");
    assert_eq!(site.restore(&generation, &to).unwrap().lost, vec![]);
    assert!(std::fs::read(to.join("docs/database")).unwrap() == content);
}

fn stored_bytes(site: &Site) -> u64 {
    let files: Vec<PathBuf> = office::paths(&site.store_folder());
    files.iter().map(|path| path.metadata().unwrap()).filter(std::fs::Metadata::is_file).map(|m| m.len()).sum()
}

#[test]
fn a_store_that_lost_a_pack_gets_a_new_full_and_not_a_generation_that_cannot_be_restored() {
    let site = Site::new();
    std::fs::write(site.source().join("file"), Rng::new(5).bytes(3 << 20)).unwrap();
    let first = site.backup(Class::Rolling);
    let packs = office::paths(&site.store_folder());
    std::fs::remove_file(packs.iter().find(|path| path.to_string_lossy().contains("/00-0001-")).unwrap()).unwrap();
    std::fs::write(site.source().join("new"), "new").unwrap();
    let second = site.backup(Class::Rolling);
    let chains: Vec<_> = site.list().into_iter().map(|stored| stored.chain).collect();
    assert_eq!(chains, [first, second.clone()]);
    let report = site.restore(&second, &site.world.path("restored")).unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
}

#[test]
fn another_disk_in_the_same_place_gets_a_full_of_its_own() {
    let site = Site::new();
    std::fs::write(site.source().join("file"), "content").unwrap();
    site.backup(Class::Rolling);
    for folder in std::fs::read_dir(site.store_folder()).unwrap() {
        std::fs::remove_dir_all(folder.unwrap().path()).unwrap();
    }
    let second = site.backup(Class::Rolling);
    let report = site.restore(&second, &site.world.path("restored")).unwrap();
    assert!(report.lost.is_empty(), "{report:?}");
    assert_eq!(site.list().len(), 1);
}

#[test]
fn a_second_machine_under_the_same_name_is_told_so() {
    let site = Site::new();
    std::fs::write(site.source().join("file"), "content").unwrap();
    site.backup(Class::Rolling);
    // A machine of its own, with a key of its own, on the same store.
    let mut other = Site::new();
    other.store = std::sync::Arc::clone(&site.store);
    std::fs::write(other.source().join("file"), "other").unwrap();
    other.backup(Class::Rolling);
    let report = site.try_backup(Class::Rolling);
    let error = format!("{:?}", report.stores[0].result.as_ref().unwrap_err());
    assert!(error.contains("OtherKey"), "{error}");
}
