//! Frames: what goes in comes out, and what is not worth compressing is recognized.

use super::*;

/// Bytes that look random, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"noise");
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn rows(len: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|i| format!("{i};{};open;2026-01-02\n", i.wrapping_mul(2_654_435_761)).into_bytes())
        .take(len)
        .collect()
}

#[test]
fn frames_one_after_another_are_one_content() {
    let mut compressor = Compressor::new(3);
    let mut frames = Vec::new();
    let content = [rows(1 << 20), noise(300_000), Vec::new(), vec![0; 70_000]];
    for part in &content {
        compressor.frame(part, &mut frames).expect("compressed");
    }
    let whole = content.concat();
    assert!(frames.len() < whole.len() / 2);
    let mut content = Vec::with_capacity(whole.len());
    zstd_safe::decompress(&mut content, &frames).expect("decompressed");
    assert_eq!(content, whole);
}

#[test]
fn noise_looks_incompressible_and_text_does_not() {
    for len in [4096, 5000, 70_000, 1 << 20] {
        assert!(looks_incompressible(&noise(len)), "{len} bytes of noise");
        assert!(!looks_incompressible(&rows(len)), "{len} bytes of text");
        assert!(!looks_incompressible(&vec![0; len]), "{len} zeros");
    }
    assert!(!looks_incompressible(b""));
    assert!(!looks_incompressible(&noise(4095)), "too short to tell");
}

#[test]
fn a_third_of_text_among_noise_is_worth_compressing() {
    let mixed = [noise(200_000), rows(300_000), noise(400_000)].concat();
    assert!(!looks_incompressible(&mixed));
    let little = [noise(400_000), rows(100_000), noise(400_000)].concat();
    assert!(looks_incompressible(&little));
}

#[test]
fn what_occurs_twice_is_found_even_in_noise() {
    let once = noise(CONTENT_MAX / 2);
    let mut frame = Vec::new();
    Compressor::new(3).frame(&once.repeat(2), &mut frame).expect("compressed");
    assert!(frame.len() < once.len() + 1000, "{} bytes", frame.len());
}

#[test]
fn a_frame_tells_the_length_of_its_content() {
    let mut frame = Vec::new();
    Compressor::new(3).frame(&rows(123_456), &mut frame).expect("compressed");
    assert_eq!(zstd_safe::get_frame_content_size(&frame).expect("a frame"), Some(123_456));
}
