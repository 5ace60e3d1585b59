//! Calendar expressions: the times at which something is to happen, in the words of cron or in plain ones.
//!
//! Times are those of the clock on the office's wall. Where that clock is changed, a time of the day that does not exist is
//! the first moment that does, and one that exists twice is the first of the two: each counts once. What happens every so
//! many minutes or hours keeps its rhythm instead.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::plain;
use crate::calendar::Calendar;

/// The times of one expression.
#[derive(Clone, Debug)]
pub struct Times {
    text: String,
    patterns: Vec<Pattern>,
    /// Only on days on which the office works.
    workdays: bool,
}

/// A text that is no calendar expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` says no time: {why}; write for example \"daily 02:00\", \"Mon-Fri 23:30\", \"monthly last 03:00\", or cron's five fields"
)]
pub struct TimesError {
    text: String,
    why: String,
}

#[derive(Clone, Debug)]
struct Pattern {
    cron: Cron,
    /// Whatever the hour: what counts is the distance, not the time of the day.
    rhythm: bool,
}

/// No zone changes its clock so often within the time that a pattern can be away.
const CHANGES_MAX: usize = 64;
/// A time that lies twice on the clock, and times on days without work, are passed over so often.
const PASSED_MAX: usize = 4000;
/// How far back the latest time is looked for, in seconds: a minute, an hour, a day, a week, five weeks, a year, nine years.
/// The 29th of February can be eight years away.
const LOOKS_BACK: [i64; 7] = [60, 3600, 86_400, 604_800, 3_024_000, 31_622_400, 284_000_000];

impl Times {
    /// The first of its times after `after`; with `workdays`, of those on days on which the office works.
    pub fn next(&self, after: Timestamp, calendar: &Calendar, workdays: bool) -> Option<Timestamp> {
        let zone = calendar.zone();
        let mut from = after;
        for _ in 0..PASSED_MAX {
            let next = self.patterns.iter().filter_map(|pattern| pattern.next(from, zone)).min()?;
            let date = next.to_zoned(zone.clone()).date();
            if !(self.workdays || workdays) || calendar.is_working_day(date) {
                return Some(next);
            }
            let tomorrow = date.tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp();
            from = tomorrow.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        }
        None
    }

    /// The last of its times that is not after `now`.
    pub fn latest(&self, now: Timestamp, calendar: &Calendar, workdays: bool) -> Option<Timestamp> {
        for seconds in LOOKS_BACK {
            let from = now.checked_sub(SignedDuration::from_secs(seconds)).ok()?;
            let mut found = None;
            let mut next = self.next(from, calendar, workdays);
            while let Some(at) = next.filter(|at| *at <= now) {
                found = Some(at);
                next = self.next(at, calendar, workdays);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl fmt::Display for Times {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Times {
    type Err = TimesError;

    fn from_str(text: &str) -> Result<Self, TimesError> {
        let text = text.trim();
        let wrong = |why: String| TimesError { text: text.chars().take(100).collect(), why };
        let is_cron = text.starts_with(|c: char| c.is_ascii_digit() || c == '*' || c == '@');
        let (expressions, workdays) = if is_cron {
            (vec![text.to_owned()], false)
        } else {
            let plain = plain::read(text).map_err(wrong)?;
            (plain.cron, plain.workdays)
        };
        let patterns: Result<Vec<Pattern>, String> = expressions.iter().map(|text| Pattern::new(text)).collect();
        Ok(Self { text: text.to_owned(), patterns: patterns.map_err(wrong)?, workdays })
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| error.to_string().trim_end_matches('.').to_owned())?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        // The hour is the third from the end of the five, with or without seconds before them; `@hourly` has no fields.
        let hour = fields.len().checked_sub(4).and_then(|at| fields.get(at));
        let rhythm = hour.map_or_else(|| text.eq_ignore_ascii_case("@hourly"), |hour| hour.starts_with('*'));
        let pattern = Self { cron, rhythm };
        match pattern.cron.find_next_occurrence(&DateTime::constant(2024, 1, 1, 0, 0, 0, 0), true) {
            Ok(_) => Ok(pattern),
            Err(_) => Err("there is no such day".to_owned()),
        }
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.rhythm { self.next_beat(after, zone) } else { self.next_time_of_day(after, zone) }
    }

    /// Every time on the wall's clock counts once.
    fn next_time_of_day(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut civil = zone.to_datetime(after);
        for _ in 0..PASSED_MAX {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
            let at = moment_of(civil, zone)?;
            if at > after {
                return Some(at);
            }
        }
        None
    }

    /// Every moment at which the wall's clock shows such a time counts.
    fn next_beat(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        for _ in 0..CHANGES_MAX {
            let offset = zone.to_offset(from);
            let change = zone.following(from).next().map(|change| change.timestamp());
            let found = self.cron.find_next_occurrence(&offset.to_datetime(from), inclusive).ok()?;
            let at = offset.to_timestamp(found).ok()?;
            match change {
                Some(change) if at >= change => (from, inclusive) = (change, true),
                _ => return Some(at),
            }
        }
        None
    }
}

/// When the clock on the wall shows `civil`: the first time if it does so twice; if never, when it passes it.
pub(super) fn moment_of(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let past = ambiguous.later().ok()?.checked_add(SignedDuration::from_secs(1)).ok()?;
            zone.preceding(past).next().map(|change| change.timestamp())
        }
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
    }
}

#[cfg(test)]
mod tests;
