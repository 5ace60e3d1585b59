//! A store that lies: whatever it lists and sends is refused, after a bounded number of bytes and names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::catalog::{self, CatalogError, Trust};
use agent::format::Sha256;
use agent::format::commit::Commit;
use agent::format::manifest::{Extent, Manifest};
use agent::generation::Class;
use agent::ids::GenerationId;
use agent::progress::Progress;
use agent::verify;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use providers::{
    Body, ByteRange, ByteStream, Copying, Deletion, KeyPrefix, Limits, Multipart, ObjectKey, ObjectMeta, ObjectRef,
    ObjectStore, PutOptions, Result, Versions,
};
use tests::engine::Site;
use tests::tree::Tree;
use tests::{Rng, office};

/// What the store does instead of what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lie {
    /// Objects whose keys end like this have no end.
    EndlessBody(String),
    /// Objects whose keys end like this end this many bytes too early, though the store says that all is well.
    Short(String, usize),
    /// What is in one object is what is in another.
    Swapped(String, String),
    /// Listings go on for ever with names of generations that are not there.
    EndlessGenerations,
    /// Listings name the same object for ever.
    EndlessObjects,
    /// Listings name everything twice.
    Twice,
}

/// A store that does as another one does, but for one lie; and counts what it gives.
struct Hostile {
    store: Arc<dyn ObjectStore>,
    lie: Lie,
    bytes: Arc<AtomicU64>,
    names: Arc<AtomicU64>,
}

impl Hostile {
    fn new(store: &Arc<dyn ObjectStore>, lie: Lie) -> Arc<Self> {
        Arc::new(Self { store: Arc::clone(store), lie, bytes: Arc::default(), names: Arc::default() })
    }

    fn given(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.names.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl ObjectStore for Hostile {
    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn put(&self, key: &ObjectKey, body: &Body, options: &PutOptions) -> Result<ObjectMeta> {
        self.store.put(key, body, options).await
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        let key = object.key.as_str();
        let content = match &self.lie {
            Lie::EndlessBody(end) if key.ends_with(end.as_str()) => {
                stream::repeat_with(|| Ok(Bytes::from_static(&[b'a'; 64 << 10]))).boxed()
            }
            Lie::Short(end, by) if key.ends_with(end.as_str()) => {
                let all = self.store.get(object, range).await?.map(|piece| piece.unwrap().to_vec()).concat().await;
                stream::iter([Ok(Bytes::from(all[..all.len().saturating_sub(*by)].to_vec()))]).boxed()
            }
            Lie::Swapped(one, other) if key == one => {
                let other: ObjectKey = other.parse().unwrap();
                self.store.get(&other.into(), range).await?
            }
            _ => self.store.get(object, range).await?,
        };
        let bytes = Arc::clone(&self.bytes);
        let count = move |piece: &Result<Bytes>| {
            bytes.fetch_add(piece.as_ref().map_or(0, |piece| piece.len() as u64), Ordering::Relaxed);
        };
        Ok(content.inspect(count).boxed())
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        self.store.head(object).await
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        let names = Arc::clone(&self.names);
        let real = self.store.list(prefix);
        let listed = match &self.lie {
            Lie::Twice => real.flat_map(|object| stream::iter(vec![object.unwrap(); 2]).map(Ok)).boxed(),
            Lie::EndlessGenerations => real
                .take(1)
                .flat_map(|object| {
                    let first = object.unwrap();
                    stream::iter(0..).map(move |number: u64| {
                        let key = first.key.as_str().rsplit_once('/').unwrap().0;
                        let (day, second) = (number / 86_400 % 28 + 1, number % 86_400);
                        let time = format!("{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60);
                        let key = format!("{key}/202611{day:02}T{time}Z-{:04x}.json.minisig", number / 2_419_200);
                        Ok(ObjectMeta { key: key.parse().unwrap(), ..first.clone() })
                    })
                })
                .boxed(),
            Lie::EndlessObjects => real.take(1).flat_map(|object| stream::repeat(object.unwrap()).map(Ok)).boxed(),
            _ => real,
        };
        let count = move |_: &Result<ObjectMeta>| {
            names.fetch_add(1, Ordering::Relaxed);
        };
        listed.inspect(count).boxed()
    }

    async fn sweep(&self, prefix: &KeyPrefix, before: jiff::Timestamp) -> Result<u64> {
        self.store.sweep(prefix, before).await
    }

    async fn now(&self) -> Result<jiff::Timestamp> {
        self.store.now().await
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        None
    }

    fn copying(&self) -> Option<&dyn Copying> {
        None
    }

    fn versions(&self) -> Option<&dyn Versions> {
        None
    }

    fn deletion(&self) -> Option<&dyn Deletion> {
        None
    }
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hostile").field(&self.lie).finish()
    }
}

/// A site with a full and an incremental of some files and one that is patched.
fn site() -> Site {
    let site = Site::in_memory();
    let mut rng = Rng::new(61);
    office::documents(&site.source(), &mut rng, 20, 1 << 20);
    let database = site.source().join("database");
    let mut content = rng.bytes(1 << 20);
    std::fs::write(&database, &content).unwrap();
    site.backup(Class::Rolling);
    content[500_000..500_100].copy_from_slice(&rng.bytes(100));
    std::fs::write(&database, &content).unwrap();
    site.backup(Class::Rolling);
    site
}

/// Lists, verifies and restores everything through the lie. What comes back is right; answers whether anything was noticed.
#[track_caller]
fn look(site: &mut Site, lie: Lie) -> (bool, Arc<Hostile>) {
    let honest = Arc::clone(&site.store);
    let newest = site.list().last().unwrap().generation.clone();
    let original = Tree::read(&site.source());
    let hostile = Hostile::new(&honest, lie);
    site.store = Arc::clone(&hostile) as Arc<dyn ObjectStore>;
    let mut noticed = false;
    match site.try_list() {
        Ok(listed) => {
            noticed |= listed.iter().any(|stored| stored.trust != Trust::Signed);
            noticed |= site.try_verify().map_or(true, |report| !report.findings.is_empty());
            let to = site.world.path("restored");
            match listed.iter().any(|stored| stored.generation == newest).then(|| site.restore(&newest, &to)) {
                Some(Ok(report)) if report.lost.is_empty() => {
                    original.assert_equals(&Tree::read(&to.join("docs")));
                }
                Some(Ok(_)) => {
                    noticed = true;
                    // Without the list, times are whole seconds; a content is what it was, or it is not there.
                    let differs = original.differences(&Tree::read(&to.join("docs")));
                    let harmless = |it: &String| it.ends_with(" is missing") || it.contains(": time (");
                    assert!(differs.iter().all(harmless), "{differs:?}");
                }
                Some(Err(_)) | None => {
                    noticed = true;
                    assert!(!to.join("docs").exists(), "something was restored");
                }
            }
            std::fs::remove_dir_all(to).ok();
        }
        Err(_) => noticed = true,
    }
    site.store = honest;
    (noticed, hostile)
}

#[test]
fn bodies_without_end_are_not_read_to_their_end() {
    // All that the site stores has 3 MiB, and is read some times over.
    const BYTES_MAX: u64 = 64 << 20;
    let mut site = site();
    let endings = [
        "/00-0001-",
        ".patch.age",
        ".manifest.age",
        ".packs",
        ".json",
        ".json.minisig",
        "heartbeat.json",
        "RESTORE.txt",
    ];
    let keys: Vec<String> = site.keys();
    for ending in endings {
        let key = keys.iter().filter(|key| key.contains(ending)).max_by_key(|key| key.ends_with(ending)).unwrap();
        let (noticed, hostile) = look(&mut site, Lie::EndlessBody(key.clone()));
        assert!(noticed, "nobody noticed that {key} has no end");
        assert!(hostile.given().0 < BYTES_MAX, "{} bytes of {key} were read", hostile.given().0);
    }
}

#[test]
fn bodies_that_end_early_or_are_others_are_noticed() {
    let mut site = site();
    let keys: Vec<String> = site.keys();
    for key in &keys {
        for by in [1, 1000, usize::MAX] {
            assert!(
                look(&mut site, Lie::Short(key.clone(), by)).0,
                "nobody noticed that {by} bytes of {key} are missing"
            );
        }
        let ending = key.rsplit_once('.').unwrap().1;
        if let Some(other) = keys.iter().find(|other| *other != key && other.ends_with(ending)) {
            let lie = Lie::Swapped(key.clone(), other.clone());
            assert!(look(&mut site, lie).0, "nobody noticed that {other} came instead of {key}");
        }
    }
}

#[test]
fn listings_without_end_are_given_up() {
    let mut site = site();
    for (lie, names_max) in [(Lie::EndlessGenerations, 101_000), (Lie::EndlessObjects, 2_001_000)] {
        let (noticed, hostile) = look(&mut site, lie.clone());
        assert!(noticed, "nobody noticed {lie:?}");
        assert!(hostile.given().1 < names_max, "{lie:?}: {} names were listed", hostile.given().1);
    }
    // The same where only packs are listed.
    let hostile = Hostile::new(&site.store, Lie::EndlessObjects);
    let listed = site.block_on(catalog::objects(hostile.as_ref(), &"townhall/".parse().unwrap()));
    assert!(matches!(listed, Err(CatalogError::Endless)), "{listed:?}");
}

#[test]
fn what_is_listed_twice_is_there_once() {
    let mut site = site();
    let (noticed, _) = look(&mut site, Lie::Twice);
    assert!(!noticed, "two names of one object were taken for two");
}

#[test]
fn sizes_that_nobody_signed_are_not_believed() {
    let site = site();
    // Without the site's key, anybody may have written the documents.
    let mut listed = site.block_on(catalog::list(site.store.as_ref(), &site.name, None)).unwrap();
    for stored in &mut listed {
        assert_eq!(stored.trust, Trust::Unchecked);
        let commit = stored.commit.as_mut().unwrap();
        (commit.manifest.bytes, commit.packs.bytes, commit.needed_bytes) = (1 << 62, 1 << 62, 1 << 62);
    }
    for (ending, bytes_max) in [(".manifest.age", 520 << 20), (".packs", 130 << 20)] {
        let hostile = Hostile::new(&site.store, Lie::EndlessBody(ending.to_owned()));
        let progress = Progress::default();
        let report = site.block_on(verify::verify(hostile.as_ref(), &site.name, &listed, 100, 0, &progress)).unwrap();
        assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
        assert!(hostile.given().0 < bytes_max, "{} bytes of {ending} were read", hostile.given().0);
    }
}

/// Chains of two generations; the second chain begins with copies.
fn site_that_carries() -> (Site, GenerationId) {
    let mut site = Site::in_memory();
    site.chain_generations = 2;
    let mut rng = Rng::new(62);
    let database = site.source().join("database");
    let mut content = rng.bytes(4 << 20);
    let mut nights = Vec::new();
    for night in 0..3 {
        content[700 * night..][..100].copy_from_slice(&rng.bytes(100));
        std::fs::write(&database, &content).unwrap();
        nights.push(site.backup(Class::Rolling));
    }
    assert!(site.list()[2].commit.as_ref().unwrap().carried_bytes > Some(2 << 20));
    (site, nights.remove(2))
}

/// What somebody who took the site's key puts in the place of a generation's documents.
fn forge(site: &Site, generation: &GenerationId, manifest: Option<Manifest>, change: impl Fn(&mut Commit)) {
    let stored = site.list().into_iter().find(|stored| stored.generation == *generation).unwrap();
    let folder = site.chain_folder(Class::Rolling, &stored.chain);
    let mut commit = stored.commit.unwrap();
    if let Some(manifest) = manifest {
        let plain = site.world.write("manifest", manifest.encode().unwrap());
        let text = std::process::Command::new("zstd").arg("-qc").arg(plain).output().unwrap().stdout;
        let sealed = site.recipients.iter().next().unwrap().seal(&text).unwrap();
        let list: String =
            manifest.packs.iter().map(|pack| format!("{}  packs/{}\n", pack.name.sha256, pack.name)).collect();
        (commit.manifest.bytes, commit.manifest.sha256) = (sealed.len() as u64, Sha256::of(&sealed));
        (commit.packs.bytes, commit.packs.sha256) = (list.len() as u64, Sha256::of(list.as_bytes()));
        std::fs::write(folder.join(format!("{generation}.manifest.age")), sealed).unwrap();
        std::fs::write(folder.join(format!("{generation}.packs")), list).unwrap();
    }
    change(&mut commit);
    let text = commit.encode().unwrap();
    let signature = site.key.sign(&text, &commit.trusted_comment()).unwrap();
    std::fs::write(folder.join(format!("{generation}.json")), text).unwrap();
    std::fs::write(folder.join(format!("{generation}.json.minisig")), signature).unwrap();
}

#[test]
fn numbers_that_cannot_be_are_refused_though_they_are_signed() {
    let changes: [fn(&mut Commit); 9] = [
        |commit| commit.sequence = u64::MAX,
        |commit| commit.stream_bytes = u64::MAX,
        |commit| commit.needed_bytes = 1 << 63,
        |commit| commit.added_bytes = u64::MAX,
        |commit| commit.manifest.bytes = u64::MAX,
        |commit| commit.packs.bytes = u64::MAX,
        |commit| commit.carried_bytes = Some(u64::MAX),
        |commit| commit.carried_bytes = Some(commit.added_bytes + 1),
        // Only a full is made of copies.
        |commit| commit.number = 1,
    ];
    let (site, generation) = site_that_carries();
    let honest = site.list().pop().unwrap().commit.unwrap();
    for (at, change) in changes.iter().enumerate() {
        forge(&site, &generation, None, change);
        let listed = site.list().pop().unwrap();
        assert!(matches!(&listed.trust, Trust::Refused(why) if why.contains("no sense")), "{at}: {listed:?}");
        assert!(site.restore(&generation, &site.world.path("restored")).is_err(), "{at}");
        assert!(site.verify().findings.iter().any(|finding| finding.harms.contains(&generation)), "{at}");
        site.world.offsite(["list"]).expect(5);
        // Back to what was stored.
        let folder = site.chain_folder(Class::Rolling, &listed.chain);
        let (text, comment) = (honest.encode().unwrap(), honest.trusted_comment());
        std::fs::write(folder.join(format!("{generation}.json")), &text).unwrap();
        let signature = site.key.sign(&text, &comment).unwrap();
        std::fs::write(folder.join(format!("{generation}.json.minisig")), signature).unwrap();
    }
    assert_eq!(site.restore(&generation, &site.world.path("restored")).unwrap().lost, vec![]);
}

/// A pack is looked for in the chain's own folder, whatever a manifest names, and positions between copies are nothing.
#[test]
fn a_manifest_reaches_nothing_but_the_packs_of_its_chain() {
    let (site, generation) = site_that_carries();
    let honest = site.manifest(&generation);
    let mut others: Vec<_> = site.manifest(&site.list()[1].generation).packs;
    others.retain(|other| honest.packs.iter().all(|pack| pack.name != other.name));
    let (first, mut foreign) = (honest.packs[0].at, honest.clone());
    // Of the chain before: it is there, with these very bytes.
    let twin = others.iter().find(|other| other.name.number == 1 && !other.name.patches);
    foreign.packs[0].name = twin.unwrap().name;
    forge(&site, &generation, Some(foreign), |_| ());
    let found = site.verify().findings;
    assert!(found.iter().any(|finding| finding.what == "it is missing" && finding.harms == [generation.clone()]));
    let to = site.world.path("foreign");
    let lost = site.restore(&generation, &to).map_or(true, |report| !report.lost.is_empty());
    assert!(lost && !to.join("docs/database").exists(), "another chain's pack was read");

    let refused: [&dyn Fn(&mut Manifest); 6] = [
        &|manifest| manifest.packs[1].at = first,
        &|manifest| manifest.packs[1].at = u64::MAX,
        &|manifest| manifest.packs[1].content = u64::MAX,
        &|manifest| manifest.extents[0] = Extent::Plain { from: 1 << 40, bytes: 512 },
        &|manifest| manifest.head.stream_bytes = u64::MAX,
        &|manifest| manifest.head.site = "townhouse".parse().unwrap(),
    ];
    for (at, change) in refused.iter().enumerate() {
        let mut manifest = honest.clone();
        change(&mut manifest);
        forge(&site, &generation, Some(manifest), |_| ());
        let to = site.world.path(format!("refused-{at}"));
        assert!(site.restore(&generation, &to).is_err() && !to.join("docs").exists(), "{at}");
    }
    forge(&site, &generation, Some(honest), |_| ());
    assert_eq!(site.restore(&generation, &site.world.path("restored")).unwrap().lost, vec![]);
}

#[test]
fn names_with_control_characters_never_reach_the_terminal() {
    let site = site();
    let chain = site.chain_folder(Class::Rolling, &site.list()[0].chain);
    let odd = "\u{1b}[2J\u{7}\nodd";
    std::fs::write(chain.join(format!("{odd}.json.minisig")), odd).unwrap();
    std::fs::write(chain.join(format!("20261122T120000Z-0000{odd}.json.minisig")), odd).unwrap();
    std::fs::create_dir_all(site.store_folder().join(odd).join("rolling")).unwrap();
    std::fs::write(site.store_folder().join(odd).join("rolling/x"), odd).unwrap();
    // A document that nobody signed, full of them.
    let forged = chain.join("20261122T120000Z-0000.json");
    std::fs::write(&forged, format!("{{\"offsite\":\"{odd}\"}}")).unwrap();
    std::fs::write(forged.with_extension("json.minisig"), format!("untrusted comment: {odd}\n{odd}\n")).unwrap();
    for (verb, code) in [("list", 5), ("verify", 5)] {
        let outcome = site.world.offsite([verb]).expect(code);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("20261122T120000Z-0000"), "the forged one is not named\n{outcome}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
    }
}
