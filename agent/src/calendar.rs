//! The office's calendar: its time zone, its working week, and its holidays. Pure.
//!
//! One calendar serves retention and schedule, so that both mean the same by a day. A day is one of the office, from
//! midnight to midnight there: 23 or 25 hours long when clocks change.

mod age;
mod ical;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

pub use age::{Age, AgeError};
pub use ical::{IcalError, read as read_ical};

use ical::Event;

/// Time zone, working week and holidays of one office.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    /// From Monday on.
    working: [bool; 7],
    dates: BTreeSet<Date>,
    /// Month and day, every year.
    yearly: BTreeSet<(i8, i8)>,
    events: Vec<Event>,
}

/// One holiday as it is written in the configuration: `2026-12-24`, or `12-25` for every year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holiday {
    /// This day.
    On(Date),
    /// This month and day of every year that has it.
    Yearly(i8, i8),
}

/// A text that is no holiday.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no day; write 2026-12-24, or 12-25 for every year")]
pub struct HolidayError(String);

/// A text that is no day of the week.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no day of the week; write mon, tue, wed, thu, fri, sat, sun")]
pub struct WeekdayError(String);

impl Calendar {
    /// Monday to Friday, no holidays.
    pub fn new(zone: TimeZone) -> Self {
        let working = [true, true, true, true, true, false, false];
        Self { zone, working, dates: BTreeSet::new(), yearly: BTreeSet::new(), events: Vec::new() }
    }

    /// The same with this working week.
    #[must_use]
    pub fn with_working_days(mut self, days: impl IntoIterator<Item = Weekday>) -> Self {
        self.working = [false; 7];
        for day in days {
            if let Some(working) = self.working.get_mut(offset(day)) {
                *working = true;
            }
        }
        self
    }

    /// The same with more holidays.
    #[must_use]
    pub fn with_holidays(mut self, holidays: impl IntoIterator<Item = Holiday>) -> Self {
        for holiday in holidays {
            match holiday {
                Holiday::On(date) => self.dates.insert(date),
                Holiday::Yearly(month, day) => self.yearly.insert((month, day)),
            };
        }
        self
    }

    /// The same with the holidays of an iCalendar file, as [`read_ical`] gives them.
    #[must_use]
    pub fn with_events(mut self, events: Vec<Event>) -> Self {
        self.events.extend(events);
        self
    }

    /// The office's time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The office's day at the instant `at`.
    pub fn date_of(&self, at: Timestamp) -> Date {
        self.zone.to_datetime(at).date()
    }

    /// Whether people work on `day`.
    pub fn is_working_day(&self, day: Date) -> bool {
        self.working.get(offset(day.weekday())).is_some_and(|working| *working) && !self.is_holiday(day)
    }

    /// Whether `day` is a holiday, on whatever day of the week.
    pub fn is_holiday(&self, day: Date) -> bool {
        self.dates.contains(&day)
            || self.yearly.contains(&(day.month(), day.day()))
            || self.events.iter().any(|event| event.covers(day))
    }

    /// The instant at which the clocks of the office show `time` on `day`. A time that is skipped when clocks go forward
    /// is taken as much later as they jump; of one that comes twice, the first is meant.
    pub fn at(&self, day: Date, time: Time) -> Timestamp {
        let at = self.zone.to_ambiguous_timestamp(day.to_datetime(time)).compatible();
        // Only days at the very ends of all time have no instant.
        at.unwrap_or(if day.year() < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }

    /// The first instant of `day`.
    pub fn start_of(&self, day: Date) -> Timestamp {
        self.at(day, Time::midnight())
    }

    /// The instant `age` after `at`, by the office's calendar: the same time of day, so many days, months or years later.
    /// A day that the month has not is its last one.
    pub fn after(&self, at: Timestamp, age: Age) -> Timestamp {
        let later = at.to_zoned(self.zone.clone()).checked_add(age.span());
        later.map_or(Timestamp::MAX, |later| later.timestamp())
    }
}

impl FromStr for Holiday {
    type Err = HolidayError;

    fn from_str(text: &str) -> Result<Self, HolidayError> {
        let wrong = || HolidayError(text.escape_debug().to_string());
        let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        match text.split('-').collect::<Vec<_>>().as_slice() {
            [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2) => {
                text.parse().map(Self::On).map_err(|_| wrong())
            }
            [month, day] if digits(month, 2) && digits(day, 2) => {
                let (month, day) = (month.parse().map_err(|_| wrong())?, day.parse().map_err(|_| wrong())?);
                // A leap year has every day.
                Date::new(2000, month, day).map(|_| Self::Yearly(month, day)).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        }
    }
}

/// A day of the week by its first three letters.
pub fn weekday(text: &str) -> Result<Weekday, WeekdayError> {
    Ok(match text {
        "mon" => Weekday::Monday,
        "tue" => Weekday::Tuesday,
        "wed" => Weekday::Wednesday,
        "thu" => Weekday::Thursday,
        "fri" => Weekday::Friday,
        "sat" => Weekday::Saturday,
        "sun" => Weekday::Sunday,
        other => return Err(WeekdayError(other.escape_debug().to_string())),
    })
}

fn offset(day: Weekday) -> usize {
    usize::from(day.to_monday_zero_offset().unsigned_abs())
}
