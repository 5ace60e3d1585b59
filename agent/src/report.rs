//! Reports: from what was done to what a person is told. One sentence of verdict first, then a table, then what needs
//! doing, each with its remedy. Pure.
//!
//! A report leaves the building. It names sources, stores and generations, never files, and never holds a secret.

mod audit;
mod compose;
mod digest;
mod html;
mod metrics;
mod standing;
mod text;

use std::fmt::Display;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calendar::{Age, Calendar};
use crate::evidence::{Anchor, History};

pub use audit::{Audit, AuditStore, Found, Medium, Surroundings, audit};
pub use compose::{compose, overdue, reminder, test};
pub use digest::{Period, digest};
pub(crate) use html::escape;
pub use metrics::metrics;
pub use standing::{Nag, Standing, log_nags};

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How good or bad it is.
    pub kind: Kind,
    /// The office.
    pub site: String,
    /// When it was written.
    pub at: Timestamp,
    /// The subject of a mail.
    pub subject: String,
    /// One sentence that says it all.
    pub verdict: String,
    /// The details.
    pub tables: Vec<Table>,
    /// What needs doing, with its remedy; empty if nothing does.
    pub todo: Vec<String>,
    /// How far the evidence log went when this was written.
    pub evidence: Option<Anchor>,
}

/// The kinds of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// All went well.
    Success,
    /// Something is missing, or not everywhere it should be.
    Warning,
    /// Everything is stored, but not of one instant.
    Unsynchronized,
    /// There is no new copy off site.
    Failure,
    /// A run should have been, and was not.
    Overdue,
    /// A rehearsed restore went wrong.
    DrillFailed,
    /// Nobody has proved for too long that the copies can be opened.
    Reminder,
    /// A day or a week in one mail.
    Digest,
}

/// A table of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The heads of its columns.
    pub head: Vec<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whether what it says is not as it should be. It says so in words too.
    pub bad: bool,
    /// One text for each column.
    pub cells: Vec<String>,
}

/// What every report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The office.
    pub site: &'a str,
    /// Its clock and calendar.
    pub calendar: &'a Calendar,
    /// The evidence log, the entry that is reported included.
    pub history: &'a History,
    /// When somebody is reminded.
    pub limits: Limits,
    /// Now.
    pub now: Timestamp,
}

/// After how long somebody is reminded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a drill that passed.
    pub drill: Age,
    /// Of a proof that the keys open the copies.
    pub key_proof: Age,
}

impl Kind {
    /// Whether it goes to those who want to hear of failures only.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Success | Self::Digest)
    }

    /// Whether it goes to everybody at once, digest or not: a copy that cannot be restored is none.
    pub fn is_loud(self) -> bool {
        self == Self::DrillFailed
    }
}

impl Report {
    /// As a mail's plain text.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// As a mail's HTML: simple tables, style inline, nothing from elsewhere, readable on light and dark ground.
    pub fn html(&self) -> String {
        html::mail(self)
    }
}

impl Row {
    fn new(bad: bool, cells: impl IntoIterator<Item = String>) -> Self {
        Self { bad, cells: cells.into_iter().collect() }
    }
}

impl Table {
    fn new(title: &str, head: &[&str], rows: Vec<Row>) -> Self {
        Self { title: title.to_owned(), head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows }
    }
}

impl Context<'_> {
    /// `2026-11-22 23:30`, as the clocks of the office show it.
    fn minute(&self, at: Timestamp) -> String {
        at.to_zoned(self.calendar.zone().clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// `23:30:04`.
    fn clock(&self, at: Timestamp) -> String {
        at.to_zoned(self.calendar.zone().clone()).strftime("%H:%M:%S").to_string()
    }

    /// `6 days ago`, `3 hours ago`.
    fn ago(&self, at: Timestamp) -> String {
        let minutes = self.now.duration_since(at).as_mins().max(0);
        match minutes {
            0 => "just now".to_owned(),
            1..60 => format!("{} ago", counted(minutes.unsigned_abs(), "minute")),
            60..2880 => format!("{} ago", counted(minutes.unsigned_abs() / 60, "hour")),
            _ => format!("{} ago", counted(minutes.unsigned_abs() / 1440, "day")),
        }
    }
}

/// A disk of a rotation: `usb (mon)`.
pub(crate) fn disk(store: impl Display, slot: impl Display) -> String {
    format!("{store} ({slot})")
}

/// `1 pack`, `2 packs`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}
