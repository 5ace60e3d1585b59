//! What a store says of the site: when it was last heard of, and whether it should have been since.

use jiff::Timestamp;
use providers::{Access, Policy};
use serde::Serialize;

use crate::catalog;
use crate::clock;
use crate::commands::output::Output;
use crate::commands::{Ended, show, stores};
use crate::config::{Place, Span};
use crate::failure::{Failure, Kind};
use crate::format::commit::Heartbeat;
use crate::ids::StoreName;
use crate::sign::SiteKey;

#[derive(Serialize)]
struct Far {
    site: String,
    store: String,
    heartbeat: Heartbeat,
    /// Whether a run that was promised has not been heard of.
    overdue: bool,
}

pub(super) fn run(place: &Place, name: &StoreName, output: Output) -> Ended {
    let (stores, closed) = stores::open(place, Some(name), Access::Agent, &Policy::default())?;
    if !closed.is_empty() {
        return Err(stores::not_opened(closed));
    }
    let Some(store) = stores.first() else { return Err(Failure::new(Kind::Usage, "there is no such store")) };
    let key = match &place.public_key {
        Some(key) => key.clone(),
        None => SiteKey::load(&place.signing_key).map_err(|error| Failure::new(Kind::Usage, error))?.public().clone(),
    };
    let heartbeat = catalog::heartbeat(store.store.as_ref(), &place.site, &key);
    let heartbeat = stores::runtime()?.block_on(heartbeat).map_err(|error| Failure::new(Kind::Store, error))?;
    let Some(heartbeat) = heartbeat else {
        return Err(Failure::new(Kind::Store, format!("{name} has no sign of life of {} that is genuine", place.site)));
    };
    let now = clock::now();
    let overdue = heartbeat.promise.is_some_and(|promise| promise.overdue_after < now);
    let far = Far { site: place.site.to_string(), store: name.to_string(), heartbeat, overdue };
    output.result(&far, || far.text(now))?;
    Ok(0)
}

impl Far {
    fn text(&self, now: Timestamp) -> String {
        let verdict = match (self.overdue, self.heartbeat.grade) {
            (true, _) => show::bad("OVERDUE"),
            (false, crate::generation::Grade::Exact) => show::good("all is well"),
            (false, grade) => show::bad(show::grade(grade)),
        };
        let ago = Span(now.duration_since(self.heartbeat.written).unsigned_abs());
        let mut text = format!(
            "Site {} in {}: {verdict}\nLast heard of {ago} ago ({}): {}, {}\n",
            self.site,
            self.store,
            show::time(self.heartbeat.written),
            self.heartbeat.generation,
            show::grade(self.heartbeat.grade),
        );
        text.push_str(&match self.heartbeat.promise {
            None => "Next run: not told; the site has no schedule\n".to_owned(),
            Some(promise) => {
                let is = if self.overdue { "was due, and has not been heard of" } else { "is due" };
                format!("Next run: {is}, {}\n", show::time(promise.next_run))
            }
        });
        text
    }
}
