//! `offsite check`: everything that would make tonight's run fail, now and all at once; with `--probe` also what each store
//! really does.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use providers::{Access, ErrorKind, KeyPrefix, Policy};
use serde::Serialize;

use super::output::{Output, Problems};
use super::preflight::Room;
use super::probe::{self, Probed};
use super::recipients::Change;
use super::stores::{self, OpenStore};
use super::{advice, load_config, preflight};
use crate::cli::CheckArgs;
use crate::config::{Config, Problem, Size, SourceEntry};
use crate::failure::{self, Failure, Kind};
use crate::{capture, clock};

#[derive(Serialize)]
struct Checked {
    sources: Vec<Thing>,
    stores: Vec<Thing>,
    /// What the stores were seen to do, if they were asked to show it.
    probes: Vec<Probed>,
    recipients: usize,
    /// What keys that came or went since the last run mean.
    recipients_changed: Vec<String>,
    staging_free_bytes: Option<u64>,
    /// What the next generation takes of it, at most.
    staging_needed_bytes: Option<u64>,
    /// What makes no run fail, and is worth a thought.
    notes: Vec<Problem>,
}

#[derive(Serialize)]
struct Thing {
    name: String,
    kind: &'static str,
    place: String,
}

/// Somebody waits for the answer.
const ATTEMPTS: u32 = 2;
const ELAPSED_MAX: Duration = Duration::from_secs(60);
/// S3 refuses requests from further away.
const CLOCK_DIFFERENCE_MAX: SignedDuration = SignedDuration::from_mins(5);

pub(super) fn run(arguments: &CheckArgs, path: &Path, output: Output) -> Result<(), Failure> {
    let config = load_config(path)?;
    let room = preflight::room(&config);
    let mut local = preflight::problems(&config, room.as_ref());
    // Nobody would be told of the run, which would not fail for that.
    local.extend(config.place.reports.missing_secrets());
    let mut remote = preflight::absent_folders(&config);
    remote.extend(check_stores(&config)?);
    let mut probes = Vec::new();
    if arguments.probe {
        let (found, wrong) = probe::run(&config.place, &policy())?;
        probes = found;
        // Of one that cannot even be read, that has been said.
        let known: BTreeSet<String> = remote.iter().map(|problem| problem.key.clone()).collect();
        remote.extend(wrong.into_iter().filter(|problem| !known.contains(&problem.key)));
    }
    let servers = check_servers(&config);
    // If only stores are not as they should be, the settings may well be right.
    let kind = if local.is_empty() && servers.is_empty() { Kind::Store } else { Kind::Usage };
    let problems: Vec<Problem> = local.into_iter().chain(servers).chain(remote).collect();
    if !problems.is_empty() {
        let what = match problems.len() {
            1 => "one thing would make a run fail".to_owned(),
            many => format!("{many} things would make a run fail"),
        };
        return Err(Failure::new(kind, Problems { what, problems }));
    }
    let checked = summary(&config, room, probes, advice::notes(&config, path));
    output.deed(0, &checked, || show(&checked))
}

/// What each database server says when it is asked. Secrets that cannot be read have been reported.
fn check_servers(config: &Config) -> Vec<Problem> {
    let check = |source: &SourceEntry| {
        let what = capture::check_server(&source.resolve().ok()?).err()?;
        Some(Problem { key: source.key("name"), line: None, what: format!("{}: {what}", source.name) })
    };
    config.sources.iter().filter_map(check).collect()
}

/// What each store says when it is asked, all at once.
fn check_stores(config: &Config) -> Result<Vec<Problem>, Failure> {
    // A store that cannot be opened has been reported.
    let (stores, _) = stores::open(&config.place, None, Access::Agent, &policy())?;
    let site = KeyPrefix::default().below(config.place.site.as_str());
    let site = site.map_err(|error| Failure::new(Kind::Usage, error))?;
    // A folder that is not there has been reported.
    let there = stores.iter().filter(|store| store.config.directory().is_none_or(|folder| folder.is_dir()));
    let checks = there.map(|store| check_store(store, &site));
    let found = stores::runtime()?.block_on(futures_util::future::join_all(checks));
    Ok(found.into_iter().flatten().collect())
}

fn policy() -> Policy {
    Policy { attempts: ATTEMPTS, elapsed_max: ELAPSED_MAX, ..Policy::default() }
}

async fn check_store(store: &OpenStore<'_>, site: &KeyPrefix) -> Option<Problem> {
    let problem = |what| Some(Problem { key: store.config.key("name"), line: None, what });
    let name = &store.config.name;
    if let Some(Err(error)) = store.store.list(site).next().await {
        let what = failure::one_line(&error);
        return problem(format!("{name} cannot be read: {what}; {}", remedy(error.kind)));
    }
    match store.store.now().await {
        Ok(theirs) => {
            let apart = clock_difference(theirs, clock::now());
            let what =
                format!("the clock of {name} and this machine's are {} s apart; set this machine's", apart.as_secs());
            if apart > CLOCK_DIFFERENCE_MAX { problem(what) } else { None }
        }
        Err(error) => problem(format!("{name} does not say what time it is: {}", failure::one_line(&error))),
    }
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

fn clock_difference(a: Timestamp, b: Timestamp) -> SignedDuration {
    a.duration_since(b).abs()
}

fn summary(config: &Config, room: Option<Room>, probes: Vec<Probed>, notes: Vec<Problem>) -> Checked {
    let sources = config.sources.iter().map(|source| Thing {
        name: source.name.to_string(),
        kind: source.kind(),
        place: source
            .path()
            .or_else(|| Some(source.programs().first()?.1))
            .map(|path| path.display().to_string())
            .or_else(|| source.server())
            .unwrap_or_default(),
    });
    let stores = config.place.stores.iter().map(|store| Thing {
        name: store.name.to_string(),
        kind: store.kind(),
        place: store.to_string(),
    });
    Checked {
        sources: sources.collect(),
        stores: stores.collect(),
        probes,
        recipients: config.recipients.count(),
        recipients_changed: Change::since_last(&config.place.state, &config.recipients)
            .map(|change| change.lines())
            .unwrap_or_default(),
        staging_free_bytes: room.map(|room| room.free_bytes),
        staging_needed_bytes: room.map(|room| room.needed_bytes),
        notes,
    }
}

fn show(checked: &Checked) -> String {
    let mut text = String::new();
    for (what, things) in [("source", &checked.sources), ("store", &checked.stores)] {
        for thing in things {
            text.push_str(&format!("ok  {what:7} {:20} {:9} {}\n", thing.name, thing.kind, thing.place));
        }
    }
    text.extend(checked.probes.iter().map(Probed::text));
    if let (Some(free), Some(needed)) = (checked.staging_free_bytes, checked.staging_needed_bytes) {
        text.push_str(&format!("ok  staging {} free, and a generation takes {} at most\n", Size(free), Size(needed)));
    }
    text.push_str(&format!("ok  keys    {} can open what is stored\n", checked.recipients));
    for line in &checked.recipients_changed {
        text.push_str(&format!("    {line}\n"));
    }
    if checked.recipients == 1 {
        text.push_str("    If that one key is lost, every backup is lost: add a second one.\n");
    }
    for Problem { key, what, .. } in &checked.notes {
        text.push_str(&format!("note  {key}: {what}\n"));
    }
    text + "Nothing was found that would make a run fail.\n"
}
