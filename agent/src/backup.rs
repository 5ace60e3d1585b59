//! One run: finish what an earlier run left, capture a new generation, bring it into every store.
//!
//! Each store has its own chains and its own state; what one of them refuses does not hurt the others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::calendar::Age;
use crate::capture::{self, CaptureError, CaptureRequest, CutSettings, Event, HolderProgram, SourceConfig};
use crate::clock;
use crate::config::Span;
use crate::deliver::{self, DeliverError, DeliverSettings, Delivered};
use crate::failure::one_line;
use crate::generation::{Class, Document};
use crate::ids::{GenerationId, StoreName};
use crate::progress::{Progress, Stage};
use crate::staging::{FolderLock, LocalGeneration, Staging, StagingError};
use crate::state::{Delivery, Phase, State, StateError};
use crate::upload::{Inserted, Interrupt, StoreTarget, UploadError};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct BackupRequest<'a> {
    /// How generations are brought into stores.
    pub settings: DeliverSettings<'a>,
    /// The staging folder.
    pub staging: &'a Path,
    /// What is captured.
    pub sources: &'a [SourceConfig],
    /// How the instant is had.
    pub cut: &'a CutSettings,
    /// How to start a holder.
    pub holder: &'a HolderProgram,
    /// What an earlier run left unfinished holds the capture up no longer than this.
    pub wait: Duration,
    /// Begin a new chain in every store, also in those that are no target now: a key was added, or damage was found.
    pub fresh_chain: bool,
    /// The stores.
    pub targets: &'a [StoreTarget],
}

/// What a run did.
#[derive(Debug)]
pub struct BackupReport {
    /// The new generation; absent when the run only finished an earlier one.
    pub generation: Option<(GenerationId, Document)>,
    /// What became of generations that an earlier run left unfinished.
    pub resumed: Vec<Outcome>,
    /// What became of the new generation in each store.
    pub stores: Vec<Outcome>,
}

/// What became of one generation in one store.
#[derive(Debug)]
pub struct Outcome {
    /// The store, as the configuration calls it.
    pub store: StoreName,
    /// What the state remembers it by: that, or the name of the disk of a rotation.
    pub place: StoreName,
    /// Which disk, if it is one of a rotation.
    pub disk: Option<Inserted>,
    /// The generation.
    pub generation: GenerationId,
    /// What was delivered, or why not.
    pub result: Result<Delivered, OutcomeError>,
}

impl Outcome {
    fn of(target: &StoreTarget, generation: GenerationId, result: Result<Delivered, OutcomeError>) -> Self {
        let (store, place) = (target.store_name().clone(), target.name.clone());
        Self { store, place, disk: target.disk.clone(), generation, result }
    }

    /// Whether it was stopped where it can be gone on with.
    fn was_interrupted(&self) -> bool {
        matches!(self.result, Err(OutcomeError::Deliver(DeliverError::Upload(UploadError::Interrupted))))
    }

    /// What the store has of it: all of it, or nothing.
    pub fn delivered(&self) -> Option<&Delivered> {
        match &self.result {
            Ok(delivered) => Some(delivered),
            Err(OutcomeError::Deliver(DeliverError::Heartbeat { delivered, .. })) => Some(delivered),
            Err(_) => None,
        }
    }

    /// Whether it is still to be finished, and the next generation has to wait for it.
    fn is_in_the_way(&self) -> bool {
        matches!(&self.result, Err(OutcomeError::Deliver(_))) && self.delivered().is_none()
    }
}

/// Why a generation is not in a store.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// It was tried and failed.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// It was begun by an earlier run, and its staged copy is gone.
    #[error(
        "it was half stored by an earlier run, and its staged copy is gone: it was given up, and later ones are stored as \
         ever; what was sent of it goes when its chain does"
    )]
    Abandoned,
    /// It was begun by an earlier run, and cannot be finished.
    #[error(
        "it was half stored by an earlier run and can never be finished: it was given up, and what was sent of it is left over"
    )]
    GivenUp(#[source] DeliverError),
    /// Its packs are larger than the configuration asks for by now.
    #[error(
        "it was half stored by an earlier run in packs that are larger than the configuration asks for by now: it was given \
         up, and what was sent of it is left over"
    )]
    LargerPacks,
    /// The store has no room for it, and a smaller one is waiting.
    #[error(
        "the store has no room for it: it was given up for a newer generation of less than half its size, and what was \
         sent of it is left over"
    )]
    TooLarge(#[source] DeliverError),
    /// An earlier generation of this store could not be finished, so this one was not begun.
    #[error("an earlier generation could not be finished in this store, so this one was not sent")]
    Behind,
}

/// Why there was no run at all.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The staging folder cannot be used, or another run holds it.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// No generation could be captured.
    #[error("nothing could be captured")]
    Capture(#[from] CaptureError),
    /// Somebody asked to stop.
    #[error("the run was interrupted; the next one goes on from here")]
    Interrupted,
}

/// What keeps a run together: made once, handed to each step.
pub struct Run<'a> {
    request: BackupRequest<'a>,
    staging: Staging,
    state: State,
    /// Two configurations with one state folder would clean each other's spool away.
    _state_lock: FolderLock,
    runtime: Handle,
    progress: Arc<Progress>,
    interrupt: Interrupt,
    lifetime: Option<Age>,
}

impl<'a> Run<'a> {
    /// Takes the site's lock and opens its state. One run at a time.
    pub fn begin(
        request: BackupRequest<'a>,
        runtime: Handle,
        progress: Arc<Progress>,
        interrupt: Interrupt,
    ) -> Result<Self, BackupError> {
        let now = clock::now();
        let staging = Staging::open(request.staging, now)?;
        let state = State::open(request.settings.state_folder, request.settings.site)?;
        let state_lock = FolderLock::take(request.settings.state_folder, now)?;
        state.check()?;
        // The lock is ours, so whoever wrote these is dead; an unfinished capture is of no use to anyone.
        for draft in staging.abandoned()? {
            draft.remove()?;
        }
        Ok(Self { request, staging, state, _state_lock: state_lock, runtime, progress, interrupt, lifetime: None })
    }

    /// The same, but that an archival generation is kept so long; for ever if it is not said.
    #[must_use]
    pub fn kept_for(self, lifetime: Option<Age>) -> Self {
        Self { lifetime, ..self }
    }

    /// Finishes what an earlier run left, then captures one generation and brings it into every store. What takes too long
    /// to finish is gone on with after the capture, so that the copy is of the time that it was wanted for.
    pub fn backup(mut self, class: Class, label: Option<&str>) -> Result<BackupReport, BackupError> {
        let (mut resumed, late) = self.resume_for_a_while()?;
        let local = self.staging.generations()?;
        self.check_interrupt()?;
        let generation = self.capture(class, label, newest_readable(&local)).inspect_err(|_| tell(&resumed))?;
        if late {
            let all = self.interrupt.clone();
            for again in self.resume(&all)? {
                resumed.retain(|outcome| outcome.store != again.store);
                resumed.push(again);
            }
        }
        let id = generation.id().clone();
        let document = generation.document()?;
        let local = self.staging.generations()?;
        if self.request.fresh_chain {
            self.state.close_chains()?;
        }
        let mut stores = Vec::new();
        for target in self.request.targets {
            self.check_interrupt()?;
            let earlier = resumed.iter_mut().find(|outcome| outcome.store == *target.store_name());
            let behind = match earlier.filter(|outcome| outcome.is_in_the_way()) {
                Some(outcome) => !self.makes_way(target, outcome, &document, &local)?,
                None => false,
            };
            let result = if behind {
                Err(OutcomeError::Behind)
            } else {
                let interrupt = self.interrupt.clone();
                self.deliver(target, class, Some(&generation), &local, interrupt).map_err(OutcomeError::from)
            };
            stores.push(Outcome::of(target, id.clone(), result));
        }
        Ok(BackupReport { generation: Some((id, document)), resumed, stores })
    }

    /// Only finishes what an earlier run left.
    pub fn finish(mut self) -> Result<BackupReport, BackupError> {
        let all = self.interrupt.clone();
        let resumed = self.resume(&all)?;
        Ok(BackupReport { generation: None, resumed, stores: Vec::new() })
    }

    /// As [`Run::resume`], for no longer than the request says; and whether there was more to do.
    fn resume_for_a_while(&mut self) -> Result<(Vec<Outcome>, bool), BackupError> {
        let (wait, mut asked) = (self.request.wait, self.interrupt.clone());
        let (sender, until) = watch::channel(*asked.borrow());
        // The other end has to live as long as whoever listens: they take its end for a wish to stop.
        let timer = self.runtime.spawn(async move {
            tokio::select! {
                _ = asked.wait_for(|stop| *stop) => {}
                () = tokio::time::sleep(wait) => {}
                () = sender.closed() => return,
            }
            sender.send_replace(true);
            sender.closed().await;
        });
        let outcomes = self.resume(&until);
        timer.abort();
        let outcomes = outcomes?;
        self.check_interrupt()?;
        let late: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.was_interrupted()).collect();
        for Outcome { store, generation, .. } in &late {
            tracing::warn!(
                "{generation} is still not whole in {store} after {}: the new copy is made first, so that it is of its own \
                 time, and the old one is gone on with then",
                Span(wait)
            );
        }
        let late = !late.is_empty();
        Ok((outcomes, late))
    }

    fn resume(&mut self, interrupt: &Interrupt) -> Result<Vec<Outcome>, BackupError> {
        let local = self.staging.generations()?;
        let mut outcomes = Vec::new();
        for target in self.request.targets {
            self.check_interrupt()?;
            let Some(delivery) = self.state.unfinished(&target.name)? else { continue };
            let generation = local.iter().find(|local| *local.id() == delivery.generation);
            // Once everything is sealed, the staged copy is not needed any more.
            let result = if self.has_larger_packs(target, &delivery, generation)? {
                Err(self.give_up(target, OutcomeError::LargerPacks))
            } else if generation.is_some() || delivery.phase == Phase::Committing {
                tracing::info!(store = %target.name, generation = %delivery.generation, "going on with an earlier run");
                match self.deliver(target, delivery.chain.class, generation, &local, interrupt.clone()) {
                    Err(error) if error.is_hopeless() => Err(self.give_up(target, OutcomeError::GivenUp(error))),
                    other => other.map_err(OutcomeError::from),
                }
            } else {
                Err(self.give_up(target, OutcomeError::Abandoned))
            };
            outcomes.push(Outcome::of(target, delivery.generation, result));
        }
        Ok(outcomes)
    }

    /// Whether packs still wait that are far larger than they are to be: whoever asks for smaller ones has a line that larger
    /// ones do not get through.
    fn has_larger_packs(
        &self,
        target: &StoreTarget,
        delivery: &Delivery,
        generation: Option<&LocalGeneration>,
    ) -> Result<bool, BackupError> {
        // Without its copy it is not sealed anew.
        let Some(generation) = generation else { return Ok(false) };
        // Where it cannot be read, delivering says so.
        let Ok(document) = generation.document() else { return Ok(false) };
        let content = document.sources.iter().map(|source| source.bytes).sum();
        let wanted = deliver::full_pack_bytes(target, content);
        let packs = self.state.packs(&delivery.chain, delivery.id)?;
        let mut waiting = packs.iter().filter(|pack| !pack.stored);
        Ok(waiting.any(|pack| pack.sealed / 4 > wanted))
    }

    /// Gives up what a store has no room for, if the new generation is clearly smaller: something that was far too large
    /// must not hold up everything after it. Answers whether the way is free.
    fn makes_way(
        &mut self,
        target: &StoreTarget,
        earlier: &mut Outcome,
        new: &Document,
        local: &[LocalGeneration],
    ) -> Result<bool, BackupError> {
        let Err(OutcomeError::Deliver(error)) = &earlier.result else { return Ok(false) };
        let old = local.iter().find(|local| *local.id() == earlier.generation);
        let Some(old) = old.filter(|_| error.is_for_lack_of_room()).and_then(|old| old.document().ok()) else {
            return Ok(false);
        };
        let bytes = |document: &Document| document.sources.iter().map(|source| source.bytes).sum::<u64>();
        if bytes(new) >= bytes(&old) / 2 {
            return Ok(false);
        }
        let why = std::mem::replace(&mut earlier.result, Err(OutcomeError::Behind));
        earlier.result = match why {
            Err(OutcomeError::Deliver(error)) => Err(self.give_up(target, OutcomeError::TooLarge(error))),
            other => other,
        };
        Ok(!earlier.is_in_the_way())
    }

    fn give_up(&mut self, target: &StoreTarget, why: OutcomeError) -> OutcomeError {
        match deliver::abandon(&self.request.settings, target, &mut self.state) {
            Ok(()) => why,
            Err(error) => error.into(),
        }
    }

    fn capture(
        &self,
        class: Class,
        label: Option<&str>,
        previous: Option<&LocalGeneration>,
    ) -> Result<LocalGeneration, BackupError> {
        let id = GenerationId::new(clock::now());
        let draft = self.staging.begin(&id, previous)?;
        self.progress.begin(Stage::Capturing, 0);
        let own_folders: [PathBuf; 1] = [self.request.settings.state_folder.to_owned()];
        let request = CaptureRequest {
            site: self.request.settings.site,
            class,
            label,
            lifetime: self.lifetime.filter(|_| class == Class::Archival),
            sources: self.request.sources,
            cut: self.request.cut,
            holder: self.request.holder,
            own_folders: &own_folders,
        };
        let progress = &self.progress;
        let watch = |event: Event<'_>| {
            if let Event::Copied { bytes, .. } = event {
                progress.add_done(bytes);
            }
        };
        capture::capture(&request, draft, previous, &watch).map_err(|error| {
            // It may have filled the disk, which others need. What cannot be removed now, the next run removes.
            for draft in self.staging.abandoned().unwrap_or_default() {
                draft.remove().ok();
            }
            error.into()
        })
    }

    fn deliver(
        &mut self,
        target: &StoreTarget,
        class: Class,
        generation: Option<&LocalGeneration>,
        local: &[LocalGeneration],
        interrupt: Interrupt,
    ) -> Result<Delivered, DeliverError> {
        deliver::deliver(
            &self.request.settings,
            target,
            class,
            generation,
            local,
            &mut self.state,
            &self.runtime,
            &self.progress,
            interrupt,
        )
    }

    fn check_interrupt(&self) -> Result<(), BackupError> {
        if *self.interrupt.borrow() { Err(BackupError::Interrupted) } else { Ok(()) }
    }
}

/// The newest generation that can serve the next one: without it only time is lost, so what is damaged is passed over.
fn newest_readable(local: &[LocalGeneration]) -> Option<&LocalGeneration> {
    local.iter().rev().find(|generation| match generation.document() {
        Ok(_) => true,
        Err(error) => {
            let id = generation.id();
            tracing::warn!(
                error = one_line(&error),
                "the local generation {id} cannot be read and is passed over; what stores have of it is not harmed"
            );
            false
        }
    })
}

/// When there is no report to say it in: what became of what an earlier run had left.
fn tell(resumed: &[Outcome]) {
    for Outcome { store, generation, result, .. } in resumed {
        match result {
            Ok(_) => tracing::warn!(%store, %generation, "this earlier generation was finished before"),
            Err(error) => {
                tracing::warn!(%store, %generation, error = one_line(error), "an earlier one is not finished")
            }
        }
    }
}
