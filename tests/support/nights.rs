//! Nights of an office on a simulated clock, with stores in memory, and retention in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent::calendar::{Age, Calendar};
use agent::catalog::{self, Stored, Trust};
use agent::format::Sha256;
use agent::format::names::{self, ChainFolder};
use agent::generation::Class;
use agent::ids::{GenerationId, SiteName};
use agent::prune::{self, Freed, Keeping, Plan, PruneError};
use agent::retention::{Limits, Rules};
use agent::sign::SiteKey;
use agent::verify::{self, parse_list};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use providers::{Access, Body, ByteRange, MemoryStore, ObjectKey, ObjectStore, PutOptions};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Retention of one site, as whoever may delete carries it out.
pub struct Keeper {
    /// The site.
    pub site: SiteName,
    /// What signs its generations, and what is pruned.
    pub key: SiteKey,
    /// The rules.
    pub rules: Rules,
    /// Where the brakes take hold.
    pub limits: Limits,
    /// The office's calendar.
    pub calendar: Calendar,
    runtime: Runtime,
}

/// Rules that keep nothing; to be filled.
pub const NO_RULES: Rules =
    Rules { last: 0, working_days: 0, daily: 0, weekly: 0, monthly: 0, min_age: None, max_age: None, floor: 1 };
/// Brakes that small offices do not run into.
pub const LIMITS: Limits =
    Limits { newest_age: Age::days(3), shrink_percent: 90, grow_percent: 1000, remove_percent: 90 };

impl Keeper {
    /// Retention by these rules, in a calendar of UTC.
    pub fn new(site: &SiteName, key: SiteKey, rules: Rules) -> Self {
        let calendar = Calendar::new(jiff::tz::TimeZone::UTC);
        Self { site: site.clone(), key, rules, limits: LIMITS, calendar, runtime: Runtime::new().unwrap() }
    }

    /// What is to be done in `store`, by a keeper that remembers nothing.
    pub fn plan(&self, store: &dyn ObjectStore) -> Plan {
        let pruners = [self.key.public().clone()];
        let keeping = Keeping {
            site: &self.site,
            key: self.key.public(),
            pruners: &pruners,
            calendar: &self.calendar,
            rules: &self.rules,
            limits: &self.limits,
        };
        let survey = self.runtime.block_on(async {
            let objects = prune::list_site(store, &self.site).await.unwrap();
            prune::survey(store, &keeping, objects).await.unwrap()
        });
        prune::plan(&survey, &keeping, None, &BTreeSet::new())
    }

    /// Does what `plan` says.
    pub fn execute(&self, store: &dyn ObjectStore, plan: &Plan) -> Result<Freed, PruneError> {
        let (_stop, interrupt) = watch::channel(false);
        self.runtime.block_on(prune::execute(store, plan, &self.key, &[], &interrupt))
    }

    /// Plans and does it; nothing may speak against it.
    #[track_caller]
    pub fn prune(&self, store: &dyn ObjectStore) -> Freed {
        let plan = self.plan(store);
        assert!(plan.brakes.is_empty(), "{:?}", plan.brakes);
        self.execute(store, &plan).unwrap()
    }

    /// Every object of the site, with its content.
    pub fn objects(&self, store: &dyn ObjectStore) -> BTreeMap<String, Vec<u8>> {
        let prefix = names::site_prefix(&self.site).unwrap();
        self.runtime.block_on(async {
            let listed: Vec<_> = store.list(&prefix).try_collect().await.unwrap();
            let mut objects = BTreeMap::new();
            for meta in listed {
                let pieces = store.get(&meta.key.clone().into(), ByteRange::All).await.unwrap();
                let bytes: Vec<_> = pieces.try_collect().await.unwrap();
                objects.insert(meta.key.to_string(), bytes.concat());
            }
            objects
        })
    }

    /// A store with the same objects and times, and the clock at `now`.
    pub fn copy(&self, store: &dyn ObjectStore, now: Timestamp) -> MemoryStore {
        let copy = MemoryStore::new(7, Access::Keeper, now);
        let prefix = names::site_prefix(&self.site).unwrap();
        self.runtime.block_on(async {
            let listed: Vec<_> = store.list(&prefix).try_collect().await.unwrap();
            for meta in listed {
                let pieces = store.get(&meta.key.clone().into(), ByteRange::All).await.unwrap();
                let bytes: Vec<_> = pieces.try_collect().await.unwrap();
                copy.set_now(meta.modified.unwrap());
                copy.put(&meta.key, &Body::from_bytes(bytes.concat()), &PutOptions::CREATE).await.unwrap();
            }
        });
        copy.set_now(now);
        copy
    }

    /// The generations in `store`, all of them genuine and every pack of them proved.
    #[track_caller]
    pub fn proved(&self, store: &dyn ObjectStore) -> Vec<Stored> {
        self.runtime.block_on(async {
            let stored = catalog::list(store, &self.site, Some(self.key.public())).await.unwrap();
            assert!(stored.iter().all(|stored| stored.trust == Trust::Signed), "{stored:?}");
            let progress = Default::default();
            let report = verify::verify(store, &self.site, &stored, 100, 0, &progress).await.unwrap();
            let more = verify::verify_site(store, &self.site, Some(self.key.public()), &[], &stored).await.unwrap();
            assert!(report.findings.is_empty() && more.is_empty(), "{:?} {more:?}", report.findings);
            stored
        })
    }

    /// Panics unless every object in `store` is accounted for by what is there, but for what a chain that can still grow
    /// has.
    #[track_caller]
    pub fn assert_accounted_for(&self, store: &dyn ObjectStore) {
        let stored = self.proved(store);
        let objects = self.objects(store);
        let site = names::site_prefix(&self.site).unwrap();
        let mut known: BTreeSet<String> = ["RESTORE.txt", "restore.sh", "heartbeat.json", "heartbeat.json.minisig"]
            .map(|name| key(&site.key(name)))
            .into();
        let newest = stored.iter().rfind(|stored| stored.class == Class::Rolling).unwrap();
        let mut records = 0;
        for one in &stored {
            let folder = ChainFolder::new(&self.site, one.class, &one.chain).unwrap();
            for ending in [names::MANIFEST, names::PACKS, names::COMMIT, names::SIGNATURE] {
                known.insert(key(&folder.object(&one.generation, ending)));
            }
            let list = &objects[&key(&folder.object(&one.generation, names::PACKS))];
            assert_eq!(Sha256::of(list), one.commit.as_ref().unwrap().packs.sha256);
            known.extend(parse_list(list).unwrap().iter().map(|name| key(&folder.pack(name))));
        }
        let open = ChainFolder::new(&self.site, Class::Rolling, &newest.chain).unwrap();
        for object in objects.keys().filter(|object| !known.contains(*object)) {
            records += u32::from(object.contains("/pruned/"));
            let fine = object.contains("/pruned/") || object.starts_with(open.prefix().as_str());
            assert!(fine, "{object} is of no use to any generation");
        }
        assert!(records <= 2, "{records} objects of records");
        assert!(known.iter().all(|object| objects.contains_key(object)), "something is missing");
    }
}

/// Sets the clocks of this thread and of `stores`.
pub fn set_clocks(stores: &[&MemoryStore], now: Timestamp) {
    agent::clock::simulate(Some(now));
    stores.iter().for_each(|store| store.set_now(now));
}

/// The names of generations.
pub fn names_of(stored: &[Stored]) -> BTreeSet<GenerationId> {
    stored.iter().map(|stored| stored.generation.clone()).collect()
}

/// A store that only adds, as the agent has it.
pub fn for_agent(store: &MemoryStore) -> Arc<dyn ObjectStore> {
    Arc::new(store.opened_for(Access::Agent))
}

fn key<E: std::fmt::Debug>(key: &Result<ObjectKey, E>) -> String {
    key.as_ref().unwrap().to_string()
}
