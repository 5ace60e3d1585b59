//! `[[job]]` and `[schedule]`: what happens by itself, and when.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Time;

use super::table::{Reader, Section};
use super::units::Span;
use crate::calendar::Calendar;
use crate::cli;
use crate::ids::{JobName, SiteName};
use crate::schedule::{Deadline, Job, Late, Schedule, Times, delay};

/// Offices are spread over so long, unless the times of a job are near each other.
const JITTER: Duration = Duration::from_secs(10 * 60);
const GRACE: Duration = Duration::from_secs(6 * 3600);
/// Distances between times are those of these days; a Monday.
const SAMPLE: Timestamp = Timestamp::constant(1_767_571_200, 0);
const SAMPLES: usize = 20;

/// Reads both; what is wrong is reported.
pub(super) fn read(
    reader: &Reader<'_>,
    root: &Section<'_, '_>,
    site: Option<&SiteName>,
    calendar: &Calendar,
) -> Schedule {
    let section = root.section("schedule");
    let grace = section.parsed("overdue_after").map_or(GRACE, |Span(grace)| grace);
    section.finish();
    let jobs: Vec<Job> =
        root.sections("job").into_iter().filter_map(|section| read_job(section, site, calendar)).collect();
    super::report_twins(reader, "job", jobs.iter().map(|job| job.name.as_str()));
    Schedule { calendar: calendar.clone(), jobs, grace }
}

fn read_job(section: Section<'_, '_>, site: Option<&SiteName>, calendar: &Calendar) -> Option<Job> {
    let name: Option<JobName> = section.required("name", "every job has a name of its own, such as name = \"nightly\"");
    section.must_have("run", "say what is to run, such as run = [\"backup\"]");
    let run = section.strings("run");
    let lane = run.as_ref().and_then(|run| cli::scheduled(run).map_err(|what| section.report("run", what)).ok());
    let config = section.path("config");
    section.must_have("at", "say when, such as at = \"Mon-Fri 23:30\"");
    let at: Option<Vec<Times>> = section.one_or_more("at").and_then(|texts| {
        let read = |text: &String| text.parse().map_err(|error| section.report("at", error)).ok();
        texts.iter().map(read).collect()
    });
    let workdays = section.boolean("working_days_only").unwrap_or(false);
    let jitter = section.parsed("jitter").map(|Span(jitter)| jitter);
    let catch_up = section.boolean("catch_up").unwrap_or(true);
    let deadline = read_deadline(&section);
    let job = || {
        let delay = Duration::ZERO;
        Some(Job { name: name?, run: run?, config, lane: lane?, at: at?, workdays, delay, catch_up, deadline })
    };
    let mut job = job();
    if let Some(job) = &mut job {
        let distance = shortest_distance(job, calendar);
        if jitter.is_some_and(|jitter| jitter >= distance) {
            let what = format!("it has to be shorter than the time from one run to the next, {}", Span(distance));
            section.report("jitter", what);
        }
        let longest = jitter.unwrap_or(JITTER.min(distance / 4));
        job.delay = site.map_or(Duration::ZERO, |site| delay(site, &job.name, longest));
    }
    section.finish();
    job
}

fn read_deadline(section: &Section<'_, '_>) -> Option<Deadline> {
    let by = section.string("done_by").and_then(|text| {
        let time = Some(text).filter(|text| text.contains(':')).and_then(|text| text.parse::<Time>().ok());
        if time.is_none() {
            section.report("done_by", format_args!("`{text}` is no time of the day such as 07:00"));
        }
        time
    });
    let late = match section.string("late") {
        None | Some("go on") => Late::GoOn,
        Some("stop") => Late::Stop,
        Some(other) => {
            section.report("late", format_args!("there is no `{other}`; there are \"go on\" and \"stop\""));
            Late::GoOn
        }
    };
    if section.has("late") && !section.has("done_by") {
        section.report("late", "it says what becomes of a run that is not done by `done_by`, which is missing");
    }
    Some(Deadline { by: by?, late })
}

fn shortest_distance(job: &Job, calendar: &Calendar) -> Duration {
    let times = std::iter::successors(job.next(SAMPLE, calendar), |at| job.next(*at, calendar)).take(SAMPLES);
    let times: Vec<Timestamp> = times.collect();
    let distances = times.windows(2).filter_map(|pair| match pair {
        [one, next] => Some(next.duration_since(*one).unsigned_abs()),
        _ => None,
    });
    distances.min().unwrap_or(Duration::MAX)
}
