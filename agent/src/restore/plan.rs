//! What has to be read from which pack, and where it goes. Pure.

use crate::format::manifest::{Extent, Manifest, PatchExtent};

/// A run of the stream that is wanted, and the file it is the content of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Where in the stream it begins.
    pub(super) from: u64,
    /// How many bytes.
    pub(super) bytes: u64,
    /// The file: an index of the caller's.
    pub(super) file: usize,
}

/// Where bytes of a pack go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Into a file; `at` is the place in the stream.
    File { file: usize, at: u64 },
    /// Into the reference of a patch; `at` is the place in the reference.
    Reference { patch: usize, at: u64 },
}

/// A run of one plain pack's content that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where in the pack's content it begins.
    pub(super) from: u64,
    /// How many bytes.
    pub(super) bytes: u64,
    /// Where they go.
    pub(super) goal: Goal,
}

/// A patch that is needed, and where parts of what it gives go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// The patch.
    pub(super) extent: PatchExtent,
    /// `(where in what it gives, how many bytes, file, where in the stream)`.
    pub(super) goals: Vec<(u64, u64, usize, u64)>,
}

/// All that has to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each plain pack that is needed: its index in the manifest, and pieces by where they begin.
    pub(super) plain: Vec<(usize, Vec<Piece>)>,
    /// Patches that are needed.
    pub(super) patches: Vec<Patch>,
    /// Indexes in the manifest of the patch packs they lie in.
    pub(super) patch_packs: Vec<usize>,
}

impl Plan {
    /// What the pack with this index in the manifest serves, directly or through patches: file, place in the stream, bytes.
    pub(super) fn served_by(&self, pack: usize) -> impl Iterator<Item = (usize, u64, u64)> {
        let plain = self.plain.iter().filter(move |(index, _)| *index == pack).flat_map(|(_, pieces)| pieces);
        let direct = plain.clone().filter_map(|piece| match piece.goal {
            Goal::File { file, at } => Some((file, at, piece.bytes)),
            Goal::Reference { .. } => None,
        });
        let referring = plain.filter_map(|piece| match piece.goal {
            Goal::File { .. } => None,
            Goal::Reference { patch, .. } => self.patches.get(patch),
        });
        let within = self.patches.iter().filter(move |patch| patch.extent.pack as usize == pack);
        let patched =
            referring.chain(within).flat_map(|patch| &patch.goals).map(|(_, bytes, file, at)| (*file, *at, *bytes));
        direct.chain(patched)
    }
}

/// Plans how to get `wanted`, which is in stream order and without overlaps.
pub(super) fn plan(manifest: &Manifest, wanted: &[Wanted]) -> Plan {
    let mut pieces: Vec<(usize, Piece)> = Vec::new();
    let mut patches: Vec<Patch> = Vec::new();
    let mut wanted = wanted.iter().copied().filter(|run| run.bytes > 0).peekable();
    let mut stream = 0;
    for extent in &manifest.extents {
        let end = stream + extent.bytes();
        while let Some(run) = wanted.peek_mut().filter(|run| run.from < end) {
            let taken = run.bytes.min(end - run.from);
            // The part of the run that lies in this extent; a run that began earlier was cut off there.
            let (offset, file) = (run.from - stream, run.file);
            let at = run.from;
            add(manifest, extent, offset, taken, file, at, &mut pieces, &mut patches);
            run.from += taken;
            run.bytes -= taken;
            if run.bytes > 0 {
                break;
            }
            wanted.next();
        }
        stream = end;
    }
    let mut patch_packs: Vec<usize> = patches.iter().map(|patch| patch.extent.pack as usize).collect();
    patch_packs.sort_unstable();
    patch_packs.dedup();
    for (index, patch) in patches.iter().enumerate() {
        let PatchExtent { reference, reference_bytes, .. } = patch.extent;
        split(manifest, reference, reference_bytes, |at| Goal::Reference { patch: index, at }, &mut pieces);
    }
    pieces.sort_by_key(|(pack, piece)| (*pack, piece.from));
    let mut plain: Vec<(usize, Vec<Piece>)> = Vec::new();
    for (pack, piece) in pieces {
        match plain.last_mut() {
            Some((last, pieces)) if *last == pack => pieces.push(piece),
            _ => plain.push((pack, vec![piece])),
        }
    }
    Plan { plain, patches, patch_packs }
}

/// Adds one run inside one extent; `at` is its place in the stream.
#[expect(clippy::too_many_arguments, reason = "a step of `plan`, with its state")]
fn add(
    manifest: &Manifest,
    extent: &Extent,
    offset: u64,
    bytes: u64,
    file: usize,
    at: u64,
    pieces: &mut Vec<(usize, Piece)>,
    patches: &mut Vec<Patch>,
) {
    match extent {
        Extent::Plain { from, .. } => {
            split(manifest, from + offset, bytes, |moved| Goal::File { file, at: at + moved }, pieces);
        }
        Extent::Patch(extent) => {
            let goal = (extent.skip + offset, bytes, file, at);
            match patches.last_mut() {
                Some(patch) if patch.extent == *extent => patch.goals.push(goal),
                _ => patches.push(Patch { extent: *extent, goals: vec![goal] }),
            }
        }
    }
}

/// Cuts a run of positions at the borders of packs.
fn split(manifest: &Manifest, position: u64, bytes: u64, goal: impl Fn(u64) -> Goal, pieces: &mut Vec<(usize, Piece)>) {
    let plain = manifest.packs.partition_point(|pack| !pack.name.patches);
    let packs = manifest.packs.get(..plain).unwrap_or_default();
    let first = packs.partition_point(|pack| pack.at + pack.content <= position);
    let mut done = 0;
    for (index, pack) in packs.iter().enumerate().skip(first) {
        let at = position + done;
        if done == bytes || pack.at > at {
            break;
        }
        let taken = (bytes - done).min(pack.at + pack.content - at);
        pieces.push((index, Piece { from: at - pack.at, bytes: taken, goal: goal(done) }));
        done += taken;
    }
}
