//! Hot copies of all sources of an office, as they were at one instant, into staging.

mod patterns;
mod settings;

pub use patterns::{PatternError, Patterns};
pub use settings::{CommandSource, CutSettings, EnvValue, FolderSource, Output, SourceConfig, SourceKind, SqliteSource};
