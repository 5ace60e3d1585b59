//! The writer: takes compressed content in stream order, puts it into packs, and says where each run of the stream lies.
//!
//! It alone assigns positions, and it alone writes to the journal while a generation is sealed.

use std::collections::{HashMap, VecDeque};

use super::pack::SealedWriter;
use super::parts::PartDigests;
use super::pool::{Collector, Item, Packed};
use super::{SealError, SealSettings};
use crate::format::manifest::{Extent, Extents, PatchExtent};
use crate::format::names::PackName;
use crate::spool::Spool;
use crate::state::{Delivery, NewChunk, NewPatch, SealedPack, State};

/// A run of the stream. The pack of a patch is named by its number in the state; [`Extent::Patch`]'s own number of it is
/// only known when the manifest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawExtent {
    /// The run; in a patch, `pack` means nothing yet.
    pub extent: Extent,
    /// The patch pack's number in the state, for patches.
    pub patch_pack: Option<i64>,
}

impl RawExtent {
    /// How many bytes of the stream it covers.
    pub fn bytes(&self) -> u64 {
        self.extent.bytes()
    }
}

/// Where the content of a slot went.
#[derive(Clone, Copy)]
enum Place {
    Plain { position: u64 },
    Patch { pack: i64, patch: NewPatch },
}

struct OpenPack {
    id: i64,
    order: u32,
    at: u64,
    content: u64,
    output: SealedWriter,
    patches: Vec<NewPatch>,
    chunks: Vec<NewChunk>,
}

struct Writer<'a, F> {
    settings: &'a SealSettings<'a>,
    delivery: &'a Delivery,
    spool: &'a Spool,
    state: &'a mut State,
    sealed: F,
    plain: Option<OpenPack>,
    patch: Option<OpenPack>,
    /// Position of the next plain byte.
    position: u64,
    next_id: i64,
    next_order: u32,
    places: HashMap<u64, Place>,
    /// Runs of the stream whose place is not known yet, or that stand behind such a run.
    waiting: VecDeque<Item>,
    extents: Runs,
}

/// Writes all that the collector gives, and answers with where the stream lies.
pub(super) fn write(
    settings: &SealSettings<'_>,
    delivery: &Delivery,
    spool: &Spool,
    state: &mut State,
    collector: Collector,
    sealed: impl FnMut(&SealedPack, Option<PartDigests>) -> bool,
) -> Result<Vec<RawExtent>, SealError> {
    let recorded = state.packs(&delivery.chain, delivery.id)?;
    let own = recorded.iter().filter(|pack| pack.name.number == delivery.number);
    let mut writer = Writer {
        settings,
        delivery,
        spool,
        position: delivery.chain.content_bytes,
        next_id: state.next_pack_id()?,
        next_order: own.map(|pack| pack.name.order).max().unwrap_or(0) + 1,
        state,
        sealed,
        plain: None,
        patch: None,
        places: HashMap::new(),
        waiting: VecDeque::new(),
        extents: Runs::default(),
    };
    let spare = collector.spare();
    for done in collector {
        let done = done?;
        writer.waiting.extend(done.items);
        if let Some(packed) = done.result {
            writer.place(&packed)?;
            spare.give_back(packed.bytes);
        }
        writer.settle();
    }
    writer.close(false)?;
    writer.close(true)?;
    if !writer.waiting.is_empty() {
        // The feeder stopped in the middle; its own error says why.
        return Err(SealError::Stopped);
    }
    Ok(writer.extents.finish())
}

impl<F: FnMut(&SealedPack, Option<PartDigests>) -> bool> Writer<'_, F> {
    /// Appends compressed content to the pack it belongs to.
    fn place(&mut self, packed: &Packed) -> Result<(), SealError> {
        let is_patch = packed.reference.is_some();
        let mut pack = match if is_patch { self.patch.take() } else { self.plain.take() } {
            Some(pack) => pack,
            None => self.open(is_patch)?,
        };
        let place = if let Some((reference, reference_bytes)) = packed.reference {
            let (at, length) = (pack.content, packed.bytes.len() as u64);
            let patch = NewPatch { at, packed: length, gives: packed.content_bytes, reference, reference_bytes };
            pack.patches.push(patch);
            pack.content += length;
            Place::Patch { pack: pack.id, patch }
        } else {
            pack.content += packed.content_bytes;
            self.position += packed.content_bytes;
            Place::Plain { position: self.position - packed.content_bytes }
        };
        let (mut at, patch) = match place {
            Place::Plain { position } => (position, None),
            Place::Patch { .. } => (0, Some(pack.patches.len() - 1)),
        };
        for (hash, bytes) in &packed.chunks {
            pack.chunks.push(NewChunk { hash: *hash, at, patch });
            at += u64::from(*bytes);
        }
        pack.output.write(&packed.bytes)?;
        let full = pack.output.plaintext_bytes() >= self.settings.pack_bytes;
        *if is_patch { &mut self.patch } else { &mut self.plain } = Some(pack);
        self.places.insert(packed.slot, place);
        if full { self.close(is_patch) } else { Ok(()) }
    }

    fn open(&mut self, is_patch: bool) -> Result<OpenPack, SealError> {
        let (id, order) = (self.next_id, self.next_order);
        self.next_id += 1;
        self.next_order += 1;
        let output = SealedWriter::begin(self.spool, self.settings.recipients, self.settings.part_bytes)?;
        let at = if is_patch { 0 } else { self.position };
        Ok(OpenPack { id, order, at, content: 0, output, patches: Vec::new(), chunks: Vec::new() })
    }

    /// Finishes a pack: durable first, recorded next, handed on last.
    fn close(&mut self, is_patch: bool) -> Result<(), SealError> {
        let Some(pack) = (if is_patch { self.patch.take() } else { self.plain.take() }) else { return Ok(()) };
        let OpenPack { id, order, at, content, output, patches, chunks } = pack;
        let number = self.delivery.number;
        let name = |sha256| PackName { number, order, sha256, patches: is_patch };
        let object = output.finish(|object| name(object.sha256).to_string())?;
        let sealed = SealedPack { id, name: name(object.sha256), at, content, sealed: object.bytes, patches, chunks };
        self.state.pack_sealed(self.delivery, &sealed)?;
        if (self.sealed)(&sealed, object.parts) { Ok(()) } else { Err(SealError::Stopped) }
    }

    /// Turns waiting runs into extents as far as their places are known.
    fn settle(&mut self) {
        while let Some(item) = self.waiting.front() {
            let extent = match *item {
                Item::Known(extent, patch_pack) => RawExtent { extent, patch_pack },
                Item::New { slot, from, bytes } => match self.places.get(&slot) {
                    Some(place) => placed(place, from, bytes),
                    None => return,
                },
            };
            self.extents.push(extent);
            self.waiting.pop_front();
        }
        // All runs that refer to a slot come with or before its content.
        self.places.clear();
    }
}

fn placed(place: &Place, from: u64, bytes: u64) -> RawExtent {
    match *place {
        Place::Plain { position } => {
            RawExtent { extent: Extent::Plain { from: position + from, bytes }, patch_pack: None }
        }
        Place::Patch { pack, patch } => {
            RawExtent { extent: Extent::Patch(patch_extent(&patch, from, bytes)), patch_pack: Some(pack) }
        }
    }
}

/// The extent of `take` bytes after `skip` of what `patch` gives; its pack is named when the manifest is made.
pub(super) fn patch_extent(patch: &NewPatch, skip: u64, take: u64) -> PatchExtent {
    let NewPatch { at, packed, gives, reference, reference_bytes } = *patch;
    PatchExtent { pack: 0, from: at, packed, gives, reference, reference_bytes, skip, take }
}

/// Extents in stream order, joined where they follow each other; patches only within one pack.
#[derive(Default)]
struct Runs {
    done: Vec<RawExtent>,
    open: Extents,
    pack: Option<i64>,
}

impl Runs {
    fn push(&mut self, next: RawExtent) {
        if next.patch_pack != self.pack {
            self.flush();
            self.pack = next.patch_pack;
        }
        self.open.push(next.extent);
    }

    fn flush(&mut self) {
        let patch_pack = self.pack;
        let extents = std::mem::take(&mut self.open).finish();
        self.done.extend(extents.into_iter().map(|extent| RawExtent { extent, patch_pack }));
    }

    fn finish(mut self) -> Vec<RawExtent> {
        self.flush();
        self.done
    }
}
