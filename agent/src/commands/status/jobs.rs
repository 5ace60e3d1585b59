//! What happens by itself, as the daemon tells it, or what it has written down if it does not run.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::daemon::anew;
use crate::commands::show;
use crate::config::{Place, Span};
use crate::daemon::{self, Answer, Request};
use crate::failure::{Kind, one_line};
use crate::ids::JobName;
use crate::schedule::{Ended, Job, Memory, Running, Waiting, Why};

/// The schedule and how it goes.
#[derive(Serialize)]
pub(super) struct Jobs {
    /// The daemon's process; absent if it does not run.
    daemon: Option<u32>,
    /// Why nothing is known of the past, or what is told here may not be what the daemon does.
    problem: Option<String>,
    paused_until: Option<Timestamp>,
    jobs: Vec<JobStatus>,
}

/// What the daemon has in mind, by the configuration that it has read.
type Plan = BTreeMap<JobName, Option<Timestamp>>;

#[derive(Default, Serialize)]
struct JobStatus {
    name: String,
    run: Vec<String>,
    at: Vec<String>,
    /// Whether the configuration has it.
    configured: bool,
    /// Whether the daemon that runs has it.
    planned: bool,
    /// As that daemon has it in mind.
    next_run: Option<Timestamp>,
    running: Option<Running>,
    waiting: Option<Waiting>,
    last: Option<Ended>,
    last_good: Option<Timestamp>,
    /// The time for which no run has begun although it is long past.
    overdue: Option<Timestamp>,
    /// Whether it makes generations: how its last run ended is told elsewhere.
    #[serde(skip)]
    backs_up: bool,
}

impl Jobs {
    /// Nothing if there are no jobs, neither in the configuration nor in the daemon that runs.
    pub(super) fn of(place: &Place, config: &Path, now: Timestamp) -> Option<Self> {
        let schedule = &place.schedule;
        let (daemon, memory, mut plan, problem) = match daemon::ask(&place.state, &Request::Status) {
            Ok(Answer::Status { pid, memory, since, next }) => {
                (Some(pid), memory, next, changed_since(config, since, pid))
            }
            _ => match daemon::read_memory(&place.state) {
                Ok(memory) => (None, memory.unwrap_or_else(|| Memory::new(now)), Plan::new(), None),
                Err(error) => {
                    let what = format!("{}; the daemon begins anew when it is started", one_line(&error));
                    (None, Memory::new(now), Plan::new(), Some(what))
                }
            },
        };
        if schedule.jobs.is_empty() && plan.is_empty() {
            return None;
        }
        // By times that the daemon has not read, nothing is late.
        let is_read = daemon.is_none() || problem.is_none();
        let running = |name: &JobName| memory.job(name).and_then(|known| known.running).filter(|_| daemon.is_some());
        let status = |job: &Job| {
            let known = memory.job(&job.name);
            let planned = plan.remove(&job.name);
            JobStatus {
                name: job.name.to_string(),
                run: job.run.clone(),
                at: job.at.iter().map(ToString::to_string).collect(),
                configured: true,
                planned: planned.is_some(),
                next_run: planned.flatten(),
                running: running(&job.name),
                waiting: known.and_then(|known| known.waiting).filter(|_| daemon.is_some()),
                last: known.and_then(|known| known.last.clone()),
                last_good: known.and_then(|known| known.last_good),
                overdue: schedule.overdue(job, &memory, daemon.is_some(), now).filter(|_| is_read),
                backs_up: job.backs_up(),
            }
        };
        let mut jobs: Vec<JobStatus> = schedule.jobs.iter().map(status).collect();
        // What the daemon still does although nobody wants it any more.
        jobs.extend(plan.into_iter().map(|(name, next_run)| {
            let known = memory.job(&name);
            JobStatus {
                name: name.to_string(),
                planned: true,
                next_run,
                running: running(&name),
                waiting: known.and_then(|known| known.waiting),
                last: known.and_then(|known| known.last.clone()),
                last_good: known.and_then(|known| known.last_good),
                ..JobStatus::default()
            }
        }));
        Some(Self { daemon, problem, paused_until: memory.paused_until.filter(|until| *until > now), jobs })
    }

    /// What somebody should do something about.
    pub(super) fn attention(&self, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for job in &self.jobs {
            if let Some(due) = job.overdue {
                let ago = Span(now.duration_since(due).unsigned_abs());
                lines.push(format!("{} is OVERDUE: it should have begun {ago} ago ({})", job.name, show::time(due)));
            }
            // Of one that is gone, it is not known whether anything else tells of it, and nobody waits for it.
            let tells = |last: &&Ended| job.configured && last.exit_code != Some(0) && !job.is_told_elsewhere(last);
            if let Some(last) = job.last.as_ref().filter(tells) {
                lines.push(format!("{} {}", job.name, job.how(last)));
            }
        }
        if self.daemon.is_none() {
            lines.push(
                "the daemon does not run, so nothing happens by itself; start it: `systemctl enable --now offsite`, or \
                 `offsite daemon` without the package"
                    .to_owned(),
            );
        }
        if let Some(until) = self.paused_until {
            lines.push(format!("paused until {}; `offsite daemon resume` ends that", show::time(until)));
        }
        lines.extend(self.problem.clone());
        lines
    }

    pub(super) fn text(&self, now: Timestamp) -> String {
        let mut text = "By itself:\n".to_owned();
        for job in &self.jobs {
            let next = match (&job.running, job.next_run) {
                (Some(running), _) => {
                    format!("RUNNING for {}", Span(now.duration_since(running.started).unsigned_abs()))
                }
                (None, _) if job.waiting.is_some_and(|waiting| waiting.why == Why::Locked) => {
                    "WAITS for another run that is under way, and is tried again by itself".to_owned()
                }
                (None, Some(at)) if !job.configured => {
                    format!("next {}, although it is NOT in the configuration any more", show::minute(at))
                }
                (None, Some(at)) => format!("next {}", show::minute(at)),
                (None, None) if job.planned => "no time to come".to_owned(),
                (None, None) if self.daemon.is_some() => "not before the daemon reads the configuration".to_owned(),
                (None, None) => "not before the daemon runs".to_owned(),
            };
            let last = job.last.as_ref().map_or_else(
                || "no run yet".to_owned(),
                |last| format!("last {}: {}", show::ago(last.ended, now), job.how(last)),
            );
            text.push_str(&show::wrapped(&format!("  {:12} ", job.name), &format!("{next}; {last}")));
        }
        text
    }
}

/// That the configuration is not the one any more that the daemon read when it began. Runs read it anew, the schedule does not.
fn changed_since(config: &Path, since: Timestamp, pid: u32) -> Option<String> {
    let changed = Timestamp::try_from(config.metadata().ok()?.modified().ok()?).ok()?;
    (changed > since).then(|| {
        format!(
            "{} was changed ({}) after the daemon had read it ({}), so jobs still begin as they did before, at the times shown \
             below; make it read it: {}",
            config.display(),
            show::minute(changed),
            show::minute(since),
            anew(&pid.to_string())
        )
    })
}

impl JobStatus {
    fn is_drill(&self) -> bool {
        self.run.first().is_some_and(|verb| verb == "drill")
    }

    /// Whether how a run ended is remembered as the last backup or the last drill. A drill that was stopped is neither.
    fn is_told_elsewhere(&self, last: &Ended) -> bool {
        let is_stopped = last.exit_code.is_none_or(|code| code == Kind::Interrupted.code());
        self.backs_up || (self.is_drill() && !is_stopped)
    }

    /// How a run ended, in words.
    fn how(&self, last: &Ended) -> String {
        let late = if last.late { ", not done by its deadline" } else { "" };
        let why = if last.messages.is_empty() { String::new() } else { format!(": {}", last.messages.join(": ")) };
        let untried = [Kind::Usage.code(), Kind::Store.code()];
        match last.exit_code {
            Some(0) => format!("done{late}"),
            Some(code) if code == Kind::Interrupted.code() => format!("STOPPED{late}"),
            // Without a key or a store a drill shows nothing, neither good nor bad.
            Some(code) if self.is_drill() && untried.contains(&code) => {
                format!("could NOT BE TRIED (exit code {code}){late}{why}")
            }
            Some(code) => format!("FAILED (exit code {code}){late}{why}"),
            None => format!("FAILED (killed){late}{why}"),
        }
    }
}
