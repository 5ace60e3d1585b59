//! One error type for every store: for the code that must decide, and for the person who must act.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::key::ObjectKey;

/// What every operation on a store returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation on a store.
///
/// `Display` says what failed and on what, never the cause; the cause is in `source()`.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure it is; callers decide by this.
    pub kind: ErrorKind,
    /// The operation, as a verb phrase: `storing`, `reading`, `listing`.
    pub operation: &'static str,
    /// The object, if the operation was on one.
    pub key: Option<ObjectKey>,
    /// The store, as its `Display`; filled in by the store.
    pub store: String,
    /// Whether the same call may succeed later.
    pub retry: Retry,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of failure that some caller acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such object, version or upload.
    NotFound,
    /// A create-only write found the name taken.
    AlreadyExists,
    /// The credentials are wrong or lack the right.
    Denied,
    /// The store asks to slow down.
    Throttled,
    /// The store or the line to it does not answer.
    Unavailable,
    /// The store is full, or a quota or size limit is reached.
    OutOfSpace,
    /// The object is locked against change or deletion.
    Locked,
    /// The bytes that arrived are not the bytes that were sent.
    Corrupt,
    /// The store answered something that its protocol does not allow.
    Protocol,
    /// The store cannot do what was asked; it refused instead of ignoring it.
    Unsupported,
    /// The settings of the store are wrong.
    Config,
    /// A file on this machine could not be read or written.
    Local,
}

/// Whether the same call may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It never will.
    Never,
    /// It may, at the earliest after `after`.
    Later {
        /// What the store asked for (`Retry-After`).
        after: Option<Duration>,
    },
    /// It was tried this often, and still fails.
    Exhausted {
        /// Attempts made.
        attempts: u32,
    },
}

impl Error {
    /// A permanent failure without a key or a cause.
    pub fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, key: None, store: String::new(), retry: Retry::Never, source: None }
    }

    /// Names the object.
    #[must_use]
    pub fn key(mut self, key: &ObjectKey) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// Names the store.
    #[must_use]
    pub fn store(mut self, store: impl fmt::Display) -> Self {
        self.store = store.to_string();
        self
    }

    /// Says whether and when to try again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if let Some(key) = &self.key {
            write!(f, " `{key}`")?;
        }
        if !self.store.is_empty() {
            write!(f, " in {}", self.store)?;
        }
        write!(f, " failed: {}", self.kind)?;
        if let Retry::Exhausted { attempts } = self.retry {
            write!(f, " (after {attempts} attempts)")?;
        }
        Ok(())
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "it is not there",
            Self::AlreadyExists => "an object of that name is there already",
            Self::Denied => "access was denied",
            Self::Throttled => "the store asks to slow down",
            Self::Unavailable => "the store does not answer",
            Self::OutOfSpace => "the store is full or a limit is reached",
            Self::Locked => "the object is locked",
            Self::Corrupt => "the bytes were damaged on the way",
            Self::Protocol => "the store gave an answer that makes no sense",
            Self::Unsupported => "the store cannot do this",
            Self::Config => "the settings are wrong",
            Self::Local => "a local file could not be used",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
