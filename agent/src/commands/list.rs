//! `offsite list`: the generations there are, here and in every store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::find::{self, EARLIER, Stores, Strays};
use super::output::{Output, say};
use super::stores::{ClosedStore, OpenStore};
use super::{Ended, key, load_place, medium, prune, show, stores};
use crate::catalog::{CatalogError, Pulse, Stored, Trust};
use crate::cli::{AsOf, From, ListArgs};
use crate::clock;
use crate::config::{Place, Size};
use crate::disks::DiskError;
use crate::failure::{self, Failure, Kind};
use crate::format::names;
use crate::generation::{Class, Grade};
use crate::ids::{GenerationId, SiteName, StoreName};
use crate::prune::{Holds, PruneError};
use crate::retention::{self, End, Reason, Verdict};
use crate::staging;

#[derive(Serialize)]
struct Listing {
    site: SiteName,
    /// The time that the stores are shown of; now if absent.
    as_of: Option<Timestamp>,
    signatures_checked: bool,
    generations: Vec<Generation>,
    /// Heartbeats that are not as they should be.
    heartbeats: Vec<Beat>,
    /// Stores that could not be read.
    failed: Vec<FailedStore>,
    /// Rotations of which no disk is connected; what lies on their disks is shown as it was last seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    away: Vec<String>,
    /// If there is no generation: other sites that keep some in these stores.
    other_sites: BTreeSet<SiteName>,
    /// Stores whose place is not the one that is meant, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    misplaced: Vec<String>,
}

#[derive(Serialize)]
struct Beat {
    store: String,
    what: String,
    /// A generation that is not there.
    missing: Option<String>,
    /// It is this machine that knows of it.
    #[serde(skip)]
    is_memory: bool,
}

impl Beat {
    fn text(&self) -> String {
        let what = if self.is_memory { "MISSING from" } else { "HEARTBEAT of" };
        format!("\n{what} {}: {}\n", self.store, self.what)
    }
}

/// One generation and the places that have it.
#[derive(Serialize)]
struct Generation {
    id: String,
    cut: Option<Timestamp>,
    grade: Option<Grade>,
    /// As it was called; known only on the machine that has it.
    label: Option<String>,
    content_bytes: Option<u64>,
    places: Vec<Copy>,
}

/// One generation in one place.
#[derive(Default, Serialize)]
struct Copy {
    place: String,
    /// It lies in a folder of this machine, as far as is known: what destroys the one may destroy the other.
    on_this_machine: bool,
    /// Set if it lies on a disk that is not connected: when that was last written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    class: Option<Class>,
    full: Option<bool>,
    chain: Option<String>,
    sequence: Option<u64>,
    added_bytes: Option<u64>,
    signed: Option<bool>,
    refused: Option<String>,
    /// Why the store does not give away what it says of itself: it may be genuine.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// Why it is kept there, and until when; nothing if no key tells this site's generations from others.
    retention: Option<Retention>,
}

/// What retention says of one copy.
#[derive(Serialize)]
struct Retention {
    expires: bool,
    reasons: Vec<Reason>,
    #[serde(flatten)]
    end: End,
}

#[derive(Serialize)]
struct FailedStore {
    store: String,
    messages: Vec<String>,
    #[serde(skip)]
    kind: Kind,
}

/// The place of local generations.
const LOCAL: &str = "local";

pub(super) fn run(arguments: &ListArgs, path: &Path, output: Output) -> Ended {
    let place = load_place(path)?;
    let listing = list(&place, arguments.from.as_ref(), arguments.as_of)?;
    let mut copies = listing.generations.iter().flat_map(|generation| &generation.places);
    let refused = copies.clone().any(|copy| copy.refused.is_some());
    let code = match listing.failed.first() {
        Some(failed) => failed.kind.code(),
        None if !listing.other_sites.is_empty() || !listing.misplaced.is_empty() => Kind::Failed.code(),
        None if copies.any(|copy| copy.unreadable.is_some()) => Kind::Store.code(),
        None if refused || listing.heartbeats.iter().any(|beat| beat.missing.is_some()) => Kind::Verification.code(),
        None => 0,
    };
    output.result_with(code, &listing, || listing.text())?;
    for failed in &listing.failed {
        say(&format!(
            "error: {} could not be read\n  because: {}",
            failed.store,
            failed.messages.join("\n  because: ")
        ));
    }
    Ok(code)
}

fn list(place: &Place, from: Option<&From>, as_of: Option<AsOf>) -> Result<Listing, Failure> {
    let mut found: BTreeMap<GenerationId, Generation> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut heartbeats = Vec::new();
    let mut signatures_checked = true;
    let mut strays = Strays::default();
    let (mut held, mut away) = (Vec::new(), Vec::new());
    if as_of.is_some() && from == Some(&From::Local) {
        let what = "what this machine had at an earlier time is not known";
        return Err(Failure::new(Kind::Usage, what).hint("`--as-of` asks stores that keep older versions"));
    }
    if as_of.is_none() && matches!(from, None | Some(From::Local)) {
        add_local(place, &mut found)?;
    }
    if from != Some(&From::Local) {
        let stores = Stores::read_as_of(place, from.and_then(From::store), as_of)?;
        signatures_checked = stores.key.is_some();
        heartbeats.extend(stores.pulses().map(|(store, pulse)| Beat {
            store: store.shown(),
            what: pulse.complaint().unwrap_or_default(),
            missing: pulse.missing().map(ToString::to_string),
            is_memory: matches!(pulse, Pulse::Lost { .. }),
        }));
        for (store, read) in &stores.read {
            match read {
                Ok(generations) => {
                    generations.iter().for_each(|stored| add_stored(store, stored, &mut found));
                    held.extend(add_retention(place, &stores, store, generations, &mut found)?);
                }
                Err(error) => failed.push(failed_store(store, error)),
            }
        }
        let is_away = |store: &&ClosedStore<'_>| store.disk().is_some_and(DiskError::is_away);
        away.extend(stores.closed.iter().filter(is_away).map(|store| store.config.name.to_string()));
        if as_of.is_none() {
            add_other_disks(place, from.and_then(From::store), &stores, &mut found)?;
        }
        strays = stores.elsewhere(place);
        // Where there is something of this site, others are nobody's concern.
        if !found.is_empty() || !failed.is_empty() || !away.is_empty() {
            strays.sites.clear();
        }
        failed.extend(stores.closed.iter().filter(|store| !is_away(store)).map(|store| FailedStore {
            store: store.config.name.to_string(),
            messages: store.messages(),
            kind: store.kind(),
        }));
    }
    if as_of.is_none() && matches!(from, None | Some(From::Local)) {
        add_local_retention(place, &held, &mut found)?;
    }
    let mut generations: Vec<Generation> = found.into_values().collect();
    generations.sort_by(|a, b| (a.cut, &a.id).cmp(&(b.cut, &b.id)));
    let as_of = as_of.map(|AsOf(at)| at);
    let site = place.site.clone();
    let Strays { sites: other_sites, misplaced } = strays;
    Ok(Listing { site, as_of, signatures_checked, generations, heartbeats, failed, away, other_sites, misplaced })
}

fn failed_store(store: &OpenStore<'_>, error: &CatalogError) -> FailedStore {
    let kind = find::kind_of_catalog(error);
    FailedStore { store: store.shown(), messages: failure::chain(error), kind }
}

fn add_local(place: &Place, found: &mut BTreeMap<GenerationId, Generation>) -> Result<(), Failure> {
    if !place.staging.exists() {
        return Ok(());
    }
    let failed = |error| Failure::new(Kind::Failed, error);
    for local in staging::generations(&place.staging).map_err(failed)? {
        let document = local.document().map_err(failed)?;
        let generation = entry(found, local.id());
        generation.cut = Some(document.cut.not_after);
        generation.grade = Some(document.grade);
        generation.label = document.label;
        // If a store has it, what that says counts: the same as reports and `status` say.
        generation.content_bytes = Some(document.sources.iter().map(|source| source.bytes).sum());
        let class = Some(document.class);
        generation.places.push(Copy { place: LOCAL.to_owned(), on_this_machine: true, class, ..Copy::default() });
    }
    Ok(())
}

fn add_stored(store: &OpenStore<'_>, stored: &Stored, found: &mut BTreeMap<GenerationId, Generation>) {
    let generation = entry(found, &stored.generation);
    if let Some(commit) = &stored.commit {
        generation.cut = Some(commit.cut);
        generation.grade = Some(commit.grade);
        generation.content_bytes = Some(commit.stream_bytes);
    }
    generation.places.push(Copy {
        place: store.shown(),
        on_this_machine: medium::is_here(store.config),
        last_seen: None,
        class: Some(stored.class),
        full: stored.commit.as_ref().map(|commit| commit.number == 0),
        chain: Some(stored.chain.to_string()),
        sequence: stored.commit.as_ref().map(|commit| commit.sequence),
        added_bytes: stored.commit.as_ref().map(|commit| commit.added_bytes),
        signed: match stored.trust {
            Trust::Signed => Some(true),
            Trust::Unchecked | Trust::Unreadable(_) => None,
            Trust::Refused(_) => Some(false),
        },
        refused: match &stored.trust {
            Trust::Refused(why) => Some(why.clone()),
            Trust::Signed | Trust::Unchecked | Trust::Unreadable(_) => None,
        },
        unreadable: match &stored.trust {
            Trust::Unreadable(why) => Some(why.clone()),
            Trust::Signed | Trust::Unchecked | Trust::Refused(_) => None,
        },
        retention: None,
    });
}

/// Adds what lies on disks of rotations that are not connected, as far as this machine remembers.
fn add_other_disks(
    place: &Place,
    only: Option<&StoreName>,
    stores: &Stores<'_>,
    found: &mut BTreeMap<GenerationId, Generation>,
) -> Result<(), Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let Some(state) = prune::state(place)? else { return Ok(()) };
    let rotations = place.stores.iter().filter(|store| !store.slots().is_empty());
    for store in rotations.filter(|store| only.is_none_or(|only| *only == store.name)) {
        for disk in state.disks(&store.name).map_err(failed)? {
            let Some(last) = disk.last else { continue };
            if stores.read.iter().any(|(open, _)| *open.place() == disk.place) {
                continue;
            }
            for (sequence, id) in state.remembered(&disk.place).map_err(failed)? {
                let copy = Copy {
                    place: show::disk(&store.name, &disk.slot),
                    last_seen: Some(last.committed),
                    sequence: Some(sequence),
                    ..Copy::default()
                };
                entry(found, &id).places.push(copy);
            }
        }
    }
    Ok(())
}

/// Adds why each generation of `store` is kept; answers who holds what there.
fn add_retention(
    place: &Place,
    stores: &Stores<'_>,
    store: &OpenStore<'_>,
    generations: &[Stored],
    found: &mut BTreeMap<GenerationId, Generation>,
) -> Result<Option<Holds>, Failure> {
    let failed = |error: PruneError| Failure::new(prune::kind(&error), error);
    let Some(key) = &stores.key else { return Ok(None) };
    let site = names::site_prefix(&place.site).map_err(|error| failed(error.into()))?;
    let holds = crate::prune::read_holds(store.store.as_ref(), &site, &place.site, key);
    let (holds, _) = stores.runtime.block_on(holds).map_err(failed)?;
    let subjects = crate::prune::subjects(generations, &holds);
    let (rules, calendar, now) = (&place.retention.rolling, &place.calendar, clock::now());
    let verdicts = retention::judge(rules, calendar, &subjects, now);
    let ends = retention::ends(rules, calendar, &subjects, now);
    for (verdict, end) in verdicts.iter().zip(ends) {
        add_verdict(found, &store.shown(), verdict, end);
    }
    Ok(Some(holds))
}

/// The same for this machine, where what is held in a store is held as well.
fn add_local_retention(
    place: &Place,
    held: &[Holds],
    found: &mut BTreeMap<GenerationId, Generation>,
) -> Result<(), Failure> {
    let key = key::public_key(place).map_err(|error| Failure::new(Kind::Failed, error))?;
    let Some(key) = key else { return Ok(()) };
    let state = prune::state(place)?;
    let plan = prune::local::plan(place, &key, state.as_ref(), &stores::runtime()?, held)?;
    for judged in plan.iter().flat_map(|plan| &plan.generations) {
        add_verdict(found, LOCAL, &judged.verdict, judged.end);
    }
    Ok(())
}

fn add_verdict(found: &mut BTreeMap<GenerationId, Generation>, place: &str, verdict: &Verdict, end: End) {
    let Some(generation) = found.get_mut(&verdict.id) else { return };
    for copy in generation.places.iter_mut().filter(|copy| copy.place == place) {
        // One id can lie there as rolling and as archival; each has a verdict of its own.
        if copy.retention.is_none() && copy.class.is_none_or(|class| place == LOCAL || class == verdict.class) {
            copy.retention = Some(Retention { expires: verdict.expires(), reasons: verdict.reasons.clone(), end });
        }
    }
}

fn entry<'f>(found: &'f mut BTreeMap<GenerationId, Generation>, id: &GenerationId) -> &'f mut Generation {
    found.entry(id.clone()).or_insert_with(|| Generation {
        id: id.to_string(),
        cut: None,
        grade: None,
        label: None,
        content_bytes: None,
        places: Vec::new(),
    })
}

impl Listing {
    fn text(&self) -> String {
        let then = self.as_of.map(|at| format!("As it was at {}:\n", show::time(at))).unwrap_or_default();
        if self.generations.is_empty() {
            let strays = Strays { sites: self.other_sites.clone(), misplaced: self.misplaced.clone() };
            let strays: String = strays.hints(&self.site).iter().map(|stray| format!("But {stray}\n")).collect();
            let beats: String = self.heartbeats.iter().map(Beat::text).collect();
            let yet = if beats.is_empty() { " yet" } else { "" };
            return format!("{then}There is no generation of {}{yet}.\n{strays}{beats}", self.site);
        }
        let mut text = then;
        text += &format!("{:21}  {:16}  {:10}  {:>10}\n", "GENERATION", "AS OF", "GRADE", "CONTENT");
        for generation in &self.generations {
            let cut = generation.cut.map(show::minute).unwrap_or_default();
            let grade = generation.grade.map_or("", show::grade_word);
            let content = generation.content_bytes.map(|bytes| Size(bytes).to_string()).unwrap_or_default();
            let label = generation.label.as_ref().map(|label| format!("  \"{label}\"")).unwrap_or_default();
            text.push_str(&format!("{:21}  {cut:16}  {grade:10}  {content:>10}{label}\n", generation.id));
            for copy in &generation.places {
                text.push_str(&show::wrapped(&format!("    {:10} ", copy.place), &copy.text()));
            }
        }
        for generation in &self.generations {
            for copy in &generation.places {
                if let Some(why) = &copy.refused {
                    text.push_str(&format!("\nREFUSED: {} in {}: {why}\n", generation.id, copy.place));
                    if self.as_of.is_some() {
                        text.push_str(&format!("What to do: {EARLIER}\n"));
                    }
                }
                if let Some(why) = &copy.unreadable {
                    text.push_str(&format!(
                        "\nUNREADABLE: {} in {}: {why}\nIt is kept; look at the disk or the rights there.\n",
                        generation.id, copy.place
                    ));
                }
            }
        }
        text += &self.newest();
        for beat in &self.heartbeats {
            text.push_str(&beat.text());
        }
        for stray in &self.misplaced {
            text.push_str(&format!("\nNOTHING of this site was found in a store: {stray}\n"));
        }
        for store in &self.away {
            text.push_str(&format!("\nNo disk of {store} is connected.\n"));
        }
        if !self.signatures_checked {
            text.push_str(
                "\nThe signatures were not checked: this machine has no signing key. Put the site key from the recovery\n\
                 sheet into the configuration: [signing] public_key = \"RW…\"\n",
            );
        }
        text
    }

    /// What there is to fall back on: beyond this machine, and where nothing is or only something older, on it.
    fn newest(&self) -> String {
        let newest = |is_there: fn(&Copy) -> bool| {
            let mut whole = self
                .generations
                .iter()
                .filter(|generation| generation.grade.is_some_and(|grade| grade >= Grade::Sequential));
            whole.rfind(|generation| generation.places.iter().any(is_there))
        };
        let places = |generation: &Generation, is_there: fn(&Copy) -> bool| {
            let places = generation.places.iter().filter(|copy| is_there(copy)).map(|copy| copy.place.as_str());
            places.collect::<Vec<_>>().join(", ")
        };
        let (stored, away) = (newest(Copy::is_safe), newest(Copy::is_away));
        let mut text = match away {
            Some(away) => {
                let places = places(away, Copy::is_away);
                format!("\nThe newest that is whole and in no folder of this machine: {}, in {places}\n", away.id)
            }
            None => String::new(),
        };
        if let Some(stored) = stored.filter(|stored| away.is_none_or(|away| away.id != stored.id)) {
            let place = places(stored, Copy::is_safe);
            text += &format!(
                "\nThe newest that is whole in a store: {}, in {place}, on this machine as far as is known\n",
                stored.id
            );
            // Of what lies on disks that are not connected, it may not be known how whole it is.
            let mut copies = self.generations.iter().flat_map(|generation| &generation.places);
            if !copies.any(Copy::is_away) {
                text += "Nothing is anywhere else: what destroys this machine destroys that too.\n";
            }
        }
        text
    }
}

impl Retention {
    fn text(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        let what = if self.expires { "EXPIRES with the next prune".to_owned() } else { reasons.join(", ") };
        match self.end {
            End::NotBefore(at) => format!("{what}; goes on {} at the earliest", show::day(at)),
            End::Now | End::Never => what,
        }
    }
}

impl Copy {
    /// Whether it is in a store, and genuine.
    fn is_safe(&self) -> bool {
        self.place != LOCAL && self.refused.is_none() && self.unreadable.is_none()
    }

    /// The same, and in no folder of this machine.
    fn is_away(&self) -> bool {
        self.is_safe() && !self.on_this_machine
    }

    fn text(&self) -> String {
        if let Some(at) = self.last_seen {
            return format!("not connected, last seen {}", show::day(at));
        }
        let kind = match (self.refused.is_some(), self.class, self.full) {
            (true, ..) => "REFUSED",
            _ if self.unreadable.is_some() => "UNREADABLE",
            (_, Some(Class::Archival), _) => "archival",
            (_, _, Some(true)) => "full",
            (_, _, Some(false)) => "incremental",
            (_, _, None) => "",
        };
        let bytes = self.added_bytes.map(|bytes| format!(", {} added", Size(bytes))).unwrap_or_default();
        let kept = self.retention.as_ref().map(Retention::text).unwrap_or_default();
        let between = if kind.is_empty() || kept.is_empty() { "" } else { ": " };
        format!("{kind}{bytes}{between}{kept}")
    }
}
