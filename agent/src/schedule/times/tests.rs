//! Times of expressions, above all where clocks are changed.

use jiff::civil::Date;

use super::*;

fn office(zone: &str) -> Calendar {
    let holidays = ["2026-05-01", "2026-05-14", "2026-05-15"].map(|day| day.parse().unwrap());
    Calendar::new(TimeZone::get(zone).unwrap()).with_holidays(holidays)
}

/// The first times after `after`, as the clock on the wall shows them, with the zone's offset.
fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let office = office(zone);
    let times: Times = expression.parse().unwrap_or_else(|error| panic!("{error}"));
    let mut at = after.parse::<DateTime>().unwrap().to_zoned(office.zone().clone()).unwrap().timestamp();
    let mut found = Vec::new();
    for _ in 0..count {
        at = times.next(at, &office, false).unwrap();
        found.push(at.to_zoned(office.zone().clone()).strftime("%m-%d %H:%M:%S %:z").to_string());
        assert_eq!(times.latest(at, &office, false), Some(at), "{expression}");
    }
    found
}

#[test]
fn times_of_the_day_are_those_of_the_wall() {
    for (expression, after, expected) in [
        ("daily 02:00", "2026-05-01T02:00", &["05-02 02:00:00 +02:00", "05-03 02:00:00 +02:00"][..]),
        ("Mon-Fri 23:30", "2026-05-01T23:30", &["05-04 23:30:00 +02:00", "05-05 23:30:00 +02:00"]),
        ("workdays 23:30", "2026-05-13T12:00", &["05-13 23:30:00 +02:00", "05-18 23:30:00 +02:00"]),
        ("monthly last 03:00", "2026-05-01T00:00", &["05-31 03:00:00 +02:00", "06-30 03:00:00 +02:00"]),
        ("monthly first sun 05:00", "2026-05-05T00:00", &["06-07 05:00:00 +02:00", "07-05 05:00:00 +02:00"]),
        ("monthly last fri 22:00", "2026-05-01T00:00", &["05-29 22:00:00 +02:00", "06-26 22:00:00 +02:00"]),
        ("30 23 * * 1-5", "2026-05-01T23:30", &["05-04 23:30:00 +02:00"]),
        ("*/20 * * * * *", "2026-05-01T00:00", &["05-01 00:00:20 +02:00", "05-01 00:00:40 +02:00"]),
        ("every 2 h", "2026-05-01T23:00", &["05-02 00:00:00 +02:00", "05-02 02:00:00 +02:00"]),
        ("fri-mon 01:00", "2026-05-02T00:00", &["05-02 01:00:00 +02:00", "05-03 01:00:00 +02:00"]),
    ] {
        assert_eq!(times(expression, "Europe/Vienna", after, expected.len()), expected, "{expression}");
    }
}

/// In spring 02:00 becomes 03:00, in autumn 03:00 becomes 02:00 again.
#[test]
fn a_time_that_does_not_exist_and_one_that_exists_twice_count_once() {
    for (expression, after, expected) in [
        ("daily 02:30", "2026-03-28T03:00", &["03-29 03:00:00 +02:00", "03-30 02:30:00 +02:00"][..]),
        ("daily 02:00, 02:30", "2026-03-28T03:00", &["03-29 03:00:00 +02:00", "03-30 02:00:00 +02:00"]),
        ("0,30 2 * * *", "2026-03-28T03:00", &["03-29 03:00:00 +02:00", "03-30 02:00:00 +02:00"]),
        ("daily 02:30", "2026-10-24T03:00", &["10-25 02:30:00 +02:00", "10-26 02:30:00 +01:00"]),
        ("daily 02:00, 14:00", "2026-10-24T20:00", &["10-25 02:00:00 +02:00", "10-25 14:00:00 +01:00"]),
        (
            "0 1-3 * * *",
            "2026-10-25T00:00",
            &["10-25 01:00:00 +02:00", "10-25 02:00:00 +02:00", "10-25 03:00:00 +01:00"],
        ),
    ] {
        assert_eq!(times(expression, "Europe/Vienna", after, expected.len()), expected, "{expression}");
    }
}

#[test]
fn a_rhythm_is_kept_when_the_clock_is_changed() {
    for (expression, after, expected) in [
        ("hourly", "2026-03-29T00:30", &["03-29 01:00:00 +01:00", "03-29 03:00:00 +02:00"][..]),
        ("every 30 min", "2026-03-29T01:00", &["03-29 01:30:00 +01:00", "03-29 03:00:00 +02:00"]),
        ("hourly", "2026-10-25T01:30", &["10-25 02:00:00 +02:00", "10-25 02:00:00 +01:00", "10-25 03:00:00 +01:00"]),
        (
            "*/30 * * * *",
            "2026-10-25T02:00",
            &["10-25 02:30:00 +02:00", "10-25 02:00:00 +01:00", "10-25 02:30:00 +01:00", "10-25 03:00:00 +01:00"],
        ),
    ] {
        assert_eq!(times(expression, "Europe/Vienna", after, expected.len()), expected, "{expression}");
    }
}

/// Every quarter of an hour of the night, on every day around each change of the clock of the year, in zones with changes of
/// all kinds: as many times as days, in order, and looking back finds the same as looking ahead.
#[test]
fn every_time_of_every_day_counts_once() {
    for zone in ["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago", "UTC"] {
        let office = office(zone);
        for month in [3, 4, 9, 10, 11] {
            let first = Date::new(2026, month, 1).unwrap();
            let begin = first.to_zoned(office.zone().clone()).unwrap().timestamp() - SignedDuration::from_nanos(1);
            let end = first.last_of_month().tomorrow().unwrap().to_zoned(office.zone().clone()).unwrap().timestamp();
            for quarter in 0..16 {
                let times: Times = format!("{} {} * * *", quarter % 4 * 15, quarter / 4).parse().unwrap();
                let mut found = Vec::new();
                let mut at = begin;
                while let Some(next) = times.next(at, &office, false).filter(|next| *next < end) {
                    assert!(next > at);
                    assert_eq!(times.latest(next + SignedDuration::from_secs(30), &office, false), Some(next));
                    found.push(next.to_zoned(office.zone().clone()).date());
                    at = next;
                }
                let days: Vec<Date> =
                    first.series(jiff::Span::new().days(1)).take(first.days_in_month() as usize).collect();
                assert_eq!(found, days, "{zone} {times}");
            }
        }
    }
}

#[test]
fn what_is_far_away_is_found() {
    let office = office("Europe/Vienna");
    let at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let leap: Times = "0 3 29 2 *".parse().unwrap();
    assert_eq!(leap.next(at, &office, false), Some("2028-02-29T02:00:00Z".parse().unwrap()));
    assert_eq!(leap.latest(at, &office, false), Some("2024-02-29T02:00:00Z".parse().unwrap()));
    let beat: Times = "*/5 * 29 2 *".parse().unwrap();
    assert_eq!(beat.next(at, &office, false), Some("2028-02-28T23:00:00Z".parse().unwrap()));
    // Nobody ever works at the weekend.
    let weekend: Times = "sun 12:00".parse().unwrap();
    assert_eq!(weekend.next(at, &office, true), None);
}

#[test]
fn what_says_no_time_is_refused() {
    for text in ["", "whenever", "0 25 * * *", "* * * *", "0 0 30 2 *", "1 2 3 4 5 6 7", "0 3 * * FOO", "*/0 * * * *"] {
        let error = text.parse::<Times>().unwrap_err().to_string();
        assert!(error.contains("says no time") && error.contains("daily 02:00"), "{error}");
    }
}
