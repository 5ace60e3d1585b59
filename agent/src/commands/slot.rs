//! `offsite slot`: disks in rotation. Shows which one is in and which comes next, or makes a new disk one of them.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::output::Output;
use super::stores::Memory;
use super::{Ended, load_place, show};
use crate::cli::SlotArgs;
use crate::clock;
use crate::config::{Place, StoreConfig};
use crate::disks::{self, Disk, DiskError, Rotation};
use crate::failure::{self, Failure, Kind};
use crate::ids::SlotName;
use crate::platform;
use crate::sign::SiteKey;

/// What is to be known of a rotation.
#[derive(Serialize)]
pub(super) struct RotationReport {
    store: String,
    /// The disk that is in.
    connected: Option<SlotName>,
    /// Why none is that could be written to.
    problem: Option<Vec<String>>,
    /// Whether the last generation lies on the disk that is in.
    holds_the_last: bool,
    /// The disk that comes next.
    bring: SlotName,
    disks: Vec<Written>,
    #[serde(skip)]
    is_away: bool,
}

/// A slot, and what was last written to it from this machine.
#[derive(Serialize)]
struct Written {
    slot: SlotName,
    generation: Option<String>,
    committed: Option<Timestamp>,
}

#[derive(Serialize)]
struct Rotations {
    rotations: Vec<RotationReport>,
}

#[derive(Serialize)]
struct Assigned {
    store: String,
    slot: SlotName,
    path: String,
    /// False if it was that slot already.
    new: bool,
}

pub(super) fn run(arguments: &SlotArgs, path: &Path, output: Output) -> Ended {
    let place = load_place(path)?;
    let memory = Memory::of(&place)?;
    let chosen = |store: &&StoreConfig| arguments.store.as_ref().is_none_or(|name| *name == store.name);
    let stores: Vec<&StoreConfig> =
        place.stores.iter().filter(|store| !store.slots().is_empty()).filter(chosen).collect();
    let Some(slot) = &arguments.slot else {
        if stores.is_empty() {
            return Err(no_rotation());
        }
        let rotations = stores.iter().filter_map(|store| RotationReport::of(&place, &memory, store)).collect();
        let report = Rotations { rotations };
        output.result(&report, || report.rotations.iter().map(RotationReport::text).collect())?;
        return Ok(0);
    };
    let store = match stores.as_slice() {
        [] => return Err(no_rotation()),
        [store] => *store,
        _ => {
            let names: Vec<&str> = stores.iter().map(|store| store.name.as_str()).collect();
            let what = format!("several stores have slots: {}", names.join(", "));
            return Err(Failure::new(Kind::Usage, what).hint("say which one is meant: `--store NAME`"));
        }
    };
    let Some(rotation) = memory.rotation(&place, store) else { return Err(no_rotation()) };
    let new = assign(&rotation, &place, slot, arguments.anyway)?;
    let folder = rotation.path.display().to_string();
    let assigned = Assigned { store: store.name.to_string(), slot: slot.clone(), path: folder, new };
    output.result(&assigned, || {
        let is = if new { "is now" } else { "was already" };
        format!("The disk at {} {is} {slot} of {}. Write that on it.\n", assigned.path, assigned.store)
    })?;
    Ok(0)
}

fn no_rotation() -> Failure {
    Failure::new(Kind::Usage, "no store of this configuration has slots")
        .hint("a store of type directory has them: slots = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\"]")
}

/// Makes the disk that is connected this slot; false if it was already.
fn assign(rotation: &Rotation<'_>, place: &Place, slot: &SlotName, anyway: bool) -> Result<bool, Failure> {
    let path = rotation.path.display();
    let refused = |what: String| {
        Err(Failure::new(Kind::Failed, what).hint("if it is meant all the same: the same command with --anyway"))
    };
    if !rotation.slots.contains(slot) {
        let names: Vec<&str> = rotation.slots.iter().map(SlotName::as_str).collect();
        let what = format!("{} has no slot {slot}; it has {}", rotation.store, names.join(", "));
        return Err(Failure::new(Kind::Usage, what));
    }
    match rotation.recognize() {
        Err(error @ (DiskError::Absent { .. } | DiskError::Unreadable { .. })) => {
            return Err(Failure::new(Kind::Store, error));
        }
        Ok(known) if known.disk.slot == *slot && !anyway => return Ok(false),
        _ if anyway => {}
        Ok(known) => {
            return refused(format!(
                "the disk at {path} is {} already: it would be another disk then",
                known.disk.slot
            ));
        }
        Err(DiskError::Unnamed { .. }) => {
            if seems_own(rotation.path, place) {
                return refused(format!(
                    "{path} is a folder on this machine's own disk: it seems that no disk is mounted there"
                ));
            }
            let failed = |error| Failure::new(Kind::Failed, error).hint(format!("see that {path} can be read"));
            let others = disks::others(rotation.path, rotation.site).map_err(failed)?;
            if !others.is_empty() {
                return refused(format!("the disk at {path} is not empty: it has {}", others.join(", ")));
            }
        }
        Err(error) => return refused(failure::one_line(&error)),
    }
    let key = SiteKey::load(&place.signing_key).map_err(|error| Failure::new(Kind::Failed, error))?;
    // After everything that is on other disks, also where the clock was set back: else one of those would have replaced it.
    let newest = rotation.seen.iter().filter_map(|seen| Some(seen.last.as_ref()?.committed)).max();
    let now = newest.map_or(clock::now(), |newest| clock::now().max(newest + SignedDuration::from_secs(1)));
    let disk = Disk::new(rotation.site, rotation.store, slot, now);
    disk.write(rotation.path, &key).map_err(|error| Failure::new(Kind::Store, error))?;
    Ok(true)
}

/// Whether the folder lies where this machine keeps its own.
fn seems_own(folder: &Path, place: &Place) -> bool {
    let disk = |path: &Path| platform::tree::path_stat(path).map(|stat| stat.dev).ok();
    let own = [Path::new("/"), place.state.as_path(), place.staging.as_path()];
    disk(folder).is_some_and(|disk_of| own.iter().any(|own| disk(own) == Some(disk_of)))
}

impl RotationReport {
    /// Nothing if the store has no slots.
    pub(super) fn of(place: &Place, memory: &Memory, store: &StoreConfig) -> Option<Self> {
        let rotation = memory.rotation(place, store)?;
        let known = rotation.recognize();
        let holds_the_last = known.as_ref().is_ok_and(|known| rotation.same(known).is_some());
        let written = |slot: &SlotName| {
            let last = memory.seen(store).iter().filter(|seen| seen.slot == *slot).find_map(|seen| seen.last.as_ref());
            Written {
                slot: slot.clone(),
                generation: last.map(|last| last.generation.to_string()),
                committed: last.map(|last| last.committed),
            }
        };
        Some(Self {
            store: store.name.to_string(),
            connected: known.as_ref().ok().map(|known| known.disk.slot.clone()),
            is_away: known.as_ref().is_err_and(DiskError::is_away),
            problem: known.as_ref().err().map(|error| failure::chain(error)),
            holds_the_last,
            bring: rotation.bring(None),
            disks: store.slots().iter().map(written).collect(),
        })
    }

    /// What somebody should do something about: a disk that should not be where it is.
    pub(super) fn attention(&self) -> Option<String> {
        let problem = self.problem.as_ref().filter(|_| !self.is_away)?;
        Some(format!("{}: {}", self.store, problem.join(": ")))
    }

    /// Which disk is in and which comes next, in one sentence.
    pub(super) fn sentence(&self) -> String {
        let Self { connected, bring, .. } = self;
        match connected {
            Some(slot) if self.holds_the_last => {
                format!("the disk {slot} is in, and the last generation lies on it: bring {bring} for the next run")
            }
            Some(slot) => format!("the disk {slot} is in, ready for the next run"),
            None if self.is_away => format!("no disk is in: bring {bring} for the next run"),
            None => format!("the disk that is in cannot be used: bring {bring} for the next run"),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.store, self.sentence());
        for disk in &self.disks {
            let last = match (&disk.generation, disk.committed) {
                (Some(generation), Some(at)) => format!("{generation}, written {}", show::time(at)),
                _ => "nothing written from this machine yet".to_owned(),
            };
            text.push_str(&format!("  {:20} {last}\n", disk.slot));
        }
        if let Some(problem) = &self.problem {
            text.push_str(&format!("  ! {}\n", problem.join(": ")));
        }
        text
    }
}
