//! A machine that runs the program: its folders, keys and configuration, one folder as its source and one store. What the
//! program did is judged from outside: by the store's content, the spool, and the state's own tables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;
use agent::catalog::{self, Stored, Trust};
use agent::config::KeeperConfig;
use agent::format::names::PackName;
use agent::ids::{GenerationId, SiteName};
use agent::keeper::{self, Keeping, SiteReport};
use agent::keys::{Identities, generate_identity};
use agent::progress::Progress;
use agent::restore::{self, RestoreRequest, StoredOrigin};
use agent::sign::{SiteKey, SitePublicKey};
use agent::verify;
use jiff::Timestamp;
use providers::{
    Access, DirectorySettings, LockMode, ObjectKey, ObjectStore, Policy, S3Credentials, S3Settings, StoreSettings,
    WebdavLogin, WebdavSettings,
};
use tokio::runtime::Runtime;

use crate::servers::{Keys, PASSWORD, USER};
use crate::tree::Tree;
use crate::{Offsite, World};

/// A folder store that refuses, and at once, as long as this lives: where the site's folder should be is a file.
#[derive(Debug)]
pub struct Refusing {
    folder: PathBuf,
    aside: PathBuf,
}

impl Refusing {
    /// Makes the store in the folder `store` such a one.
    pub fn new(store: &Path) -> Self {
        let (folder, aside) = (store.join("townhall"), store.with_extension("aside"));
        if folder.exists() {
            std::fs::rename(&folder, &aside).unwrap();
        }
        std::fs::write(&folder, "").unwrap();
        Self { folder, aside }
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        std::fs::remove_file(&self.folder).unwrap();
        if self.aside.exists() {
            std::fs::rename(&self.aside, &self.folder).unwrap();
        }
    }
}

/// A machine with one source and one store.
pub struct Machine {
    /// Its folders.
    pub world: World,
    /// The name of its site.
    pub site: SiteName,
    /// Its store, as whoever has all rights sees it.
    pub store: Arc<dyn ObjectStore>,
    public: SitePublicKey,
    identities: Identities,
    recipient: String,
    runtime: Runtime,
}

impl Machine {
    /// A machine whose store is the folder `store` of its world; its packs have 1 MiB.
    pub fn new() -> Self {
        Self::in_world(World::new())
    }

    /// The same, in memory if there is room (see [`World::in_memory`]).
    pub fn in_memory() -> Self {
        Self::in_world(World::in_memory())
    }

    fn in_world(world: World) -> Self {
        let path = world.make_folder("store");
        let store = format!("type = \"directory\"\npath = \"{}\"\npack = \"1 MiB\"", path.display());
        Self::with(world, &StoreSettings::Directory(DirectorySettings { path, mark: None }), &store)
    }

    /// A machine whose store is a bucket at `url`, where the agent's key may not delete. Packs of 24 MiB, parts of 5 MiB.
    pub fn with_bucket(url: &str, bucket: &str) -> Self {
        let world = World::new();
        let secret = world.write("s3-secret", Keys::ADMIN.secret);
        let store = format!(
            "type = \"s3\"\nendpoint = \"{url}\"\nregion = \"us-east-1\"\nbucket = \"{bucket}\"\nprefix = \"site-a\"\n\
             access_key = \"{}\"\nsecret_key = \"file:{}\"\npack = \"24 MiB\"\npart = \"5 MiB\"",
            Keys::ADMIN.id,
            secret.display()
        );
        Self::with(world, &StoreSettings::S3(bucket_settings(url, bucket, "site-a")), &store)
    }

    /// A machine whose store is a folder of a WebDAV server. Packs of 24 MiB.
    pub fn with_webdav(url: &str) -> Self {
        let world = World::new();
        let secret = world.write("webdav-password", PASSWORD);
        let store = format!(
            "type = \"webdav\"\nurl = \"{url}\"\nuser = \"{USER}\"\npassword = \"file:{}\"\npack = \"24 MiB\"",
            secret.display()
        );
        let login = WebdavLogin::Basic { user: USER.to_owned(), password: PASSWORD.into() };
        let settings = WebdavSettings { url: url.parse().unwrap(), login, ca_file: None };
        Self::with(world, &StoreSettings::Webdav(settings), &store)
    }

    /// A machine whose store is a bucket at `url` that locks, and whose agent holds a key of least rights. `lock` is its
    /// table `[store.lock]`, inline.
    pub fn with_locking_bucket(url: &str, bucket: &str, lock: &str) -> Self {
        Self::with_agents_key(url, bucket, &format!("lock = {{ {lock} }}"))
    }

    /// A machine whose store is a bucket at `url`, and whose agent holds a key of least rights; `more` is added to the
    /// store's table.
    pub fn with_agents_key(url: &str, bucket: &str, more: &str) -> Self {
        let machine = Self::with_bucket(url, bucket);
        let agent = machine.world.write("agent-secret", Keys::AGENT_A.secret);
        let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
        let store = store
            .replace(Keys::ADMIN.id, Keys::AGENT_A.id)
            .replace(&machine.world.path("s3-secret").display().to_string(), &agent.display().to_string());
        machine.world.write("store.toml", format!("{store}\n{more}"));
        machine.configure(100, "");
        machine
    }

    /// From here on the configuration has these keys for its bucket instead of the agent's.
    pub fn restore_with(&self, keys: Keys) {
        let secret = self.world.write("restorer-secret", keys.secret);
        let store = std::fs::read_to_string(self.world.path("store.toml")).unwrap();
        let agent = self.world.path("agent-secret").display().to_string();
        let store = store.replace(Keys::AGENT_A.id, keys.id).replace(&agent, &secret.display().to_string());
        self.world.write("store.toml", store);
        self.configure(100, "");
    }

    fn with(world: World, settings: &StoreSettings, store: &str) -> Self {
        world.make_folder("source");
        let identity = generate_identity("2026-11-22T12:00:00Z".parse().unwrap());
        let identity_file = world.write("identity.txt", identity.file.expose_secret());
        let key = SiteKey::generate().unwrap();
        key.save(&world.path("site.key")).unwrap();
        let machine = Self {
            site: "townhall".parse().unwrap(),
            store: providers::open(settings, Access::Keeper, &Policy::default()).unwrap(),
            public: key.public().clone(),
            identities: Identities::load([identity_file], &|_| None).unwrap(),
            recipient: identity.recipient,
            runtime: Runtime::new().unwrap(),
            world,
        };
        machine.world.write("store.toml", store);
        machine.configure(100, "");
        machine
    }

    /// Writes the configuration: so many generations to a chain, and `more` at its end.
    pub fn configure(&self, chain_generations: u32, more: &str) {
        let path = |name: &str| self.world.path(name).display().to_string();
        let store = std::fs::read_to_string(self.world.path("store.toml")).unwrap();
        self.world.configure(&format!(
            "site = \"{}\"\nstaging = \"{}\"\nstate = \"{}\"\n[encryption]\nrecipients = [\"{}\"]\n[signing]\nkey = \"{}\"\n\
             [chain]\ngenerations = {chain_generations}\n[[source]]\nname = \"docs\"\ntype = \"folder\"\npath = \"{}\"\n\
             [[store]]\nname = \"far\"\n{store}\n{more}",
            self.site,
            path("staging"),
            path("state"),
            self.recipient,
            path("site.key"),
            path("source"),
        ));
    }

    /// The folder that is backed up.
    pub fn source(&self) -> PathBuf {
        self.world.path("source")
    }

    /// `offsite --json backup` with more arguments.
    pub fn backup(&self, arguments: &[&str]) -> Offsite {
        self.world.offsite([&["--json", "backup"], arguments].concat())
    }

    /// Another machine with the same configuration and, as of now, the same state and staging: a clone. It shares the
    /// store.
    pub fn clone_machine(&self) -> Self {
        let world = World::new();
        let copied =
            std::process::Command::new("cp").arg("-aT").arg(self.world.path(".")).arg(world.path(".")).status();
        assert!(copied.unwrap().success());
        let machine = Self {
            site: self.site.clone(),
            store: Arc::clone(&self.store),
            public: self.public.clone(),
            identities: Identities::load([world.path("identity.txt")], &|_| None).unwrap(),
            recipient: self.recipient.clone(),
            runtime: Runtime::new().unwrap(),
            world,
        };
        machine.configure(100, "");
        machine
    }

    /// Every local generation.
    pub fn local(&self) -> BTreeSet<GenerationId> {
        let local = agent::staging::generations(&self.world.path("staging")).unwrap();
        local.into_iter().map(|local| local.id().clone()).collect()
    }

    /// What the store holds, all of it signed.
    #[track_caller]
    pub fn list(&self) -> Vec<Stored> {
        let list = catalog::list(self.store.as_ref(), &self.site, Some(&self.public));
        let stored = self.runtime.block_on(list).unwrap();
        for one in &stored {
            assert_eq!(one.trust, Trust::Signed, "{one:?}");
        }
        stored
    }

    /// Every object of the site in the store.
    pub fn objects(&self) -> BTreeSet<String> {
        use futures_util::TryStreamExt as _;
        let prefix = format!("{}/", self.site).parse().unwrap();
        let objects = self.store.list(&prefix).map_ok(|meta| meta.key.to_string());
        self.runtime.block_on(objects.try_collect()).unwrap()
    }

    /// When the newest object of the site was written, by the store's clock.
    pub fn newest_object(&self) -> Timestamp {
        use futures_util::TryStreamExt as _;
        let prefix = format!("{}/", self.site).parse().unwrap();
        let times = self.store.list(&prefix).map_ok(|meta| meta.modified.unwrap());
        self.runtime.block_on(times.try_fold(Timestamp::MIN, async |a, b| Ok(a.max(b)))).unwrap()
    }

    /// The dates until which the objects of these keys, as the bucket has them, are locked.
    pub fn lock_dates<'k>(&self, keys: impl Iterator<Item = &'k str>) -> BTreeSet<Timestamp> {
        let versions = self.store.versions().unwrap();
        keys.map(|key| {
            let object: ObjectKey = key.strip_prefix("site-a/").unwrap().parse().unwrap();
            self.runtime.block_on(versions.locked_until(&object.into())).unwrap().unwrap()
        })
        .collect()
    }

    /// Every object of the site with its bytes, by its path below the folder of the site.
    pub fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let folder = format!("{}/", self.site);
        let objects = self.objects();
        objects
            .iter()
            .map(|key| key.strip_prefix(&folder).unwrap())
            .map(|path| (path.to_owned(), self.content(path)))
            .collect()
    }

    /// The bytes of an object of the site.
    pub fn content(&self, path: &str) -> Vec<u8> {
        let key: ObjectKey = format!("{}/{path}", self.site).parse().unwrap();
        self.runtime.block_on(catalog::small(self.store.as_ref(), &key, u64::MAX)).unwrap()
    }

    /// A dry run of a keeper with the configuration of `world` over `store`, in which it looks at one site.
    pub fn keep(&self, world: &World, site: &str, store: &dyn ObjectStore) -> Vec<SiteReport> {
        let config = KeeperConfig::load(&world.path("offsite.toml")).unwrap().config;
        let key = SiteKey::load(&config.key).unwrap();
        let keeping = Keeping {
            sites: &config.sites,
            only: &[site.parse().unwrap()].into(),
            key: &key,
            ledgers: &config.state.join("far"),
            terms: &config.terms,
            own: &config.own,
            round_days: config.round_days,
            budget: config.budget,
            dry_run: true,
            lifted: &[],
        };
        let (_stop, interrupt) = tokio::sync::watch::channel(false);
        let mut reports = Vec::new();
        self.runtime.block_on(keeper::keep(store, &keeping, &interrupt, |report| reports.push(report))).unwrap();
        reports
    }

    /// Re-reads everything that is stored, and panics about whatever is not as it should be.
    #[track_caller]
    pub fn verify(&self) {
        let stored = self.list();
        let progress = Progress::default();
        let report = verify::verify(self.store.as_ref(), &self.site, &stored, 100, 0, &progress);
        let report = self.runtime.block_on(report).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }

    /// The documents as they come back from `generation` in the store.
    #[track_caller]
    pub fn restored(&self, generation: &GenerationId) -> Tree {
        Tree::read(&self.restored_to(generation).path().join("docs"))
    }

    /// A folder with all sources as they come back from `generation` in the store.
    #[track_caller]
    pub fn restored_to(&self, generation: &GenerationId) -> tempfile::TempDir {
        let stored = self.list().into_iter().find(|stored| stored.generation == *generation);
        let stored = stored.unwrap_or_else(|| panic!("{generation} is not in the store"));
        let origin = StoredOrigin {
            store: &self.store,
            site: &self.site,
            stored: &stored,
            identities: &self.identities,
            runtime: self.runtime.handle(),
        };
        let to = tempfile::tempdir_in(self.world.path(".")).unwrap();
        let request = RestoreRequest { to: to.path(), source: None, paths: None, overwrite: false };
        let report = restore::from_store(&origin, &request, &Progress::default()).unwrap();
        assert!(report.lost.is_empty() && report.bad_packs.is_empty(), "{:?} {:?}", report.lost, report.bad_packs);
        to
    }

    /// Names of the packs in a list of the store.
    fn packs_of(&self, list: &str) -> Vec<String> {
        let list = self.runtime.block_on(catalog::small(self.store.as_ref(), &list.parse().unwrap(), 1 << 20)).unwrap();
        verify::parse_list(&list).unwrap().into_iter().map(|name| name.to_string()).collect()
    }

    /// Packs that a run that died was at, or had sealed and not recorded: the next run seals them again.
    pub fn packs_to_seal_again(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.world.path("state/spool/far")) else { return Vec::new() };
        let state = rusqlite::Connection::open(self.world.path("state/state.db")).unwrap();
        let mut recorded = state.prepare("SELECT count(*) FROM pack WHERE name = ?1").unwrap();
        let mut is_recorded = |name: &String| recorded.query_row([name], |row| row.get::<_, u64>(0)).unwrap() > 0;
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let packs = names.filter(|name| name.starts_with(".new-") || name.parse::<PackName>().is_ok());
        packs.filter(|name| !is_recorded(name)).collect()
    }

    /// Panics unless nothing is half done: the state agrees with itself and with the store, each generation was committed
    /// once, nothing waits, and nothing lies about. `orphans` says whether packs of no generation may be in the store.
    #[track_caller]
    pub fn assert_at_rest(&self, orphans: bool) {
        let spool = self.world.path("state/spool/far");
        let waiting: Vec<_> = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(waiting.is_empty(), "left in the spool: {waiting:?}");
        let staged = std::fs::read_dir(self.world.path("staging")).unwrap();
        let staged: Vec<_> = staged.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!staged.iter().any(|name| name.ends_with(".partial")), "half a copy: {staged:?}");

        let stored = self.list();
        let mut sequences: Vec<u64> = stored.iter().map(|one| one.commit.as_ref().unwrap().sequence).collect();
        sequences.sort_unstable();
        assert_eq!(sequences, (1..=stored.len() as u64).collect::<Vec<_>>(), "each is committed once, in a row");
        let state = rusqlite::Connection::open(self.world.path("state/state.db")).unwrap();
        let count = |sql: &str| state.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM delivery WHERE phase = 'committed'"), stored.len() as u64);
        assert_eq!(count("SELECT count(*) FROM delivery WHERE phase NOT IN ('committed', 'abandoned')"), 0);
        let of_committed = "delivery IN (SELECT id FROM delivery WHERE phase = 'committed') AND stored = 0";
        assert_eq!(count(&format!("SELECT count(*) FROM pack WHERE {of_committed}")), 0);
        assert_eq!(count(&format!("SELECT count(*) FROM object WHERE {of_committed}")), 0);
        assert_eq!(count("SELECT count(*) FROM upload"), 0);
        let done = "SELECT id FROM chain WHERE closed = 1 OR class = 'archival'";
        for rows in ["pack WHERE chain", "chunk WHERE chain", "patch JOIN pack ON pack.id = pack WHERE chain"] {
            assert_eq!(count(&format!("SELECT count(*) FROM {rows} IN ({done})")), 0, "of chains that nothing joins");
        }
        if !orphans {
            let objects = self.objects();
            let lists = objects.iter().filter(|key| key.ends_with(".packs"));
            let known: BTreeSet<String> = lists.flat_map(|key| self.packs_of(key)).collect();
            let name = |key: &String| Path::new(key).file_name().unwrap().to_str().unwrap().to_owned();
            let found: BTreeSet<String> = objects.iter().filter(|key| key.contains("/packs/")).map(name).collect();
            assert_eq!(found, known, "packs in the store and packs of generations");
        }
    }
}

/// How whoever has all rights opens a folder of a bucket.
pub fn bucket_settings(url: &str, bucket: &str, prefix: &str) -> S3Settings {
    S3Settings {
        endpoint: Some(url.parse().unwrap()),
        region: "us-east-1".to_owned(),
        bucket: bucket.to_owned(),
        prefix: prefix.parse().unwrap(),
        path_style: true,
        ca_file: None,
        credentials: S3Credentials::Static {
            access_key: Keys::ADMIN.id.to_owned(),
            secret_key: Keys::ADMIN.secret.to_owned().into(),
            session_token: None,
        },
        lock_mode: LockMode::Governance,
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}
