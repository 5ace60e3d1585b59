//! Days, ages, holidays, and files of them.

use jiff::civil::{date, time};

use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn ics(body: &str) -> Result<Vec<Event>, IcalError> {
    read_ical(&format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{body}END:VCALENDAR\r\n"))
}

#[test]
fn a_day_is_one_of_the_office() {
    let calendar = Calendar::new(zone("America/New_York"));
    // Still Friday there.
    assert_eq!(calendar.date_of("2026-11-21T03:00:00Z".parse().unwrap()), date(2026, 11, 20));
    assert!(calendar.is_working_day(date(2026, 11, 20)) && !calendar.is_working_day(date(2026, 11, 21)));
    let shifted = calendar.with_working_days([Weekday::Saturday, Weekday::Sunday]);
    assert!(!shifted.is_working_day(date(2026, 11, 20)) && shifted.is_working_day(date(2026, 11, 21)));
}

#[test]
fn days_are_as_long_as_the_clocks_make_them() {
    let calendar = Calendar::new(zone("Europe/Berlin"));
    let hours = |day: Date| {
        let end = calendar.start_of(day.tomorrow().unwrap());
        end.duration_since(calendar.start_of(day)).as_hours()
    };
    assert_eq!([hours(date(2026, 3, 29)), hours(date(2026, 10, 25)), hours(date(2026, 11, 1))], [23, 25, 24]);
    // 02:30 does not exist in March, and comes twice in October.
    assert_eq!(calendar.at(date(2026, 3, 29), time(2, 30, 0, 0)), "2026-03-29T01:30:00Z".parse().unwrap());
    assert_eq!(calendar.at(date(2026, 10, 25), time(2, 30, 0, 0)), "2026-10-25T00:30:00Z".parse().unwrap());
    // In Cairo clocks go forward at midnight, so the day begins at one.
    let cairo = Calendar::new(zone("Africa/Cairo"));
    assert_eq!(cairo.start_of(date(2026, 4, 24)), "2026-04-23T22:00:00Z".parse().unwrap());
}

#[test]
fn ages_go_by_the_calendar() {
    let calendar = Calendar::new(zone("Europe/Berlin"));
    let after = |at: &str, age: &str| calendar.after(at.parse().unwrap(), age.parse().unwrap()).to_string();
    assert_eq!(after("2026-01-31T12:00:00Z", "1 month"), "2026-02-28T12:00:00Z");
    assert_eq!(after("2028-02-29T12:00:00Z", "1 year"), "2029-02-28T12:00:00Z");
    // The same time of day, though the day between has 23 hours.
    assert_eq!(after("2026-03-28T12:00:00Z", "1 day"), "2026-03-29T11:00:00Z");
    assert_eq!(after("9990-01-01T00:00:00Z", "100 years"), Timestamp::MAX.to_string());
    for bad in
        ["", "10", "days", "0 days", "-1 days", "1.5 years", "200 years", "3 fortnights", "+3 days", "99999 days"]
    {
        assert!(bad.parse::<Age>().is_err(), "{bad:?} was accepted");
    }
    for text in ["1 day", "6 weeks", "18 months", "10 years"] {
        assert_eq!(text.parse::<Age>().unwrap().to_string(), text);
    }
    let days = ["1 year", "12 months", "52 weeks", "2 months"].map(|text| text.parse::<Age>().unwrap().least_days());
    assert_eq!(days, [365, 365, 364, 56]);
}

#[test]
fn holidays_are_written_out_or_yearly() {
    let holidays = ["2026-12-24", "12-25", "02-29"].map(|text| text.parse().unwrap());
    let calendar = Calendar::new(TimeZone::UTC).with_holidays(holidays);
    for (day, holiday) in [
        (date(2026, 12, 24), true),
        (date(2027, 12, 24), false),
        (date(2027, 12, 25), true),
        (date(2028, 2, 29), true),
        (date(2027, 3, 1), false),
    ] {
        assert_eq!(calendar.is_holiday(day), holiday, "{day}");
    }
    for bad in ["", "12", "24.12.", "2026-13-01", "02-30", "2027-02-29", "26-12-24", "2026-1-1"] {
        assert!(bad.parse::<Holiday>().is_err(), "{bad:?} was accepted");
    }
    assert_eq!(weekday("sun").unwrap(), Weekday::Sunday);
    assert!(weekday("Sunday").is_err());
}

#[test]
fn holidays_come_from_an_icalendar_file() {
    let events = ics(
        "BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20260101\r\nDTEND;VALUE=DATE:20260102\r\nSUMMARY:New\r\n  Year\r\n\
         RRULE:FREQ=YEARLY\r\nEND:VEVENT\r\n\
         BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20261126\r\nDURATION:P2D\r\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;COUNT=2\r\n\
         BEGIN:VALARM\r\nDURATION:PT15M\r\nDTSTART:20200101T000000\r\nEND:VALARM\r\nEND:VEVENT\r\n\
         BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20260525\r\nRRULE:FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO;UNTIL=20280101\r\n\
         EXDATE;VALUE=DATE:20270531\r\nEND:VEVENT\r\n\
         BEGIN:VEVENT\r\nDTSTART:20260601T090000Z\r\nSUMMARY:A meeting\r\nEND:VEVENT\r\n\
         BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20260602\r\nSTATUS:CANCELLED\r\nEND:VEVENT\r\n",
    );
    let calendar = Calendar::new(TimeZone::UTC).with_events(events.unwrap());
    for (day, holiday) in [
        (date(2026, 1, 1), true),
        (date(2031, 1, 1), true),
        (date(2025, 1, 1), false),
        (date(2026, 1, 2), false),
        (date(2026, 11, 26), true),
        (date(2026, 11, 27), true),
        (date(2027, 11, 25), true),
        (date(2027, 11, 26), true),
        (date(2028, 11, 23), false),
        (date(2026, 5, 25), true),
        (date(2027, 5, 31), false),
        (date(2026, 6, 1), false),
        (date(2026, 6, 2), false),
    ] {
        assert_eq!(calendar.is_holiday(day), holiday, "{day}");
    }
}

#[test]
fn what_could_be_a_holiday_and_is_not_understood_is_refused_with_its_line() {
    let event = |lines: &str| ics(&format!("BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20260101\r\n{lines}END:VEVENT\r\n"));
    for (lines, line) in [
        ("RRULE:FREQ=WEEKLY\r\n", 5),
        ("RRULE:FREQ=YEARLY;BYDAY=1MO\r\n", 5),
        ("RRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2\r\n", 5),
        ("RRULE:FREQ=YEARLY;BYEASTER=1\r\n", 5),
        ("RDATE;VALUE=DATE:20260105\r\n", 5),
        ("EXDATE;VALUE=DATE:soon\r\n", 5),
        ("DTEND;VALUE=DATE:20251231\r\n", 3),
        ("DTEND;VALUE=DATE:20280101\r\n", 3),
    ] {
        let error = event(lines).unwrap_err();
        assert_eq!(error.line, line, "{lines}: {error}");
    }
    for bad in ["", "<html>", "BEGIN:VCALENDAR\nBEGIN:VEVENT\n", "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VEVENT\n"] {
        assert!(read_ical(bad).is_err(), "{bad:?} was accepted");
    }
}
