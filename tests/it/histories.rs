//! Whatever a folder holds and whatever becomes of it from day to day: every generation comes back as it was.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use agent::generation::Class;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tests::engine::Site;
use tests::tree::{Tree, path_of};
use tests::{Rng, office};

/// How many histories; by hand, `OFFSITE_HISTORIES` may ask for more.
const CASES: u32 = 10;
/// Some of the sizes at which something begins or ends: tar blocks, chunks, holes.
const SIZES: [usize; 10] = [0, 1, 511, 512, 513, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2_500_000];
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c d", b"\xe9\n", b"...", b"-x"];

/// What is done to one path. What is not possible there is left undone.
#[derive(Clone, Debug)]
enum Deed {
    Write {
        size: usize,
        seed: u64,
        random: bool,
    },
    /// A few bytes somewhere in a file.
    Change {
        at: u64,
        seed: u64,
    },
    Append {
        seed: u64,
    },
    Cut {
        to: u64,
    },
    Dig {
        bytes: u64,
    },
    Remove,
    Folder,
    Rename(PathBuf),
    HardLink(PathBuf),
    Symlink(PathBuf),
    Mode(u32),
    Time(i64, i64),
}

/// One day: what is done, and whether the generation at its end is an archival one.
type Day = (Vec<(PathBuf, Deed)>, bool);

fn path() -> impl Strategy<Value = PathBuf> {
    vec(0..NAMES.len(), 1..4).prop_map(|names| names.into_iter().map(|name| path_of(NAMES[name])).collect())
}

fn deed() -> impl Strategy<Value = Deed> {
    let size = prop_oneof![(0..SIZES.len()).prop_map(|size| SIZES[size]), 0..100_000_usize];
    let mode = (0..4_usize).prop_map(|mode| Deed::Mode([0o600, 0o644, 0o755, 0o700][mode]));
    prop_oneof![
        6 => (size, any::<u64>(), any::<bool>()).prop_map(|(size, seed, random)| Deed::Write { size, seed, random }),
        3 => (any::<u64>(), any::<u64>()).prop_map(|(at, seed)| Deed::Change { at, seed }),
        1 => any::<u64>().prop_map(|seed| Deed::Append { seed }),
        1 => any::<u64>().prop_map(|to| Deed::Cut { to }),
        1 => (0..5_000_000_u64).prop_map(|bytes| Deed::Dig { bytes }),
        2 => Just(Deed::Remove),
        1 => Just(Deed::Folder),
        2 => path().prop_map(Deed::Rename),
        1 => path().prop_map(Deed::HardLink),
        1 => path().prop_map(Deed::Symlink),
        1 => mode,
        1 => (-2_000_000_000..8_000_000_000_i64, 0..1_000_000_000_i64).prop_map(|(s, ns)| Deed::Time(s, ns)),
    ]
}

/// Does what can be done: a name may be taken, a folder full, a file missing.
fn act(root: &Path, path: &Path, deed: &Deed) -> std::io::Result<()> {
    let place = root.join(path);
    let open = || File::options().write(true).open(&place);
    match deed {
        Deed::Write { size, seed, random } => {
            std::fs::create_dir_all(place.parent().unwrap())?;
            let mut rng = Rng::new(*seed);
            std::fs::write(&place, if *random { rng.bytes(*size) } else { rng.text(*size) })
        }
        Deed::Change { at, seed } => {
            let file = open()?;
            let bytes = Rng::new(*seed).bytes(50);
            file.write_all_at(&bytes, at % file.metadata()?.len().max(1))
        }
        Deed::Append { seed } => {
            let file = open()?;
            file.write_all_at(&Rng::new(*seed).text(3000), file.metadata()?.len())
        }
        Deed::Cut { to } => {
            let file = open()?;
            file.set_len(to % file.metadata()?.len().max(1))
        }
        Deed::Dig { bytes } => {
            let file = open()?;
            file.set_len(file.metadata()?.len() + bytes)
        }
        Deed::Remove if place.symlink_metadata()?.is_dir() => std::fs::remove_dir_all(place),
        Deed::Remove => std::fs::remove_file(place),
        Deed::Folder => std::fs::create_dir_all(place),
        Deed::Rename(to) => std::fs::rename(place, root.join(to)),
        Deed::HardLink(to) => std::fs::hard_link(place, root.join(to)),
        Deed::Symlink(to) => symlink(to, place),
        // The permissions of a link are nobody's, and a folder must stay open to whoever is not root.
        Deed::Mode(mode) if place.symlink_metadata()?.is_file() => {
            office::set_mode(&place, *mode);
            Ok(())
        }
        Deed::Time(seconds, nanoseconds) if place.symlink_metadata().is_ok() => {
            office::set_modified(&place, (*seconds, *nanoseconds));
            Ok(())
        }
        Deed::Mode(_) | Deed::Time(..) => Ok(()),
    }
}

#[test]
fn every_day_of_any_history_comes_back_as_it_was() {
    let cases = std::env::var("OFFSITE_HISTORIES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let histories = vec((vec((path(), deed()), 1..25), proptest::bool::weighted(0.2)), 1..5);
    runner
        .run(&(histories, 1..4_u32), |(history, chain_generations): (Vec<Day>, u32)| {
            live(&history, chain_generations);
            Ok(())
        })
        .unwrap();
}

fn live(history: &[Day], chain_generations: u32) {
    let mut site = Site::in_memory();
    site.chain_generations = chain_generations;
    let mut days = Vec::new();
    for (deeds, archival) in history {
        for (path, deed) in deeds {
            // What is not possible is left undone.
            act(&site.source(), path, deed).ok();
        }
        let class = if *archival { Class::Archival } else { Class::Rolling };
        days.push((site.backup(class), Tree::read(&site.source())));
    }
    for (number, (generation, original)) in days.iter().enumerate() {
        let to = site.world.path(format!("day-{number}"));
        let report = site.restore(generation, &to).unwrap();
        assert_eq!((report.lost, report.bad_packs.len()), (vec![], 0), "day {number}");
        original.assert_equals(&Tree::read(&to.join("docs")));
    }
}
