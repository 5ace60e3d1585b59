//! The engine itself, in this process: a site with a folder as its source and a directory as its store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::backup::{BackupReport, BackupRequest, Run};
use agent::capture::{CutSettings, FolderSource, HolderProgram, Patterns, SourceConfig, SourceKind};
use agent::catalog::{self, Stored};
use agent::deliver::DeliverSettings;
use agent::generation::Class;
use agent::ids::{GenerationId, SiteName};
use agent::keys::{Identities, Recipients, generate_identity};
use agent::progress::Progress;
use agent::restore::{self, RestoreError, RestoreReport, RestoreRequest, StoredOrigin};
use agent::sign::{SiteKey, SitePublicKey};
use agent::upload::StoreTarget;
use providers::{Access, DirectorySettings, ObjectStore, Policy, StoreSettings};
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
    /// What opens its generations.
    pub identities: Identities,
    /// A pack is finished at this size.
    pub pack_bytes: u64,
    /// Generations in a chain.
    pub chain_generations: u32,
    recipients: Recipients,
    key: SiteKey,
    runtime: Runtime,
}

impl Site {
    /// A new site with an empty source folder.
    #[expect(clippy::new_without_default, reason = "it makes folders and keys")]
    pub fn new() -> Self {
        let world = World::new();
        for folder in ["source", "store"] {
            world.make_folder(folder);
        }
        let identity = generate_identity("2026-11-22T12:00:00Z".parse().unwrap());
        let key_file = world.write("identity.txt", age::secrecy::ExposeSecret::expose_secret(&identity.file));
        let settings = StoreSettings::Directory(DirectorySettings { path: world.path("store") });
        Self {
            name: "townhall".parse().unwrap(),
            store: providers::open(&settings, Access::Agent, &Policy::default()).unwrap(),
            identities: Identities::load([key_file], &|_| None).unwrap(),
            pack_bytes: 1 << 20,
            chain_generations: 100,
            recipients: Recipients::parse([&identity.recipient]).unwrap(),
            key: SiteKey::generate().unwrap(),
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
        let kind = SourceKind::Folder(FolderSource { path: self.source(), patterns: Patterns::all() });
        let sources = [SourceConfig { name: "docs".parse().unwrap(), kind }];
        let targets = [StoreTarget {
            name: "nas".parse().unwrap(),
            store: Arc::clone(&self.store),
            pack_bytes: self.pack_bytes,
            part_bytes: 8 << 20,
        }];
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
            },
            staging: &self.world.path("staging"),
            sources: &sources,
            cut: &CutSettings::default(),
            holder: &HolderProgram { program: PathBuf::from("none"), arguments: Vec::new() },
            fresh_chain: false,
            targets: &targets,
        };
        let (_stop, interrupt) = watch::channel(false);
        let run = Run::begin(request, self.runtime.handle().clone(), Arc::default(), interrupt).unwrap();
        run.backup(class, None).unwrap()
    }

    /// What the store holds.
    pub fn list(&self) -> Vec<Stored> {
        self.runtime.block_on(catalog::list(self.store.as_ref(), &self.name, Some(self.key.public()))).unwrap()
    }

    /// Restores a whole generation to `to`.
    pub fn restore(&self, generation: &GenerationId, to: &Path) -> Result<RestoreReport, RestoreError> {
        let stored = self.list().into_iter().find(|stored| stored.generation == *generation).unwrap();
        let origin = StoredOrigin {
            store: &self.store,
            site: &self.name,
            stored: &stored,
            identities: &self.identities,
            runtime: self.runtime.handle(),
        };
        let request = RestoreRequest { to, source: None, paths: None, overwrite: false };
        restore::from_store(&origin, &request, &Progress::default())
    }
}
