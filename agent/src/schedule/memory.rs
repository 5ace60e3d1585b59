//! What has happened, as far as it decides what is to happen. It outlives the daemon, so that a restart neither repeats
//! nor forgets a run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::{Job, SETTLE, Schedule, later};
use crate::ids::JobName;

/// What the schedule knows of the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The time at the last step.
    pub seen: Timestamp,
    /// No scheduled run begins before this time.
    pub paused_until: Option<Timestamp>,
    /// Each job.
    pub jobs: BTreeMap<JobName, JobMemory>,
    /// The daemon ends: nothing begins any more.
    #[serde(skip)]
    pub stopping: bool,
}

/// What is known of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMemory {
    /// When the job was first seen. Earlier times are none of its own.
    pub since: Timestamp,
    /// Its times up to this one are dealt with.
    pub served: Timestamp,
    /// What `served` was before the clock was set back; counts again once the clock is there again.
    pub ahead: Option<Timestamp>,
    /// A run that is to begin.
    pub waiting: Option<Waiting>,
    /// The run that goes on.
    pub running: Option<Running>,
    /// The run that ended last.
    pub last: Option<Ended>,
    /// When a run last ended well.
    pub last_good: Option<Timestamp>,
}

/// A run that is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The time it is made for; none if somebody asked for it.
    pub due: Option<Timestamp>,
    /// It begins when this has come.
    pub start: Timestamp,
    /// Why it is made.
    pub why: Why,
}

/// Why a run is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is time.
    Scheduled,
    /// Its time passed while nobody could begin it.
    CaughtUp,
    /// Its time passed while the run before it went on.
    Overlapped,
    /// It was begun before, and was interrupted.
    Interrupted,
    /// Another run, that was started by hand, was in the way.
    Locked,
    /// Somebody asked for it.
    Asked,
}

/// A run that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The time it is made for; none if somebody asked for it.
    pub due: Option<Timestamp>,
    /// Why it is made.
    pub why: Why,
    /// When it began.
    pub started: Timestamp,
    /// When it has to be done.
    pub deadline: Option<Timestamp>,
    /// Its deadline has passed.
    pub late: bool,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The time it was made for; none if somebody asked for it.
    pub due: Option<Timestamp>,
    /// Why it was made.
    pub why: Why,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How; nothing if it was killed.
    pub exit_code: Option<u8>,
    /// Why it failed, if it said so.
    pub messages: Vec<String>,
    /// Whether it was not done by its deadline.
    pub late: bool,
}

impl Memory {
    /// Nothing has happened yet.
    pub fn new(now: Timestamp) -> Self {
        Self { seen: now, paused_until: None, jobs: BTreeMap::new(), stopping: false }
    }

    /// What is known of `job`.
    pub fn job(&self, job: &JobName) -> Option<&JobMemory> {
        self.jobs.get(job)
    }
}

impl Schedule {
    /// Fits `memory` to this schedule when the daemon begins: a job that is new has no past, and a run that was under way
    /// was interrupted.
    pub fn begin(&self, memory: &mut Memory, now: Timestamp) {
        memory.jobs.retain(|name, _| self.jobs.iter().any(|job| job.name == *name));
        for job in &self.jobs {
            let known = memory.jobs.entry(job.name.clone()).or_insert_with(|| self.first_seen(job, now));
            if let Some(running) = known.running.take() {
                known.waiting.get_or_insert(interrupted(job, running.due, now));
            }
        }
    }

    fn first_seen(&self, job: &Job, now: Timestamp) -> JobMemory {
        let served = job.latest(now, &self.calendar).unwrap_or(now);
        let (ahead, waiting, running, last, last_good) = Default::default();
        JobMemory { since: now, served, ahead, waiting, running, last, last_good }
    }

    /// When the next run of `job` begins, if nothing comes in between.
    pub fn next_run(&self, job: &Job, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
        let known = memory.job(&job.name);
        let paused = memory.paused_until.unwrap_or(Timestamp::MIN);
        let waiting = known.and_then(|known| known.waiting).map(|waiting| match waiting.why {
            Why::Asked => waiting.start,
            _ => waiting.start.max(paused),
        });
        let served = known.map_or(now, |known| known.served);
        let next = || job.next(served.max(now), &self.calendar).map(|due| job.start_of(due).max(paused));
        waiting.map(|start| start.max(now)).or_else(next)
    }

    /// The time for which a run of `job` should have begun, if that is longer ago than the grace and none has. `alive` says
    /// whether a run that is remembered as going on does.
    pub fn overdue(&self, job: &Job, memory: &Memory, alive: bool, now: Timestamp) -> Option<Timestamp> {
        let known = memory.job(&job.name).filter(|known| known.running.is_none() || !alive)?;
        let begun = known.last.as_ref().map_or(known.since, |last| last.started.max(known.since));
        let due = job.next(begun, &self.calendar)?;
        (later(job.start_of(due), self.grace) <= now).then_some(due)
    }
}

/// The run that is to be made in place of one that did not come to its end.
pub(super) fn interrupted(job: &Job, due: Option<Timestamp>, now: Timestamp) -> Waiting {
    Waiting { due, start: later(job.start_of(now), SETTLE), why: Why::Interrupted }
}
