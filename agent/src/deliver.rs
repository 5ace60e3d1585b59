//! Bringing one staged generation into one store: sealing and sending side by side, then the commit.
//!
//! The commit is the signature, put last; until it is there the generation does not exist. Every step is recorded when it
//! is durable, and the same call after a crash goes on where the last one stopped.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use providers::{Body, ErrorKind, KeyError, PutOptions};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::byhand::{RESTORE_SCRIPT, RESTORE_TEXT};
use crate::catalog::{self, CatalogError};
use crate::clock;
use crate::format::commit::Heartbeat;
use crate::format::names::{self, ChainFolder};
use crate::generation::Class;
use crate::ids::{GenerationId, SiteName};
use crate::keys::Recipients;
use crate::progress::{Progress, Stage};
use crate::seal::{self, SealError, SealRequest, SealSettings, Sealed};
use crate::sign::{SignError, SiteKey};
use crate::spool::{Spool, SpoolError};
use crate::staging::{LocalGeneration, StagingError};
use crate::state::{ChainRecord, CommittedRecord, Delivery, NewDelivery, Phase, State, StateError};
use crate::upload::{self, Spooled, StoreTarget, UploadError};

mod commit;

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
    /// What the store holds already cannot be read.
    #[error("what the store holds already cannot be made out")]
    Catalog(#[from] CatalogError),
    /// Signing failed.
    #[error("the generation cannot be signed")]
    Sign(#[from] SignError),
    /// Another machine has committed under the same name.
    #[error(
        "the store has generation number {found} of this site, and this machine knows of {known} only: another machine \
         stores under the same site name, or this machine was restored from an old copy. Nothing was sent. Give the other \
         machine a site name of its own; if this is the only one, move its state folder away (this costs one full upload)"
    )]
    OtherMachine {
        /// The sequence number in the store.
        found: u64,
        /// The sequence number in the state.
        known: u64,
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
    pub(crate) interrupt: watch::Receiver<bool>,
}

/// Brings `generation` into the store of `target`. `local` are all local generations, from which hashes and references
/// are taken.
#[expect(clippy::too_many_arguments, reason = "the parts of a run, each owned by the caller")]
pub fn deliver(
    settings: &DeliverSettings<'_>,
    target: &StoreTarget,
    class: Class,
    generation: &LocalGeneration,
    local: &[LocalGeneration],
    state: &mut State,
    runtime: &Handle,
    progress: &Arc<Progress>,
    interrupt: watch::Receiver<bool>,
) -> Result<Delivered, DeliverError> {
    let spool = Spool::open(settings.state_folder, &target.name)?;
    let place = Place { settings, target, runtime, spool, progress, interrupt };
    let previous = place.previous_commit(state)?;
    let delivery = match state.unfinished(&target.name)? {
        Some(delivery) if delivery.generation == *generation.id() => delivery,
        Some(_) => return Err(DeliverError::Internal("another generation is unfinished")),
        None => place.begin(state, class, generation)?,
    };
    place.clean_spool(state, &delivery)?;
    if delivery.phase == Phase::Sealing {
        let sealed = place.seal_and_send(state, &delivery, generation, local)?;
        commit::prepare(&place, state, &delivery, generation, sealed, previous)?;
    }
    commit::send(&place, state, &delivery)
}

/// Gives up what was begun for a generation whose staged copy is gone.
pub fn abandon(settings: &DeliverSettings<'_>, target: &StoreTarget, state: &mut State) -> Result<(), DeliverError> {
    if let Some(delivery) = state.unfinished(&target.name)? {
        state.abandon(&delivery)?;
    }
    Ok(Spool::open(settings.state_folder, &target.name)?.keep_only(&|_| false)?)
}

/// Whether the heartbeat speaks of a generation that this machine does not know.
fn ahead(beat: &Heartbeat, known: &CommittedRecord) -> bool {
    beat.sequence > known.sequence || (beat.sequence == known.sequence && beat.sha256 != known.commit_sha256)
}

impl Place<'_> {
    /// The newest generation in the store, by this machine's memory and the store's heartbeat, which have to agree.
    fn previous_commit(&self, state: &State) -> Result<Option<CommittedRecord>, DeliverError> {
        let known = state.last_committed(&self.target.name)?;
        let public = self.settings.key.public();
        let read = catalog::heartbeat(self.target.store.as_ref(), self.settings.site, public);
        let beat = self.runtime.block_on(read)?;
        match (known, beat) {
            (Some(known), Some(beat)) if ahead(&beat, &known) => {
                Err(DeliverError::OtherMachine { found: beat.sequence, known: known.sequence })
            }
            (Some(known), _) => Ok(Some(known)),
            (None, _) => {
                let listed = catalog::newest(self.target.store.as_ref(), self.settings.site, public);
                Ok(self.runtime.block_on(listed)?)
            }
        }
    }

    fn begin(&self, state: &mut State, class: Class, generation: &LocalGeneration) -> Result<Delivery, DeliverError> {
        let now = clock::now();
        let open = state.open_chain(&self.target.name)?;
        let chain = match (class, open) {
            (Class::Rolling, Some(open)) if self.takes_more(state, &open, now)? => Some(open),
            (Class::Rolling, Some(open)) => {
                state.close_chain(&open)?;
                None
            }
            _ => None,
        };
        self.help_texts()?;
        let new =
            NewDelivery { store: &self.target.name, class, generation: generation.id(), chain: chain.as_ref(), now };
        Ok(state.begin(&new)?)
    }

    fn takes_more(&self, state: &State, chain: &ChainRecord, now: Timestamp) -> Result<bool, StateError> {
        let age_days = now.duration_since(chain.opened).as_hours() / 24;
        let young = age_days < i64::from(self.settings.chain_days);
        Ok(young && state.chain_length(chain)? < self.settings.chain_generations)
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
        let total = generation.document()?.sources.iter().map(|source| source.bytes).sum();
        self.progress.begin(Stage::Sealing, total);
        let folder = ChainFolder::new(self.settings.site, delivery.chain.class, &delivery.chain.name)?;
        let waiting = self.waiting_packs(state, delivery, &folder)?;
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
                let settings = self.seal_settings();
                seal::seal(&settings, &request, &self.spool, state, self.progress, |pack| {
                    let Ok(key) = folder.pack(&pack.name) else { return false };
                    let path = self.spool.path(&pack.name.to_string());
                    let object = Spooled { id: pack.id, key, path, bytes: pack.sealed, sha256: pack.name.sha256 };
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

    /// Packs that an earlier run sealed and did not get to store.
    fn waiting_packs(
        &self,
        state: &State,
        delivery: &Delivery,
        folder: &ChainFolder,
    ) -> Result<Vec<Spooled>, DeliverError> {
        let packs = state.packs(&delivery.chain, delivery.id)?;
        let waiting = packs.into_iter().filter(|pack| !pack.stored).map(|pack| {
            let path = self.spool.path(&pack.name.to_string());
            let key = folder.pack(&pack.name)?;
            Ok(Spooled { id: pack.id, key, path, bytes: pack.sealed, sha256: pack.name.sha256 })
        });
        waiting.collect()
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
