//! How the last run ended, kept in the state folder for `offsite status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Report;
use crate::commands::{output, show};
use crate::durable;
use crate::failure::{Failure, Kind};
use crate::generation::Grade;

/// Version of the file; a field that is added does not change it.
const VERSION: u32 = 1;
const FILE: &str = "last-run.json";

/// How a run ended.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) struct LastRun {
    version: u32,
    ended: Timestamp,
    exit_code: u8,
    generation: Option<String>,
    grade: Option<Grade>,
    /// Stores that have not got what they should have.
    failed: Vec<NotStored>,
    /// What is not in the generation that should be, each with its reason.
    #[serde(default)]
    missing: Vec<String>,
    /// Why there was no run, or none to its end.
    messages: Vec<String>,
}

/// One generation that is not in one store, and why.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) struct NotStored {
    pub(super) store: String,
    pub(super) generation: String,
    pub(super) messages: Vec<String>,
}

impl LastRun {
    /// What is to be kept of a run; nothing if another run was under way, which will tell of itself.
    pub(super) fn of(result: &Result<Report, Failure>, ended: Timestamp) -> Option<Self> {
        match result {
            Ok(report) => Some(Self {
                version: VERSION,
                ended,
                exit_code: report.exit_code(),
                generation: report.generation().map(|(id, _)| id.to_owned()),
                grade: report.generation().map(|(_, grade)| grade),
                failed: report.not_stored(),
                missing: report.missing(),
                messages: Vec::new(),
            }),
            Err(failure) if failure.kind() == Kind::Locked => None,
            Err(failure) => Some(Self {
                version: VERSION,
                ended,
                exit_code: failure.kind().code(),
                generation: None,
                grade: None,
                failed: Vec::new(),
                missing: Vec::new(),
                messages: output::messages(failure),
            }),
        }
    }

    /// Writes it into the state folder. Where there is none, there is nothing to remember yet.
    pub(super) fn write(&self, state: &Path) -> Result<(), (PathBuf, io::Error)> {
        let path = state.join(FILE);
        if !state.is_dir() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        text.and_then(|text| durable::write(&path, &text)).map_err(|error| (path, error))
    }

    /// Reads it from the state folder; nothing if there is none that this program understands.
    pub(in crate::commands) fn read(state: &Path) -> Option<Self> {
        let last: Self = serde_json::from_slice(&fs::read(state.join(FILE)).ok()?).ok()?;
        (last.version == VERSION).then_some(last)
    }

    /// What of it somebody should do something about.
    pub(in crate::commands) fn attention(&self) -> Option<String> {
        match self.exit_code {
            0 => None,
            code if code == Kind::Incomplete.code() => Some(match self.grade {
                Some(Grade::Incomplete) => {
                    let missing = self.missing.join("; ");
                    format!("the last backup is INCOMPLETE: {missing}; when that is mended, run `offsite backup`")
                }
                _ => "the last backup is NOT OF ONE INSTANT; `offsite check` says what a database server has to allow"
                    .to_owned(),
            }),
            code if code == Kind::Interrupted.code() => Some("the last backup was interrupted".to_owned()),
            _ => Some("the last backup FAILED".to_owned()),
        }
    }

    /// For people.
    pub(in crate::commands) fn text(&self, now: Timestamp) -> String {
        let (ago, at) = (show::ago(self.ended, now), show::minute(self.ended));
        let verdict = match self.exit_code {
            0 => "all went well".to_owned(),
            code if code == Kind::Incomplete.code() => "STORED, BUT NOT WHAT WAS ASKED (exit code 3)".to_owned(),
            code if code == Kind::Interrupted.code() => "INTERRUPTED (exit code 130)".to_owned(),
            code => format!("FAILED (exit code {code})"),
        };
        let mut text = format!("Last run {ago} ({at}): {verdict}\n");
        if let (Some(generation), Some(grade)) = (&self.generation, self.grade.filter(|grade| *grade != Grade::Exact)) {
            text.push_str(&format!("  {generation}: {}\n", show::grade(grade)));
        }
        for message in &self.messages {
            text.push_str(&show::wrapped("  ", message));
        }
        for failed in &self.failed {
            text.push_str(&format!("  {:12} NOT STORED: {}\n", failed.store, failed.generation));
            for message in &failed.messages {
                text.push_str(&show::wrapped(&format!("  {:12}   because: ", ""), message));
            }
        }
        text
    }
}
