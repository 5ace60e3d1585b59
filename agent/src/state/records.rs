//! Rows of the database as the rest of the program sees them.

use jiff::Timestamp;

use super::{NewChunk, NewPatch, State, StateError};
use crate::format::Sha256;
use crate::format::names::PackName;
use crate::generation::{Class, Grade};
use crate::ids::{ChainId, GenerationId};

/// A chain in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRecord {
    /// Its number in this database.
    pub id: i64,
    /// Its name.
    pub name: ChainId,
    /// Rolling or archival.
    pub class: Class,
    /// When it was opened.
    pub opened: Timestamp,
    /// End of its content: the position of the next plain byte.
    pub content_bytes: u64,
    /// End of what its origin brought, which lies at its beginning; 0 until that is sealed. What lies behind came later.
    pub full_bytes: u64,
    /// The generation that was sealed with nothing before it, and whose staged copy patches refer to: the chain's own full,
    /// or that of an earlier chain whose packs this one has copies of.
    pub origin: ChainId,
}

impl ChainRecord {
    /// Whether its full is made of an earlier chain's packs.
    pub fn is_carried(&self) -> bool {
        self.origin != self.name
    }
}

/// A pack that was sealed for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Its number in this database.
    pub id: i64,
    /// Its name.
    pub name: PackName,
    /// Position of its first byte; 0 for patch packs.
    pub at: u64,
    /// Bytes of its content.
    pub content: u64,
    /// Bytes of the sealed object.
    pub sealed: u64,
    /// Whether the store has it.
    pub stored: bool,
    /// Whether it is a copy of an earlier chain's pack.
    pub carried: bool,
}

/// A pack that has just been sealed and lies in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPack {
    /// The number it shall have in this database.
    pub id: i64,
    /// Its name.
    pub name: PackName,
    /// Position of its first byte; 0 for patch packs.
    pub at: u64,
    /// Bytes of its content.
    pub content: u64,
    /// Bytes of the sealed object.
    pub sealed: u64,
    /// The patches in it.
    pub patches: Vec<NewPatch>,
    /// The chunks in it.
    pub chunks: Vec<NewChunk>,
}

/// The newest generation that this machine committed in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedRecord {
    /// The generation.
    pub generation: GenerationId,
    /// Its place among all generations of the site in the store.
    pub sequence: u64,
    /// SHA-256 of its generation document.
    pub commit_sha256: Sha256,
    /// When it was committed.
    pub committed: Timestamp,
    /// Its grade.
    pub grade: Grade,
    /// Bytes of its stream.
    pub stream_bytes: u64,
    /// Bytes of the packs it added.
    pub added_bytes: u64,
}

impl State {
    /// The packs of a chain that belong to committed generations or to `delivery`, plain packs by position first.
    pub fn packs(&self, chain: &ChainRecord, delivery: i64) -> Result<Vec<PackRecord>, StateError> {
        let sql = "SELECT pack.id, pack.name, pack.at, pack.content, pack.sealed, pack.stored,
                     pack.source IS NOT NULL
                   FROM pack JOIN delivery ON delivery.id = pack.delivery
                   WHERE pack.chain = ?1 AND (delivery.phase = 'committed' OR delivery.id = ?2)
                   ORDER BY pack.name LIKE '%.patch.age', pack.at, pack.id";
        self.during("the packs of a chain were read", |c| {
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement.query_map((chain.id, delivery), |row| {
                Ok(PackRecord {
                    id: row.get(0)?,
                    name: parsed(row, 1)?,
                    at: row.get(2)?,
                    content: row.get(3)?,
                    sealed: row.get(4)?,
                    stored: row.get(5)?,
                    carried: row.get(6)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The number for the next pack.
    pub fn next_pack_id(&self) -> Result<i64, StateError> {
        let sql = "SELECT coalesce(max(id), 0) + 1 FROM pack";
        self.during("the packs were counted", |c| c.query_row(sql, [], |row| row.get(0)))
    }
}

/// A column whose text has a type of its own.
pub(super) fn parsed<T>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}
