//! Which packs of a chain that has ended are worth copying into the next one. Pure.
//!
//! A pack is carried over if at least half of its content is in use, as it is or as what patches refer to. What lies in other
//! packs is sealed anew, which leaves behind what nobody uses any more. A restore reads all that is carried, so there is a limit:
//! if a generation would need a quarter more bytes than a full that is sent takes, or if less than half were saved, the full
//! is sent. So patches and leftovers do not pile up however long fulls are carried.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::Sha256;
use crate::state::{Location, PackRecord};

/// What is in use is counted by pieces of this size: 32 MiB of memory for a TiB.
const GRANULE: u64 = 4096;
/// Packs that a carried full may have: each is an object to be copied, and to be fetched by a restore.
const PACKS_MAX: usize = 9000;

/// A chunk of the newest generation.
pub(super) struct Chunk {
    pub(super) bytes: u64,
    /// Bytes of the stream before it that belong to it.
    pub(super) before: u64,
    /// The same behind it.
    pub(super) after: u64,
    /// Where the chain has it.
    pub(super) location: Option<Location>,
}

/// What the newest generation uses of a chain.
pub(super) struct Usage {
    /// Plain packs by position, then patch packs.
    packs: Vec<PackRecord>,
    /// How many of them are plain.
    plain: usize,
    /// Granules of the chain's content, a bit each.
    used: Vec<u64>,
    /// Bytes of the stream that each plain pack gives.
    gives: Vec<u64>,
    patches: Vec<Used>,
    stream_bytes: u64,
}

/// A patch in use.
struct Used {
    pack: i64,
    packed: u64,
    gives: u64,
    reference: (u64, u64),
}

impl Usage {
    /// Nothing yet, of `packs`: plain ones by position, then patch packs. Their content ends at `content_bytes`.
    pub(super) fn new(packs: Vec<PackRecord>, content_bytes: u64) -> Self {
        let plain = packs.partition_point(|pack| !pack.name.patches);
        let granules = usize::try_from(content_bytes.div_ceil(GRANULE * 64)).unwrap_or(0);
        let (used, gives) = (vec![0; granules], vec![0; plain]);
        Self { packs, plain, used, gives, patches: Vec::new(), stream_bytes: 0 }
    }

    /// The newest generation has this chunk.
    pub(super) fn add(&mut self, chunk: &Chunk) {
        let whole = chunk.before + chunk.bytes + chunk.after;
        self.stream_bytes += whole;
        match chunk.location {
            None => {}
            Some(Location::Plain(at)) => {
                self.mark(at.saturating_sub(chunk.before), at + chunk.bytes + chunk.after);
                if let Some(gives) = self.plain_at(at).and_then(|index| self.gives.get_mut(index)) {
                    *gives += whole;
                }
            }
            Some(Location::Patch { pack, patch, .. }) => {
                let reference = (patch.reference, patch.reference + patch.reference_bytes);
                self.mark(reference.0, reference.1);
                self.patches.push(Used { pack, packed: patch.packed, gives: whole, reference });
            }
        }
    }

    /// The packs that are carried over, in their order; none if the full is to be sent. Those of `bad` never are, nor objects
    /// of more than `largest` bytes.
    pub(super) fn worth_carrying(&self, bad: &BTreeSet<Sha256>, largest: u64) -> Vec<PackRecord> {
        let (plain_packs, others) = self.packs.split_at(self.plain);
        let is_good = |pack: &PackRecord| !bad.contains(&pack.name.sha256) && pack.sealed <= largest;
        let mut carried: Vec<PackRecord> = Vec::new();
        // What the whole stream would take, sealed anew, and what of it is not carried: each pack's content as it was sealed.
        let (mut whole, mut rest) = (0, 0);
        let (mut content, mut needed, mut given) = (0, 0, 0);
        for (pack, gives) in plain_packs.iter().zip(&self.gives) {
            let anew = as_sealed(*gives, pack.sealed, pack.content);
            whole += anew;
            given += gives;
            if is_good(pack) && self.used_of(pack) >= pack.content.div_ceil(2) && pack.content > 0 {
                carried.push(*pack);
                content += pack.content;
                needed += pack.sealed;
            } else {
                rest += anew;
            }
        }
        // What is new, and what patches give, is taken for something that compresses as what is carried does.
        let plain = needed;
        whole += as_sealed(self.stream_bytes.saturating_sub(given), plain, content);
        let mut patched: BTreeMap<i64, u64> = BTreeMap::new();
        for patch in self.patches.iter().filter(|patch| is_within(patch.reference, &carried)) {
            *patched.entry(patch.pack).or_default() += patch.packed;
            given += patch.gives;
        }
        for pack in others {
            match patched.get(&pack.id) {
                Some(packed) if is_good(pack) && *packed >= pack.content.div_ceil(2) => {
                    carried.push(*pack);
                    needed += pack.sealed;
                }
                // Its patches are made anew.
                Some(packed) => rest += packed,
                None => {}
            }
        }
        rest += as_sealed(self.stream_bytes.saturating_sub(given), plain, content);
        let bounded = (needed + rest) * 4 <= whole * 5;
        if bounded && rest * 2 <= whole && carried.len() <= PACKS_MAX { carried } else { Vec::new() }
    }

    fn plain_at(&self, at: u64) -> Option<usize> {
        let plain = self.packs.get(..self.plain)?;
        let index = plain.partition_point(|pack| pack.at + pack.content <= at);
        plain.get(index).filter(|pack| pack.at <= at).map(|_| index)
    }

    fn mark(&mut self, from: u64, to: u64) {
        for granule in from / GRANULE..to.div_ceil(GRANULE) {
            if let Some(word) = usize::try_from(granule / 64).ok().and_then(|index| self.used.get_mut(index)) {
                *word |= 1 << (granule % 64);
            }
        }
    }

    /// Bytes of a plain pack that are in use.
    fn used_of(&self, pack: &PackRecord) -> u64 {
        let is_used = |granule: &u64| {
            let word = usize::try_from(granule / 64).ok().and_then(|index| self.used.get(index));
            word.is_some_and(|word| word >> (granule % 64) & 1 == 1)
        };
        let granules = pack.at / GRANULE..(pack.at + pack.content).div_ceil(GRANULE);
        (granules.filter(is_used).count() as u64 * GRANULE).min(pack.content)
    }
}

/// What `bytes` of content take if `content` of it took `sealed`.
fn as_sealed(bytes: u64, sealed: u64, content: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(sealed) / u128::from(content.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Whether a run of positions lies in `packs`, which are in their order.
fn is_within((from, to): (u64, u64), packs: &[PackRecord]) -> bool {
    let mut at = from;
    let first = packs.partition_point(|pack| pack.at + pack.content <= from);
    for pack in packs.iter().skip(first) {
        if pack.at > at || at >= to {
            break;
        }
        at = pack.at + pack.content;
    }
    at >= to
}

#[cfg(test)]
mod tests;
