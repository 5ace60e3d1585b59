//! What is large, many, deep, odd or empty: all of it comes back, with memory that does not grow with it.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use agent::catalog::Trust;
use agent::generation::Class;
use tests::engine::Site;
use tests::tree::Tree;
use tests::{Outcome, Rng, World, office};

/// The most memory that the program may take, in KiB.
const PEAK_KIB_MAX: u64 = 256 << 10;
/// More than the 8 GiB that fit into a tar header without extension.
const HUGE_BYTES: u64 = (8 << 30) + (1 << 20) + 1;
/// Where the huge file has content: at both ends, and around 4 GiB.
const HUGE_CONTENT: [u64; 3] = [0, (4 << 30) - 3000, HUGE_BYTES - 5000];
const SMALL_FILES: u64 = 100_000;

fn make_huge(path: &Path) {
    let file = File::create(path).unwrap();
    for (at, seed) in HUGE_CONTENT.into_iter().zip(1..) {
        file.write_all_at(&Rng::new(seed).bytes(5000), at).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), HUGE_BYTES);
}

/// That the file is the same, as far as can be told without reading 8 GiB of zeros: its digest is for the program to check.
#[track_caller]
fn assert_huge(path: &Path) {
    let file = File::open(path).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), HUGE_BYTES);
    assert!(metadata.blocks() * 512 < 1 << 20, "it has no holes any more: {} blocks", metadata.blocks());
    for (at, seed) in HUGE_CONTENT.into_iter().zip(1..) {
        let mut content = vec![0; 5000];
        file.read_exact_at(&mut content, at).unwrap();
        assert!(content == Rng::new(seed).bytes(5000), "the content at {at} is another");
    }
}

fn make_many(root: &Path) {
    for folder in 0..SMALL_FILES / 500 {
        let folder = root.join(format!("{folder:03}"));
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..500 {
            std::fs::write(folder.join(format!("{number}")), format!("{number}\n").repeat(number % 3)).unwrap();
        }
    }
}

/// An office with these sources, which lie in the world, and a directory as its store.
fn office_with(world: &World, sources: &[&str]) {
    world.make_folder("usb");
    let path = |name: &str| world.path(name).display().to_string();
    let (usb, key, second, staging, state) = (path("usb"), path("key"), path("second"), path("staging"), path("state"));
    let mut init = vec!["init", "--site", "office", "--store", &usb, "--new-identity", &key];
    init.extend(["--new-identity", &second, "--staging", &staging, "--state", &state]);
    let sources: Vec<String> = sources.iter().map(|source| path(source)).collect();
    init.extend(sources.iter().flat_map(|source| ["--source", source]));
    world.offsite(init).expect(0);
}

fn run(world: &World, arguments: &[&str]) -> Outcome {
    let outcome = world.offsite(arguments).expect(0);
    assert!((1..PEAK_KIB_MAX).contains(&outcome.peak_kib), "{} KiB\n{outcome}", outcome.peak_kib);
    outcome
}

#[test]
fn what_is_huge_deep_odd_or_empty_comes_back_in_little_memory() {
    let world = World::in_memory();
    make_huge(&world.make_folder("huge").join("image"));
    let odd = world.make_folder("odd");
    office::deep(&odd.join("deep"), 200);
    office::zoo(&odd, &mut Rng::new(51));
    world.make_folder("empty");
    office_with(&world, &["huge", "odd", "empty"]);

    run(&world, &["backup"]);
    run(&world, &["verify"]);
    run(&world, &["restore", "latest", "--to", "back", "--identity", "key"]);
    assert_huge(&world.path("back/huge/image"));
    for source in ["odd", "empty"] {
        Tree::read(&world.path(source)).without_special().assert_equals(&Tree::read(&world.path("back").join(source)));
    }
    // Nothing has changed, so nothing is read again: 8 GiB would show.
    run(&world, &["backup"]);
}

#[test]
fn what_is_many_comes_back_in_little_memory() {
    let world = World::in_memory();
    make_many(&world.make_folder("many"));
    office_with(&world, &["many"]);
    run(&world, &["backup"]);
    run(&world, &["restore", "latest", "--to", "back", "--identity", "key"]);
    // That modes and times come back is shown by fewer files; here it is names and contents.
    let equal = Command::new("diff").arg("-r").args([world.path("many"), world.path("back/many")]).status();
    assert!(equal.unwrap().success());
}

#[test]
fn thousands_of_generations_are_listed() {
    const MANY: usize = 3000;
    let site = Site::new();
    std::fs::write(site.source().join("file"), "content").unwrap();
    let real = site.backup(Class::Rolling);
    let chain = site.chain_folder(Class::Rolling, &real);
    for number in 0..MANY {
        let name = format!("20200101T000000Z-{number:04x}");
        let folder = chain.with_file_name(&name);
        std::fs::create_dir(&folder).unwrap();
        for ending in ["json", "json.minisig"] {
            std::fs::copy(chain.join(format!("{real}.{ending}")), folder.join(format!("{name}.{ending}"))).unwrap();
        }
    }
    // Copies under other names are no generations of the site's, but each is read and judged.
    let listed = site.list();
    assert_eq!(listed.len(), MANY + 1);
    let signed: Vec<_> = listed.iter().filter(|stored| stored.trust == Trust::Signed).collect();
    assert!(matches!(signed.as_slice(), [only] if only.generation == real), "{signed:?}");
}
