//! One step of the schedule: what has happened and what time it is go in, what is to be done comes out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::job::{Job, Late, SETTLE, Schedule, later};
use super::memory::{Ended, JobMemory, Memory, Running, Waiting, Why, interrupted};
use crate::failure::Kind;
use crate::ids::JobName;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Clock,
    /// A run has ended.
    Ended {
        /// Its job.
        job: JobName,
        /// How; nothing if it was killed.
        exit_code: Option<u8>,
        /// Why it failed, if it said so.
        messages: Vec<String>,
    },
    /// No scheduled run is to begin before this time.
    Pause(Timestamp),
    /// Scheduled runs are to begin again.
    Resume,
    /// This job is to run as soon as its lane is free.
    RunNow(JobName),
    /// The daemon ends.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Begin a run of the job.
    Start {
        /// The job.
        job: JobName,
        /// Why.
        why: Why,
    },
    /// Ask the run of the job to stop where it can be gone on with.
    End {
        /// The job.
        job: JobName,
        /// Why.
        why: EndWhy,
    },
    /// A run of the job is not made.
    Skip {
        /// The job.
        job: JobName,
        /// The time it would have been made for.
        due: Timestamp,
        /// Why not.
        why: SkipWhy,
    },
    /// The run of the job goes on past its deadline.
    Late {
        /// The job.
        job: JobName,
        /// The deadline.
        deadline: Timestamp,
    },
}

/// Why a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndWhy {
    /// It is not done by its deadline.
    Deadline,
    /// The daemon ends.
    Stop,
}

/// Why a run is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipWhy {
    /// Its time passed while nobody could begin it, and the job does not catch up.
    Missed,
    /// The run before it still goes on, and the job does not catch up.
    Overlapped,
    /// It could not begin before its deadline.
    Deadline,
}

/// A run that begins so long after it should is late: the daemon looks at the clock each minute.
const ON_TIME: Duration = Duration::from_secs(10 * 60);
/// How long a run that another one was in the way of waits before it tries again.
const LOCKED_WAIT: Duration = Duration::from_secs(5 * 60);
/// A missed run is not made up for if the next one is so near: as a share of the distance between the two.
const NEAR: i32 = 10;

impl Schedule {
    /// Takes `event` at `now` into `memory`; what is returned is to be done in this order.
    pub fn step(&self, memory: &mut Memory, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.follow_clock(memory, now);
        let stop = event == Event::Stop;
        match event {
            Event::Clock => {}
            Event::Ended { job, exit_code, messages } => self.ended(memory, &job, exit_code, messages, now),
            Event::Pause(until) => memory.paused_until = Some(until),
            Event::Resume => memory.paused_until = None,
            Event::RunNow(job) => {
                if let Some(known) = memory.jobs.get_mut(&job).filter(|known| known.running.is_none()) {
                    let due = known.waiting.and_then(|waiting| waiting.due);
                    known.waiting = Some(Waiting { due, start: now, why: Why::Asked });
                }
            }
            Event::Stop => memory.stopping = true,
        }
        if memory.paused_until.is_some_and(|until| until <= now) {
            memory.paused_until = None;
        }
        for job in &self.jobs {
            if let Some(known) = memory.jobs.get_mut(&job.name) {
                self.note_due(job, known, now, &mut actions);
                self.keep_deadline(job, known, now, &mut actions);
            }
        }
        if !memory.stopping {
            self.start_ready(memory, now, &mut actions);
        } else if stop {
            let running = memory.jobs.iter().filter(|(_, known)| known.running.is_some());
            actions.extend(running.map(|(job, _)| Action::End { job: job.clone(), why: EndWhy::Stop }));
        }
        memory.seen = now;
        actions
    }

    /// The next moment at which a step may have something to do.
    pub fn wake(&self, memory: &Memory, now: Timestamp) -> Option<Timestamp> {
        let moments =
            self.jobs.iter().filter_map(|job| Some((job, memory.job(&job.name)?))).flat_map(|(job, known)| {
                let start = known.waiting.map(|waiting| waiting.start);
                let deadline = known.running.filter(|running| !running.late).and_then(|running| running.deadline);
                [start, deadline, job.next(known.served.max(now), &self.calendar)]
            });
        moments.chain([memory.paused_until]).flatten().filter(|at| *at > now).min()
    }

    /// A clock that was set back must neither repeat what has just been done nor keep the schedule waiting until it is
    /// where it was.
    fn follow_clock(&self, memory: &mut Memory, now: Timestamp) {
        let back = now < memory.seen;
        for job in &self.jobs {
            let Some(known) = memory.jobs.get_mut(&job.name) else { continue };
            if let Some(ahead) = known.ahead.filter(|ahead| *ahead <= now) {
                known.served = known.served.max(ahead);
                known.ahead = None;
            }
            if !back {
                continue;
            }
            let by = known.served.duration_since(now);
            // Less than half a turn: the next time that comes is the one that was served already.
            if by > job.distance(known.served, &self.calendar) / 2 {
                known.ahead = Some(known.ahead.map_or(known.served, |ahead| ahead.max(known.served)));
                known.served = job.latest(now, &self.calendar).unwrap_or(now);
            }
            if let Some(waiting) = &mut known.waiting {
                waiting.start = waiting.start.min(later(job.start_of(now), LOCKED_WAIT));
            }
            known.since = known.since.min(now);
            if let Some(last) = &mut known.last {
                (last.started, last.ended) = (last.started.min(now), last.ended.min(now));
            }
        }
        if let Some(until) = memory.paused_until.filter(|_| back) {
            let left = until.duration_since(memory.seen).max(SignedDuration::ZERO);
            memory.paused_until = now.checked_add(left).ok();
        }
    }

    fn ended(&self, memory: &mut Memory, name: &JobName, exit_code: Option<u8>, messages: Vec<String>, now: Timestamp) {
        let job = self.jobs.iter().find(|job| job.name == *name);
        let (Some(job), Some(known)) = (job, memory.jobs.get_mut(name)) else { return };
        let Some(Running { due, why, started, late, .. }) = known.running.take() else { return };
        if exit_code == Some(Kind::Locked.code()) {
            known.waiting.get_or_insert(Waiting { due, start: later(now, LOCKED_WAIT), why: Why::Locked });
            return;
        }
        if memory.stopping && exit_code.is_none_or(|code| code == Kind::Interrupted.code()) {
            known.waiting.get_or_insert(interrupted(job, due, now));
        }
        if exit_code == Some(0) {
            known.last_good = Some(now);
        }
        known.last = Some(Ended { due, why, started, ended: now, exit_code, messages, late });
    }

    /// Looks whether a time of the job has come.
    fn note_due(&self, job: &Job, known: &mut JobMemory, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(due) = job.latest(now, &self.calendar).filter(|due| *due > known.served) else { return };
        known.served = due;
        let on_time = later(job.start_of(due), ON_TIME) >= now;
        let skip = |why| Action::Skip { job: job.name.clone(), due, why };
        let waiting = match (known.running.is_some(), on_time) {
            (true, _) if job.catch_up => Waiting { due: Some(due), start: now, why: Why::Overlapped },
            (true, _) => return actions.push(skip(SkipWhy::Overlapped)),
            (false, true) => Waiting { due: Some(due), start: job.start_of(due), why: Why::Scheduled },
            (false, false) if job.catch_up => {
                Waiting { due: Some(due), start: later(job.start_of(now), SETTLE), why: Why::CaughtUp }
            }
            (false, false) => return actions.push(skip(SkipWhy::Missed)),
        };
        known.waiting = Some(match known.waiting {
            // Whoever asked for it does not wait for its time.
            Some(asked) if asked.why == Why::Asked => Waiting { due: Some(due), ..asked },
            // What was missed before is made up for by the run whose time has come.
            Some(_) if waiting.why == Why::Scheduled => waiting,
            Some(before) => Waiting { due: Some(due), ..before },
            None => waiting,
        });
    }

    fn keep_deadline(&self, job: &Job, known: &mut JobMemory, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(late) = job.deadline.map(|deadline| deadline.late) else { return };
        let name = || job.name.clone();
        if let Some(running) = &mut known.running
            && let Some(deadline) = running.deadline.filter(|deadline| *deadline <= now && !running.late)
        {
            running.late = true;
            actions.push(match late {
                Late::Stop => Action::End { job: name(), why: EndWhy::Deadline },
                Late::GoOn => Action::Late { job: name(), deadline },
            });
        }
        if let Some(Waiting { due: Some(due), why, .. }) = known.waiting
            && late == Late::Stop
            && why != Why::Asked
            && job.deadline_of(due, &self.calendar).is_some_and(|deadline| deadline <= now)
        {
            known.waiting = None;
            actions.push(Action::Skip { job: name(), due, why: SkipWhy::Deadline });
        }
    }

    /// In each lane that is free, begins the run that has waited longest.
    fn start_ready(&self, memory: &mut Memory, now: Timestamp, actions: &mut Vec<Action>) {
        let paused = memory.paused_until.is_some();
        let mut ready: Vec<(&Job, Waiting)> = Vec::new();
        for job in &self.jobs {
            let Some(waiting) = memory.job(&job.name).and_then(|known| known.waiting) else { continue };
            let held = waiting.why != Why::Asked && (paused || self.next_is_near(job, &waiting, now));
            if waiting.start <= now && !held {
                ready.push((job, waiting));
            }
        }
        // Stable: of those that have waited equally long, the one that stands first in the configuration.
        ready.sort_by_key(|(_, waiting)| waiting.start);
        for (job, Waiting { due, why, .. }) in ready {
            let in_lane = |other: &&Job| other.lane == job.lane;
            let is_running = |other: &Job| memory.job(&other.name).is_some_and(|known| known.running.is_some());
            if self.jobs.iter().filter(in_lane).any(is_running) {
                continue;
            }
            let deadline = due.filter(|_| why != Why::Asked).and_then(|due| job.deadline_of(due, &self.calendar));
            let Some(known) = memory.jobs.get_mut(&job.name) else { continue };
            known.waiting = None;
            known.running = Some(Running { due, why, started: now, deadline, late: false });
            actions.push(Action::Start { job: job.name.clone(), why });
        }
    }

    /// Whether the next time of the job is so near that a missed run is not worth making up for.
    fn next_is_near(&self, job: &Job, waiting: &Waiting, now: Timestamp) -> bool {
        let (Why::CaughtUp | Why::Overlapped, Some(due)) = (waiting.why, waiting.due) else { return false };
        let next = job.next(now, &self.calendar);
        next.is_some_and(|next| next.duration_since(now) < next.duration_since(due) / NEAR)
    }
}

#[cfg(test)]
mod tests;
