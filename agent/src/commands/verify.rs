//! `offsite verify`: what is stored is read again and hashed. Needs no key that opens anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::bars::Bars;
use super::find::{self, Stores};
use super::output::{Output, say};
use super::show::{self, counted};
use super::{Ended, evidence, load_place};
use crate::catalog::Stored;
use crate::cli::VerifyArgs;
use crate::clock;
use crate::config::{Place, Size};
use crate::evidence::Record;
use crate::failure::{self, Failure, Kind};
use crate::format::Sha256;
use crate::progress::Progress;
use crate::sign::SitePublicKey;
use crate::verify::{self, VerifyError, VerifyReport};

/// What a verification found.
#[derive(Serialize)]
pub(super) struct Verified {
    signatures_checked: bool,
    stores: Vec<Store>,
    /// Stores whose place is not the one that is meant, each with what to do. What this machine remembers may be gone only
    /// because it is looked for in another place.
    misplaced: Vec<String>,
}

#[derive(Serialize)]
struct Store {
    name: String,
    generations: u64,
    packs: u64,
    bytes: u64,
    packs_not_read: u64,
    findings: Vec<Finding>,
    #[serde(skip)]
    bad: Vec<Sha256>,
    #[serde(skip)]
    mended: Vec<Sha256>,
    /// Why the store could not be read at all.
    error: Vec<String>,
    #[serde(skip)]
    kind: Option<Kind>,
}

#[derive(Serialize)]
struct Finding {
    object: String,
    what: String,
    harms: Vec<String>,
}

pub(super) fn run(arguments: &VerifyArgs, path: &Path, quiet: bool, output: Output) -> Ended {
    let verified = execute(arguments, path, quiet)?;
    let code = verified.exit_code();
    output.deed(code, &verified, || verified.text())?;
    verified.complain();
    Ok(code)
}

/// Verifies; what is not whole is in the result.
pub(super) fn execute(arguments: &VerifyArgs, path: &Path, quiet: bool) -> Result<Verified, Failure> {
    let place = load_place(path)?;
    let stores = Stores::read(&place, arguments.from.as_ref())?;
    let wanted: Option<Vec<_>> = match &arguments.generation {
        None => None,
        Some(which) => {
            let (_, stored) = stores.find(which).ok_or_else(|| stores.nothing(&place, which))?;
            Some(vec![stored.generation.clone()])
        }
    };
    let known_bad = evidence::bad_packs(&place);
    let progress = Arc::new(Progress::default());
    let bars = Bars::show(&progress, quiet);
    let mut results = Vec::new();
    for (store, read) in &stores.read {
        let name = store.shown();
        let chosen: Vec<Stored> = match read {
            Ok(all) => all
                .iter()
                .filter(|stored| wanted.as_ref().is_none_or(|wanted| wanted.contains(&stored.generation)))
                .cloned()
                .collect(),
            Err(error) => {
                results.push(Store::failed(name, find::kind_of_catalog(error), failure::chain(error)));
                continue;
            }
        };
        let whole_site = wanted.is_none().then_some(stores.key.as_ref());
        let work = one(store.store.as_ref(), &place, &chosen, whole_site, arguments.sample, &progress);
        results.push(match stores.runtime.block_on(work) {
            Ok(mut report) => {
                let lost = stores.lost(store).filter(|_| wanted.is_none());
                report.findings.extend(lost.map(|(generation, what)| verify::Finding {
                    object: generation.to_string(),
                    what,
                    harms: vec![generation.clone()],
                }));
                Store::verified(name, report, &known_bad)
            }
            Err(error) => Store::failed(name, kind(&error), failure::chain(&error)),
        });
    }
    for store in &stores.closed {
        results.push(Store::failed(store.config.name.to_string(), store.kind(), store.messages()));
    }
    drop(bars);
    for store in &results {
        evidence::record(&place, Record::Verify(store.record()));
    }
    let signatures_checked = stores.key.is_some();
    let mut verified = Verified { signatures_checked, stores: results, misplaced: Vec::new() };
    if verified.exit_code() == 0 && verified.stores.iter().all(|store| store.generations == 0) {
        let failure = Failure::new(Kind::Failed, "there is nothing to verify yet");
        let strays = stores.elsewhere(&place).hints(&place.site);
        return Err(match strays.is_empty() {
            true => failure.hint("make a generation: `offsite backup`"),
            false => strays.into_iter().fold(failure, Failure::hint),
        });
    }
    verified.misplaced = stores.elsewhere(&place).misplaced;
    Ok(verified)
}

/// Each day is a round of its own, so that samples of many days read everything. If `generations` are all there are,
/// what belongs to the site is looked at too, with its key if that is known.
async fn one(
    store: &dyn providers::ObjectStore,
    place: &Place,
    generations: &[Stored],
    whole_site: Option<Option<&SitePublicKey>>,
    sample: u8,
    progress: &Progress,
) -> Result<VerifyReport, VerifyError> {
    let day = clock::now().as_second() / 86_400;
    let mut report = verify::verify(store, &place.site, generations, sample, day.unsigned_abs(), progress).await?;
    if let Some(key) = whole_site {
        report.findings.extend(verify::verify_site(store, &place.site, key, &place.keepers, generations).await?);
    }
    Ok(report)
}

fn kind(error: &VerifyError) -> Kind {
    match error {
        VerifyError::Store(error) => show::kind_of_store(error),
        VerifyError::Catalog(error) => find::kind_of_catalog(error),
        VerifyError::Pruned(error) => super::prune::kind(error),
        VerifyError::Key(_) => Kind::Failed,
    }
}

impl Store {
    fn verified(name: String, report: VerifyReport, known_bad: &BTreeSet<Sha256>) -> Self {
        let findings = report.findings.into_iter().map(|finding| Finding {
            object: finding.object,
            what: finding.what,
            harms: finding.harms.iter().map(ToString::to_string).collect(),
        });
        Self {
            name,
            generations: report.generations,
            packs: report.packs,
            bytes: report.bytes,
            packs_not_read: report.sampled_out,
            findings: findings.collect(),
            bad: report.damaged.into_iter().collect(),
            mended: known_bad.intersection(&report.whole).copied().collect(),
            error: Vec::new(),
            kind: None,
        }
    }

    /// As the evidence log keeps it.
    fn record(&self) -> crate::evidence::Verify {
        let found = self.findings.iter().map(|finding| format!("`{}`: {}", finding.object, finding.what));
        crate::evidence::Verify {
            store: self.name.clone(),
            generations: self.generations,
            packs: self.packs,
            bytes: self.bytes,
            packs_not_read: self.packs_not_read,
            findings: found.chain(self.error.last().cloned()).collect(),
            bad: self.bad.clone(),
            mended: self.mended.clone(),
        }
    }

    fn failed(name: String, kind: Kind, error: Vec<String>) -> Self {
        Self {
            name,
            generations: 0,
            packs: 0,
            bytes: 0,
            packs_not_read: 0,
            findings: Vec::new(),
            bad: Vec::new(),
            mended: Vec::new(),
            error,
            kind: Some(kind),
        }
    }
}

impl Verified {
    /// Damage counts more than a store that does not answer, and that more than one that is looked for in the wrong place.
    pub(super) fn exit_code(&self) -> u8 {
        if self.stores.iter().any(|store| !store.findings.is_empty()) {
            return Kind::Verification.code();
        }
        let misplaced = (!self.misplaced.is_empty()).then_some(Kind::Failed);
        self.stores.iter().find_map(|store| store.kind).or(misplaced).map_or(0, Kind::code)
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for store in self.stores.iter().filter(|store| store.error.is_empty()) {
            let verdict = match (store.findings.is_empty(), store.packs_not_read) {
                (false, _) => "NOT ALL OF IT IS WHOLE",
                (true, 0) => "all of it is whole",
                (true, _) => "what was read is whole",
            };
            let size = Size(store.bytes);
            text.push_str(&format!(
                "{}: {}, {} read ({size}): {verdict}\n",
                store.name,
                counted(store.generations, "generation"),
                counted(store.packs, "pack")
            ));
            if store.packs_not_read > 0 {
                text.push_str(&format!("  not read this time, but there: {}\n", counted(store.packs_not_read, "pack")));
            }
        }
        if !self.signatures_checked {
            text.push_str("The signatures were not checked: this machine has no site key (see `offsite list`).\n");
        }
        text
    }

    pub(super) fn complain(&self) {
        for stray in &self.misplaced {
            say(&format!("error: nothing of this site was found in a store\n  what to do: {stray}"));
        }
        for store in &self.stores {
            if !store.error.is_empty() {
                say(&format!(
                    "error: {} could not be verified\n  because: {}",
                    store.name,
                    store.error.join("\n  because: ")
                ));
            }
            for finding in &store.findings {
                say(&format!("error: {}: `{}`: {}", store.name, finding.object, finding.what));
                if !finding.harms.is_empty() {
                    say(&format!("  harms: {}", finding.harms.join(", ")));
                }
            }
            if !store.findings.is_empty() {
                say(
                    "  what to do: everything else can be restored; see whether the store's disks are sound, and make a generation",
                );
                say("  that needs nothing of what is stored: `offsite backup --full`");
            }
        }
    }
}
