//! Landmarks: finding the place in an old file that a piece of the new one came from.
//!
//! Databases change in place: the reference of a chunk lies at the chunk's own offset ([`same_place`]). The content of a
//! dump shifts: one inserted row moves all that follows, a grown table moves the next one by megabytes. For such
//! files the old content is remembered by landmarks, one fingerprint of 64 bytes in every 8 KiB, and a chunk is
//! located by rolling the same fingerprint over a few short stretches of it: a chunk costs some 50 µs, a GiB of old
//! content a MiB of memory.

use std::io::{self, Read};
use std::ops::Range;

use crate::patch::REFERENCE_MAX;

/// Bytes that make a landmark.
const WIDTH: usize = 64;

/// One landmark in so many bytes of old content; a stretch of new content as long holds one of them, if it is unchanged.
const STRIDE: usize = 8 << 10;

/// Where in its stride a landmark lies: not at the start, where databases have their page headers.
const PLACE: usize = 3 << 10;

/// Stretches of a chunk that are searched.
const PROBES: usize = 8;

/// Bytes of reference beyond the content's own place, on each side.
const MARGIN: usize = 32 << 10;

/// A landmark is a fingerprint in the upper bits and its number in the lower: 128 GiB of one file are covered.
const NUMBER_BITS: u32 = 24;

/// The landmarks of one old file.
pub(super) struct Landmarks {
    /// Sorted; no fingerprint occurs twice.
    marks: Vec<u64>,
    /// A Bloom filter of the fingerprints: a single look rules out most positions of new content.
    filter: Vec<u64>,
    len: u64,
}

impl Landmarks {
    /// Reads an old file once, to its end.
    ///
    /// Places that are blank or look like others are no landmarks.
    ///
    /// # Errors
    /// Those of the reader.
    pub(super) fn read(mut old: impl Read) -> io::Result<Self> {
        let mut marks = Vec::new();
        let (mut len, mut number) = (0, 0);
        let mut block = Vec::with_capacity(STRIDE);
        loop {
            block.clear();
            let read = old.by_ref().take(STRIDE as u64).read_to_end(&mut block)?;
            if let Some(window) = block.get(PLACE..).and_then(<[u8]>::first_chunk::<WIDTH>)
                && number < 1 << NUMBER_BITS
                && is_distinctive(window)
            {
                marks.push(fingerprint(hash(window)) | number);
            }
            number += 1;
            len += read as u64;
            if read < STRIDE {
                return Ok(Self::new(marks, len));
            }
        }
    }

    fn new(mut marks: Vec<u64>, len: u64) -> Self {
        marks.sort_unstable();
        let marks: Vec<u64> = marks
            .chunk_by(|a, b| same(*a, *b))
            .filter_map(|alike| if let [one] = alike { Some(*one) } else { None })
            .collect();
        let mut filter = vec![0; (marks.len() / 4).next_power_of_two()];
        for mark in &marks {
            let (word, bits) = place(*mark, filter.len());
            if let Some(word) = filter.get_mut(word) {
                *word |= bits;
            }
        }
        Self { marks, filter, len }
    }

    /// The run of the old file that most of this content seems to come from, with a margin on both sides;
    /// at most [`REFERENCE_MAX`] bytes. `None` if the content is not known.
    #[must_use]
    pub(super) fn locate(&self, content: &[u8]) -> Option<Range<u64>> {
        let mut shifts: Vec<i64> = self.sightings(content);
        shifts.sort_unstable();
        // The run has room for content and margins, and for what was removed in between.
        let room = REFERENCE_MAX.checked_sub(content.len() + 2 * MARGIN)? as i64;
        let agreeing = (0..shifts.len())
            .filter_map(|i| shifts.get(i..))
            .filter_map(|tail| {
                tail.first()
                    .map(|first| tail.partition_point(|shift| shift - first <= room))
                    .and_then(|n| tail.get(..n))
            })
            .max_by_key(|group| group.len())?;
        let (first, last) = (*agreeing.first()?, *agreeing.last()?);
        let seen = agreeing.len();
        if seen < 2 && content.len() > PROBES * STRIDE {
            return None; // one sighting in a whole chunk may be an accident
        }
        let start = first - MARGIN as i64;
        let end = last + (content.len() + MARGIN) as i64;
        let within = |at: i64| u64::try_from(at).unwrap_or(0).min(self.len);
        Some(within(start)..within(end)).filter(|run| !run.is_empty())
    }

    /// How far from its place in the content each landmark that was found lies in the old file.
    fn sightings(&self, content: &[u8]) -> Vec<i64> {
        let spacing = (content.len() / PROBES).max(STRIDE);
        let mut shifts = Vec::new();
        for (i, part) in content.chunks(spacing).enumerate() {
            let stretch = part.get(..STRIDE + WIDTH).unwrap_or(part);
            self.search(stretch, |at, number| {
                shifts.push((number * STRIDE + PLACE) as i64 - (i * spacing + at) as i64);
            });
        }
        shifts
    }

    /// Tells of every landmark in a stretch: where it is, and which.
    fn search(&self, stretch: &[u8], mut seen: impl FnMut(usize, usize)) {
        let Some(window) = stretch.first_chunk::<WIDTH>() else { return };
        let mut rolling = hash(window);
        let entering = stretch.iter().skip(WIDTH).chain([&0]);
        for (at, (leaving, entering)) in stretch.iter().zip(entering).enumerate() {
            if let Some(number) = self.number(rolling) {
                seen(at, number);
            }
            rolling = rolling
                .wrapping_mul(BASE)
                .wrapping_add(u64::from(*entering))
                .wrapping_sub(u64::from(*leaving).wrapping_mul(LEAVING));
        }
    }

    /// Which landmark hashes like this.
    fn number(&self, rolling: u64) -> Option<usize> {
        let wanted = fingerprint(rolling);
        let (word, bits) = place(wanted, self.filter.len());
        if self.filter.get(word)? & bits != bits {
            return None;
        }
        let mark = self.marks.get(self.marks.partition_point(|mark| *mark < wanted))?;
        same(*mark, wanted).then_some((mark & ((1 << NUMBER_BITS) - 1)) as usize)
    }
}

/// Whether new content has something in common with the old content at the same place, byte for byte.
///
/// Looks at sixteen short samples; where both are blank (one byte repeated) they say nothing.
#[must_use]
pub(super) fn same_place(old: &[u8], new: &[u8]) -> bool {
    const SAMPLES: usize = 16;
    let Some(room) = old.len().min(new.len()).checked_sub(WIDTH) else {
        return !old.is_empty() && !new.is_empty(); // too short to tell
    };
    let samples = (0..SAMPLES)
        .map(|i| i * room / (SAMPLES - 1))
        .filter_map(|at| Some((old.get(at..at + WIDTH)?, new.get(at..at + WIDTH)?)));
    let (mut telling, mut alike) = (0, 0);
    for (old, new) in samples {
        if old != new {
            telling += 1;
        } else if old.iter().any(|byte| old.first() != Some(byte)) {
            telling += 1;
            alike += 1;
        }
    }
    alike >= 2 || telling == 0
}

/// The base of the rolling hash, modulo 2^64: odd, and otherwise of no meaning.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a byte weighs when it leaves the window: `BASE` to the power of `WIDTH`.
const LEAVING: u64 = {
    let (mut power, mut i) = (1u64, 0);
    while i < WIDTH {
        power = power.wrapping_mul(BASE);
        i += 1;
    }
    power
};

/// Whether a window shows enough different bytes to be recognized by; zeros and ruled lines do not.
fn is_distinctive(window: &[u8; WIDTH]) -> bool {
    let mut seen = [0u64; 4];
    for byte in window {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    seen.iter().map(|word| word.count_ones()).sum::<u32>() >= 12
}

/// The rolling hash of a window.
fn hash(window: &[u8; WIDTH]) -> u64 {
    window.iter().fold(0, |hash: u64, byte| hash.wrapping_mul(BASE).wrapping_add(u64::from(*byte)))
}

/// A rolling hash, mixed, in the upper bits.
fn fingerprint(rolling: u64) -> u64 {
    let mixed = (rolling ^ (rolling >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ (mixed >> 32)) >> NUMBER_BITS << NUMBER_BITS
}

/// Whether two landmarks have the same fingerprint.
fn same(a: u64, b: u64) -> bool {
    a >> NUMBER_BITS == b >> NUMBER_BITS
}

/// The word of the filter and the two bits in it that stand for a mark; the filter's length is a power of two.
fn place(mark: u64, words: usize) -> (usize, u64) {
    let bits = mark >> NUMBER_BITS;
    ((bits >> 12) as usize & (words - 1), 1 << (bits & 63) | 1 << (bits >> 6 & 63))
}

#[cfg(test)]
mod tests;
