//! The index of chunks: where the chain has content already.

use rusqlite::OptionalExtension as _;

use super::{ChainRecord, State, StateError};

/// BLAKE3 of a chunk's content.
pub type ChunkHash = [u8; 32];

/// Where the content of a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the chain's content, from this position on.
    Plain(u64),
    /// In what a patch gives.
    Patch {
        /// Number of the patch pack in this database.
        pack: i64,
        /// The patch.
        patch: NewPatch,
        /// Where in what the patch gives the chunk begins.
        skip: u64,
    },
}

/// A chunk that a sealed pack brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewChunk {
    /// Its hash.
    pub hash: ChunkHash,
    /// Its position, or where in what its patch gives it begins.
    pub at: u64,
    /// Its patch: an index into the patches of the same pack.
    pub patch: Option<usize>,
}

/// A patch in a sealed patch pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPatch {
    /// Where it begins in the pack's content.
    pub at: u64,
    /// Its size there.
    pub packed: u64,
    /// Bytes it gives.
    pub gives: u64,
    /// Position of its reference in the full.
    pub reference: u64,
    /// Size of its reference.
    pub reference_bytes: u64,
}

impl State {
    /// Where `chain` has the content with this hash, if it has it.
    pub fn find_chunk(&self, chain: &ChainRecord, hash: &ChunkHash) -> Result<Option<Location>, StateError> {
        let found = self.during("a chunk was looked up", |c| {
            c.prepare_cached("SELECT at, patch FROM chunk WHERE chain = ?1 AND hash = ?2")?
                .query_row((chain.id, hash), |row| Ok((row.get::<_, u64>(0)?, row.get::<_, Option<i64>>(1)?)))
                .optional()
        })?;
        match found {
            None => Ok(None),
            Some((at, None)) => Ok(Some(Location::Plain(at))),
            Some((skip, Some(patch))) => self.find_patch(patch, skip).map(Some),
        }
    }

    /// Where `chain` has the content with this hash as it is, not in what a patch gives.
    pub fn find_plain(&self, chain: &ChainRecord, hash: &ChunkHash) -> Result<Option<u64>, StateError> {
        self.during("a chunk was looked up", |c| {
            c.prepare_cached("SELECT at FROM chunk WHERE chain = ?1 AND hash = ?2 AND patch IS NULL")?
                .query_row((chain.id, hash), |row| row.get(0))
                .optional()
        })
    }

    fn find_patch(&self, id: i64, skip: u64) -> Result<Location, StateError> {
        let sql = "SELECT pack, at, packed, gives, reference, reference_bytes FROM patch WHERE id = ?1";
        self.during("a patch was looked up", |c| {
            c.prepare_cached(sql)?.query_row([id], |row| {
                let patch = NewPatch {
                    at: row.get(1)?,
                    packed: row.get(2)?,
                    gives: row.get(3)?,
                    reference: row.get(4)?,
                    reference_bytes: row.get(5)?,
                };
                Ok(Location::Patch { pack: row.get(0)?, patch, skip })
            })
        })
    }
}

/// Adds what a sealed pack brought; the first place of a content stays its place.
pub(super) fn insert(
    transaction: &rusqlite::Transaction<'_>,
    chain: i64,
    pack: i64,
    patches: &[NewPatch],
    chunks: &[NewChunk],
) -> rusqlite::Result<()> {
    let mut add_patch = transaction.prepare_cached(
        "INSERT INTO patch (pack, at, packed, gives, reference, reference_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut ids = Vec::with_capacity(patches.len());
    for patch in patches {
        let NewPatch { at, packed, gives, reference, reference_bytes } = *patch;
        ids.push(add_patch.insert((pack, at, packed, gives, reference, reference_bytes))?);
    }
    let mut add_chunk =
        transaction.prepare_cached("INSERT OR IGNORE INTO chunk (chain, hash, at, patch) VALUES (?1, ?2, ?3, ?4)")?;
    for chunk in chunks {
        let patch = chunk.patch.and_then(|index| ids.get(index));
        add_chunk.execute((chain, &chunk.hash, chunk.at, patch))?;
    }
    Ok(())
}
