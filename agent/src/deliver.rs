//! Bringing one staged generation into one store: sealing and sending side by side, then the commit.
//!
//! The commit is the signature, put last; until it is there the generation does not exist. Every step is recorded when it
//! is durable, and the same call after a crash goes on where the last one stopped.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use providers::{Body, ErrorKind, KeyError, PutOptions};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::byhand::{RESTORE_SCRIPT, RESTORE_TEXT};
use crate::catalog::{self, CatalogError};
use crate::clock;
use crate::format::Sha256;
use crate::format::names::{self, ChainFolder};
use crate::generation::Class;
use crate::ids::{GenerationId, SiteName};
use crate::keys::Recipients;
use crate::progress::{Progress, Stage};
use crate::schedule::Schedule;
use crate::seal::{self, SealError, SealRequest, SealSettings, Sealed};
use crate::sign::{SignError, SiteKey};
use crate::spool::{Spool, SpoolError};
use crate::staging::{LocalGeneration, StagingError};
use crate::state::{ChainRecord, CommittedRecord, Delivery, NewDelivery, Phase, State, StateError};
use crate::upload::{self, Interrupt, Spooled, StoreTarget, UploadError};

mod commit;
mod lock;

pub use lock::LockTerms;

/// Asks for the packs of committed generations only.
const NO_DELIVERY: i64 = -1;
/// Packs that a full may have: four digits number them, and by hand they are taken in the order of their names.
const FULL_PACKS_MAX: u64 = 9000;

/// What an interrupted write left in a store is given up after this time: far longer than any upload of a run that lives.
const LEFTOVER_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

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
    /// Bytes of the packs that it added.
    pub added_bytes: u64,
    /// Packs that it added.
    pub added_packs: u64,
}

/// Why a generation is not in a store.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// Sealing failed.
    #[error("sealing the generation failed")]
    Seal(#[from] SealError),
    /// Sending failed.
    #[error("sending the generation failed")]
    Upload(#[from] UploadError),
    /// The state cannot be used.
    #[error("the state cannot be used")]
    State(#[from] StateError),
    /// The staged copy cannot be read.
    #[error("the staged generation cannot be read")]
    Staging(#[from] StagingError),
    /// The spool cannot be used.
    #[error("the spool cannot be used")]
    Spool(#[from] SpoolError),
    /// The store refused.
    #[error("the store refused")]
    Store(#[from] providers::Error),
    /// The generation is there; nobody has been told.
    #[error(
        "the generation is stored, but the store did not take the heartbeat that tells others of it; the next run writes \
         another one"
    )]
    Heartbeat {
        /// What is stored.
        delivered: Box<Delivered>,
        /// Why.
        #[source]
        source: providers::Error,
    },
    /// What had been sealed is neither in the spool nor in the store.
    #[error(
        "`{object}` was sealed by an earlier run, and is now missing or damaged in the spool, and not in the store; sealed \
         again it would be another object"
    )]
    SpoolLost {
        /// The object's name in the spool.
        object: String,
    },
    /// What the store holds already cannot be read.
    #[error("what the store holds already cannot be made out")]
    Catalog(#[from] CatalogError),
    /// Signing failed.
    #[error("the generation cannot be signed")]
    Sign(#[from] SignError),
    /// Another machine has committed under the same name.
    #[error(
        "the store has generation number {found} of this site, and this machine knows of {known} only: another machine \
         stores under the same site name, or this one was brought back from an old copy of itself. The generation is not \
         committed. Give the other machine a site name of its own; if there is no other, move {} away (this costs one full \
         upload)", state.display()
    )]
    OtherMachine {
        /// The sequence number in the store.
        found: u64,
        /// The sequence number in the state.
        known: u64,
        /// The state database.
        state: PathBuf,
    },
    /// What is to be locked would be locked until a wrong date.
    #[error(
        "this machine's clock is {ahead_s} s ahead of the store's (behind it, if negative): objects would be locked until a \
         wrong date, so nothing was sent; set the clock right"
    )]
    Clock {
        /// How far, in seconds.
        ahead_s: i64,
    },
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
    /// A document could not be written.
    #[error("a document has no text form")]
    Json(#[from] serde_json::Error),
    /// A contradiction inside the program.
    #[error("storing went wrong inside the program ({0}): please report this; nothing was committed")]
    Internal(&'static str),
}

/// Where a delivery takes place.
pub(crate) struct Place<'a> {
    pub(crate) settings: &'a DeliverSettings<'a>,
    pub(crate) target: &'a StoreTarget,
    pub(crate) runtime: &'a Handle,
    pub(crate) spool: Spool,
    pub(crate) progress: &'a Arc<Progress>,
    pub(crate) interrupt: Interrupt,
}

impl DeliverError {
    /// Whether the next try must fail as well: what is left of the generation on this machine, or what is in its way in
    /// the store, cannot become right by itself.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::SpoolLost { .. }
            | Self::Upload(UploadError::Foreign { .. } | UploadError::Unlocked { .. })
            | Self::Seal(SealError::Changed(_) | SealError::Staging(StagingError::Damaged { .. }))
            | Self::Staging(StagingError::Damaged { .. }) => true,
            // Such as a lock that the bucket cannot give: what was asked for will be refused each time.
            Self::Upload(UploadError::Store(error)) => error.kind == ErrorKind::Unsupported,
            Self::Seal(SealError::Read { source, .. } | SealError::Staging(StagingError::Io { source, .. }))
            | Self::Staging(StagingError::Io { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether the store has no room for more, or not for anything that large.
    pub fn is_for_lack_of_room(&self) -> bool {
        let (Self::Upload(UploadError::Store(error)) | Self::Store(error)) = self else { return false };
        error.kind == ErrorKind::OutOfSpace
    }
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
    let spool = Spool::open(settings.state_folder, &target.name)?;
    let place = Place { settings, target, runtime, spool, progress, interrupt };
    let previous = place.previous_commit(state)?;
    let delivery = match (state.unfinished(&target.name)?, generation) {
        (Some(delivery), None) => delivery,
        (Some(delivery), Some(generation)) if delivery.generation == *generation.id() => delivery,
        (Some(_), Some(_)) => return Err(DeliverError::Internal("another generation is unfinished")),
        (None, Some(generation)) => place.begin(state, class, generation)?,
        (None, None) => return Err(DeliverError::Internal("no generation is unfinished")),
    };
    place.clean_spool(state, &delivery)?;
    if delivery.phase == Phase::Sealing {
        let generation = generation.ok_or(DeliverError::Internal("the staged copy is gone"))?;
        let sealed = place.seal_and_send(state, &delivery, generation, local)?;
        commit::prepare(&place, state, &delivery, generation, sealed, previous)?;
    }
    commit::send(&place, state, &delivery)
}

/// Gives up what was begun for a generation that cannot be finished: its staged copy is gone, or worse.
pub fn abandon(settings: &DeliverSettings<'_>, target: &StoreTarget, state: &mut State) -> Result<(), DeliverError> {
    if let Some(delivery) = state.unfinished(&target.name)? {
        state.abandon(&delivery)?;
    }
    Ok(Spool::open(settings.state_folder, &target.name)?.keep_only(&|_| false)?)
}

/// Whether the store's newest generation, by sequence and digest, is one that this machine does not know.
fn is_ahead((sequence, sha256): (u64, Sha256), known: &CommittedRecord) -> bool {
    sequence > known.sequence || (sequence == known.sequence && sha256 != known.commit_sha256)
}

impl Place<'_> {
    /// The newest generation in the store, by this machine's memory and the store's heartbeat, which have to agree.
    fn previous_commit(&self, state: &State) -> Result<Option<CommittedRecord>, DeliverError> {
        let known = state.last_committed(&self.target.name)?;
        let (store, public) = (self.target.store.as_ref(), self.settings.key.public());
        let beat = match self.runtime.block_on(catalog::heartbeat(store, self.settings.site, public)) {
            // Without memory and with a key of its own, this machine is new or has lost everything: it may be right.
            Err(CatalogError::OtherKey { found }) if known.is_none() => {
                tracing::warn!(
                    store = %self.target.name,
                    "what is in the store is signed by another key ({found}). If another machine stores under this site's \
                     name, give one of them another name now; if this machine's key was lost, older generations need \
                     the old public key to be checked"
                );
                None
            }
            read => read?,
        };
        let found = match beat {
            Some(beat) if known.is_some() => Some((beat.sequence, beat.sha256)),
            // Without a heartbeat that can be believed, the generations themselves say which is the newest.
            _ => {
                let newest = self.runtime.block_on(catalog::newest(store, self.settings.site, public))?;
                if known.is_none() {
                    return Ok(newest);
                }
                newest.map(|newest| (newest.sequence, newest.commit_sha256))
            }
        };
        match (known, found) {
            (Some(known), Some(found)) if is_ahead(found, &known) => {
                let state = state.path().to_owned();
                Err(DeliverError::OtherMachine { found: found.0, known: known.sequence, state })
            }
            (known, _) => Ok(known),
        }
    }

    fn begin(&self, state: &mut State, class: Class, generation: &LocalGeneration) -> Result<Delivery, DeliverError> {
        self.check_clock(class)?;
        let now = clock::now();
        let open = state.open_chain(&self.target.name)?;
        let chain = match (class, open) {
            (Class::Rolling, Some(open))
                if self.takes_more(state, &open, now)? && self.is_whole(state, &open)? && self.is_locked(&open)? =>
            {
                Some(open)
            }
            (Class::Rolling, Some(open)) => {
                state.close_chain(&open)?;
                None
            }
            _ => None,
        };
        if chain.is_none() {
            self.sweep();
        }
        self.help_texts()?;
        let new =
            NewDelivery { store: &self.target.name, class, generation: generation.id(), chain: chain.as_ref(), now };
        Ok(state.begin(&new)?)
    }

    /// Gives up what interrupted writes of long ago left in the store. No delivery is under way, so nothing of it is of use.
    /// It takes room and does no harm, so a store that does not let the agent remove it is no reason not to go on.
    fn sweep(&self) {
        let sweep = async {
            let now = self.target.store.now().await?;
            let prefix = names::site_prefix(self.settings.site)?;
            Ok::<_, DeliverError>(self.target.store.sweep(&prefix, now - LEFTOVER_AGE).await?)
        };
        match self.runtime.block_on(sweep) {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(removed, store = %self.target.name, "leftovers of interrupted writes were removed")
            }
            Err(error) => tracing::info!(%error, store = %self.target.name, "leftovers could not be removed"),
        }
    }

    fn takes_more(&self, state: &State, chain: &ChainRecord, now: Timestamp) -> Result<bool, StateError> {
        let age_days = now.duration_since(chain.opened).as_hours() / 24;
        let young = age_days < i64::from(self.settings.chain_days);
        Ok(young && state.chain_length(chain)? < self.settings.chain_generations)
    }

    /// Whether the store still has all that the next generation of a chain would need. Another disk in the same place, or
    /// somebody who removed something, must not make generations that cannot be restored.
    fn is_whole(&self, state: &State, chain: &ChainRecord) -> Result<bool, DeliverError> {
        let folder = ChainFolder::new(self.settings.site, chain.class, &chain.name)?;
        let there = self.runtime.block_on(catalog::objects(self.target.store.as_ref(), folder.prefix()))?;
        let mut missing = Vec::new();
        let signature = folder.object(&chain.name, names::SIGNATURE)?;
        if !there.contains_key(&signature) {
            missing.push(signature);
        }
        for pack in state.packs(chain, NO_DELIVERY)? {
            let key = folder.pack(&pack.name)?;
            if there.get(&key) != Some(&pack.sealed) {
                missing.push(key);
            }
        }
        if let Some(first) = missing.first() {
            tracing::warn!(
                store = %self.target.name,
                "{} objects of the chain {} are missing or cut short, such as `{first}`: a new chain is begun with a full \
                 generation. Find out whether this is the right disk or bucket, and run `offsite verify`",
                missing.len(),
                chain.name
            );
        }
        Ok(missing.is_empty())
    }

    /// Puts the instructions for restoring by hand beside the data, once.
    fn help_texts(&self) -> Result<(), DeliverError> {
        let site = names::site_prefix(self.settings.site)?;
        for (name, text) in [(names::RESTORE_TEXT, RESTORE_TEXT), (names::RESTORE_SCRIPT, RESTORE_SCRIPT)] {
            let (key, body) = (site.key(name)?, Body::from_bytes(text.as_bytes()));
            match self.runtime.block_on(self.target.store.put(&key, &body, &PutOptions::CREATE)) {
                Err(error) if error.kind != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

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
        let locked_until = self.locked_until(&delivery.chain);
        let room = (self.settings.spool_bytes / self.target.pack_bytes.max(1)).saturating_sub(4).clamp(1, 1024);
        let (sender, receiver) = mpsc::channel(usize::try_from(room).unwrap_or(1));
        let mut sending_state = state.reopen()?;

        std::thread::scope(|scope| {
            let sealing = scope.spawn(move || {
                for object in waiting {
                    if sender.blocking_send(object).is_err() {
                        return Err(SealError::Stopped);
                    }
                }
                let find = |id: &GenerationId| local.iter().find(|local| local.id() == id);
                let request = SealRequest {
                    generation,
                    previous: generation.previous()?.as_ref().and_then(find),
                    full: find(&delivery.chain.name),
                    delivery,
                };
                let mut settings = self.seal_settings();
                if delivery.number == 0 {
                    settings.pack_bytes = settings.pack_bytes.max(total / FULL_PACKS_MAX);
                }
                // Nobody takes packs any more when sending has failed or somebody asks to stop.
                let stop = || sender.is_closed();
                seal::seal(&settings, &request, &self.spool, state, self.progress, &stop, |pack| {
                    let Ok(key) = folder.pack(&pack.name) else { return false };
                    let path = self.spool.path(&pack.name.to_string());
                    let (bytes, sha256) = (pack.sealed, pack.name.sha256);
                    let object = Spooled { id: pack.id, key, path, bytes, sha256, locked_until };
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
            let locked_until = self.locked_until(&delivery.chain);
            let object = Spooled { id: pack.id, key, path, bytes, sha256, locked_until };
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
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}
