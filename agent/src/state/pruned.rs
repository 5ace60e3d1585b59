//! What this machine remembers of generations that were stored, and of those that were pruned since.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::records::parsed;
use super::{State, StateError};
use crate::format::pruned::Ranges;
use crate::ids::{ChainId, GenerationId, StoreName};

impl State {
    /// The generations that this machine stored in `store`, by their sequence numbers, without those it knows to be pruned.
    pub fn remembered(&self, store: &StoreName) -> Result<BTreeMap<u64, GenerationId>, StateError> {
        let sql = "SELECT sequence, generation FROM delivery JOIN chain ON chain.id = delivery.chain
                   WHERE chain.store = ?1 AND phase = 'committed'";
        self.during("the stored generations were looked up", |c| {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([store.as_str()], |row| Ok((row.get(0)?, parsed(row, 1)?)))?;
            rows.collect()
        })
    }

    /// The archival generations that this machine stored in `store` since `since`, by its own clock.
    pub fn archival_since(&self, store: &StoreName, since: Timestamp) -> Result<Vec<ChainId>, StateError> {
        let sql = "SELECT generation, committed FROM delivery JOIN chain ON chain.id = delivery.chain
                   WHERE chain.store = ?1 AND class = 'archival' AND phase = 'committed'";
        let found: Vec<(ChainId, Timestamp)> = self.during("the archival generations were looked up", |c| {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([store.as_str()], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?;
            rows.collect()
        })?;
        Ok(found.into_iter().filter(|(_, committed)| *committed >= since).map(|(generation, _)| generation).collect())
    }

    /// Generations of `store` are no longer there: those with the numbers `sequences`. What was known of chains that are
    /// gone with them is forgotten.
    pub fn pruned(&mut self, store: &StoreName, sequences: &Ranges) -> Result<(), StateError> {
        let gone: Vec<u64> =
            self.remembered(store)?.into_keys().filter(|sequence| sequences.contains(*sequence)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.change("a prune was recorded", |t| {
            let mut mark = t.prepare(
                "UPDATE delivery SET phase = 'pruned' WHERE phase = 'committed' AND sequence = ?2
                   AND chain IN (SELECT id FROM chain WHERE store = ?1)",
            )?;
            for sequence in &gone {
                mark.execute((store.as_str(), *sequence))?;
            }
            let empty =
                "SELECT id FROM chain WHERE (closed = 1 OR class = 'archival') AND NOT EXISTS (SELECT 1 FROM delivery
                           WHERE delivery.chain = chain.id AND phase IN ('sealing', 'committing', 'committed'))";
            t.execute_batch(&format!(
                "DELETE FROM patch WHERE pack IN (SELECT id FROM pack WHERE chain IN ({empty}));
                 DELETE FROM chunk WHERE chain IN ({empty});
                 DELETE FROM pack WHERE chain IN ({empty});
                 DELETE FROM object WHERE delivery IN (SELECT id FROM delivery WHERE chain IN ({empty}));"
            ))
        })
    }
}
