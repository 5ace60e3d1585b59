//! The keeper: verifies, prunes and counter-signs what many sites store, from a machine that can open none of it.
//!
//! One pass over the listing serves all sites: what belongs to one is collected, looked at, and let go before the next. A
//! site in which something is wrong is a line in the report, and no reason to stop.

mod rounds;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use providers::{KeyPrefix, ObjectMeta, ObjectStore};
use serde::Serialize;

use crate::calendar::Calendar;
use crate::ids::{GenerationId, SiteName};
use crate::prune::{Freed, Hidden};
use crate::retention::{Brake, Limits, Rules};
use crate::sign::{SiteKey, SitePublicKey};
use crate::upload::Interrupt;

/// What is to be done, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// Every site that is looked after, with its public key.
    pub sites: &'a BTreeMap<SiteName, SitePublicKey>,
    /// Only these of them; all if there are none.
    pub only: &'a BTreeSet<SiteName>,
    /// The keeper's own key.
    pub key: &'a SiteKey,
    /// What it remembers of this store lies here.
    pub ledgers: &'a Path,
    /// The rules of all sites that have none of their own.
    pub terms: &'a Terms,
    /// Those of the others.
    pub own: &'a BTreeMap<SiteName, Terms>,
    /// Everything is read within so many days.
    pub round_days: u32,
    /// Bytes that one run may read, over all sites.
    pub budget: u64,
    /// Nothing is removed or written, only read.
    pub dry_run: bool,
    /// Hashes of plans that are executed whatever speaks against them.
    pub lifted: &'a [String],
}

/// The rules of a site.
#[derive(Clone, Debug)]
pub struct Terms {
    /// For rolling generations; archival ones carry their lifetime.
    pub rules: Rules,
    /// Where the brakes take hold.
    pub limits: Limits,
    /// Working days and time zone.
    pub calendar: Calendar,
}

impl Keeping<'_> {
    fn terms_of(&self, site: &SiteName) -> &Terms {
        self.own.get(site).unwrap_or(self.terms)
    }
}

/// What was found in one site, and done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SiteReport {
    /// Its name.
    pub site: String,
    /// Generations that are genuine.
    pub generations: u64,
    /// The newest of them.
    pub newest: Option<GenerationId>,
    /// When the store took it.
    pub newest_at: Option<Timestamp>,
    /// Objects that its generations need: packs and manifests.
    pub objects: u64,
    /// Their bytes: what reading all of them costs.
    pub bytes: u64,
    /// Objects read whole in this run and found to be what was stored.
    pub read_objects: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Objects that nobody has read for longer than a round.
    pub overdue: u64,
    /// Generations that were counter-signed.
    pub countersigned: Vec<GenerationId>,
    /// Generations that expire by the rules.
    pub expired: Vec<GenerationId>,
    /// What was removed.
    pub freed: Freed,
    /// What becomes of what is removed, if something is to be and the store keeps versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Hidden>,
    /// Unfinished writes of long ago that were given up.
    pub swept: u64,
    /// What speaks against removing anything.
    pub brakes: Vec<Brake>,
    /// What lifts the brakes of this plan.
    pub plan: Option<String>,
    /// Everything that is not as it should be.
    pub findings: Vec<Finding>,
    /// Why it could not be looked at to its end.
    pub error: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The object, or the generation, or the site.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The generations that it harms.
    pub harms: Vec<GenerationId>,
}

impl SiteReport {
    fn of(site: &str) -> Self {
        Self { site: site.to_owned(), ..Self::default() }
    }

    fn find(&mut self, object: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding { object: object.into(), what: what.into(), harms: Vec::new() });
    }

    /// Whether all of it is as it should be.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.error.is_empty() && self.brakes.is_empty()
    }
}

/// Looks after every site in `store`, and hands each report to `tell` when it is ready: what is told already stays true if
/// the store fails later, which is the only error there is. Sites that are looked after and have nothing in the store are
/// reported as well, and so is what is stored by nobody who is known.
pub async fn keep(
    store: &dyn ObjectStore,
    keeping: &Keeping<'_>,
    interrupt: &Interrupt,
    mut tell: impl FnMut(SiteReport),
) -> Result<(), providers::Error> {
    let mut left = keeping.budget;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut current: Option<(String, Vec<ObjectMeta>)> = None;
    let root = KeyPrefix::default();
    let mut listing = store.list(&root);
    while let Some(object) = listing.try_next().await? {
        let Some((folder, _)) = object.key.as_str().split_once('/') else { continue };
        match &mut current {
            Some((name, objects)) if name == folder => objects.push(object),
            _ => {
                let begun = (folder.to_owned(), vec![object]);
                if let Some((name, objects)) = current.replace(begun) {
                    tell(examine(store, keeping, &name, objects, &mut seen, &mut left, interrupt).await);
                }
                if *interrupt.borrow() {
                    return Ok(());
                }
            }
        }
    }
    if let Some((name, objects)) = current {
        tell(examine(store, keeping, &name, objects, &mut seen, &mut left, interrupt).await);
    }
    for site in keeping.sites.keys().filter(|site| is_wanted(keeping, site) && !seen.contains(site.as_str())) {
        let mut report = SiteReport::of(site.as_str());
        report.find(site.as_str(), "nothing of it is in the store");
        tell(report);
    }
    Ok(())
}

async fn examine(
    store: &dyn ObjectStore,
    keeping: &Keeping<'_>,
    name: &str,
    objects: Vec<ObjectMeta>,
    seen: &mut BTreeSet<String>,
    left: &mut u64,
    interrupt: &Interrupt,
) -> SiteReport {
    let mut report = SiteReport::of(name);
    if !seen.insert(name.to_owned()) {
        report.find(name, "the store lists it in more than one piece: what is said of it above may be wrong");
        return report;
    }
    let site = name.parse::<SiteName>().ok();
    let known = site.as_ref().and_then(|site| Some((site, keeping.sites.get(site)?)));
    match known {
        Some((site, key)) if is_wanted(keeping, site) => {
            site::examine(store, keeping, (site, key), objects, left, interrupt, &mut report).await;
        }
        Some(_) => {}
        None => report.find(name, "its public key is not known here, so nothing of it can be verified"),
    }
    report
}

fn is_wanted(keeping: &Keeping<'_>, site: &SiteName) -> bool {
    keeping.only.is_empty() || keeping.only.contains(site)
}
