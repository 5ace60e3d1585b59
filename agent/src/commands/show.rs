//! How values are shown to people.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use providers::ErrorKind;

use crate::config::Span;
use crate::failure::Kind;
use crate::generation::Grade;
pub(super) use crate::report::{counted, disk};

/// What every terminal shows.
const COLUMNS: usize = 80;
const MINUTE: Duration = Duration::from_secs(60);

/// A time as the clock on the wall shows it.
pub(super) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// The same to the minute, for a line with more on it.
pub(super) fn minute(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// `just now`, `5 min ago`, `3 h 20 min ago`, `6 days ago`.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(at).unsigned_abs();
    if passed < MINUTE { "just now".to_owned() } else { format!("{} ago", Span(passed)) }
}

/// `text` behind `first`, on a terminal broken between words where a line of it is full; further lines begin with as many
/// blanks as `first` has letters. Programs that read it get one line.
pub(super) fn wrapped(first: &str, text: &str) -> String {
    let width = if io::stdout().is_terminal() { COLUMNS } else { usize::MAX };
    broken(first, text, width)
}

fn broken(first: &str, text: &str, width: usize) -> String {
    let indent = first.chars().count();
    let (mut lines, mut column) = (first.to_owned(), indent);
    for word in text.split(' ') {
        let letters = word.chars().count();
        if column > indent && column + 1 + letters > width {
            lines.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += letters;
    }
    lines.push('\n');
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_full_goes_on_below_its_beginning() {
        assert_eq!(broken("  ! ", "one two three", 12), "  ! one two\n    three\n");
        assert_eq!(broken("", "a-word-that-fits-nowhere and", 10), "a-word-that-fits-nowhere\nand\n");
        assert_eq!(broken("x ", "", 10), "x \n");
    }
}
