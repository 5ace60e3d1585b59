//! Bringing one staged generation into one store: sealing and sending side by side, then the commit.
//!
//! The commit is the signature, put last; until it is there the generation does not exist. Every step is recorded when it
//! is durable, and the same call after a crash goes on where the last one stopped.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::format::Sha256;
use crate::format::names::ChainFolder;
use crate::generation::Class;
use crate::ids::{GenerationId, SiteName};
use crate::keys::Recipients;
use crate::progress::{Progress, Stage};
use crate::schedule::Schedule;
use crate::seal::{self, SealError, SealRequest, SealSettings, Sealed};
use crate::sign::SiteKey;
use crate::spool::Spool;
use crate::staging::LocalGeneration;
use crate::state::{Delivery, Phase, State};
use crate::upload::{self, Interrupt, Spooled, StoreTarget, UploadError};

mod begin;
mod carry;
mod commit;
mod error;
mod lock;

pub use error::DeliverError;
pub use lock::LockTerms;

/// Packs that a full may have: four digits number them, and by hand they are taken in the order of their names.
const FULL_PACKS_MAX: u64 = 9000;

/// Asks for the packs of committed generations only.
const NO_DELIVERY: i64 = -1;

/// How generations are brought into stores.
#[derive(Clone, Copy, Debug)]
pub struct DeliverSettings<'a> {
    /// The office.
    pub site: &'a SiteName,
    /// The state folder; the spool is below it.
    pub state_folder: &'a Path,
    /// To whom everything is sealed.
    pub recipients: &'a Recipients,
    /// What commits are signed with.
    pub key: &'a SiteKey,
    /// zstd's compression level.
    pub level: i32,
    /// Sealing waits when the spool holds this many bytes.
    pub spool_bytes: u64,
    /// A chain takes generations for so many days.
    pub chain_days: u32,
    /// A chain takes so many generations, the full included.
    pub chain_generations: u32,
    /// Digests of packs that a verification found bad: they are not carried over into new chains.
    pub bad_packs: &'a BTreeSet<Sha256>,
    /// What happens by itself: the heartbeat tells when the next run is due.
    pub schedule: Option<&'a Schedule>,
}

/// A generation that a store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The chain it is in.
    pub chain: GenerationId,
    /// Whether it is the chain's full.
    pub full: bool,
    /// Its place among all generations of the site in the store.
    pub sequence: u64,
    /// Bytes of its stream.
    pub stream_bytes: u64,
    /// Bytes of the packs that were sent for it.
    pub sent_bytes: u64,
    /// Packs that were sent for it.
    pub sent_packs: u64,
    /// Bytes of the packs that the store copied for it.
    pub copied_bytes: u64,
    /// What was found in the store before, that somebody has to look into: a sentence each.
    pub notes: Vec<String>,
}

/// Where a delivery takes place.
pub(crate) struct Place<'a> {
    pub(crate) settings: &'a DeliverSettings<'a>,
    pub(crate) target: &'a StoreTarget,
    pub(crate) runtime: &'a Handle,
    pub(crate) spool: Spool,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) interrupt: Interrupt,
    /// Until when what is sent is locked, if it is.
    pub(crate) locked_until: Option<Timestamp>,
    /// What was found in the store that somebody has to look into.
    pub(crate) notes: Vec<String>,
}

/// Brings `generation` into the store of `target`. `local` are all local generations, from which hashes and references
/// are taken. Without a generation, the one that is unfinished is committed; it must have been sealed to its end.
#[expect(clippy::too_many_arguments, reason = "the parts of a run, each owned by the caller")]
pub fn deliver(
    settings: &DeliverSettings<'_>,
    target: &StoreTarget,
    class: Class,
    generation: Option<&LocalGeneration>,
    local: &[LocalGeneration],
    state: &mut State,
    runtime: &Handle,
    progress: &Arc<Progress>,
    interrupt: Interrupt,
) -> Result<Delivered, DeliverError> {
    if let Some(why) = &target.unfit {
        return Err(DeliverError::Unfit { why: why.clone() });
    }
    let spool = Spool::open(settings.state_folder, &target.name)?;
    let mut place =
        Place { settings, target, runtime, spool, progress, interrupt, locked_until: None, notes: Vec::new() };
    let previous = place.previous_commit(state)?;
    let unfinished = state.unfinished(&target.name)?;
    if let Some(delivery) = &unfinished {
        place.check_stored(state, delivery)?;
    }
    let delivery = match (unfinished, generation) {
        (Some(delivery), None) => delivery,
        (Some(delivery), Some(generation)) if delivery.generation == *generation.id() => delivery,
        (Some(_), Some(_)) => return Err(DeliverError::Internal("another generation is unfinished")),
        (None, Some(generation)) => place.begin(state, class, generation, local)?,
        (None, None) => return Err(DeliverError::Internal("no generation is unfinished")),
    };
    place.locked_until = place.lock_of(state, &delivery, generation)?;
    let delivery = place.copy_carried(state, delivery)?;
    place.clean_spool(state, &delivery)?;
    if delivery.phase == Phase::Sealing {
        let generation = generation.ok_or(DeliverError::Internal("the staged copy is gone"))?;
        let sealed = place.seal_and_send(state, &delivery, generation, local)?;
        commit::prepare(&place, state, &delivery, generation, sealed, previous)?;
    }
    commit::send(&place, state, &delivery)
}

/// The size of the packs of a full generation with so much content.
pub(crate) fn full_pack_bytes(target: &StoreTarget, content: u64) -> u64 {
    target.pack_bytes.max(content / FULL_PACKS_MAX)
}

/// Gives up what was begun for a generation that cannot be finished: its staged copy is gone, or worse.
pub fn abandon(settings: &DeliverSettings<'_>, target: &StoreTarget, state: &mut State) -> Result<(), DeliverError> {
    if let Some(delivery) = state.unfinished(&target.name)? {
        state.abandon(&delivery)?;
    }
    Ok(Spool::open(settings.state_folder, &target.name)?.keep_only(&|_| false)?)
}

impl Place<'_> {
    /// Removes what no record speaks of: the leftovers of a run that died while it wrote them.
    fn clean_spool(&self, state: &State, delivery: &Delivery) -> Result<(), DeliverError> {
        let packs = state.packs(&delivery.chain, delivery.id)?;
        let mut wanted: BTreeSet<String> =
            packs.iter().filter(|pack| !pack.stored).map(|pack| pack.name.to_string()).collect();
        wanted.extend(state.commit_objects(delivery)?.into_iter().map(|object| object.file));
        Ok(self.spool.keep_only(&|name| wanted.contains(name))?)
    }

    /// Seals on threads while packs are sent; the channel between holds as many packs as the spool may.
    fn seal_and_send(
        &self,
        state: &mut State,
        delivery: &Delivery,
        generation: &LocalGeneration,
        local: &[LocalGeneration],
    ) -> Result<Sealed, DeliverError> {
        let total: u64 = generation.document()?.sources.iter().map(|source| source.bytes).sum();
        self.progress.begin(Stage::Sealing, total);
        let folder = ChainFolder::new(self.settings.site, delivery.chain.class, &delivery.chain.name)?;
        let waiting = self.waiting_packs(state, delivery, &folder)?;
        let locked_until = self.locked_until;
        let mut settings = self.seal_settings();
        if delivery.is_plain_full() {
            settings.pack_bytes = full_pack_bytes(self.target, total);
        }
        let room = (self.settings.spool_bytes / settings.pack_bytes.max(1)).saturating_sub(4).clamp(1, 1024);
        let (sender, receiver) = mpsc::channel(usize::try_from(room).unwrap_or(1));
        let mut sending_state = state.reopen()?;

        std::thread::scope(|scope| {
            let sealing = scope.spawn(move || {
                for object in waiting {
                    self.progress.add_to_send(object.bytes);
                    if sender.blocking_send(object).is_err() {
                        return Err(SealError::Stopped);
                    }
                }
                let find = |id: &GenerationId| local.iter().find(|local| local.id() == id);
                let request = SealRequest {
                    generation,
                    previous: generation.previous()?.as_ref().and_then(find),
                    full: find(&delivery.chain.origin),
                    later: LocalGeneration::between(local, &delivery.chain.origin, &delivery.generation),
                    delivery,
                };
                let stop = || sender.is_closed(); // when sending has failed or somebody asks to stop
                seal::seal(&settings, &request, &self.spool, state, self.progress, &stop, |pack, parts| {
                    let Ok(key) = folder.pack(&pack.name) else { return false };
                    let path = self.spool.path(&pack.name.to_string());
                    let (bytes, sha256) = (pack.sealed, pack.name.sha256);
                    let object = Spooled { id: pack.id, key, path, bytes, sha256, parts, locked_until };
                    self.progress.add_to_send(pack.sealed);
                    sender.blocking_send(object).is_ok()
                })
            });
            let sent = self.runtime.block_on(upload::send_all(
                self.target,
                &mut sending_state,
                receiver,
                self.interrupt.clone(),
                self.progress,
                |state, object| {
                    state.pack_stored(object.id)?;
                    self.spool.remove(object.key.name()).map_err(|error| {
                        let source = std::io::Error::other(error);
                        UploadError::Spool { path: object.path.clone(), source }
                    })
                },
            ));
            let sealed = sealing.join().unwrap_or(Err(SealError::Internal("a thread panicked")));
            match (sealed, sent) {
                // When sending fails, sealing stops; the cause is what is reported.
                (Err(SealError::Stopped), Err(error)) | (Ok(_), Err(error)) => Err(error.into()),
                (Err(error), _) => Err(error.into()),
                (Ok(sealed), Ok(())) => Ok(sealed),
            }
        })
    }

    /// Packs that an earlier run sealed and did not get to store, proved to be what it sealed.
    fn waiting_packs(
        &self,
        state: &mut State,
        delivery: &Delivery,
        folder: &ChainFolder,
    ) -> Result<Vec<Spooled>, DeliverError> {
        let mut waiting = Vec::new();
        for pack in state.packs(&delivery.chain, delivery.id)?.into_iter().filter(|pack| !pack.stored) {
            let path = self.spool.path(&pack.name.to_string());
            let key = folder.pack(&pack.name)?;
            let (bytes, sha256) = (pack.sealed, pack.name.sha256);
            let locked_until = self.locked_until;
            let object = Spooled { id: pack.id, key, path, bytes, sha256, parts: None, locked_until };
            if self.is_in_spool(&object)? {
                waiting.push(object);
            } else {
                state.pack_stored(pack.id)?;
            }
        }
        Ok(waiting)
    }

    /// Whether a sealed object waits in the spool as it was sealed; if not, the store has it, or it is lost.
    pub(crate) fn is_in_spool(&self, object: &Spooled) -> Result<bool, DeliverError> {
        let name = object.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if self.spool.holds(name, object.bytes, &object.sha256)? {
            return Ok(true);
        }
        let is_there = upload::is_there(self.target.store.as_ref(), object);
        if self.runtime.block_on(is_there)? {
            Ok(false)
        } else {
            Err(DeliverError::SpoolLost { object: name.to_owned() })
        }
    }

    pub(crate) fn seal_settings(&self) -> SealSettings<'_> {
        SealSettings {
            recipients: self.settings.recipients,
            level: self.settings.level,
            pack_bytes: self.target.pack_bytes,
            part_bytes: self
                .target
                .store
                .multipart()
                .map(|multipart| self.target.part_bytes(multipart))
                .filter(|part| *part < self.target.pack_bytes),
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}
