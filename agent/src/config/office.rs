//! `[office]`: when people work there, for retention and schedule.

use jiff::tz::TimeZone;

use super::table::Section;
use crate::calendar::{Calendar, Holiday, read_ical, weekday};
use crate::failure;

/// Reads the section; what is wrong is reported, and left out of the calendar.
pub(super) fn read(root: &Section<'_, '_>) -> Calendar {
    let office = root.section("office");
    let zone = match office.string("time_zone") {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(name).unwrap_or_else(|_| {
            office.report("time_zone", format_args!("there is no time zone `{name}`; write one such as Europe/Berlin"));
            TimeZone::UTC
        }),
    };
    let mut calendar = Calendar::new(zone);
    if let Some(names) = office.strings("working_days") {
        if names.is_empty() {
            office.report("working_days", "there has to be one at least");
        }
        let days =
            names.iter().filter_map(|name| weekday(name).map_err(|error| office.report("working_days", error)).ok());
        calendar = calendar.with_working_days(days.collect::<Vec<_>>());
    }
    let holidays = office.strings("holidays").unwrap_or_default();
    let holidays = holidays
        .iter()
        .filter_map(|text| text.parse::<Holiday>().map_err(|error| office.report("holidays", error)).ok());
    calendar = calendar.with_holidays(holidays.collect::<Vec<_>>());
    if let Some(path) = office.path("holidays_file") {
        let report = |what: &str| {
            office.report("holidays_file", format_args!("{} cannot be used: {what}", path.display()));
        };
        match super::read_text(&path).map(|text| read_ical(&text)) {
            Ok(Ok(events)) => calendar = calendar.with_events(events),
            Ok(Err(error)) => report(&failure::one_line(&error)),
            Err(error) => report(&error.to_string()),
        }
    }
    office.finish();
    calendar
}
