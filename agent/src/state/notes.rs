//! What was found in a store that somebody has to look into, until a generation is committed there that is told with it: a run
//! that dies meanwhile takes nothing of it along.

use rusqlite::{OptionalExtension as _, Transaction};

use super::{State, StateError};
use crate::ids::StoreName;

/// The row of a store, in the table of what there is to know about the state.
fn row(store: &str) -> String {
    format!("notes of {store}")
}

/// Adds what is not yet among the notes of `store`: a sentence is a line.
pub(super) fn keep(t: &Transaction<'_>, store: &str, notes: &[String]) -> rusqlite::Result<()> {
    let known: Option<String> =
        t.query_row("SELECT value FROM about WHERE name = ?1", [row(store)], |row| row.get(0)).optional()?;
    let mut all: Vec<String> = known.iter().flat_map(|known| known.lines().map(str::to_owned)).collect();
    for note in notes.iter().map(|note| note.replace('\n', " ")) {
        if !all.contains(&note) {
            all.push(note);
        }
    }
    if !all.is_empty() {
        t.execute("INSERT OR REPLACE INTO about (name, value) VALUES (?1, ?2)", (row(store), all.join("\n")))?;
    }
    Ok(())
}

/// They were told, with the generation that is committed in this chain.
pub(super) fn forget(t: &Transaction<'_>, chain: i64) -> rusqlite::Result<()> {
    let store: String = t.query_row("SELECT store FROM chain WHERE id = ?1", [chain], |row| row.get(0))?;
    t.execute("DELETE FROM about WHERE name = ?1", [row(&store)]).map(drop)
}

impl State {
    /// What was found in `store` since a generation was last committed there, a sentence each.
    pub fn notes(&self, store: &StoreName) -> Result<Vec<String>, StateError> {
        let sql = "SELECT value FROM about WHERE name = ?1";
        let text: Option<String> = self.during("what was found in a store was looked up", |c| {
            c.query_row(sql, [row(store.as_str())], |row| row.get(0)).optional()
        })?;
        Ok(text.iter().flat_map(|text| text.lines().map(str::to_owned)).collect())
    }
}
