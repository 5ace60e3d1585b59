//! Archival generations that are due by the calendar.

use tokio::runtime::Runtime;

use crate::calendar::Age;
use crate::catalog::{self, CatalogError, Stored};
use crate::clock;
use crate::config::Place;
use crate::failure::{Failure, Kind};
use crate::generation::Class;
use crate::retention;
use crate::sign::SitePublicKey;
use crate::state::State;
use crate::upload::StoreTarget;

/// The archival generation that is due: the stores that lack it, and how long it is to be kept.
pub(super) struct Due {
    pub(super) targets: Vec<StoreTarget>,
    pub(super) lifetime: Option<Age>,
}

/// What is due now, if anything. A store that cannot be asked gets nothing: it is asked again by the next run.
pub(super) fn due(
    place: &Place,
    key: &SitePublicKey,
    targets: &[StoreTarget],
    runtime: &Runtime,
) -> Result<Option<Due>, Failure> {
    let (rules, calendar, now) = (&place.retention.archival, &place.calendar, clock::now());
    let Some(since) = retention::since(rules, calendar, now) else { return Ok(None) };
    let failed = |error| Failure::new(Kind::Failed, error);
    let state = State::open(&place.state, &place.site).map_err(failed)?;
    let (mut lacking, mut lifetimes) = (Vec::new(), Vec::new());
    for target in targets {
        let store = target.store.as_ref();
        let known = state.archival_since(&target.name, since).map_err(failed)?;
        let asked: Result<Option<Option<Age>>, CatalogError> = runtime.block_on(async {
            let mut there = Vec::new();
            for id in known {
                there.push(catalog::read(store, &place.site, Some(key), Class::Archival, id.clone(), id, None).await?);
            }
            if retention::due(rules, calendar, &served(&there), now).is_none() {
                return Ok(None);
            }
            // Before a whole copy is sent, the store itself is asked: this machine may have forgotten.
            let all = catalog::list_archival(store, &place.site, Some(key)).await?;
            Ok(retention::due(rules, calendar, &served(&all), now))
        });
        match asked {
            Ok(None) => {}
            Ok(Some(lifetime)) => {
                lacking.push(target.clone());
                lifetimes.push(lifetime);
            }
            Err(error) => tracing::warn!(%error, store = %target.name, "its archival generations cannot be listed"),
        }
    }
    // For ever is the longest.
    let lifetime = lifetimes.into_iter().max_by_key(|lifetime| lifetime.map_or(u32::MAX, Age::least_days));
    Ok(lifetime.map(|lifetime| Due { targets: lacking, lifetime }))
}

/// When each was made, and how long it is kept.
fn served(there: &[Stored]) -> Vec<(jiff::Timestamp, Option<Age>)> {
    let of = |stored: &Stored| {
        let commit = stored.commit.as_ref()?;
        Some((stored.at.unwrap_or(commit.committed), commit.lifetime))
    };
    there.iter().filter_map(of).collect()
}
