//! The office's own checks: questions to databases, and programs.

use std::path::Path;
use std::time::Duration;

use super::server;
use super::settings::{Ask, Check};
use super::verdict::{About, Verdict};

/// A program of the office may take this long.
const COMMAND_WITHIN: Duration = Duration::from_secs(4 * 3600);

/// What stands for the folder of the source that came back.
const RESTORED: &str = "{restored}";

/// Asks the databases of a source, which are called `names`; `answer` gives the answer of one of them, or says why not.
pub(super) fn ask<'c>(
    checks: impl Iterator<Item = &'c Check>,
    names: &[&str],
    verdict: &mut Verdict,
    answer: impl Fn(&str, &str) -> Result<String, String>,
) {
    for check in checks {
        let Ask::Sql { database, sql, expect } = &check.ask else { continue };
        let source = &check.source;
        let database = match (database.as_deref(), names) {
            (Some(database), names) if names.contains(&database) => database,
            (Some(database), _) => {
                verdict.find(About::Check, format!("a check asks {database} of {source}, which could not be opened"));
                continue;
            }
            (None, [only]) => only,
            (None, _) => {
                let what =
                    format!("a check of {source} does not say which of its databases to ask: {}", names.join(", "));
                verdict.find(About::Check, what);
                continue;
            }
        };
        match answer(database, sql) {
            Ok(found) if found.trim() == expect.trim() => verdict.checks += 1,
            Ok(found) => {
                let found: String = found.trim().chars().take(200).collect();
                let what =
                    format!("a check of {source} disagrees: `{sql}` gives `{found}`, and `{expect}` was expected");
                verdict.find(About::Check, what);
            }
            Err(why) => verdict.find(About::Check, format!("a check of {source} could not be asked: `{sql}`: {why}")),
        }
    }
}

/// Runs the programs that check a source, which came back to `folder`.
pub(super) fn run<'c>(checks: impl Iterator<Item = &'c Check>, folder: &Path, scratch: &Path, verdict: &mut Verdict) {
    for check in checks {
        let Ask::Command(arguments) = &check.ask else { continue };
        let folder = folder.to_string_lossy();
        let mut words = arguments.iter().map(|argument| argument.replace(RESTORED, &folder));
        let program = words.next().unwrap_or_default();
        let mut command = server::program(Path::new(&program), scratch, None);
        match server::run(command.args(words), COMMAND_WITHIN) {
            Ok(_) => verdict.checks += 1,
            Err(why) => verdict.find(About::Check, format!("a check of {} is not content: {why}", check.source)),
        }
    }
}
