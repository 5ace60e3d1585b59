//! `offsite restore`: a generation back, or parts of it, into a folder of its own.

mod into;
mod missing;
mod stopped;
mod target;

use std::path::Path;
use std::sync::Arc;

use providers::ErrorKind;
use serde::Serialize;

use super::bars::Bars;
use super::find::{self, Stores};
use super::output::{Output, say};
use super::{Ended, key, load_place, show};
use crate::catalog::{Stored, Trust};
use crate::cli::{From, RestoreArgs, Which};
use crate::config::{Place, Size};
use crate::failure::{self, Failure, Kind};
use crate::generation::Grade;
use crate::platform;
use crate::progress::Progress;
use crate::restore::{self, BadPack, PackError, RestoreError, RestoreReport, RestoreRequest, StoredOrigin};

/// What a restore did.
#[derive(Serialize)]
pub(super) struct Restored {
    generation: String,
    from: String,
    grade: Option<Grade>,
    to: String,
    files: u64,
    bytes: u64,
    signature_checked: bool,
    owners_kept: bool,
    /// Each file is equal to what was backed up by its own SHA-256.
    proved_by_file: bool,
    pub(super) lost: Vec<Lost>,
    /// What was not in the generation when it was made, each with its reason.
    missing: Vec<String>,
    /// What was loaded into servers.
    databases: Vec<into::InPlace>,
    bad_objects: Vec<Bad>,
    /// What it is if files are lost.
    #[serde(skip)]
    kind: Kind,
}

#[derive(Serialize)]
pub(super) struct Lost {
    path: String,
    why: String,
}

#[derive(Serialize)]
struct Bad {
    object: String,
    why: String,
}

/// A restore that was made.
struct Done {
    report: RestoreReport,
    /// Where it came from.
    from: String,
    grade: Option<Grade>,
    signature_checked: bool,
    /// What the generation lacks.
    missing: Vec<String>,
}

pub(super) fn run(arguments: &RestoreArgs, path: &Path, quiet: bool, output: Output) -> Ended {
    let targets = into::targets(arguments)?;
    let stage = stopped::watch(&arguments.to)?;
    let mut restored = execute_and_show(arguments, path, quiet, &stage.progress)?;
    // What is not whole is not loaded.
    if restored.lost.is_empty() && !targets.is_empty() {
        stage.files_are_there();
        restored.databases = into::run(&targets, &arguments.to, arguments.replace_databases, quiet)?;
    }
    let code = if restored.lost.is_empty() { 0 } else { restored.kind.code() };
    output.deed(code, &restored, || restored.text())?;
    restored.complain();
    Ok(code)
}

/// Restores; what could not be had is in the result.
pub(super) fn execute(arguments: &RestoreArgs, path: &Path, quiet: bool) -> Result<Restored, Failure> {
    execute_and_show(arguments, path, quiet, &Arc::default())
}

/// The same, and counts how far it is.
fn execute_and_show(
    arguments: &RestoreArgs,
    path: &Path,
    quiet: bool,
    progress: &Arc<Progress>,
) -> Result<Restored, Failure> {
    let place = load_place(path)?;
    target::check(&place, &arguments.to)?;
    let request = RestoreRequest {
        to: &arguments.to,
        source: arguments.source.as_ref(),
        paths: arguments.path.as_ref(),
        overwrite: arguments.overwrite,
    };
    // Whoever holds a key wants to know that it works; without one, only this machine can help.
    let from_here = match &arguments.from {
        Some(From::Local) if arguments.as_of.is_some() => {
            let what = "what this machine had at an earlier time is not known";
            return Err(Failure::new(Kind::Usage, what).hint("`--as-of` asks stores that keep older versions"));
        }
        Some(from) => *from == From::Local,
        None => arguments.identities.is_empty() && arguments.as_of.is_none(),
    };
    let done = if from_here {
        from_local(&place, &arguments.generation, &request, (progress, quiet))?
    } else {
        from_store(&place, arguments, &request, (progress, quiet))?
    };
    Ok(Restored::of(done, &arguments.to))
}

fn from_local(
    place: &Place,
    which: &Which,
    request: &RestoreRequest<'_>,
    (progress, quiet): (&Arc<Progress>, bool),
) -> Result<Done, Failure> {
    let generation = find::local(place, which)?.ok_or_else(|| {
        find::nothing(which, "the staging folder of this machine")
            .hint("to get it from a store, name a secret key: `--identity FILE`")
    })?;
    let document = generation.document().ok();
    let grade = document.as_ref().map(|document| document.grade);
    let missing = document.iter().flat_map(missing::of).collect::<Vec<_>>();
    let _bars = Bars::show(progress, quiet);
    let report = restore::from_local(&generation, request, progress)
        .map_err(|error| missing::hinted(failure(error), &missing))?;
    Ok(Done { report, from: "this machine".to_owned(), grade, signature_checked: true, missing })
}

fn from_store(
    place: &Place,
    arguments: &RestoreArgs,
    request: &RestoreRequest<'_>,
    (progress, quiet): (&Arc<Progress>, bool),
) -> Result<Done, Failure> {
    if arguments.identities.is_empty() {
        return Err(Failure::new(Kind::Usage, "what is in a store is sealed, and opens only with a secret key")
            .hint("name the file of the key: `--identity FILE`"));
    }
    let identities = key::load_identities(&arguments.identities, arguments.passphrase.as_ref())?;
    let mut stores = Stores::read_as_of(place, arguments.from.as_ref().and_then(From::store), arguments.as_of)?;
    stores.complain()?;
    let here = find::local(place, &arguments.generation).ok().flatten();
    let (store, stored) = stores.choose(place, &arguments.generation).map_err(|failure| match &here {
        Some(here) => failure.hint(format!("this machine has {}: `--from local` restores it", here.id())),
        None => failure,
    })?;
    // Whoever shows a key wants what is off site; what is newer here may be what they need.
    if let Some(here) = here.filter(|here| *here.id() > stored.generation && arguments.from.is_none()) {
        say(&format!("note: this machine has a newer copy, {}: `--from local` restores it", here.id()));
    }
    tracing::info!(store = %store.config.name, generation = %stored.generation, "restoring");
    let origin = StoredOrigin {
        store: &store.store,
        site: &place.site,
        stored,
        identities: &identities,
        runtime: stores.runtime.handle(),
    };
    // From here on nobody is asked anything.
    let _bars = Bars::show(progress, quiet);
    let grade = stored.commit.as_ref().map(|commit| commit.grade);
    let report = restore::from_store(&origin, request, progress).map_err(|error| {
        let is_absent = matches!(error, RestoreError::Nothing { .. }) && grade == Some(Grade::Incomplete);
        let missing = if is_absent { missing::in_store(&origin) } else { Vec::new() };
        let may_be_older = match &error {
            RestoreError::Entries { bad, .. } => bad.iter().any(|bad| is_changed(&bad.error)),
            _ => true,
        };
        let mut failure = missing::hinted(failure(error), &missing);
        if arguments.as_of.is_some() && may_be_older && failure.kind() == Kind::Verification {
            failure = failure.hint(find::EARLIER);
        }
        match others(&stores, stored, store.config.name.as_str()) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let missing = match grade {
        Some(Grade::Incomplete) => {
            missing::read(request.to, &stored.generation).unwrap_or_else(|| missing::in_store(&origin))
        }
        _ => Vec::new(),
    };
    if !report.lost.is_empty()
        && let Some(hint) = others(&stores, stored, store.config.name.as_str())
    {
        say(&hint);
    }
    if arguments.as_of.is_some() && report.bad_packs.iter().any(|bad| is_changed(&bad.error)) {
        say(find::EARLIER);
    }
    let signature_checked = stored.trust == Trust::Signed;
    Ok(Done { report, from: store.config.name.to_string(), grade, signature_checked, missing })
}

/// Where else the generation is.
fn others(stores: &Stores<'_>, wanted: &Stored, not: &str) -> Option<String> {
    let has = |read: &[Stored]| {
        read.iter().any(|stored| stored.generation == wanted.generation && stored.trust.complaint().is_none())
    };
    let names: Vec<String> = stores
        .read
        .iter()
        .filter(|(store, read)| store.config.name.as_str() != not && read.as_ref().is_ok_and(|read| has(read)))
        .map(|(store, _)| format!("`--from {}`", store.config.name))
        .collect();
    if names.is_empty() { None } else { Some(format!("another store has it too: try {}", names.join(" or "))) }
}

impl Restored {
    fn of(Done { report, from, grade, signature_checked, missing }: Done, to: &Path) -> Self {
        Self {
            missing,
            generation: report.generation.to_string(),
            from,
            grade,
            to: to.display().to_string(),
            files: report.files,
            bytes: report.bytes,
            signature_checked,
            owners_kept: !report.other_owners,
            proved_by_file: report.proved_by_file,
            kind: if report.bad_packs.is_empty() { Kind::Verification } else { kind_of_packs(&report.bad_packs) },
            databases: Vec::new(),
            lost: report.lost.into_iter().map(|lost| Lost { path: lost.path, why: lost.why }).collect(),
            bad_objects: report
                .bad_packs
                .iter()
                .map(|bad| Bad { object: bad.key.clone(), why: failure::one_line(&bad.error) })
                .collect(),
        }
    }

    pub(super) fn text(&self) -> String {
        let size = Size(self.bytes);
        let proof = match self.proved_by_file {
            true => "each equal to what was backed up by its SHA-256",
            false => "not compared with SHA-256 digests, which were not at hand",
        };
        let mut text = format!(
            "Restored {} from {} to {}: {}, {size}, {proof}.\n",
            self.generation,
            self.from,
            self.to,
            show::counted(self.files, "file")
        );
        for database in &self.databases {
            text.push_str(&database.text());
        }
        if let Some(grade) = self.grade.filter(|grade| *grade != Grade::Exact) {
            text.push_str(&format!("When it was made, this generation was {}.\n", show::grade(grade)));
        }
        for missing in &self.missing {
            text.push_str(&show::wrapped("  NOT IN IT: ", missing));
        }
        if !self.missing.is_empty() {
            text.push_str("What is not in it may be in another one: `offsite list` shows which are exact.\n");
        }
        if !self.owners_kept {
            text.push_str(match platform::is_root() {
                true => {
                    "Some files belong to root instead of their owners: this file system does not let them be set.\n"
                }
                false => "Some files belong to you instead of their owners: only root can restore owners.\n",
            });
        }
        if !self.signature_checked {
            text.push_str("Its signature was not checked: this machine has no site key (see `offsite list`).\n");
        }
        text
    }

    fn complain(&self) {
        for bad in &self.bad_objects {
            say(&format!("error: `{}`: {}", bad.object, bad.why));
        }
        for lost in &self.lost {
            say(&format!("LOST: {}: {}", lost.path, lost.why));
        }
        if !self.lost.is_empty() {
            say(&format!(
                "error: {} could not be restored; everything else is in its place\n  what to do: get them from another \
                 generation with `--path`; `offsite verify` tells which ones are whole",
                show::counted(self.lost.len() as u64, "file")
            ));
        }
    }
}

/// Whether packs are damaged, or only out of reach.
fn kind_of_packs(bad: &[BadPack]) -> Kind {
    let damaged = |bad: &BadPack| match &bad.error {
        PackError::Store(error) if error.kind != ErrorKind::NotFound => None,
        PackError::Write(_) => Some(Kind::Failed),
        _ => Some(Kind::Verification),
    };
    bad.iter().filter_map(damaged).max_by_key(|kind| kind.code()).unwrap_or(Kind::Store)
}

/// Whether what is there is not what was stored. A line that is down, a disk that is full and a key of somebody else say nothing
/// of that.
fn is_changed(error: &PackError) -> bool {
    match error {
        PackError::Store(error) => error.kind == ErrorKind::NotFound,
        PackError::Write(_) | PackError::Decrypt(age::DecryptError::NoMatchingKeys) => false,
        PackError::Open(_) | PackError::Decrypt(_) | PackError::Digest { .. } | PackError::Size => true,
    }
}

fn failure(error: RestoreError) -> Failure {
    let kind = match &error {
        RestoreError::Target { .. }
        | RestoreError::Full { .. }
        | RestoreError::Exists { .. }
        | RestoreError::Nothing { .. }
        | RestoreError::Decrypt { .. }
        | RestoreError::Staging(_)
        | RestoreError::Key(_) => Kind::Failed,
        RestoreError::Catalog(error) => find::kind_of_catalog(error),
        RestoreError::Refused { .. }
        | RestoreError::ManifestDigest(_)
        | RestoreError::Unpack { .. }
        | RestoreError::Manifest { .. }
        | RestoreError::List { .. } => Kind::Verification,
        RestoreError::Entries { bad, .. } => kind_of_packs(bad),
    };
    let hint = match &error {
        RestoreError::Exists { .. } => Some("restore to a new folder, or say `--overwrite`"),
        RestoreError::Full { .. } => Some(
            "make room there and run it again with `--overwrite`, name a folder on a larger disk with `--to`, or restore \
             less with `--source` or `--path`",
        ),
        RestoreError::Target { .. } => Some("name a new folder that this user can make, or an own one, with `--to`"),
        RestoreError::Nothing { .. } => Some("paths begin with the name of their source; try `--path 'SOURCE/**'`"),
        RestoreError::Decrypt { .. } => {
            Some("`offsite key check --identity FILE` tells which key of the configuration an identity is")
        }
        _ if kind == Kind::Verification => {
            Some("restore another generation, by its name in `offsite list`; `offsite verify` tells which are whole")
        }
        _ => None,
    };
    let failure = Failure::new(kind, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Sha256;

    #[test]
    fn nobody_is_said_to_have_changed_what_is_only_out_of_reach() {
        let store = |kind: ErrorKind| PackError::Store(providers::Error::new(kind, "reading"));
        let found = Sha256::of(b"something else");
        for error in [store(ErrorKind::NotFound), PackError::Digest { found }, PackError::Size] {
            assert!(is_changed(&error));
        }
        assert!(is_changed(&PackError::Decrypt(age::DecryptError::InvalidMac)));
        let full = std::io::ErrorKind::StorageFull;
        for error in [
            store(ErrorKind::Denied),
            store(ErrorKind::Unavailable),
            PackError::Write(full.into()),
            PackError::Decrypt(age::DecryptError::NoMatchingKeys),
        ] {
            assert!(!is_changed(&error));
        }
    }
}
