//! Retention of this machine's own generations.

use std::collections::BTreeMap;

use providers::KeyPrefix;
use tokio::runtime::Runtime;

use crate::clock;
use crate::commands::{hold, stores};
use crate::config::Place;
use crate::failure::{Failure, Kind};
use crate::ids::GenerationId;
use crate::prune::local::{self, LocalPlan};
use crate::prune::{self, Holds};
use crate::sign::SitePublicKey;
use crate::staging;
use crate::state::State;

/// What becomes of each local generation; nothing if there is none. `held` are the holds of stores, which count here too.
pub(in crate::commands) fn plan(
    place: &Place,
    key: &SitePublicKey,
    state: Option<&State>,
    runtime: &Runtime,
    held: &[Holds],
) -> Result<Option<LocalPlan>, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let generations = staging::generations(&place.staging).map_err(failed)?;
    if generations.is_empty() {
        return Ok(None);
    }
    let mut holds = own_holds(place, key, runtime)?;
    held.iter().for_each(|held| holds.merge(held));
    let (retention, calendar) = (&place.retention, &place.calendar);
    let needed = needed(place, state)?;
    let plan = local::plan(&generations, &retention.local, &retention.limits, calendar, &holds, &needed, clock::now());
    Ok(Some(plan))
}

/// What this machine itself was told to hold; it lies in the staging folder.
fn own_holds(place: &Place, key: &SitePublicKey, runtime: &Runtime) -> Result<Holds, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let Some(store) = hold::local_store(place)? else { return Ok(Holds::default()) };
    let root = KeyPrefix::default();
    let read = prune::read_holds(store.as_ref(), &root, &place.site, key);
    runtime.block_on(read).map(|(holds, _)| holds).map_err(failed)
}

/// What the next runs need: the reference of each open chain, and what is on its way.
fn needed(place: &Place, state: Option<&State>) -> Result<BTreeMap<GenerationId, Vec<String>>, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let mut needed: BTreeMap<GenerationId, Vec<String>> = BTreeMap::new();
    let Some(state) = state else { return Ok(needed) };
    for (store, shown) in stores::remembered_places(place, Some(state)).map_err(failed)? {
        if let Some(chain) = state.open_chain(&store).map_err(failed)? {
            needed.entry(chain.origin).or_default().push(format!("tonight's patches for {shown} refer to it"));
        }
        if let Some(delivery) = state.unfinished(&store).map_err(failed)? {
            needed.entry(delivery.generation).or_default().push(format!("on its way to {shown}"));
            if delivery.chain.is_carried() {
                let origin = needed.entry(delivery.chain.origin).or_default();
                origin.push(format!("what is on its way to {shown} refers to it"));
            }
        }
    }
    Ok(needed)
}
