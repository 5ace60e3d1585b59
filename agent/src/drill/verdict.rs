//! What a drill found, and what follows from it. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::generation::Grade;
use crate::rows::Rows;
use crate::said::plain;

/// Version of a verdict as it is written down; a field that is added does not change it.
pub const VERSION: u32 = 1;

/// What a drill found. Names are texts, so that an old verdict can always be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Version of its form.
    pub version: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The generation; nothing if none could be chosen.
    pub generation: Option<String>,
    /// The store it was taken from.
    pub store: Option<String>,
    /// The instant that the generation shows.
    pub cut: Option<Timestamp>,
    /// How far the generation is of one instant and whole.
    pub grade: Option<Grade>,
    /// When the drill began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Files that came back, each equal to what was captured by its SHA-256.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sealed bytes that had to be fetched for them.
    pub fetched_bytes: u64,
    /// How long it took until the files were there, in milliseconds.
    pub restore_ms: u64,
    /// How long it took from then on until the database servers had their data, in milliseconds.
    pub load_ms: u64,
    /// How long both may take together, in milliseconds, if that is set.
    pub within_ms: Option<u64>,
    /// The databases.
    pub databases: Vec<OpenedDatabase>,
    /// Files that were compared with those that the office works with, which had not changed since.
    pub compared_live: u64,
    /// The office's own checks that were content.
    pub checks: u64,
    /// What is not as it should be: any of them makes the drill a failed one.
    pub findings: Vec<Finding>,
    /// What was not looked at, and why.
    pub not_done: Vec<String>,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything came back, and every database is sound.
    Passed,
    /// What was looked at is good, but something was not looked at.
    PassedExcept,
    /// Something is not as it should be.
    Failed,
    /// The store went out of reach, so that nothing is known of the copy, neither good nor bad.
    NotDone,
}

/// A database of the generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedDatabase {
    /// The source, and the file in it: `server/office.dump`.
    pub name: String,
    /// What opened it, such as `SQLite 3.50.4`.
    pub engine: String,
    /// Whether it is sound; nothing if it was not opened.
    pub sound: Option<bool>,
    /// Tables whose rows were counted.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// What is wrong and what to do, in one or two sentences.
    pub what: String,
    /// The same without names of files, if it has some: what leaves this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameless: Option<String>,
}

impl Finding {
    /// One that names no file.
    pub fn new(about: About, what: impl Into<String>) -> Self {
        Self { about, what: plain(&what.into()), nameless: None }
    }

    /// What reports and the evidence log say of it: names of files stay on this machine.
    pub fn told(&self) -> &str {
        self.nameless.as_deref().unwrap_or(&self.what)
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The generation as a whole: there is none, or it is not genuine.
    Generation,
    /// The store cannot be reached or refuses.
    Store,
    /// The secret key.
    Identity,
    /// A sealed object.
    Pack,
    /// A file that did not come back, or not as it was.
    File,
    /// A database that is not sound.
    Database,
    /// The number of rows of a table.
    Rows,
    /// One of the office's own checks.
    Check,
    /// The time that it took.
    Time,
    /// The folder that the drill works in.
    Scratch,
    /// A server that was to open databases.
    Server,
    /// This machine: something could not be read, written or started.
    Machine,
}

impl Verdict {
    /// One that has found nothing yet.
    pub fn begin(now: Timestamp) -> Self {
        Self {
            version: VERSION,
            outcome: Outcome::Passed,
            generation: None,
            store: None,
            cut: None,
            grade: None,
            began: now,
            ended: now,
            files: 0,
            bytes: 0,
            fetched_bytes: 0,
            restore_ms: 0,
            load_ms: 0,
            within_ms: None,
            databases: Vec::new(),
            compared_live: 0,
            checks: 0,
            findings: Vec::new(),
            not_done: Vec::new(),
        }
    }

    /// Adds something that is not as it should be.
    pub fn find(&mut self, about: About, what: impl Into<String>) {
        self.findings.push(Finding::new(about, what));
    }

    /// Adds something that is not as it should be with a file, and the same without its name.
    pub fn find_file(&mut self, what: String, nameless: String) {
        self.findings.push(Finding { nameless: Some(plain(&nameless)), ..Finding::new(About::File, what) });
    }

    /// Adds something that was not looked at.
    pub fn leave(&mut self, what: impl Into<String>) {
        self.not_done.push(plain(&what.into()));
    }

    /// Judges by what was found.
    #[must_use]
    pub fn end(mut self, now: Timestamp) -> Self {
        self.ended = now;
        let is_store = |finding: &Finding| finding.about == About::Store;
        self.outcome = match (self.findings.is_empty(), self.not_done.is_empty()) {
            (true, true) => Outcome::Passed,
            (true, false) => Outcome::PassedExcept,
            (false, _) if self.findings.iter().all(is_store) => Outcome::NotDone,
            (false, _) => Outcome::Failed,
        };
        self
    }

    /// How many bytes of content the line and this machine would bring back in `within_ms`, at the speed of this drill;
    /// nothing if too little was restored to tell.
    pub fn bytes_within(&self) -> Option<u64> {
        const TELLS_FROM_MS: u64 = 100;
        let took = self.restore_ms + self.load_ms;
        let within = self.within_ms.filter(|_| took >= TELLS_FROM_MS && self.bytes > 0)?;
        u64::try_from(u128::from(self.bytes) * u128::from(within) / u128::from(took)).ok()
    }
}

/// What is wrong with the rows that came back of the database `name`, of which `captured` were counted when it was copied.
pub(super) fn compare_rows(name: &str, captured: &Rows, found: &Rows) -> Vec<Finding> {
    let judge = |(table, before): (&String, &u64)| {
        let what = match found.get(table) {
            Some(now) if now == before => return None,
            Some(now) if now < before => format!("{now} rows, and had {before} when it was copied: rows are missing"),
            Some(now) => format!("{now} rows, and had {before} when it was copied"),
            None => format!("not come back; it had {before} rows when it was copied"),
        };
        Some(Finding::new(About::Rows, format!("the table {table} of {name} has {what}")))
    };
    captured.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T23:30:00Z".parse().unwrap()
    }

    #[test]
    fn what_was_not_looked_at_is_no_success_and_only_what_is_wrong_is_a_failure() {
        let mut verdict = Verdict::begin(now());
        assert_eq!(verdict.clone().end(now()).outcome, Outcome::Passed);
        verdict.leave("a server is not here");
        assert_eq!(verdict.clone().end(now()).outcome, Outcome::PassedExcept);
        verdict.find(About::Store, "the store does not answer");
        assert_eq!(verdict.clone().end(now()).outcome, Outcome::NotDone);
        verdict.find(About::Pack, "a pack is damaged");
        assert_eq!(verdict.end(now()).outcome, Outcome::Failed);
    }

    #[test]
    fn the_speed_of_a_drill_says_how_much_may_come_back_in_time() {
        let restored = Verdict { bytes: 10 << 20, restore_ms: 900, load_ms: 100, ..Verdict::begin(now()) };
        assert_eq!(restored.bytes_within(), None);
        assert_eq!(Verdict { within_ms: Some(60_000), ..restored }.bytes_within(), Some(600 << 20));
    }

    #[test]
    fn every_difference_in_rows_is_one_finding() {
        let rows = |rows: &[(&str, u64)]| rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let found = compare_rows("ledger.db", &rows(&[("a", 5), ("b", 2), ("c", 1)]), &rows(&[("a", 3), ("b", 2)]));
        let said: Vec<_> = found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            said,
            [
                "the table a of ledger.db has 3 rows, and had 5 when it was copied: rows are missing",
                "the table c of ledger.db has not come back; it had 1 rows when it was copied",
            ]
        );
    }
}
