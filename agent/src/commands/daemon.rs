//! `offsite daemon`: becomes the daemon, or tells the one that runs.

mod metrics;
mod refused;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::output::Output;
use super::{interrupt, load_config, load_place, report, show};
use crate::cli::{DaemonArgs, DaemonVerb};
use crate::clock;
use crate::config::{Place, Span};
use crate::daemon::{self, Answer, AskError, Daemon, DaemonError, DaemonSettings, Request};
use crate::failure::{Failure, Kind};
use crate::ids::JobName;
use crate::schedule::{Job, JobMemory, Lane};
use crate::staging::{FolderLock, Holder, StagingError};

/// What the daemon did when it was told.
#[derive(Serialize)]
struct Told {
    paused_until: Option<Timestamp>,
    running: Vec<JobName>,
    waiting: Vec<JobName>,
    /// Why a job that was asked for has to wait, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_the_way: Option<String>,
}

/// A pause that is forgotten must end before anybody has to find out what was not backed up.
const PAUSE_MAX: Duration = Duration::from_secs(7 * 86_400);

pub(super) fn run(arguments: &DaemonArgs, path: &Path, output: Output) -> Result<(), Failure> {
    match &arguments.tell {
        None => become_daemon(path),
        Some(verb) => tell(verb, path, output),
    }
}

fn become_daemon(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    if config.place.schedule.jobs.is_empty() {
        return Err(Failure::new(Kind::Usage, "the configuration has no [[job]], so there is nothing to do by itself")
            .hint("add one: [[job]] with name = \"nightly\", run = [\"backup\"], at = \"Mon-Fri 23:30\""));
    }
    let failed = |error| Failure::new(Kind::Failed, error);
    let path = std::path::absolute(path).map_err(failed)?;
    let jobs = refused::Jobs::of(&config.place, &path)?;
    let (refused, inbox) = mpsc::channel();
    let place = config.place.clone();
    let settings = DaemonSettings {
        schedule: config.place.schedule,
        state_folder: config.place.state,
        program: std::env::current_exe().map_err(failed)?,
        config: path,
        refused,
    };
    let daemon = Daemon::begin(settings).map_err(|error| match error {
        DaemonError::Folder(StagingError::Locked { holder, .. }) => {
            let who = holder.as_ref().map(|holder| format!(": process {} on {}", holder.pid, holder.host));
            let pid = holder.map_or_else(|| "PID".to_owned(), |holder| holder.pid.to_string());
            Failure::new(Kind::Locked, format!("the daemon of this site runs already{}", who.unwrap_or_default())).hint(
                format!(
                    "there is nothing to start; it reads a changed configuration when it is started anew: {}",
                    anew(&pid)
                ),
            )
        }
        error => Failure::new(Kind::Failed, error),
    })?;
    if let Some(address) = place.reports.metrics.listen
        && let Err(error) = metrics::listen(address, move || report::numbers(&place))
    {
        // Runs matter more than numbers.
        tracing::error!("nobody can ask for numbers at {address}: {error}");
    }
    let stopper = daemon.stopper();
    interrupt::each(move || stopper.stop())?;
    // Beside the schedule, which a slow mail server must not hold up. With the daemon the channel ends.
    let teller = thread::Builder::new().name("refused".to_owned()).spawn(move || jobs.tell(&inbox)).map_err(failed)?;
    daemon.run();
    teller.join().map_err(|_| Failure::new(Kind::Failed, "what could not begin could not be told of"))
}

/// How the daemon with this process is started anew, with systemd and without.
pub(super) fn anew(pid: &str) -> String {
    format!("`systemctl restart offsite`, or without systemd `kill {pid}`, and `offsite daemon` when that has ended")
}

fn tell(verb: &DaemonVerb, path: &Path, output: Output) -> Result<(), Failure> {
    let place = load_place(path)?;
    let request = match verb {
        DaemonVerb::Pause { span: Span(span) } if *span > PAUSE_MAX => {
            let what = format!("a pause of {} is too long: nothing would be backed up meanwhile", Span(*span));
            return Err(Failure::new(Kind::Usage, what).hint(format!("at most {}", Span(PAUSE_MAX))));
        }
        DaemonVerb::Pause { span: Span(span) } => {
            let span = SignedDuration::try_from(*span).unwrap_or(SignedDuration::ZERO);
            Request::Pause { until: clock::now() + span }
        }
        DaemonVerb::Resume => Request::Resume,
        DaemonVerb::Run { job } => Request::Run { job: job.clone() },
    };
    let in_the_way = in_the_way(&place, &request);
    match daemon::ask(&place.state, &request) {
        Ok(Answer::Status { memory, .. }) => {
            let with = |wanted: fn(&JobMemory) -> bool| {
                memory.jobs.iter().filter(|(_, known)| wanted(known)).map(|(name, _)| name.clone()).collect()
            };
            let told = Told {
                paused_until: memory.paused_until,
                running: with(|known| known.running.is_some()),
                waiting: with(|known| known.waiting.is_some()),
                in_the_way,
            };
            output.deed(0, &told, || told.text())
        }
        Ok(Answer::Refused(why)) => Err(Failure::new(Kind::Usage, why)),
        Err(error @ AskError::NotRunning) => Err(Failure::new(Kind::Failed, error)
            .hint("start it: `systemctl enable --now offsite`, or `offsite daemon` at a terminal")),
        Err(error) => Err(Failure::new(Kind::Failed, error)),
    }
}

/// The run that is under way and holds the site, if the job that is asked for cannot run beside it. Asked before the job begins:
/// looking must not be in its way.
fn in_the_way(place: &Place, request: &Request) -> Option<String> {
    let Request::Run { job } = request else { return None };
    let needs_site = |known: &&Job| known.name == *job && known.config.is_none() && known.lane == Lane::Changes;
    place.schedule.jobs.iter().find(needs_site)?;
    let Holder { pid, since, .. } = FolderLock::holder(&place.staging)?;
    Some(format!(
        "{job} has to WAIT: another run (process {pid}, since {}) is under way. The daemon tries again by itself until it is \
         done; `offsite status` shows it.",
        show::minute(since)
    ))
}

/// The jobs that a daemon which runs should have begun and has not, each with the time that it missed.
pub(super) fn overdue(place: &Place, now: Timestamp) -> BTreeMap<JobName, Timestamp> {
    let Ok(Answer::Status { memory, .. }) = daemon::ask(&place.state, &Request::Status) else { return BTreeMap::new() };
    let schedule = &place.schedule;
    let overdue = |job: &Job| Some((job.name.clone(), schedule.overdue(job, &memory, true, now)?));
    schedule.jobs.iter().filter_map(overdue).collect()
}

impl Told {
    fn text(&self) -> String {
        let mut text = match self.paused_until {
            Some(until) => format!("Paused: no scheduled run begins before {}.\n", show::time(until)),
            None => "The schedule runs.\n".to_owned(),
        };
        if let Some(why) = &self.in_the_way {
            text.push_str(&format!("{why}\n"));
        }
        let running = if self.in_the_way.is_some() { "Begun, or to be tried again" } else { "Running" };
        for (what, jobs) in [(running, &self.running), ("Waiting", &self.waiting)] {
            if !jobs.is_empty() {
                let names: Vec<&str> = jobs.iter().map(JobName::as_str).collect();
                text.push_str(&format!("{what}: {}\n", names.join(", ")));
            }
        }
        text
    }
}
