//! Holidays out of an iCalendar file (RFC 5545), as authorities and calendar programs publish them.
//!
//! A reader of our own, and a strict one: of the whole format only all-day events matter, once or yearly. The libraries
//! there are either only split lines or bring a second library of dates; and a rule that is silently misunderstood would
//! delete backups. Whatever could be a holiday and is not understood is refused, with its line.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use jiff::ToSpan as _;
use jiff::civil::{Date, Weekday};

/// Why a file of holidays cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of it: {what}")]
pub struct IcalError {
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong with it.
    what: String,
}

/// An all-day event: a holiday of some days, once or every so many years.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    start: Date,
    days: i32,
    rule: Option<Rule>,
    except: BTreeSet<Date>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    interval: i16,
    count: Option<i32>,
    until: Option<Date>,
    month: i8,
    days: OfMonth,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OfMonth {
    Day(i8),
    /// The nth of them, from the end if negative.
    Nth(i8, Weekday),
}

/// One line: a property and its value.
struct Line<'t> {
    number: usize,
    name: String,
    value: &'t str,
}

#[derive(Default)]
struct Draft {
    begin: usize,
    start: Option<Date>,
    has_time: bool,
    end: Option<Date>,
    days: Option<i32>,
    rule: Option<(usize, String)>,
    except: BTreeSet<Date>,
    cancelled: bool,
}

/// Longest event that is taken for a holiday.
const DAYS: RangeInclusive<i32> = 1..=366;

/// The all-day events of a file. Events with a time of day are no holidays and are passed over, as are cancelled ones.
pub fn read(text: &str) -> Result<Vec<Event>, IcalError> {
    let lines = unfold(text);
    let fail = |line: usize, what: &str| IcalError { line, what: what.to_owned() };
    if !lines.first().is_some_and(|(_, line)| line.trim().eq_ignore_ascii_case("BEGIN:VCALENDAR")) {
        return Err(fail(1, "this is no iCalendar file: it does not begin with BEGIN:VCALENDAR"));
    }
    let mut events = Vec::new();
    // What an event holds, such as alarms, says nothing about its days.
    let mut draft: Option<(Draft, u32)> = None;
    for (number, text) in &lines {
        let Some(line) = Line::of(*number, text) else { continue };
        match (line.name.as_str(), line.value.to_ascii_uppercase().as_str(), &mut draft) {
            ("BEGIN", "VEVENT", None) => draft = Some((Draft { begin: *number, ..Draft::default() }, 0)),
            ("BEGIN", _, Some((_, depth))) => *depth += 1,
            ("END", _, Some((_, depth))) if *depth > 0 => *depth -= 1,
            ("END", "VEVENT", Some((event, _))) => {
                events.extend(std::mem::take(event).finish()?);
                draft = None;
            }
            (_, _, Some((event, 0))) => event.read(&line)?,
            _ => {}
        }
    }
    match draft {
        Some((event, _)) => Err(fail(event.begin, "this event has no end: the file is cut off")),
        None => Ok(events),
    }
}

impl Event {
    /// Whether `day` is one of its days.
    pub(super) fn covers(&self, day: Date) -> bool {
        (0..self.days).any(|offset| day.checked_sub(offset.days()).is_ok_and(|start| self.begins(start)))
    }

    fn begins(&self, day: Date) -> bool {
        if self.except.contains(&day) {
            return false;
        }
        match &self.rule {
            _ if day == self.start => true,
            Some(rule) => day > self.start && rule.begins(self.start, day),
            None => false,
        }
    }
}

impl Rule {
    fn begins(&self, first: Date, day: Date) -> bool {
        let years = day.year() - first.year();
        years % self.interval == 0
            && self.until.is_none_or(|until| day <= until)
            && self.count.is_none_or(|count| i32::from(years / self.interval) < count)
            && self.days.of(day.year(), self.month) == Some(day)
    }
}

impl OfMonth {
    fn of(&self, year: i16, month: i8) -> Option<Date> {
        match self {
            Self::Day(day) => Date::new(year, month, *day).ok(),
            Self::Nth(nth, weekday) => Date::new(year, month, 1).ok()?.nth_weekday_of_month(*nth, *weekday).ok(),
        }
    }
}

impl<'t> Line<'t> {
    fn of(number: usize, text: &'t str) -> Option<Self> {
        let (name, value) = text.split_once(':')?;
        // Its parameters say in other words what the value shows.
        let (name, _) = name.split_once(';').unwrap_or((name, ""));
        Some(Self { number, name: name.trim().to_ascii_uppercase(), value: value.trim() })
    }

    fn fail(&self, what: impl Into<String>) -> IcalError {
        IcalError { line: self.number, what: what.into() }
    }

    /// The days it names, and whether it names times of day.
    fn dates(&self) -> Result<(Vec<Date>, bool), IcalError> {
        let has_time = self.value.contains('T');
        let dates = self
            .value
            .split(',')
            .map(|value| date(value).ok_or_else(|| self.fail(format!("`{}` is no day", value.escape_debug()))));
        Ok((dates.collect::<Result<_, _>>()?, has_time))
    }

    fn date(&self) -> Result<(Date, bool), IcalError> {
        match self.dates()? {
            (dates, has_time) if dates.len() == 1 => {
                dates.first().map(|date| (*date, has_time)).ok_or_else(|| self.fail("it names no day"))
            }
            _ => Err(self.fail("it has to name one day")),
        }
    }
}

impl Draft {
    fn read(&mut self, line: &Line<'_>) -> Result<(), IcalError> {
        match line.name.as_str() {
            "DTSTART" => (self.start, self.has_time) = line.date().map(|(date, has_time)| (Some(date), has_time))?,
            "DTEND" => self.end = Some(line.date()?.0),
            "DURATION" => self.days = whole_days(line.value),
            "RRULE" => self.rule = Some((line.number, line.value.to_ascii_uppercase())),
            "EXDATE" => self.except.extend(line.dates()?.0),
            "STATUS" => self.cancelled = line.value.eq_ignore_ascii_case("CANCELLED"),
            "RDATE" | "RECURRENCE-ID" => {
                return Err(line.fail(format!("{} is not understood; write the days out as events", line.name)));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<Event>, IcalError> {
        let fail = |what: &str| IcalError { line: self.begin, what: what.to_owned() };
        if self.cancelled || self.has_time {
            return Ok(None);
        }
        let start = self.start.ok_or_else(|| fail("this event has no DTSTART"))?;
        let days = match (self.end, self.days) {
            (Some(end), _) => start.until(end).map_or(0, |span| span.get_days()),
            (None, Some(days)) => days,
            (None, None) => 1,
        };
        // Some programs write the last day where the day after belongs.
        let days = if self.end == Some(start) { 1 } else { days };
        if !DAYS.contains(&days) {
            return Err(fail("this event does not end after it begins, or lasts more than a year"));
        }
        let rule = self.rule.map(|(line, text)| rule(&text, start).map_err(|what| IcalError { line, what }));
        Ok(Some(Event { start, days, rule: rule.transpose()?, except: self.except }))
    }
}

/// A rule that repeats an event every year, or every so many.
fn rule(text: &str, start: Date) -> Result<Rule, String> {
    let not_understood = |part: &str| {
        format!("the rule `{}` is not understood; only yearly events are, write the others out", part.escape_debug())
    };
    let mut rule =
        Rule { interval: 1, count: None, until: None, month: start.month(), days: OfMonth::Day(start.day()) };
    let mut yearly = false;
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let fail = || not_understood(part);
        let (name, value) = part.split_once('=').ok_or_else(fail)?;
        match name {
            "FREQ" => yearly = value == "YEARLY",
            "INTERVAL" => rule.interval = value.parse().ok().filter(|n| *n > 0).ok_or_else(fail)?,
            "COUNT" => rule.count = Some(value.parse().ok().filter(|n| *n > 0).ok_or_else(fail)?),
            "UNTIL" => rule.until = Some(date(value).ok_or_else(fail)?),
            "BYMONTH" => rule.month = value.parse().ok().filter(|n| (1..=12).contains(n)).ok_or_else(fail)?,
            "BYMONTHDAY" => {
                rule.days = OfMonth::Day(value.parse().ok().filter(|n| (1..=31).contains(n)).ok_or_else(fail)?);
            }
            "BYDAY" => rule.days = nth(value).ok_or_else(fail)?,
            "WKST" => {}
            _ => return Err(fail()),
        }
    }
    if !yearly || (text.contains("BYDAY") && (!text.contains("BYMONTH=") || text.contains("BYMONTHDAY"))) {
        return Err(not_understood(text));
    }
    Ok(rule)
}

/// `3TH`, `-1MO`: one weekday of a month.
fn nth(text: &str) -> Option<OfMonth> {
    let (number, day) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let number: i8 = number.strip_prefix('+').unwrap_or(number).parse().ok()?;
    let weekday = match day {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    };
    ((1..=5).contains(&number) || number == -1).then_some(OfMonth::Nth(number, weekday))
}

/// `P2D`, `P1W`; nothing else lasts whole days.
fn whole_days(text: &str) -> Option<i32> {
    let text = text.to_ascii_uppercase();
    let text = text.strip_prefix('P')?;
    match (text.strip_suffix('D'), text.strip_suffix('W')) {
        (Some(days), _) => days.parse().ok(),
        (_, Some(weeks)) => weeks.parse::<i32>().ok()?.checked_mul(7),
        _ => None,
    }
}

/// `20261225`, whatever time of day follows.
fn date(text: &str) -> Option<Date> {
    let (day, time) = text.trim().split_at_checked(8)?;
    let number = |from: usize, to: usize| day.get(from..to)?.parse::<i16>().ok();
    if !(time.is_empty() || time.starts_with('T')) || !day.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (month, day) = (i8::try_from(number(4, 6)?).ok()?, i8::try_from(number(6, 8)?).ok()?);
    Date::new(number(0, 4)?, month, day).ok()
}

/// Lines with their numbers; a line that begins with a blank goes on with the one before it.
fn unfold(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some((_, before))) => before.push_str(more),
            _ => lines.push((number, line.to_owned())),
        }
    }
    lines
}
