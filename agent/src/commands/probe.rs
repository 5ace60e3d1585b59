//! `offsite check --probe`: what each store really does, tried with small objects of our own, compared with the time before,
//! and kept as evidence.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use jiff::Timestamp;
use providers::{Finding, Policy, Verdict};
use serde::Serialize;

use super::output::say;
use super::{evidence, stores};
use crate::config::{Place, Problem, StoreConfig};
use crate::evidence::{Probe, Record};
use crate::failure::{self, Failure, Kind};
use crate::format::names;
use crate::{clock, durable};

/// What was found at one store.
#[derive(Serialize)]
pub(super) struct Probed {
    store: String,
    /// Whether it does everything that is relied on.
    passed: bool,
    /// What it does not do of that, a sentence each.
    wrong: Vec<String>,
    /// What it was seen to do; nothing if it could not be spoken to.
    seen: Option<Verdict>,
}

/// Tries every store that can be opened, all at once, and keeps what was found. What is wrong is a problem as well.
pub(super) fn run(place: &Place, policy: &Policy) -> Result<(Vec<Probed>, Vec<Problem>), Failure> {
    let site = names::site_prefix(&place.site).map_err(|error| Failure::new(Kind::Usage, error))?;
    let now = clock::now();
    // Stores that cannot be opened, and folders that are not there, have been reported.
    let there = place.stores.iter().filter(|store| store.directory().is_none_or(|folder| folder.is_dir()));
    let probes = there.filter_map(|store| {
        let settings = store.settings().ok()?;
        let (site, nonce) = (site.clone(), nonce(now));
        Some(async move {
            let lock = store.lock.is_some();
            (store, providers::probe(&settings, policy, &site, &nonce, now, lock).await)
        })
    });
    let found = stores::runtime()?.block_on(join_all(probes));
    let (mut probed, mut problems) = (Vec::new(), Vec::new());
    for (store, seen) in found {
        let one = judge(store, seen, &place.state);
        if !one.passed {
            let what = format!("{} does not do all that is relied on: {}", one.store, one.wrong.join("; "));
            problems.push(Problem { key: store.key("name"), line: None, what });
        }
        keep(place, &one);
        probed.push(one);
    }
    Ok((probed, problems))
}

fn judge(store: &StoreConfig, seen: providers::Result<Verdict>, state: &Path) -> Probed {
    let name = store.name.to_string();
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return Probed { store: name, passed: false, wrong: vec![failure::one_line(&error)], seen: None },
    };
    let earlier: Option<Verdict> =
        fs::read(file(state, &name)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let lost = earlier.map(|earlier| seen.lost_since(&earlier)).unwrap_or_default();
    let mut wrong = Vec::new();
    for (what, finding) in seen.findings() {
        let needed = match what {
            "read back" | "ranges" | "listing" | "create only" => true,
            "lock" => store.lock.is_some(),
            _ => false,
        };
        match finding {
            Finding::Yes => {}
            _ if needed => wrong.push(format!("{what}: {finding}")),
            _ if lost.contains(&what) => wrong.push(format!("{what}, which it did the last time: {finding}")),
            Finding::No(_) | Finding::Unknown(_) => {}
        }
    }
    Probed { store: name, passed: wrong.is_empty(), wrong, seen: Some(seen) }
}

/// For the next time, and as evidence.
fn keep(place: &Place, probed: &Probed) {
    if let Some(seen) = probed.seen.as_ref().filter(|_| probed.passed && place.state.is_dir()) {
        let path = file(&place.state, &probed.store);
        let text = serde_json::to_vec_pretty(seen).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| durable::write(&path, &text)) {
            say(&format!("warning: what was found could not be written to {}: {error}", path.display()));
        }
    }
    let findings = if probed.passed { probed.findings() } else { probed.wrong.clone() };
    evidence::record(place, Record::Probe(Probe { store: probed.store.clone(), passed: probed.passed, findings }));
}

impl Probed {
    fn findings(&self) -> Vec<String> {
        let line = |(what, finding): (&str, &Finding)| format!("{what}: {finding}");
        self.seen.iter().flat_map(Verdict::findings).map(line).collect()
    }

    /// For people: what was seen, and what it does not do but need not.
    pub(super) fn text(&self) -> String {
        let seen = self.seen.iter().flat_map(Verdict::findings);
        let (good, others): (Vec<_>, Vec<_>) = seen.partition(|(_, finding)| **finding == Finding::Yes);
        let good: Vec<&str> = good.into_iter().map(|(what, _)| what).collect();
        let mut text = format!("ok  probe   {:20} {}\n", self.store, good.join(", "));
        for (what, finding) in others {
            text.push_str(&format!("            {:20} {what}: {finding}\n", ""));
        }
        text
    }
}

fn file(state: &Path, store: &str) -> PathBuf {
    state.join(format!("probe-{store}.json"))
}

/// What tells the objects of one probe from those of others.
fn nonce(now: Timestamp) -> String {
    format!("{}-{}", now.strftime("%Y%m%dT%H%M%SZ"), std::process::id())
}
