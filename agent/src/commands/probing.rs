//! What a store really does is tried, compared with what it did when it was tried last, and kept for the runs to come.

use std::io;
use std::path::Path;

use futures_util::StreamExt as _;
use providers::{ErrorKind, Finding, KeyPrefix, Policy, Verdict};

use super::output::say;
use super::stores::OpenStore;
use super::{evidence, preflight};
use crate::config::{Place, Problem, StoreConfig};
use crate::evidence::{Probe, Record};
use crate::failure;
use crate::ids::{GenerationId, StoreName};
use crate::{clock, durable, platform, probed};

/// S3 refuses requests from further away.
const CLOCK_DIFFERENCE_MAX_S: u64 = 5 * 60;

/// What became of probing one store.
pub(super) struct Probed<'a> {
    pub(super) config: &'a StoreConfig,
    /// What is known of it by: its name, or that of the disk of a rotation.
    pub(super) place: StoreName,
    /// Nothing if the store cannot be spoken to.
    pub(super) verdict: Option<Verdict>,
    /// What would make a run fail, or is worse than it was.
    pub(super) problems: Vec<Problem>,
}

/// Tries a store, below the folder of the site.
pub(super) async fn probe<'a>(store: &OpenStore<'a>, site: &KeyPrefix, policy: &Policy) -> Probed<'a> {
    let config = store.config;
    let place = store.place().clone();
    let failed =
        |what| Probed { config, place: place.clone(), verdict: None, problems: vec![problem(config, "name", what)] };
    // What cannot be listed needs no further questions.
    if let Some(Err(error)) = store.store.list(site).next().await {
        let what = failure::one_line(&error);
        return failed(format!("{} cannot be read: {what}; {}", config.name, remedy(error.kind)));
    }
    let settings = match config.settings() {
        Ok(settings) => settings,
        Err(problems) => return Probed { config, place, verdict: None, problems },
    };
    let now = clock::now();
    let nonce = GenerationId::new(now).to_string();
    match providers::probe(&settings, policy, site, &nonce, now, config.lock.is_some()).await {
        Ok(verdict) => {
            let problems = judge(config, &verdict, store.verdict.as_ref());
            Probed { config, place: place.clone(), verdict: Some(verdict), problems }
        }
        Err(error) => failed(format!("{} does not answer: {}", config.name, failure::one_line(&error))),
    }
}

/// Makes the state folder for verdicts, if there has been no run yet.
pub(super) fn make_state(state: &Path) -> io::Result<()> {
    if state.is_dir() {
        return Ok(());
    }
    durable::create_folder(state)?;
    // The administrator looks at what an account of its own will run.
    platform::give_to_owner_of_folder(state)
}

/// Keeps the verdict where there is a state folder, and tells of it whoever wants to know.
pub(super) fn keep(place: &Place, found: &Probed<'_>) {
    let is_ours = place.state.is_dir() && preflight::other_site(place).is_none();
    let Some(verdict) = found.verdict.as_ref().filter(|_| is_ours) else { return };
    let Probed { config, place: known_by, problems, .. } = found;
    if let Err(error) = probed::write(&place.state, known_by, &config.to_string(), verdict) {
        say(&format!("warning: what {} does could not be kept in {}: {error}", config.name, place.state.display()));
    }
    let passed = problems.is_empty();
    let findings =
        if passed { probed::lines(verdict) } else { problems.iter().map(|problem| problem.what.clone()).collect() };
    evidence::record(place, Record::Probe(Probe { store: config.name.to_string(), passed, findings }));
}

fn judge(config: &StoreConfig, verdict: &Verdict, earlier: Option<&Verdict>) -> Vec<Problem> {
    let name = &config.name;
    let mut problems = Vec::new();
    if verdict.clock_ahead_s.unsigned_abs() > CLOCK_DIFFERENCE_MAX_S {
        let apart = verdict.clock_ahead_s.unsigned_abs();
        let what = format!("the clock of {name} and this machine's are {apart} s apart; set this machine's");
        problems.push(problem(config, "name", what));
    }
    let obstacles = probed::obstacles(verdict).into_iter();
    problems.extend(obstacles.map(|what| problem(config, "name", format!("{name}: {what}; use another store"))));
    if config.lock.is_some() && verdict.lock != Finding::Yes {
        let what = format!(
            "{name}: what is locked there is not known to be safe from being deleted ({}); use a bucket that was made with \
             object lock and a key that may lock, or leave the lock out",
            verdict.lock
        );
        problems.push(problem(config, "lock", what));
    }
    let lost = earlier.map(|earlier| probed::lost(verdict, earlier)).unwrap_or_default();
    problems.extend(lost.into_iter().map(|what| {
        let what = format!("{name}: {what}; ask whoever runs it what has changed");
        problem(config, "name", what)
    }));
    problems
}

fn problem(config: &StoreConfig, key: &str, what: String) -> Problem {
    Problem { key: config.key(key), line: None, what }
}

/// What to look at first.
fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Throttled => "see whether its url or endpoint is right and the line is up",
        ErrorKind::NotFound => "see whether its bucket or folder is there",
        ErrorKind::Denied => "see whether its login may list, read and write there",
        _ => "correct the settings of this store",
    }
}
