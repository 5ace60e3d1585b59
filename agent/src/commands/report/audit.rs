//! `offsite report --from DAY --to DAY`: the auditor's document, as a page for a browser and for paper.

use std::path::Path;

use jiff::civil::Date;
use providers::LockMode;
use serde::Serialize;

use super::context;
use crate::catalog::{Stored, Trust};
use crate::commands::find::Stores;
use crate::commands::key::{public_key, write_new};
use crate::commands::load_config;
use crate::commands::medium;
use crate::commands::output::Output;
use crate::commands::show::counted;
use crate::config::{Config, LockConfig, StoreConfig};
use crate::evidence::Log;
use crate::failure::{Failure, Kind, one_line};
use crate::generation::Class;
use crate::report::{self, Audit, AuditStore, Found, Medium, Surroundings};
use crate::retention::{Period, Rules};
use crate::sign::SitePublicKey;
use crate::{clock, staging};

pub(super) fn run(
    from: Date,
    to: Option<Date>,
    file: Option<&Path>,
    path: &Path,
    output: Output,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Made<'a> {
        file: Option<&'a Path>,
        #[serde(flatten)]
        audit: &'a Audit,
    }
    let config = load_config(path)?;
    let (place, now) = (&config.place, clock::now());
    let to = to.unwrap_or_else(|| place.calendar.date_of(now));
    if to < from {
        return Err(
            Failure::new(Kind::Usage, format!("{to} is before {from}")).hint("--from is the first day, --to the last")
        );
    }
    let key = public_key(place).map_err(|error| Failure::new(Kind::Failed, error))?;
    let history = Log::new(&place.state).read(key.as_ref()).map_err(|error| Failure::new(Kind::Failed, error))?;
    let around = surroundings(&config, key.as_ref(), from, to)?;
    let audit = report::audit(&around, &context(place, &history, now));
    let made = Made { file, audit: &audit };
    match file {
        Some(file) => {
            write_new(file, audit.html().as_bytes(), "write the document")?;
            output.result(&made, || format!("{}\nThe document is in {}.", audit.summary.join("\n"), file.display()))
        }
        None => output.result(&made, || audit.html()),
    }
}

/// What is known beside the log: the configuration, and what the stores hold now.
fn surroundings(config: &Config, key: Option<&SitePublicKey>, from: Date, to: Date) -> Result<Surroundings, Failure> {
    let place = &config.place;
    let read = Stores::read(place, None)?;
    let found = |name: &StoreConfig| {
        let listed = read.read.iter().find(|(store, _)| store.config.name == name.name).map(|(_, listed)| listed);
        match listed {
            Some(Ok(listed)) => Ok(count(listed)),
            Some(Err(error)) => Err(one_line(error)),
            None => {
                let closed = read.closed.iter().find(|store| store.config.name == name.name);
                Err(closed.map_or_else(|| "it cannot be opened".to_owned(), |store| store.messages().join(": ")))
            }
        }
    };
    let store = |store: &StoreConfig| AuditStore {
        name: store.name.to_string(),
        kind: store.kind().to_owned(),
        place: store.to_string(),
        medium: medium::of_store(store),
        phi: store.phi,
        agreement: store.agreement.as_ref().map(|agreement| (agreement.with.clone(), agreement.signed)),
        lock: store.lock.as_ref().map(lock),
        locks: [Class::Rolling, Class::Archival]
            .into_iter()
            .filter(|class| store.lock.as_ref().is_some_and(|lock| lock.terms.hold(*class)))
            .collect(),
        found: found(store),
    };
    let local = staging::generations(&place.staging).map_err(|error| Failure::new(Kind::Failed, error))?;
    Ok(Surroundings {
        from,
        to,
        sources: config.sources.iter().map(|source| (source.name.to_string(), source.kind().to_owned())).collect(),
        stores: place.stores.iter().map(store).collect(),
        retention: retention(config),
        local_generations: local.len() as u64,
        staging: medium::of_folder(&place.staging),
        data: data(config),
        recipients: config.recipients.count() as u64,
        site_key: key.map(SitePublicKey::fingerprint),
    })
}

/// What the sources lie on; what a server or a program of this machine holds, on what its own files lie.
fn data(config: &Config) -> Vec<Medium> {
    let mut data: Vec<Medium> = Vec::new();
    for source in &config.sources {
        let medium = match source.path() {
            Some(path) => medium::of_folder(path),
            None if source.may_be_elsewhere() => Medium::Unknown,
            None => medium::of_folder(Path::new("/var/lib")),
        };
        if !data.contains(&medium) {
            data.push(medium);
        }
    }
    data
}

fn count(listed: &[Stored]) -> Found {
    let mut found = Found::default();
    for stored in listed {
        if matches!(stored.trust, Trust::Refused(_)) {
            found.refused += 1;
            continue;
        }
        match stored.class {
            Class::Rolling => found.rolling += 1,
            Class::Archival => found.archival += 1,
        }
        let cut = stored.commit.as_ref().map(|commit| commit.cut);
        found.oldest = found.oldest.into_iter().chain(cut).min();
        found.newest = found.newest.into_iter().chain(cut).max();
    }
    found
}

/// `compliance: archival generations for 10y`.
fn lock(lock: &LockConfig) -> String {
    let mode = match lock.mode {
        LockMode::Governance => "governance",
        LockMode::Compliance => "compliance",
    };
    let terms = [("archival", lock.terms.archival), ("rolling", lock.terms.rolling)];
    let terms: Vec<String> =
        terms.into_iter().filter_map(|(class, term)| Some(format!("{class} generations for {:#}", term?))).collect();
    format!("{mode}: {}", terms.join(", "))
}

/// What is kept, as the configuration says.
fn retention(config: &Config) -> Vec<String> {
    let (chain, retention) = (&config.chain, &config.place.retention);
    let mut lines = vec![
        format!("rolling, in every store: {}", rules(&retention.rolling)),
        format!("on the office's own machine: {}", rules(&retention.local)),
    ];
    lines.extend(retention.archival.iter().map(|rule| {
        let every = match rule.every {
            Period::Month => "month",
            Period::Quarter => "quarter",
            Period::Year => "year",
        };
        let lifetime = rule.lifetime.map_or("for ever".to_owned(), |lifetime| format!("for {lifetime}"));
        format!("archival: one of each {every}, {lifetime}")
    }));
    lines.push(format!(
        "a copy that needs nothing older is made every {} days, or after {} generations",
        chain.days, chain.generations
    ));
    let locks = config.place.stores.iter();
    lines.extend(locks.filter_map(|store| Some(format!("{}: {}", store.name, lock(store.lock.as_ref()?)))));
    lines
}

/// `the last 7, of 10 working days, of 14 days; nothing younger than 30 days goes`.
fn rules(rules: &Rules) -> String {
    let counts =
        [(rules.working_days, "working day"), (rules.daily, "day"), (rules.weekly, "week"), (rules.monthly, "month")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, what)| format!(", the last of each of {}", counted(count.into(), what)));
    let min = rules.min_age.map(|age| format!("; nothing younger than {age} goes")).unwrap_or_default();
    let max = rules.max_age.map(|age| format!("; nothing older than {age} stays")).unwrap_or_default();
    format!("the newest {}{}{min}{max}; never fewer than {}", rules.last, counts.collect::<String>(), rules.floor)
}
