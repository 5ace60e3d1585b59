//! Which generations are kept, and why; what can go when they expire; and when nothing may go at all. Pure.
//!
//! Retention is a function of rules, generations and the store's clock ([`judge()`]), then of the objects that nothing kept
//! needs ([`removals`]), then of everything that speaks against it ([`brakes`]). What is executed is exactly what comes
//! out here. Times are those at which a store took a generation; what a name says counts for nothing.

mod archival;
mod brake;
mod ends;
mod judge;
mod objects;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod timelines;

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use crate::calendar::Age;
use crate::format::Sha256;
use crate::generation::{Class, Grade};
use crate::ids::{ChainId, GenerationId};

pub use archival::{ArchivalRule, Period, due, since};
pub use brake::{Brake, Evidence, Limits, brakes};
pub use ends::{End, ends};
pub use judge::{best, judge};
pub use objects::{ChainFiles, KeptPacks, LEFTOVER_AGE, Removal, Step, removals};

/// Clocks may differ by so much.
pub const CLOCK_TOLERANCE: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// What is kept of one class in one place. A rule that is 0 keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many generations, the newest ones.
    pub last: u32,
    /// The last generation of each of so many working days that have one.
    pub working_days: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for weeks, which begin on Monday.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// Nothing younger expires.
    pub min_age: Option<Age>,
    /// No rule keeps anything older.
    pub max_age: Option<Age>,
    /// So many generations, the newest ones, stay whatever their age.
    pub floor: u32,
}

/// One generation in one place, as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which one.
    pub id: GenerationId,
    /// Rolling or archival.
    pub class: Class,
    /// Its chain.
    pub chain: ChainId,
    /// When the place took it, by the place's clock.
    pub at: Option<Timestamp>,
    /// What it proves of itself; nothing if it is not this site's.
    pub facts: Option<Facts>,
    /// It may be this site's: the place has it, and does not give its document away.
    pub unreadable: bool,
    /// Why it is held, if it is: one reason for each hold.
    pub held: Vec<String>,
    /// What else it is needed for, as part of a sentence.
    pub needed: Vec<String>,
    /// Whether its chain can still grow: the run of tonight may build on it.
    pub open: bool,
}

/// What a genuine generation says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its place among all generations the site ever stored there.
    pub sequence: u64,
    /// When it was committed, by the site's clock.
    pub committed: Timestamp,
    /// How far it is whole and of one instant.
    pub grade: Grade,
    /// Bytes of its content.
    pub stream_bytes: u64,
    /// How many sources it has, if it says so.
    pub sources: Option<u32>,
    /// How long an archival generation is kept; for ever if absent.
    pub lifetime: Option<Age>,
    /// Digest of its document.
    pub sha256: Option<Sha256>,
    /// Digest of the document of the generation stored before it.
    pub previous: Option<Sha256>,
}

/// Why a generation is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum Reason {
    /// It is one of the newest.
    Last,
    /// It is the last of a working day.
    WorkingDay {
        /// The day.
        day: Date,
    },
    /// It is the last of a day.
    Daily {
        /// The day.
        day: Date,
    },
    /// It is the last of a week.
    Weekly {
        /// The week's Monday.
        monday: Date,
    },
    /// It is the last of a month.
    Monthly {
        /// The month's first day.
        first: Date,
    },
    /// It is too young to go.
    Young {
        /// Until when.
        until: Timestamp,
    },
    /// It is one of the newest, which stay whatever their age.
    Floor,
    /// It is archival, and its lifetime is not over.
    Lifetime {
        /// Until when.
        until: Timestamp,
    },
    /// It is archival, for ever.
    ForEver,
    /// Somebody holds it.
    Held {
        /// Why.
        why: String,
    },
    /// Something else needs it.
    Needed {
        /// What for.
        what: String,
    },
    /// Its chain is open.
    Open,
    /// It is the newest of the best grade there is: one always stays.
    Best,
    /// It is not this site's, or cannot be proved to be: nothing of the kind is ever touched.
    Foreign,
    /// It cannot be read, so that nothing is known of it.
    Unreadable,
    /// The place does not say when it took it.
    NoTime,
    /// The place took it in the future, it says.
    Future,
}

/// What becomes of a generation: it is kept for these reasons, or expires for want of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which generation.
    pub id: GenerationId,
    /// Its class.
    pub class: Class,
    /// Why it is kept.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether nothing keeps it.
    pub fn expires(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::WorkingDay { day } => write!(f, "working day {day}"),
            Self::Daily { day } => write!(f, "day {day}"),
            Self::Weekly { monday } => write!(f, "week of {monday}"),
            Self::Monthly { first } => write!(f, "month {}", first.strftime("%Y-%m")),
            Self::Young { until } => write!(f, "younger than min_age until {}", day(*until)),
            Self::Floor => f.write_str("floor"),
            Self::Lifetime { until } => write!(f, "archival until {}", day(*until)),
            Self::ForEver => f.write_str("archival for ever"),
            Self::Held { why } => write!(f, "HELD: {why}"),
            Self::Needed { what } => f.write_str(what),
            Self::Open => f.write_str("chain is open"),
            Self::Best => f.write_str("the one that always stays"),
            Self::Foreign => f.write_str("not this site's: never touched"),
            Self::Unreadable => f.write_str("cannot be read: not touched"),
            Self::NoTime => f.write_str("the store does not say its time"),
            Self::Future => f.write_str("dated in the future"),
        }
    }
}

/// A day for people, in UTC as all dates beside names of generations.
fn day(at: Timestamp) -> Date {
    jiff::tz::TimeZone::UTC.to_datetime(at).date()
}
