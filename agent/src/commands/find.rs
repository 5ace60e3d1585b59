//! Finding generations: what each store has, what this machine has, and which one is meant.

use std::sync::Arc;

use std::collections::BTreeSet;

use providers::{Access, ObjectStore, Policy};
use tokio::runtime::Runtime;

use super::output::say;
use super::stores::{self, ClosedStore, OpenStore};
use super::{key, prune, show};
use crate::catalog::{self, CatalogError, Misplaced, Pulse, Stored, Trust};
use crate::cli::{AsOf, Which};
use crate::config::{Place, StoreConfig};
use crate::failure::{self, Failure, Kind};
use crate::format::commit::Commit;
use crate::format::names;
use crate::ids::{GenerationId, SiteName, StoreName};
use crate::sign::SitePublicKey;
use crate::staging::{self, LocalGeneration};

/// The stores that are looked at, and what was found in each.
pub(super) struct Stores<'a> {
    pub(super) runtime: Runtime,
    pub(super) key: Option<SitePublicKey>,
    pub(super) read: Vec<(OpenStore<'a>, Result<Vec<Stored>, CatalogError>)>,
    /// Those that could not even be opened.
    pub(super) closed: Vec<ClosedStore<'a>>,
    /// What the heartbeat of each says, in the same order.
    pulses: Vec<Pulse>,
    /// They are shown as they were at an earlier time.
    past: bool,
}

/// What lies in stores that hold nothing of the site.
#[derive(Default)]
pub(super) struct Strays {
    /// Other sites.
    pub(super) sites: BTreeSet<SiteName>,
    /// A sentence for each store whose place is not the one that is meant.
    pub(super) misplaced: Vec<String>,
}

/// What to do if what a store showed at a time is not what was signed.
pub(super) const EARLIER: &str = "what the store had at that time is not what was signed, so it may be that somebody had put something \
                                  else over it before; try an earlier time: `--as-of`";

impl<'a> Stores<'a> {
    /// Opens the stores and reads their catalogs, all at once.
    pub(super) fn read(place: &'a Place, only: Option<&StoreName>) -> Result<Self, Failure> {
        Self::read_as_of(place, only, None)
    }

    /// As [`Stores::read`], of the stores as they were at a time.
    pub(super) fn read_as_of(place: &'a Place, only: Option<&StoreName>, as_of: Option<AsOf>) -> Result<Self, Failure> {
        let key = key::public_key(place).map_err(|error| Failure::new(Kind::Failed, error))?;
        let (mut stores, closed) = stores::open(place, only, Access::Agent, &Policy::default())?;
        let runtime = stores::runtime()?;
        // Looked up before the stores are, so that what a run stores meanwhile is not missed. Without it, all is as on a
        // new machine.
        let state = prune::state(place).ok().flatten().filter(|_| as_of.is_none());
        let last = |store: &OpenStore<'_>| state.as_ref()?.remembered(store.place()).ok()?.pop_last();
        let known: Vec<_> = stores.iter().map(last).collect();
        let reads = stores.iter_mut().map(|store| read_one(&mut store.store, place, key.as_ref(), as_of));
        let (lists, pulses): (Vec<_>, Vec<_>) = runtime
            .block_on(futures_util::future::join_all(reads))
            .into_iter()
            .zip(known)
            .map(|(read, known)| match read {
                Ok((listed, pulse)) => {
                    let pulse = with_memory(pulse, &listed, known);
                    (Ok(listed), pulse)
                }
                Err(error) => (Err(error), Pulse::Fits),
            })
            .unzip();
        Ok(Self { runtime, key, read: stores.into_iter().zip(lists).collect(), closed, pulses, past: as_of.is_some() })
    }

    /// Says which stores could not be read; an error if none could.
    pub(super) fn complain(&mut self) -> Result<(), Failure> {
        if self.read.is_empty() {
            return Err(stores::not_opened(std::mem::take(&mut self.closed)));
        }
        for store in &self.closed {
            say(&format!("error: {} cannot be opened: {}", store.config.name, store.messages().join("; ")));
        }
        let failed = self.read.iter().filter_map(|(store, read)| Some((store, read.as_ref().err()?)));
        let failed: Vec<_> = failed.collect();
        for (store, error) in &failed {
            say(&format!("error: {} cannot be read: {}", store.shown(), failure::one_line(*error)));
        }
        match failed.first() {
            Some((store, error)) if failed.len() == self.read.len() => {
                let what = format!("no store can be read ({}: {})", store.shown(), failure::one_line(*error));
                Err(Failure::new(kind_of_catalog(error), what))
            }
            _ => Ok(()),
        }
    }

    /// What lies in the stores that hold nothing of this site: perhaps another one is meant, or another place.
    pub(super) fn elsewhere(&self, place: &Place) -> Strays {
        let empty = self.read.iter().filter(|(_, read)| read.as_ref().is_ok_and(Vec::is_empty));
        let looks = empty
            .map(|(store, _)| async { (store.config, catalog::elsewhere(store.store.as_ref(), &place.site).await) });
        let mut strays = Strays::default();
        for (store, found) in self.runtime.block_on(futures_util::future::join_all(looks)) {
            strays.sites.extend(found.sites);
            strays.misplaced.extend(found.misplaced.map(|misplaced| misplaced_store(store, &misplaced)));
        }
        strays
    }

    /// That nothing that is meant was found in these stores.
    pub(super) fn nothing(&self, place: &Place, which: &Which) -> Failure {
        let names = self.read.iter().map(|(store, _)| store.shown()).collect::<Vec<_>>().join(", ");
        let stored = self.read.iter().flat_map(|(_, read)| read.iter().flatten());
        let refused = stored.filter(|stored| stored.trust.complaint().is_some()).count();
        if refused > 0 && matches!(which, Which::Latest) {
            let what = format!("{refused} generations are in {names}, and none of them is known to be this site's");
            let failure = Failure::new(Kind::Verification, what)
                .hint("compare `[signing] public_key` with the recovery sheet, letter by letter")
                .hint("`offsite list` says why each of them is refused");
            return if self.past { failure.hint(EARLIER) } else { failure };
        }
        let mut failure = nothing(which, &names);
        if let Which::Id(id) = which
            && let Ok(Some(disk)) = self.disk_of(place, id)
        {
            failure = failure.hint(format!("it was last seen on the disk {disk}: connect that one"));
        }
        self.elsewhere(place).hints(&place.site).into_iter().fold(failure, Failure::hint)
    }

    /// The disk of a rotation that has the generation, as this machine remembers, and is not connected.
    fn disk_of(&self, place: &Place, id: &GenerationId) -> Result<Option<String>, Failure> {
        let failed = |error| Failure::new(Kind::Failed, error);
        let Some(state) = prune::state(place)? else { return Ok(None) };
        for (name, shown) in stores::remembered_places(place, Some(&state)).map_err(failed)? {
            let is_disk = place.stores.iter().all(|store| store.name != name);
            let connected = self.read.iter().any(|(store, _)| *store.place() == name);
            if is_disk && !connected && state.remembered(&name).map_err(failed)?.values().any(|known| known == id) {
                return Ok(Some(shown));
            }
        }
        Ok(None)
    }

    /// Why what is in a store cannot be all that this machine stored there, and which generation is missing.
    pub(super) fn lost(&self, store: &OpenStore<'_>) -> Option<(&GenerationId, String)> {
        let mut pulses = self.pulses().filter(|(of, _)| of.place() == store.place());
        let pulse = pulses.find_map(|(_, pulse)| Some(pulse).filter(|pulse| matches!(pulse, Pulse::Lost { .. })))?;
        Some((pulse.missing()?, pulse.complaint()?))
    }

    /// The stores whose heartbeat is not as it should be, and what it says.
    pub(super) fn pulses(&self) -> impl Iterator<Item = (&OpenStore<'a>, &Pulse)> {
        self.read.iter().map(|(store, _)| store).zip(&self.pulses).filter(|(_, pulse)| **pulse != Pulse::Fits)
    }

    /// The generation that is meant, and its store. What is left is not taken for the latest where that is gone.
    pub(super) fn choose(&self, place: &Place, which: &Which) -> Result<(&OpenStore<'a>, &Stored), Failure> {
        let (store, stored) = self.find(which).ok_or_else(|| self.nothing(place, which))?;
        match self.outdated(store, stored).filter(|_| *which == Which::Latest) {
            Some(failure) => Err(failure),
            None => Ok((store, stored)),
        }
    }

    /// That `newest`, which is the newest genuine generation of `store`, is not the newest that there was.
    fn outdated(&self, store: &OpenStore<'_>, newest: &Stored) -> Option<Failure> {
        let instead = format!("the newest one that can be read: `offsite restore {}`", newest.generation);
        let unreadable = self.read.iter().flat_map(|(store, read)| read.iter().flatten().map(move |one| (store, one)));
        let mut unreadable = unreadable.filter(|(_, one)| one.generation > newest.generation);
        if let Some((store, one, why)) = unreadable.find_map(|(store, one)| match &one.trust {
            Trust::Unreadable(why) => Some((store, one, why)),
            _ => None,
        }) {
            let what =
                format!("a newer generation, {}, is in {} and cannot be read", one.generation, store.config.name);
            return Some(Failure::new(Kind::Store, what).hint(why.clone()).hint(instead));
        }
        let there = |id: &GenerationId| {
            let mut all = self.read.iter().flat_map(|(_, read)| read.iter().flatten());
            all.any(|stored| stored.generation == *id && !matches!(stored.trust, Trust::Refused(_)))
        };
        let (named_in, pulse) = self.pulses().find(|(named_in, pulse)| {
            let missing = pulse.missing().filter(|missing| !there(missing));
            missing.is_some_and(|missing| named_in.config.name == store.config.name || *missing > newest.generation)
        })?;
        let what = match pulse {
            Pulse::Lost { .. } => format!("the newest generation is gone from {}", named_in.config.name),
            _ => format!("the newest generation is gone: the heartbeat in {} does not fit", named_in.config.name),
        };
        let failure = Failure::new(Kind::Verification, what).hint(pulse.complaint().unwrap_or_default());
        Some(failure.hint(format!("the newest one left: `offsite restore {}`", newest.generation)))
    }

    /// The generation that is meant, in the first store that has it and where it is genuine; else where it is refused.
    pub(super) fn find(&self, which: &Which) -> Option<(&OpenStore<'a>, &Stored)> {
        let all = self.read.iter().flat_map(|(store, read)| read.iter().flatten().map(move |stored| (store, stored)));
        let refused = |stored: &Stored| stored.trust.complaint().is_some();
        match which {
            Which::Id(id) => {
                all.filter(|(_, stored)| stored.generation == *id).min_by_key(|(_, stored)| refused(stored))
            }
            // Of a store, what was stored last, whatever a clock that was wrong for a night says. Of equals, the first
            // store's: the last of equals is taken, so they are looked at from the end.
            Which::Latest => {
                let last = self.read.iter().rev().filter_map(|(store, read)| {
                    let genuine = read.iter().flatten().filter_map(|stored| Some((commit_of(stored)?, stored)));
                    let (commit, stored) = genuine.max_by_key(|(commit, _)| commit.sequence)?;
                    Some((commit.cut, store, stored))
                });
                last.max_by_key(|(cut, ..)| *cut).map(|(_, store, stored)| (store, stored))
            }
        }
    }
}

/// What the heartbeat says, or that what this machine knows to be the newest generation is not there.
fn with_memory(pulse: Pulse, listed: &[Stored], known: Option<(u64, GenerationId)>) -> Pulse {
    match known.filter(|(_, id)| listed.iter().all(|stored| stored.generation != *id)) {
        Some((sequence, generation)) if pulse.missing().is_none() => Pulse::Lost { generation, sequence },
        _ => pulse,
    }
}

/// What is in a store; `store` is from then on the store as it was at the time that is asked for.
async fn read_one(
    store: &mut Arc<dyn ObjectStore>,
    place: &Place,
    key: Option<&SitePublicKey>,
    as_of: Option<AsOf>,
) -> Result<(Vec<Stored>, Pulse), CatalogError> {
    if let Some(AsOf(at)) = as_of {
        *store = providers::as_of(Arc::clone(store), &names::site_prefix(&place.site)?, at).await?;
    }
    let listed = catalog::list(store.as_ref(), &place.site, key).await?;
    let pulse = match key {
        Some(key) => catalog::pulse(store.as_ref(), &place.site, key, &listed).await?,
        None => Pulse::Fits,
    };
    Ok((listed, pulse))
}

/// The generation that is meant, if this machine has it.
pub(super) fn local(place: &Place, which: &Which) -> Result<Option<LocalGeneration>, Failure> {
    if !place.staging.exists() {
        return Ok(None);
    }
    let mut generations =
        staging::generations(&place.staging).map_err(|error| Failure::new(Kind::Failed, error))?.into_iter();
    Ok(match which {
        Which::Latest => generations.next_back(),
        Which::Id(id) => generations.find(|generation| generation.id() == id),
    })
}

/// Nothing that is meant was found.
pub(super) fn nothing(which: &Which, place: &str) -> Failure {
    let what = match which {
        Which::Latest => format!("there is no generation in {place}"),
        Which::Id(id) => format!("there is no generation {id} in {place}"),
    };
    Failure::new(Kind::Failed, what).hint("`offsite list` shows which generations there are, and where")
}

/// That the place of a store is not the one that is meant, and what is.
fn misplaced_store(store: &StoreConfig, misplaced: &Misplaced) -> String {
    let (key, name) = (store.place_key(), &store.name);
    match misplaced {
        Misplaced::TooDeep(folders) => format!(
            "the `{key}` of the store {name} leads into the folder of a site; let it end {} earlier",
            show::counted(*folders as u64, "folder")
        ),
        Misplaced::TooHigh(folder) => format!(
            "the `{key}` of the store {name} ends too early: generations lie in its folder `{folder}`; add that to it"
        ),
    }
}

impl Strays {
    /// What to do about them, a sentence each.
    pub(super) fn hints(&self, site: &SiteName) -> Vec<String> {
        let names: Vec<&str> = self.sites.iter().map(SiteName::as_str).collect();
        let others = (!names.is_empty()).then(|| {
            format!(
                "there are generations of other sites: {}; is `site = \"{site}\"` in the configuration right?",
                names.join(", ")
            )
        });
        self.misplaced.iter().cloned().chain(others).collect()
    }
}

/// Whether the store failed, or this machine.
pub(super) fn kind_of_catalog(error: &CatalogError) -> Kind {
    match error {
        CatalogError::Store(error) => show::kind_of_store(error),
        _ => Kind::Store,
    }
}

fn commit_of(stored: &Stored) -> Option<&Commit> {
    match stored.trust {
        Trust::Refused(_) | Trust::Unreadable(_) => None,
        Trust::Signed | Trust::Unchecked => stored.commit.as_ref(),
    }
}
