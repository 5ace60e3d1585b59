//! SHA-256 of an object and of each part that it will be sent in, in one pass over its bytes.
//!
//! A server wants the digest of every part (`x-amz-content-sha256`, `x-amz-checksum-sha256`), and an object is named by that
//! of the whole: neither says anything of the other. But a core that waits for one step of one digest can do a step of the
//! other, if both are at hand: two digests block by block take less than one and a half times as long as one.

use sha2::Digest as _;

use crate::format::Sha256;

/// Two blocks of SHA-256 (FIPS 180-4): so little of one digest that the core already looks at the other.
const STEP: usize = 128;

/// The digests of an object's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartDigests {
    part_bytes: u64,
    digests: Vec<Sha256>,
}

impl PartDigests {
    /// The digest of the part with this number, from 1 on, if the parts have so many bytes each.
    #[must_use]
    pub fn find(&self, number: u32, part_bytes: u64) -> Option<Sha256> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.digests.get(index).copied().filter(|_| part_bytes == self.part_bytes)
    }
}

/// Hashes an object, and its parts if it will be sent in parts.
pub(super) struct ObjectHasher {
    whole: sha2::Sha256,
    parts: Option<Parts>,
}

struct Parts {
    part_bytes: u64,
    current: sha2::Sha256,
    /// Bytes of the current part so far.
    filled: u64,
    digests: Vec<Sha256>,
}

impl ObjectHasher {
    /// For an object that is sent in parts of so many bytes, if it is.
    pub(super) fn new(part_bytes: Option<u64>) -> Self {
        let parts = |part_bytes: u64| Parts {
            part_bytes: part_bytes.max(1),
            current: sha2::Sha256::new(),
            filled: 0,
            digests: Vec::new(),
        };
        Self { whole: sha2::Sha256::new(), parts: part_bytes.map(parts) }
    }

    /// Takes the next bytes. It is fast only as long as they come in multiples of 64.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        let Some(parts) = &mut self.parts else { return self.whole.update(bytes) };
        while !bytes.is_empty() {
            let left = usize::try_from(parts.part_bytes - parts.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            for step in now.chunks(STEP) {
                self.whole.update(step);
                parts.current.update(step);
            }
            parts.filled += now.len() as u64;
            if parts.filled == parts.part_bytes {
                parts.end();
            }
            bytes = later;
        }
    }

    /// The digest of all, and those of its parts.
    pub(super) fn finish(self) -> (Sha256, Option<PartDigests>) {
        let parts = self.parts.map(|mut parts| {
            if parts.filled > 0 {
                parts.end();
            }
            PartDigests { part_bytes: parts.part_bytes, digests: parts.digests }
        });
        (Sha256(self.whole.finalize().into()), parts)
    }
}

impl Parts {
    fn end(&mut self) {
        self.digests.push(Sha256(self.current.finalize_reset().into()));
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_whole_and_of_each_part() {
        let content: Vec<u8> = (0..10_000_u32).map(|at| ((at * at) >> 5) as u8).collect();
        for part_bytes in [1, 63, 64, 1000, 4096, 5000, 10_000, 20_000] {
            for step in [1, 64, 100, 4096, 10_000] {
                let mut hasher = ObjectHasher::new(Some(part_bytes));
                content.chunks(step).for_each(|piece| hasher.update(piece));
                let (whole, parts) = hasher.finish();
                assert_eq!(whole, Sha256::of(&content));
                let parts = parts.unwrap();
                let mut numbers = 1..;
                for part in content.chunks(part_bytes as usize) {
                    assert_eq!(parts.find(numbers.next().unwrap(), part_bytes), Some(Sha256::of(part)));
                }
                assert_eq!(parts.find(numbers.next().unwrap(), part_bytes), None);
                assert_eq!((parts.find(0, part_bytes), parts.find(1, part_bytes + 1)), (None, None));
            }
        }
        let mut hasher = ObjectHasher::new(None);
        hasher.update(&content);
        assert_eq!(hasher.finish(), (Sha256::of(&content), None));
        assert_eq!(ObjectHasher::new(Some(64)).finish().1.unwrap().digests, []);
    }
}
