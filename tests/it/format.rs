//! The format is frozen: what every version of it stored must open for ever.
//!
//! `tests/fixtures/v1` was written once and is never written again: a store with a full, an incremental with patches and
//! an archival generation; the identity and the site's public key; and a list of what each generation restores to. In
//! `tests/fixtures/v1-later` patches refer to what an incremental generation brought, as well as to the full. In
//! `tests/fixtures/v1-carried` a second chain begins with copies of the first one's packs, patches among them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::byhand::{RESTORE_SCRIPT, is_ours};
use agent::catalog::{self, Stored, Trust};
use agent::format::manifest::Extent;
use agent::format::names::ChainFolder;
use agent::keys::Identities;
use agent::progress::Progress;
use agent::restore::{self, RestoreRequest, StoredOrigin};
use agent::sign::SitePublicKey;
use agent::verify;
use providers::{Access, DirectorySettings, ObjectStore, Policy, StoreSettings};
use tests::World;
use tests::tree::{Kind, Tree};
use tokio::runtime::Runtime;

struct Fixture {
    name: &'static str,
    world: World,
    store: Arc<dyn ObjectStore>,
    identities: Identities,
    public: SitePublicKey,
    runtime: Runtime,
}

fn fixture(name: &'static str) -> Fixture {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    let settings = StoreSettings::Directory(DirectorySettings { path: folder.join("store"), mark: None });
    let world = World::new();
    let identity = world.write("identity.txt", std::fs::read(folder.join("identity.txt")).unwrap());
    Fixture {
        name,
        store: providers::open(&settings, Access::Agent, &Policy::default()).unwrap(),
        identities: Identities::load([identity], &|_| None).unwrap(),
        public: std::fs::read_to_string(folder.join("site.pub")).unwrap().parse().unwrap(),
        runtime: Runtime::new().unwrap(),
        world,
    }
}

impl Fixture {
    fn list(&self) -> Vec<Stored> {
        let site = "townhall".parse().unwrap();
        self.runtime.block_on(catalog::list(self.store.as_ref(), &site, Some(&self.public))).unwrap()
    }

    fn origin<'a>(&'a self, stored: &'a Stored, site: &'a agent::ids::SiteName) -> StoredOrigin<'a> {
        StoredOrigin { store: &self.store, site, stored, identities: &self.identities, runtime: self.runtime.handle() }
    }
}

/// What a restored tree holds, a line each: kind, mode, time, size and digest or target, path. Owners depend on who restores.
fn listing(root: &Path) -> String {
    let mut text = String::new();
    for (path, node) in Tree::read(root).0 {
        let what = match &node.kind {
            Kind::Folder => "folder".to_owned(),
            Kind::Link { to } => format!("link {to:?}"),
            Kind::Special => "special".to_owned(),
            Kind::File { bytes, sha256, same_as, .. } => {
                let sha256: String = sha256.iter().map(|b| format!("{b:02x}")).collect();
                format!("file {bytes} {sha256} {same_as:?}")
            }
        };
        // The folder restored to is new, and so its own time is.
        let (mode, time) = if path == Path::new("") { (0, (0, 0)) } else { (node.mode, node.modified) };
        writeln!(text, "{path:?} {mode:o} {time:?} {what}").unwrap();
    }
    text
}

fn expected(fixture: &Fixture, stored: &Stored) -> PathBuf {
    let name = format!("fixtures/{}/{}-{:?}.txt", fixture.name, stored.generation, stored.class);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name.to_lowercase())
}

#[test]
fn everything_that_version_1_stored_opens() {
    let (packs, patches, _) = open_everything(&fixture("v1"), 3);
    assert!(packs > 12 && patches > 0, "the fixture has lost its variety: {packs} packs, {patches} patches");
}

#[test]
fn patches_of_what_an_incremental_generation_brought_open() {
    let (_, patches, beyond) = open_everything(&fixture("v1-later"), 3);
    assert!(beyond > 0 && patches > beyond, "the fixture has lost its variety: {beyond} of {patches} patches");
}

#[test]
fn fulls_that_were_made_of_an_earlier_chains_packs_open() {
    let fixture = fixture("v1-carried");
    let (packs, patches, _) = open_everything(&fixture, 4);
    let carried: Vec<u64> = fixture.list().into_iter().filter_map(|stored| stored.commit?.carried_bytes).collect();
    assert!(matches!(carried[..], [bytes] if bytes > 50_000), "{carried:?}");
    assert!(packs > 15 && patches > 8, "the fixture has lost its variety: {packs} packs, {patches} patches");
}

/// Restores and verifies every generation; answers with the number of packs, of patches, and of those that refer to what is
/// not in the full.
fn open_everything(fixture: &Fixture, count: u64) -> (usize, usize, usize) {
    let site = "townhall".parse().unwrap();
    let generations = fixture.list();
    assert_eq!(generations.len() as u64, count);
    let (mut packs, mut patches, mut beyond) = (0, 0, 0);
    for stored in &generations {
        assert_eq!(stored.trust, Trust::Signed);
        let origin = fixture.origin(stored, &site);
        let folder = ChainFolder::new(&site, stored.class, &stored.chain).unwrap();
        let manifest = restore::read_manifest(&origin, &folder).unwrap();
        packs += manifest.packs.len();
        patches += manifest.extents.iter().filter(|extent| matches!(extent, Extent::Patch(_))).count();
        let full = manifest.head.full_bytes;
        let later = |extent: &&Extent| matches!(extent, Extent::Patch(patch) if patch.reference >= full);
        beyond += manifest.extents.iter().filter(later).count();

        let to = fixture.world.path(stored.generation.as_str());
        let request = RestoreRequest { to: &to, source: None, paths: None, overwrite: false };
        let report = restore::from_store(&origin, &request, &Progress::default()).unwrap();
        assert!(report.lost.is_empty() && report.bad_packs.is_empty(), "{report:?}");
        assert_eq!(listing(&to), std::fs::read_to_string(expected(fixture, stored)).unwrap(), "{}", stored.generation);
    }
    let progress = Progress::default();
    let verified = verify::verify(fixture.store.as_ref(), &site, &generations, 100, 0, &progress);
    assert_eq!(fixture.runtime.block_on(verified).unwrap().findings, vec![]);
    let beat = fixture.runtime.block_on(catalog::heartbeat(fixture.store.as_ref(), &site, &fixture.public)).unwrap();
    assert_eq!(beat.unwrap().sequence, count);
    (packs, patches, beyond)
}

#[test]
fn instructions_of_every_version_are_known() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1/store/townhall");
    for name in ["RESTORE.txt", "restore.sh"] {
        assert!(is_ours(name, &std::fs::read(store.join(name)).unwrap()), "{name} of version 1 is not known any more");
    }
}

#[test]
fn todays_script_restores_what_version_1_stored() {
    for name in ["v1", "v1-later", "v1-carried"] {
        restore_by_script(&fixture(name));
    }
}

fn restore_by_script(fixture: &Fixture) {
    let script = fixture.world.write("restore.sh", RESTORE_SCRIPT);
    for stored in &fixture.list() {
        let class = if stored.class == agent::generation::Class::Rolling { "rolling" } else { "archive" };
        let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture.name).join("store/townhall");
        let out = fixture.world.path(format!("by-hand-{}", stored.generation));
        let run = std::process::Command::new("sh")
            .arg(&script)
            .arg(fixture.world.path("identity.txt"))
            .arg(store.join(class).join(stored.chain.as_str()))
            .arg(stored.generation.as_str())
            .arg(&out)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let check =
            std::process::Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&out).status();
        assert!(check.unwrap().success());
    }
}

#[test]
fn the_script_leaves_no_folder_in_which_nothing_was_restored() {
    let fixture = fixture("v1");
    let script = fixture.world.write("restore.sh", RESTORE_SCRIPT);
    fixture.world.offsite(["key", "new", "stranger.txt"]).expect(0);
    let stored = fixture.list().remove(0);
    let out = fixture.world.path("by-hand");
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1/store/townhall/rolling");
    let run = std::process::Command::new("sh")
        .arg(&script)
        .arg(fixture.world.path("stranger.txt"))
        .arg(store.join(stored.chain.as_str()))
        .arg(stored.generation.as_str())
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(1) && said.contains("is this the right key?"), "{said}");
    assert!(!out.exists(), "an empty folder was left");
}
