//! `offsite holder`: the helper process that a capture starts for SQLite databases. Not for people.

use std::io::{self, BufReader};

use crate::capture::serve_holder;
use crate::failure::{Failure, Kind};

/// Does what is asked on standard input, and ends when nobody asks any more.
pub(super) fn run() -> Result<(), Failure> {
    serve_holder(BufReader::new(io::stdin()), io::stdout(), || std::process::exit(1))
        .map_err(|error| Failure::new(Kind::Failed, error))
}
