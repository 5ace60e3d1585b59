//! Before anything of a generation is sealed: that this machine and the store remember the same, and which chain goes on.

use std::time::Duration;

use jiff::Timestamp;

use super::{DeliverError, NO_DELIVERY, Place};
use crate::byhand;
use crate::catalog::{self, CatalogError};
use crate::clock;
use crate::format::Sha256;
use crate::format::commit::Heartbeat;
use crate::format::names::{self, ChainFolder};
use crate::generation::Class;
use crate::staging::LocalGeneration;
use crate::state::{CarriedPack, ChainRecord, CommittedRecord, Delivery, NewDelivery, State, StateError};

/// What an interrupted write left in a store is given up after this time: far longer than any upload of a run that lives.
const LEFTOVER_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

/// The chain that a new generation becomes part of.
enum Chain {
    /// The open one.
    Open(ChainRecord),
    /// A new one, with packs of the one before it.
    Carried(ChainRecord, Vec<CarriedPack>),
    /// A new one with nothing in it.
    New,
}

impl Place<'_> {
    /// The newest generation in the store, by this machine's memory and the store's heartbeat, which have to agree.
    pub(super) fn previous_commit(&self, state: &State) -> Result<Option<CommittedRecord>, DeliverError> {
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
            Some(ref beat) if known.is_some() => Some((beat.sequence, beat.sha256)),
            // Without a heartbeat that can be believed, the generations themselves say which is the newest.
            _ => {
                let newest = self.runtime.block_on(catalog::newest(store, self.settings.site, public))?;
                if known.is_none() {
                    // The newest may be there and not be readable: what follows it must not take its number.
                    let ahead =
                        beat.filter(|beat| newest.as_ref().is_none_or(|newest| newest.sequence < beat.sequence));
                    return Ok(ahead.map(named_by).or(newest));
                }
                newest.map(|newest| (newest.sequence, newest.commit_sha256))
            }
        };
        if let (Some(disk), Some(known)) = (&self.target.disk, &known)
            && found.is_none_or(|(sequence, _)| sequence < known.sequence)
        {
            // The heartbeat of a run that died may be missing; the generation is not.
            let newest = self.runtime.block_on(catalog::newest(store, self.settings.site, public))?;
            if newest.is_none_or(|newest| newest.sequence < known.sequence) {
                return Err(DeliverError::OtherDisk { slot: disk.slot.clone(), known: known.sequence });
            }
        }
        match (known, found) {
            (Some(known), Some(found)) if is_ahead(found, &known) => {
                let state = state.path().to_owned();
                Err(DeliverError::OtherMachine { found: found.0, known: known.sequence, state })
            }
            (known, _) => Ok(known),
        }
    }

    pub(super) fn begin(
        &mut self,
        state: &mut State,
        class: Class,
        generation: &LocalGeneration,
        local: &[LocalGeneration],
    ) -> Result<Delivery, DeliverError> {
        self.check_clock(class)?;
        let now = clock::now();
        let chain = match state.open_chain(&self.target.name)?.filter(|_| class == Class::Rolling) {
            Some(open) => self.goes_on(state, open, generation, local, now)?,
            None => Chain::New,
        };
        if !matches!(chain, Chain::Open(_)) {
            self.sweep();
        }
        self.help_texts()?;
        let (store, notes) = (&self.target.name, self.notes.as_slice());
        let new = |chain| NewDelivery { store, class, generation: generation.id(), chain, now, notes };
        Ok(match &chain {
            Chain::Open(open) => state.begin(&new(Some(open)))?,
            Chain::Carried(from, packs) => state.begin_carried(&new(None), from, packs)?,
            Chain::New => state.begin(&new(None))?,
        })
    }

    /// What becomes of the open chain: it takes the generation, its packs are carried over into a new one, or it is closed.
    fn goes_on(
        &mut self,
        state: &mut State,
        open: ChainRecord,
        generation: &LocalGeneration,
        local: &[LocalGeneration],
        now: Timestamp,
    ) -> Result<Chain, DeliverError> {
        // Asked also where the chain ends anyway: what it holds is to be found there for as long as it is kept.
        if !self.is_whole(state, &open)? {
            state.close_chain(&open, &self.notes)?;
            return Ok(Chain::New);
        }
        if self.takes_more(state, &open, now)? && self.is_undamaged(state, &open)? {
            if self.is_locked(&open)? {
                return Ok(Chain::Open(open));
            }
        } else if self.may_carry(&open, local) {
            let packs = self.worth_carrying(state, &open, generation, local)?;
            if !packs.is_empty() {
                return Ok(Chain::Carried(open, packs));
            }
        }
        state.close_chain(&open, &self.notes)?;
        Ok(Chain::New)
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

    /// That the store still has every pack that an earlier run stored for `delivery`: one that rested for long may have lost
    /// them as leftovers.
    pub(super) fn check_stored(&self, state: &State, delivery: &Delivery) -> Result<(), DeliverError> {
        let folder = ChainFolder::new(self.settings.site, delivery.chain.class, &delivery.chain.name)?;
        let there = self.runtime.block_on(catalog::objects(self.target.store.as_ref(), folder.prefix()))?;
        for pack in state.packs(&delivery.chain, delivery.id)?.iter().filter(|pack| pack.stored) {
            if !there.contains_key(&folder.pack(&pack.name)?) {
                return Err(DeliverError::SpoolLost { object: pack.name.to_string() });
            }
        }
        Ok(())
    }

    /// Whether the store still has all that the next generation of a chain would need. Another disk in the same place, or
    /// somebody who removed something, must not make generations that cannot be restored.
    fn is_whole(&mut self, state: &State, chain: &ChainRecord) -> Result<bool, DeliverError> {
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
            let are = if missing.len() == 1 { "object is" } else { "objects are" };
            self.note(format!(
                "{} {are} missing or cut short in {}, of the chain {}, such as `{first}`: a new chain was begun with a full \
                 generation. Find out whether this is the right disk or bucket, and run `offsite verify`",
                missing.len(),
                self.target.store_name(),
                chain.name
            ));
        }
        Ok(missing.is_empty())
    }

    /// Whether no verification on this machine found damage in what the next generation of a chain would need.
    fn is_undamaged(&mut self, state: &State, chain: &ChainRecord) -> Result<bool, DeliverError> {
        let packs = state.packs(chain, NO_DELIVERY)?;
        let damaged = packs.iter().find(|pack| self.settings.bad_packs.contains(&pack.name.sha256));
        if let Some(pack) = damaged {
            self.note(format!(
                "a verification found damage in `{}` of the chain {} in {}: a new chain was begun",
                pack.name,
                chain.name,
                self.target.store_name()
            ));
        }
        Ok(damaged.is_none())
    }

    /// Says it at once, since what is delivered may take hours, and with what is delivered.
    fn note(&mut self, what: String) {
        tracing::warn!(store = %self.target.name, "{what}");
        self.notes.push(what);
    }

    /// Puts the instructions for restoring by hand beside the data, once.
    fn help_texts(&self) -> Result<(), DeliverError> {
        let site = names::site_prefix(self.settings.site)?;
        Ok(self.runtime.block_on(byhand::put(self.target.store.as_ref(), &site))?)
    }
}

/// The newest generation, as far as a heartbeat tells.
fn named_by(beat: Heartbeat) -> CommittedRecord {
    CommittedRecord {
        generation: beat.generation,
        sequence: beat.sequence,
        commit_sha256: beat.sha256,
        committed: beat.written,
        grade: beat.grade,
        stream_bytes: 0,
        added_bytes: 0,
    }
}

/// Whether the store's newest generation, by sequence and digest, is one that this machine does not know.
fn is_ahead((sequence, sha256): (u64, Sha256), known: &CommittedRecord) -> bool {
    sequence > known.sequence || (sequence == known.sequence && sha256 != known.commit_sha256)
}
