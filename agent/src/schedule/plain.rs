//! The plain forms of calendar expressions, put into the words of cron: `Mon-Fri 23:30`, `monthly last 03:00`.

use std::iter::Peekable;

/// An expression as cron says it: several, if it has several times of the day.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// Six fields each: second, minute, hour, day of the month, month, day of the week.
    pub(super) cron: Vec<String>,
    /// Only on days on which the office works.
    pub(super) workdays: bool,
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const ORDINALS: [(&str, &str); 5] =
    [("first", "#1"), ("second", "#2"), ("third", "#3"), ("fourth", "#4"), ("last", "#L")];

/// Reads a plain form. An error is half a sentence.
pub(super) fn read(text: &str) -> Result<Plain, String> {
    let text = text.to_ascii_lowercase();
    let mut words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty()).peekable();
    let first = words.next().ok_or("it is empty")?;
    let days = match first {
        "hourly" => return hourly(&words.collect::<Vec<_>>()),
        "every" => return every(&words.collect::<Vec<_>>()),
        "daily" | "workdays" => "* * *".to_owned(),
        "monthly" => monthly(&mut words)?,
        "quarterly" => {
            let word = words.next().ok_or("the day is missing, such as in \"quarterly 1 03:00\"")?;
            // The last day is that of the quarter.
            let months = if word == "last" { "3,6,9,12" } else { "1,4,7,10" };
            format!("{} {months} *", day_of_month(word)?)
        }
        "yearly" => {
            let (month, day) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let month =
                month_number(month).ok_or("month and day are missing, such as in \"yearly January 2 03:00\"")?;
            format!("{} {month} *", day_of_month(day)?)
        }
        _ => {
            let mut days = vec![weekdays(first)?];
            while let Some(more) = words.next_if(|word| !word.starts_with(|c: char| c.is_ascii_digit())) {
                days.push(weekdays(more)?);
            }
            format!("* * {}", days.join(","))
        }
    };
    let times: Result<Vec<String>, String> =
        words.filter(|word| *word != "and").map(|word| Ok(format!("{} {days}", time(word)?))).collect();
    let cron = times?;
    if cron.is_empty() {
        return Err("the time of the day is missing".to_owned());
    }
    Ok(Plain { cron, workdays: first == "workdays" })
}

/// `monthly 1`, `monthly last`, `monthly first sun`.
fn monthly<'t>(words: &mut Peekable<impl Iterator<Item = &'t str>>) -> Result<String, String> {
    let word = words.next().ok_or("the day is missing, such as in \"monthly 1 03:00\"")?;
    match (ordinal(word), words.peek().and_then(|word| weekday(word))) {
        (Some(which), Some(day)) => {
            words.next();
            Ok(format!("* * {day}{which}"))
        }
        _ => Ok(format!("{} * *", day_of_month(word)?)),
    }
}

/// `hourly`, `hourly :15`.
fn hourly(words: &[&str]) -> Result<Plain, String> {
    let minute = match words {
        [] => 0,
        [word] => {
            number(word.trim_start_matches(':'), 0..=59).ok_or(format!("`{word}` is no minute from :00 to :59"))?
        }
        [_, more, ..] => return Err(format!("`{more}` is too much")),
    };
    Ok(Plain { cron: vec![format!("0 {minute} * * * *")], workdays: false })
}

/// `every 15 min`, `every 2 h`.
fn every(words: &[&str]) -> Result<Plain, String> {
    let [count, unit] = words else { return Err("write it like \"every 15 min\" or \"every 2 h\"".to_owned()) };
    let (whole, step) = match *unit {
        "s" | "sec" | "second" | "seconds" => (60, "*/{} * * * * *"),
        "m" | "min" | "minute" | "minutes" => (60, "0 */{} * * * *"),
        "h" | "hour" | "hours" => (24, "0 0 */{} * * *"),
        other => return Err(format!("`{other}` is neither min nor h")),
    };
    let count = number(count, 1..=whole).filter(|count| whole % count == 0);
    let count =
        count.ok_or(format!("{whole} has to be a multiple of the number, so that the distance is always the same"))?;
    // A step as long as the whole is the same as none.
    let step = if count == whole { step.replace("*/{}", "0") } else { step.replace("{}", &count.to_string()) };
    Ok(Plain { cron: vec![step], workdays: false })
}

/// `fri`, `mon-fri`.
fn weekdays(word: &str) -> Result<String, String> {
    let unknown = |word: &str| format!("there is no day `{word}`");
    let mut ends = word.splitn(2, '-').map(|word| weekday(word).ok_or_else(|| unknown(word)));
    let first = ends.next().unwrap_or_else(|| Err(unknown(word)))?;
    match ends.next().transpose()? {
        None => Ok(first.to_string()),
        Some(last) if first <= last => Ok(format!("{first}-{last}")),
        // Over the end of the week: cron's Sunday is 7 as well.
        Some(0) => Ok(format!("{first}-7")),
        Some(last) => Ok(format!("{first}-6,0-{last}")),
    }
}

/// From Sunday, 0. Three letters are enough.
fn weekday(word: &str) -> Option<usize> {
    named(&WEEKDAYS, word)
}

fn month_number(word: &str) -> Option<usize> {
    named(&MONTHS, word).map(|at| at + 1)
}

fn named(names: &[&str], word: &str) -> Option<usize> {
    names.iter().position(|name| word.len() >= 3 && name.starts_with(word))
}

fn ordinal(word: &str) -> Option<&'static str> {
    ORDINALS.iter().find(|(name, _)| *name == word).map(|(_, which)| *which)
}

fn day_of_month(word: &str) -> Result<String, String> {
    if word == "last" {
        return Ok("L".to_owned());
    }
    let day = number(word, 1..=31).ok_or_else(|| format!("`{word}` is no day of a month"))?;
    // A month without it would be one without a run.
    if day > 28 { Err(format!("not every month has a {day}th; `last` is its last day")) } else { Ok(day.to_string()) }
}

/// `23:30`, `23:30:15`, as cron's first three fields.
fn time(word: &str) -> Result<String, String> {
    let wrong = || format!("`{word}` is no time of the day such as 23:30");
    let mut parts = word.split(':');
    let hour = parts.next().and_then(|part| number(part, 0..=23)).ok_or_else(wrong)?;
    let minute = parts.next().filter(|part| part.len() == 2).and_then(|part| number(part, 0..=59)).ok_or_else(wrong)?;
    let second = parts.next().map_or(Some(0), |part| number(part, 0..=59)).ok_or_else(wrong)?;
    if parts.next().is_some() { Err(wrong()) } else { Ok(format!("{second} {minute} {hour}")) }
}

fn number(word: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let digits = (1..=2).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit());
    word.parse().ok().filter(|number| digits && range.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str) -> Vec<String> {
        read(text).unwrap_or_else(|why| panic!("{text}: {why}")).cron
    }

    #[test]
    fn plain_forms_are_cron_in_other_words() {
        for (text, expected) in [
            ("daily 02:00", &["0 0 2 * * *"][..]),
            ("Daily 2:00, 14:30:15", &["0 0 2 * * *", "15 30 14 * * *"]),
            ("daily 02:00 and 14:00", &["0 0 2 * * *", "0 0 14 * * *"]),
            ("Mon-Fri 23:30", &["0 30 23 * * 1-5"]),
            ("monday, Wed,fri 23:30", &["0 30 23 * * 1,3,5"]),
            ("sat-sun 01:00", &["0 0 1 * * 6-7"]),
            ("fri-mon 01:00", &["0 0 1 * * 5-6,0-1"]),
            ("workdays 23:30", &["0 30 23 * * *"]),
            ("monthly 1 03:00", &["0 0 3 1 * *"]),
            ("monthly last 03:00", &["0 0 3 L * *"]),
            ("monthly first sun 03:00", &["0 0 3 * * 0#1"]),
            ("monthly last friday 03:00", &["0 0 3 * * 5#L"]),
            ("quarterly 1 03:00", &["0 0 3 1 1,4,7,10 *"]),
            ("quarterly last 03:00", &["0 0 3 L 3,6,9,12 *"]),
            ("yearly january 2 03:00", &["0 0 3 2 1 *"]),
            ("hourly", &["0 0 * * * *"]),
            ("hourly :15", &["0 15 * * * *"]),
            ("every 15 min", &["0 */15 * * * *"]),
            ("every 2 h", &["0 0 */2 * * *"]),
            ("every 60 min", &["0 0 * * * *"]),
            ("every 24 h", &["0 0 0 * * *"]),
        ] {
            assert_eq!(cron(text), expected, "{text}");
        }
        assert!(read("workdays 23:30").unwrap().workdays);
    }

    #[test]
    fn what_is_no_plain_form_is_said() {
        for (text, why) in [
            ("Mon-Fry 23:30", "fry"),
            ("daily", "time of the day is missing"),
            ("daily 24:00", "24:00"),
            ("daily 2:5", "2:5"),
            ("daily 02:00:00:00", "02:00:00:00"),
            ("monthly 31 03:00", "last"),
            ("monthly 03:00", "03:00"),
            ("monthly", "day is missing"),
            ("every 7 min", "multiple"),
            ("every 2 days", "days"),
            ("hourly :60", ":60"),
            ("su 10:00", "`su`"),
            ("", "empty"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
