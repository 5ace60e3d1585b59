//! `offsite check`: everything that would make tonight's run fail, now and all at once.

use std::path::Path;
use std::time::Duration;

use providers::{Access, KeyPrefix, Policy, Verdict};
use serde::Serialize;

use super::output::{Output, Problems};
use super::preflight::Room;
use super::probing::{self, Probed};
use super::recipients::Change;
use super::stores::{self, OpenStore};
use super::{advice, load_config, preflight, space};
use crate::config::{Config, Problem, Size, SourceEntry, StoreConfig};
use crate::failure::{self, Failure, Kind};
use crate::ids::{SiteName, SourceName};
use crate::prune::{self, Hidden};
use crate::schedule::Job;
use crate::{capture, platform, probed};

#[derive(Serialize)]
struct Checked {
    sources: Vec<Thing>,
    stores: Vec<Thing>,
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
    /// What a store was seen to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

/// Somebody waits for the answer.
const ATTEMPTS: u32 = 2;
const ELAPSED_MAX: Duration = Duration::from_secs(60);
/// So much that may not be read is enough to know that rights are missing.
const SHUT_MAX: usize = 100;

pub(super) fn run(path: &Path, output: Output) -> Result<(), Failure> {
    let config = load_config(path)?;
    let room = preflight::room(&config);
    let mut local = preflight::problems(&config);
    local.extend(preflight::absent_sources(&config).into_iter().flatten());
    local.extend(check_rights(&config));
    // Nobody would be told of the run, which would not fail for that.
    local.extend(config.place.reports.missing_secrets());
    local.extend(check_jobs(&config));
    let mut remote = preflight::absent_folders(&config);
    let (probes, versions) = check_stores(&config)?;
    remote.extend(probes.iter().flat_map(|found| found.problems.clone()));
    let servers: Vec<Problem> = check_servers(&config).into_iter().chain(check_snapshots(&config)).collect();
    let lacks = space::lacks(&config, &probes);
    remote.extend(lacks.stores);
    let lack: Vec<Problem> =
        room.as_ref().and_then(|room| room.problem(&config)).into_iter().chain(lacks.spool).collect();
    // If only a disk is full, or only stores are not as they should be, the settings may well be right.
    let kind = match (local.is_empty() && servers.is_empty(), lack.is_empty()) {
        (false, _) => Kind::Usage,
        (true, false) => Kind::Failed,
        (true, true) => Kind::Store,
    };
    let problems: Vec<Problem> = local.into_iter().chain(lack).chain(servers).chain(remote).collect();
    if problems.is_empty() {
        let state = &config.place.state;
        probing::make_state(state)
            .map_err(|error| Failure::new(Kind::Failed, format!("{} cannot be made: {error}", state.display())))?;
    }
    probes.iter().for_each(|found| probing::keep(&config.place, found));
    if !problems.is_empty() {
        let what = match problems.len() {
            1 => "one thing would make a run fail, or its copy incomplete".to_owned(),
            many => format!("{many} things would make a run fail, or its copy incomplete"),
        };
        let failure = Failure::new(kind, Problems { what, problems });
        // What usually helps with stores is this very verb.
        let mend = "mend what is named, and see with another `offsite check` that nothing is left";
        return Err(if kind == Kind::Store { failure.hint(mend) } else { failure });
    }
    let notes = advice::notes(&config, path).into_iter().chain(versions).collect();
    let checked = summary(&config, room, &probes, notes);
    output.deed(0, &checked, || show(&checked))
}

/// Configurations of jobs that have one of their own. What they name is looked at by `offsite --config FILE check`.
fn check_jobs(config: &Config) -> Vec<Problem> {
    let check = |job: &Job| {
        let error = Config::load(job.config.as_deref()?).err()?;
        let what = format!("the configuration of the job {}: {}", job.name, failure::one_line(&error));
        Some(Problem { key: "job.config".to_owned(), line: None, what })
    };
    config.place.schedule.jobs.iter().filter_map(check).collect()
}

/// Files and folders that this account may not read, so that every copy would be without them.
fn check_rights(config: &Config) -> Vec<Problem> {
    let own = [config.place.staging.clone(), config.place.state.clone()];
    let check = |source: &SourceEntry| {
        let shut = capture::unreadable(&source.resolve().ok()?, &own, SHUT_MAX);
        let (first, folder) = (shut.first()?, source.path()?.display());
        let count = match shut.len() {
            1 => "one file or folder".to_owned(),
            SHUT_MAX => format!("{SHUT_MAX} or more files and folders"),
            more => format!("{more} files and folders"),
        };
        let account = platform::account_name();
        let what = format!(
            "the account {account} may not read {count} in {folder}, such as {first}, and every copy would be without them; \
             give it the right (`setfacl -R -m u:{account}:rX {folder}`), or leave them out by `exclude`"
        );
        Some(Problem { key: source.key("path"), line: None, what })
    };
    config.sources.iter().filter_map(check).collect()
}

/// What each database server says when it is asked. Secrets that cannot be read have been reported.
fn check_servers(config: &Config) -> Vec<Problem> {
    let check = |source: &SourceEntry| {
        let what = capture::check_server(&source.resolve().ok()?).err()?;
        Some(Problem { key: source.key("name"), line: None, what: format!("{}: {what}", source.name) })
    };
    config.sources.iter().filter_map(check).collect()
}

/// What keeps folders out of the snapshot that they are to be had in.
fn check_snapshots(config: &Config) -> Vec<Problem> {
    let sources: Vec<_> = config.sources.iter().filter_map(|source| source.resolve().ok()).collect();
    let found = capture::check_snapshots(&sources, &config.place.site).into_iter();
    let problem = |(name, what): (&SourceName, String)| {
        let source = config.sources.iter().find(|source| source.name == *name)?;
        Some(Problem { key: source.key("snapshot"), line: None, what: format!("{name}: {what}") })
    };
    found.filter_map(problem).collect()
}

/// What each store really does, all at once; and what is worth a thought about it.
fn check_stores(config: &Config) -> Result<(Vec<Probed<'_>>, Vec<Problem>), Failure> {
    let policy = Policy { attempts: ATTEMPTS, elapsed_max: ELAPSED_MAX, ..Policy::default() };
    // A store that cannot be opened has been reported.
    let (stores, closed) = stores::open(&config.place, None, Access::Agent, &policy)?;
    let site = KeyPrefix::default().below(config.place.site.as_str());
    let site = site.map_err(|error| Failure::new(Kind::Usage, error))?;
    // A folder that is not there has been reported.
    let there = stores.iter().filter(|store| store.config.directory().is_none_or(|folder| folder.is_dir()));
    let (site, policy) = (&site, &policy);
    let looks = there.map(|store| async move {
        (probing::probe(store, site, policy).await, version_note(store, &config.place.site).await)
    });
    let looks = stores::runtime()?.block_on(futures_util::future::join_all(looks));
    let (mut probes, notes): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
    for found in &mut probes {
        let disk =
            stores.iter().find(|store| *store.place() == found.place).and_then(|store| store.disk.as_ref()?.same());
        found.problems.extend(disk.map(|same| stores::disk_problem(found.config, same)));
    }
    probes.extend(closed.iter().filter_map(|store| {
        let problems = vec![stores::disk_problem(store.config, store.disk()?)];
        Some(Probed { config: store.config, place: store.config.name.clone(), verdict: None, problems })
    }));
    Ok((probes, notes.into_iter().flatten().collect()))
}

/// That a bucket keeps versions of what was removed, and perhaps for ever; or that it does not say.
async fn version_note(store: &OpenStore<'_>, site: &SiteName) -> Option<Problem> {
    let what = match prune::hidden(store.store.as_ref(), site).await {
        Ok(None | Some(Hidden::For { .. })) => return None,
        Ok(Some(hidden)) => hidden.to_string(),
        Err(error) => format!("whether it keeps what was removed is not known: {}", failure::chain(&error).join(": ")),
    };
    Some(Problem { key: store.config.key("bucket"), line: None, what })
}

fn summary(config: &Config, room: Option<Room>, probes: &[Probed<'_>], notes: Vec<Problem>) -> Checked {
    let sources = config.sources.iter().map(|source| Thing {
        name: source.name.to_string(),
        kind: source.kind(),
        place: source
            .path()
            .or_else(|| Some(source.programs().first()?.1))
            .map(|path| path.display().to_string())
            .or_else(|| source.server())
            .unwrap_or_default(),
        verdict: None,
    });
    let verdict = |store: &StoreConfig| {
        let found = probes.iter().find(|found| found.config.name == store.name)?;
        found.verdict.clone()
    };
    let stores = config.place.stores.iter().map(|store| Thing {
        name: store.name.to_string(),
        kind: store.kind(),
        place: store.to_string(),
        verdict: verdict(store),
    });
    Checked {
        sources: sources.collect(),
        stores: stores.collect(),
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
            for line in thing.verdict.iter().flat_map(probed::lines) {
                text.push_str(&format!("            {line}\n"));
            }
        }
    }
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
