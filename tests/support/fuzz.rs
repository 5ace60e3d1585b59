//! What reads bytes that others may have written, each reader as a function that takes anything.
//!
//! A reader must never panic, and what it accepts must come back the same when it is written and read again. The test
//! suite runs every reader for a moment, from the corpus in `fixtures/fuzz`; `cargo fuzz` runs them for as long as one
//! likes (see `tests/fuzz`).

use std::path::Path;

use agent::config::Config;
use agent::entry::EntryPath;
use agent::format::commit::Commit;
use agent::format::entries::EntryLine;
use agent::format::manifest::Manifest;
use agent::format::names::PackName;
use agent::format::tar;
use agent::keys::Recipients;
use agent::patch::apply_patch;
use agent::restore::unpack_foreign;
use agent::sign::SitePublicKey;
use agent::verify::parse_list;

use crate::Rng;

/// Longest content that is asked of a frame or a patch.
const CONTENT_BYTES_MAX: usize = 1 << 20;

/// A reader, and the name of its corpus.
pub type Reader = (&'static str, fn(&[u8]));

/// All of them.
pub const READERS: [Reader; 9] = [
    ("manifest", manifest),
    ("document", document),
    ("entries", entries),
    ("header", header),
    ("packs", packs),
    ("frames", frames),
    ("config", config),
    ("multistatus", multistatus),
    ("signature", signature),
];

/// One of the corpus, changed in some places: bits, bytes, numbers, lines, and pieces of another one.
pub fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    const NUMBERS: [&[u8]; 6] = [b"0", b"-1", b"18446744073709551615", b"4294967296", b"1e999", b"\xff\xff\xff\xff"];
    let mut bytes = rng.pick(corpus).clone();
    for _ in 0..rng.between(1, 4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let until = (at + rng.below(64) as usize).min(bytes.len());
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => drop(bytes.splice(at..at, bytes[at..until].to_vec())),
            3 => drop(bytes.splice(at..at, rng.pick(&NUMBERS).to_vec())),
            4 => {
                let digits = |byte: &u8| byte.is_ascii_digit();
                let number = at + bytes[at..].iter().take_while(|byte| !digits(byte)).count();
                let end = number + bytes[number..].iter().take_while(|byte| digits(byte)).count();
                bytes.splice(number..end, rng.pick(&NUMBERS).to_vec());
            }
            5 => {
                let other = rng.pick(corpus);
                let from = rng.below(other.len() as u64 + 1) as usize;
                bytes.splice(at..until, other[from..(from + 64).min(other.len())].to_vec());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    bytes
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
    }
}

fn document(bytes: &[u8]) {
    if let Ok(commit) = Commit::decode(bytes) {
        assert_eq!(Commit::decode(&commit.encode().unwrap()).unwrap(), commit);
    }
}

fn entries(bytes: &[u8]) {
    if let Ok(line) = EntryLine::decode(bytes) {
        assert_eq!(EntryLine::decode(&line.encode().unwrap()).unwrap(), line);
    }
    if let Ok(path) = EntryPath::new(bytes) {
        assert!(path.segments().all(|name| !name.is_empty() && name != b"." && name != b".."), "{path:?}");
    }
}

fn header(bytes: &[u8]) {
    if let Some((entry, len)) = tar::read::entry(bytes) {
        assert_eq!(tar::header(&entry), bytes[..len as usize]);
    }
}

fn packs(bytes: &[u8]) {
    for name in parse_list(bytes).unwrap_or_default() {
        assert_eq!(name.to_string().parse::<PackName>().unwrap(), name);
    }
}

/// The first two bytes are the length that is expected, in units of 16; the rest are the frames.
fn frames(bytes: &[u8]) {
    let [low, high, frames @ ..] = bytes else { return };
    let len = (usize::from(u16::from_le_bytes([*low, *high])) * 16).min(CONTENT_BYTES_MAX);
    if let Ok(unpacked) = unpack_foreign(frames, len as u64) {
        assert_eq!(unpacked, len as u64);
    }
    if let Ok(content) = apply_patch(b"some old bytes, as they were in the full", frames, len) {
        assert_eq!(content.len(), len);
    }
}

fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(problems) = Config::parse(&text, Path::new("/etc/offsite")) {
        assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
        assert!(!problems.is_empty());
    }
    Recipients::parse_file(&text).ok();
}

fn multistatus(bytes: &[u8]) {
    providers::read_multistatus(bytes);
}

fn signature(bytes: &[u8]) {
    // The key of the fixtures of version 1.
    let key: SitePublicKey = include_str!("../fixtures/v1/site.pub").parse().unwrap();
    let text = String::from_utf8_lossy(bytes);
    text.parse::<SitePublicKey>().ok();
    assert!(key.verify(b"other data than what was signed", &text).is_err());
}
