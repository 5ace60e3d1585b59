//! Results on standard output, narration on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::config::{ConfigError, Problem};
use crate::failure::{Failure, Kind};
use crate::said::plain;

/// Version of the documents that `--json` prints; a field that is added does not change it.
const VERSION: u32 = 1;

/// Where a verb's result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    verb: &'static str,
    json: bool,
    quiet: bool,
}

#[derive(Serialize)]
struct Document<'a, T> {
    version: u32,
    verb: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDocument<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    result: Option<&'a T>,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    kind: Kind,
    messages: Vec<String>,
    hints: &'a [String],
    problems: &'a [Problem],
}

impl Output {
    pub(crate) fn new(verb: &'static str, json: bool, quiet: bool) -> Self {
        Self { verb, json, quiet }
    }

    /// Whether one JSON document is wanted.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: as the document it is, or as `text`.
    pub(crate) fn result<T: Serialize>(self, result: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        self.result_with(0, result, text)
    }

    /// As [`Output::result`], of a run that ends with `exit_code`.
    pub(crate) fn result_with<T: Serialize>(
        self,
        exit_code: u8,
        result: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.print(&Document { version: VERSION, verb: self.verb, exit_code, error: None, result: Some(result) })
        } else {
            let text = text();
            print(if text.ends_with('\n') || text.is_empty() { text } else { text + "\n" }.as_bytes())
        }
    }

    /// As [`Output::result_with`], of a verb that does something: who wants to hear only what went wrong, hears nothing if
    /// nothing did.
    pub(crate) fn deed<T: Serialize>(
        self,
        exit_code: u8,
        result: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.quiet && exit_code == 0 && !self.json { Ok(()) } else { self.result_with(exit_code, result, text) }
    }

    /// Tells of a failure: to people on standard error, and with `--json` to programs on standard output.
    pub(crate) fn failure(self, failure: &Failure) {
        say(&failure.to_string());
        let problems = problems(failure);
        if !problems.is_empty() {
            say("");
        }
        for problem in problems {
            say(&format!("  {problem}"));
        }
        if self.json {
            self.failure_document(failure);
        }
    }

    /// Tells of a failure to programs.
    pub(crate) fn failure_document(self, failure: &Failure) {
        let (messages, problems) = (failure.chain(), problems(failure));
        let error = ErrorDocument { kind: failure.kind(), messages, hints: failure.hints(), problems };
        let exit_code = failure.kind().code();
        let document: Document<'_, ()> =
            Document { version: VERSION, verb: self.verb, exit_code, error: Some(error), result: None };
        // If standard output is closed, the exit code is all that is left to say it with.
        self.print(&document).ok();
    }

    fn print<T: Serialize>(self, document: &Document<'_, T>) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(document).map_err(|error| Failure::new(Kind::Failed, error))?;
        text.push(b'\n');
        print(&text)
    }
}

/// What is wrong, one by one, if that is what the failure is about.
pub(crate) fn problems(failure: &Failure) -> &[Problem] {
    match failure.cause() {
        Some(ConfigError::Wrong { problems, .. }) => problems,
        _ => failure.cause::<Problems>().map_or(&[], |problems| &problems.problems),
    }
}

/// What failed, why, and everything that is wrong, a sentence each.
pub(crate) fn messages(failure: &Failure) -> Vec<String> {
    failure.chain().into_iter().chain(problems(failure).iter().map(ToString::to_string)).collect()
}

/// Several things that are wrong, none of them more than the others.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Problems {
    /// What they are wrong with.
    pub(crate) what: String,
    /// Each of them.
    pub(crate) problems: Vec<Problem>,
}

/// Writes to standard output. A reader that has gone away, such as `head`, is no error.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    match io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().lock().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(Kind::Failed, error)),
        _ => Ok(()),
    }
}

/// Says one line to the person at the terminal, beside the progress bars.
pub(crate) fn say(line: &str) {
    super::bars::suspend(|| {
        // Nobody is left to be told that standard error is closed.
        writeln!(io::stderr().lock(), "{}", plain(line)).ok();
    });
}

/// Whether a person can be asked and answer.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}
