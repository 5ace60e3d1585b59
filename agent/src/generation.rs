//! What a generation says of itself: the cut, its grade, and what became of each source. Pure.
//!
//! [`Document`] is stored as `GENERATION.json`, the first entry of every generation; `FORMAT.md` describes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calendar::Age;
use crate::ids::{GenerationId, SiteName, SourceName};

/// `GENERATION.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Version of this document's form: 1.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// This generation.
    pub generation: GenerationId,
    /// Rolling or archival.
    pub class: Class,
    /// What the operator called it.
    pub label: Option<String>,
    /// How long an archival generation is kept; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Age>,
    /// The version of the program that captured it.
    pub program: String,
    /// How far the copy is of one instant and whole.
    pub grade: Grade,
    /// The instant.
    pub cut: Cut,
    /// Each source, by name.
    pub sources: Vec<SourceRecord>,
    /// What is missing or was not as asked for; empty unless the grade is less than exact.
    pub problems: Vec<Problem>,
}

/// Where a generation is kept off site, and by what rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// In a chain, for weeks.
    Rolling,
    /// By itself, for years.
    Archival,
}

/// How far a generation is of one instant and whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Something that was to be copied is not in it.
    Incomplete,
    /// Everything is in it, but the sources were copied one after another.
    Sequential,
    /// Every source that can be cut shows the same instant.
    Exact,
}

/// The instant the generation shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// How it was had.
    pub method: CutMethod,
    /// The cut is not earlier than this.
    pub not_before: Timestamp,
    /// The cut is not later than this.
    pub not_after: Timestamp,
    /// Tries it took.
    pub tries: u32,
    /// Why earlier tries failed, in order.
    pub failed_tries: Vec<String>,
    /// Longest time that any writer was held, in microseconds.
    pub held_us_max: u64,
}

/// How a cut was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutMethod {
    /// Nothing had to be cut, or only one source.
    Single,
    /// All pins were made and no source had moved meanwhile.
    Optimistic,
    /// Writers were held while the pins were made.
    Barrier,
    /// Not had: sources were copied one after another.
    None,
}

/// What became of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its name.
    pub name: SourceName,
    /// Its type in the configuration, such as `sqlite`.
    pub kind: String,
    /// The engine and its version, such as `SQLite 3.50.4`.
    pub engine: Option<String>,
    /// Its part in the cut.
    pub role: Role,
    /// When it was pinned.
    pub pinned_at: Option<Timestamp>,
    /// How long its writers were held, in microseconds.
    pub held_us: u64,
    /// The engine's own numbers for the cut: page counts, change counters, LSN, GTID.
    pub position: BTreeMap<String, String>,
    /// When copying began.
    pub started: Timestamp,
    /// When copying ended.
    pub finished: Timestamp,
    /// Entries of the source.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Rows by database file of the source and table, as of the cut, as far as they were counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The part of a source in the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its single instant is the cut.
    Pivot,
    /// Its writers were held around the cut.
    Held,
    /// It is proved not to have changed around the cut.
    Proved,
    /// It was copied afterwards, at leisure: not of the cut.
    Leisure,
}

/// Something that is missing or not as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The source.
    pub source: SourceName,
    /// The path in it, as text, if it is about one file.
    pub path: Option<String>,
    /// One sentence.
    pub what: String,
    /// Whether the generation is incomplete because of it. A special file that was skipped as configured is not missing.
    pub missing: bool,
}
