//! How the last drill ended, kept in the state folder for `offsite status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::commands::show;
use crate::drill::{Outcome, VERSION, Verdict};
use crate::durable;

const FILE: &str = "last-drill.json";
/// So many findings are shown; the others are counted.
const NAMED_MAX: usize = 3;

/// The last drill of this machine.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
pub(in crate::commands) struct LastDrill(Verdict);

impl LastDrill {
    /// Writes a verdict into the state folder. Where there is none, as on a machine that only restores, it is not kept.
    pub(super) fn write(verdict: &Verdict, state: &Path) -> Result<(), (PathBuf, io::Error)> {
        let path = state.join(FILE);
        if !state.is_dir() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(verdict).map_err(io::Error::from);
        text.and_then(|text| durable::write(&path, &text)).map_err(|error| (path, error))
    }

    /// Reads it from the state folder; nothing if there is none that this program understands.
    pub(in crate::commands) fn read(state: &Path) -> Option<Self> {
        let last: Verdict = serde_json::from_slice(&fs::read(state.join(FILE)).ok()?).ok()?;
        (last.version == VERSION).then_some(Self(last))
    }

    /// What somebody should do something about.
    pub(in crate::commands) fn attention(&self) -> Option<String> {
        let failed = self.0.outcome == Outcome::Failed;
        failed.then(|| "the last drill FAILED: whether the backups can come back is not proved".to_owned())
    }

    /// One line for people, and what was wrong.
    pub(in crate::commands) fn text(&self, now: Timestamp) -> String {
        let Self(last) = self;
        let ago = show::ago(last.ended, now);
        let generation = last.generation.as_deref().unwrap_or("no generation");
        let opened = last.databases.iter().filter(|database| database.sound.is_some()).count() as u64;
        let what = match last.outcome {
            Outcome::Passed | Outcome::PassedExcept => format!(
                "passed{}: {generation}, {} opened",
                if last.outcome == Outcome::Passed { "" } else { ", EXCEPT for what was not looked at" },
                show::counted(opened, "database")
            ),
            Outcome::Failed => format!("FAILED: {generation}; what it is good for is not proved"),
            Outcome::NotDone => format!("NOT TRIED: {generation}; nothing is known of it, neither good nor bad"),
        };
        let mut text = show::wrapped(&format!("Last drill {ago} ({}): ", show::minute(last.ended)), &what);
        let mut lines = last.findings.iter().map(|finding| &finding.what).chain(&last.not_done);
        for line in lines.by_ref().take(NAMED_MAX) {
            text.push_str(&show::wrapped("  ", line));
        }
        match lines.count() {
            0 => {}
            more => text.push_str(&format!("  and {more} more; `offsite --json status` has all of them\n")),
        }
        text
    }
}
