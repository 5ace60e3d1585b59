//! What this machine remembers of the disks of a rotation: each is a place of its own, named `<store>.<slot>.<disk>`.

use super::records::parsed;
use super::{CommittedRecord, State, StateError};
use crate::ids::{SlotName, StoreName};

/// A disk that something was stored on, or was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRecord {
    /// Its name in the state: what the records of its chains and deliveries go by.
    pub place: StoreName,
    /// Its slot.
    pub slot: SlotName,
    /// The newest generation that was committed on it.
    pub last: Option<CommittedRecord>,
}

impl State {
    /// The disks of `store`; the one that a generation was begun on last comes first, if that was finished, and those on
    /// which none ever was come at the end.
    pub fn disks(&self, store: &StoreName) -> Result<Vec<DiskRecord>, StateError> {
        let sql = "SELECT chain.store, max(CASE WHEN phase IN ('committed', 'pruned') THEN delivery.id END) AS newest
                   FROM chain LEFT JOIN delivery ON delivery.chain = chain.id
                   WHERE substr(chain.store, 1, length(?1) + 1) = ?1 || '.'
                   GROUP BY chain.store ORDER BY newest DESC NULLS LAST";
        let places: Vec<StoreName> = self.during("the disks of a store were looked up", |c| {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([store.as_str()], |row| parsed(row, 0))?;
            rows.collect()
        })?;
        let mut disks = Vec::new();
        for place in places {
            let rest = place.as_str().strip_prefix(store.as_str()).and_then(|rest| rest.strip_prefix('.'));
            let slot = rest.and_then(|rest| rest.rsplit_once('.')?.0.parse().ok());
            if let Some(slot) = slot {
                let last = self.last_committed(&place)?;
                disks.push(DiskRecord { place, slot, last });
            }
        }
        Ok(disks)
    }
}
