//! What was found in a store that somebody has to look into, until a run has told it: one that dies before that, in whatever
//! store it was by then, takes nothing of it along.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::{State, StateError};
use crate::ids::StoreName;

/// The row of a store, in the table of what there is to know about the state.
fn row(store: &str) -> String {
    format!("notes of {store}")
}

/// The notes of `store`, a sentence each.
fn read(c: &Connection, store: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT value FROM about WHERE name = ?1";
    let text: Option<String> = c.query_row(sql, [row(store)], |row| row.get(0)).optional()?;
    Ok(text.iter().flat_map(|text| text.lines().map(str::to_owned)).collect())
}

/// Makes these the notes of `store`: a sentence is a line.
fn write(t: &Transaction<'_>, store: &str, notes: &[String]) -> rusqlite::Result<()> {
    match notes {
        [] => t.execute("DELETE FROM about WHERE name = ?1", [row(store)]).map(drop),
        all => {
            let sql = "INSERT OR REPLACE INTO about (name, value) VALUES (?1, ?2)";
            t.execute(sql, (row(store), all.join("\n"))).map(drop)
        }
    }
}

/// Adds what is not yet among the notes of `store`.
pub(super) fn keep(t: &Transaction<'_>, store: &str, notes: &[String]) -> rusqlite::Result<()> {
    let mut all = read(t, store)?;
    for note in notes.iter().map(|note| note.replace('\n', " ")) {
        if !all.contains(&note) {
            all.push(note);
        }
    }
    write(t, store, &all)
}

impl State {
    /// What was found in `store` and is not known to have been told, a sentence each.
    pub fn notes(&self, store: &StoreName) -> Result<Vec<String>, StateError> {
        self.during("what was found in a store was looked up", |c| read(c, store.as_str()))
    }

    /// These of the notes of `store` were told, where they are not lost any more.
    pub fn told(&mut self, store: &StoreName, notes: &[String]) -> Result<(), StateError> {
        self.change("what was told was recorded", |t| {
            let mut left = read(t, store.as_str())?;
            left.retain(|note| !notes.contains(note));
            write(t, store.as_str(), &left)
        })
    }
}
