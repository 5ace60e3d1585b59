//! `offsite drill`: a restore is rehearsed, judged and remembered.

mod last;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::bars::Bars;
use super::find::Stores;
use super::output::{Output, can_ask, say};
use super::{Ended, evidence, key, load_place, preflight, prompt};
use crate::cli::{DrillArgs, PassphraseSource};
use crate::config::{Place, Span};
use crate::drill::{self, About, DrillRequest, Outcome, SweeperProgram, Verdict};
use crate::evidence::{Drill, DrilledDatabase, Entry, History, Record};
use crate::failure::{Failure, Kind};
use crate::ids::StoreName;
use crate::keys::Identities;
use crate::progress::Progress;
use crate::restore::StoredOrigin;
use crate::{clock, platform};

pub(super) use last::LastDrill;

/// What is to be said when no store gave anything to rehearse with.
const NOT_TRIED: &str = "no restore was rehearsed, and nothing is known of the copies, neither good nor bad; when `offsite check` \
                         reaches the store again, run `offsite drill` again";

pub(super) fn run(arguments: &DrillArgs, path: &Path, quiet: bool, output: Output) -> Ended {
    let place = load_place(path)?;
    let began = clock::now();
    let verdict = match attempt(arguments, &place, quiet, began) {
        Ok(verdict) => verdict,
        Err(failure) => {
            let not_tried = Some(failure.chain().join(": "));
            match failure.kind() {
                Kind::Interrupted => {}
                // Something of this machine is not as it has to be. Whoever sits before it knows; others are told.
                Kind::Usage if can_ask() => {}
                Kind::Usage => {
                    evidence::record(&place, Record::Drill(Drill { not_tried, ..Drill::default() }));
                }
                // Whoever is away says nothing of what he holds.
                Kind::Store => {
                    let asked = asked(arguments, &place);
                    evidence::record(&place, Record::Drill(Drill { asked, not_tried, ..Drill::default() }));
                    return Err(failure.hint(NOT_TRIED));
                }
                // A drill that came to nothing has shown nothing, and that is what is remembered.
                kind => {
                    let mut verdict = Verdict::begin(began);
                    verdict.store = Some(asked(arguments, &place).join(", "));
                    verdict.find(about(kind), failure.chain().join(": "));
                    remember(&place, &verdict.end(clock::now()));
                }
            }
            return Err(failure);
        }
    };
    remember(&place, &verdict);
    let code = exit_code(&verdict);
    output.deed(code, &verdict, || text::verdict(&verdict))?;
    Ok(code)
}

/// The stores that a generation was wanted from.
fn asked(arguments: &DrillArgs, place: &Place) -> Vec<String> {
    let from = |name: &StoreName| arguments.from.as_ref().is_none_or(|from| from == name);
    let names = place.stores.iter().map(|store| &store.name).filter(|name| from(name));
    names.map(StoreName::to_string).collect()
}

/// The process that clears the scratch of a drill away.
pub(super) fn sweeper(folder: &Path) -> Result<(), Failure> {
    drill::serve_sweeper(folder, io::stdin().lock(), io::stdout().lock())
        .map_err(|error| Failure::new(Kind::Failed, error))
}

fn exit_code(verdict: &Verdict) -> u8 {
    match verdict.outcome {
        Outcome::Passed | Outcome::PassedExcept => 0,
        Outcome::NotDone => Kind::Store.code(),
        Outcome::Failed => Kind::Verification.code(),
    }
}

fn about(kind: Kind) -> About {
    match kind {
        Kind::Verification => About::Generation,
        _ => About::Machine,
    }
}

fn remember(place: &Place, verdict: &Verdict) {
    if preflight::other_site(place).is_some() {
        return;
    }
    // The last one that was judged is still the last.
    if verdict.outcome != Outcome::NotDone
        && let Err((path, error)) = LastDrill::write(verdict, &place.state)
    {
        say(&format!("warning: how this drill ended could not be written to {}: {error}", path.display()));
    }
    evidence::record(place, Record::Drill(for_evidence(verdict)));
}

/// A verdict as it is kept for years.
fn for_evidence(verdict: &Verdict) -> Drill {
    let databases = verdict.databases.iter().map(|database| DrilledDatabase {
        name: database.name.clone(),
        engine: database.engine.clone(),
        sound: database.sound,
    });
    let findings: Vec<String> = verdict.findings.iter().map(|finding| finding.told().to_owned()).collect();
    Drill {
        generation: verdict.generation.clone().unwrap_or_default(),
        store: verdict.store.clone().unwrap_or_default(),
        passed: matches!(verdict.outcome, Outcome::Passed | Outcome::PassedExcept),
        files: verdict.files,
        bytes: verdict.bytes,
        took_ms: verdict.restore_ms + verdict.load_ms,
        target_ms: verdict.within_ms,
        databases: databases.collect(),
        not_tried: (verdict.outcome == Outcome::NotDone).then(|| findings.join("; ")),
        findings,
        asked: Vec::new(),
        not_done: verdict.not_done.clone(),
    }
}

/// Chooses the generation and rehearses.
fn attempt(arguments: &DrillArgs, place: &Place, quiet: bool, began: Timestamp) -> Result<Verdict, Failure> {
    let (identities, overdue) = identities(arguments, place)?;
    let mut stores = Stores::read(place, arguments.from.as_ref())?;
    stores.complain()?;
    let (store, stored) = stores.choose(place, &arguments.generation)?;
    let sweeper = SweeperProgram::this().map_err(|error| Failure::new(Kind::Failed, error))?;
    let origin = StoredOrigin {
        store: &store.store,
        site: &place.site,
        stored,
        identities: &identities,
        runtime: stores.runtime.handle(),
    };
    let settings = &place.drill.settings;
    let request =
        DrillRequest { origin, store: &store.config.name, settings, live: &place.source_folders, sweeper: &sweeper };
    let progress = Arc::new(Progress::default());
    let tell = |line: &str| {
        if !quiet {
            say(line);
        }
    };
    tell(&format!("getting {} back from {}", stored.generation, store.config.name));
    let _bars = Bars::show(&progress, quiet);
    let mut verdict = drill::drill(&request, &progress, began, &tell).map_err(|error| {
        Failure::new(Kind::Usage, error).hint(
            "let `[drill] scratch` name a folder that this account can make or that is its own, such as one in /var/tmp, and \
             run `offsite drill` again; nothing is known of the copies yet",
        )
    })?;
    if let Some(overdue) = overdue {
        verdict.leave(overdue);
        verdict = verdict.end(clock::now());
    }
    Ok(verdict)
}

/// What opens the generation: as said, as configured, or as the person at the terminal says. And what there is to say when
/// a key lies on this machine for longer than it may.
fn identities(arguments: &DrillArgs, place: &Place) -> Result<(Identities, Option<String>), Failure> {
    if !arguments.identities.is_empty() {
        return Ok((key::load_identities(&arguments.identities, arguments.passphrase.as_ref())?, None));
    }
    if let Some(path) = &place.drill.identity {
        let passphrase = place.drill.passphrase.clone().map(PassphraseSource::Reference);
        let passphrase = arguments.passphrase.as_ref().or(passphrase.as_ref());
        let identities = key::load_identities(std::slice::from_ref(path), passphrase).map_err(|failure| {
            failure.hint("the configuration names it (`[drill] identity`): is the drive that it lies on connected?")
        })?;
        return Ok((identities, overstays(place, clock::now())));
    }
    if can_ask() {
        let path =
            PathBuf::from(prompt::line("File of a secret key that opens the backups (on a USB stick, best)", "")?);
        return Ok((key::load_identities(&[path], arguments.passphrase.as_ref())?, None));
    }
    Err(Failure::new(Kind::Usage, "what is in a store is sealed, and a drill opens it only with a secret key")
        .hint("name the file of the key: `--identity FILE`, or `[drill] identity` in the configuration"))
}

/// That the secret key of the configuration lies there for longer than it may, if it does.
pub(super) fn overstays(place: &Place, now: Timestamp) -> Option<String> {
    let (path, limit) = (place.drill.identity.as_ref()?, place.drill.identity_for?);
    let since = platform::there_since(&path.metadata().ok()?)?;
    let lies = now.duration_since(since).unsigned_abs();
    (lies > limit).then(|| {
        format!(
            "the secret key {} lies on this machine since {} ({}), and may for {} (`[drill] identity_for`): take it away",
            path.display(),
            super::show::time(since),
            Span(lies),
            Span(limit)
        )
    })
}

/// That the last drill could not even be tried, if that is so.
pub(super) fn not_tried(history: &History, now: Timestamp) -> Option<String> {
    let drill = |entry: &Entry| match &entry.record {
        Record::Drill(drill) => Some((entry.at, drill.not_tried.clone())),
        _ => None,
    };
    let (at, why) = history.iter().rev().find_map(drill)?;
    let ago = super::show::ago(at, now);
    Some(format!(
        "the last drill ({ago}) could NOT BE TRIED: {}; run `offsite drill` when that is mended",
        why?.trim_end_matches('.')
    ))
}
