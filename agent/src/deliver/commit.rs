//! The commit: manifest, list of packs, generation document, and last of all its signature.

use std::collections::BTreeMap;

use providers::{Body, PutOptions};

use super::{DeliverError, Delivered, Place};
use crate::clock;
use crate::durable;
use crate::format::commit::{Commit, Heartbeat, Kind, ObjectDigest, Previous};
use crate::format::manifest::{self, Extent, Head, Manifest, Pack};
use crate::format::names::{self, ChainFolder};
use crate::format::{Sha256, VERSION};
use crate::generation::Document;
use crate::progress::Stage;
use crate::seal::{self, Sealed};
use crate::staging::LocalGeneration;
use crate::state::{CommitObject, CommittedRecord, Delivery, PackRecord, State};
use crate::upload::{self, Spooled, UploadError};

/// The documents in the order in which they are sent.
const ENDINGS: [&str; 4] = [names::MANIFEST, names::PACKS, names::COMMIT, names::SIGNATURE];

/// Makes the four documents, puts them into the spool, and records that they are what will be sent.
pub(super) fn prepare(
    place: &Place<'_>,
    state: &mut State,
    delivery: &Delivery,
    generation: &LocalGeneration,
    sealed: Sealed,
    previous: Option<CommittedRecord>,
) -> Result<(), DeliverError> {
    let document = generation.document()?;
    let packs = state.packs(&delivery.chain, delivery.id)?;
    let added: Vec<&PackRecord> = packs.iter().filter(|pack| pack.name.number == delivery.number).collect();
    let added_bytes = added.iter().map(|pack| pack.sealed).sum();
    let carried_bytes = added.iter().filter(|pack| pack.carried).map(|pack| pack.sealed).sum();
    let stream_bytes = sealed.stream_bytes;
    let whole = Extent::Plain { from: 0, bytes: sealed.stream_bytes };
    if delivery.is_plain_full() && !matches!(sealed.extents.as_slice(), [only] if only.extent == whole) {
        return Err(DeliverError::Internal("a full is not its packs in order"));
    }
    let manifest = make_manifest(place, delivery, &packs, sealed)?;
    let list = pack_list(&manifest);
    let needed_bytes = manifest.packs.iter().map(|pack| pack.sealed).sum();

    let file = |ending: &str| format!("{}.{ending}", delivery.generation);
    let manifest_text = manifest.encode()?;
    // What a reader would refuse is not committed.
    Manifest::decode(&manifest_text).map_err(|_| DeliverError::Internal("the manifest breaks its own rules"))?;
    let stored = seal::seal_document(&place.seal_settings(), &place.spool, &file(names::MANIFEST), &manifest_text)?;
    let committed = clock::now();
    let commit = Commit {
        offsite: Kind::Generation,
        version: VERSION,
        site: place.settings.site.clone(),
        class: delivery.chain.class,
        chain: delivery.chain.name.clone(),
        generation: delivery.generation.clone(),
        number: delivery.number,
        sequence: previous.as_ref().map_or(1, |previous| previous.sequence + 1),
        grade: document.grade,
        cut: document.cut.not_after,
        committed,
        lifetime: document.lifetime,
        sources: u32::try_from(document.sources.len()).ok(),
        stream_bytes,
        needed_bytes,
        added_bytes,
        carried_bytes: (delivery.number == 0 && delivery.chain.is_carried()).then_some(carried_bytes),
        manifest: ObjectDigest { bytes: stored.bytes, sha256: stored.sha256 },
        packs: ObjectDigest { bytes: list.len() as u64, sha256: Sha256::of(&list) },
        previous: previous.map(|p| Previous { generation: p.generation, sha256: p.commit_sha256 }),
    };
    let text = commit.encode()?;
    let signature = place.settings.key.sign(&text, &commit.trusted_comment())?;
    let record = record_of(&commit, &document, &text);
    for (ending, bytes) in
        [(names::PACKS, list.as_slice()), (names::COMMIT, &text), (names::SIGNATURE, signature.as_bytes())]
    {
        let path = place.spool.path(&file(ending));
        durable::write(&path, bytes).map_err(|source| crate::spool::SpoolError::writing(path, source))?;
    }
    let digests = [
        (stored.bytes, stored.sha256),
        (commit.packs.bytes, commit.packs.sha256),
        (text.len() as u64, record.commit_sha256),
        (signature.len() as u64, Sha256::of(signature.as_bytes())),
    ];
    let folder = ChainFolder::new(place.settings.site, delivery.chain.class, &delivery.chain.name)?;
    let mut objects = Vec::new();
    for ((rank, ending), (bytes, sha256)) in (0..).zip(ENDINGS).zip(digests) {
        let key = folder.object(&delivery.generation, ending)?.to_string();
        objects.push(CommitObject { rank, key, file: file(ending), bytes, sha256, stored: false });
    }
    Ok(state.commit_prepared(delivery, &record, &objects)?)
}

/// Sends what is left of the documents, one after another; with the last one the generation exists.
pub(super) fn send(place: &Place<'_>, state: &mut State, delivery: &Delivery) -> Result<Delivered, DeliverError> {
    place.progress.begin(Stage::Sending, 0);
    for object in state.commit_objects(delivery)? {
        if object.stored {
            continue;
        }
        let key = object.key.parse()?;
        let path = place.spool.path(&object.file);
        let (id, bytes, sha256) = (i64::from(object.rank), object.bytes, object.sha256);
        let spooled = Spooled { id, key, path, bytes, sha256, parts: None, locked_until: place.locked_until };
        if *place.interrupt.borrow() {
            return Err(UploadError::Interrupted.into());
        }
        if place.is_in_spool(&spooled)? {
            place.progress.add_to_send(object.bytes);
            let (state, progress, mut buffer) = (state.reopen()?, place.progress, Vec::new());
            let sent = upload::send(place.target, state, &spooled, &mut buffer, progress, &place.interrupt);
            place.runtime.block_on(sent)?;
        }
        state.object_stored(delivery, object.rank)?;
    }
    let packs = state.packs(&delivery.chain, delivery.id)?;
    let notes = state.notes(&place.target.name)?;
    state.committed(delivery)?;
    let record = state
        .last_committed(&place.target.name)?
        .filter(|record| record.generation == delivery.generation)
        .ok_or(DeliverError::Internal("a committed generation is not recorded"))?;
    place.spool.keep_only(&|_| false)?;
    let (copied, sent): (Vec<&PackRecord>, Vec<&PackRecord>) =
        packs.iter().filter(|pack| pack.name.number == delivery.number).partition(|pack| pack.carried);
    let delivered = Delivered {
        chain: delivery.chain.name.clone(),
        full: delivery.number == 0,
        sequence: record.sequence,
        stream_bytes: record.stream_bytes,
        sent_bytes: sent.iter().map(|pack| pack.sealed).sum(),
        sent_packs: sent.len() as u64,
        copied_bytes: copied.iter().map(|pack| pack.sealed).sum(),
        notes,
    };
    match heartbeat(place, &record) {
        Ok(()) => Ok(delivered),
        Err(DeliverError::Store(source)) => Err(DeliverError::Heartbeat { delivered: Box::new(delivered), source }),
        Err(error) => Err(error),
    }
}

/// Tells the world that the site is alive. The generation exists already.
fn heartbeat(place: &Place<'_>, record: &CommittedRecord) -> Result<(), DeliverError> {
    let now = clock::now();
    let beat = Heartbeat {
        version: VERSION,
        site: place.settings.site.clone(),
        written: now,
        generation: record.generation.clone(),
        sequence: record.sequence,
        sha256: record.commit_sha256,
        grade: record.grade,
        promise: place.settings.schedule.and_then(|schedule| schedule.promise(now)),
    };
    let mut text = serde_json::to_vec_pretty(&beat)?;
    text.push(b'\n');
    let comment = format!("offsite heartbeat site={} sequence={}", beat.site, beat.sequence);
    let signature = place.settings.key.sign(&text, &comment)?;
    let site = names::site_prefix(place.settings.site)?;
    let signature_name = format!("{}.minisig", names::HEARTBEAT);
    for (name, bytes) in [(names::HEARTBEAT, text), (signature_name.as_str(), signature.into_bytes())] {
        let (key, body) = (site.key(name)?, Body::from_bytes(bytes));
        place.runtime.block_on(place.target.store.put(&key, &body, &PutOptions::OVERWRITE))?;
    }
    Ok(())
}

fn record_of(commit: &Commit, document: &Document, text: &[u8]) -> CommittedRecord {
    CommittedRecord {
        generation: commit.generation.clone(),
        sequence: commit.sequence,
        commit_sha256: Sha256::of(text),
        committed: commit.committed,
        grade: document.grade,
        stream_bytes: commit.stream_bytes,
        added_bytes: commit.added_bytes,
    }
}

fn make_manifest(
    place: &Place<'_>,
    delivery: &Delivery,
    packs: &[PackRecord],
    sealed: Sealed,
) -> Result<Manifest, DeliverError> {
    let full_bytes = if delivery.is_plain_full() {
        sealed.stream_bytes
    } else if delivery.chain.is_carried() {
        // No run of positions is the stream of a full that is made of an earlier chain's packs.
        0
    } else {
        delivery.chain.full_bytes
    };
    let needed = needed_packs(packs, &sealed);
    let numbers: BTreeMap<i64, u32> = needed.iter().map(|pack| pack.id).zip(0..).collect();
    let mut extents = Vec::with_capacity(sealed.extents.len());
    for raw in sealed.extents {
        extents.push(match (raw.extent, raw.patch_pack) {
            (Extent::Patch(mut patch), Some(pack)) => {
                patch.pack = *numbers.get(&pack).ok_or(DeliverError::Internal("a patch pack is not recorded"))?;
                Extent::Patch(patch)
            }
            (extent, _) => extent,
        });
    }
    let head = Head {
        offsite: manifest::Kind::Manifest,
        version: VERSION,
        site: place.settings.site.clone(),
        class: delivery.chain.class,
        chain: delivery.chain.name.clone(),
        generation: delivery.generation.clone(),
        number: delivery.number,
        stream_bytes: sealed.stream_bytes,
        full_bytes,
        entries_at: sealed.entries_at,
        entries_bytes: sealed.entries_bytes,
        entries_sha256: sealed.entries_sha256,
    };
    let packs = needed
        .into_iter()
        .map(|pack| Pack { name: pack.name, at: pack.at, content: pack.content, sealed: pack.sealed })
        .collect();
    Ok(Manifest { head, packs, extents })
}

/// The packs that some extent or some patch's reference touches, in the order of `packs`.
fn needed_packs<'p>(packs: &'p [PackRecord], sealed: &Sealed) -> Vec<&'p PackRecord> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut patch_packs: Vec<i64> = Vec::new();
    for raw in &sealed.extents {
        match raw.extent {
            Extent::Plain { from, bytes } => runs.push((from, from + bytes)),
            Extent::Patch(patch) => runs.push((patch.reference, patch.reference + patch.reference_bytes)),
        }
        patch_packs.extend(raw.patch_pack);
    }
    runs.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in runs {
        match joined.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    patch_packs.sort_unstable();
    let touched = |pack: &PackRecord| {
        let first = joined.partition_point(|(_, to)| *to <= pack.at);
        joined.get(first).is_some_and(|(from, _)| *from < pack.at + pack.content)
    };
    let needed = |pack: &&PackRecord| {
        if pack.name.patches { patch_packs.binary_search(&pack.id).is_ok() } else { touched(pack) }
    };
    packs.iter().filter(needed).collect()
}

/// What `sha256sum -c` reads: every pack the generation needs.
fn pack_list(manifest: &Manifest) -> Vec<u8> {
    let lines = manifest.packs.iter().map(|pack| format!("{}  packs/{}\n", pack.name.sha256, pack.name));
    lines.collect::<String>().into_bytes()
}
