//! What is carried, and when a full is sent instead.

use super::*;
use crate::format::names::PackName;
use crate::state::NewPatch;

const MIB: u64 = 1 << 20;

/// Ten plain packs of 10 MiB that seal to half of that, and two patch packs of 1 MiB.
fn packs() -> Vec<PackRecord> {
    let pack = |id: i64, at, content, sealed, patches| PackRecord {
        id,
        name: PackName { number: 0, order: u32::try_from(id).unwrap(), sha256: sha256(id), patches },
        at,
        content,
        sealed,
        stored: true,
        carried: false,
    };
    let plain = (0..10).map(|id| pack(id, u64::try_from(id).unwrap() * 10 * MIB, 10 * MIB, 5 * MIB, false));
    plain.chain((10..12).map(|id| pack(id, 0, MIB, MIB, true))).collect()
}

fn sha256(id: i64) -> Sha256 {
    Sha256::of(&id.to_le_bytes())
}

fn usage() -> Usage {
    Usage::new(packs(), 100 * MIB)
}

/// Chunks of a MiB at these positions, in MiB.
fn plain(usage: &mut Usage, at: impl IntoIterator<Item = u64>) {
    for at in at {
        usage.add(&Chunk { bytes: MIB, before: 0, after: 0, location: Some(Location::Plain(at * MIB)) });
    }
}

fn patch(usage: &mut Usage, pack: i64, packed: u64, reference: u64) {
    let patch = NewPatch { at: 0, packed, gives: MIB, reference: reference * MIB, reference_bytes: MIB };
    let location = Some(Location::Patch { pack, patch, skip: 0 });
    usage.add(&Chunk { bytes: MIB, before: 0, after: 0, location });
}

fn unknown(usage: &mut Usage, chunks: u64) {
    for _ in 0..chunks {
        usage.add(&Chunk { bytes: MIB, before: 0, after: 0, location: None });
    }
}

fn carried(usage: &Usage, bad: &[i64]) -> Vec<i64> {
    let bad = bad.iter().map(|id| sha256(*id)).collect();
    usage.worth_carrying(&bad, 5 * MIB).iter().map(|pack| pack.id).collect()
}

#[test]
fn packs_in_use_are_carried_and_others_are_not() {
    let mut all = usage();
    plain(&mut all, 0..100);
    assert_eq!(carried(&all, &[]), Vec::from_iter(0..10));
    let mut some = usage();
    // Of the last pack four tenths, of the one before it half.
    plain(&mut some, (0..80).chain(80..85).chain(90..94));
    unknown(&mut some, 4);
    assert_eq!(carried(&some, &[]), Vec::from_iter(0..9));
}

#[test]
fn a_reference_is_a_use_and_patches_go_where_their_references_go() {
    let mut patched = usage();
    plain(&mut patched, 0..90);
    (90..96).for_each(|at| patch(&mut patched, 10, MIB / 8, at));
    (96..99).for_each(|at| patch(&mut patched, 11, MIB / 8, at));
    // Three quarters of the one patch pack are in use, three eighths of the other.
    assert_eq!(carried(&patched, &[]), Vec::from_iter(0..11));
    // Without what they refer to, patches are of no use.
    assert_eq!(carried(&patched, &[9]), Vec::from_iter(0..9));
}

#[test]
fn what_was_found_bad_is_never_carried() {
    let mut all = usage();
    plain(&mut all, 0..100);
    assert_eq!(carried(&all, &[3, 7]), [0, 1, 2, 4, 5, 6, 8, 9]);
}

#[test]
fn what_is_too_large_to_be_copied_is_not() {
    let mut all = usage();
    plain(&mut all, 0..100);
    assert_eq!(all.worth_carrying(&BTreeSet::new(), 5 * MIB - 1), []);
}

#[test]
fn a_full_is_sent_when_little_would_be_saved() {
    let mut new = usage();
    plain(&mut new, 0..40);
    unknown(&mut new, 41);
    assert_eq!(carried(&new, &[]), [0_i64; 0]);
    let mut new = usage();
    plain(&mut new, 0..40);
    unknown(&mut new, 40);
    assert_eq!(carried(&new, &[]), [0, 1, 2, 3]);
    assert_eq!(carried(&usage(), &[]), [0_i64; 0]);
}

#[test]
fn a_full_is_sent_when_a_restore_would_read_a_quarter_more() {
    // Eight tenths of each pack: what is left is a quarter more than what is used.
    let mut worn = usage();
    plain(&mut worn, (0..100).filter(|at| at % 10 < 8));
    assert_eq!(carried(&worn, &[]), Vec::from_iter(0..10));
    let mut worn = usage();
    plain(&mut worn, (0..100).filter(|at| at % 10 < 8 && *at != 97));
    assert_eq!(carried(&worn, &[]), [0_i64; 0]);
}

#[test]
fn headers_before_and_padding_behind_a_file_belong_to_it() {
    let mut letters = usage();
    for at in (0..100 * MIB).step_by(8192) {
        let location = Some(Location::Plain(at + 512));
        letters.add(&Chunk { bytes: 100, before: 512, after: 8192 - 612, location });
    }
    assert_eq!(carried(&letters, &[]), Vec::from_iter(0..10));
}
