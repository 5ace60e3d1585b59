//! How values are shown to people.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use providers::ErrorKind;

use crate::failure::Kind;
use crate::generation::Grade;

/// A time as the clock on the wall shows it.
pub(super) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
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
