//! How a run that did not do what was asked ends: a kind, which is the exit code; the errors, each said once; and what to
//! do about it.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

use crate::said::plain;

/// Why the program ends with something else than success.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
    /// Whether the hint is only what its kind suggests.
    is_general: bool,
}

/// The kinds of failure, each with an exit code that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It did not work (1).
    Failed,
    /// The command line or the configuration is wrong (2).
    Usage,
    /// A generation is stored, but something is missing from it or its sources are not of one instant (3).
    Incomplete,
    /// A store cannot be reached or refuses (4).
    Store,
    /// What is stored is not what was stored, or a drill failed (5).
    Verification,
    /// Another run is under way (6).
    Locked,
    /// Somebody interrupted it (130).
    Interrupted,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::Store => 4,
            Self::Verification => 5,
            Self::Locked => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(kind.code())
    }
}

impl Failure {
    /// A failure with the error that made it one. Where nothing says what to do, it is what usually helps.
    pub fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        let hints: Vec<String> = remedy(kind, error.as_ref()).map(str::to_owned).into_iter().collect();
        Self { kind, error, hints, is_general: true }
    }

    /// Adds a sentence that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if std::mem::take(&mut self.is_general) {
            self.hints.clear();
        }
        self.hints.push(hint.into());
        self
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What failed, and why, from the outermost to the innermost, each said once.
    pub fn chain(&self) -> Vec<String> {
        chain(self.error.as_ref())
    }

    /// What to do.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The error itself, if it is a `T`.
    pub fn cause<T: Error + 'static>(&self) -> Option<&T> {
        self.error.downcast_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, line) in self.chain().iter().enumerate() {
            let lead = if depth == 0 { "error: " } else { "\n  because: " };
            write!(f, "{lead}{line}")?;
        }
        for hint in &self.hints {
            write!(f, "\n  what to do: {hint}")?;
        }
        Ok(())
    }
}

/// What usually helps; nothing if the error itself says what to do, behind a semicolon or as a command, or nobody knows.
fn remedy(kind: Kind, error: &(dyn Error + 'static)) -> Option<&'static str> {
    if chain(error).iter().any(|line| line.contains("; ") || line.contains("`offsite ") || line.contains("run `")) {
        return None;
    }
    let (mut system, mut next) = (None, Some(error));
    while let Some(error) = next {
        system = system.or_else(|| Some(error.downcast_ref::<io::Error>()?.kind()));
        next = error.source();
    }
    match (system, kind) {
        (Some(ErrorKind::PermissionDenied), _) => {
            Some("let the account that runs `offsite` read and write there, or run it as an account that may")
        }
        (Some(ErrorKind::NotFound), _) => {
            Some("see that the path is right, and that the disk that it lies on is mounted")
        }
        (Some(ErrorKind::AlreadyExists), _) => Some("name another file, or move the one that is there away first"),
        (Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded), _) => Some("free some space on that disk"),
        (Some(ErrorKind::ReadOnlyFilesystem), _) => Some("mount that disk so that it can be written to"),
        (_, Kind::Store) => {
            Some("`offsite check` asks each store, and says whether it is the line, the login or its rights")
        }
        (_, Kind::Locked) => Some("wait until it has ended; `offsite status` says how far it is"),
        (_, Kind::Verification) => Some("`offsite verify` tells which generations are whole; take one of those"),
        _ => None,
    }
}

/// An error and its causes, from the outermost to the innermost. A cause that its effect has quoted is not repeated.
pub fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = plain(&error.to_string());
        if !line.is_empty() && !lines.last().is_some_and(|last| last.contains(&line)) {
            lines.push(line);
        }
        next = error.source();
    }
    lines
}

/// An error and its causes in one line.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    chain(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("middle, since the disk is full")]
    struct Middle(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Inner;

    #[test]
    fn a_failure_says_what_to_do_though_nobody_thought_of_it() {
        let missing = || io::Error::from(ErrorKind::NotFound);
        assert!(Failure::new(Kind::Failed, missing()).to_string().contains("what to do: see that the path is right"));
        let own = Failure::new(Kind::Failed, missing()).hint("put it back");
        assert_eq!(own.hints(), ["put it back"]);
        assert!(Failure::new(Kind::Store, "the bucket does not answer").hints()[0].contains("`offsite check`"));
        assert_eq!(Failure::new(Kind::Store, "it is full; make room").hints(), [""; 0]);
        assert_eq!(Failure::new(Kind::Failed, "it did not work").hints(), [""; 0]);
    }

    #[test]
    fn every_cause_is_said_once() {
        let failure = Failure::new(Kind::Failed, Outer(Middle(Inner))).hint("make room");
        assert_eq!(
            failure.to_string(),
            "error: outer\n  because: middle, since the disk is full\n  what to do: make room"
        );
        assert_eq!(one_line(&Outer(Middle(Inner))), "outer: middle, since the disk is full");
    }
}
