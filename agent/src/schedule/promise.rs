//! When the next backup is due, as it is told to whoever watches from afar.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::{Job, Schedule, later};

/// When a site will be heard of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The next backup begins at this time.
    pub next_run: Timestamp,
    /// If nothing was heard of it by this time, it is overdue.
    pub overdue_after: Timestamp,
}

impl Schedule {
    /// What can be promised at `now`; nothing if no job backs anything up.
    pub fn promise(&self, now: Timestamp) -> Option<Promise> {
        let next = |job: &Job| {
            let due = job.next(now, &self.calendar)?;
            let next_run = job.start_of(due);
            let by = job.deadline_of(due, &self.calendar).unwrap_or(Timestamp::MIN);
            let grace: Duration = self.grace;
            Some(Promise { next_run, overdue_after: later(next_run, grace).max(by) })
        };
        self.jobs.iter().filter(|job| job.backs_up()).filter_map(next).min_by_key(|promise| promise.overdue_after)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::Time;
    use jiff::tz::TimeZone;

    use super::super::{Deadline, Lane, Late};
    use super::*;
    use crate::calendar::Calendar;

    #[test]
    fn the_next_backup_is_promised_and_nothing_else() {
        let job = |name: &str, run: &str, at: &str| Job {
            name: name.parse().unwrap(),
            run: vec![run.to_owned()],
            config: None,
            lane: Lane::Changes,
            at: vec![at.parse().unwrap()],
            workdays: false,
            delay: Duration::from_secs(120),
            catch_up: true,
            deadline: None,
        };
        let jobs = vec![job("look", "verify", "hourly"), job("nightly", "backup", "Mon-Fri 23:30")];
        let calendar = Calendar::new(TimeZone::UTC);
        let mut schedule = Schedule { calendar, jobs, grace: Duration::from_secs(6 * 3600) };
        let friday: Timestamp = "2026-11-20T23:31:00Z".parse().unwrap();
        let promise = schedule.promise(friday).unwrap();
        assert_eq!(promise.next_run, "2026-11-23T23:32:00Z".parse().unwrap());
        assert_eq!(promise.overdue_after, "2026-11-24T05:32:00Z".parse().unwrap());
        schedule.jobs[1].deadline = Some(Deadline { by: Time::constant(7, 0, 0, 0), late: Late::GoOn });
        assert_eq!(schedule.promise(friday).unwrap().overdue_after, "2026-11-24T07:00:00Z".parse().unwrap());
        // What another configuration backs up is another site's.
        schedule.jobs[1].config = Some("/etc/offsite/hourly.toml".into());
        assert_eq!(schedule.promise(friday), None);
        schedule.jobs.pop();
        assert_eq!(schedule.promise(friday), None);
        let mut resume = job("finish", "backup", "hourly");
        resume.run.push("--resume".to_owned());
        schedule.jobs.push(resume);
        assert_eq!(schedule.promise(friday), None, "it makes no generation");
    }
}
