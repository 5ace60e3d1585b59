//! Opening the configured stores.

use std::path::Path;
use std::sync::Arc;

use providers::{Access, ObjectStore, Policy, Rate, Seen, Verdict};
use tokio::runtime::Runtime;

use super::output::Problems;
use crate::calendar::Calendar;
use crate::clock;
use crate::config::{Place, Problem, StoreConfig};
use crate::failure::{self, Failure, Kind};
use crate::ids::StoreName;
use crate::probed;

/// A configured store, open.
pub(super) struct OpenStore<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) store: Arc<dyn ObjectStore>,
    /// What it was seen to do, if it was probed.
    pub(super) verdict: Option<Verdict>,
}

/// A configured store that could not be opened: a secret cannot be had.
pub(super) struct ClosedStore<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) problems: Vec<Problem>,
}

/// Opens every store; one that cannot be opened is an error. No request is made yet.
pub(super) fn open_all<'a>(place: &'a Place, access: Access, policy: &Policy) -> Result<Vec<OpenStore<'a>>, Failure> {
    let (stores, closed) = open(place, None, access, policy)?;
    if closed.is_empty() { Ok(stores) } else { Err(not_opened(closed)) }
}

/// Opens every store, or the one that is called `only`, as far as they can be opened. No request is made yet.
pub(super) fn open<'a>(
    place: &'a Place,
    only: Option<&StoreName>,
    access: Access,
    policy: &Policy,
) -> Result<(Vec<OpenStore<'a>>, Vec<ClosedStore<'a>>), Failure> {
    open_some(&place.stores, &place.calendar, &place.state, only, access, policy)
}

/// As [`open`], of these stores, in an office with this calendar, of which a machine with this state folder has verdicts.
pub(super) fn open_some<'a>(
    stores: &'a [StoreConfig],
    calendar: &Calendar,
    state: &Path,
    only: Option<&StoreName>,
    access: Access,
    policy: &Policy,
) -> Result<(Vec<OpenStore<'a>>, Vec<ClosedStore<'a>>), Failure> {
    let wanted: Vec<_> = stores.iter().filter(|store| only.is_none_or(|only| *only == store.name)).collect();
    if let (Some(name), true) = (only, wanted.is_empty()) {
        let names: Vec<&str> = stores.iter().map(|store| store.name.as_str()).collect();
        return Err(Failure::new(Kind::Usage, format!("there is no store called {name}"))
            .hint(format!("the configuration has: {}", names.join(", "))));
    }
    let mut stores = Vec::new();
    let mut closed = Vec::new();
    for config in wanted {
        let verdict = probed::read(state, &config.name, &config.to_string());
        let seen = verdict.as_ref().map_or_else(Seen::default, Verdict::seen);
        match open_one(config, access, &paced(config, calendar, policy), seen) {
            Ok(store) => stores.push(OpenStore { config, store, verdict }),
            Err(problems) => closed.push(ClosedStore { config, problems }),
        }
    }
    Ok((stores, closed))
}

/// That these stores cannot be opened is a failure.
pub(super) fn not_opened(closed: Vec<ClosedStore<'_>>) -> Failure {
    let names: Vec<&str> = closed.iter().map(|store| store.config.name.as_str()).collect();
    let what = format!("{} cannot be opened", names.join(", "));
    let problems = closed.into_iter().flat_map(|store| store.problems).collect();
    Failure::new(Kind::Usage, Problems { what, problems })
}

impl ClosedStore<'_> {
    /// Why, one by one.
    pub(super) fn messages(&self) -> Vec<String> {
        self.problems.iter().map(ToString::to_string).collect()
    }
}

/// The policy with what this store may be sent at which time of the day.
fn paced(config: &StoreConfig, calendar: &Calendar, policy: &Policy) -> Policy {
    let (table, zone) = (config.rate.clone(), calendar.zone().clone());
    let rate = if table.is_empty() {
        policy.rate.clone()
    } else {
        Rate::new(move || table.at(zone.to_datetime(clock::now()).time()))
    };
    Policy { rate, ..policy.clone() }
}

fn open_one(
    config: &StoreConfig,
    access: Access,
    policy: &Policy,
    seen: Seen,
) -> Result<Arc<dyn ObjectStore>, Vec<Problem>> {
    let settings = config.settings()?;
    providers::open_as_seen(&settings, access, policy, seen)
        .map_err(|error| vec![Problem { key: config.key("type"), line: None, what: failure::one_line(&error) }])
}

/// What the network runs on.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Failed, error))
}
