//! Landmarks: shifted, moved and reordered content is found; strange and blank content is not.

use super::*;

const MIB: usize = 1 << 20;

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn landmarks(old: &[u8]) -> Landmarks {
    Landmarks::read(old).expect("a slice is always read")
}

/// Asserts that the run has all that the content at `from` in the old file has, and is a valid reference.
fn assert_covers(run: Option<Range<u64>>, from: usize, len: usize) {
    let run = run.expect("located");
    assert!(run.start <= from as u64 && run.end >= (from + len) as u64, "{run:?} does not cover {len} bytes at {from}");
    assert!(run.end - run.start <= REFERENCE_MAX as u64, "{run:?} is too long");
}

#[test]
fn content_is_found_wherever_it_was() {
    let old = noise(1, 9 * MIB + 12_345);
    let marks = landmarks(&old);
    for (from, len) in
        [(0, MIB), (1, MIB), (5 * MIB + 777, MIB), (8 * MIB + 12_345, MIB), (3_000_000, 300_000), (40_000, 20_000)]
    {
        assert_covers(marks.locate(&old[from..from + len]), from, len);
    }
}

#[test]
fn content_with_changes_everywhere_is_found() {
    let old = noise(1, 4 * MIB);
    let mut content = old[MIB + 99..2 * MIB + 99].to_vec();
    content.iter_mut().step_by(900).for_each(|byte| *byte ^= 1);
    assert_covers(landmarks(&old).locate(&content), MIB + 99, MIB);
}

#[test]
fn what_was_removed_in_between_is_within_the_reference() {
    let old = noise(1, 6 * MIB);
    let content = [&old[MIB..MIB + 500_000], &old[MIB + 1_300_000..MIB + 1_800_000]].concat();
    let run = landmarks(&old).locate(&content);
    assert_covers(run, MIB, 1_800_000);
}

#[test]
fn of_two_places_the_one_with_more_of_the_content_is_taken() {
    let old = noise(1, 8 * MIB);
    let content = [&old[..200_000], &old[5 * MIB..5 * MIB + 800_000]].concat();
    let run = landmarks(&old).locate(&content).expect("located");
    assert!(run.contains(&(5 * MIB as u64)) && run.contains(&(5 * MIB as u64 + 799_999)), "{run:?}");
}

#[test]
fn strange_and_blank_content_is_not_found() {
    let old = [noise(1, 3 * MIB), vec![0; 2 * MIB + 5000], b"0,0,0,0;\n".repeat(100_000)].concat();
    let marks = landmarks(&old);
    assert_eq!(marks.locate(&noise(2, MIB)), None);
    assert_eq!(marks.locate(&vec![0; MIB]), None);
    assert_eq!(marks.locate(&b"0,0,0,0;\n".repeat(100_000)), None);
    assert_eq!(marks.locate(&[]), None);
    assert_eq!(marks.locate(&[7; 63]), None);
    assert_eq!(landmarks(&[]).locate(&noise(1, MIB)), None);
    assert_eq!(landmarks(&noise(1, 100)).locate(&noise(1, 100)), None);
}

#[test]
fn content_that_occurs_twice_is_no_landmark() {
    let old = noise(1, MIB).repeat(2);
    assert_eq!(landmarks(&old).locate(&old[..MIB]), None);
}

#[test]
fn the_same_place_is_seen_through_changes_and_blanks() {
    let old = noise(1, MIB);
    let mut new = old.clone();
    new.iter_mut().skip(3).step_by(400).for_each(|byte| *byte ^= 1);
    assert!(same_place(&old, &new));
    assert!(same_place(&old[..600_000], &old), "a file that grew");
    assert!(same_place(&vec![0; MIB], &vec![0; MIB]), "blank as before");
    assert!(!same_place(&old, &noise(2, MIB)));
    assert!(!same_place(&old, &old[1..]), "shifted by a byte");
    assert!(!same_place(
        &[vec![0; 900_000], noise(1, 148_576)].concat(),
        &[vec![0; 900_000], noise(2, 148_576)].concat()
    ));
    assert!(!same_place(&[], &old));
    assert!(same_place(b"short", b"shore"), "too short to tell");
}
