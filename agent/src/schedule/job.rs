//! What is configured: jobs, and what can be told of them without knowing what has happened.

use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};

use super::times::{Times, moment_of};
use crate::calendar::Calendar;
use crate::ids::{JobName, SiteName};

/// Everything that is to happen by itself.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The office's clock and days.
    pub calendar: Calendar,
    /// In the order of the configuration, which is that of precedence.
    pub jobs: Vec<Job>,
    /// A run that has not begun so long after its time is overdue.
    pub grace: Duration,
}

/// One thing that happens again and again.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// The verb that runs, and its arguments.
    pub run: Vec<String>,
    /// The configuration that it runs with, if that is another one: another set of sources, with a site of its own.
    pub config: Option<PathBuf>,
    /// What it must not run beside.
    pub lane: Lane,
    /// When: at least one expression.
    pub at: Vec<Times>,
    /// Only on days on which the office works.
    pub workdays: bool,
    /// It begins so long after its times: see [`delay`].
    pub delay: Duration,
    /// Whether a time that passed unused is made up for.
    pub catch_up: bool,
    /// When it has to be done.
    pub deadline: Option<Deadline>,
}

/// Runs of one lane are made one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It changes what is stored, or what this machine remembers.
    Changes,
    /// It only reads.
    Reads,
}

/// When a run has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The next such time of the day after the run's own.
    pub by: Time,
    /// What becomes of a run that is not.
    pub late: Late,
}

/// What becomes of a run that is not done by its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is stopped where it can be gone on with; one that has not begun does not.
    Stop,
    /// It goes on, and is called late.
    GoOn,
}

/// After a start or a sleep of the machine its network needs a moment.
pub(super) const SETTLE: Duration = Duration::from_secs(60);

/// The share of `longest` that `job` of `site` waits after each of its times: always the same one, another for each site.
pub fn delay(site: &SiteName, job: &JobName, longest: Duration) -> Duration {
    let hash = blake3::hash(format!("{site}/{job}").as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    let share = u128::from(u32::from_le_bytes([a, b, c, d]));
    let nanoseconds = (longest.as_nanos() * share) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl Job {
    /// Whether its runs make generations of this site: those that only finish what others left do not.
    pub fn backs_up(&self) -> bool {
        let backs_up = self.run.first().is_some_and(|verb| verb == "backup");
        self.config.is_none() && backs_up && !self.run.iter().any(|argument| argument == "--resume")
    }

    /// The first of its times after `after`.
    pub fn next(&self, after: Timestamp, calendar: &Calendar) -> Option<Timestamp> {
        self.at.iter().filter_map(|times| times.next(after, calendar, self.workdays)).min()
    }

    /// The last of its times that is not after `now`.
    pub fn latest(&self, now: Timestamp, calendar: &Calendar) -> Option<Timestamp> {
        self.at.iter().filter_map(|times| times.latest(now, calendar, self.workdays)).max()
    }

    /// When the run of the time `due` begins if nothing is in its way.
    pub fn start_of(&self, due: Timestamp) -> Timestamp {
        later(due, self.delay)
    }

    /// The shorter one of the distances from its time `at` to those beside it.
    pub fn distance(&self, at: Timestamp, calendar: &Calendar) -> SignedDuration {
        let to_next = self.next(at, calendar).map(|next| next.duration_since(at));
        let before = at.checked_sub(SignedDuration::from_nanos(1)).ok().and_then(|at| self.latest(at, calendar));
        let from_last = before.map(|last| at.duration_since(last));
        to_next.into_iter().chain(from_last).min().unwrap_or(SignedDuration::MAX)
    }

    /// When the run of the time `due` has to be done.
    pub fn deadline_of(&self, due: Timestamp, calendar: &Calendar) -> Option<Timestamp> {
        let by = self.deadline?.by;
        let zone = calendar.zone();
        let mut date = zone.to_datetime(due).date();
        // Today's may be over already, and where the clock is changed tomorrow's may be the first.
        for _ in 0..3 {
            match moment_of(date.to_datetime(by), zone) {
                Some(deadline) if deadline > due => return Some(deadline),
                _ => date = date.tomorrow().ok()?,
            }
        }
        None
    }
}

/// `at` plus `span`; the end of time is far enough for what is beyond it.
pub(super) fn later(at: Timestamp, span: Duration) -> Timestamp {
    SignedDuration::try_from(span).ok().and_then(|span| at.checked_add(span).ok()).unwrap_or(Timestamp::MAX)
}
