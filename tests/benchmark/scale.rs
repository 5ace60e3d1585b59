//! How what the program remembers and stores grows with what it copies: the index alone, filled as by offices of up to 1 TiB
//! and ten million files, and whole runs over one huge file that is mostly holes.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use agent::clock;
use agent::format::manifest::{Extent, Extents, Head, Kind, Manifest, Pack};
use agent::format::names::PackName;
use agent::format::{Sha256, VERSION};
use agent::generation::Class;
use agent::state::{ChainRecord, ChunkHash, NewChunk, NewDelivery, SealedPack, State};
use tests::Rng;

use crate::report::Report;
use crate::site::{Site, Store};
use crate::yardstick::Yardstick;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Content of one pack, at half its size sealed.
const PACK: u64 = 128 * MIB;
/// One file in so many changes in a day.
const CHANGED: u64 = 100;

/// The index of offices of 10 GiB, 100 GiB and 1 TiB, in files of about 105 KB: each is a chunk, and so is its header.
pub(crate) fn index(root: &Path) {
    println!(
        "   GiB  million files   chunks   fill s  state MiB  walk s  peak MiB  full: manifest KiB  day: manifest KiB, s to read"
    );
    for (gib, files) in [(10, 100_000), (100, 1_000_000), (1024, 10_000_000)] {
        let folder = root.join("index");
        std::fs::remove_dir_all(&folder).ok();
        let bytes = gib * GIB / files;
        let mut state = State::open(&folder, &"bench".parse().unwrap()).unwrap();
        let began = Instant::now();
        let (chain, packs) = fill(&mut state, files, bytes);
        let fill_s = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for chunk in 0..files * 2 {
            assert!(state.find_chunk(&chain, &hash(chunk)).unwrap().is_some());
        }
        let walk_s = began.elapsed().as_secs_f64();
        let state_mib = state.path().metadata().unwrap().len() / MIB;
        let head = |stream_bytes| head(&chain, stream_bytes);
        let whole = files * (bytes + 512);
        let full = Manifest { head: head(whole), packs, extents: vec![Extent::Plain { from: 0, bytes: whole }] };
        let day = one_day(&full, files, bytes + 512);
        let text = day.encode().unwrap();
        let began = Instant::now();
        assert_eq!(Manifest::decode(&text).unwrap(), day);
        println!(
            "{gib:>6}  {:>13}  {:>7}  {fill_s:>7.1}  {state_mib:>9}  {walk_s:>6.1}  {:>8}  {:>18}  {:>17}, {:.2}",
            files as f64 / 1e6,
            files * 2,
            peak_mib(),
            compressed_kib(&full.encode().unwrap()),
            compressed_kib(&text),
            began.elapsed().as_secs_f64(),
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// Whole runs over a file of `bytes` bytes that has one page of content in each MiB, which reads as any other.
pub(crate) fn holes(yardstick: &Yardstick<'_>, bytes: u64, report: &mut Report) {
    let Yardstick { root, recipient, identity, log } = *yardstick;
    let folder = root.join("huge");
    std::fs::create_dir_all(&folder).unwrap();
    let file = File::create(folder.join("huge")).unwrap();
    file.set_len(bytes).unwrap();
    let mut rng = Rng::new(1);
    let mut change = |every: u64| {
        for at in (0..bytes).step_by((every * MIB) as usize) {
            file.write_all_at(&rng.bytes(4096), at + 300_000).unwrap();
        }
    };
    change(1);
    let sources = format!("[[source]]\nname = \"huge\"\ntype = \"folder\"\npath = \"{}\"\n", folder.display());
    let site = Site::of(&root.join("site"), &sources, recipient, Store::Directory, log);
    let mut generation = String::new();
    for (what, every) in [("full", None), ("unchanged", Some(u64::MAX / MIB)), ("day 2", Some(CHANGED))] {
        every.into_iter().for_each(&mut change);
        let run = site.backup();
        report.add(&format!("{} GiB: {what}", bytes / GIB), run.cost, Some(run.sent.bytes), Some(run.sent.objects));
        generation = run.generation;
    }
    let (cost, to) = site.restore(&generation, identity);
    report.add(&format!("{} GiB: restore", bytes / GIB), cost, None, None);
    assert!(crate::yardstick::same(&to.join("huge/huge"), &folder.join("huge")));
    crate::remove_all(&root.join("site"));
    std::fs::remove_dir_all(folder).unwrap();
}

fn fill(state: &mut State, files: u64, bytes: u64) -> (ChainRecord, Vec<Pack>) {
    let (store, now) = ("nas".parse().unwrap(), clock::now());
    let generation = agent::ids::GenerationId::new(now);
    let new =
        NewDelivery { store: &store, class: Class::Rolling, generation: &generation, chain: None, now, notes: &[] };
    let delivery = state.begin(&new).unwrap();
    let mut packs: Vec<Pack> = Vec::new();
    let per_pack = PACK / (bytes + 512) + 1;
    for first in (0..files).step_by(per_pack as usize) {
        let last = (first + per_pack).min(files);
        let (at, content) = (first * (bytes + 512), (last - first) * (bytes + 512));
        let chunk = |number: u64| NewChunk {
            hash: hash(number),
            at: number / 2 * (bytes + 512) + number % 2 * 512,
            patch: None,
        };
        let order = packs.len() as u32 + 1;
        let name = PackName { number: 0, order, sha256: Sha256::of(&first.to_le_bytes()), patches: false };
        let chunks = (first * 2..last * 2).map(chunk).collect();
        let id = state.next_pack_id().unwrap();
        let pack = SealedPack { id, name, at, content, sealed: content / 2, patches: Vec::new(), chunks };
        state.pack_sealed(&delivery, &pack).unwrap();
        packs.push(Pack { name, at, content, sealed: content / 2 });
    }
    (delivery.chain, packs)
}

fn hash(number: u64) -> ChunkHash {
    Sha256::of(&number.to_le_bytes()).0
}

/// The manifest of the day after: of every hundredth file, content and header are new.
fn one_day(full: &Manifest, files: u64, bytes: u64) -> Manifest {
    let mut packs = full.packs.clone();
    let (at, content) = (full.head.stream_bytes, files / CHANGED * bytes);
    let name = PackName { number: 1, order: 1, sha256: Sha256::of(b"day"), patches: false };
    packs.push(Pack { name, at, content, sealed: content / 2 });
    let mut extents = Extents::default();
    for file in 0..files {
        let from = if file % CHANGED == 0 { at + file / CHANGED * bytes } else { file * bytes };
        extents.push(Extent::Plain { from, bytes });
    }
    Manifest { head: full.head.clone(), packs, extents: extents.finish() }
}

fn head(chain: &ChainRecord, stream_bytes: u64) -> Head {
    Head {
        offsite: Kind::Manifest,
        version: VERSION,
        site: "bench".parse().unwrap(),
        class: Class::Rolling,
        chain: chain.name.clone(),
        generation: chain.name.clone(),
        number: 0,
        stream_bytes,
        full_bytes: stream_bytes,
        entries_at: 0,
        entries_bytes: 0,
        entries_sha256: Sha256::of(b""),
    }
}

fn compressed_kib(text: &[u8]) -> u64 {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    zstd_safe::compress(&mut out, text, 3).unwrap() as u64 >> 10
}

/// The most memory that this process has held so far.
fn peak_mib() -> u64 {
    std::io::stdout().flush().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
