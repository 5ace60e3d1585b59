//! A verdict as a person reads it: the outcome first, then what it rests on.

use std::time::Duration;

use crate::commands::show;
use crate::config::{Size, Span};
use crate::drill::{Outcome, Verdict};

pub(super) fn verdict(verdict: &Verdict) -> String {
    let generation = verdict.generation.as_deref().unwrap_or("");
    let store = verdict.store.as_deref().unwrap_or("");
    let first = match verdict.outcome {
        Outcome::Passed => format!("PASSED: {generation} came back from {store}, and everything in it is sound.\n"),
        Outcome::PassedExcept => format!(
            "PASSED, EXCEPT: {generation} came back from {store}; what was looked at is sound, but not everything was looked \
             at.\n"
        ),
        Outcome::NotDone => format!(
            "NOT TRIED: {generation} could not be fetched from {store}; nothing is known of it, neither good nor bad. When `offsite \
             check` reaches the store again, run `offsite drill` again:\n"
        ),
        Outcome::Failed => format!("FAILED: if {generation} were needed now, this would be wrong with it:\n"),
    };
    let mut text = first;
    for finding in &verdict.findings {
        text.push_str(&format!("  ! {}\n", finding.what));
    }
    for line in &verdict.not_done {
        text.push_str(&format!("  - {line}\n"));
    }
    if verdict.files > 0 {
        text.push('\n');
        text.push_str(&rests_on(verdict));
    }
    text
}

/// What was done, and how long it took.
fn rests_on(verdict: &Verdict) -> String {
    let span = |ms| Span(Duration::from_millis(ms));
    let mut text = String::new();
    let mut line = |what: &str, value: String| text.push_str(&format!("  {what:10} {value}\n"));
    if let Some(cut) = verdict.cut {
        let grade = verdict.grade.map_or("", show::grade);
        line("copy of", format!("{}, {grade}", show::time(cut)));
    }
    let files = show::counted(verdict.files, "file");
    line("files", format!("{files}, {}, each equal to what was copied by its SHA-256", Size(verdict.bytes)));
    if verdict.compared_live > 0 {
        line("", format!("{} unchanged since, and the same as those in use", verdict.compared_live));
    }
    for database in &verdict.databases {
        let state = match database.sound {
            Some(true) => format!(
                "sound, {} in {}, {}",
                show::counted(database.rows, "row"),
                show::counted(database.tables, "table"),
                database.engine
            ),
            Some(false) => format!("NOT SOUND, {}", database.engine),
            None => format!("not opened, {}", database.engine),
        };
        line("database", format!("{}: {state}", database.name));
    }
    if verdict.checks > 0 {
        line("checks", format!("{} of the office's own agree", verdict.checks));
    }
    let took = verdict.restore_ms + verdict.load_ms;
    let speed = match (verdict.fetched_bytes * 1000).checked_div(verdict.restore_ms) {
        Some(speed) => format!(", {} a second over the line", Size(speed)),
        None => String::new(),
    };
    let within = verdict.within_ms.map_or_else(String::new, |within| format!(" of {} at most", span(within)));
    line("time", format!("{}{within} until everything was back{speed}", span(took)));
    if let Some(bytes) = verdict.bytes_within() {
        line("", format!("at this speed, up to {} would be back in time", Size(bytes)));
    }
    text
}
