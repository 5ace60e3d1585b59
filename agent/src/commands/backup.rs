//! `offsite backup`: one generation now, to every store.

mod archival;
mod last;
mod report;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::bars::Bars;
use super::output::{Output, Problems, say};
use super::pulse::Pulse;
use super::recipients::{self, Change};
use super::stores::{self, OpenStore};
use super::{Ended, evidence, interrupt, key, load_config, output, preflight};
use crate::backup::{BackupError, BackupReport, BackupRequest, Run};
use crate::calendar::Age;
use crate::capture::{CutSettings, HolderProgram, SourceConfig};
use crate::cli::BackupArgs;
use crate::clock;
use crate::config::{Config, Place, Problem};
use crate::deliver::DeliverSettings;
use crate::evidence::Record;
use crate::failure::{self, Failure, Kind};
use crate::generation::Class;
use crate::probed;
use crate::progress::Progress;
use crate::sign::{SignError, SiteKey};
use crate::staging::StagingError;
use crate::state::State;
use crate::upload::StoreTarget;

pub(super) use last::LastRun;
pub(super) use report::Report;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct What<'a> {
    pub(super) class: Class,
    /// A new chain in every store.
    pub(super) full: bool,
    /// Nothing new: only what an earlier run left is finished.
    pub(super) resume: bool,
    pub(super) label: Option<&'a str>,
    /// How long an archival generation is kept; for ever if absent.
    pub(super) lifetime: Option<Age>,
    /// Also to the disk of a rotation that the last generation lies on.
    pub(super) same_disk: bool,
}

pub(super) fn run(arguments: &BackupArgs, path: &Path, quiet: bool, output: Output) -> Ended {
    let config = load_config(path)?;
    let what = What {
        class: if arguments.archive { Class::Archival } else { Class::Rolling },
        full: arguments.full,
        resume: arguments.resume,
        label: arguments.label.as_deref(),
        lifetime: arguments.keep,
        same_disk: arguments.same_disk,
    };
    let report = execute(&config, what, quiet)?;
    let code = report.exit_code();
    output.deed(code, &report, || report.text())?;
    for line in report.complaints() {
        say(&line);
    }
    Ok(code)
}

/// One run, whose end is remembered for `offsite status` and in the evidence log.
pub(super) fn execute(config: &Config, what: What<'_>, quiet: bool) -> Result<Report, Failure> {
    let began = clock::now();
    if preflight::is_anothers(&config.place) || preflight::other_site(&config.place).is_some() {
        // Nothing is told of it, either: who runs this can read what is wrong.
        look_first(config, what)?;
    }
    // A service that is told of a beginning waits for an end: where there is nothing to finish, nothing happens.
    if !what.resume || preflight::is_unfinished(&config.place) {
        super::report::begins(&config.place);
    }
    let result = attempt(config, what, quiet);
    // There was nothing to finish, so nothing has happened.
    if result.as_ref().is_ok_and(Report::is_empty) {
        return result;
    }
    let is_recorded = record(&result, began).is_some_and(|run| evidence::record(&config.place, Record::Run(run)));
    let last = LastRun::of(&result, clock::now());
    let last = match &result {
        Ok(report) if what.resume => last.map(|last| last.after(LastRun::read(&config.place.state), report)),
        _ => last,
    };
    if let Some(last) = last
        && let Err((path, error)) = last.write(&config.place.state)
    {
        say(&format!("warning: how this run ended could not be written to {}: {error}", path.display()));
    }
    if let Ok(report) = &result
        && is_recorded
    {
        told(&config.place, report);
    }
    result
}

/// The next run need not tell again what this one found.
fn told(place: &Place, report: &Report) {
    let mut found = report.found().peekable();
    if found.peek().is_none() {
        return;
    }
    let told = State::open(&place.state, &place.site)
        .and_then(|mut state| found.try_for_each(|(store, notes)| state.told(store, notes)));
    if let Err(error) = told {
        let error = failure::one_line(&error);
        say(&format!(
            "warning: that these warnings were told is not remembered, so the next run repeats them: {error}"
        ));
    }
}

/// What the evidence log keeps of a run; nothing if another run was under way, which will tell of itself.
fn record(result: &Result<Report, Failure>, began: Timestamp) -> Option<crate::evidence::Run> {
    match result {
        Ok(report) => Some(report.record(began)),
        Err(failure) if failure.kind() == Kind::Locked => None,
        Err(failure) => Some(crate::evidence::Run {
            began: Some(began),
            exit_code: failure.kind().code(),
            messages: output::messages(failure),
            hints: failure.hints().to_vec(),
            ..Default::default()
        }),
    }
}

/// An error that names everything on this machine that can be known to make the run fail.
fn look_first(config: &Config, what: What<'_>) -> Result<(), Failure> {
    // What an earlier run left is finished in any case; that takes no room in staging.
    let room = if what.resume || preflight::is_unfinished(&config.place) { None } else { preflight::room(config) };
    let mut problems = preflight::problems(config);
    let absent = preflight::absent_sources(config);
    // What is missing is named by the generation that has the rest. Where nothing is there, there is no rest.
    if !what.resume && absent.iter().all(|problems| !problems.is_empty()) {
        problems.extend(absent.into_iter().flatten());
    }
    // A full disk is nothing that is wrong with the configuration.
    let kind = if problems.is_empty() { Kind::Failed } else { Kind::Usage };
    problems.extend(room.and_then(|room| room.problem(config)));
    if !problems.is_empty() {
        let what = "the run was not begun, and nothing was written".to_owned();
        return Err(Failure::new(kind, Problems { what, problems }));
    }
    Ok(())
}

/// Everything that can be known to fail is looked at first; then it runs.
fn attempt(config: &Config, what: What<'_>, quiet: bool) -> Result<Report, Failure> {
    look_first(config, what)?;
    if let Err(error) = crate::drill::sweep(&config.place.drill.settings.scratch) {
        say(&format!("warning: what a drill that was killed has left could not be removed: {error}"));
    }
    let change = Change::since_last(&config.place.state, &config.recipients);
    change.iter().flat_map(Change::lines).for_each(|line| say(&format!("note: {line}")));
    let sources = resolve(config)?;
    let (stores, missing) = stores::open_for_writing(&config.place, what.same_disk || what.resume)?;
    let key = signing_key(&config.place.signing_key)?;
    let targets: Vec<StoreTarget> = stores.iter().map(target).collect();
    let holder = HolderProgram::this().map_err(|error| Failure::new(Kind::Failed, error))?;
    let bad_packs = evidence::bad_packs(&config.place);
    let cut = CutSettings { hold_limit: config.capture.hold_limit, ..CutSettings::default() };
    let request = BackupRequest {
        settings: DeliverSettings {
            site: &config.place.site,
            state_folder: &config.place.state,
            recipients: &config.recipients,
            key: &key,
            level: config.seal.level,
            spool_bytes: config.seal.spool_bytes,
            chain_days: config.chain.days,
            chain_generations: config.chain.generations,
            bad_packs: &bad_packs,
            schedule: Some(&config.place.schedule),
        },
        staging: &config.place.staging,
        sources: &sources,
        cut: &cut,
        holder: &holder,
        wait: config.capture.wait,
        fresh_chain: what.full || change.as_ref().is_some_and(Change::needs_new_chains),
        targets: &targets,
    };
    let runtime = stores::runtime()?;
    let progress = Arc::new(Progress::default());
    let interrupt = interrupt::watch(&progress)?;
    let _bars = Bars::show(&progress, quiet);
    let run = |request: BackupRequest<'_>, what: What<'_>| -> Result<BackupReport, Failure> {
        let run = Run::begin(request, runtime.handle().clone(), Arc::clone(&progress), interrupt.clone());
        let run = run.map_err(failure)?.kept_for(what.lifetime);
        // Only now: a run that another one keeps out must not tell of itself in its place.
        let _pulse = Pulse::start(&progress, &config.place.state);
        if what.resume { run.finish() } else { run.backup(what.class, what.label) }.map_err(failure)
    };
    let report = Report::of(&run(request, what)?).with_missing_disks(&missing);
    // What only finished an earlier run has begun no chain that new keys open.
    if !what.resume
        && let Err(error) = recipients::remember(&config.place.state, &config.recipients)
    {
        say(&format!("warning: to whom this was sealed could not be written down: {error}"));
    }
    if what.class == Class::Archival || what.resume {
        return Ok(report);
    }
    let archival = archival::due(&config.place, key.public(), &targets, &runtime).and_then(|due| {
        let Some(due) = due else { return Ok(None) };
        let what =
            What { class: Class::Archival, full: false, resume: false, label: None, lifetime: due.lifetime, ..what };
        run(BackupRequest { targets: &due.targets, fresh_chain: false, ..request }, what).map(Some)
    });
    Ok(report.with_archival(archival))
}

/// Without parts a pack is sent whole each time the line breaks.
const PACK_BYTES_WHOLE: u64 = 16 << 20;

fn target(store: &OpenStore<'_>) -> StoreTarget {
    let config = store.config;
    let whole = config.kind() == "s3" && store.store.multipart().is_none();
    let unfit = store.verdict.as_ref().map(probed::obstacles).filter(|obstacles| !obstacles.is_empty());
    StoreTarget {
        name: store.place().clone(),
        disk: store.disk.as_ref().map(|disk| disk.inserted.clone()),
        store: Arc::clone(&store.store),
        pack_bytes: if whole { config.pack_bytes.min(PACK_BYTES_WHOLE) } else { config.pack_bytes },
        part_bytes: config.part_bytes,
        lock: config.lock.map(|lock| lock.terms),
        unfit: unfit.map(|obstacles| obstacles.join("; ")),
    }
}

fn resolve(config: &Config) -> Result<Vec<SourceConfig>, Failure> {
    let mut sources = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for source in &config.sources {
        match source.resolve() {
            Ok(source) => sources.push(source),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok(sources);
    }
    let what = "the run was not begun: secrets are missing".to_owned();
    Err(Failure::new(Kind::Usage, Problems { what, problems }))
}

/// The key that is there, or a new one: that this is the machine's first run has been looked at.
fn signing_key(path: &Path) -> Result<SiteKey, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    match SiteKey::load(path) {
        Err(SignError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        other => return other.map_err(failed),
    }
    let key = key::new_site_key(path)?;
    say(&format!(
        "NEW SIGNING KEY: this machine remembers no run and has no signing key, so one was made: {}.",
        path.display()
    ));
    say(
        "Print a new recovery sheet (`offsite key sheet`). If this machine has made backups before, put its old key back.",
    );
    Ok(key)
}

fn failure(error: BackupError) -> Failure {
    let kind = match &error {
        BackupError::Staging(StagingError::Locked { .. }) => Kind::Locked,
        BackupError::Interrupted => Kind::Interrupted,
        BackupError::Staging(_) | BackupError::State(_) | BackupError::Capture(_) => Kind::Failed,
    };
    Failure::new(kind, error)
}
