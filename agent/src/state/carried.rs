//! A full that is made in the store: packs of the chain before it go over to the new chain, with all that is known of them.
//!
//! Nothing is known twice: when a chain is closed, what lies in it is forgotten, so its packs change hands in the same fact.
//! They keep their positions, and so do the patches that refer to them.

use super::journal::{self, forget_content};
use super::{ChainRecord, Delivery, NewDelivery, State, StateError};
use crate::format::names::PackName;

/// A pack of an earlier chain that a new one takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedPack {
    /// Its number in this database.
    pub id: i64,
    /// The name of its copy.
    pub name: PackName,
    /// The key of what is copied.
    pub source: String,
}

/// A copy that is still to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOrder {
    /// The pack that is taken over.
    pub pack: CarriedPack,
    /// Size of the object.
    pub sealed: u64,
}

impl State {
    /// Begins a delivery into a new chain that takes `packs` over from the chain `from`, which is closed. Their copies are
    /// still to be made.
    pub fn begin_carried(
        &mut self,
        new: &NewDelivery<'_>,
        from: &ChainRecord,
        packs: &[CarriedPack],
    ) -> Result<Delivery, StateError> {
        self.change("a run was begun", |t| {
            let (chain, delivery) = journal::insert(t, new)?;
            let mut take = t.prepare(
                "UPDATE pack SET chain = ?2, delivery = ?3, name = ?4, source = ?5, stored = 0 WHERE id = ?1",
            )?;
            for pack in packs {
                take.execute((pack.id, chain, delivery, pack.name.to_string(), &pack.source))?;
            }
            t.execute("UPDATE chunk SET chain = ?2 WHERE chain = ?1", (from.id, chain))?;
            t.execute(
                "UPDATE chain SET content_bytes = ?2, full_bytes = ?3, origin = ?4 WHERE id = ?1",
                (chain, from.content_bytes, from.full_bytes, from.origin.as_str()),
            )?;
            t.execute("UPDATE chain SET closed = 1 WHERE id = ?1", [from.id])?;
            forget_content(t, from.id)?;
            forget_lost(t, chain)?;
            journal::read(t, delivery)
        })
    }

    /// The copies that are still to be made for a delivery.
    pub fn copies_to_make(&self, delivery: &Delivery) -> Result<Vec<CopyOrder>, StateError> {
        let sql = "SELECT id, name, source, sealed FROM pack
                   WHERE delivery = ?1 AND source IS NOT NULL AND stored = 0 ORDER BY name";
        self.during("the packs to be copied were read", |c| {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([delivery.id], |row| {
                let name = super::records::parsed(row, 1)?;
                let pack = CarriedPack { id: row.get(0)?, name, source: row.get(2)? };
                Ok(CopyOrder { pack, sealed: row.get(3)? })
            })?;
            rows.collect()
        })
    }

    /// Packs could not be copied: the chain is made without them. With `plain`, no copy at all is in the store, and the full
    /// becomes one like any other. Answers with the delivery as it is now.
    pub fn not_carried(&mut self, delivery: &Delivery, packs: &[i64], plain: bool) -> Result<Delivery, StateError> {
        let chain = delivery.chain.id;
        self.change("packs that are not carried were recorded", |t| {
            for pack in packs {
                t.execute("DELETE FROM patch WHERE pack = ?1", [pack])?;
                t.execute("DELETE FROM pack WHERE id = ?1", [pack])?;
            }
            forget_lost(t, chain)?;
            if plain {
                let sql = "UPDATE chain SET content_bytes = 0, full_bytes = 0, origin = NULL WHERE id = ?1";
                t.execute(sql, [chain])?;
            }
            journal::read(t, delivery.id)
        })
    }
}

/// Forgets the chunks of a chain whose content is in none of its packs: neither as it is nor in what a patch gives whose
/// reference is there.
fn forget_lost(t: &rusqlite::Transaction<'_>, chain: i64) -> rusqlite::Result<()> {
    let mut packs = t.prepare(
        "SELECT at, at + content FROM pack WHERE chain = ?1 AND name NOT LIKE '%.patch.age' AND content > 0 ORDER BY at",
    )?;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for pack in packs.query_map([chain], |row| Ok((row.get(0)?, row.get(1)?)))? {
        let (from, to): (u64, u64) = pack?;
        match runs.last_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => runs.push((from, to)),
        }
    }
    let is_there = |from: u64, bytes: u64| {
        let run = runs.get(runs.partition_point(|(_, to)| *to <= from));
        run.is_some_and(|(start, to)| *start <= from && bytes <= to - from)
    };
    let mut chunks = t.prepare(
        "SELECT hash, chunk.at, chunk.patch IS NULL, reference, reference_bytes
         FROM chunk LEFT JOIN patch ON patch.id = chunk.patch WHERE chunk.chain = ?1",
    )?;
    let mut lost: Vec<[u8; 32]> = Vec::new();
    let mut rows = chunks.query([chain])?;
    while let Some(row) = rows.next()? {
        let kept = match (row.get(2)?, row.get(3)?, row.get(4)?) {
            (true, _, _) => is_there(row.get(1)?, 1),
            (false, Some(reference), Some(bytes)) => is_there(reference, bytes),
            // Its patch pack is gone, and the patch with it.
            (false, _, _) => false,
        };
        if !kept {
            lost.push(row.get(0)?);
        }
    }
    let mut forget = t.prepare("DELETE FROM chunk WHERE chain = ?1 AND hash = ?2")?;
    for hash in &lost {
        forget.execute((chain, hash))?;
    }
    Ok(())
}
