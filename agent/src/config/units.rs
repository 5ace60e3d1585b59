//! Sizes and durations as people write and read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes. Written `64 MiB`, `1.5 GB`, `512 B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A span of time. Written `500 ms`, `30 s`, `15 min`, `1 h`, `7 days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A text that is no size or no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {kind}; write for example {example}")]
pub struct UnitError {
    text: String,
    kind: &'static str,
    example: &'static str,
}

const SIZES: [(&str, u64); 9] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// In milliseconds.
const SPANS: [(&str, u64); 14] = [
    ("ms", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("second", 1_000),
    ("seconds", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("minute", 60_000),
    ("minutes", 60_000),
    ("h", 3_600_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
];

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError { text: text.to_owned(), kind: "size", example: "`64 MiB` or `1 GiB`" };
        number_and_unit(text, &SIZES).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError { text: text.to_owned(), kind: "duration", example: "`500 ms`, `30 s` or `1 h`" };
        let milliseconds = number_and_unit(text, &SPANS).ok_or_else(wrong)?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

/// A number with at most three decimals, a unit, and blanks between them or none.
fn number_and_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = unit.to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = number.trim().split_once('.').unwrap_or((number.trim(), "0"));
    let all_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(*factor)?.checked_add(thousandths.checked_mul(*factor)? / 1000)
}

impl fmt::Display for Size {
    /// Three digits that count, and a binary unit: `17.4 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = ("B", 1_u64);
        for next in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1_u64 << 40)] {
            if self.0 >= next.1 {
                unit = next;
            }
        }
        let tenths = u128::from(self.0) * 10 / u128::from(unit.1);
        if unit.1 == 1 || tenths >= 1000 || tenths % 10 == 0 {
            write!(f, "{} {}", tenths / 10, unit.0)
        } else {
            write!(f, "{}.{} {}", tenths / 10, tenths % 10, unit.0)
        }
    }
}

impl fmt::Display for Span {
    /// The two largest units that count: `2 h 05 min`, `1.5 s`, `40 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        match seconds {
            0 => write!(f, "{milliseconds} ms"),
            1..60 if milliseconds >= 100 => write!(f, "{seconds}.{} s", milliseconds / 100),
            1..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {:02} s", seconds / 60, seconds % 60),
            3600..172_800 => write!(f, "{} h {:02} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [
            ("64 MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("1.5 GB", 1_500_000_000),
            ("0 B", 0),
            (" 8 mib ", 8 << 20),
            ("0.125 KiB", 128),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in
            ["", "64", "MiB", "64 MiBs", "-1 MiB", "1.2345 MiB", "1..5 MiB", "99999999999999999999 B", "20000000 TiB"]
        {
            assert!(bad.parse::<Size>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, milliseconds) in [("500 ms", 500), ("1h", 3_600_000), ("7 days", 604_800_000), ("1.5 s", 1500)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(milliseconds))), "{text}");
        }
        assert!("1 fortnight".parse::<Span>().is_err());
    }

    #[test]
    fn they_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (18_245_223, "17.4 MiB"),
            (1_048_575, "1023 KiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (milliseconds, text) in
            [(40, "40 ms"), (1500, "1.5 s"), (61_000, "1 min 01 s"), (7_500_000, "2 h 05 min"), (604_800_000, "7 days")]
        {
            assert_eq!(Span(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }
}
