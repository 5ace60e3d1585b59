//! `offsite keeper`: what many sites store is verified, pruned and counter-signed, without any key that opens it.

use std::collections::BTreeSet;
use std::path::Path;

use providers::{Access, Policy};
use serde::Serialize;

use super::output::{Output, say};
use super::show::{self, counted};
use super::{Ended, interrupt, key, prune, stores, unwrap_loaded};
use crate::cli::KeeperArgs;
use crate::config::{KeeperConfig, Size};
use crate::failure::{self, Failure, Kind};
use crate::keeper::{self, Keeping, SiteReport};
use crate::progress::Progress;
use crate::prune::Hidden;
use crate::sign::{SignError, SiteKey};
use crate::staging::{FolderLock, StagingError};
use crate::upload::Interrupt;
use crate::{clock, durable};

/// What was found everywhere, and done.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    /// The keeper's public key.
    key: String,
    stores: Vec<Store>,
}

#[derive(Serialize)]
struct Store {
    name: String,
    /// What reading everything once would cost, and what it did cost this time.
    bytes: u64,
    read_bytes: u64,
    sites: Vec<SiteReport>,
    /// Why not all sites could be looked at.
    error: Vec<String>,
    #[serde(skip)]
    kind: Option<Kind>,
}

pub(super) fn run(arguments: &KeeperArgs, path: &Path, output: Output) -> Ended {
    let config = unwrap_loaded(KeeperConfig::load(path))?;
    let only: BTreeSet<_> = arguments.sites.iter().cloned().collect();
    if let Some(unknown) = only.iter().find(|site| !config.sites.contains_key(site)) {
        return Err(Failure::new(Kind::Usage, format!("there is no key of the site {unknown} in the configuration")));
    }
    // Two runs would write each other's memory and signatures away. One that only shows writes nothing.
    let _lock = if arguments.dry_run { None } else { Some(lock(&config.state).map_err(prune::locked)?) };
    let key = signing_key(&config.key)?;
    let interrupt = interrupt::watch(&Progress::default().into())?;
    let runtime = stores::runtime()?;
    let mut reports = Vec::new();
    let access = if arguments.dry_run { Access::Agent } else { Access::Keeper };
    let (open, closed) =
        stores::open_for_keeper(&config.stores, &config.terms.calendar, &config.state, access, &Policy::default());
    for store in &open {
        let ledgers = config.state.join(store.config.name.as_str());
        let keeping = Keeping {
            sites: &config.sites,
            only: &only,
            key: &key,
            ledgers: &ledgers,
            terms: &config.terms,
            own: &config.own,
            round_days: config.round_days,
            budget: config.budget,
            dry_run: arguments.dry_run,
            lifted: &arguments.lift,
        };
        let kept = keep(store, &keeping, &interrupt, &runtime);
        reports.push(kept);
    }
    reports.extend(closed.iter().map(|store| Store {
        error: store.messages(),
        kind: Some(Kind::Usage),
        ..Store::of(store.config.name.as_str())
    }));
    if *interrupt.borrow() {
        return Err(Failure::new(Kind::Interrupted, "it was interrupted; the next run goes on from there"));
    }
    let report = Report { dry_run: arguments.dry_run, key: key.public().to_string(), stores: reports };
    let code = report.exit_code();
    output.deed(code, &report, || report.text())?;
    report.complain();
    Ok(code)
}

fn keep(
    store: &stores::OpenStore<'_>,
    keeping: &Keeping<'_>,
    interrupt: &Interrupt,
    runtime: &tokio::runtime::Runtime,
) -> Store {
    let mut report = Store::of(store.config.name.as_str());
    let done = runtime.block_on(keeper::keep(store.store.as_ref(), keeping, interrupt, |site| {
        tracing::info!(store = report.name, site = site.site, good = site.is_good(), "looked at");
        report.bytes += site.bytes;
        report.read_bytes += site.read_bytes;
        report.sites.push(site);
    }));
    if let Err(error) = done {
        report.kind = Some(show::kind_of_store(&error));
        report.error = failure::chain(&error);
    }
    report
}

fn lock(state: &Path) -> Result<FolderLock, StagingError> {
    durable::create_folder(state).map_err(|error| StagingError::io("create the folder", state, error))?;
    FolderLock::take(state, clock::now())
}

/// The keeper's key, or a new one.
fn signing_key(path: &Path) -> Result<SiteKey, Failure> {
    match SiteKey::load(path) {
        Err(SignError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let key = key::new_site_key(path)?;
            say(&format!(
                "NEW KEEPER'S KEY: {}. Its public half is {}: put it into the configuration of the sites, [signing] keepers",
                path.display(),
                key.public()
            ));
            Ok(key)
        }
        other => other.map_err(|error| Failure::new(Kind::Failed, error)),
    }
}

impl Store {
    fn of(name: &str) -> Self {
        Self { name: name.to_owned(), bytes: 0, read_bytes: 0, sites: Vec::new(), error: Vec::new(), kind: None }
    }

    fn text(&self) -> String {
        let good = self.sites.iter().filter(|site| site.is_good()).count();
        let mut text = format!(
            "{}: {}, {good} of them as they should be; read {} of {}\n",
            self.name,
            counted(self.sites.len() as u64, "site"),
            Size(self.read_bytes),
            Size(self.bytes)
        );
        for site in &self.sites {
            text.push_str(&line(site));
        }
        text
    }
}

/// One site in one line, and one for each thing that is not as it should be.
fn line(site: &SiteReport) -> String {
    let verdict = if site.is_good() { "good" } else { "NOT GOOD" };
    let newest = site.newest_at.map_or_else(|| "none".to_owned(), show::time);
    let mut text = format!(
        "  {:24}  {verdict:8}  {}, newest {newest}; read {} of {}",
        site.site,
        counted(site.generations, "generation"),
        Size(site.read_bytes),
        Size(site.bytes),
    );
    for (count, what) in [
        (site.countersigned.len() as u64, "counter-signed"),
        (site.expired.len() as u64, "expired"),
        (site.freed.objects, "objects removed"),
        (site.overdue, "objects not read for longer than a round"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {what}: {count}"));
        }
    }
    text.push('\n');
    text
}

impl Report {
    /// Damage counts more than a store that does not answer, and that more than what was not removed.
    fn exit_code(&self) -> u8 {
        let sites = || self.stores.iter().flat_map(|store| &store.sites);
        if sites().any(|site| !site.findings.is_empty()) {
            return Kind::Verification.code();
        }
        if let Some(kind) = self.stores.iter().find_map(|store| store.kind) {
            return kind.code();
        }
        if sites().any(|site| !site.error.is_empty()) {
            return Kind::Store.code();
        }
        if sites().any(|site| !site.brakes.is_empty()) { Kind::Failed.code() } else { 0 }
    }

    fn text(&self) -> String {
        self.stores.iter().map(Store::text).collect::<Vec<_>>().join("\n")
    }

    /// What is wrong, for standard error.
    fn complain(&self) {
        for store in &self.stores {
            if !store.error.is_empty() {
                say(&format!(
                    "error: not every site in {} could be looked at\n  because: {}",
                    store.name,
                    store.error.join("\n  because: ")
                ));
            }
            let mut versions = store.sites.iter().filter_map(|site| site.versions);
            if let Some(versions) = versions.find(|versions| !matches!(versions, Hidden::For { .. })) {
                say(&format!("note: {}: {versions}", store.name));
            }
            for site in &store.sites {
                complain(&store.name, site);
            }
        }
    }
}

fn complain(store: &str, site: &SiteReport) {
    let name = &site.site;
    if !site.error.is_empty() {
        say(&format!("error: {store}: {name} could not be looked at\n  because: {}", site.error.join("\n  because: ")));
    }
    for finding in &site.findings {
        say(&format!("error: {store}: {name}: `{}`: {}", finding.object, finding.what));
    }
    if !site.brakes.is_empty() {
        let brakes: Vec<String> = site.brakes.iter().map(ToString::to_string).collect();
        say(&format!(
            "error: {store}: nothing of {name} was removed: {}\n  what to do: find out why. If the plan is right all the same, \
             `offsite keeper --site {name} --lift {}` does it, and this plan only",
            brakes.join("; "),
            site.plan.as_deref().unwrap_or_default()
        ));
    }
    if site.overdue > 0 {
        say(&format!(
            "warning: {store}: {name}: {} not read for longer than a round: run the keeper every day, or give it a larger \
             budget",
            counted(site.overdue, "object")
        ));
    }
}
