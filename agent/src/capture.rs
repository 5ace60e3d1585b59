//! Hot copies of all sources of an office, as they were at one instant, into staging.

#[allow(dead_code, reason = "the folder source, being written, uses it")]
mod patterns;
mod settings;

pub use patterns::{PatternError, Patterns};
pub use settings::{
    CommandSource, CutSettings, EnvValue, FolderSource, Output, SourceConfig, SourceKind, SqliteSource,
};
