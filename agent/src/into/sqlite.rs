//! SQLite databases, which need no server: checked where they were restored to.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::{IntoError, IntoEvent, IntoWatch, Loaded};
use crate::rows;

const PROGRAM: &str = "PRAGMA integrity_check";
const FOREIGN_KEYS: &str = "PRAGMA foreign_key_check";

/// Checks every SQLite database in `folder`, which is not changed.
pub(super) fn check(folder: &Path, watch: IntoWatch<'_>) -> Result<Vec<Loaded>, IntoError> {
    let failed = |source| IntoError::Read { path: folder.to_owned(), source };
    let mut checked = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !is_database(&path).map_err(|source| IntoError::Read { path: path.clone(), source })? {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        watch(IntoEvent::Checking(&name));
        let damaged = |program, said: String| IntoError::Damaged { program, database: name.clone(), said };
        let tables = check_one(&path).map_err(|error| damaged(PROGRAM, error.to_string()))?;
        match tables {
            Ok(tables) => checked.push(Loaded { database: name, tables, checked_by: Some(PROGRAM) }),
            Err((program, said)) => return Err(damaged(program, said)),
        }
    }
    checked.sort_by(|a, b| a.database.cmp(&b.database));
    Ok(checked)
}

/// How many tables it has, or who found what wrong.
fn check_one(path: &Path) -> Result<Result<u64, (&'static str, String)>, rusqlite::Error> {
    let connection = rows::open_unchanging(path)?;
    let text = |sql: &str| -> Result<Vec<String>, rusqlite::Error> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0))?;
        rows.map(|row| row.map(|value| format!("{value:?}"))).collect()
    };
    let sound = text(PROGRAM)?;
    if sound != [format!("{:?}", rusqlite::types::Value::Text("ok".to_owned()))] {
        return Ok(Err((PROGRAM, sound.join(", "))));
    }
    let orphans = text(FOREIGN_KEYS)?;
    if !orphans.is_empty() {
        return Ok(Err((FOREIGN_KEYS, format!("rows without their parent in {}", orphans.join(", ")))));
    }
    connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get::<_, u64>(0))
        .map(Ok)
}

fn is_database(path: &Path) -> io::Result<bool> {
    if !path.symlink_metadata()?.is_file() {
        return Ok(false);
    }
    let mut head = Vec::new();
    File::open(path)?.take(16).read_to_end(&mut head)?;
    Ok(head == b"SQLite format 3\0")
}
