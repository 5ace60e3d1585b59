//! What can be known to fail before a run begins: sources that are not there, folders that cannot be written, secrets and
//! a signing key that are missing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::stores;
use crate::capture;
use crate::config::{Config, Place, Problem, Size, SourceEntry, StoreConfig};
use crate::failure;
use crate::ids::StoreName;
use crate::keys::RecipientError;
use crate::platform;
use crate::sign::{SignError, SiteKey};
use crate::staging;
use crate::state::{State, StateError};

/// What SQLite databases begin with.
const SQLITE_HEAD: &[u8] = b"SQLite format 3\0";

/// The room in staging, and how much of it a generation takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) free_bytes: u64,
    /// At most, if that is not more than there is; else as exactly as can be told.
    pub(super) needed_bytes: u64,
}

/// Looks at the disk of staging and at everything that is to be copied there. `None` if the disk does not say what is free.
pub(super) fn room(config: &Config) -> Option<Room> {
    let Place { staging, state, .. } = &config.place;
    let there = staging.ancestors().find(|folder| folder.exists())?;
    let free_bytes = platform::free_bytes(there).ok()?;
    // Secrets that are missing are reported, and no copy is larger for them.
    let sources: Vec<_> = config.sources.iter().filter_map(|source| source.resolve().ok()).collect();
    let previous = staging::generations(staging).ok().and_then(|mut generations| generations.pop());
    let own = [staging.clone(), state.clone()];
    let needed = |changed_only| capture::room_needed(&sources, there, &own, previous.as_ref(), changed_only);
    let mut needed_bytes = needed(false);
    if needed_bytes > free_bytes && previous.is_some() {
        needed_bytes = needed(true);
    }
    Some(Room { free_bytes, needed_bytes })
}

impl Room {
    /// That it is too little, if it is: nothing is wrong with the configuration then.
    pub(super) fn problem(&self, config: &Config) -> Option<Problem> {
        let Self { free_bytes, needed_bytes } = *self;
        let what = format!(
            "the disk of {} has no room for a generation: it takes {}, and {} are free; free some space, or name a folder \
             on a larger disk",
            config.place.staging.display(),
            Size(needed_bytes),
            Size(free_bytes)
        );
        (needed_bytes > free_bytes).then(|| Problem { key: "staging".to_owned(), line: None, what })
    }
}

/// Everything on this machine that would make a run fail, but for lack of room and sources that are not there. Nothing is written.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = config.missing_secrets();
    let mut report = |key: String, what: String| problems.push(Problem { key, line: None, what });
    for (key, folder) in [("staging", &config.place.staging), ("state", &config.place.state)] {
        if let Err(what) = check_writable(folder) {
            report(key.to_owned(), what);
        }
    }
    if let Some(owner) = other_site(&config.place) {
        let (state, site) = (config.place.state.display(), &config.place.site);
        let what = format!(
            "the state in {state} belongs to the site `{owner}`, not to `{site}`: correct `site`, or give each site a state \
             folder and a staging folder of its own"
        );
        report("site".to_owned(), what);
    }
    if let Err(what) = check_signing_key(&config.place) {
        report("signing.key".to_owned(), what);
    }
    // Plugins are programs, and show only now whether they work.
    if let Err(error @ RecipientError::Refused(_)) = config.recipients.new_file() {
        report("encryption.recipients".to_owned(), failure::one_line(&error));
    }
    problems
}

/// Whether staging or the state belongs to another account: then nothing is to be written there.
pub(super) fn is_anothers(place: &Place) -> bool {
    [&place.staging, &place.state].into_iter().any(|folder| platform::other_owner(folder).is_some())
}

/// The site that the state belongs to, if that is another one: then nothing of this one is to be written there.
pub(super) fn other_site(place: &Place) -> Option<String> {
    State::site_of(&place.state).filter(|owner| owner != place.site.as_str())
}

/// Folders of directory stores that are not there. In a run, that is a failure of that store, and of no other.
pub(super) fn absent_folders(config: &Config) -> Vec<Problem> {
    let absent = |store: &StoreConfig| {
        // Of a rotation, what is wrong with the disk is said elsewhere.
        let path = store.directory().filter(|path| !path.is_dir() && store.slots().is_empty())?;
        let what = format!("the folder {} is not there; is the drive connected and mounted?", path.display());
        Some(Problem { key: store.key("path"), line: None, what })
    };
    config.place.stores.iter().filter_map(absent).collect()
}

/// What keeps each source from being copied. In a run, that makes the generation incomplete; the others are copied.
pub(super) fn absent_sources(config: &Config) -> Vec<Vec<Problem>> {
    let check = |source: &SourceEntry| {
        let mut problems = Vec::new();
        check_source(source, &mut |key, what| problems.push(Problem { key, line: None, what }));
        problems
    };
    config.sources.iter().map(check).collect()
}

fn check_source(source: &SourceEntry, report: &mut impl FnMut(String, String)) {
    if let Some(path) = source.path() {
        let read = if source.folder().is_some() {
            fs::read_dir(path).map(drop)
        } else {
            File::open(path).and_then(check_database)
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

/// A file that begins as SQLite databases do; or is empty, as one is that nobody has written to yet.
fn check_database(file: File) -> io::Result<()> {
    let mut head = Vec::new();
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    file.take(SQLITE_HEAD.len() as u64).read_to_end(&mut head)?;
    if head.is_empty() || head == SQLITE_HEAD { Ok(()) } else { Err(io::Error::other("it is not an SQLite database")) }
}

/// The folder, or the nearest one above it that exists, can be written.
fn check_writable(folder: &Path) -> Result<(), String> {
    let mut nearest: PathBuf = folder.to_owned();
    while !nearest.exists() && nearest.pop() {}
    if !nearest.is_dir() {
        return Err(format!("{} is not a folder", nearest.display()));
    }
    if let Some(owner) = platform::other_owner(folder) {
        let folder = folder.display();
        return Err(format!(
            "{folder} belongs to the account {owner}; run this as that account: `sudo -u {owner} offsite`"
        ));
    }
    match platform::can_write(&nearest) {
        Ok(()) if nearest == *folder && !platform::is_private(folder).unwrap_or(false) => {
            Err(format!("others can look into {}; run `chmod 700` on it", folder.display()))
        }
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{} cannot be written: {error}", nearest.display())),
    }
}

/// Whether a new file can be made at `path`, in its folder or in what is to become its folder.
pub(super) fn check_folder_of(path: &Path) -> Result<(), String> {
    let nearest = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    platform::can_write(nearest).map_err(|error| format!("{} cannot be written: {error}", nearest.display()))
}

/// A missing key is made by the very first run, and by no other: what a new key signs does not continue what the old one
/// signed, and whoever holds the recovery sheet has to learn of it.
fn check_signing_key(place: &Place) -> Result<(), String> {
    let path = place.signing_key.display();
    let known = match SiteKey::load(&place.signing_key) {
        Ok(_) => return Ok(()),
        Err(SignError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            if place.signing_key_set {
                "the configuration says that it is there"
            } else if has_memory(place) {
                "generations of this machine were signed with it"
            } else {
                return Ok(());
            }
        }
        Err(error) => return Err(failure::one_line(&error)),
    };
    Err(format!(
        "the signing key {path} is missing, and {known}; put it back from a copy of this machine. If it is lost, \
         `offsite key site` makes a new one: what the old one signed then no longer counts as this site's own, so print \
         a new recovery sheet and keep the old one with it"
    ))
}

/// Whether this machine knows of generations. A memory that cannot be read is one.
fn has_memory(place: &Place) -> bool {
    let local = staging::generations(&place.staging).map_or(true, |generations| !generations.is_empty());
    let stored = |state: &State, store: &StoreName| Ok(state.last_committed(store)?.is_some());
    local || any_store(place, stored).unwrap_or(true)
}

/// Whether an earlier run left something to finish.
pub(super) fn is_unfinished(place: &Place) -> bool {
    any_store(place, |state, store| Ok(state.unfinished(store)?.is_some())).unwrap_or(false)
}

/// Asks the state about each store. Where there is no state, the answer is no: looking must not make one.
fn any_store(place: &Place, ask: impl Fn(&State, &StoreName) -> Result<bool, StateError>) -> Result<bool, StateError> {
    if !place.state.join("state.db").exists() {
        return Ok(false);
    }
    let state = State::open(&place.state, &place.site)?;
    let places = stores::remembered_places(place, Some(&state))?;
    let answers: Result<Vec<bool>, _> = places.iter().map(|(store, _)| ask(&state, store)).collect();
    Ok(answers?.contains(&true))
}
