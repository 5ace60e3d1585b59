//! Simulated offices: what begins when, whatever happens to machine, clock and runs.

use std::collections::BTreeMap;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use super::super::job::{Deadline, Lane};
use super::*;
use crate::calendar::Calendar;

/// An office whose runs take as long and end as it is told, with a clock that is set, and a machine that sleeps and dies.
struct Sim {
    schedule: Schedule,
    memory: Memory,
    now: Timestamp,
    /// When the runs that go on will end, and how.
    running: BTreeMap<JobName, (Timestamp, Option<u8>)>,
    /// For each job, or for its next run only: minutes and exit code.
    usual: BTreeMap<&'static str, (i64, u8)>,
    unusual: BTreeMap<&'static str, (i64, u8)>,
    log: Vec<String>,
}

fn job(name: &str, at: &str, lane: Lane) -> Job {
    let name: JobName = name.parse().unwrap();
    let delay = Duration::ZERO;
    let at = vec![at.parse().unwrap()];
    let run = vec!["backup".to_owned()];
    Job { name, run, config: None, lane, at, workdays: false, delay, catch_up: true, deadline: None }
}

impl Sim {
    fn new(begin: &str, jobs: Vec<Job>) -> Self {
        let zone = TimeZone::get("Europe/Vienna").unwrap();
        let grace = Duration::from_secs(6 * 3600);
        let schedule =
            Schedule { calendar: Calendar::new(zone).with_holidays(["2026-03-19".parse().unwrap()]), jobs, grace };
        let now = begin.parse::<DateTime>().unwrap().to_zoned(schedule.calendar.zone().clone()).unwrap().timestamp();
        let mut memory = Memory::new(now);
        schedule.begin(&mut memory, now);
        let (running, usual, unusual, log) = Default::default();
        Self { schedule, memory, now, running, usual, unusual, log }
    }

    fn at(&self, text: &str) -> Timestamp {
        text.parse::<DateTime>().unwrap().to_zoned(self.schedule.calendar.zone().clone()).unwrap().timestamp()
    }

    fn tell(&mut self, event: Event) {
        for action in self.schedule.step(&mut self.memory, event, self.now) {
            let text = match &action {
                Action::Start { job, why } => {
                    assert!(!self.running.contains_key(job), "{job} overlaps itself");
                    let (minutes, code) = self
                        .unusual
                        .remove(job.as_str())
                        .or_else(|| self.usual.get(job.as_str()).copied())
                        .unwrap_or((10, 0));
                    let ends = self.now + SignedDuration::from_mins(minutes);
                    self.running.insert(job.clone(), (ends, Some(code)));
                    format!("{job} {why:?}")
                }
                Action::End { job, why } => {
                    let ends = self.now + SignedDuration::from_secs(20);
                    self.running.insert(job.clone(), (ends, Some(130)));
                    format!("{job} ended: {why:?}")
                }
                Action::Skip { job, why, .. } => format!("{job} skipped: {why:?}"),
                Action::Late { job, .. } => format!("{job} late"),
            };
            let zoned = self.now.to_zoned(self.schedule.calendar.zone().clone());
            self.log.push(format!("{} {text}", zoned.strftime("%m-%d %H:%M")));
            let lanes = |lane| {
                let of = |job: &&Job| job.lane == lane && self.running.contains_key(&job.name);
                self.schedule.jobs.iter().filter(of).count()
            };
            assert!(lanes(Lane::Changes) <= 1 && lanes(Lane::Reads) <= 1, "two in a lane: {:?}", self.running);
        }
        // What is written down is all there is.
        let text = serde_json::to_string(&self.memory).unwrap();
        let stopping = self.memory.stopping;
        self.memory = serde_json::from_str(&text).unwrap();
        self.memory.stopping = stopping;
    }

    /// Lets time pass until the clock shows `until`, waking only when the schedule asks for it or a run ends.
    fn run(&mut self, until: &str) {
        let until = self.at(until);
        self.tell(Event::Clock);
        while self.now < until {
            let wake = self.schedule.wake(&self.memory, self.now);
            let ends = self.running.values().map(|(ends, _)| *ends).min();
            self.now = wake.into_iter().chain(ends).chain([until]).min().unwrap().max(self.now);
            self.end_runs();
            self.tell(Event::Clock);
        }
    }

    fn end_runs(&mut self) {
        let now = self.now;
        while let Some(job) = self.running.iter().find(|(_, (ends, _))| *ends <= now).map(|(job, _)| job.clone()) {
            let (_, exit_code) = self.running.remove(&job).unwrap();
            self.tell(Event::Ended { job, exit_code, messages: Vec::new() });
        }
    }

    /// Nothing happens until the clock shows `until`; what runs goes on then.
    fn sleep(&mut self, until: &str) {
        let slept = self.at(until) - self.now;
        self.now = self.at(until);
        for (ends, _) in self.running.values_mut() {
            *ends += slept;
        }
    }

    /// Somebody sets the clock; what runs does not notice.
    fn set_clock(&mut self, to: &str) {
        self.sleep(to);
    }

    /// The power fails, and comes back at `until`.
    fn die(&mut self, until: &str) {
        self.running.clear();
        self.now = self.at(until);
        self.schedule.begin(&mut self.memory, self.now);
    }

    /// The daemon is stopped and begun again at `until`.
    fn restart(&mut self, until: &str) {
        self.tell(Event::Stop);
        while let Some(ends) = self.running.values().map(|(ends, _)| *ends).min() {
            self.now = ends;
            self.end_runs();
        }
        self.memory.stopping = false;
        self.now = self.at(until);
        self.schedule.begin(&mut self.memory, self.now);
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn office_of_the_month() -> Sim {
    let mut nightly = job("nightly", "Mon-Fri 23:30", Lane::Changes);
    nightly.workdays = true;
    let jobs = vec![
        nightly,
        job("archive", "monthly last 22:00", Lane::Changes),
        job("prune", "daily 04:00", Lane::Changes),
        job("verify", "sun 02:30", Lane::Reads),
    ];
    let mut sim = Sim::new("2026-03-01T00:00", jobs);
    sim.usual = BTreeMap::from([("nightly", (60, 0)), ("archive", (120, 0)), ("verify", (120, 0)), ("prune", (10, 0))]);
    sim
}

const MONTH: &str = "
    03-01 02:30 verify Scheduled
    03-01 04:00 prune Scheduled
    03-02 04:00 prune Scheduled
    03-02 23:30 nightly Scheduled
    03-03 04:00 prune Scheduled
    03-03 23:30 nightly Scheduled
    03-04 04:00 prune Scheduled
    03-04 23:30 nightly Scheduled
    03-05 04:00 prune Scheduled
    03-05 23:30 nightly Scheduled
    03-06 04:00 prune Scheduled
    03-09 08:01 nightly CaughtUp
    03-09 08:01 verify CaughtUp
    03-09 09:01 prune CaughtUp
    03-09 23:30 nightly Scheduled
    03-10 04:00 prune Scheduled
    03-10 23:30 nightly Scheduled
    03-11 04:00 prune Scheduled
    03-11 23:30 nightly Scheduled
    03-13 01:30 prune Scheduled
    03-13 01:40 nightly Overlapped
    03-13 04:00 prune Scheduled
    03-13 23:30 nightly Scheduled
    03-14 04:00 prune Scheduled
    03-15 02:30 verify Scheduled
    03-15 04:00 prune Scheduled
    03-16 04:00 prune Scheduled
    03-16 23:30 nightly Scheduled
    03-17 04:00 prune Scheduled
    03-17 23:30 nightly Scheduled
    03-18 04:00 prune Scheduled
    03-18 23:30 nightly Scheduled
    03-19 04:00 prune Scheduled
    03-20 04:00 prune Scheduled
    03-20 23:30 nightly Scheduled
    03-21 04:00 prune Scheduled
    03-22 02:30 verify Scheduled
    03-22 04:00 prune Scheduled
    03-23 04:00 prune Scheduled
    03-23 23:30 nightly Scheduled
    03-24 04:00 prune Scheduled
    03-24 10:01 nightly CaughtUp
    03-24 10:01 verify CaughtUp
    03-24 11:01 archive CaughtUp
    03-24 13:01 prune CaughtUp
    03-24 23:30 nightly Scheduled
    03-25 04:00 prune Scheduled
    03-25 23:30 nightly Scheduled
    03-26 04:00 prune Scheduled
    03-26 23:30 nightly Scheduled
    03-26 23:45 nightly ended: Stop
    03-26 23:50 nightly Interrupted
    03-27 04:00 prune Scheduled
    03-27 23:30 nightly Scheduled
    03-28 09:01 nightly Interrupted
    03-28 10:01 prune CaughtUp
    03-29 03:00 verify Scheduled
    03-29 04:00 prune Scheduled
    03-30 04:00 prune Scheduled
    03-31 12:00 nightly Scheduled
    03-31 13:00 prune Scheduled
    03-31 22:00 archive Scheduled
    04-01 00:00 nightly Scheduled
    04-01 04:00 prune Scheduled";

/// A month with everything that can come in between. The 19th is a holiday.
#[test]
fn a_month_begins_exactly_the_right_runs() {
    let mut sim = office_of_the_month();
    // Sunday the 1st and four quiet days; then the machine sleeps over the weekend.
    sim.run("2026-03-06T20:00");
    sim.sleep("2026-03-09T08:00");
    // A run of 26 hours.
    sim.run("2026-03-11T12:00");
    sim.unusual.insert("nightly", (26 * 60, 0));
    // The store is down for three nights.
    sim.run("2026-03-16T12:00");
    sim.usual.insert("nightly", (5, 4));
    sim.run("2026-03-19T12:00");
    sim.usual.insert("nightly", (60, 0));
    // In the middle of a run, the clock is set back by an hour.
    sim.run("2026-03-20T23:40");
    sim.set_clock("2026-03-20T22:40");
    // It is set a year ahead, and right again after ten minutes.
    sim.run("2026-03-24T10:00");
    sim.set_clock("2027-03-24T10:00");
    sim.run("2027-03-24T10:10");
    sim.set_clock("2026-03-24T10:10");
    // The daemon is restarted while something runs; the next night the power fails.
    sim.run("2026-03-26T23:45");
    sim.restart("2026-03-26T23:50");
    sim.run("2026-03-27T23:40");
    sim.die("2026-03-28T09:00");
    // On the 29th, 02:30 does not exist. On the 30th somebody pauses for a day.
    sim.run("2026-03-30T12:00");
    sim.tell(Event::Pause(sim.at("2026-03-31T12:00")));
    sim.run("2026-04-01T12:00");

    let expected: Vec<&str> = MONTH.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let log = sim.take_log();
    for (line, (found, expected)) in log.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "line {line} of:\n{}", log.join("\n"));
    }
    assert_eq!(log.len(), expected.len(), "{}", log.join("\n"));
}

/// Looking at the clock each minute, as the daemon does, makes no difference to waking when there is something to do.
#[test]
fn waking_more_often_changes_nothing() {
    let mut seldom = office_of_the_month();
    let mut often = office_of_the_month();
    seldom.run("2026-03-04T06:00");
    while often.now < often.at("2026-03-04T06:00") {
        often.now += SignedDuration::from_secs(60);
        often.end_runs();
        often.tell(Event::Clock);
    }
    assert_eq!(seldom.log, often.log);
}

#[test]
fn a_deadline_is_kept_as_the_job_says() {
    for (late, expected) in [
        (
            Late::Stop,
            &["03-03 23:30 nightly Scheduled", "03-04 07:00 nightly ended: Deadline", "03-04 23:30 nightly Scheduled"]
                [..],
        ),
        (Late::GoOn, &["03-03 23:30 nightly Scheduled", "03-04 07:00 nightly late", "03-04 23:30 nightly Scheduled"]),
    ] {
        let mut nightly = job("nightly", "daily 23:30", Lane::Changes);
        nightly.deadline = Some(Deadline { by: Time::constant(7, 0, 0, 0), late });
        let mut sim = Sim::new("2026-03-03T12:00", vec![nightly]);
        sim.unusual.insert("nightly", (9 * 60, 0));
        sim.run("2026-03-05T00:00");
        assert_eq!(sim.take_log(), expected);
        let last = sim.memory.jobs.values().next().unwrap().last.clone().unwrap();
        assert!(!last.late && last.exit_code == Some(0));
        // The machine is off at night: what could only be late is made late, or not at all.
        sim.sleep("2026-03-06T09:00");
        sim.run("2026-03-06T10:00");
        let expected =
            if late == Late::Stop { "03-06 09:00 nightly skipped: Deadline" } else { "03-06 09:01 nightly CaughtUp" };
        assert_eq!(sim.take_log()[0], expected);
    }
}

#[test]
fn what_does_not_catch_up_says_what_it_left_out() {
    let mut nightly = job("hourly", "hourly", Lane::Changes);
    nightly.catch_up = false;
    let mut sim = Sim::new("2026-03-03T11:30", vec![nightly]);
    sim.unusual.insert("hourly", (90, 0));
    sim.run("2026-03-03T14:30");
    sim.sleep("2026-03-03T18:30");
    sim.run("2026-03-03T19:30");
    let expected = [
        "03-03 12:00 hourly Scheduled",
        "03-03 13:00 hourly skipped: Overlapped",
        "03-03 14:00 hourly Scheduled",
        "03-03 18:30 hourly skipped: Missed",
        "03-03 19:00 hourly Scheduled",
    ];
    assert_eq!(sim.take_log(), expected);
}

#[test]
fn a_missed_run_gives_way_to_the_next_one_if_that_is_near() {
    let mut sim = Sim::new("2026-03-03T12:00", vec![job("nightly", "daily 02:00", Lane::Changes)]);
    sim.sleep("2026-03-08T01:55");
    sim.run("2026-03-08T12:00");
    assert_eq!(sim.take_log(), ["03-08 02:00 nightly Scheduled"]);
}

#[test]
fn sites_and_jobs_are_spread() {
    let longest = Duration::from_secs(600);
    let name: JobName = "nightly".parse().unwrap();
    let mut tenths = [0; 10];
    for number in 0..500 {
        let site = format!("site-{number}").parse().unwrap();
        let delay = super::super::delay(&site, &name, longest);
        assert_eq!(delay, super::super::delay(&site, &name, longest));
        tenths[usize::try_from(delay.as_secs() / 60).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|count| (20..=80).contains(count)), "{tenths:?}");
    let mut late = job("nightly", "daily 02:00", Lane::Changes);
    late.delay = Duration::from_secs(7 * 60);
    let mut sim = Sim::new("2026-03-03T12:00", vec![late]);
    sim.run("2026-03-04T12:00");
    assert_eq!(sim.take_log(), ["03-04 02:07 nightly Scheduled"]);
}

#[test]
fn whoever_asks_does_not_wait_for_the_time_or_the_end_of_a_pause() {
    let mut sim = Sim::new("2026-03-03T12:00", vec![job("nightly", "daily 02:00", Lane::Changes)]);
    let name: JobName = "nightly".parse().unwrap();
    sim.tell(Event::Pause(sim.at("2026-03-05T12:00")));
    sim.tell(Event::RunNow(name.clone()));
    sim.tell(Event::RunNow(name));
    sim.run("2026-03-04T10:00");
    sim.tell(Event::Resume);
    sim.run("2026-03-04T12:00");
    assert_eq!(sim.take_log(), ["03-03 12:00 nightly Asked", "03-04 10:00 nightly Scheduled"]);
}

#[test]
fn a_run_by_hand_that_is_in_the_way_is_waited_for() {
    let mut sim = Sim::new("2026-03-03T12:00", vec![job("nightly", "daily 02:00", Lane::Changes)]);
    sim.usual.insert("nightly", (0, 6));
    sim.run("2026-03-04T02:07");
    sim.usual.insert("nightly", (60, 0));
    sim.run("2026-03-04T12:00");
    let expected = ["03-04 02:00 nightly Scheduled", "03-04 02:05 nightly Locked", "03-04 02:10 nightly Locked"];
    assert_eq!(sim.take_log(), expected);
}

#[test]
fn overdue_is_what_has_not_begun_and_not_what_has_failed() {
    let mut sim = Sim::new("2026-03-03T12:00", vec![job("nightly", "daily 02:00", Lane::Changes)]);
    let overdue = |sim: &Sim| sim.schedule.overdue(&sim.schedule.jobs[0], &sim.memory, true, sim.now);
    sim.usual.insert("nightly", (10, 1));
    sim.run("2026-03-05T12:00");
    assert_eq!(overdue(&sim), None);
    assert_eq!(sim.memory.jobs.values().next().unwrap().last_good, None);
    // Nobody is there to begin it; the grace is six hours.
    sim.sleep("2026-03-06T07:59");
    assert_eq!(overdue(&sim), None);
    sim.sleep("2026-03-06T08:00");
    assert_eq!(overdue(&sim), Some(sim.at("2026-03-06T02:00")));
    // Forgotten pauses show.
    sim.run("2026-03-06T12:00");
    assert_eq!(overdue(&sim), None);
    sim.tell(Event::Pause(sim.at("2026-03-20T12:00")));
    sim.run("2026-03-09T12:00");
    assert_eq!(overdue(&sim), Some(sim.at("2026-03-07T02:00")));
}

#[test]
fn a_clock_that_was_far_back_for_a_while_repeats_nothing() {
    let mut sim = Sim::new("2026-03-03T12:00", vec![job("nightly", "daily 02:00", Lane::Changes)]);
    sim.run("2026-03-05T12:00");
    sim.take_log();
    // A machine without a clock of its own begins in the past, until it hears the time.
    sim.die("2020-01-01T00:00");
    sim.run("2020-01-01T00:02");
    sim.set_clock("2026-03-05T12:10");
    sim.run("2026-03-06T12:00");
    assert_eq!(sim.take_log(), ["03-06 02:00 nightly Scheduled"]);
    // One that stays back goes on by the time it has.
    sim.set_clock("2026-02-20T12:00");
    sim.run("2026-02-22T12:00");
    assert_eq!(sim.take_log(), ["02-21 02:00 nightly Scheduled", "02-22 02:00 nightly Scheduled"]);
}
