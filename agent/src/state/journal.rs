//! The journal: what has been done of bringing one generation into one store (a *delivery*), fact by fact.
//!
//! Each function records one fact in one transaction, after the effect it speaks of is durable.

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;

use super::records::parsed;
use super::{ChainRecord, CommittedRecord, SealedPack, State, StateError, chunks, notes};
use crate::format::Sha256;
use crate::generation::{Class, Grade};
use crate::ids::{ChainId, GenerationId, StoreName};

/// One generation on its way into one store, or there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number in this database.
    pub id: i64,
    /// The chain it becomes part of.
    pub chain: ChainRecord,
    /// The generation.
    pub generation: GenerationId,
    /// Its number in the chain; 0 is the full.
    pub number: u32,
    /// How far it has come.
    pub phase: Phase,
}

impl Delivery {
    /// Whether it becomes a full that is its packs in order, with nothing of an earlier chain in it.
    pub fn is_plain_full(&self) -> bool {
        self.number == 0 && !self.chain.is_carried()
    }
}

/// How far a delivery that is under way has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Packs are being sealed and sent.
    Sealing,
    /// Everything is sealed, the documents included; sending goes on, the signature last.
    Committing,
}

/// What a delivery begins with.
#[derive(Clone, Debug)]
pub struct NewDelivery<'a> {
    /// The store.
    pub store: &'a StoreName,
    /// Rolling or archival.
    pub class: Class,
    /// The generation.
    pub generation: &'a GenerationId,
    /// The chain to go on with; a new one, named by the generation, if absent.
    pub chain: Option<&'a ChainRecord>,
    /// When it begins.
    pub now: Timestamp,
    /// What was found in the store before, that somebody has to look into.
    pub notes: &'a [String],
}

/// One of the documents that make a generation, sealed and in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitObject {
    /// Order in which they are sent.
    pub rank: u32,
    /// Its key in the store.
    pub key: String,
    /// Its file in the spool.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Whether the store has it.
    pub stored: bool,
}

const CHAIN: &str = "chain.id, chain.name, chain.class, chain.opened, chain.content_bytes, chain.full_bytes,
  coalesce(chain.origin, chain.name)";
const DELIVERY: &str = "delivery.id, delivery.generation, delivery.number, delivery.phase";

impl State {
    /// The delivery of `class` to `store` that was begun and neither committed nor abandoned.
    pub fn unfinished(&self, store: &StoreName) -> Result<Option<Delivery>, StateError> {
        let sql = format!(
            "SELECT {CHAIN}, {DELIVERY} FROM delivery JOIN chain ON chain.id = delivery.chain
             WHERE chain.store = ?1 AND phase IN ('sealing', 'committing') ORDER BY delivery.id LIMIT 1"
        );
        self.during("an unfinished run was looked for", |c| c.query_row(&sql, [store.as_str()], delivery_of).optional())
    }

    /// The rolling chain of `store` that is open: its full is committed and it was not closed.
    pub fn open_chain(&self, store: &StoreName) -> Result<Option<ChainRecord>, StateError> {
        let sql = format!(
            "SELECT {CHAIN} FROM chain WHERE store = ?1 AND class = 'rolling' AND closed = 0 AND EXISTS (
               SELECT 1 FROM delivery WHERE delivery.chain = chain.id AND number = 0 AND phase = 'committed')
             ORDER BY id DESC LIMIT 1"
        );
        self.during("the open chain was looked for", |c| c.query_row(&sql, [store.as_str()], chain_of).optional())
    }

    /// Begins a delivery: the fact from which everything else of it is resumed.
    pub fn begin(&mut self, new: &NewDelivery<'_>) -> Result<Delivery, StateError> {
        self.change("a run was begun", |t| {
            let (_, id) = insert(t, new)?;
            read(t, id)
        })
    }

    /// A pack is sealed and lies in the spool. Its chunks can be referred to from now on.
    pub fn pack_sealed(&mut self, delivery: &Delivery, pack: &SealedPack) -> Result<(), StateError> {
        let chain = delivery.chain.id;
        self.change("a sealed pack was recorded", |t| {
            t.execute(
                "INSERT INTO pack (id, chain, delivery, name, at, content, sealed, stored)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
                (pack.id, chain, delivery.id, pack.name.to_string(), pack.at, pack.content, pack.sealed),
            )?;
            chunks::insert(t, chain, pack.id, &pack.patches, &pack.chunks)?;
            if !pack.name.patches {
                let end = pack.at + pack.content;
                t.execute("UPDATE chain SET content_bytes = ?2 WHERE id = ?1", (chain, end))?;
            }
            Ok(())
        })
    }

    /// The store has a pack.
    pub fn pack_stored(&mut self, id: i64) -> Result<(), StateError> {
        self.change("a stored pack was recorded", |t| t.execute("UPDATE pack SET stored = 1 WHERE id = ?1", [id]))
            .map(|_| ())
    }

    /// Everything is sealed; the documents lie in the spool and are what will be sent, whatever happens.
    pub fn commit_prepared(
        &mut self,
        delivery: &Delivery,
        record: &CommittedRecord,
        objects: &[CommitObject],
    ) -> Result<(), StateError> {
        self.change("the commit was prepared", |t| {
            t.execute(
                "UPDATE delivery SET phase = 'committing', sequence = ?2, commit_sha256 = ?3, committed = ?4,
                   stream_bytes = ?5, added_bytes = ?6, grade = ?7 WHERE id = ?1",
                (
                    delivery.id,
                    record.sequence,
                    record.commit_sha256.to_string(),
                    record.committed.to_string(),
                    record.stream_bytes,
                    record.added_bytes,
                    grade_text(record.grade),
                ),
            )?;
            if delivery.is_plain_full() {
                let sql = "UPDATE chain SET full_bytes = ?2 WHERE id = ?1";
                t.execute(sql, (delivery.chain.id, record.stream_bytes))?;
            }
            let mut add = t.prepare(
                "INSERT INTO object (delivery, rank, key, file, bytes, sha256, stored) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
            )?;
            for object in objects {
                let sha256 = object.sha256.to_string();
                add.execute((delivery.id, object.rank, &object.key, &object.file, object.bytes, sha256))?;
            }
            Ok(())
        })
    }

    /// The documents of a delivery, in the order in which they are sent.
    pub fn commit_objects(&self, delivery: &Delivery) -> Result<Vec<CommitObject>, StateError> {
        let sql = "SELECT rank, key, file, bytes, sha256, stored FROM object WHERE delivery = ?1 ORDER BY rank";
        self.during("the documents of a run were read", |c| {
            let mut statement = c.prepare(sql)?;
            let rows = statement.query_map([delivery.id], |row| {
                Ok(CommitObject {
                    rank: row.get(0)?,
                    key: row.get(1)?,
                    file: row.get(2)?,
                    bytes: row.get(3)?,
                    sha256: parsed(row, 4)?,
                    stored: row.get(5)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The store has a document.
    pub fn object_stored(&mut self, delivery: &Delivery, rank: u32) -> Result<(), StateError> {
        let sql = "UPDATE object SET stored = 1 WHERE delivery = ?1 AND rank = ?2";
        self.change("a stored document was recorded", |t| t.execute(sql, (delivery.id, rank))).map(|_| ())
    }

    /// The store has the signature: the generation exists.
    pub fn committed(&mut self, delivery: &Delivery) -> Result<(), StateError> {
        self.change("the commit was recorded", |t| {
            t.execute("UPDATE delivery SET phase = 'committed' WHERE id = ?1", [delivery.id])?;
            let closed = "SELECT closed FROM chain WHERE id = ?1";
            if delivery.chain.class == Class::Archival || t.query_row(closed, [delivery.chain.id], |row| row.get(0))? {
                // Nothing ever joins it.
                forget_content(t, delivery.chain.id)?;
            }
            forget_uploads(t, delivery)
        })
    }

    /// Gives a delivery up. Nothing of it is referred to any more; its numbers and positions are not used again.
    pub fn abandon(&mut self, delivery: &Delivery) -> Result<(), StateError> {
        self.change("a run was abandoned", |t| {
            let packs = "SELECT id FROM pack WHERE delivery = ?1";
            t.execute(
                &format!("DELETE FROM chunk WHERE patch IN (SELECT id FROM patch WHERE pack IN ({packs}))"),
                [delivery.id],
            )?;
            t.execute(
                "DELETE FROM chunk WHERE chain = ?2 AND patch IS NULL AND EXISTS (SELECT 1 FROM pack
                   WHERE pack.delivery = ?1 AND name NOT LIKE '%.patch.age'
                     AND chunk.at >= pack.at AND chunk.at < pack.at + pack.content)",
                (delivery.id, delivery.chain.id),
            )?;
            t.execute("UPDATE delivery SET phase = 'abandoned' WHERE id = ?1", [delivery.id])?;
            if delivery.number == 0 {
                t.execute("UPDATE chain SET closed = 1 WHERE id = ?1", [delivery.chain.id])?;
                forget_content(t, delivery.chain.id)?;
            }
            forget_uploads(t, delivery)
        })
    }

    /// No generation joins the chain any more; where its content lies is not needed again.
    /// `notes` say why, if somebody has to look into it.
    pub fn close_chain(&mut self, chain: &ChainRecord, notes: &[String]) -> Result<(), StateError> {
        self.change("a chain was closed", |t| {
            let store: String = t.query_row("SELECT store FROM chain WHERE id = ?1", [chain.id], |row| row.get(0))?;
            notes::keep(t, &store, notes)?;
            t.execute("UPDATE chain SET closed = 1 WHERE id = ?1", [chain.id])?;
            forget_content(t, chain.id)
        })
    }

    /// No generation joins any rolling chain any more, in whatever store it is: also none whose full is still under way, and
    /// none on a disk that is not here now.
    pub fn close_chains(&mut self) -> Result<(), StateError> {
        self.change("a chain was closed", |t| {
            let mut open = t.prepare("SELECT id FROM chain WHERE class = 'rolling' AND closed = 0")?;
            let chains: Vec<i64> = open.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for chain in chains {
                t.execute("UPDATE chain SET closed = 1 WHERE id = ?1", [chain])?;
                forget_content(t, chain)?;
            }
            Ok(())
        })
    }

    /// How many generations were begun in a chain.
    pub fn chain_length(&self, chain: &ChainRecord) -> Result<u32, StateError> {
        let sql = "SELECT count(*) FROM delivery WHERE chain = ?1";
        self.during("the generations of a chain were counted", |c| c.query_row(sql, [chain.id], |row| row.get(0)))
    }

    /// The newest generation committed in `store` from this machine.
    pub fn last_committed(&self, store: &StoreName) -> Result<Option<CommittedRecord>, StateError> {
        let sql = "SELECT generation, sequence, commit_sha256, committed, grade, stream_bytes, added_bytes
                   FROM delivery JOIN chain ON chain.id = delivery.chain
                   WHERE chain.store = ?1 AND phase IN ('committed', 'pruned') ORDER BY sequence DESC LIMIT 1";
        self.during("the newest generation was looked up", |c| {
            c.query_row(sql, [store.as_str()], |row| {
                Ok(CommittedRecord {
                    generation: parsed(row, 0)?,
                    sequence: row.get(1)?,
                    commit_sha256: parsed(row, 2)?,
                    committed: parsed(row, 3)?,
                    grade: grade_of(&row.get::<_, String>(4)?),
                    stream_bytes: row.get(5)?,
                    added_bytes: row.get(6)?,
                })
            })
            .optional()
        })
    }

    /// Bytes of the packs that the newest full generation committed in `store` from this machine added.
    pub fn last_full_bytes(&self, store: &StoreName) -> Result<Option<u64>, StateError> {
        let sql = "SELECT added_bytes FROM delivery JOIN chain ON chain.id = delivery.chain
                   WHERE chain.store = ?1 AND phase IN ('committed', 'pruned') AND number = 0
                   ORDER BY sequence DESC LIMIT 1";
        self.during("the newest full generation was looked up", |c| {
            c.query_row(sql, [store.as_str()], |row| row.get(0)).optional()
        })
    }

    /// The multipart upload that was begun for `key` in `store`, as it was recorded.
    pub fn upload(&self, store: &StoreName, key: &str) -> Result<Option<String>, StateError> {
        let sql = "SELECT upload FROM upload WHERE store = ?1 AND key = ?2";
        self.during("an upload was looked up", |c| c.query_row(sql, (store.as_str(), key), |row| row.get(0)).optional())
    }

    /// A multipart upload was begun, or with `None`: it is no longer of use.
    pub fn set_upload(&mut self, store: &StoreName, key: &str, upload: Option<&str>) -> Result<(), StateError> {
        self.change("an upload was recorded", |t| match upload {
            Some(upload) => t.execute(
                "INSERT OR REPLACE INTO upload (store, key, upload) VALUES (?1, ?2, ?3)",
                (store.as_str(), key, upload),
            ),
            None => t.execute("DELETE FROM upload WHERE store = ?1 AND key = ?2", (store.as_str(), key)),
        })
        .map(|_| ())
    }
}

/// Adds a delivery, and its chain if that is new; answers with the numbers of both.
pub(super) fn insert(t: &rusqlite::Transaction<'_>, new: &NewDelivery<'_>) -> rusqlite::Result<(i64, i64)> {
    let chain = match new.chain {
        Some(chain) => chain.id,
        None => t.prepare("INSERT INTO chain (store, name, class, opened) VALUES (?1, ?2, ?3, ?4)")?.insert((
            new.store.as_str(),
            new.generation.as_str(),
            class_text(new.class),
            new.now.to_string(),
        ))?,
    };
    let number: u32 = t.query_row("SELECT count(*) FROM delivery WHERE chain = ?1", [chain], |row| row.get(0))?;
    let id = t
        .prepare("INSERT INTO delivery (chain, generation, number, phase) VALUES (?1, ?2, ?3, 'sealing')")?
        .insert((chain, new.generation.as_str(), number))?;
    notes::keep(t, new.store.as_str(), new.notes)?;
    Ok((chain, id))
}

/// The delivery with the number `id`.
pub(super) fn read(t: &rusqlite::Transaction<'_>, id: i64) -> rusqlite::Result<Delivery> {
    let sql = format!(
        "SELECT {CHAIN}, {DELIVERY} FROM delivery JOIN chain ON chain.id = delivery.chain WHERE delivery.id = ?1"
    );
    t.query_row(&sql, [id], delivery_of)
}

/// Removes what is known of the chain's chunks, patches and packs, unless something of it is still under way.
pub(super) fn forget_content(transaction: &rusqlite::Transaction<'_>, chain: i64) -> rusqlite::Result<()> {
    let under_way = "SELECT 1 FROM delivery WHERE chain = ?1 AND phase IN ('sealing', 'committing')";
    if transaction.prepare(under_way)?.exists([chain])? {
        return Ok(());
    }
    for sql in [
        "DELETE FROM chunk WHERE chain = ?1",
        "DELETE FROM patch WHERE pack IN (SELECT id FROM pack WHERE chain = ?1)",
        "DELETE FROM pack WHERE chain = ?1",
    ] {
        transaction.execute(sql, [chain])?;
    }
    Ok(())
}

/// Between deliveries no upload of a store is of use: its sweep gives up what is left of them.
fn forget_uploads(transaction: &rusqlite::Transaction<'_>, delivery: &Delivery) -> rusqlite::Result<()> {
    let sql = "DELETE FROM upload WHERE store = (SELECT store FROM chain WHERE id = ?1)";
    transaction.execute(sql, [delivery.chain.id]).map(|_| ())
}

fn chain_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<ChainRecord> {
    let class: String = row.get(2)?;
    Ok(ChainRecord {
        id: row.get(0)?,
        name: parsed::<ChainId>(row, 1)?,
        class: if class == "archival" { Class::Archival } else { Class::Rolling },
        opened: parsed(row, 3)?,
        content_bytes: row.get(4)?,
        full_bytes: row.get(5)?,
        origin: parsed(row, 6)?,
    })
}

fn delivery_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Delivery> {
    let phase = if row.get::<_, String>(10)? == "sealing" { Phase::Sealing } else { Phase::Committing };
    Ok(Delivery { id: row.get(7)?, chain: chain_of(row)?, generation: parsed(row, 8)?, number: row.get(9)?, phase })
}

fn class_text(class: Class) -> &'static str {
    match class {
        Class::Rolling => "rolling",
        Class::Archival => "archival",
    }
}

fn grade_text(grade: Grade) -> &'static str {
    match grade {
        Grade::Exact => "exact",
        Grade::Sequential => "sequential",
        Grade::Incomplete => "incomplete",
    }
}

/// An unknown word is the worst grade, never a better one.
fn grade_of(text: &str) -> Grade {
    match text {
        "exact" => Grade::Exact,
        "sequential" => Grade::Sequential,
        _ => Grade::Incomplete,
    }
}
