//! Patches: small where little changed, refused where they gain nothing, and readable with stock `zstd`.

use std::fs;
use std::process::Command;

use super::*;

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// Noise in which every 5000th byte is another.
fn touched(mut content: Vec<u8>) -> Vec<u8> {
    for byte in content.iter_mut().skip(700).step_by(5000) {
        *byte ^= 0x55;
    }
    content
}

#[test]
fn a_patch_holds_little_more_than_what_changed() {
    let old = noise(1, 1 << 20);
    let new = touched(old.clone());
    let patch = make_patch(&old, &new).expect("compressed").expect("a patch is made");
    assert!(patch.len() < 4000, "{} bytes for 210 changes", patch.len());
    assert_eq!(apply_patch(&old, &patch, new.len()).expect("applied"), new);
}

#[test]
fn the_whole_of_the_longest_reference_is_used() {
    let old = noise(1, REFERENCE_MAX);
    let new = touched([&old[..500_000], &old[REFERENCE_MAX - 500_000..]].concat());
    let patch = make_patch(&old, &new).expect("compressed").expect("a patch is made");
    assert!(patch.len() < 8000, "{} bytes", patch.len());
    assert_eq!(apply_patch(&old, &patch, new.len()).expect("applied"), new);
}

#[test]
fn a_patch_that_gains_nothing_is_not_made() {
    assert_eq!(make_patch(&noise(1, 1 << 20), &noise(2, 1 << 20)).expect("compressed"), None);
    assert_eq!(
        make_patch(&noise(1, 1 << 20), &vec![b'a'; 1 << 20]).map(|patch| patch.is_some_and(|p| p.len() > 100)).ok(),
        Some(false)
    );
    let half = [noise(1, 600_000), noise(2, 400_000)].concat();
    assert!(make_patch(&noise(1, 1 << 20), &half).expect("compressed").is_some(), "more than half is known");
    let little = [noise(1, 100_000), noise(2, 900_000)].concat();
    assert_eq!(make_patch(&noise(1, 1 << 20), &little).expect("compressed"), None, "a tenth is known");
}

#[test]
fn a_short_file_has_a_short_patch() {
    let old = noise(1, 30_000);
    let new = [&old[..10_000], b"a new paragraph", &old[10_000..]].concat();
    let patch = make_patch(&old, &new).expect("compressed").expect("a patch is made");
    assert!(patch.len() < 200, "{} bytes", patch.len());
    assert_eq!(apply_patch(&old, &patch, new.len()).expect("applied"), new);
}

#[test]
fn a_wrong_length_or_a_damaged_patch_is_an_error() {
    let old = noise(1, 100_000);
    let new = touched(old.clone());
    let patch = make_patch(&old, &new).expect("compressed").expect("a patch is made");
    assert!(apply_patch(&old, &patch, new.len() - 1).is_err());
    assert!(matches!(apply_patch(&old, &patch, new.len() + 1), Err(FrameError::Length { .. })));
    assert!(apply_patch(&old, &patch[..patch.len() / 2], new.len()).is_err());
    assert!(apply_patch(&old[..20_000], &patch, new.len()).is_err(), "a reference cut short");
}

#[test]
fn an_empty_reference_and_empty_content_do_no_harm() {
    assert_eq!(make_patch(&[], &noise(1, 5000)).expect("compressed"), None);
    let patch = make_patch(&noise(1, 5000), &[]).expect("compressed");
    if let Some(patch) = patch {
        assert_eq!(apply_patch(&noise(1, 5000), &patch, 0).expect("applied"), Vec::<u8>::new());
    }
}

#[test]
fn a_reference_that_stock_zstd_takes_for_a_dictionary_is_not_used() {
    let dictionary_like = [&DICTIONARY_MAGIC[..], &noise(3, 900_000)].concat();
    assert_eq!(make_patch(&dictionary_like, &touched(dictionary_like.clone())).expect("compressed"), None);
}

#[test]
fn stock_zstd_reads_it_without_further_options() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let old = noise(1, REFERENCE_MAX);
    let cases = [
        (old.clone(), touched(old[300_000..300_000 + (1 << 20)].to_vec())),
        (old[..1 << 20].to_vec(), touched(old[..1 << 20].to_vec())),
        (old[..3000].to_vec(), old[5..2900].to_vec()),
    ];
    for (reference, content) in cases {
        let patch = make_patch(&reference, &content).expect("compressed").expect("a patch is made");
        fs::write(path("reference"), &reference).expect("written");
        fs::write(path("patch"), &patch).expect("written");
        let output = Command::new("zstd")
            .args(["-d", "-q", "-c", "--patch-from"])
            .arg(path("reference"))
            .arg(path("patch"))
            .output()
            .expect("zstd is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == content, "zstd made {} bytes of the patch", output.stdout.len());
    }
}
