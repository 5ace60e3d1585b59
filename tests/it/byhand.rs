//! Restoring by hand: the commands of `RESTORE.txt` as they stand there, where nothing is installed but `age`, `zstd`,
//! `tar`, `minisign` and what POSIX and coreutils have.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agent::format::manifest::Extent;
use agent::generation::Class;
use agent::ids::GenerationId;
use agent::keys::generate_identity;
use tests::bare::BareMachine;
use tests::engine::Site;
use tests::tree::{Kind, Tree};
use tests::{Rng, office};

/// A person's new folder: the copy's folder, `restore.sh` and `key.txt` side by side, as `RESTORE.txt` says.
struct Person {
    folder: PathBuf,
    machine: BareMachine,
    chain: String,
    commands: Commands,
}

/// The commands in `RESTORE.txt`, with names in place of CHAIN, GENERATION, OUT and `RW...`.
struct Commands {
    packs: String,
    signature: String,
    documents: [String; 2],
    folder: String,
    pipe: String,
    script: String,
    sums: String,
}

impl Person {
    fn new(site: &Site, class: Class, chain: &GenerationId, generation: &GenerationId) -> Self {
        let folder = site.world.make_folder(format!("person-{generation}"));
        let machine = BareMachine::new(site.world.make_folder("tools"), &["minisign"]);
        let place = site.store_folder().join(site.name.as_str());
        copy_folder(&site.chain_folder(class, chain), &folder.join(chain.as_str()));
        std::fs::copy(place.join("restore.sh"), folder.join("restore.sh")).unwrap();
        std::fs::copy(site.world.path("identity.txt"), folder.join("key.txt")).unwrap();
        let text = std::fs::read_to_string(place.join("RESTORE.txt")).unwrap();
        let names = [("CHAIN", chain.as_str()), ("GENERATION", generation.as_str()), ("OUT", "back")];
        let key = site.key.public().to_string();
        let commands = Commands::of(&text, &[&names[..], &[("RW...", &key)]].concat());
        Self { folder, machine, chain: chain.to_string(), commands }
    }

    fn run(&self, command: &str) -> Output {
        self.machine.shell(command, &self.folder).output().unwrap()
    }

    #[track_caller]
    fn must(&self, command: &str) -> Output {
        let output = self.run(command);
        assert!(output.status.success(), "{command}\nfailed: {}", said(&output));
        output
    }

    #[track_caller]
    fn must_fail(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(!output.status.success(), "{command}\ndid not fail: {}", said(&output));
        said(&output)
    }

    /// Everything that `RESTORE.txt` says before and after restoring.
    #[track_caller]
    fn check(&self) {
        let packs = said(&self.must(&self.commands.packs));
        assert!(packs.lines().count() > 1 && packs.lines().all(|line| line.ends_with(": OK")), "{packs}");
        assert!(said(&self.must(&self.commands.signature)).contains("verified"));
        for command in &self.commands.documents {
            assert_eq!(said(&self.must(command)).lines().count(), 1);
        }
    }

    #[track_caller]
    fn check_restored(&self, original: &Tree) {
        assert_eq!(said(&self.must(&self.commands.sums)), "");
        original.assert_equals(&by_tar(Tree::read(&self.restored().join("docs"))));
    }

    fn restored(&self) -> PathBuf {
        self.folder.join("back")
    }

    /// What somebody can do who may write to the store and has the public half of the key: a pack of a tar stream of his own.
    fn add_pack(&self, number: &str) {
        let theirs = "mkdir evil && echo paid > evil/ledger && \
                      tar -c evil | zstd -q | age -r $(age-keygen -y key.txt) -o added && \
                      mv added $0/packs/$1-$(sha256sum added | head -c 64).age";
        let status = Command::new("sh").args(["-c", theirs, &self.chain, number]).current_dir(&self.folder).status();
        assert!(status.unwrap().success(), "{theirs}");
    }

    /// The packs of the copy, by name.
    fn packs(&self) -> Vec<PathBuf> {
        office::paths(&self.folder.join(&self.chain).join("packs"))
    }
}

impl Commands {
    /// Commands are the indented lines from section 3 on. One more or less, and this has to be told what it is for.
    fn of(text: &str, names: &[(&str, &str)]) -> Self {
        let (_, from_3) = text.split_once("\n3. ").unwrap();
        let commands: Vec<String> = from_3
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .map(|line| names.iter().fold(line.to_owned(), |line, (word, name)| line.replace(word, name)))
            .collect();
        let found: [String; 8] = commands.try_into().unwrap();
        let [packs, signature, list, manifest, script, folder, pipe, sums] = found;
        Self { packs, signature, documents: [list, manifest], folder, pipe, script, sums }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A tree as far as a tar stream without extensions keeps it: whole seconds, and no holes.
fn by_tar(mut tree: Tree) -> Tree {
    for node in tree.0.values_mut() {
        node.modified.1 = 0;
        if let Kind::File { sparse, .. } = &mut node.kind {
            *sparse = false;
        }
    }
    tree
}

fn original(site: &Site) -> Tree {
    by_tar(Tree::read(&site.source()).without_special())
}

/// A site with one of everything, and a database whose pages change.
fn busy_site(rng: &mut Rng) -> Site {
    let mut site = Site::new();
    site.pack_bytes = 1 << 20;
    office::zoo(&site.source(), rng);
    std::fs::write(site.source().join("database"), rng.bytes(4 << 20)).unwrap();
    site
}

fn change_pages(site: &Site, rng: &mut Rng) {
    let path = site.source().join("database");
    let mut content = std::fs::read(&path).unwrap();
    for at in (0..content.len()).step_by(1 << 19) {
        content[at + 1000..at + 1100].copy_from_slice(&rng.bytes(100));
    }
    content.extend_from_slice(&rng.bytes(1 << 20));
    std::fs::write(path, content).unwrap();
}

#[test]
fn an_archival_generation_comes_back_by_one_pipe() {
    let site = busy_site(&mut Rng::new(11));
    let generation = site.backup(Class::Archival);
    let person = Person::new(&site, Class::Archival, &generation, &generation);
    assert!(person.packs().len() > 3, "one pack proves no order");
    person.check();
    person.add_pack("00-0000");
    person.must(&person.commands.folder);
    person.must(&person.commands.pipe);
    person.check_restored(&original(&site));
}

#[test]
fn every_generation_of_a_chain_comes_back_by_the_script() {
    let mut rng = Rng::new(12);
    let site = busy_site(&mut rng);
    let mut days = Vec::new();
    for _ in 0..3 {
        days.push((site.backup(Class::Rolling), original(&site)));
        office::one_day(&site.source(), &mut rng);
        change_pages(&site, &mut rng);
    }
    let chain = days[0].0.clone();
    let manifest = site.manifest(&days[2].0);
    let patches = manifest.extents.iter().filter(|extent| matches!(extent, Extent::Patch(_))).count();
    let brought_by = |number| manifest.packs.iter().filter(|pack| pack.name.number == number).count();
    assert!(patches > 4 && brought_by(0) > 3 && brought_by(1) > 0 && brought_by(2) > 1, "{manifest:?}");
    let full = manifest.head.full_bytes;
    let beyond = |extent: &Extent| matches!(extent, Extent::Patch(patch) if patch.reference >= full);
    assert!(manifest.extents.iter().any(beyond), "nothing refers to what an increment brought: {manifest:?}");
    for (generation, original) in &days {
        let person = Person::new(&site, Class::Rolling, &chain, generation);
        person.check();
        person.must(&person.commands.script);
        person.check_restored(original);
        assert!(!person.restored().join(".restoring").exists());
    }
}

#[test]
fn a_full_that_was_made_in_the_store_and_what_builds_on_it_come_back_by_the_script() {
    let mut rng = Rng::new(15);
    let mut site = busy_site(&mut rng);
    site.chain_generations = 2;
    let mut days = Vec::new();
    for _ in 0..4 {
        days.push((site.backup(Class::Rolling), original(&site)));
        change_pages(&site, &mut rng);
    }
    let chain = days[2].0.clone();
    for (number, (generation, original)) in (0..).zip(&days[2..]) {
        let manifest = site.manifest(generation);
        assert_eq!((&manifest.head.chain, manifest.head.number, manifest.head.full_bytes), (&chain, number, 0));
        assert!(manifest.extents.iter().any(|extent| matches!(extent, Extent::Patch(_))), "{manifest:?}");
        let person = Person::new(&site, Class::Rolling, &chain, generation);
        person.check();
        // What tells a person that the pipe is not for it.
        let said =
            std::fs::read_to_string(person.folder.join(&person.chain).join(format!("{generation}.json"))).unwrap();
        assert_eq!(said.lines().any(|line| line.contains("\"carried_bytes\"")), number == 0, "{said}");
        person.must(&person.commands.script);
        person.check_restored(original);
    }
}

#[test]
fn a_wrong_key_is_said_to_be_one() {
    let site = busy_site(&mut Rng::new(13));
    let generation = site.backup(Class::Rolling);
    let person = Person::new(&site, Class::Rolling, &generation, &generation);
    let other = generate_identity("2026-11-22T12:00:00Z".parse().unwrap());
    let right = std::fs::read(person.folder.join("key.txt")).unwrap();
    let wrong = age::secrecy::ExposeSecret::expose_secret(&other.file);
    std::fs::write(person.folder.join("key.txt"), wrong).unwrap();
    person.must(&person.commands.folder);
    person.must_fail(&person.commands.pipe);
    std::fs::remove_dir(person.restored()).unwrap();
    let complaint = person.must_fail(&person.commands.script);
    assert!(complaint.contains("is this the right key?") && !complaint.contains("Restored"), "{complaint}");
    // The next try is not refused because of what the first left.
    std::fs::write(person.folder.join("key.txt"), right).unwrap();
    person.must(&person.commands.script);
    person.check_restored(&original(&site));
    let complaint = person.must_fail(&person.commands.script);
    assert!(complaint.contains("back exists already"), "{complaint}");
}

#[test]
fn damage_never_passes_for_success() {
    let mut rng = Rng::new(14);
    let site = busy_site(&mut rng);
    let full = site.backup(Class::Rolling);
    change_pages(&site, &mut rng);
    let generation = site.backup(Class::Rolling);
    let person = Person::new(&site, Class::Rolling, &full, &generation);
    let chain = person.folder.join(full.as_str());
    let named = std::fs::read_to_string(chain.join(format!("{generation}.packs"))).unwrap();
    let mut objects = person.packs();
    objects.retain(|pack| named.contains(pack.file_name().unwrap().to_str().unwrap()));
    let patches = objects.iter().position(|pack| pack.to_str().unwrap().ends_with(".patch.age")).unwrap();
    objects.swap(1, patches);
    objects.truncate(2);
    objects.push(chain.join(format!("{generation}.manifest.age")));
    for object in objects {
        let name = object.file_name().unwrap().to_str().unwrap().to_owned();
        let good = std::fs::read(&object).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() * 2 / 3] ^= 4;
        for damaged in [&flipped[..], &good[..good.len() / 2], b""] {
            std::fs::write(&object, damaged).unwrap();
            let complaint = person.must_fail(&person.commands.script);
            assert!(!complaint.contains("Restored"), "{name}: {complaint}");
            let is_pack = name.ends_with(".age") && !name.contains("manifest");
            assert!(complaint.contains(if is_pack { &name } else { "the manifest" }), "{name}: {complaint}");
            // What is left of it is not taken for the whole.
            assert_eq!(complaint.contains("NOT ALL OF IT"), person.restored().exists(), "{name}: {complaint}");
            let check = if is_pack { &person.commands.packs } else { &person.commands.documents[1] };
            let complaint = person.must_fail(check);
            assert!(!is_pack || complaint.contains(&format!("{name}: FAILED")), "{complaint}");
            if person.restored().exists() {
                std::fs::remove_dir_all(person.restored()).unwrap();
            }
        }
        std::fs::write(&object, good).unwrap();
    }
    person.must(&person.commands.script);
    // Somebody else's document, though it is well formed.
    let document = chain.join(format!("{generation}.json"));
    let text = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, text.replace("\"exact\"", "\"sequential\"")).unwrap();
    person.must_fail(&person.commands.signature);
}

/// Sections 1 and 3 of `RESTORE.txt` with nothing but the folder as a browser shows it: which copies there are, of when, and
/// which of them are whole.
#[test]
fn every_copy_is_seen_with_its_date_and_checked_without_a_key() {
    let mut rng = Rng::new(15);
    let mut site = busy_site(&mut rng);
    site.chain_generations = 3;
    let mut made = Vec::new();
    for night in 0..5 {
        let class = if night == 3 { Class::Archival } else { Class::Rolling };
        made.push(site.backup(class));
        change_pages(&site, &mut rng);
    }
    let place = site.store_folder().join(site.name.as_str());
    let shell = |command: &str, folder: &Path| {
        let output = Command::new("sh").args(["-c", command]).current_dir(folder).output().unwrap();
        (output.status.success(), said(&output))
    };
    let listed = || {
        let (_, text) = shell("ls rolling/*/*.json.minisig archive/*/*.json.minisig", &place);
        let mut copies: Vec<(GenerationId, PathBuf)> = text
            .lines()
            .map(|line| (line.rsplit_once('/').unwrap(), line))
            .map(|((folder, name), _)| {
                (name.strip_suffix(".json.minisig").unwrap().parse().unwrap(), place.join(folder))
            })
            .collect();
        copies.sort();
        copies
    };
    let copies = listed();
    assert_eq!(copies.iter().map(|(id, _)| id).collect::<Vec<_>>(), made.iter().collect::<Vec<_>>());
    let folders: std::collections::BTreeSet<_> = copies.iter().map(|(_, folder)| folder).collect();
    assert_eq!(folders.len(), 3, "two chains and an archived copy");
    for (id, folder) in &copies {
        // `20261122T233004Z`: the time is in the name, and the document says the same.
        let (day, time) = id.as_str()[..15].split_once('T').unwrap();
        let day = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
        let name = format!("{day}T{}:{}:{}Z", &time[..2], &time[2..4], &time[4..]).parse::<jiff::Timestamp>().unwrap();
        let (_, cut) = shell(&format!("grep '\"cut\"' {id}.json"), folder);
        let cut: jiff::Timestamp = cut.split('"').nth(3).unwrap().parse().unwrap();
        assert!(name <= cut && cut.duration_since(name).as_mins() < 30, "{id}: {cut}");
        let (whole, said) = shell(&format!("sha256sum -c {id}.packs"), folder);
        assert!(whole && said.lines().all(|line| line.ends_with(": OK")), "{said}");
    }

    // One byte of a pack that the second night brought: exactly the copies that need it are not whole.
    let pack =
        office::paths(&copies[1].1.join("packs")).into_iter().find(|path| path.to_str().unwrap().contains("/01-"));
    let pack = pack.unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    for (id, folder) in listed() {
        let list = std::fs::read_to_string(folder.join(format!("{id}.packs"))).unwrap();
        let needs_it = folder == copies[1].1 && list.contains(pack.file_name().unwrap().to_str().unwrap());
        assert_eq!(shell(&format!("sha256sum -c {id}.packs"), &folder).0, !needs_it, "{id}");
        assert!(id != made[1] || needs_it);
    }
    // A copy without its signature is none.
    std::fs::remove_file(copies[4].1.join(format!("{}.json.minisig", made[4]))).unwrap();
    assert_eq!(listed().len(), 4);
}
