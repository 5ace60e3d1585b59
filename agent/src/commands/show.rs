//! How values are shown to people.

use std::io::{self, IsTerminal as _};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use providers::ErrorKind;

use crate::failure::Kind;
use crate::generation::Grade;

/// A time as the clock on the wall shows it.
pub(super) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Words that say that all is well; green, where somebody can see it.
pub(super) fn good(words: &str) -> String {
    painted(words, "32")
}

/// Words that say that something is wrong; red, where somebody can see it. The words say it without the colour as well.
pub(super) fn bad(words: &str) -> String {
    painted(words, "1;31")
}

fn painted(words: &str, colour: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some() || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stdout().is_terminal() && !plain { format!("\x1b[{colour}m{words}\x1b[0m") } else { words.to_owned() }
}

/// The day of a time, as the calendar on the wall shows it.
pub(super) fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string()
}

/// `1 pack`, `2 packs`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}

/// A grade in words.
pub(super) fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Exact => "complete, and of one instant",
        Grade::Sequential => "complete, but NOT OF ONE INSTANT",
        Grade::Incomplete => "INCOMPLETE",
    }
}

/// A grade in one word.
pub(super) fn grade_word(grade: Grade) -> &'static str {
    match grade {
        Grade::Exact => "exact",
        Grade::Sequential => "sequential",
        Grade::Incomplete => "INCOMPLETE",
    }
}

/// Whether a store failed, or this machine.
pub(super) fn kind_of_store(error: &providers::Error) -> Kind {
    match error.kind {
        ErrorKind::Local => Kind::Failed,
        ErrorKind::Config => Kind::Usage,
        ErrorKind::Corrupt => Kind::Verification,
        _ => Kind::Store,
    }
}
