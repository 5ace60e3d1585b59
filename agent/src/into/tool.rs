//! The engines' own programs: run to their end, with what they said last if they failed.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use super::IntoError;
use crate::said;

/// Runs a program, and gives what it printed. `database` is what it works on.
pub(super) fn run(program: &'static str, command: &mut Command, database: &str) -> Result<String, IntoError> {
    let output = command.output().map_err(|source| IntoError::Start { program, source })?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    // Some say what is wrong on the one, and some on the other.
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    Err(IntoError::Tool { program, database: database.to_owned(), said: said::sentences(&text) })
}

/// The same, reading from a file.
pub(super) fn run_on(
    program: &'static str,
    command: &mut Command,
    file: &Path,
    database: &str,
) -> Result<String, IntoError> {
    let input = File::open(file).map_err(|source| IntoError::Read { path: file.to_owned(), source })?;
    run(program, command.stdin(Stdio::from(input)), database)
}

/// The same for a program that checks: what it finds is damage, and it may not be installed.
pub(super) fn check(
    program: &'static str,
    command: &mut Command,
    database: &str,
) -> Result<Option<&'static str>, IntoError> {
    match run(program, command, database) {
        Ok(_) => Ok(Some(program)),
        Err(IntoError::Start { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(IntoError::Tool { program, database, said }) => Err(IntoError::Damaged { program, database, said }),
        Err(error) => Err(error),
    }
}
