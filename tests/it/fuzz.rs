//! Every reader of foreign bytes takes anything: the kept corpus, and some thousands of changes to it.

use std::path::Path;
use std::time::{Duration, Instant};

use tests::Rng;
use tests::fuzz::{READERS, mutate};

/// Changed inputs for each reader. By hand, `OFFSITE_FUZZ_SECONDS` says how long each is run instead.
const ROUNDS: u64 = 3000;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn readers_of_foreign_bytes_take_anything() {
    let seconds = std::env::var("OFFSITE_FUZZ_SECONDS").ok().map(|text| Duration::from_secs(text.parse().unwrap()));
    for (name, read) in READERS {
        let corpus = corpus(name);
        corpus.iter().for_each(|bytes| read(bytes));
        let begun = Instant::now();
        let enough = |round| seconds.map_or(round >= ROUNDS, |seconds| begun.elapsed() >= seconds);
        for seed in (0..).take_while(|round| !enough(*round)) {
            let bytes = mutate(&mut Rng::new(seed), &corpus);
            let caught = std::panic::catch_unwind(|| read(&bytes));
            assert!(
                caught.is_ok(),
                "the reader of {name} cannot take seed {seed}: {:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}
