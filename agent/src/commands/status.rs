//! `offsite status`: what needs attention first, then the last run and the next, what is unfinished, and how much room there
//! is. From this machine alone, or with `--from` from a store alone.

mod far;
mod jobs;
mod reads;
mod text;

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use providers::Verdict;
use serde::Serialize;

use super::backup::LastRun;
use super::drill::{self, LastDrill};
use super::output::Output;
use super::pulse::Running;
use super::slot::RotationReport;
use super::stores::Memory;
use super::{Ended, evidence, load_place, prune, report};
use crate::cli::StatusArgs;
use crate::config::{Place, StoreConfig};
use crate::evidence::History;
use crate::failure::{Failure, Kind};
use crate::generation::Grade;
use crate::ids::StoreName;
use crate::notify::Outbox;
use crate::report::{Standing, log_nags};
use crate::state::{Delivery, State};
use crate::{clock, platform, probed, staging};

use jobs::Jobs;
use reads::LastRead;

#[derive(Serialize)]
struct Status {
    site: String,
    /// What somebody should do something about, in sentences; nothing if all is well.
    attention: Vec<String>,
    /// False if there was no run on this machine yet, or its memory is lost.
    has_state: bool,
    /// How far the run is that is under way.
    running: Option<Running>,
    /// How the last run ended, whatever it did.
    last_run: Option<LastRun>,
    /// How the last rehearsal of a restore ended.
    last_drill: Option<LastDrill>,
    /// How it ended when each store was read again.
    last_reads: Vec<LastRead>,
    /// What happens by itself; absent if nothing does.
    schedule: Option<Jobs>,
    stores: Vec<Store>,
    local_generations: u64,
    spool_bytes: u64,
    staging_free_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Store {
    name: String,
    last: Option<Last>,
    /// The generation that a run has begun to store and not finished.
    unfinished: Option<String>,
    /// How far it has come.
    upload: Option<Upload>,
    /// What it was seen to do when it was probed last.
    verdict: Option<Verdict>,
    /// Which disk is in and which comes next, if it is a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationReport>,
}

#[derive(Serialize)]
struct Last {
    generation: String,
    committed: Timestamp,
    grade: Grade,
    content_bytes: u64,
    added_bytes: u64,
}

#[derive(Serialize)]
struct Upload {
    /// Sealed so far.
    sealed_bytes: u64,
    /// Of that, in the store.
    stored_bytes: u64,
}

pub(super) fn run(arguments: &StatusArgs, path: &Path, output: Output) -> Ended {
    let place = load_place(path)?;
    if let Some(store) = &arguments.from {
        return far::run(&place, store, output);
    }
    let now = clock::now();
    let status = status(&place, path, now)?;
    output.result(&status, || status.text(now))?;
    Ok(0)
}

fn status(place: &Place, config: &Path, now: Timestamp) -> Result<Status, Failure> {
    // Looking must not make one.
    let state = prune::state(place)?;
    let has_state = state.is_some();
    let memory = Memory::of(place)?;
    let stores = place.stores.iter().map(|known| {
        let rotation = RotationReport::of(place, &memory, known);
        let disks = memory.seen(known).iter().map(|disk| &disk.place);
        let places: Vec<&StoreName> = if rotation.is_some() { disks.collect() } else { vec![&known.name] };
        store(state.as_ref(), known, &place.state, &places, rotation)
    });
    let stores = stores.collect::<Result<Vec<Store>, Failure>>()?;
    let local = if place.staging.exists() {
        staging::generations(&place.staging).map_err(|error| Failure::new(Kind::Failed, error))?.len() as u64
    } else {
        0
    };
    let last_run = LastRun::read(&place.state);
    let schedule = Jobs::of(place, config, now);
    let last_drill = LastDrill::read(&place.state);
    let history = evidence::history(place).map_err(|error| Failure::new(Kind::Failed, error))?;
    let last_reads = LastRead::of(&history);
    let bad_reads = last_reads.iter().filter_map(LastRead::attention);
    let attention = last_run.iter().flat_map(LastRun::attention);
    let attention = schedule.iter().flat_map(|jobs| jobs.attention(now)).chain(attention);
    let drills = last_drill.iter().flat_map(LastDrill::attention).chain(drill::overstays(place, now));
    let drills = drills.chain(drill::not_tried(&history, now));
    // A failed drill is said before anything else: what is stored may be worth nothing.
    let disks = stores.iter().filter_map(|store| store.rotation.as_ref()?.attention());
    let untold = untold(place, &history, now)?;
    let attention = drills.chain(bad_reads).chain(attention).chain(disks).chain(unfit(&stores)).chain(untold).collect();
    Ok(Status {
        site: place.site.to_string(),
        attention,
        has_state,
        running: Running::read(&place.state, now),
        last_run,
        last_drill,
        last_reads,
        schedule,
        stores,
        local_generations: local,
        spool_bytes: folder_bytes(&place.state.join("spool")),
        staging_free_bytes: platform::free_bytes(&place.staging).ok(),
    })
}

/// What is remembered of a store that lies in `places`; where these are several, the one last written to is the first.
fn store(
    state: Option<&State>,
    config: &StoreConfig,
    folder: &Path,
    places: &[&StoreName],
    rotation: Option<RotationReport>,
) -> Result<Store, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let name = &config.name;
    let verdict = places.first().and_then(|place| probed::read(folder, place, &config.to_string()));
    let (mut last, mut unfinished) = (None, None);
    for (state, place) in state.iter().flat_map(|state| places.iter().map(move |place| (state, place))) {
        last = last.or(state.last_committed(place).map_err(failed)?);
        unfinished = unfinished.or(state.unfinished(place).map_err(failed)?);
    }
    let upload = match (state, &unfinished) {
        (Some(state), Some(delivery)) => Some(upload(state, delivery)?),
        _ => None,
    };
    Ok(Store {
        name: name.to_string(),
        last: last.map(|record| Last {
            generation: record.generation.to_string(),
            committed: record.committed,
            grade: record.grade,
            content_bytes: record.stream_bytes,
            added_bytes: record.added_bytes,
        }),
        unfinished: unfinished.map(|delivery| delivery.generation.to_string()),
        upload,
        verdict,
        rotation,
    })
}

fn upload(state: &State, delivery: &Delivery) -> Result<Upload, Failure> {
    let packs = state.packs(&delivery.chain, delivery.id).map_err(|error| Failure::new(Kind::Failed, error))?;
    let own = packs.iter().filter(|pack| pack.name.number == delivery.number);
    let (mut sealed_bytes, mut stored_bytes) = (0, 0);
    for pack in own {
        sealed_bytes += pack.sealed;
        stored_bytes += if pack.stored { pack.sealed } else { 0 };
    }
    Ok(Upload { sealed_bytes, stored_bytes })
}

/// Stores to which nothing is sent, because of what they were seen not to do.
fn unfit(stores: &[Store]) -> impl Iterator<Item = String> {
    stores.iter().flat_map(|store| {
        let obstacles = store.verdict.as_ref().map(probed::obstacles).unwrap_or_default();
        obstacles
            .into_iter()
            .map(|what| format!("nothing is sent to {}: {what}; `offsite check` asks again", store.name))
    })
}

/// What lies in a folder and below; what disappears meanwhile is not counted.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// What nobody has done for too long, what is wrong with the log that says so, and what nobody could be told.
fn untold(place: &Place, history: &History, now: Timestamp) -> Result<Vec<String>, Failure> {
    let waiting = Outbox::new(&place.state).messages().map_err(|error| Failure::new(Kind::Failed, error))?;
    let nags = Standing::of(history).nags(place.reports.limits, &place.calendar, now);
    let nags = nags.into_iter().chain(log_nags(history)).map(|nag| format!("{}; {}", nag.what, nag.remedy));
    let waiting = report::waiting(
        &waiting.iter().collect::<Vec<_>>(),
        "it is tried again, and `offsite report --test` shows whether the settings are right",
    );
    Ok(nags.chain(waiting).collect())
}
