//! Which objects are read again today, so that all of them are within a round; and the memory of when each was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use providers::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::format::Sha256;
use crate::ids::SiteName;

/// An object, as it is chosen by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Its size.
    pub(super) bytes: u64,
    /// The day on which it was last read; else, on which it was written.
    pub(super) day: i64,
    /// It was not as it should be when it was last read.
    pub(super) bad: bool,
}

/// What is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Today, in days since 1970.
    pub(super) today: i64,
    /// Days since objects were last chosen.
    pub(super) elapsed: i64,
    /// Days in which everything is read once.
    pub(super) days: i64,
    /// Bytes that may be read.
    pub(super) budget: u64,
}

/// The objects to read, by their place in `items`: what was bad, what is due, and of the rest what was not read for longest,
/// until today's share of all bytes is reached. What does not fit into the budget waits.
pub(super) fn choose(items: &[Item], round: &Round) -> Vec<usize> {
    let total: u128 = items.iter().map(|item| u128::from(item.bytes)).sum();
    let share =
        total * round.elapsed.clamp(1, round.days).unsigned_abs() as u128 / round.days.max(1).unsigned_abs() as u128;
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|at| items.get(*at).map(|item| (!item.bad, item.day)));
    let (mut chosen, mut taken) = (Vec::new(), 0_u64);
    for (at, item) in order.into_iter().filter_map(|at| Some((at, items.get(at)?))) {
        let due = item.bad || round.today - item.day >= round.days - 1;
        if !due && u128::from(taken) >= share {
            break;
        }
        if item.bytes <= round.budget - taken {
            taken += item.bytes;
            chosen.push(at);
        }
    }
    chosen
}

/// Why what a keeper remembers of a site is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// It is there and cannot be read.
    #[error(
        "what is remembered of this site, {}, cannot be read, so nothing was looked at or removed; put the file back from a \
         copy. Where there is none, see by `offsite list` on the site's machine that its newest generation is in the store, \
         and remove the file: everything is then read again",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("what was read cannot be remembered in {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What a keeper remembers of one site. Without it, everything counts as read on the day that it was written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The day of the last run.
    pub(super) run: Option<i64>,
    /// The day on which each object was last read and found whole, by its [`id`](Self::id).
    pub(super) read: BTreeMap<Sha256, i64>,
    /// Objects that were not as they should be, by the same.
    pub(super) bad: BTreeSet<Sha256>,
    /// The highest number that a genuine generation ever had: what is hidden together with the heartbeat that names it is
    /// missed all the same.
    #[serde(default)]
    pub(super) newest: u64,
}

impl Ledger {
    /// What an object is remembered by: not its own digest, for a pack that the store copied into another chain has the same,
    /// and is read for itself.
    pub(super) fn id(key: &ObjectKey) -> Sha256 {
        Sha256::of(key.as_str().as_bytes())
    }

    /// The memory of `site` in `folder`; an empty one if there never was any. One that cannot be read is an error: it may be
    /// all that tells of a generation that is hidden.
    pub(super) fn load(folder: &Path, site: &SiteName) -> Result<Self, LedgerError> {
        let path = Self::path(folder, site);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from)),
        };
        read.map_err(|source| LedgerError::Read { path, source })
    }

    /// Writes it, without what is no longer there.
    pub(super) fn save(&mut self, folder: &Path, site: &SiteName, there: &BTreeSet<Sha256>) -> Result<(), LedgerError> {
        self.read.retain(|sha256, _| there.contains(sha256));
        self.bad.retain(|sha256| there.contains(sha256));
        let path = Self::path(folder, site);
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        text.and_then(|text| {
            durable::create_folder(folder)?;
            durable::write(&path, &text)
        })
        .map_err(|source| LedgerError::Write { path, source })
    }

    fn path(folder: &Path, site: &SiteName) -> PathBuf {
        folder.join(format!("{site}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A year of nights in which packs come and go: whatever happens, none waits longer than a round, and a night reads
    /// little more than its share.
    #[test]
    fn everything_is_read_within_a_round() {
        let days = 30;
        let mut items: Vec<Item> = Vec::new();
        for today in 0..365 {
            if today % 7 == 0 {
                items.extend((0..40).map(|n| Item { bytes: 1000 + n, day: today, bad: false }));
            }
            items.push(Item { bytes: 50, day: today, bad: false });
            let excess = items.len().saturating_sub(300);
            items.drain(..excess);
            let round = Round { today, elapsed: 1, days, budget: u64::MAX };
            let total: u64 = items.iter().map(|item| item.bytes).sum();
            let mut read = 0;
            for at in choose(&items, &round) {
                read += items[at].bytes;
                items[at].day = today;
            }
            assert!(items.iter().all(|item| today - item.day < days), "day {today}");
            assert!(read <= total / 3 + 2000, "day {today}: {read} of {total}");
        }
    }

    #[test]
    fn the_budget_is_kept_and_what_was_bad_comes_first() {
        let items = [(500, 0, false), (400, 3, false), (300, 9, true), (900, 1, false)];
        let items = items.map(|(bytes, day, bad)| Item { bytes, day, bad });
        let round = Round { today: 100, elapsed: 1, days: 30, budget: 1000 };
        assert_eq!(choose(&items, &round), [2, 0]);
        assert!(choose(&items, &Round { budget: 0, ..round }).is_empty());
        assert_eq!(choose(&items, &Round { today: 10, budget: 10_000, ..round }), [2]);
        assert!(choose(&[], &round).is_empty());
    }

    #[test]
    fn a_damaged_memory_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let site: SiteName = "townhall".parse().unwrap();
        let (one, other) = (Sha256::of(b"1"), Sha256::of(b"2"));
        let mut ledger = Ledger { run: Some(7), ..Ledger::default() };
        ledger.read.insert(one, 5);
        ledger.read.insert(other, 6);
        ledger.save(folder.path(), &site, &[one].into()).unwrap();
        let loaded = Ledger::load(folder.path(), &site).unwrap();
        assert_eq!((loaded.run, loaded.read), (Some(7), [(one, 5)].into()));
        fs::write(Ledger::path(folder.path(), &site), "{").unwrap();
        assert!(matches!(Ledger::load(folder.path(), &site), Err(LedgerError::Read { .. })));
        fs::remove_file(Ledger::path(folder.path(), &site)).unwrap();
        assert_eq!(Ledger::load(folder.path(), &site).unwrap().run, None);
    }
}
