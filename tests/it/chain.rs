//! Chains: every generation of a chain comes back as it was, and a day's work costs a day's work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use agent::generation::Class;
use agent::ids::GenerationId;
use rusqlite::Connection;
use sha2::Digest as _;
use tests::engine::Site;
use tests::machine::Machine;
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

/// What a run made, and what the sources were at that moment.
struct Day {
    generation: GenerationId,
    documents: Tree,
    /// The hot copy, as it was staged.
    ledger: Vec<u8>,
    rows: Vec<Row>,
}

type Row = (i64, i64, String);

/// Seven runs of the program: documents of all sorts, a database that lies among them and is at rest, and one that is
/// copied hot. Each day some are changed, made, renamed, grown, shrunk and deleted; on one the databases are vacuumed.
#[test]
fn each_of_seven_days_in_a_chain_comes_back_as_it_was() {
    let machine = Machine::in_memory();
    let mut rng = Rng::new(7);
    office::zoo(&machine.source(), &mut rng);
    office::documents(&machine.source(), &mut rng, 300, 6 << 20);
    let paths = [machine.source().join("at-rest.db"), machine.world.path("ledger.db")];
    paths.iter().for_each(|path| open_books(path, &mut rng));
    // Its writers keep it open, and what they wrote last lies in its log.
    let writer = Connection::open(&paths[1]).unwrap();
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    let ledger = format!("[[source]]\nname = \"ledger\"\ntype = \"sqlite\"\npath = \"{}\"\n", paths[1].display());
    machine.configure(100, &ledger);

    let mut days = Vec::new();
    for day in 0..7 {
        if day > 0 {
            // Not the databases: half of one is none.
            office::one_day_but(&machine.source(), &mut rng, &paths[..1]);
            paths.iter().for_each(|path| one_day_of_books(path, &mut rng));
        }
        if day == 4 {
            paths.iter().for_each(|path| Connection::open(path).unwrap().execute_batch("VACUUM").unwrap());
        }
        let report = machine.backup(&[]).expect(0).json();
        let generation: GenerationId = report["generation"]["id"].as_str().unwrap().parse().unwrap();
        let staged = machine.world.path("staging").join(generation.as_str()).join("data/ledger/ledger.db");
        days.push(Day {
            // Owners and times are compared too, so what a day was is kept as it was read, not as a copy.
            documents: Tree::read(&machine.source()).without_special(),
            ledger: std::fs::read(staged).unwrap(),
            rows: rows(&paths[1]),
            generation,
        });
    }
    let chains: Vec<_> = machine.list().into_iter().map(|stored| stored.chain).collect();
    assert!(chains.len() == 7 && chains.iter().all(|chain| *chain == days[0].generation), "not one chain: {chains:?}");
    for day in &days {
        let to = machine.restored_to(&day.generation);
        day.documents.assert_equals(&Tree::read(&to.path().join("docs")));
        let ledger = to.path().join("ledger/ledger.db");
        assert!(std::fs::read(&ledger).unwrap() == day.ledger, "{}: the database is another one", day.generation);
        assert!(rows(&ledger) == day.rows, "{}: the rows are others", day.generation);
    }
    let different: BTreeSet<_> = days.iter().map(|day| sha2::Sha256::digest(&day.ledger).to_vec()).collect();
    assert_eq!(different.len(), 7, "nothing was changed on some day");
}

/// A new database with an index and 10 000 rows.
fn open_books(path: &Path, rng: &mut Rng) {
    let mut database = Connection::open(path).unwrap();
    database
        .execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY, amount INTEGER, what TEXT); CREATE INDEX by_what ON entry (what)")
        .unwrap();
    let change = database.transaction().unwrap();
    (0..10_000).for_each(|_| enter(&change, rng));
    change.commit().unwrap();
}

/// Some rows of random places are changed, some deleted, and some are new.
fn one_day_of_books(path: &Path, rng: &mut Rng) {
    let mut database = Connection::open(path).unwrap();
    let last: u64 = database.query_row("SELECT max(id) FROM entry", [], |row| row.get(0)).unwrap();
    let change = database.transaction().unwrap();
    for _ in 0..200 {
        let (amount, id) = (rng.below(100_000), rng.between(1, last));
        change.execute("UPDATE entry SET amount = ?1 WHERE id = ?2", (amount, id)).unwrap();
        enter(&change, rng);
    }
    for _ in 0..50 {
        change.execute("DELETE FROM entry WHERE id = ?1", [rng.between(1, last)]).unwrap();
    }
    change.commit().unwrap();
}

fn enter(change: &rusqlite::Transaction<'_>, rng: &mut Rng) {
    let what = String::from_utf8(rng.text(40)).unwrap();
    let sql = "INSERT INTO entry (amount, what) VALUES (?1, ?2)";
    change.prepare_cached(sql).unwrap().execute((rng.below(100_000), what)).unwrap();
}

/// All rows, of a database that is whole.
#[track_caller]
fn rows(path: &Path) -> Vec<Row> {
    let database = Connection::open(path).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut statement = database.prepare("SELECT id, amount, what FROM entry ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
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

#[test]
fn what_was_added_after_the_full_is_sent_once_and_patched_from_then_on() {
    let site = Site::new();
    let path = site.source().join("database");
    let mut rng = Rng::new(4);
    let mut content = rng.bytes(3 << 20);
    std::fs::write(&path, &content).unwrap();
    site.backup(Class::Rolling);
    content.extend_from_slice(&rng.bytes(3 << 20));
    let mut days = Vec::new();
    for day in 0..3 {
        for at in (0..content.len()).step_by(1 << 20) {
            content[at + 500_000..at + 500_100].copy_from_slice(&rng.bytes(100));
        }
        std::fs::write(&path, &content).unwrap();
        let before = stored_bytes(&site);
        let generation = site.backup(Class::Rolling);
        let sent = stored_bytes(&site) - before;
        assert!(day == 0 || sent < 32 << 10, "six changes of 100 bytes cost {sent} bytes");
        days.push((generation, content.clone()));
    }
    for (generation, content) in &days {
        let to = site.world.path(generation.as_str());
        assert_eq!(site.restore(generation, &to).unwrap().lost, vec![]);
        assert!(std::fs::read(to.join("docs/database")).unwrap() == *content);
    }
    assert_eq!(site.verify().findings, vec![]);
}

#[test]
fn a_file_under_another_name_finds_its_old_content() {
    let site = Site::new();
    let source = site.source();
    for folder in ["dumps", "letters", "old"] {
        std::fs::create_dir(source.join(folder)).unwrap();
    }
    let mut rng = Rng::new(6);
    let (mut dump, mut moved, mut letter) = (rng.bytes(5 << 20), rng.bytes(5 << 20), rng.bytes(50_000));
    std::fs::write(source.join("dumps/2026-11-21.sql"), &dump).unwrap();
    std::fs::write(source.join("old/database"), &moved).unwrap();
    std::fs::write(source.join("letters/draft.odt"), &letter).unwrap();
    for other in 0..50 {
        let size = 40_000 + rng.below(20_000) as usize;
        std::fs::write(source.join(format!("letters/{other}.odt")), rng.bytes(size)).unwrap();
    }
    site.backup(Class::Rolling);
    let before = stored_bytes(&site);

    // A row more moves all that follows it; the dump of the day before stays where it is.
    dump.splice(1000..1000, rng.bytes(700));
    for at in (0..moved.len()).step_by(1 << 20) {
        moved[at + 500_000..at + 500_100].copy_from_slice(&rng.bytes(100));
    }
    letter.splice(20_000..20_000, rng.bytes(300));
    std::fs::remove_dir_all(source.join("old")).unwrap();
    std::fs::remove_file(source.join("letters/draft.odt")).unwrap();
    std::fs::write(source.join("dumps/2026-11-22.sql"), &dump).unwrap();
    std::fs::write(source.join("ledger.db"), &moved).unwrap();
    std::fs::write(source.join("letters/final.odt"), &letter).unwrap();
    let generation = site.backup(Class::Rolling);
    let sent = stored_bytes(&site) - before;
    assert!(sent < 64 << 10, "three renamed files with small changes cost {sent} bytes");
    let to = site.world.path("restored");
    assert_eq!(site.restore(&generation, &to).unwrap().lost, vec![]);
    tree::assert_same(&source, &to.join("docs"));
}

#[test]
fn a_file_that_moves_to_another_source_costs_next_to_nothing() {
    let machine = Machine::in_memory();
    let archive = machine.world.make_folder("archive");
    let second = format!("[[source]]\nname = \"archive\"\ntype = \"folder\"\npath = \"{}\"\n", archive.display());
    machine.configure(100, &second);
    let mut rng = Rng::new(9);
    let (moved, renamed, mut changed) = (rng.bytes(3 << 20), rng.bytes(2 << 20), rng.bytes(3 << 20));
    std::fs::write(machine.source().join("plans.zip"), &moved).unwrap();
    std::fs::write(machine.source().join("draft.pdf"), &renamed).unwrap();
    std::fs::write(machine.source().join("accounts.mdb"), &changed).unwrap();
    std::fs::write(archive.join("older"), rng.bytes(1 << 20)).unwrap();
    machine.backup(&[]).expect(0);
    let stored = || machine.contents().iter().map(|(_, content)| content.len()).sum::<usize>();
    let before = stored();

    std::fs::rename(machine.source().join("plans.zip"), archive.join("plans.zip")).unwrap();
    std::fs::rename(machine.source().join("draft.pdf"), machine.source().join("final.pdf")).unwrap();
    std::fs::remove_file(machine.source().join("accounts.mdb")).unwrap();
    changed.splice(1_000_000..1_000_000, rng.bytes(500));
    std::fs::write(archive.join("accounts-2026.mdb"), &changed).unwrap();
    let report = machine.backup(&[]).expect(0).json();
    let sent = stored() - before;
    assert!(sent < 32 << 10, "two files that moved to another source and one renamed cost {sent} bytes");
    let generation: GenerationId = report["generation"]["id"].as_str().unwrap().parse().unwrap();
    let to = machine.restored_to(&generation);
    tree::assert_same(&machine.source(), &to.path().join("docs"));
    tree::assert_same(&archive, &to.path().join("archive"));
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
