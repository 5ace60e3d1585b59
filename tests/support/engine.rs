//! The engine itself, in this process: a site with a folder as its source and a directory as its store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::backup::{BackupReport, BackupRequest, Run};
use agent::calendar::Age;
use agent::capture::{CutSettings, FolderSource, HolderProgram, Patterns, SourceConfig, SourceKind};
use agent::catalog::{self, CatalogError, Stored};
use agent::deliver::DeliverSettings;
use agent::format::Sha256;
use agent::format::manifest::Manifest;
use agent::format::names::ChainFolder;
use agent::generation::Class;
use agent::ids::{GenerationId, SiteName};
use agent::keys::{Identities, Recipients, generate_identity};
use agent::progress::Progress;
use agent::restore::{self, RestoreError, RestoreReport, RestoreRequest, StoredOrigin};
use agent::sign::{SiteKey, SitePublicKey};
use agent::upload::StoreTarget;
use agent::verify::{self, VerifyError, VerifyReport};
use providers::{Access, DirectorySettings, KeyPrefix, ObjectStore, Policy, StoreSettings};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::World;

/// A site that backs one folder up into one directory.
pub struct Site {
    /// Where everything of it lies.
    pub world: World,
    /// Its name.
    pub name: SiteName,
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// What opens its generations; as a file, `identity.txt` in the world.
    pub identities: Identities,
    /// To whom they are sealed.
    pub recipients: Recipients,
    /// What they are signed with; as a file, `site.key` in the world.
    pub key: SiteKey,
    /// A second store, `usb`, that every run brings its generation to as well.
    pub second: Option<Arc<dyn ObjectStore>>,
    /// A pack is finished at this size.
    pub pack_bytes: u64,
    /// Digests of packs that were found bad.
    pub bad_packs: BTreeSet<Sha256>,
    /// Generations in a chain.
    pub chain_generations: u32,
    runtime: Runtime,
}

impl Site {
    /// A new site with an empty source folder. The world's configuration says the same, so that the program finds what
    /// was made here, and the other way round.
    #[expect(clippy::new_without_default, reason = "it makes folders and keys")]
    pub fn new() -> Self {
        Self::in_world(World::new())
    }

    /// The same, in memory if there is room (see [`World::in_memory`]).
    pub fn in_memory() -> Self {
        Self::in_world(World::in_memory())
    }

    fn in_world(world: World) -> Self {
        for folder in ["source", "store"] {
            world.make_folder(folder);
        }
        let identity = generate_identity("2026-11-22T12:00:00Z".parse().unwrap());
        let key_file = world.write("identity.txt", age::secrecy::ExposeSecret::expose_secret(&identity.file));
        let settings = StoreSettings::Directory(DirectorySettings { path: world.path("store"), mark: None });
        let key = SiteKey::generate().unwrap();
        key.save(&world.path("site.key")).unwrap();
        let path = |name: &str| world.path(name).display().to_string();
        world.configure(&format!(
            "site = \"townhall\"\nstaging = \"{}\"\nstate = \"{}\"\n\
             [encryption]\nrecipients = [\"{}\"]\n[signing]\nkey = \"{}\"\n\
             [[source]]\nname = \"docs\"\ntype = \"folder\"\npath = \"{}\"\n\
             [[store]]\nname = \"nas\"\ntype = \"directory\"\npath = \"{}\"\n",
            path("staging"),
            path("state"),
            identity.recipient,
            path("site.key"),
            path("source"),
            path("store"),
        ));
        Self {
            name: "townhall".parse().unwrap(),
            store: providers::open(&settings, Access::Agent, &Policy::default()).unwrap(),
            identities: Identities::load([key_file], &|_| None).unwrap(),
            second: None,
            pack_bytes: 1 << 20,
            chain_generations: 100,
            bad_packs: BTreeSet::new(),
            recipients: Recipients::parse([&identity.recipient]).unwrap(),
            key,
            runtime: Runtime::new().unwrap(),
            world,
        }
    }

    /// The public half of its signing key.
    pub fn public(&self) -> &SitePublicKey {
        self.key.public()
    }

    /// The folder that is backed up.
    pub fn source(&self) -> PathBuf {
        self.world.path("source")
    }

    /// The folder of the store.
    pub fn store_folder(&self) -> PathBuf {
        self.world.path("store")
    }

    /// The folder of a chain of rolling generations, or of an archival one, in the store.
    pub fn chain_folder(&self, class: Class, chain: &GenerationId) -> PathBuf {
        let place = if class == Class::Archival { "archive" } else { "rolling" };
        self.store_folder().join(self.name.as_str()).join(place).join(chain.as_str())
    }

    /// One run, which must succeed.
    #[track_caller]
    pub fn backup(&self, class: Class) -> GenerationId {
        let report = self.try_backup(class);
        for outcome in report.resumed.iter().chain(&report.stores) {
            assert!(outcome.result.is_ok(), "{outcome:?}");
        }
        report.generation.unwrap().0
    }

    /// One run.
    #[track_caller]
    pub fn try_backup(&self, class: Class) -> BackupReport {
        self.try_backup_kept_for(class, None)
    }

    /// One run, whose archival generation has a lifetime.
    #[track_caller]
    pub fn try_backup_kept_for(&self, class: Class, lifetime: Option<Age>) -> BackupReport {
        let kind = SourceKind::Folder(FolderSource {
            path: self.source(),
            patterns: Patterns::all(),
            snapshot: None,
            may_be_empty: false,
        });
        let sources = [SourceConfig { name: "docs".parse().unwrap(), kind }];
        let target = |name: &str, store: &Arc<dyn ObjectStore>| StoreTarget {
            name: name.parse().unwrap(),
            disk: None,
            store: Arc::clone(store),
            pack_bytes: self.pack_bytes,
            part_bytes: 8 << 20,
            lock: None,
            unfit: None,
        };
        let mut targets = vec![target("nas", &self.store)];
        targets.extend(self.second.iter().map(|store| target("usb", store)));
        let request = BackupRequest {
            settings: DeliverSettings {
                site: &self.name,
                state_folder: &self.world.path("state"),
                recipients: &self.recipients,
                key: &self.key,
                level: 3,
                spool_bytes: 64 << 20,
                chain_days: 7,
                chain_generations: self.chain_generations,
                bad_packs: &self.bad_packs,
                schedule: None,
            },
            staging: &self.world.path("staging"),
            sources: &sources,
            cut: &CutSettings::default(),
            holder: &HolderProgram { program: PathBuf::from("none"), arguments: Vec::new() },
            wait: std::time::Duration::from_secs(3600),
            fresh_chain: false,
            targets: &targets,
        };
        let (_stop, interrupt) = watch::channel(false);
        let run = Run::begin(request, self.runtime.handle().clone(), Arc::default(), interrupt).unwrap();
        run.kept_for(lifetime).backup(class, None).unwrap()
    }

    /// What the store holds.
    pub fn list(&self) -> Vec<Stored> {
        self.try_list().unwrap()
    }

    /// What the store holds, or why it cannot be said.
    pub fn try_list(&self) -> Result<Vec<Stored>, CatalogError> {
        self.block_on(catalog::list(self.store.as_ref(), &self.name, Some(self.key.public())))
    }

    /// The key of every object in the store, in order.
    pub fn keys(&self) -> Vec<String> {
        let all = self.block_on(catalog::objects(self.store.as_ref(), &KeyPrefix::default())).unwrap();
        all.keys().map(ToString::to_string).collect()
    }

    /// Waits for something that the engine does.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Restores a whole generation to `to`.
    pub fn restore(&self, generation: &GenerationId, to: &Path) -> Result<RestoreReport, RestoreError> {
        let stored = self.stored(generation);
        let request = RestoreRequest { to, source: None, paths: None, overwrite: false };
        restore::from_store(&self.origin(&stored), &request, &Progress::default())
    }

    /// The manifest of a generation.
    pub fn manifest(&self, generation: &GenerationId) -> Manifest {
        let stored = self.stored(generation);
        let folder = ChainFolder::new(&self.name, stored.class, &stored.chain).unwrap();
        restore::read_manifest(&self.origin(&stored), &folder).unwrap()
    }

    /// Reads every pack of every generation again, and all that lies beside them.
    pub fn verify(&self) -> VerifyReport {
        self.try_verify().unwrap()
    }

    /// As [`verify`](Self::verify), or why nothing can be said.
    pub fn try_verify(&self) -> Result<VerifyReport, VerifyError> {
        let generations = self.try_list()?;
        let progress = Progress::default();
        let (store, key) = (self.store.as_ref(), Some(self.key.public()));
        self.runtime.block_on(async {
            let mut report = verify::verify(store, &self.name, &generations, 100, 0, &progress).await?;
            report.findings.extend(verify::verify_site(store, &self.name, key, &[], &generations).await?);
            Ok(report)
        })
    }

    fn stored(&self, generation: &GenerationId) -> Stored {
        self.list().into_iter().find(|stored| stored.generation == *generation).unwrap()
    }

    fn origin<'a>(&'a self, stored: &'a Stored) -> StoredOrigin<'a> {
        StoredOrigin {
            store: &self.store,
            site: &self.name,
            stored,
            identities: &self.identities,
            runtime: self.runtime.handle(),
        }
    }
}
