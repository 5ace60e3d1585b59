//! `offsite prune`: what expires and why, and its removal. Nothing else in the program deletes generations.

pub(super) mod local;
mod report;

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use providers::{Access, ObjectStore, Policy};
use tokio::runtime::Runtime;

use super::output::{Output, say};
use super::stores::{self, OpenStore};
use super::{Ended, evidence, interrupt, key, load_place, show};
use crate::catalog::CatalogError;
use crate::cli::PruneArgs;
use crate::clock;
use crate::config::{Place, Pruner};
use crate::evidence::Record;
use crate::failure::{self, Failure, Kind};
use crate::format::pruned::Ranges;
use crate::progress::Progress;
use crate::prune::{self, Freed, Holds, Keeping, Plan, PruneError, Survey};
use crate::sign::{SiteKey, SitePublicKey};
use crate::staging::{FolderLock, Staging, StagingError};
use crate::state::{State, StateError};
use crate::upload::Interrupt;

use report::{Ending, PlaceReport, Report};

/// What a prune works with.
struct Prune<'a> {
    arguments: &'a PruneArgs,
    place: &'a Place,
    public: SitePublicKey,
    state: Option<State>,
    runtime: Runtime,
    interrupt: Interrupt,
}

pub(super) fn run(arguments: &PruneArgs, path: &Path, output: Output) -> Ended {
    let place = load_place(path)?;
    let failed = |error| Failure::new(Kind::Failed, error);
    let public = key::public_key(&place).map_err(failed)?.ok_or_else(|| {
        Failure::new(Kind::Failed, "without the site's key, nothing tells its own generations from others")
            .hint("put the site key from the recovery sheet into the configuration: [signing] public_key = \"RW…\"")
    })?;
    // A plan that is only shown writes nothing and waits for nobody.
    let locks = if arguments.dry_run { None } else { lock(&place, clock::now()).map_err(locked)? };
    let state = state(&place)?;
    let interrupt = interrupt::watch(&Progress::default().into())?;
    let mut prune = Prune { arguments, place: &place, public, state, runtime: stores::runtime()?, interrupt };
    let report = prune.all(locks.as_ref().map(|locks| &locks.0))?;
    let code = report.exit_code();
    output.result_with(code, &report, || report.text())?;
    for line in report.complaints() {
        say(&line);
    }
    Ok(code)
}

/// What this machine remembers; looking must not make it.
pub(super) fn state(place: &Place) -> Result<Option<State>, Failure> {
    if !place.state.join("state.db").exists() {
        return Ok(None);
    }
    State::open(&place.state, &place.site).map(Some).map_err(|error| {
        let kind = if matches!(error, StateError::OtherSite { .. }) { Kind::Usage } else { Kind::Failed };
        Failure::new(kind, error)
    })
}

/// The locks that a run takes: prune and run wait for each other on this machine.
fn lock(place: &Place, now: Timestamp) -> Result<Option<(Staging, FolderLock)>, StagingError> {
    if !place.staging.exists() && !place.state.exists() {
        return Ok(None);
    }
    let staging = Staging::open(&place.staging, now)?;
    crate::durable::create_folder(&place.state).map_err(|e| StagingError::io("create the folder", &place.state, e))?;
    let state = FolderLock::take(&place.state, now)?;
    for draft in staging.abandoned()? {
        draft.remove()?;
    }
    Ok(Some((staging, state)))
}

pub(super) fn locked(error: StagingError) -> Failure {
    let kind = if matches!(error, StagingError::Locked { .. }) { Kind::Locked } else { Kind::Failed };
    Failure::new(kind, error)
}

impl Prune<'_> {
    /// Every store, then this machine: what is held in any store is held here as well.
    fn all(&mut self, staging: Option<&Staging>) -> Result<Report, Failure> {
        let mut places = Vec::new();
        let access = if self.arguments.dry_run { Access::Agent } else { Access::Keeper };
        let (open, closed) = stores::open(self.place, None, access, &Policy::default())?;
        if closed.is_empty() {
            self.check_lifted(&open)?;
        }
        let mut held = Vec::new();
        for store in &open {
            if *self.interrupt.borrow() {
                return Err(Failure::new(Kind::Interrupted, PruneError::Interrupted));
            }
            let report = match self.store(store) {
                Ok((survey, report)) => {
                    held.push(survey.holds);
                    report
                }
                Err(error) => self.told(PlaceReport::failed(&store.shown(), kind(&error), failure::chain(&error))),
            };
            places.push(report);
        }
        places.extend(
            closed.iter().map(|store| {
                self.told(PlaceReport::failed(store.config.name.as_str(), store.kind(), store.messages()))
            }),
        );
        places.extend(self.local(staging, &held)?.map(|report| self.told(report)));
        Ok(Report { site: self.place.site.to_string(), dry_run: self.arguments.dry_run, places })
    }

    /// What was done in a place goes into the evidence log at once: what comes after it may fail.
    fn told(&self, report: PlaceReport) -> PlaceReport {
        if let Some(record) = report.record() {
            evidence::record(self.place, Record::Prune(record));
        }
        report
    }

    fn local(&self, staging: Option<&Staging>, held: &[Holds]) -> Result<Option<PlaceReport>, Failure> {
        let plan = local::plan(self.place, &self.public, self.state.as_ref(), &self.runtime, held)?;
        let Some(plan) = plan else { return Ok(None) };
        let ending = match staging {
            None => Ending::Planned,
            Some(_) if !plan.is_free(&self.arguments.lift) => Ending::Braked,
            Some(staging) => {
                let failed = |error| Failure::new(Kind::Failed, error);
                let generations = prune::local::execute(staging, &plan).map_err(failed)?;
                Ending::Pruned { removed: Freed { generations, ..Freed::default() } }
            }
        };
        Ok(Some(PlaceReport::of_local(&plan, ending)))
    }

    /// Every plan that is to be lifted has to be one of today's. That of a place that cannot be looked at may be any.
    fn check_lifted(&self, open: &[OpenStore<'_>]) -> Result<(), Failure> {
        let lifted = &self.arguments.lift;
        if lifted.is_empty() {
            return Ok(());
        }
        let (mut plans, mut held) = (Vec::new(), Vec::new());
        for store in open {
            let Ok((survey, plan)) = self.plan(store) else { return Ok(()) };
            plans.push((store.shown(), plan.hash, plan.brakes.is_empty()));
            held.push(survey.holds);
        }
        let local = local::plan(self.place, &self.public, self.state.as_ref(), &self.runtime, &held)?;
        plans.extend(local.map(|plan| ("this machine".to_owned(), plan.hash, plan.brakes.is_empty())));
        let unknown = lifted.iter().find(|lifted| plans.iter().all(|(_, hash, _)| hash != *lifted));
        let Some(unknown) = unknown else { return Ok(()) };
        let what = format!("`--lift {}` fits no plan of today: nothing was removed", unknown.escape_debug());
        let braked: Vec<_> = plans.iter().filter(|(.., is_free)| !is_free).collect();
        let failure = Failure::new(Kind::Usage, what);
        if braked.is_empty() {
            return Err(failure.hint("nothing speaks against any plan: leave it out"));
        }
        let hints = braked.into_iter().map(|(place, hash, _)| {
            format!("for {place} it would be `--lift {hash}`; `offsite prune --dry-run` shows what that does")
        });
        Err(hints.fold(failure, Failure::hint))
    }

    fn plan(&self, open: &OpenStore<'_>) -> Result<(Survey, Plan), PruneError> {
        let limits = open.config.limits(&self.place.retention.limits);
        let pruners: Vec<_> = [&self.public].into_iter().chain(&self.place.keepers).cloned().collect();
        let keeping = Keeping {
            site: &self.place.site,
            key: &self.public,
            pruners: &pruners,
            calendar: &self.place.calendar,
            rules: &self.place.retention.rolling,
            limits: &limits,
        };
        let (store, name) = (open.store.as_ref(), open.place());
        let survey = self.runtime.block_on(async {
            let objects = prune::list_site(store, keeping.site).await?;
            prune::survey(store, &keeping, objects).await
        })?;
        let (mut remembered, mut alive) = (None, BTreeSet::new());
        if let Some(state) = &self.state {
            remembered = Some(state.remembered(name)?).filter(|known| !known.is_empty());
            alive.extend(state.unfinished(name)?.map(|delivery| delivery.chain.name));
        }
        let plan = prune::plan(&survey, &keeping, remembered.as_ref(), &alive);
        Ok((survey, plan))
    }

    fn store(&mut self, open: &OpenStore<'_>) -> Result<(Survey, PlaceReport), PruneError> {
        let (survey, plan) = self.plan(open)?;
        let (store, name) = (open.store.as_ref(), open.place());
        // Asked first, so that what was removed is known whatever the store answers then.
        let hidden = self.runtime.block_on(prune::hidden(store, &self.place.site))?;
        let ending = match open.config.prune {
            _ if self.arguments.dry_run => Ending::Planned,
            Pruner::Keeper => Ending::LeftToKeeper,
            Pruner::Agent => self.execute(store, &plan)?,
        };
        let has_pruned = matches!(ending, Ending::Pruned { .. });
        let report = self.told(PlaceReport::of_store(&open.shown(), &plan, hidden, ending));
        if let (true, Some(state)) = (has_pruned, &mut self.state) {
            state.pruned(name, &gone(&survey, &plan))?;
        }
        Ok((survey, report))
    }

    fn execute(&self, store: &dyn ObjectStore, plan: &Plan) -> Result<Ending, PruneError> {
        let lifted = &self.arguments.lift;
        if !plan.is_free(lifted) {
            return Ok(Ending::Braked);
        }
        if plan.is_empty() {
            return Ok(Ending::Pruned { removed: Freed::default() });
        }
        let signer = SiteKey::load(&self.place.signing_key)?;
        let done = prune::execute(store, plan, &signer, lifted, &self.interrupt);
        self.runtime.block_on(done).map(|removed| Ending::Pruned { removed })
    }
}

/// The numbers that were pruned, now or before, and are not there.
fn gone(survey: &Survey, plan: &Plan) -> Ranges {
    // A record may name more numbers than could be gone through one by one.
    let mut gone = survey.record.as_ref().map(|record| record.sequences.clone()).unwrap_or_default();
    for commit in survey.generations.iter().filter_map(|stored| stored.commit.as_ref()) {
        gone.remove(commit.sequence);
    }
    for sequence in plan.expired().filter_map(|judged| Some(judged.subject.facts.as_ref()?.sequence)) {
        gone.insert(sequence);
    }
    gone
}

pub(super) fn kind(error: &PruneError) -> Kind {
    match error {
        PruneError::Store { source, .. } | PruneError::Catalog(CatalogError::Store(source)) => {
            show::kind_of_store(source)
        }
        PruneError::Catalog(_) | PruneError::NoDeletion => Kind::Store,
        PruneError::Interrupted => Kind::Interrupted,
        PruneError::Sign(_)
        | PruneError::Braked(_)
        | PruneError::Json(_)
        | PruneError::Key(_)
        | PruneError::State(_) => Kind::Failed,
    }
}
