//! What a drill is told.

use std::path::PathBuf;
use std::time::Duration;

use crate::ids::SourceName;

/// Where a drill works, and what it has to find.
#[derive(Clone, Debug)]
pub struct DrillSettings {
    /// Generations are restored into a folder below this one, which is gone afterwards.
    pub scratch: PathBuf,
    /// It may hold so many bytes; without a limit, whatever its disk has left.
    pub scratch_limit: Option<u64>,
    /// The office has to have everything back in this time.
    pub restore_within: Option<Duration>,
    /// What the office itself wants to see in its data.
    pub checks: Vec<Check>,
}

/// One thing that the office wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The source that is asked.
    pub source: SourceName,
    /// How.
    pub ask: Ask,
}

/// How a source is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A question to a database.
    Sql {
        /// Which one, if the source has several.
        database: Option<String>,
        /// The statement.
        sql: String,
        /// The answer: rows as lines, columns with `|` between them.
        expect: String,
    },
    /// A program and its arguments, in which `{restored}` stands for the folder of the source. It is content if it exits
    /// with 0.
    Command(Vec<String>),
}

/// How to start the process that clears the scratch away when a drill ends, however it ends.
#[derive(Clone, Debug)]
pub struct SweeperProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the folder follows them.
    pub arguments: Vec<String>,
}

impl SweeperProgram {
    /// This program itself: `offsite sweeper`.
    pub fn this() -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["sweeper".to_owned()] })
    }
}
