//! `offsite status`: the last run of each store, what is unfinished, and how much room there is.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::backup::LastRun;
use super::output::Output;
use super::{Ended, load_place, show};
use crate::config::{Place, Size, Span};
use crate::failure::{Failure, Kind};
use crate::generation::Grade;
use crate::ids::StoreName;
use crate::state::State;
use crate::{clock, platform, staging};

#[derive(Serialize)]
struct Status {
    site: String,
    /// False if there was no run on this machine yet, or its memory is lost.
    has_state: bool,
    /// How the last run ended, whatever it did.
    last_run: Option<LastRun>,
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
}

#[derive(Serialize)]
struct Last {
    generation: String,
    committed: Timestamp,
    grade: Grade,
    content_bytes: u64,
    added_bytes: u64,
}

pub(super) fn run(path: &Path, output: Output) -> Ended {
    let place = load_place(path)?;
    let status = status(&place)?;
    output.result(&status, || status.text(clock::now()))?;
    Ok(0)
}

fn status(place: &Place) -> Result<Status, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    // Looking must not make one.
    let has_state = place.state.join("state.db").exists();
    let state = if has_state { Some(State::open(&place.state, &place.site).map_err(failed)?) } else { None };
    let names = place.stores.iter().map(|store| &store.name);
    let stores: Result<Vec<Store>, Failure> = names.map(|name| store(state.as_ref(), name)).collect();
    let local = if place.staging.exists() {
        staging::generations(&place.staging).map_err(|error| Failure::new(Kind::Failed, error))?.len() as u64
    } else {
        0
    };
    Ok(Status {
        site: place.site.to_string(),
        has_state,
        last_run: LastRun::read(&place.state),
        stores: stores?,
        local_generations: local,
        spool_bytes: folder_bytes(&place.state.join("spool")),
        staging_free_bytes: platform::free_bytes(&place.staging).ok(),
    })
}

fn store(state: Option<&State>, name: &StoreName) -> Result<Store, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let Some(state) = state else { return Ok(Store { name: name.to_string(), last: None, unfinished: None }) };
    let last = state.last_committed(name).map_err(failed)?;
    let unfinished = state.unfinished(name).map_err(failed)?;
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

impl Status {
    fn text(&self, now: Timestamp) -> String {
        let mut text = format!("Site {}\n", self.site);
        if let Some(last) = &self.last_run {
            text.push_str(&last.text(now));
        }
        text.push_str("In each store, the newest from this machine:\n");
        for store in &self.stores {
            let what = match &store.last {
                None => "nothing stored from this machine yet".to_owned(),
                Some(last) => {
                    let ago = Span(now.duration_since(last.committed).unsigned_abs());
                    let (at, grade) = (show::time(last.committed), show::grade(last.grade));
                    let added = Size(last.added_bytes);
                    format!("{ago} ago ({at}): {}, {grade}, {added} sent", last.generation)
                }
            };
            text.push_str(&format!("  {:24} {what}\n", store.name));
            if let Some(generation) = &store.unfinished {
                text.push_str(&format!("  {:24} UNFINISHED: {generation}; the next run goes on with it\n", ""));
            }
        }
        text.push_str(&format!("  {} on this machine", show::counted(self.local_generations, "generation")));
        if let Some(free) = self.staging_free_bytes {
            text.push_str(&format!(", {} free for more", Size(free)));
        }
        text.push('\n');
        if self.spool_bytes > 0 {
            text.push_str(&format!("  {} in the spool\n", Size(self.spool_bytes)));
        }
        if !self.has_state {
            text.push_str(
                "There is no memory of runs on this machine: either there was none yet, or its state folder is lost.\n\
                 In that case the next run makes a full upload; what is stored is not harmed.\n",
            );
        }
        text
    }
}
