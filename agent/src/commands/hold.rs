//! `offsite hold` and `offsite release`: what must not go, whatever the rules say, and what may again.

use std::path::Path;
use std::sync::Arc;

use providers::{Access, DirectorySettings, KeyPrefix, ObjectStore, Policy, StoreSettings};
use serde::Serialize;

use super::find::Stores;
use super::output::{Output, say};
use super::prune::kind;
use super::{Ended, load_place, show};
use crate::catalog::Trust;
use crate::cli::HoldArgs;
use crate::clock;
use crate::config::Place;
use crate::failure::{self, Failure, Kind};
use crate::format::{hold, names};
use crate::prune::{self, Decision, PruneError};
use crate::sign::SiteKey;
use crate::staging;

#[derive(Serialize)]
struct Report {
    generation: String,
    held: bool,
    reason: String,
    /// The places that have the generation and wrote it down.
    places: Vec<String>,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    place: String,
    messages: Vec<String>,
    #[serde(skip)]
    kind: Kind,
}

pub(super) fn run(arguments: &HoldArgs, held: bool, path: &Path, output: Output) -> Ended {
    let place = load_place(path)?;
    if arguments.reason.trim().is_empty() || arguments.reason.chars().count() > hold::REASON_MAX {
        let what = format!("the reason has to be a sentence of at most {} characters", hold::REASON_MAX);
        return Err(Failure::new(Kind::Usage, what));
    }
    let key = SiteKey::load(&place.signing_key).map_err(|error| Failure::new(Kind::Failed, error))?;
    let decision =
        Decision { generation: &arguments.generation, held, reason: arguments.reason.trim(), decided: clock::now() };
    let report = decide(&place, &key, &decision)?;
    if report.places.is_empty() && report.failed.is_empty() {
        let what = format!("there is no generation {} anywhere", arguments.generation);
        return Err(
            Failure::new(Kind::Failed, what).hint("`offsite list` shows which generations there are, and where")
        );
    }
    let code = report.failed.iter().map(|failed| failed.kind.code()).max().unwrap_or(0);
    output.result_with(code, &report, || report.text())?;
    for failed in &report.failed {
        say(&format!("error: {}\n  because: {}", failed.place, failed.messages.join("\n  because: ")));
    }
    Ok(code)
}

/// The staging folder as a store, in which the holds of this machine lie; nothing if there is no such folder.
pub(super) fn local_store(place: &Place) -> Result<Option<Arc<dyn ObjectStore>>, Failure> {
    if !place.staging.exists() {
        return Ok(None);
    }
    let settings = StoreSettings::Directory(DirectorySettings { path: place.staging.clone(), mark: None });
    providers::open(&settings, Access::Agent, &Policy::default())
        .map(Some)
        .map_err(|error| Failure::new(Kind::Failed, error))
}

fn decide(place: &Place, key: &SiteKey, decision: &Decision<'_>) -> Result<Report, Failure> {
    let mut report = Report {
        generation: decision.generation.to_string(),
        held: decision.held,
        reason: decision.reason.to_owned(),
        places: Vec::new(),
        failed: Vec::new(),
    };
    let stores = Stores::read(place, None)?;
    let site = names::site_prefix(&place.site).map_err(|error| Failure::new(Kind::Failed, error))?;
    for (store, read) in &stores.read {
        let name = store.shown();
        let there = match read {
            Ok(generations) => generations
                .iter()
                .any(|stored| stored.generation == *decision.generation && !matches!(stored.trust, Trust::Refused(_))),
            Err(error) => {
                let kind = super::find::kind_of_catalog(error);
                report.failed.push(Failed { place: name, messages: failure::chain(error), kind });
                continue;
            }
        };
        if there {
            let written = stores.runtime.block_on(write(store.store.as_ref(), &site, place, key, decision));
            report.add(name, written);
        }
    }
    report.failed.extend(stores.closed.iter().map(|store| Failed {
        place: store.config.name.to_string(),
        messages: store.messages(),
        kind: store.kind(),
    }));
    let local = staging::generations(&place.staging).map_err(|error| Failure::new(Kind::Failed, error))?;
    if let (Some(store), true) = (local_store(place)?, local.iter().any(|local| local.id() == decision.generation)) {
        let written = stores.runtime.block_on(write(store.as_ref(), &KeyPrefix::default(), place, key, decision));
        report.add("local".to_owned(), written);
    }
    Ok(report)
}

async fn write(
    store: &dyn ObjectStore,
    prefix: &KeyPrefix,
    place: &Place,
    key: &SiteKey,
    decision: &Decision<'_>,
) -> Result<(), PruneError> {
    let (holds, _) = prune::read_holds(store, prefix, &place.site, key.public()).await?;
    prune::decide(store, prefix, &place.site, key, &holds, decision).await
}

impl Report {
    fn add(&mut self, place: String, written: Result<(), PruneError>) {
        match written {
            Ok(()) => self.places.push(place),
            Err(error) => self.failed.push(Failed { place, messages: failure::chain(&error), kind: kind(&error) }),
        }
    }

    fn text(&self) -> String {
        let what = if self.held { "is held in" } else { "is released in" };
        let places = if self.places.is_empty() { "no place".to_owned() } else { self.places.join(", ") };
        let count = show::counted(self.failed.len() as u64, "place");
        let failed = if self.failed.is_empty() { String::new() } else { format!("; {count} FAILED") };
        format!("{} {what} {places}{failed}: {}\n", self.generation, self.reason)
    }
}
