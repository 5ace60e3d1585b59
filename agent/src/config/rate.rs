//! `rate`: how fast is sent to a store, by the time of the day.

use jiff::civil::Time;

use super::table::Section;
use super::units::Size;

/// How many bytes a second may be sent at which time of the day.
#[derive(Clone, Debug, Default)]
pub struct RateTable(Vec<Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    /// Every time of the day if absent.
    hours: Option<(Time, Time)>,
    bytes_per_second: u64,
}

/// Slower lines take an hour for a single piece.
const LEAST: u64 = 1 << 10;

/// Reads `rate = [{ from = "08:00", to = "18:00", limit = "1 MiB/s" }]`.
pub(super) fn read(store: &Section<'_, '_>) -> RateTable {
    RateTable(store.sections("rate").into_iter().filter_map(read_window).collect())
}

fn read_window(section: Section<'_, '_>) -> Option<Window> {
    let time = |key| {
        let text = section.string(key)?;
        let time = Some(text).filter(|text| text.contains(':')).and_then(|text| text.parse::<Time>().ok());
        if time.is_none() {
            section.report(key, format_args!("`{text}` is no time of the day such as 08:00"));
        }
        time
    };
    let (from, to) = (time("from"), time("to"));
    if section.has("from") != section.has("to") {
        section.report("from", "from and to go together; leave out both for a limit that always holds");
    }
    section.must_have("limit", "say how fast, such as limit = \"1 MiB/s\"");
    let limit = section.string("limit").and_then(|text| {
        let size = text.strip_suffix("/s").and_then(|text| text.parse().ok());
        let limit = size.map(|Size(bytes)| bytes).filter(|bytes| *bytes >= LEAST);
        if limit.is_none() {
            section
                .report("limit", format_args!("`{text}` is no speed of 1 KiB/s or more; write for example `1 MiB/s`"));
        }
        limit
    });
    section.finish();
    Some(Window { hours: from.zip(to), bytes_per_second: limit? })
}

impl RateTable {
    /// Whether it never limits anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is allowed when the clock of the office shows `time`: what the first fitting window says, or anything.
    pub fn at(&self, time: Time) -> Option<u64> {
        let fits = |window: &&Window| match window.hours {
            None => true,
            Some((from, to)) if from <= to => from <= time && time < to,
            // Over midnight.
            Some((from, to)) => from <= time || time < to,
        };
        self.0.iter().find(fits).map(|window| window.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_window_that_fits_counts() {
        let time = |text: &str| text.parse::<Time>().unwrap();
        let window =
            |from: &str, to: &str, bytes_per_second| Window { hours: Some((time(from), time(to))), bytes_per_second };
        let mut table =
            RateTable(vec![window("12:00", "13:00", 3), window("08:00", "18:00", 1), window("22:00", "06:00", 2)]);
        for (at, allowed) in [
            ("07:59:59", None),
            ("08:00", Some(1)),
            ("12:30", Some(3)),
            ("13:00", Some(1)),
            ("18:00", None),
            ("23:00", Some(2)),
            ("05:59", Some(2)),
            ("06:00", None),
        ] {
            assert_eq!(table.at(time(at)), allowed, "{at}");
        }
        table.0.push(Window { hours: None, bytes_per_second: 9 });
        assert_eq!(table.at(time("07:00")), Some(9));
    }
}
