//! A full that is made in the store: packs of the chain before it are copied there instead of being sent again.

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use providers::{ErrorKind, ObjectKey, ObjectStore, Retry};

use self::plan::{Chunk, Usage};
use super::{DeliverError, NO_DELIVERY, Place};
use crate::failure::one_line;
use crate::format::names::{ChainFolder, PackName};
use crate::format::{CHUNK_BYTES_MAX, tar};
use crate::progress::Stage;
use crate::seal;
use crate::staging::LocalGeneration;
use crate::state::{CarriedPack, ChainRecord, CopyOrder, Delivery, Phase, State};
use crate::upload::UploadError;

mod plan;

/// Copies under way at once.
const PARALLEL: usize = 4;

/// What is left to be sent.
#[derive(Default)]
struct Left {
    /// Packs that were not copied.
    packs: Vec<i64>,
    /// Something may lie under the name of one of them.
    something: bool,
    /// Why the first of them was not.
    why: Option<String>,
}

/// What became of a copy.
enum Copied {
    /// It is there, and proved.
    Whole,
    /// It cannot be had, or is not what it should be; and whether something may lie under its name now.
    Not { why: String, is_there: bool, all: bool },
}

impl Place<'_> {
    /// Whether a new chain could have packs of `open`, which has ended: the store copies, and the bytes that patches refer to
    /// are at hand.
    pub(super) fn may_carry(&self, open: &ChainRecord, local: &[LocalGeneration]) -> bool {
        self.target.store.copying().is_some() && local.iter().any(|local| *local.id() == open.origin)
    }

    /// The packs of `open` that a new chain's full is made of; none if it is better sent as a whole. What is in use is judged
    /// by the newest generation whose hashes are known already, so that nothing is read for it.
    pub(super) fn worth_carrying(
        &self,
        state: &State,
        open: &ChainRecord,
        generation: &LocalGeneration,
        local: &[LocalGeneration],
    ) -> Result<Vec<CarriedPack>, DeliverError> {
        let earlier = LocalGeneration::between(local, &open.origin, generation.id());
        let origin = local.iter().filter(|local| *local.id() == open.origin);
        let candidates = std::iter::once(generation).chain(earlier.iter().rev()).chain(origin);
        let mut known = candidates.filter_map(|known| seal::known_files(generation, known).transpose());
        let Some(files) = known.next() else { return Ok(Vec::new()) };
        let mut usage = Usage::new(state.packs(open, NO_DELIVERY)?, open.content_bytes);
        for file in files? {
            let (bytes, chunks) = file?;
            let mut left = bytes;
            // Headers are no chunks that anybody remembers; they stand where their files do.
            let mut before = tar::BLOCK;
            for hash in &chunks {
                let size = left.min(CHUNK_BYTES_MAX as u64);
                left -= size;
                let after = if left == 0 { tar::padding(bytes) as u64 } else { 0 };
                usage.add(&Chunk { bytes: size, before, after, location: state.find_chunk(open, hash)? });
                before = 0;
            }
            usage.add(&Chunk { bytes: left, before, after: 0, location: None });
        }
        let folder = ChainFolder::new(self.settings.site, open.class, &open.name)?;
        // What cannot be put in one request cannot be copied in one.
        let largest = self.target.store.limits().put_bytes_max;
        let mut carried = Vec::new();
        for (order, pack) in (1..).zip(usage.worth_carrying(self.settings.bad_packs, largest)) {
            let name = PackName { number: 0, order, ..pack.name };
            carried.push(CarriedPack { id: pack.id, name, source: folder.pack(&pack.name)?.to_string() });
        }
        Ok(carried)
    }

    /// Makes the copies that are still to be made, before anything is sealed that refers to them. What cannot be copied is
    /// sealed anew. Answers with the delivery as it is then.
    pub(super) fn copy_carried(&self, state: &mut State, delivery: Delivery) -> Result<Delivery, DeliverError> {
        if delivery.phase != Phase::Sealing {
            return Ok(delivery);
        }
        let orders = state.copies_to_make(&delivery)?;
        if orders.is_empty() {
            return Ok(delivery);
        }
        self.progress.begin(Stage::Copying, orders.iter().map(|order| order.sealed).sum());
        let left = self.runtime.block_on(self.copy_all(state, &delivery, &orders))?;
        let Some(why) = left.why else { return Ok(delivery) };
        tracing::warn!(
            store = %self.target.name,
            "{} of {} packs could not be copied in the store; what is in them is sent again: {why}",
            left.packs.len(),
            orders.len()
        );
        let nothing = state.packs(&delivery.chain, delivery.id)?.len() == left.packs.len() && !left.something;
        Ok(state.not_carried(&delivery, &left.packs, nothing)?)
    }

    async fn copy_all(
        &self,
        state: &mut State,
        delivery: &Delivery,
        orders: &[CopyOrder],
    ) -> Result<Left, DeliverError> {
        let folder = ChainFolder::new(self.settings.site, delivery.chain.class, &delivery.chain.name)?;
        let store = self.target.store.as_ref();
        let mut not = Left::default();
        let mut rest = orders.iter();
        // One alone first: a store that refuses one refuses all.
        for parallel in [1, PARALLEL] {
            let these = rest.by_ref().take(if parallel == 1 { 1 } else { usize::MAX });
            let copies = these.map(|order| {
                let to = folder.pack(&order.pack.name);
                async move { Ok::<_, DeliverError>((order, one(store, order, &to?, self.locked_until).await?)) }
            });
            let mut copies = stream::iter(copies).buffer_unordered(parallel);
            while let Some(copied) = copies.next().await {
                let (order, copied) = copied?;
                self.progress.add_done(order.sealed);
                match copied {
                    Copied::Whole => state.pack_stored(order.pack.id)?,
                    Copied::Not { why, is_there, all } => {
                        tracing::info!(pack = %order.pack.source, why, "a pack is not carried over");
                        not.something |= is_there;
                        not.packs.push(order.pack.id);
                        not.why.get_or_insert(why);
                        if all {
                            // Of those that are under way nobody knows.
                            not.something |= parallel > 1;
                            not.packs = state.copies_to_make(delivery)?.iter().map(|left| left.pack.id).collect();
                            return Ok(not);
                        }
                    }
                }
                if *self.interrupt.borrow() {
                    return Err(UploadError::Interrupted.into());
                }
            }
        }
        Ok(not)
    }
}

/// Copies one pack and proves the copy, by the digest that the store computed or by reading it back, and its lock. An error
/// is one of the store as a whole.
async fn one(
    store: &dyn ObjectStore,
    order: &CopyOrder,
    to: &ObjectKey,
    locked_until: Option<Timestamp>,
) -> Result<Copied, DeliverError> {
    let not = |why: String, is_there, all| Ok(Copied::Not { why, is_there, all });
    let Some(copying) = store.copying() else { return not("the store does not copy any more".to_owned(), true, true) };
    let from: ObjectKey = order.pack.source.parse()?;
    let sha256 = order.pack.name.sha256.0;
    let refused = match copying.copy(&from, to, locked_until).await {
        Ok(Some(said)) if said == sha256 => return Ok(Copied::Whole),
        Ok(_) => None,
        // An earlier copy whose reply was lost.
        Err(error) if error.kind == ErrorKind::AlreadyExists && is_locked(store, to, locked_until).await? => None,
        Err(error) => Some(error),
    };
    let Some(error) = refused else {
        return match providers::holds(store, to, order.sealed, &sha256).await? {
            Some(_) => Ok(Copied::Whole),
            None => not(format!("the copy of `{from}` is not what was stored once: it is damaged"), true, false),
        };
    };
    match error.kind {
        ErrorKind::NotFound => return not(one_line(&error), false, false),
        ErrorKind::AlreadyExists => {
            return not(format!("`{to}` is there, and not locked as it has to be"), true, false);
        }
        ErrorKind::OutOfSpace => return Err(error.into()),
        _ => {}
    }
    // Whether the store refuses this or does not answer at all; and a copy may be there that is not locked.
    let found = store.head(&to.clone().into()).await;
    match found {
        Err(silent) if silent.retry != Retry::Never => Err(silent.into()),
        found => not(one_line(&error), found.is_ok() || error.retry != Retry::Never, true),
    }
}

/// Whether an object that is there is locked as long as it has to be.
async fn is_locked(
    store: &dyn ObjectStore,
    object: &ObjectKey,
    until: Option<Timestamp>,
) -> Result<bool, providers::Error> {
    let (Some(until), Some(versions)) = (until, store.versions()) else { return Ok(until.is_none()) };
    let said = versions.locked_until(&object.clone().into()).await?;
    Ok(providers::lasts_until(said, until))
}
