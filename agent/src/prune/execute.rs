//! A plan, carried out: what it says is written down first, then signatures go, then documents, then packs.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use providers::{Body, Deletion, ErrorKind, ObjectKey, ObjectStore, PutOptions};

use super::{Plan, PruneError};
use crate::byhand;
use crate::format::names;
use crate::format::pruned::Pruned;
use crate::retention::Step;
use crate::sign::SiteKey;
use crate::upload::Interrupt;

/// Objects removed at once.
const PARALLEL: usize = 8;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Freed {
    /// Generations.
    pub generations: u64,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Does what `plan` says, unless it has a brake that none of `lifted` (hashes of plans) lifts.
///
/// Killed or failing at any point, it leaves every kept generation whole: what goes was needed by none. The next plan finds
/// what is left over, since each removed number stands in the record that `signer` signs before anything goes.
pub async fn execute(
    store: &dyn ObjectStore,
    plan: &Plan,
    signer: &SiteKey,
    lifted: &[String],
    interrupt: &Interrupt,
) -> Result<Freed, PruneError> {
    if !plan.is_free(lifted) {
        return Err(PruneError::Braked(plan.brakes.clone()));
    }
    let mut freed = Freed::default();
    if plan.is_empty() {
        return Ok(freed);
    }
    let deletion = store.deletion().ok_or(PruneError::NoDeletion)?;
    let mut made_room = false;
    if let Some(record) = &plan.record {
        made_room = write_with_room(store, deletion, record, signer).await?;
    }
    for step in [Step::Signature, Step::Document, Step::Pack] {
        let keys = plan.removals.iter().filter(|removal| removal.step == step);
        let removed = stream::iter(keys.map(|removal| async move {
            stop_if_asked(interrupt)?;
            delete(deletion, &removal.key).await.map(|()| removal.bytes)
        }));
        // Nothing of a step goes before all of the one before it has gone.
        let sizes: Vec<u64> = removed.buffer_unordered(PARALLEL).try_collect().await?;
        freed.objects += sizes.len() as u64;
        freed.bytes += sizes.iter().sum::<u64>();
        if step == Step::Signature {
            freed.generations += sizes.len() as u64;
        }
    }
    for key in &plan.old_records {
        delete(deletion, key).await?;
    }
    if made_room && let Some(record) = &plan.record {
        byhand::put(store, &names::site_prefix(&record.site)?).await.map_err(|source| PruneError::Store {
            doing: "the instructions for restoring by hand were put back",
            source,
        })?;
    }
    Ok(freed)
}

/// Writes the record. A store that is so full that not even this has room is pruned most urgently: the instructions for
/// restoring by hand, which every run brings anew, make room for it. Answers whether they had to.
async fn write_with_room(
    store: &dyn ObjectStore,
    deletion: &dyn Deletion,
    record: &Pruned,
    signer: &SiteKey,
) -> Result<bool, PruneError> {
    match write(store, record, signer).await {
        Err(PruneError::Store { source, .. }) if source.kind == ErrorKind::OutOfSpace => {}
        written => return written.map(|()| false),
    }
    let site = names::site_prefix(&record.site)?;
    for name in [names::RESTORE_TEXT, names::RESTORE_SCRIPT] {
        delete(deletion, &site.key(name)?).await?;
    }
    // The first half of it may have found room.
    delete(deletion, &site.key(&Pruned::name(record.number))?).await?;
    write(store, record, signer).await.map(|()| true)
}

async fn write(store: &dyn ObjectStore, record: &Pruned, signer: &SiteKey) -> Result<(), PruneError> {
    let text = record.encode()?;
    let signature = signer.sign(&text, &record.trusted_comment())?;
    let site = names::site_prefix(&record.site)?;
    let name = Pruned::name(record.number);
    for (name, bytes) in [(name.clone(), text), (format!("{name}.minisig"), signature.into_bytes())] {
        let put = store.put(&site.key(&name)?, &Body::from_bytes(bytes), &PutOptions::CREATE).await;
        put.map_err(|source| PruneError::Store { doing: "the record of what goes was written", source })?;
    }
    Ok(())
}

async fn delete(deletion: &dyn Deletion, key: &ObjectKey) -> Result<(), PruneError> {
    let failed = |source| PruneError::Store { doing: "an object was removed", source };
    deletion.delete(&key.clone().into()).await.map_err(failed)
}

fn stop_if_asked(interrupt: &Interrupt) -> Result<(), PruneError> {
    if *interrupt.borrow() { Err(PruneError::Interrupted) } else { Ok(()) }
}
