//! One site: what is wrong with it, what is read again, what is counter-signed, and what goes.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use providers::{Body, ErrorKind, KeyError, ObjectKey, ObjectMeta, ObjectStore, PutOptions};

use super::rounds::{Item, Ledger, LedgerError, Round, choose};
use super::{Finding, Keeping, SiteReport, Terms};
use crate::catalog::{Stored, Trust};
use crate::failure;
use crate::format::names::{self, ChainFolder};
use crate::format::verified::{self, Kind, Verified};
use crate::format::{Sha256, VERSION};
use crate::ids::SiteName;
use crate::progress::Progress;
use crate::prune::{self, PruneError, Survey};
use crate::sign::{SignError, SitePublicKey};
use crate::upload::Interrupt;
use crate::verify::{self, VerifyError};

/// Objects read at once.
const PARALLEL: usize = 4;
const DAY_S: i64 = 86_400;
/// The line of an office can be slow, and an upload can rest for weeks.
const LEFTOVER_AGE: SignedDuration = SignedDuration::from_hours(60 * 24);

/// Why a site could not be looked at to its end.
#[derive(Debug, thiserror::Error)]
enum SiteError {
    /// Retention could not look at it, or failed.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// It could not be verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The store refused a counter-signature, or to give up leftovers.
    #[error("the store refused")]
    Store(#[from] providers::Error),
    /// Nothing could be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// What was remembered cannot be read, or what was read not be remembered.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A document could not be written.
    #[error("a document has no text form")]
    Json(#[from] serde_json::Error),
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
}

/// An object that generations need.
struct Needed {
    sha256: Sha256,
    /// What the ledger knows it by.
    id: Sha256,
    /// Its size; `None` if it is not there.
    bytes: Option<u64>,
    /// The day it was written.
    written: i64,
    /// The generations that need it, by their place among those of the site.
    by: Vec<usize>,
}

/// The parts of one site's examination, each owned by the caller.
struct Site<'a> {
    store: &'a dyn ObjectStore,
    keeping: &'a Keeping<'a>,
    name: &'a SiteName,
    key: &'a SitePublicKey,
    pruners: Vec<SitePublicKey>,
}

/// Looks at the site, of which `objects` is all that the store lists. What goes wrong is in the report.
pub(super) async fn examine(
    store: &dyn ObjectStore,
    keeping: &Keeping<'_>,
    (name, key): (&SiteName, &SitePublicKey),
    objects: Vec<ObjectMeta>,
    left: &mut u64,
    interrupt: &Interrupt,
    report: &mut SiteReport,
) {
    let pruners = vec![key.clone(), keeping.key.public().clone()];
    let site = Site { store, keeping, name, key, pruners };
    if let Err(error) = site.examine(objects, left, interrupt, report).await {
        report.error = failure::chain(&error);
    }
    report.findings.sort();
}

impl Site<'_> {
    async fn examine(
        &self,
        objects: Vec<ObjectMeta>,
        left: &mut u64,
        interrupt: &Interrupt,
        report: &mut SiteReport,
    ) -> Result<(), SiteError> {
        let there: BTreeMap<ObjectKey, (u64, Option<Timestamp>)> =
            objects.iter().map(|object| (object.key.clone(), (object.bytes, object.modified))).collect();
        let survey = prune::survey(self.store, &self.retention(), objects).await?;
        self.judge(&survey, report).await?;
        let needed = self.needed(&survey, &there, report)?;
        report.objects = needed.len() as u64;
        report.bytes = needed.values().filter_map(|needed| needed.bytes).sum();
        let ledger = self.read_again(&survey, &needed, left, interrupt, report).await?;
        if *interrupt.borrow() {
            return Ok(());
        }
        if !self.keeping.dry_run {
            self.countersign(&survey, &needed, &ledger, &there, report).await?;
        }
        let stale = self.stale_words(&survey, &there)?;
        self.prune(survey, ledger.newest, interrupt, report).await?;
        self.sweep(&stale, report).await
    }

    /// This keeper's word for generations that are gone.
    fn stale_words(
        &self,
        survey: &Survey,
        there: &BTreeMap<ObjectKey, (u64, Option<Timestamp>)>,
    ) -> Result<Vec<ObjectKey>, SiteError> {
        let folder = names::site_prefix(self.name)?.below(verified::FOLDER)?;
        let ending = format!("-{}.json", self.keeping.key.public().fingerprint());
        let known: BTreeSet<&str> = survey.generations.iter().map(|stored| stored.generation.as_str()).collect();
        let is_stale = |key: &&ObjectKey| {
            let name = folder.strip(key).map(|name| name.strip_suffix(".minisig").unwrap_or(name));
            name.and_then(|name| name.strip_suffix(&ending)).is_some_and(|generation| !known.contains(generation))
        };
        Ok(there.keys().filter(is_stale).cloned().collect())
    }

    /// Gives up what writes of long ago left behind, such as parts of uploads that nobody finished, which cost money unseen;
    /// and what was said of generations that are gone.
    async fn sweep(&self, stale: &[ObjectKey], report: &mut SiteReport) -> Result<(), SiteError> {
        if self.keeping.dry_run {
            return Ok(());
        }
        if let (true, Some(deletion)) = (report.brakes.is_empty(), self.store.deletion()) {
            for key in stale {
                deletion.delete(&key.clone().into()).await?;
            }
        }
        let now = self.store.now().await?;
        report.swept = self.store.sweep(&names::site_prefix(self.name)?, now - LEFTOVER_AGE).await?;
        Ok(())
    }

    fn retention(&self) -> prune::Keeping<'_> {
        let Terms { rules, limits, calendar } = self.keeping.terms_of(self.name);
        prune::Keeping { site: self.name, key: self.key, pruners: &self.pruners, calendar, rules, limits }
    }

    /// Signatures, the chain of them, the heartbeat, and the instructions for restoring by hand.
    async fn judge(&self, survey: &Survey, report: &mut SiteReport) -> Result<(), SiteError> {
        let genuine = survey.generations.iter().filter(|stored| stored.trust == Trust::Signed);
        report.generations = genuine.clone().count() as u64;
        if let Some(newest) = genuine.max_by_key(|stored| stored.commit.as_ref().map(|commit| commit.sequence)) {
            report.newest = Some(newest.generation.clone());
            report.newest_at = newest.at;
        }
        for stored in &survey.generations {
            if let Some(why) = stored.trust.complaint() {
                let harms = vec![stored.generation.clone()];
                report.findings.push(Finding { object: stored.generation.to_string(), what: why.to_owned(), harms });
            }
        }
        let pruned = survey.record.as_ref().map(|record| record.sequences.clone()).unwrap_or_default();
        let whole = verify::judge_site(self.store, self.name, Some(self.key), &pruned, &survey.generations).await?;
        report.findings.extend(whole.into_iter().map(|finding| Finding {
            object: finding.object,
            what: finding.what,
            harms: finding.harms,
        }));
        Ok(())
    }

    /// Every pack and every manifest that some genuine generation needs.
    fn needed(
        &self,
        survey: &Survey,
        there: &BTreeMap<ObjectKey, (u64, Option<Timestamp>)>,
        report: &mut SiteReport,
    ) -> Result<BTreeMap<ObjectKey, Needed>, SiteError> {
        let mut needed: BTreeMap<ObjectKey, Needed> = BTreeMap::new();
        let mut need = |key: ObjectKey, sha256: Sha256, by: usize| {
            let found = there.get(&key);
            let written = found.and_then(|(_, at)| *at).map_or(0, day);
            let bytes = found.map(|(bytes, _)| *bytes);
            let entry = Needed { sha256, id: Ledger::id(&key), bytes, written, by: Vec::new() };
            needed.entry(key).or_insert(entry).by.push(by);
        };
        for (at, stored) in survey.generations.iter().enumerate() {
            let Some(commit) = stored.commit.as_ref().filter(|_| stored.trust == Trust::Signed) else { continue };
            let folder = ChainFolder::new(self.name, stored.class, &stored.chain)?;
            need(folder.object(&stored.generation, names::MANIFEST)?, commit.manifest.sha256, at);
            match survey.packs(stored) {
                Some(packs) => {
                    for name in packs {
                        need(folder.pack(name)?, name.sha256, at);
                    }
                }
                None => report.findings.push(Finding {
                    object: folder.object(&stored.generation, names::PACKS)?.to_string(),
                    what: "it is missing, or its bytes are not what was stored".to_owned(),
                    harms: vec![stored.generation.clone()],
                }),
            }
        }
        for (key, gone) in needed.iter().filter(|(_, needed)| needed.bytes.is_none()) {
            let (object, what) = (key.to_string(), "it is missing".to_owned());
            report.findings.push(Finding { object, what, harms: harms(survey, gone) });
        }
        Ok(needed)
    }

    /// Reads today's share of what the site needs, or until somebody asks to stop, and remembers what was read.
    async fn read_again(
        &self,
        survey: &Survey,
        needed: &BTreeMap<ObjectKey, Needed>,
        left: &mut u64,
        interrupt: &Interrupt,
        report: &mut SiteReport,
    ) -> Result<Ledger, SiteError> {
        let mut ledger = Ledger::load(self.keeping.ledgers, self.name)?;
        let today = day(survey.now);
        let days = i64::from(self.keeping.round_days);
        let there: Vec<_> = needed.iter().filter_map(|(key, needed)| Some((key, needed, needed.bytes?))).collect();
        let last = |ledger: &Ledger, needed: &Needed| ledger.read.get(&needed.id).copied().unwrap_or(needed.written);
        let item = |(_, needed, bytes): &(_, &Needed, u64)| Item {
            bytes: *bytes,
            day: last(&ledger, needed),
            bad: ledger.bad.contains(&needed.id),
        };
        let items: Vec<Item> = there.iter().map(item).collect();
        let elapsed = ledger.run.map_or(1, |run| today - run);
        let chosen = choose(&items, &Round { today, elapsed, days, budget: *left });
        let progress = Progress::default();
        let progress = &progress;
        let reads = chosen.into_iter().filter_map(|at| there.get(at)).map(|(key, needed, bytes)| async move {
            (*key, *needed, verify::hash(self.store, key, *bytes, progress).await)
        });
        // What is read may be long; nobody who wants to stop waits for the end of it.
        let mut asked = interrupt.clone();
        let asked = Box::pin(async move {
            asked.wait_for(|stop| *stop).await.ok();
        });
        let mut reads = stream::iter(reads).buffer_unordered(PARALLEL).take_until(asked);
        while let Some((key, needed, found)) = reads.next().await {
            let what = match found {
                Ok((sha256, bytes)) => {
                    *left = left.saturating_sub(bytes);
                    if sha256 == needed.sha256 {
                        report.read_objects += 1;
                        report.read_bytes += bytes;
                        ledger.bad.remove(&needed.id);
                        ledger.read.insert(needed.id, today);
                        continue;
                    }
                    format!("its bytes are not what was stored (SHA-256 is {sha256})")
                }
                Err(error) => format!("it cannot be read: {}", failure::one_line(&error)),
            };
            ledger.read.remove(&needed.id);
            ledger.bad.insert(needed.id);
            report.findings.push(Finding { object: key.to_string(), what, harms: harms(survey, needed) });
        }
        drop(reads);
        report.overdue = there.iter().filter(|(_, needed, _)| today - last(&ledger, needed) > days).count() as u64;
        if !*interrupt.borrow() {
            ledger.run = Some(today);
        }
        let genuine = survey.generations.iter().filter(|stored| stored.trust == Trust::Signed);
        let newest = genuine.filter_map(|stored| Some(stored.commit.as_ref()?.sequence)).max();
        ledger.newest = ledger.newest.max(newest.unwrap_or(0));
        if !self.keeping.dry_run {
            let known: BTreeSet<Sha256> = needed.values().map(|needed| needed.id).collect();
            ledger.save(self.keeping.ledgers, self.name, &known)?;
        }
        Ok(ledger)
    }

    /// Signs each generation of which every byte was read and found whole, once.
    async fn countersign(
        &self,
        survey: &Survey,
        needed: &BTreeMap<ObjectKey, Needed>,
        ledger: &Ledger,
        there: &BTreeMap<ObjectKey, (u64, Option<Timestamp>)>,
        report: &mut SiteReport,
    ) -> Result<(), SiteError> {
        let prefix = names::site_prefix(self.name)?;
        let fingerprint = self.keeping.key.public().fingerprint();
        // For each generation: packs, bytes, the day of the oldest reading; nothing if one was not read.
        let mut read: Vec<Option<(u64, u64, i64)>> = vec![Some((0, 0, i64::MAX)); survey.generations.len()];
        for (key, needed) in needed {
            let day = ledger.read.get(&needed.id).filter(|_| !ledger.bad.contains(&needed.id));
            let packs = u64::from(!key.as_str().ends_with(names::MANIFEST));
            for at in &needed.by {
                let Some(entry) = read.get_mut(*at) else { continue };
                *entry = match (*entry, day, needed.bytes) {
                    (Some((count, bytes, since)), Some(day), Some(size)) => {
                        Some((count + packs, bytes + size * packs, since.min(*day)))
                    }
                    _ => None,
                };
            }
        }
        for (stored, read) in survey.generations.iter().zip(read) {
            let name = Verified::name(&stored.generation, &fingerprint);
            let signature = prefix.key(&format!("{name}.minisig"))?;
            let (Some(read), Trust::Signed, false) = (read, &stored.trust, there.contains_key(&signature)) else {
                continue;
            };
            // Its list of packs could not be read.
            if survey.packs(stored).is_none() {
                continue;
            }
            let Some(document) = self.verified(stored, read, survey.now) else { continue };
            let text = document.encode()?;
            let minisig = self.keeping.key.sign(&text, &document.trusted_comment())?;
            for (key, bytes) in [(prefix.key(&name)?, text), (signature, minisig.into_bytes())] {
                // A keeper that died between the two left the first: with another date, so the pair is written anew.
                self.put(&key, bytes).await?;
            }
            report.countersigned.push(stored.generation.clone());
        }
        Ok(())
    }

    async fn put(&self, key: &ObjectKey, bytes: Vec<u8>) -> Result<(), SiteError> {
        let body = Body::from_bytes(bytes);
        match self.store.put(key, &body, &PutOptions::CREATE).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                self.store.put(key, &body, &PutOptions::OVERWRITE).await?;
            }
            other => drop(other?),
        }
        Ok(())
    }

    fn verified(&self, stored: &Stored, (packs, bytes, since): (u64, u64, i64), now: Timestamp) -> Option<Verified> {
        Some(Verified {
            offsite: Kind::Verified,
            version: VERSION,
            site: self.name.clone(),
            class: stored.class,
            chain: stored.chain.clone(),
            generation: stored.generation.clone(),
            sha256: stored.sha256?,
            packs,
            bytes,
            since: Timestamp::from_second(since.checked_mul(DAY_S)?).ok()?,
            verified: now,
        })
    }

    /// Plans retention and carries it out. Before anything goes, the site is listed anew by itself: hours may have passed,
    /// and not every store lists all sites in one order. `newest` is the highest number that was ever seen there.
    async fn prune(
        &self,
        mut survey: Survey,
        newest: u64,
        interrupt: &Interrupt,
        report: &mut SiteReport,
    ) -> Result<(), SiteError> {
        let retention = self.retention();
        survey.heartbeat = survey.heartbeat.max(Some(newest));
        let mut plan = prune::plan(&survey, &retention, None, &BTreeSet::new());
        drop(survey);
        let executes = !plan.is_empty() && !self.keeping.dry_run && !*interrupt.borrow();
        if executes {
            let objects = prune::list_site(self.store, self.name).await?;
            let mut survey = prune::survey(self.store, &retention, objects).await?;
            survey.heartbeat = survey.heartbeat.max(Some(newest));
            plan = prune::plan(&survey, &retention, None, &BTreeSet::new());
        }
        report.expired = plan.expired().map(|judged| judged.subject.id.clone()).collect();
        // What speaks against deleting counts only where something is to be deleted.
        if !plan.is_empty() {
            report.brakes = plan.brakes.clone();
            report.plan = Some(plan.hash.clone());
            report.versions = prune::hidden(self.store, self.name).await?;
        }
        if executes && plan.is_free(self.keeping.lifted) && !plan.is_empty() {
            report.freed = prune::execute(self.store, &plan, self.keeping.key, self.keeping.lifted, interrupt).await?;
            report.brakes = Vec::new();
        }
        Ok(())
    }
}

fn harms(survey: &Survey, needed: &Needed) -> Vec<crate::ids::GenerationId> {
    needed.by.iter().filter_map(|at| Some(survey.generations.get(*at)?.generation.clone())).collect()
}

fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(DAY_S)
}
