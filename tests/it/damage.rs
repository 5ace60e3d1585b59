//! Damaged, forged and replayed objects: every one is noticed and named, and everything else comes back.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::format::names::PackName;
use agent::generation::Class;
use agent::ids::GenerationId;
use agent::keys::generate_identity;
use agent::restore::RestoreError;
use agent::sign::SiteKey;
use providers::faulty::{Call, Fault, Faulty};
use providers::{ErrorKind, Retry};
use tests::engine::Site;
use tests::machine::Machine;
use tests::tree::{Kind, Tree};
use tests::{Outcome, Rng, office};

/// An office with a full, an incremental with patches, and an archival generation; small packs, so that there are many.
struct Office {
    site: Site,
    full: GenerationId,
    newest: GenerationId,
    archival: GenerationId,
    original: Tree,
}

impl Office {
    /// Frames have 4 MiB, and a pack at least one of them: that many MiB of documents make about a fourth as many packs.
    fn new(seed: u64, mib: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut site = Site::new();
        site.pack_bytes = 256 << 10;
        office::documents(&site.source(), &mut rng, 60, mib << 20);
        let database = site.source().join("database");
        let mut content = rng.bytes(1 << 20);
        std::fs::write(&database, &content).unwrap();
        let full = site.backup(Class::Rolling);
        content[300_000..300_100].copy_from_slice(&rng.bytes(100));
        std::fs::write(&database, &content).unwrap();
        let newest = site.backup(Class::Rolling);
        let archival = site.backup(Class::Archival);
        let original = whole_seconds(Tree::read(&site.source()));
        Self { site, full, newest, archival, original }
    }

    /// Every stored object, by its key.
    fn objects(&self) -> Vec<(String, PathBuf)> {
        let root = self.site.store_folder();
        let files = office::paths(&root).into_iter().filter(|path| path.is_file());
        files.map(|path| (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), path)).collect()
    }

    /// Packs of the full, by order.
    fn packs(&self) -> Vec<(String, PathBuf)> {
        let all = self.objects().into_iter();
        all.filter(|(key, _)| key.contains(self.full.as_str()) && key.contains("/packs/00-")).collect()
    }

    fn document(&self, generation: &GenerationId, ending: &str) -> PathBuf {
        self.site.chain_folder(Class::Rolling, &self.full).join(format!("{generation}.{ending}"))
    }

    /// The program, told to restore `what` to the folder `to`.
    fn restore(&self, what: &str, to: &str, code: i32) -> Outcome {
        self.site.world.offsite(["restore", what, "--to", to, "--identity", "identity.txt"]).expect(code)
    }

    /// Asserts that nothing but the original lies in `to`, and answers with what is missing.
    #[track_caller]
    fn missing_in(&self, to: &Path) -> BTreeSet<String> {
        let restored = to.join("docs");
        if !restored.exists() {
            return BTreeSet::from(["everything".to_owned()]);
        }
        let differences = self.original.differences(&whole_seconds(Tree::read(&restored)));
        let missing = |difference: &String| difference.strip_suffix(" is missing").map(str::to_owned);
        let found: BTreeSet<String> = differences.iter().filter_map(missing).collect();
        assert_eq!(found.len(), differences.len(), "{differences:?}");
        found
    }
}

/// A tree without what only the list of entries holds: parts of seconds, and where holes were.
fn whole_seconds(mut tree: Tree) -> Tree {
    for node in tree.0.values_mut() {
        node.modified.1 = 0;
        if let Kind::File { sparse, .. } = &mut node.kind {
            *sparse = false;
        }
    }
    tree
}

#[track_caller]
fn assert_says(outcome: &Outcome, words: &[&str]) {
    for word in words {
        assert!(outcome.stderr.contains(word) || outcome.stdout.contains(word), "`{word}` is not said\n{outcome}");
    }
}

#[test]
fn one_flipped_bit_anywhere_is_noticed_and_never_restored() {
    let office = Office::new(21, 1);
    let mut rng = Rng::new(22);
    let to = office.site.world.path("restored");
    let mut kinds = BTreeSet::new();
    for (key, path) in office.objects() {
        kinds.insert(key.rsplit_once('/').unwrap().1.split_once('.').unwrap().1.to_owned());
        let good = std::fs::read(&path).unwrap();
        let random: [usize; 3] = std::array::from_fn(|_| rng.below(good.len() as u64) as usize);
        for (round, at) in [0, good.len() - 1].into_iter().chain(random).enumerate() {
            let bit = rng.below(8);
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            std::fs::write(&path, bad).unwrap();
            let report = office.site.verify();
            // A signature is part of the document that it signs.
            let named = report.findings.iter().any(|finding| finding.object == key.trim_end_matches(".minisig"));
            assert!(named, "bit {bit} of byte {at} of {key} was flipped: {:?}", report.findings);
            if round < 2 {
                match office.site.restore(&office.newest, &to) {
                    Ok(report) => assert!(office.missing_in(&to).is_empty() || !report.lost.is_empty(), "{key}"),
                    Err(RestoreError::Target { source, .. }) => panic!("{key}: {source}"),
                    Err(_) => assert!(!to.join("docs").exists(), "{key}"),
                }
                std::fs::remove_dir_all(&to).ok();
            }
        }
        std::fs::write(&path, good).unwrap();
    }
    let all = ["age", "json", "json.minisig", "manifest.age", "packs", "patch.age", "sh", "txt"];
    assert_eq!(kinds, all.map(str::to_owned).into());
    assert_eq!(office.site.verify().findings, vec![]);
}

#[test]
fn a_pack_that_cannot_be_read_is_not_taken_for_a_damaged_one() {
    let mut office = Office::new(29, 1);
    let packs: Vec<_> = office.objects().into_iter().filter(|(key, _)| key.contains("/packs/")).collect();
    let ((damaged, path), (unread, _)) = (&packs[0], packs[1].clone());
    let mut bytes = std::fs::read(path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let about = unread.clone();
    let plan = move |call: &Call<'_>| match call.about == about {
        true => Fault::Refused(ErrorKind::Unavailable, Retry::Never),
        false => Fault::None,
    };
    office.site.store = Arc::new(Faulty::new(Arc::clone(&office.site.store), plan));
    let report = office.site.verify();
    let digest = |key: &str| key.rsplit_once('/').unwrap().1.parse::<PackName>().unwrap().sha256;
    assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
    assert_eq!(report.damaged, [digest(damaged)].into());
    assert_eq!(report.whole, packs[2..].iter().map(|(key, _)| digest(key)).collect());
}

#[test]
fn a_pack_that_is_of_no_use_costs_its_files_and_no_others() {
    let office = Office::new(23, 20);
    let packs = office.packs();
    let (key, path) = &packs[2];
    let good = std::fs::read(path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let swapped = std::fs::read(&packs[3].1).unwrap();
    let damages = [("missing", None), ("truncated", Some(&good[..good.len() / 2])), ("flipped", Some(&flipped[..]))];
    for (name, damaged) in damages.into_iter().chain([("swapped", Some(&swapped[..]))]) {
        match damaged {
            Some(damaged) => std::fs::write(path, damaged).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let outcome = office.restore(office.newest.as_str(), name, 5);
        assert_says(&outcome, &[key, "LOST: docs/", "what to do: "]);
        let missing = office.missing_in(&office.site.world.path(name));
        let said = outcome.stderr.lines().filter(|line| line.starts_with("LOST: ")).count();
        assert!(missing.len() == said && said < 40, "{name}: {missing:?}\n{outcome}");
        assert!(!office.site.world.path(name).join(".offsite-restoring").exists());
        let verified = office.site.world.offsite(["verify"]).expect(5);
        assert_says(&verified, &[key, office.full.as_str(), office.newest.as_str(), "what to do: "]);
        let other = format!("{name}-archival");
        office.restore(office.archival.as_str(), &other, 0);
        assert_eq!(office.missing_in(&office.site.world.path(other)), BTreeSet::new());
    }
}

/// Recipients are public, so whoever can write to the store can seal packs of his own that open and unpack as ours do.
#[test]
fn a_pack_that_a_stranger_sealed_gives_no_file_that_is_not_ours() {
    let office = Office::new(27, 12);
    let (key, path) = &office.packs()[1];
    let good = std::fs::read(path).unwrap();
    let (mut frames, mut content) = (Vec::new(), Vec::with_capacity(64 << 20));
    office.site.identities.open(&good[..]).unwrap().read_to_end(&mut frames).unwrap();
    zstd_safe::decompress(&mut content, &frames).unwrap();
    let replace = |content: &[u8]| {
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        zstd_safe::compress(&mut frame, content, 6).unwrap();
        assert!(frame.len() <= frames.len(), "an object that is longer than ours is not read to its end");
        let recipient = office.site.recipients.iter().next().unwrap();
        std::fs::write(path, recipient.seal(&frame).unwrap()).unwrap();
    };
    let named = |outcome: &Outcome| assert_says(outcome, &[key, "what to do: "]);

    // Whatever it is wrapped in, what comes out is proved file by file; a verification looks at the wrapping.
    replace(&content);
    office.restore(office.newest.as_str(), "same", 0);
    assert_eq!(office.missing_in(&office.site.world.path("same")), BTreeSet::new());
    named(&office.site.world.offsite(["verify"]).expect(5));

    let middle = content.len() / 2;
    content[middle] ^= 1;
    replace(&content);
    let outcome = office.restore(office.newest.as_str(), "other", 5);
    named(&outcome);
    assert_says(&outcome, &["LOST: docs/", "it is not the object that the generation names"]);
    assert_eq!(office.missing_in(&office.site.world.path("other")).len(), 1);
}

#[test]
fn without_the_list_of_what_is_in_it_the_rest_of_a_generation_comes_back() {
    let office = Office::new(24, 20);
    let packs = office.packs();
    let (key, path) = packs.last().unwrap();
    std::fs::remove_file(path).unwrap();
    let outcome = office.restore(office.full.as_str(), "restored", 5);
    assert_says(&outcome, &[key, "no name any more", "what to do: "]);
    let restored = whole_seconds(Tree::read(&office.site.world.path("restored/docs")));
    let mut original = office.original;
    // The database was another one then.
    let database = Path::new("database");
    assert_ne!(
        original.0.remove(database).map(|node| node.kind),
        restored.0.get(database).map(|node| node.kind.clone())
    );
    let differences = original.differences(&restored);
    let missing = differences.iter().filter(|difference| difference.ends_with(" is missing")).count();
    let other = differences.iter().filter(|difference| !difference.ends_with(" is missing")).collect::<Vec<_>>();
    assert!(missing < 30 && restored.0.len() > 25, "{missing} of {} are missing", original.0.len());
    assert!(other.iter().all(|difference| difference.starts_with("\"database\"")), "{other:?}");
}

#[test]
fn a_stranger_s_key_opens_nothing_and_is_told_so() {
    let office = Office::new(25, 1);
    let stranger = generate_identity("2026-11-22T12:00:00Z".parse().unwrap());
    let file = office.site.world.write("stranger.txt", age::secrecy::ExposeSecret::expose_secret(&stranger.file));
    let arguments = ["restore", "latest", "--to", "restored", "--identity", file.to_str().unwrap()];
    let outcome = office.site.world.offsite(arguments).expect(1);
    assert_says(&outcome, &[".manifest.age", "sealed to others", "what to do: "]);
    assert!(!office.site.world.path("restored/docs").exists());
}

#[test]
fn a_generation_without_its_signature_does_not_exist() {
    let office = Office::new(26, 1);
    std::fs::remove_file(office.document(&office.full, "json.minisig")).unwrap();
    let listed = office.site.world.offsite(["list", "--from", "nas"]).expect(0);
    assert!(!listed.stdout.contains(&format!("\n{}", office.full)), "{listed}");
    let outcome = office.restore(office.full.as_str(), "restored", 1);
    assert_says(&outcome, &[office.full.as_str(), "there is no generation", "offsite list"]);
    // The next one names it.
    assert_says(&office.site.world.offsite(["verify"]).expect(5), &[office.full.as_str(), "removed"]);
}

#[test]
fn a_forged_generation_is_refused_by_every_verb() {
    let office = Office::new(27, 1);
    let document = std::fs::read(office.document(&office.newest, "json")).unwrap();
    let forged = SiteKey::generate().unwrap().sign(&document, "offsite").unwrap();
    std::fs::write(office.document(&office.newest, "json.minisig"), forged).unwrap();
    let why = "its signature is not this site's";
    for verb in ["list", "verify"] {
        assert_says(&office.site.world.offsite([verb]).expect(5), &[office.newest.as_str(), why]);
    }
    let outcome = office.restore(office.newest.as_str(), "restored", 5);
    assert_says(&outcome, &[office.newest.as_str(), why, "what to do: "]);
    assert!(!office.site.world.path("restored").exists());
    office.restore(office.archival.as_str(), "other", 0);
}

#[test]
fn an_old_generation_under_a_new_name_is_refused() {
    let office = Office::new(28, 1);
    for ending in ["json", "json.minisig", "packs", "manifest.age"] {
        std::fs::copy(office.document(&office.full, ending), office.document(&office.newest, ending)).unwrap();
    }
    let why = "another generation under a false name";
    assert_says(&office.site.world.offsite(["list"]).expect(5), &[office.newest.as_str(), why]);
    assert_says(&office.restore(office.newest.as_str(), "restored", 5), &[office.newest.as_str(), why, "what to do: "]);
    assert!(!office.site.world.path("restored").exists());
    // A name that there never was.
    let invented: GenerationId = "20991231T235959Z-ffff".parse().unwrap();
    for ending in ["json", "json.minisig", "packs", "manifest.age"] {
        std::fs::copy(office.document(&office.full, ending), office.document(&invented, ending)).unwrap();
    }
    office.restore("latest", "latest", 0);
    assert_eq!(office.missing_in(&office.site.world.path("latest")), BTreeSet::new());
}

#[test]
fn an_older_generation_is_not_taken_for_the_newest_one() {
    let office = Office::new(29, 1);
    std::fs::remove_dir_all(office.site.chain_folder(Class::Archival, &office.archival)).unwrap();
    std::fs::remove_file(office.document(&office.newest, "json")).unwrap();
    std::fs::remove_file(office.document(&office.newest, "json.minisig")).unwrap();
    for verb in ["list", "verify"] {
        let outcome = office.site.world.offsite([verb]).expect(5);
        assert_says(&outcome, &[office.archival.as_str(), "newer generations were removed"]);
    }
    let outcome = office.restore("latest", "restored", 5);
    assert_says(&outcome, &[office.archival.as_str(), "what to do: ", &format!("offsite restore {}", office.full)]);
    assert!(!office.site.world.path("restored").exists());
    // Whoever names it gets it.
    office.restore(office.full.as_str(), "by-name", 0);
}

#[test]
fn a_local_generation_that_cannot_be_read_costs_nothing_but_time() {
    let machine = Machine::new();
    machine.world.write("source/letter", "of the first day");
    machine.backup(&[]).expect(0);
    let id = machine.local().pop_first().unwrap();
    let folder = machine.world.path("staging").join(id.as_str());
    let document = folder.join("generation.json");
    office::set_mode(&folder, 0o700);
    office::set_mode(&document, 0o600);
    std::fs::write(&document, "{").unwrap();
    for (day, is_newest) in [("of the second day", true), ("of the third day", false)] {
        machine.world.write("source/letter", day);
        let outcome = machine.backup(&[]).expect(0);
        assert_eq!(outcome.stderr.contains("cannot be read and is passed over"), is_newest, "{outcome}");
        let newest = machine.list().pop().unwrap().generation;
        Tree::read(&machine.source()).assert_equals(&machine.restored(&newest));
    }
    assert!(machine.local().contains(&id));
}
