//! One run: finish what an earlier run left, capture a new generation, bring it into every store.
//!
//! Each store has its own chains and its own state; what one of them refuses does not hurt the others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::capture::{self, CaptureError, CaptureRequest, CutSettings, Event, HolderProgram, SourceConfig};
use crate::clock;
use crate::deliver::{self, DeliverError, DeliverSettings, Delivered};
use crate::generation::{Class, Document};
use crate::ids::{GenerationId, StoreName};
use crate::progress::{Progress, Stage};
use crate::staging::{LocalGeneration, Staging, StagingError};
use crate::state::{State, StateError};
use crate::upload::StoreTarget;

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
    /// The store.
    pub store: StoreName,
    /// The generation.
    pub generation: GenerationId,
    /// What was delivered, or why not.
    pub result: Result<Delivered, OutcomeError>,
}

/// Why a generation is not in a store.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// It was tried and failed.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// It was begun by an earlier run, and its staged copy is gone.
    #[error(
        "it was half stored by an earlier run, and its staged copy is gone: it was given up, and what was sent of it is left over"
    )]
    Abandoned,
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
    runtime: Handle,
    progress: Arc<Progress>,
    interrupt: watch::Receiver<bool>,
}

impl<'a> Run<'a> {
    /// Takes the site's lock and opens its state. One run at a time.
    pub fn begin(
        request: BackupRequest<'a>,
        runtime: Handle,
        progress: Arc<Progress>,
        interrupt: watch::Receiver<bool>,
    ) -> Result<Self, BackupError> {
        let staging = Staging::open(request.staging, clock::now())?;
        let state = State::open(request.settings.state_folder, request.settings.site)?;
        // The lock is ours, so whoever wrote these is dead; an unfinished capture is of no use to anyone.
        for draft in staging.abandoned()? {
            draft.remove()?;
        }
        Ok(Self { request, staging, state, runtime, progress, interrupt })
    }

    /// Finishes what an earlier run left, then captures one generation and brings it into every store.
    pub fn backup(mut self, class: Class, label: Option<&str>) -> Result<BackupReport, BackupError> {
        let resumed = self.resume()?;
        let local = self.staging.generations()?;
        self.check_interrupt()?;
        let generation = self.capture(class, label, local.last())?;
        let id = generation.id().clone();
        let document = generation.document()?;
        let local = self.staging.generations()?;
        let mut stores = Vec::new();
        for target in self.request.targets {
            self.check_interrupt()?;
            let behind = resumed.iter().any(|outcome| {
                outcome.store == target.name && matches!(&outcome.result, Err(OutcomeError::Deliver(_)))
            });
            let result = if behind {
                Err(OutcomeError::Behind)
            } else {
                self.deliver(target, class, &generation, &local).map_err(OutcomeError::from)
            };
            stores.push(Outcome { store: target.name.clone(), generation: id.clone(), result });
        }
        Ok(BackupReport { generation: Some((id, document)), resumed, stores })
    }

    /// Only finishes what an earlier run left.
    pub fn finish(mut self) -> Result<BackupReport, BackupError> {
        let resumed = self.resume()?;
        Ok(BackupReport { generation: None, resumed, stores: Vec::new() })
    }

    fn resume(&mut self) -> Result<Vec<Outcome>, BackupError> {
        let local = self.staging.generations()?;
        let mut outcomes = Vec::new();
        for target in self.request.targets {
            self.check_interrupt()?;
            let Some(delivery) = self.state.unfinished(&target.name)? else { continue };
            let result = match local.iter().find(|local| *local.id() == delivery.generation) {
                Some(generation) => {
                    tracing::info!(store = %target.name, generation = %delivery.generation, "going on with an earlier run");
                    self.deliver(target, delivery.chain.class, generation, &local).map_err(OutcomeError::from)
                }
                None => match deliver::abandon(&self.request.settings, target, &mut self.state) {
                    Ok(()) => Err(OutcomeError::Abandoned),
                    Err(error) => Err(error.into()),
                },
            };
            outcomes.push(Outcome { store: target.name.clone(), generation: delivery.generation, result });
        }
        Ok(outcomes)
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
        Ok(capture::capture(&request, draft, previous, &watch)?)
    }

    fn deliver(
        &mut self,
        target: &StoreTarget,
        class: Class,
        generation: &LocalGeneration,
        local: &[LocalGeneration],
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
            self.interrupt.clone(),
        )
    }

    fn check_interrupt(&self) -> Result<(), BackupError> {
        if *self.interrupt.borrow() { Err(BackupError::Interrupted) } else { Ok(()) }
    }
}
