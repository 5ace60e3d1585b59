//! What can be known to fail before a run begins: sources that are not there, folders that cannot be written, no signing
//! key.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::config::{Config, Problem, SourceEntry, StoreConfig};
use crate::failure;
use crate::keys::RecipientError;
use crate::platform;
use crate::sign::{SignError, SiteKey};

/// Everything on this machine that would make a run fail. Nothing is written.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |key: String, what: String| problems.push(Problem { key, line: None, what });
    for source in &config.sources {
        check_source(source, &mut report);
    }
    for (key, folder) in [("staging", &config.place.staging), ("state", &config.place.state)] {
        if let Err(what) = check_writable(folder) {
            report(key.to_owned(), what);
        }
    }
    if let Err(what) = check_signing_key(&config.place.signing_key) {
        report("signing.key".to_owned(), what);
    }
    // Plugins are programs, and show only now whether they work.
    if let Err(error @ RecipientError::Refused(_)) = config.recipients.encryptor() {
        report("encryption.recipients".to_owned(), failure::one_line(&error));
    }
    problems
}

/// Folders of directory stores that are not there. In a run, that is a failure of that store, and of no other.
pub(super) fn absent_folders(config: &Config) -> Vec<Problem> {
    let absent = |store: &StoreConfig| {
        let path = store.directory().filter(|path| !path.is_dir())?;
        let what = format!("the folder {} is not there; is the drive connected and mounted?", path.display());
        Some(Problem { key: store.key("path"), line: None, what })
    };
    config.place.stores.iter().filter_map(absent).collect()
}

fn check_source(source: &SourceEntry, report: &mut impl FnMut(String, String)) {
    if let Some(path) = source.path() {
        let read = if source.folder().is_some() {
            fs::read_dir(path).map(drop)
        } else {
            File::open(path).and_then(|file| file.metadata()).and_then(|metadata| match metadata.is_file() {
                true => Ok(()),
                false => Err(std::io::Error::other("it is not a file")),
            })
        };
        if let Err(error) = read {
            let what =
                format!("{} cannot be read: {error}; correct the path, or let this user read it", path.display());
            report(source.key("path"), what);
        }
    }
    for (key, program) in source.programs() {
        if !program.metadata().is_ok_and(|metadata| metadata.is_file() && platform::mode(&metadata) & 0o111 != 0) {
            report(source.key(key), format!("{} is not a program that can be run", program.display()));
        }
    }
}

/// The folder, or the nearest one above it that exists, can be written.
fn check_writable(folder: &Path) -> Result<(), String> {
    let mut nearest: PathBuf = folder.to_owned();
    while !nearest.exists() && nearest.pop() {}
    if !nearest.is_dir() {
        return Err(format!("{} is not a folder", nearest.display()));
    }
    match platform::can_write(&nearest) {
        Ok(()) if nearest == *folder && !platform::is_private(folder).unwrap_or(false) => Err(format!(
            "{} is not this user's own, or others can look into it; run `chmod 700` on it",
            folder.display()
        )),
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{} cannot be written: {error}", nearest.display())),
    }
}

/// A missing key is made by the first run.
fn check_signing_key(path: &Path) -> Result<(), String> {
    match SiteKey::load(path) {
        Ok(_) => Ok(()),
        Err(SignError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failure::one_line(&error)),
    }
}
