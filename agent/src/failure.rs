//! How a run that did not do what was asked ends: a kind, which is the exit code; the errors, each said once; and what to
//! do about it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Why the program ends with something else than success.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
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
    /// A failure with the error that made it one.
    pub fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into(), hints: Vec::new() }
    }

    /// Adds a sentence that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
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

/// An error and its causes, from the outermost to the innermost. A cause that its effect has quoted is not repeated.
pub fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
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
    fn every_cause_is_said_once() {
        let failure = Failure::new(Kind::Failed, Outer(Middle(Inner))).hint("make room");
        assert_eq!(
            failure.to_string(),
            "error: outer\n  because: middle, since the disk is full\n  what to do: make room"
        );
        assert_eq!(one_line(&Outer(Middle(Inner))), "outer: middle, since the disk is full");
    }
}
