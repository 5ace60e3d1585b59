//! Whether a manifest describes a whole stream within the limits of the format. What it says comes from a store.

use super::{Extent, Manifest, ManifestError, Pack, PatchExtent};
use crate::format::{PATCH_BYTES_MAX, PATCH_REFERENCE_BYTES_MAX};

/// Content that one pack may have: far above what any program writes, far below what would harm a reader.
const PACK_CONTENT_BYTES_MAX: u64 = 1 << 40;

pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let runs = packs(&manifest.packs)?;
    let mut total = 0_u64;
    for extent in &manifest.extents {
        match extent {
            Extent::Plain { from, bytes } => covered(&runs, *from, *bytes)?,
            Extent::Patch(patch) => check_patch(manifest, &runs, patch)?,
        }
        total = total.checked_add(extent.bytes()).ok_or(ManifestError::Sense("its sizes overflow"))?;
    }
    let head = &manifest.head;
    if total != head.stream_bytes {
        return Err(ManifestError::Sense("its extents do not make the whole stream"));
    }
    match head.entries_at.checked_add(head.entries_bytes) {
        Some(end) if end <= head.stream_bytes => Ok(()),
        _ => Err(ManifestError::Sense("its list of entries lies outside the stream")),
    }
}

/// The positions that the plain packs hold, as runs `(from, to)` without gaps inside, ascending.
fn packs(packs: &[Pack]) -> Result<Vec<(u64, u64)>, ManifestError> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut patches = false;
    for pack in packs {
        if pack.content > PACK_CONTENT_BYTES_MAX {
            return Err(ManifestError::Sense("a pack is impossibly large"));
        }
        if pack.name.patches {
            patches = true;
            continue;
        }
        let end = pack.at.checked_add(pack.content).ok_or(ManifestError::Sense("its sizes overflow"))?;
        if patches || runs.last().is_some_and(|(_, to)| *to > pack.at) {
            return Err(ManifestError::Sense("its packs overlap or are out of order"));
        }
        match runs.last_mut() {
            Some((_, to)) if *to == pack.at => *to = end,
            _ => runs.push((pack.at, end)),
        }
    }
    Ok(runs)
}

fn covered(runs: &[(u64, u64)], from: u64, bytes: u64) -> Result<(), ManifestError> {
    let run = runs.get(runs.partition_point(|(_, to)| *to <= from));
    let end = from.checked_add(bytes);
    match (run, end) {
        (Some((start, to)), Some(end)) if *start <= from && end <= *to && bytes > 0 => Ok(()),
        _ => Err(ManifestError::Sense("an extent lies outside the packs that are named")),
    }
}

fn check_patch(manifest: &Manifest, runs: &[(u64, u64)], patch: &PatchExtent) -> Result<(), ManifestError> {
    let pack = manifest.packs.get(patch.pack as usize).filter(|pack| pack.name.patches);
    let pack = pack.ok_or(ManifestError::Sense("a patch lies in a pack that is not named"))?;
    let within = |from: u64, bytes: u64, all: u64| from.checked_add(bytes).is_some_and(|end| end <= all);
    // What cannot be compressed grows a little.
    let packed_max = PATCH_BYTES_MAX + (64 << 10);
    if patch.gives > PATCH_BYTES_MAX || patch.packed > packed_max || patch.reference_bytes > PATCH_REFERENCE_BYTES_MAX {
        return Err(ManifestError::Sense("a patch is larger than the format allows"));
    }
    if !within(patch.from, patch.packed, pack.content)
        || !within(patch.skip, patch.take, patch.gives)
        || patch.take == 0
    {
        return Err(ManifestError::Sense("a patch lies outside its pack"));
    }
    covered(runs, patch.reference, patch.reference_bytes)
}

#[cfg(test)]
mod tests;
