//! Ages as people write them: days, weeks, months, years.

use std::fmt;
use std::str::FromStr;

use jiff::{Span, ToSpan as _};

/// A length of time by the calendar. Written `90 days`, `6 weeks`, `18 months`, `10 years`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Age {
    number: u16,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Days,
    Weeks,
    Months,
    Years,
}

/// A text that is no age.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no age; write for example `90 days`, `6 weeks`, `18 months` or `10 years`")]
pub struct AgeError(String);

/// Longest age in each unit: a little more than a hundred years.
const UNITS: [(Unit, &str, u16); 4] = [
    (Unit::Days, "day", 40_000),
    (Unit::Weeks, "week", 6_000),
    (Unit::Months, "month", 1_400),
    (Unit::Years, "year", 120),
];

impl Age {
    /// So many days.
    pub const fn days(number: u16) -> Self {
        Self { number, unit: Unit::Days }
    }

    /// So many times as long, as far as there is a word for it.
    #[must_use]
    pub fn times(self, factor: u16) -> Self {
        let most = UNITS.iter().find(|(unit, ..)| *unit == self.unit).map_or(self.number, |(.., most)| *most);
        Self { number: self.number.saturating_mul(factor).min(most), unit: self.unit }
    }

    /// As a span of the calendar.
    pub(super) fn span(self) -> Span {
        let number = i64::from(self.number);
        match self.unit {
            Unit::Days => number.days(),
            Unit::Weeks => number.weeks(),
            Unit::Months => number.months(),
            Unit::Years => number.years(),
        }
    }

    /// The least number of days it can be: what two ages are compared by.
    pub fn least_days(self) -> u32 {
        let number = u32::from(self.number);
        match self.unit {
            Unit::Days => number,
            Unit::Weeks => 7 * number,
            // Two months have 59 days at least, twelve 365, and so on: 365 of each twelve, and 28 of what is left.
            Unit::Months => number / 12 * 365 + number % 12 * 28,
            Unit::Years => 365 * number,
        }
    }

    /// The greatest number of days it can be.
    pub fn most_days(self) -> u32 {
        let number = u32::from(self.number);
        match self.unit {
            Unit::Days => number,
            Unit::Weeks => 7 * number,
            Unit::Months => number / 12 * 366 + number % 12 * 31,
            Unit::Years => 366 * number,
        }
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let wrong = || AgeError(text.chars().take(80).flat_map(char::escape_debug).collect());
        let (number, unit) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let unit = unit.trim();
        let singular = unit.strip_suffix('s').unwrap_or(unit);
        let (unit, _, most) = UNITS.into_iter().find(|(_, name, _)| *name == singular).ok_or_else(wrong)?;
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number = number.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(wrong)?;
        Ok(Self { number, unit })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = UNITS.iter().find(|(unit, ..)| *unit == self.unit).map_or("", |(_, name, _)| *name);
        write!(f, "{} {name}{}", self.number, if self.number == 1 { "" } else { "s" })
    }
}

impl TryFrom<String> for Age {
    type Error = AgeError;

    fn try_from(text: String) -> Result<Self, AgeError> {
        text.parse()
    }
}

impl From<Age> for String {
    fn from(age: Age) -> String {
        age.to_string()
    }
}
