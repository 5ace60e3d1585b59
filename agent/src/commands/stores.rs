//! Opening the configured stores, and of a rotation the disk that is connected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use providers::{Access, Mark, ObjectStore, Policy, Rate, Seen, StoreSettings, Verdict};
use tokio::runtime::Runtime;

use super::output::Problems;
use super::{key, prune, show};
use crate::calendar::Calendar;
use crate::clock;
use crate::config::{Place, Problem, StoreConfig};
use crate::disks::{self, DiskError, Known, Rotation};
use crate::failure::{self, Failure, Kind};
use crate::ids::StoreName;
use crate::probed;
use crate::sign::SitePublicKey;
use crate::state::{DiskRecord, State, StateError};
use crate::upload::Inserted;

/// A configured store, open.
pub(super) struct OpenStore<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) store: Arc<dyn ObjectStore>,
    /// What it was seen to do, if it was probed.
    pub(super) verdict: Option<Verdict>,
    /// The disk that is connected, if it is a store of disks in rotation.
    pub(super) disk: Option<OpenDisk>,
}

/// A disk of a rotation, open.
pub(super) struct OpenDisk {
    pub(super) inserted: Inserted,
    /// What this machine remembers of it by.
    place: StoreName,
    /// Set if the last generation lies on it.
    same: Option<DiskError>,
}

/// A configured store that could not be opened.
pub(super) struct ClosedStore<'a> {
    pub(super) config: &'a StoreConfig,
    why: Why,
}

enum Why {
    /// A secret cannot be had.
    Problems(Vec<Problem>),
    /// The disk of a rotation that is wanted is not there.
    Disk(Box<DiskError>),
}

/// The stores that could be opened, and the others.
type Opened<'a> = (Vec<OpenStore<'a>>, Vec<ClosedStore<'a>>);

/// Opens every store; one that cannot be opened is an error. No request is made yet.
pub(super) fn open_all<'a>(place: &'a Place, access: Access, policy: &Policy) -> Result<Vec<OpenStore<'a>>, Failure> {
    let (stores, closed) = open(place, None, access, policy)?;
    if closed.is_empty() { Ok(stores) } else { Err(not_opened(closed)) }
}

/// Opens every store for a run: what cannot be opened is an error, but for rotations of which no disk is there that can be
/// written to. The disk that the last generation lies on can be only if `same_disk` says so.
pub(super) fn open_for_writing(place: &Place, same_disk: bool) -> Result<Opened<'_>, Failure> {
    let (stores, closed) = open(place, None, Access::Agent, &Policy::default())?;
    let (mut missing, closed): (Vec<_>, Vec<_>) =
        closed.into_iter().partition(|store| matches!(store.why, Why::Disk(_)));
    if !closed.is_empty() {
        return Err(not_opened(closed));
    }
    let mut writable = Vec::new();
    for mut store in stores {
        match store.disk.as_mut().and_then(|disk| disk.same.take()) {
            Some(same) if !same_disk => missing.push(ClosedStore { config: store.config, why: Why::Disk(same.into()) }),
            _ => writable.push(store),
        }
    }
    Ok((writable, missing))
}

/// Opens every store, or the one that is called `only`, as far as they can be opened. No request is made yet.
pub(super) fn open<'a>(
    place: &'a Place,
    only: Option<&StoreName>,
    access: Access,
    policy: &Policy,
) -> Result<Opened<'a>, Failure> {
    let memory = Memory::of(place)?;
    let open = |config: &'a StoreConfig| {
        let (known, disk) = match memory.disk(place, config) {
            None => (None, None),
            Some(Ok((known, disk))) => (Some(known), Some(disk)),
            Some(Err(error)) => return Err(ClosedStore { config, why: Why::Disk(error.into()) }),
        };
        open_one(config, (known, disk), &place.calendar, &place.state, access, policy)
    };
    Ok(divide(wanted(&place.stores, only)?.into_iter().map(open)))
}

/// The stores of a keeper with this state folder, as far as they can be opened. No request is made yet.
pub(super) fn open_for_keeper<'a>(
    stores: &'a [StoreConfig],
    calendar: &Calendar,
    state: &Path,
    access: Access,
    policy: &Policy,
) -> Opened<'a> {
    divide(stores.iter().map(|config| open_one(config, (None, None), calendar, state, access, policy)))
}

fn divide<'a>(opened: impl Iterator<Item = Result<OpenStore<'a>, ClosedStore<'a>>>) -> Opened<'a> {
    let (mut stores, mut closed) = (Vec::new(), Vec::new());
    for store in opened {
        match store {
            Ok(store) => stores.push(store),
            Err(store) => closed.push(store),
        }
    }
    (stores, closed)
}

fn wanted<'a>(stores: &'a [StoreConfig], only: Option<&StoreName>) -> Result<Vec<&'a StoreConfig>, Failure> {
    let wanted: Vec<_> = stores.iter().filter(|store| only.is_none_or(|only| *only == store.name)).collect();
    if let (Some(name), true) = (only, wanted.is_empty()) {
        let names: Vec<&str> = stores.iter().map(|store| store.name.as_str()).collect();
        return Err(Failure::new(Kind::Usage, format!("there is no store called {name}"))
            .hint(format!("the configuration has: {}", names.join(", "))));
    }
    Ok(wanted)
}

/// That these stores cannot be opened is a failure.
pub(super) fn not_opened(closed: Vec<ClosedStore<'_>>) -> Failure {
    let names: Vec<&str> = closed.iter().map(|store| store.config.name.as_str()).collect();
    let what = format!("{} cannot be opened", names.join(", "));
    let kind = if closed.iter().all(|store| store.kind() == Kind::Store) { Kind::Store } else { Kind::Usage };
    let problems = closed.into_iter().flat_map(ClosedStore::into_problems).collect();
    Failure::new(kind, Problems { what, problems })
}

impl OpenStore<'_> {
    /// What this machine remembers of it by: its name, or that of the disk that is connected.
    pub(super) fn place(&self) -> &StoreName {
        self.disk.as_ref().map_or(&self.config.name, |disk| &disk.place)
    }

    /// The store for people: `usb`, or `usb (mon)` if that disk of a rotation is connected.
    pub(super) fn shown(&self) -> String {
        match &self.disk {
            None => self.config.name.to_string(),
            Some(disk) => show::disk(&self.config.name, &disk.inserted.slot),
        }
    }
}

impl OpenDisk {
    /// Why a run would not write to it, if the last generation lies on it.
    pub(super) fn same(&self) -> Option<&DiskError> {
        self.same.as_ref()
    }
}

impl ClosedStore<'_> {
    /// Why, one by one.
    pub(super) fn messages(&self) -> Vec<String> {
        match &self.why {
            Why::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
            Why::Disk(error) => failure::chain(error.as_ref()),
        }
    }

    /// Whether the configuration is wrong, or only the disk.
    pub(super) fn kind(&self) -> Kind {
        match self.why {
            Why::Problems(_) => Kind::Usage,
            Why::Disk(_) => Kind::Store,
        }
    }

    /// The disk that is missing, if one is.
    pub(super) fn disk(&self) -> Option<&DiskError> {
        match &self.why {
            Why::Problems(_) => None,
            Why::Disk(error) => Some(error),
        }
    }

    fn into_problems(self) -> Vec<Problem> {
        match self.why {
            Why::Problems(problems) => problems,
            Why::Disk(error) => vec![disk_problem(self.config, &error)],
        }
    }
}

/// What is wrong with the disk of a rotation, as a problem of the store's settings.
pub(super) fn disk_problem(config: &StoreConfig, error: &DiskError) -> Problem {
    Problem { key: config.key("slots"), line: None, what: failure::one_line(error) }
}

/// What this machine knows of disks in rotation.
pub(super) struct Memory {
    key: Option<SitePublicKey>,
    seen: BTreeMap<StoreName, Vec<DiskRecord>>,
}

impl Memory {
    /// Reads it, if there is a rotation at all.
    pub(super) fn of(place: &Place) -> Result<Self, Failure> {
        let mut memory = Self { key: None, seen: BTreeMap::new() };
        if place.stores.iter().all(|store| store.slots().is_empty()) {
            return Ok(memory);
        }
        memory.key = key::public_key(place).map_err(|error| Failure::new(Kind::Failed, error))?;
        if let Some(state) = prune::state(place)? {
            for store in place.stores.iter().filter(|store| !store.slots().is_empty()) {
                let disks = state.disks(&store.name).map_err(|error| Failure::new(Kind::Failed, error))?;
                memory.seen.insert(store.name.clone(), disks);
            }
        }
        Ok(memory)
    }

    /// The disks that this machine knows of a store; the one last written to comes first.
    pub(super) fn seen(&self, store: &StoreConfig) -> &[DiskRecord] {
        self.seen.get(&store.name).map_or(&[], Vec::as_slice)
    }

    /// The rotation of a store, if it is one.
    pub(super) fn rotation<'a>(&'a self, place: &'a Place, store: &'a StoreConfig) -> Option<Rotation<'a>> {
        let path = store.directory().filter(|_| !store.slots().is_empty())?;
        let (site, key, seen) = (&place.site, self.key.as_ref(), self.seen(store));
        Some(Rotation { site, store: &store.name, path, slots: store.slots(), key, seen })
    }

    /// The disk of a rotation that is connected; nothing if the store is none.
    fn disk(&self, place: &Place, store: &StoreConfig) -> Option<Result<(Known, OpenDisk), DiskError>> {
        let rotation = self.rotation(place, store)?;
        let open = |known: Known| {
            let slot = known.disk.slot.clone();
            let inserted = Inserted { store: store.name.clone(), bring: rotation.bring(Some(&slot)), slot };
            let disk = OpenDisk { inserted, place: known.place.clone(), same: rotation.same(&known) };
            (known, disk)
        };
        Some(rotation.recognize().map(open))
    }
}

/// The policy with what this store may be sent at which time of the day.
fn paced(config: &StoreConfig, calendar: &Calendar, policy: &Policy) -> Policy {
    let (table, zone) = (config.rate.clone(), calendar.zone().clone());
    let rate = if table.is_empty() {
        policy.rate.clone()
    } else {
        Rate::new(move || table.at(zone.to_datetime(clock::now()).time()))
    };
    Policy { rate, ..policy.clone() }
}

fn open_one<'a>(
    config: &'a StoreConfig,
    (known, disk): (Option<Known>, Option<OpenDisk>),
    calendar: &Calendar,
    state: &Path,
    access: Access,
    policy: &Policy,
) -> Result<OpenStore<'a>, ClosedStore<'a>> {
    let place = disk.as_ref().map_or(&config.name, |disk| &disk.place);
    let verdict = probed::read(state, place, &config.to_string());
    let seen = verdict.as_ref().map_or_else(Seen::default, Verdict::seen);
    let closed = |problems| ClosedStore { config, why: Why::Problems(problems) };
    let mut settings = config.settings().map_err(closed)?;
    if let (Some(known), StoreSettings::Directory(directory)) = (known, &mut settings) {
        directory.mark = Some(Mark { file: disks::FILE.to_owned(), content: known.text });
    }
    let opened = providers::open_as_seen(&settings, access, &paced(config, calendar, policy), seen);
    let wrong = |error| vec![Problem { key: config.key("type"), line: None, what: failure::one_line(&error) }];
    opened.map(|store| OpenStore { config, store, verdict, disk }).map_err(wrong).map_err(closed)
}

/// Every place that this machine may remember something of, and how it is shown to people: each store, and of a rotation each
/// disk that was ever written to.
pub(super) fn remembered_places(place: &Place, state: Option<&State>) -> Result<Vec<(StoreName, String)>, StateError> {
    let mut places = Vec::new();
    for store in &place.stores {
        if store.slots().is_empty() {
            places.push((store.name.clone(), store.name.to_string()));
        } else if let Some(state) = state {
            let disks = state.disks(&store.name)?;
            places.extend(disks.into_iter().map(|disk| (disk.place, show::disk(&store.name, &disk.slot))));
        }
    }
    Ok(places)
}

/// What the network runs on.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Failed, error))
}
