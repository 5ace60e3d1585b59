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
    /// What was found in stores that somebody has to look into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
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
                notes: report.notes(),
                messages: Vec::new(),
            }),
            Err(failure) if failure.kind() == Kind::Locked => None,
            Err(failure) => Some(Self::without_generation(failure.kind(), output::messages(failure), ended)),
        }
    }

    /// Of a run that could not begin for its configuration, and so not tell of itself.
    pub(in crate::commands) fn refused(messages: Vec<String>, ended: Timestamp) -> Self {
        Self::without_generation(Kind::Usage, messages, ended)
    }

    fn without_generation(kind: Kind, messages: Vec<String>, ended: Timestamp) -> Self {
        let (version, exit_code) = (VERSION, kind.code());
        let (failed, missing, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { version, ended, exit_code, generation: None, grade: None, failed, missing, notes, messages }
    }

    /// What is to be kept of a run, `report`, that only finished what earlier ones had left: what else was wrong with the last
    /// backup still is.
    pub(super) fn after(self, earlier: Option<Self>, report: &Report) -> Self {
        let Some(earlier) = earlier else { return self };
        let Some(grade) = earlier.grade else {
            // What was interrupted is what was finished.
            let is_mended = [0, Kind::Interrupted.code()].contains(&earlier.exit_code);
            return if is_mended || self.exit_code != 0 { self } else { earlier };
        };
        let left = |failed: &NotStored| !report.went_on_with(&failed.store, &failed.generation);
        let left: Vec<NotStored> = earlier.failed.into_iter().filter(left).collect();
        let exit_code = match self.exit_code {
            0 if !left.is_empty() => earlier.exit_code,
            0 if grade != Grade::Exact => Kind::Incomplete.code(),
            code => code,
        };
        let failed = left.into_iter().chain(self.failed).collect();
        Self { ended: self.ended, exit_code, failed, ..earlier }
    }

    /// Writes it into the state folder. Where there is none, there is nothing to remember yet.
    pub(in crate::commands) fn write(&self, state: &Path) -> Result<(), (PathBuf, io::Error)> {
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
    pub(in crate::commands) fn attention(&self) -> Vec<String> {
        let verdict = match self.exit_code {
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
        };
        verdict.into_iter().chain(self.notes.iter().cloned()).collect()
    }

    /// For people.
    pub(in crate::commands) fn text(&self, now: Timestamp) -> String {
        let (ago, at) = (show::ago(self.ended, now), show::minute(self.ended));
        let verdict = match self.exit_code {
            0 if !self.notes.is_empty() => "stored, with the warning above".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::BackupReport;

    fn ended(exit_code: u8, grade: Option<Grade>, failed: &[&str]) -> LastRun {
        let not_stored = |store: &&str| NotStored {
            store: (*store).to_owned(),
            generation: "20261122T233004Z-7f3a".to_owned(),
            messages: Vec::new(),
        };
        LastRun {
            version: VERSION,
            ended: Timestamp::UNIX_EPOCH,
            exit_code,
            generation: grade.map(|_| "20261122T233004Z-7f3a".to_owned()),
            grade,
            failed: failed.iter().map(not_stored).collect(),
            missing: Vec::new(),
            notes: Vec::new(),
            messages: Vec::new(),
        }
    }

    #[test]
    fn finishing_what_was_left_mends_nothing_else_of_the_last_backup() {
        let nothing = BackupReport { generation: None, resumed: Vec::new(), stores: Vec::new() };
        let finished = Report::of(&nothing);
        let after = |earlier: LastRun| ended(0, None, &[]).after(Some(earlier), &finished);
        let incomplete = after(ended(3, Some(Grade::Incomplete), &[]));
        assert_eq!((incomplete.exit_code, incomplete.grade), (3, Some(Grade::Incomplete)));
        assert_eq!(incomplete.attention().len(), 1);
        assert_eq!(after(ended(0, Some(Grade::Exact), &[])).attention(), [""; 0]);
        let behind = after(ended(4, Some(Grade::Exact), &["far"]));
        assert_eq!((behind.exit_code, behind.failed.len()), (4, 1));
        assert_eq!(after(ended(1, None, &[])).exit_code, 1, "the last backup came to nothing");
        assert_eq!(after(ended(Kind::Interrupted.code(), None, &[])).exit_code, 0);
        assert_eq!(ended(4, None, &["far"]).after(Some(ended(1, None, &[])), &finished).exit_code, 4);
    }
}
