//! The keeper: many sites in one bucket, faults in some of them, and a site whose agent cannot delete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use agent::backup::BackupReport;
use agent::calendar::Calendar;
use agent::format::Sha256;
use agent::format::commit::{Commit, Heartbeat};
use agent::generation::Class;
use agent::ids::{GenerationId, SiteName};
use agent::keeper::{self, Keeping, SiteReport, Terms};
use agent::retention::Rules;
use agent::sign::{SiteKey, SitePublicKey};
use agent::staging::{FolderLock, Staging};
use agent::upload::Interrupt;
use futures_util::{StreamExt as _, stream};
use jiff::{Timestamp, ToSpan as _};
use providers::faulty::{Call, Fault, Faulty};
use providers::{Access, Body, MemoryStore, ObjectKey, ObjectStore, Policy, PutOptions, StoreSettings};
use tests::engine::Site;
use tests::machine::{Machine, bucket_settings};
use tests::nights::{LIMITS, NO_RULES, for_agent, set_clocks};
use tests::proxy::Proxy;
use tests::servers::{Keys, seaweedfs};
use tests::{Rng, World};
use tokio::sync::watch;

const SITES: usize = 200;

/// The configuration of a keeper of a bucket's folder, with the keys of its sites in `sites/`.
fn configure(world: &World, url: &str, bucket: &str, prefix: &str, keys: Keys, more: &str) {
    let secret = world.write("keeper-secret", keys.secret);
    let path = |name: &str| world.path(name).display().to_string();
    world.configure(&format!(
        "state = \"{}\"\n[keeper]\nkey = \"{}\"\nsites = \"{}\"\n{more}\n[[store]]\nname = \"far\"\ntype = \"s3\"\n\
         endpoint = \"{url}\"\nbucket = \"{bucket}\"\nprefix = \"{prefix}\"\naccess_key = \"{}\"\n\
         secret_key = \"file:{}\"\n",
        path("keeper-state"),
        path("keeper.key"),
        path("sites"),
        keys.id,
        secret.display(),
    ));
}

/// What one backup stored, as the objects of another site: another name in its documents, signed by another key.
struct Original {
    objects: Vec<(String, Vec<u8>)>,
}

impl Original {
    fn of(machine: &Machine) -> Self {
        let objects = machine.contents();
        Self { objects }
    }

    fn of_site(&self, site: &str, key: &SiteKey) -> Vec<(String, Vec<u8>)> {
        let (mut named, mut documents) = (Vec::new(), Vec::new());
        for (path, bytes) in &self.objects {
            if path.ends_with(".minisig") || path == "heartbeat.json" {
                continue;
            }
            if !path.ends_with(".json") {
                named.push((format!("{site}/{path}"), bytes.clone()));
                continue;
            }
            let mut commit = Commit::decode(bytes).unwrap();
            commit.site = site.parse().unwrap();
            let text = commit.encode().unwrap();
            let beat = Heartbeat {
                version: 1,
                site: commit.site.clone(),
                written: commit.committed,
                generation: commit.generation.clone(),
                sequence: commit.sequence,
                sha256: Sha256::of(&text),
                grade: commit.grade,
                promise: None,
            };
            documents.push((format!("{site}/{path}"), commit.trusted_comment(), text));
            let comment = format!("offsite heartbeat site={site} sequence={}", beat.sequence);
            documents.push((format!("{site}/heartbeat.json"), comment, serde_json::to_vec(&beat).unwrap()));
        }
        for (name, comment, text) in documents {
            named.push((format!("{name}.minisig"), key.sign(&text, &comment).unwrap().into_bytes()));
            named.push((name, text));
        }
        named
    }
}

/// What the sites store, with faults in some of them; their public keys are written to the world, but for one.
fn fleet(world: &World, original: &Original) -> Vec<(String, Vec<u8>)> {
    let mut objects = Vec::new();
    for number in 0..SITES {
        let (site, key) = (format!("site-{number:03}"), SiteKey::generate().unwrap());
        let known = if number == 42 { SiteKey::generate().unwrap() } else { key };
        if number != 100 {
            world.write(format!("sites/{site}.pub"), format!("{}\n", known.public()));
        }
        let signer = if number == 42 { SiteKey::generate().unwrap() } else { known };
        for (name, mut bytes) in original.of_site(&site, &signer) {
            match number {
                7 if name.contains("/packs/") => bytes[200] ^= 1,
                13 if name.contains("/packs/") => continue,
                180 if name.ends_with(".packs") => bytes.truncate(10),
                _ => {}
            }
            objects.push((name, bytes));
        }
    }
    objects
}

#[test]
fn two_hundred_sites_are_looked_after_in_one_pass() {
    let machine = Machine::new();
    machine.world.write("source/letter.txt", "Dear Sir or Madam");
    machine.backup(&[]).expect(0);
    let (server, world) = (seaweedfs(), World::new());
    let bucket = server.bucket("fleet");
    let settings = StoreSettings::S3(bucket_settings(&server.url(), &bucket.name, "offices"));
    let store = providers::open(&settings, Access::Keeper, &Policy { requests_max: 16, ..Policy::default() }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    let objects = fleet(&world, &Original::of(&machine));
    world.write("sites/site-999.pub", format!("{}\n", SiteKey::generate().unwrap().public()));
    let count = objects.len();
    runtime.block_on(async {
        let puts =
            objects.into_iter().map(|(name, bytes)| {
                let store = Arc::clone(&store);
                async move {
                    store.put(&name.parse().unwrap(), &Body::from_bytes(bytes), &PutOptions::OVERWRITE).await.unwrap()
                }
            });
        stream::iter(puts).buffer_unordered(16).for_each(async |_| ()).await;
    });

    let proxy = Proxy::to(server.port());
    configure(&world, &proxy.url(), &bucket.name, "offices", Keys::ADMIN, "round_days = 1");
    let began = Instant::now();
    let outcome = world.offsite(["--json", "keeper"]).expect(5);
    let report = outcome.json();
    let requests = proxy.seen();
    let listings = requests.iter().filter(|(request, _)| request.target.contains("list-type=2")).count();
    println!(
        "{count} objects of {SITES} sites in {:.1} s with {} requests, {listings} of them pages of the listing, {} MiB at most, \
         {} bytes read",
        began.elapsed().as_secs_f32(),
        requests.len(),
        outcome.peak_kib / 1024,
        report["stores"][0]["read_bytes"]
    );
    assert!(requests.len() < 20 * SITES && listings < 10, "{} requests, {listings} pages", requests.len());
    let sites = report["stores"][0]["sites"].as_array().unwrap();
    assert_eq!(sites.len(), SITES + 1, "a report for each, and for the one that stores nothing");
    let mut faulty = Vec::new();
    for site in sites {
        let (name, findings) = (site["site"].as_str().unwrap(), site["findings"].as_array().unwrap());
        if !findings.is_empty() || !site["error"].as_array().unwrap().is_empty() {
            faulty.push(name);
            continue;
        }
        assert_eq!(site["countersigned"].as_array().unwrap().len(), 1, "{site}");
        assert_eq!(site["read_bytes"], site["bytes"], "{site}");
    }
    assert_eq!(faulty, ["site-007", "site-013", "site-042", "site-100", "site-180", "site-999"]);
    assert!(outcome.peak_kib < 200 << 10, "{} KiB", outcome.peak_kib);

    // Counted from inside: looking at a site takes no other listing than the one of everything.
    let lists = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lists);
    let whole = Faulty::new(store, move |call| {
        counted.fetch_add(u64::from(call.method == "list"), Ordering::Relaxed);
        assert!(call.method != "put" && call.method != "delete", "{call:?}");
        Fault::None
    });
    let again = machine.keep(&world, "site-001", &whole);
    assert!(again.iter().all(|site| site.is_good() == (site.site != "site-100")), "{again:?}");
    assert_eq!(lists.load(Ordering::Relaxed), 1, "listings");
}

/// A site in memory whose fulls are made in the store, and a keeper.
struct Carrying {
    site: Site,
    store: MemoryStore,
    key: SiteKey,
    sites: BTreeMap<SiteName, SitePublicKey>,
    now: Timestamp,
    rng: Rng,
    database: Vec<u8>,
}

impl Carrying {
    fn new() -> Self {
        let now: Timestamp = "2026-11-01T23:00:00Z".parse().unwrap();
        let store = MemoryStore::new(3, Access::Keeper, now);
        let mut site = Site::in_memory();
        site.store = for_agent(&store);
        site.chain_generations = 2;
        let mut rng = Rng::new(13);
        let database = rng.bytes(3 << 20);
        let sites = [(site.name.clone(), site.public().clone())].into();
        Self { site, store, key: SiteKey::generate().unwrap(), sites, now, rng, database }
    }

    /// The next night's backup, and whether its full was made in the store.
    fn night(&mut self) -> (GenerationId, bool) {
        let report = self.try_night();
        let delivered = report.stores[0].result.as_ref().unwrap();
        (report.generation.unwrap().0, delivered.copied_bytes > 2 << 20)
    }

    fn try_night(&mut self) -> BackupReport {
        self.now += 24.hours();
        set_clocks(&[&self.store], self.now);
        let at = usize::try_from(self.rng.below(900_000)).unwrap();
        self.database[at..at + 100].copy_from_slice(&self.rng.bytes(100));
        std::fs::write(self.site.source().join("database"), &self.database).unwrap();
        self.site.try_backup(Class::Rolling)
    }

    /// A keeper's run, in which everything is read within so many days.
    fn keep(&self, round_days: u32, rules: &Rules) -> SiteReport {
        let (_stop, interrupt) = watch::channel(false);
        self.keep_until(round_days, rules, &self.store, &interrupt)
    }

    /// The same, until somebody asks to stop.
    fn keep_until(&self, round_days: u32, rules: &Rules, store: &dyn ObjectStore, stop: &Interrupt) -> SiteReport {
        let calendar = Calendar::new(jiff::tz::TimeZone::UTC);
        let keeping = Keeping {
            sites: &self.sites,
            only: &BTreeSet::new(),
            key: &self.key,
            ledgers: &self.site.world.path("ledgers"),
            terms: &Terms { rules: *rules, limits: LIMITS, calendar },
            own: &BTreeMap::new(),
            round_days,
            budget: u64::MAX,
            dry_run: false,
            lifted: &[],
        };
        let mut reports = Vec::new();
        self.site.block_on(keeper::keep(store, &keeping, stop, |report| reports.push(report))).unwrap();
        reports.remove(0)
    }

    fn packs_of(&self, chain: &GenerationId) -> BTreeSet<String> {
        let folder = format!("townhall/rolling/{chain}/packs/");
        self.site.keys().into_iter().filter(|key| key.starts_with(&folder)).collect()
    }

    /// One bit of an object is turned.
    fn damage(&self, key: &str) {
        let key: ObjectKey = key.parse().unwrap();
        let mut bytes = self.site.block_on(agent::catalog::small(&self.store, &key, u64::MAX)).unwrap();
        bytes[1000] ^= 1;
        let body = Body::from_bytes(bytes);
        self.site.block_on(self.store.put(&key, &body, &PutOptions::OVERWRITE)).unwrap();
    }

    #[track_caller]
    fn assert_comes_back(&self, generation: &GenerationId) {
        let to = tempfile::tempdir_in(self.site.world.path(".")).unwrap();
        assert_eq!(self.site.restore(generation, to.path()).unwrap().lost, vec![]);
        assert!(std::fs::read(to.path().join("docs/database")).unwrap() == self.database);
    }
}

const KEEP_ALL: Rules = Rules { last: 100, ..NO_RULES };
const KEEP_ONE: Rules = Rules { last: 1, ..NO_RULES };

/// A copy has the digest of what it was made of: that this was read says nothing of it.
#[test]
fn a_copied_pack_is_read_for_itself_before_anybody_vouches_for_it() {
    let mut carrying = Carrying::new();
    let old = carrying.night().0;
    let full = carrying.keep(1, &KEEP_ALL);
    assert!(full.is_good() && full.countersigned == [old.clone()] && full.read_bytes == full.bytes, "{full:?}");
    carrying.night();
    let (new, carried) = carrying.night();
    assert!(carried);
    let copies = carrying.packs_of(&new);
    let copy = copies.iter().find(|key| key.contains("/00-0002-")).unwrap();
    carrying.damage(copy);
    // A thirtieth of everything: of the copies next to nothing.
    let some = carrying.keep(30, &KEEP_ALL);
    assert!(!some.countersigned.contains(&new) && some.read_bytes < some.bytes / 2, "{some:?}");
    carrying.now += 24.hours();
    set_clocks(&[&carrying.store], carrying.now);
    let all = carrying.keep(1, &KEEP_ALL);
    assert_eq!(all.findings.len(), 1, "{all:?}");
    assert!(all.findings[0].object == *copy && all.findings[0].harms == [new.clone()], "{all:?}");
    assert!(!all.countersigned.contains(&new), "{all:?}");
    // What is damaged in one chain is not in the other.
    assert!(all.read_bytes > 3 << 20 && carrying.packs_of(&old).iter().all(|key| key != copy));
}

#[test]
fn a_keeper_that_is_stopped_while_it_reads_remembers_what_it_has_read() {
    let mut carrying = Carrying::new();
    carrying.night();
    let ((stop, interrupt), packs) = (watch::channel(false), AtomicU64::new(0));
    let store = Faulty::new(Arc::new(carrying.store.opened_for(Access::Keeper)), move |call: &Call<'_>| {
        let pack = call.method == "get" && call.about.contains("/packs/");
        if pack && packs.fetch_add(1, Ordering::Relaxed) == 0 {
            stop.send_replace(true);
        }
        Fault::None
    });
    let stopped = carrying.keep_until(1, &KEEP_ALL, &store, &interrupt);
    assert!(stopped.read_objects > 0 && stopped.read_objects < stopped.objects, "{stopped:?}");
    assert!(stopped.findings.is_empty() && stopped.countersigned.is_empty(), "{stopped:?}");
    let ledger = std::fs::read(carrying.site.world.path("ledgers/townhall.json")).unwrap();
    let ledger: serde_json::Value = serde_json::from_slice(&ledger).unwrap();
    assert_eq!(ledger["read"].as_object().unwrap().len() as u64, stopped.read_objects, "{ledger}");
    assert_eq!(ledger["run"], serde_json::Value::Null);
}

#[test]
fn two_keepers_do_not_run_at_once() {
    let world = World::new();
    world.write("sites/townhall.pub", SiteKey::generate().unwrap().public().to_string());
    configure(&world, "http://127.0.0.1:9", "offices", "", Keys::ADMIN, "");
    let _held = FolderLock::take(&world.make_folder("keeper-state"), Timestamp::now()).unwrap();
    let refused = world.offsite(["keeper"]).expect(6);
    assert!(refused.stderr.contains("another run holds the folder"), "{refused}");
    assert!(!world.path("keeper.key").exists());
}

#[test]
fn chains_of_copies_are_pruned_and_swept_like_any_other() {
    let mut carrying = Carrying::new();
    let first = carrying.night().0;
    carrying.night();
    let (second, carried) = carrying.night();
    let copies = carrying.packs_of(&second);
    assert!(carried && copies.len() > 2);
    let kept = carrying.keep(1, &KEEP_ONE);
    assert!(kept.is_good() && kept.freed.generations == 2 && kept.countersigned.contains(&second), "{kept:?}");
    assert_eq!((carrying.packs_of(&first).len(), carrying.packs_of(&second)), (0, copies));
    carrying.assert_comes_back(&second);

    // The line breaks in the midst of copying, and the staged copy is lost: the copies that were made are of no use.
    carrying.night();
    let copied = Arc::new(AtomicU64::new(0));
    let broken = Arc::clone(&copied);
    let plan = move |call: &Call<'_>| match call.method {
        "copy" if broken.fetch_add(1, Ordering::SeqCst) < 2 => Fault::None,
        _ if broken.load(Ordering::SeqCst) > 2 => Fault::BrokenAfter(0),
        _ => Fault::None,
    };
    carrying.site.store = Arc::new(Faulty::new(for_agent(&carrying.store), plan));
    let report = carrying.try_night();
    assert!(report.stores[0].result.is_err() && copied.load(Ordering::SeqCst) > 2, "{report:?}");
    let lost = report.generation.unwrap().0;
    carrying.site.store = for_agent(&carrying.store);
    let staging = Staging::open(&carrying.site.world.path("staging"), carrying.now).unwrap();
    staging.generations().unwrap().into_iter().find(|local| *local.id() == lost).unwrap().remove().unwrap();
    drop(staging);
    assert!(!carrying.night().1 && carrying.packs_of(&lost).len() == 2);
    // An upload may rest for weeks.
    carrying.now += 50 * 24.hours();
    carrying.night();
    let young = carrying.keep(1, &KEEP_ONE);
    assert!(young.is_good() && carrying.packs_of(&lost).len() == 2, "{young:?}");
    carrying.now += 10 * 24.hours();
    let last = carrying.night().0;
    let swept = carrying.keep(1, &KEEP_ONE);
    assert!(swept.is_good() && carrying.packs_of(&lost).is_empty(), "{swept:?}");
    assert!(swept.countersigned.contains(&last) && swept.read_bytes == swept.bytes, "{swept:?}");
    carrying.assert_comes_back(&last);
}

#[test]
fn a_site_whose_agent_cannot_delete_is_pruned_and_vouched_for() {
    let server = seaweedfs();
    let bucket = server.bucket("kept");
    let machine = Machine::with_agents_key(&server.url(), &bucket.name, "prune = \"keeper\"");
    machine.configure(1, "");
    let mut ids = Vec::new();
    for day in 0..5 {
        machine.world.write("source/letter.txt", format!("day {day}"));
        ids.push(machine.backup(&[]).expect(0).json()["generation"]["id"].as_str().unwrap().to_owned());
    }
    let keeper = World::new();
    let public = SiteKey::load(&machine.world.path("site.key")).unwrap().public().to_string();
    keeper.write("sites/townhall.pub", &public);
    // By rules of its own: by those of all others nothing would go yet.
    let rules = "round_days = 1\n[[rules]]\nsites = [\"town*\"]\n[rules.rolling]\nlast = 3\nworking_days = 0\ndaily = 0\n\
                 weekly = 0\nmonthly = 0\n[rules.brake]\nremove_percent = 60";
    configure(&keeper, &server.url(), &bucket.name, "site-a", Keys::KEEPER_A, rules);

    let before = machine.objects();
    let dry = keeper.offsite(["--json", "keeper", "--dry-run"]).expect(0).json();
    assert_eq!(dry["stores"][0]["sites"][0]["expired"], serde_json::json!(ids[..2]), "{dry}");
    assert_eq!(machine.objects(), before, "a dry run changed something");
    let done = keeper.offsite(["--json", "keeper"]).expect(0).json();
    let site = &done["stores"][0]["sites"][0];
    assert_eq!((&site["freed"]["generations"], &site["read_bytes"]), (&2.into(), &site["bytes"]), "{done}");
    let left: Vec<_> = machine.list().into_iter().map(|stored| stored.generation.to_string()).collect();
    assert_eq!(left, ids[2..]);
    machine.verify();
    let third = machine.list().remove(0).generation;
    machine.restored(&third);

    // A machine that knows its keeper does not miss what that removed.
    let key = done["key"].as_str().unwrap();
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    machine.world.configure(&config.replace("[signing]\n", &format!("[signing]\nkeepers = [\"{key}\"]\n")));
    machine.world.offsite(["verify"]).expect(0);

    // Its word, checked with the tool that everybody has.
    let objects = machine.objects();
    let word = objects.iter().find(|key| key.contains("/verified/") && key.contains(&ids[3]) && key.ends_with(".json"));
    let name = word.unwrap().strip_prefix("townhall/").unwrap();
    let (text, signature) = (machine.content(name), machine.content(&format!("{name}.minisig")));
    let file = keeper.write("word.json", &text);
    keeper.write("word.json.minisig", signature);
    let check = std::process::Command::new("minisign").args(["-V", "-P", key, "-m"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let word: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(word["generation"], ids[3].as_str());

    // Whoever hides the newest generation, and the heartbeat that names it, does not fool a keeper that has seen it.
    let newest: Vec<String> = machine.objects().into_iter().filter(|key| key.contains(&ids[4])).collect();
    let hidden: Vec<String> = newest.iter().filter(|key| key.contains(".json")).cloned().collect();
    let beat = ["townhall/heartbeat.json", "townhall/heartbeat.json.minisig"].map(str::to_owned);
    let taken: Vec<(String, Vec<u8>)> =
        hidden.iter().chain(&beat).map(|key| (key.clone(), bucket.read(&format!("site-a/{key}")))).collect();
    taken.iter().for_each(|(key, _)| bucket.delete(&format!("site-a/{key}")));
    let rules = std::fs::read_to_string(keeper.path("offsite.toml")).unwrap();
    keeper.configure(&rules.replace("last = 3", "last = 1"));
    let fooled = keeper.offsite(["--json", "keeper"]).run().json();
    let site = &fooled["stores"][0]["sites"][0];
    assert_eq!((&site["freed"]["objects"], &site["brakes"][0]["brake"]), (&0.into(), &"gap".into()), "{fooled}");
    keeper.configure(&rules);
    taken.iter().for_each(|(key, bytes)| bucket.write(&format!("site-a/{key}"), bytes));

    // Damage is found the day after it happened, and said to harm what it harms.
    let pack = machine.objects().into_iter().find(|key| key.contains(&ids[3]) && key.contains("/packs/")).unwrap();
    bucket.write(&format!("site-a/{pack}"), b"something else");
    std::fs::remove_dir_all(keeper.path("keeper-state")).unwrap();
    let found = keeper.offsite(["--json", "keeper"]).expect(5).json();
    let finding = &found["stores"][0]["sites"][0]["findings"][0];
    // What was said of generations that are gone has gone as well.
    let words: Vec<_> = machine.objects().into_iter().filter(|key| key.contains("/verified/")).collect();
    assert!(words.len() == 6 && !words.iter().any(|key| key.contains(&ids[0])), "{words:?}");
    assert_eq!((&finding["object"], &finding["harms"][0]), (&pack.into(), &ids[3].as_str().into()), "{found}");
}
