//! Fulls that are made in the store: a new chain begins with copies of the packs of the one before it.

use std::sync::Arc;

use agent::deliver::Delivered;
use agent::format::Sha256;
use agent::format::manifest::{Extent, Manifest};
use agent::generation::Class;
use agent::ids::GenerationId;
use agent::retention::Rules;
use agent::sign::SiteKey;
use providers::faulty::{Fault, Faulty};
use providers::{Access, ErrorKind, MemoryStore, ObjectStore, Retry};
use tests::Rng;
use tests::engine::Site;
use tests::nights::{Keeper, NO_RULES, for_agent};
use tests::tree::Tree;

/// An office with a database of 8 MiB and some letters, whose chains take four generations.
struct Office {
    site: Site,
    rng: Rng,
    days: Vec<Day>,
}

struct Day {
    generation: GenerationId,
    documents: Tree,
    delivered: Delivered,
}

impl Office {
    fn new() -> Self {
        Self::of(Site::in_memory())
    }

    fn with(store: Arc<dyn ObjectStore>) -> Self {
        let mut site = Site::in_memory();
        site.store = store;
        Self::of(site)
    }

    fn of(mut site: Site) -> Self {
        site.chain_generations = 4;
        let mut rng = Rng::new(21);
        std::fs::write(site.source().join("database"), rng.bytes(8 << 20)).unwrap();
        Self { site, rng, days: Vec::new() }
    }

    /// A little of the database is changed, more is added, letters come; then a backup.
    fn day(&mut self) -> &Day {
        let path = self.site.source().join("database");
        let mut database = std::fs::read(&path).unwrap();
        for at in (0..8 << 20).step_by(2 << 20) {
            let at = at + usize::try_from(self.rng.below(90_000)).unwrap();
            database[at..at + 100].copy_from_slice(&self.rng.bytes(100));
        }
        database.extend(self.rng.bytes(20_000));
        std::fs::write(&path, database).unwrap();
        let letter = format!("letter-{}", self.days.len());
        std::fs::write(self.site.source().join(letter), self.rng.bytes(9000)).unwrap();
        self.night()
    }

    fn night(&mut self) -> &Day {
        let documents = Tree::read(&self.site.source());
        let mut report = self.site.try_backup(Class::Rolling);
        let delivered = report.stores.remove(0).result.unwrap();
        self.days.push(Day { generation: report.generation.unwrap().0, documents, delivered });
        self.days.last().unwrap()
    }

    /// Days until the chain is full.
    fn four_days(&mut self) {
        let chain = self.day().delivered.chain.clone();
        (0..3).for_each(|_| assert_eq!(self.day().delivered.chain, chain));
    }

    fn manifest(&self, day: usize) -> Manifest {
        self.site.manifest(&self.days[day].generation)
    }

    #[track_caller]
    fn assert_comes_back(&self, day: usize) {
        let to = tempfile::tempdir_in(self.site.world.path(".")).unwrap();
        let report = self.site.restore(&self.days[day].generation, to.path()).unwrap();
        assert!(report.lost.is_empty() && report.bad_packs.is_empty(), "{report:?}");
        self.days[day].documents.assert_equals(&Tree::read(&to.path().join("docs")));
    }
}

/// Packs of a manifest by their digests, in order.
fn packs(manifest: &Manifest) -> Vec<Sha256> {
    manifest.packs.iter().map(|pack| pack.name.sha256).collect()
}

#[test]
fn fulls_of_many_weeks_cost_a_days_work_and_everything_comes_back() {
    let mut office = Office::new();
    let first = office.day().delivered.clone();
    assert!(first.full && first.copied_bytes == 0 && first.sent_bytes > 8 << 20, "{first:?}");
    for week in 0..3 {
        (0..3).for_each(|_| assert!(!office.day().delivered.full));
        let full = office.day().delivered.clone();
        assert!(full.full && full.copied_bytes > 8 << 20 && full.sent_bytes < 200 << 10, "week {week}: {full:?}");
        let manifest = office.manifest(office.days.len() - 1);
        assert_eq!((manifest.head.number, manifest.head.full_bytes), (0, 0));
        assert!(manifest.packs.iter().all(|pack| pack.name.number == 0));
        let patched = manifest.extents.iter().any(|extent| matches!(extent, Extent::Patch(_)));
        assert!(patched, "patches do not go from chain to chain");
    }
    (0..office.days.len()).for_each(|day| office.assert_comes_back(day));
    let report = office.site.verify();
    assert!(report.findings.is_empty() && report.generations == 13, "{report:?}");
}

#[test]
fn a_chain_lives_without_the_one_that_its_packs_came_from() {
    let store = MemoryStore::new(1, Access::Keeper, jiff::Timestamp::now());
    let mut office = Office::with(for_agent(&store));
    (0..6).for_each(|_| _ = office.day());
    let first = office.days[0].delivered.chain.clone();
    assert!(office.days[5].delivered.chain != first && office.days[4].delivered.copied_bytes > 0);
    let key = SiteKey::load(&office.site.world.path("site.key")).unwrap();
    let keeper = Keeper::new(&office.site.name, key, Rules { last: 1, ..NO_RULES });
    keeper.prune(&store);
    assert!(office.site.keys().iter().all(|key| !key.contains(first.as_str())), "the old chain is still there");
    keeper.assert_accounted_for(&store);
    assert_eq!(office.site.list().len(), 2);
    (4..6).for_each(|day| office.assert_comes_back(day));
}

#[test]
fn a_damaged_pack_is_not_carried_over() {
    let mut office = Office::new();
    office.four_days();
    let old = office.manifest(3);
    let chain = office.site.chain_folder(Class::Rolling, &office.days[0].generation);
    // Two, so that their neighbours are carried: one that is changed, one that a verification has found bad.
    let (damaged, distrusted) = (old.packs[2].name, old.packs[5].name);
    let path = chain.join("packs").join(damaged.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    office.site.bad_packs.insert(distrusted.sha256);

    let full = office.day().delivered.clone();
    assert!(full.copied_bytes > 5 << 20 && (2 << 20..3 << 20).contains(&full.sent_bytes), "{full:?}");
    let new = packs(&office.manifest(4));
    let carried: Vec<bool> = old.packs.iter().map(|pack| new.contains(&pack.name.sha256)).collect();
    assert_eq!(carried.iter().position(|carried| !carried), Some(2));
    assert!(!carried[5] && carried[3] && carried[6], "{carried:?}");
    office.day();
    (4..6).for_each(|day| office.assert_comes_back(day));
    let harmed: Vec<_> = office.site.verify().findings.into_iter().flat_map(|finding| finding.harms).collect();
    assert!(!harmed.is_empty() && harmed.iter().all(|id| office.days[..4].iter().any(|day| day.generation == *id)));
}

/// Fulls over a store whose copies fail like this: what was sent of the second one, and its manifest.
fn refused(fault: impl Fn(u64) -> Fault + Send + Sync + 'static) -> (Office, Delivered, Manifest) {
    let memory: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(1, Access::Agent, jiff::Timestamp::now()));
    let copies = std::sync::atomic::AtomicU64::new(0);
    let plan = move |call: &providers::faulty::Call<'_>| match call.method {
        "copy" => fault(copies.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
        _ => Fault::None,
    };
    let mut office = Office::with(Arc::new(Faulty::new(memory, plan)));
    (0..6).for_each(|_| _ = office.day());
    (4..6).for_each(|day| office.assert_comes_back(day));
    assert_eq!(office.site.verify().findings, vec![]);
    let (delivered, manifest) = (office.days[4].delivered.clone(), office.manifest(4));
    assert!(delivered.full);
    (office, delivered, manifest)
}

#[test]
fn where_nothing_can_be_copied_a_full_is_sent() {
    for kind in [ErrorKind::Unsupported, ErrorKind::Denied] {
        let (_, full, manifest) = refused(move |_| Fault::Refused(kind, Retry::Never));
        assert!(full.copied_bytes == 0 && full.sent_bytes > 8 << 20, "{full:?}");
        assert_eq!(manifest.head.full_bytes, manifest.head.stream_bytes, "a full that is sent is its packs in order");
    }
    let mut office =
        Office::with(Arc::new(MemoryStore::new(1, Access::Agent, jiff::Timestamp::now()).without_copying()));
    (0..5).for_each(|_| _ = office.day());
    assert!(office.days[4].delivered.full && office.days[4].delivered.copied_bytes == 0);
    let manifest = office.manifest(4);
    assert_eq!(manifest.head.full_bytes, manifest.head.stream_bytes);
}

#[test]
fn copies_that_fail_or_of_which_nothing_is_heard_cost_no_generation() {
    // The line broke behind the first copy: it is there, and so are those of the next run.
    let (_, full, manifest) = refused(|copy| if copy == 0 { Fault::LostReply } else { Fault::None });
    assert!(full.copied_bytes == 0 && manifest.head.full_bytes == 0, "a stray copy lies in the folder: {full:?}");
    // The store has enough in the middle.
    let later = Retry::Later { after: None };
    let (_, full, _) = refused(move |copy| match copy {
        0..5 => Fault::None,
        _ => Fault::Refused(ErrorKind::Throttled, later),
    });
    assert!(full.copied_bytes > 3 << 20 && full.sent_bytes > 3 << 20, "{full:?}");
}

#[test]
fn an_office_that_was_emptied_gets_a_full_that_is_sent() {
    let mut office = Office::new();
    office.four_days();
    std::fs::remove_file(office.site.source().join("database")).unwrap();
    std::fs::write(office.site.source().join("another"), office.rng.bytes(3 << 20)).unwrap();
    let full = office.night().delivered.clone();
    assert!(full.full && full.copied_bytes == 0, "{full:?}");
    let manifest = office.manifest(4);
    assert_eq!(manifest.head.full_bytes, manifest.head.stream_bytes);
}

#[test]
fn without_the_staged_copy_that_patches_refer_to_a_full_is_sent() {
    let mut office = Office::new();
    office.four_days();
    let staging = agent::staging::Staging::open(&office.site.world.path("staging"), jiff::Timestamp::now()).unwrap();
    staging.generations().unwrap().remove(0).remove().unwrap();
    drop(staging);
    let full = office.day().delivered.clone();
    assert!(full.full && full.copied_bytes == 0, "{full:?}");
}
