//! When an archival generation is due: one in every month, quarter or year of the office's calendar.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::calendar::{Age, Calendar};

/// Archival generations that are made by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivalRule {
    /// One in each of these.
    pub every: Period,
    /// How long each is kept; for ever if absent.
    pub lifetime: Option<Age>,
}

/// A stretch of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A month.
    Month,
    /// Three months, the first from January to March.
    Quarter,
    /// A year.
    Year,
}

/// A text that is no period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of month, quarter, year")]
pub struct PeriodError(String);

/// The lifetime of the archival generation that is due at `now`, if one is. `there` are the archival generations there are:
/// when each was stored, and its lifetime. One serves every rule whose lifetime is not longer than its own.
pub fn due(
    rules: &[ArchivalRule],
    calendar: &Calendar,
    there: &[(Timestamp, Option<Age>)],
    now: Timestamp,
) -> Option<Option<Age>> {
    let served = |rule: &&ArchivalRule| {
        let first = rule.every.first(calendar.date_of(now));
        there.iter().any(|(at, lifetime)| {
            rule.every.first(calendar.date_of(*at)) == first && length(*lifetime) >= length(rule.lifetime)
        })
    };
    rules.iter().filter(|rule| !served(rule)).map(|rule| rule.lifetime).max_by_key(|lifetime| length(*lifetime))
}

/// The first day of the longest period of `rules` that `now` lies in: generations before it are of no account.
pub fn since(rules: &[ArchivalRule], calendar: &Calendar, now: Timestamp) -> Option<Timestamp> {
    let today = calendar.date_of(now);
    rules.iter().map(|rule| rule.every.first(today)).min().map(|first| calendar.start_of(first))
}

impl Period {
    /// The first day of the period that `day` lies in.
    fn first(self, day: Date) -> Date {
        let month = match self {
            Self::Month => day.month(),
            Self::Quarter => day.month() - (day.month() - 1) % 3,
            Self::Year => 1,
        };
        day.with().month(month).day(1).build().unwrap_or(day)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        match text {
            "month" => Ok(Self::Month),
            "quarter" => Ok(Self::Quarter),
            "year" => Ok(Self::Year),
            other => Err(PeriodError(other.escape_debug().to_string())),
        }
    }
}

/// For ever is longer than anything.
fn length(lifetime: Option<Age>) -> u32 {
    lifetime.map_or(u32::MAX, Age::least_days)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn one_is_due_in_every_period_that_has_none() {
        let calendar = Calendar::new(TimeZone::get("America/New_York").unwrap());
        let age = |text: &str| Some(text.parse::<Age>().unwrap());
        let rules = [
            ArchivalRule { every: Period::Month, lifetime: age("13 months") },
            ArchivalRule { every: Period::Quarter, lifetime: age("7 years") },
            ArchivalRule { every: Period::Year, lifetime: None },
        ];
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-05-10T12:00:00Z");
        assert_eq!(due(&rules, &calendar, &[], now), Some(None));
        assert_eq!(due(&rules, &calendar, &[(at("2026-01-05T12:00:00Z"), None)], now), Some(age("7 years")));
        let quarter = [(at("2026-01-05T12:00:00Z"), None), (at("2026-04-02T12:00:00Z"), age("7 years"))];
        assert_eq!(due(&rules, &calendar, &quarter, now), Some(age("13 months")));
        // Still April in New York.
        let april = [&quarter[..], &[(at("2026-05-01T03:00:00Z"), age("13 months"))]].concat();
        assert_eq!(due(&rules, &calendar, &april, now), Some(age("13 months")));
        let may = [&quarter[..], &[(at("2026-05-01T05:00:00Z"), age("13 months"))]].concat();
        assert_eq!(due(&rules, &calendar, &may, now), None);
        // One by hand that is kept for a month is not the year's.
        let by_hand = [(at("2026-05-02T12:00:00Z"), age("1 month"))];
        assert_eq!(due(&rules, &calendar, &by_hand, now), Some(None));
        assert_eq!(due(&[], &calendar, &[], now), None);
        assert_eq!(since(&rules[..2], &calendar, now), Some(at("2026-04-01T04:00:00Z")));
        assert_eq!(since(&[], &calendar, now), None);
    }
}
