//! Copying the pages of a pinned database: read as rows, written in large pieces. SQLite's own backup writes each page by
//! itself, which costs the kernel as much as everything else together.

use std::fs::File;
use std::io::Write as _;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::database::Trouble;

/// Bytes written at once, and the least between two calls of `copied`.
const PIECE: usize = 1 << 20;

/// Whether this SQLite can show pages as rows; one that was built otherwise cannot.
pub(super) fn are_shown_by(reader: &Connection) -> bool {
    reader.prepare("SELECT data FROM sqlite_dbpage").is_ok()
}

/// Copies every page that `reader` sees to `to`, and tells `copied` of the bytes as they are written.
pub(super) fn copy(
    reader: &Connection,
    mut to: &File,
    mut copied: impl FnMut(u64) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut select = reader.prepare("SELECT data FROM sqlite_dbpage ORDER BY pgno")?;
    let mut rows = select.query([])?;
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        let page = match rows.next()? {
            Some(row) => Some(row.get_ref(0)?),
            None => None,
        };
        let bytes = match page {
            Some(ValueRef::Blob(bytes)) => bytes,
            Some(_) => return Err(Trouble::Failed("SQLite shows a page that is none".to_owned())),
            None => &[],
        };
        if page.is_none() || piece.len() + bytes.len() > PIECE {
            to.write_all(&piece)?;
            copied(piece.len() as u64)?;
            piece.clear();
        }
        if page.is_none() {
            return Ok(());
        }
        piece.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_is_pinned_is_copied_page_by_page_while_others_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE t (n, text)").unwrap();
        let add = |from: i64| {
            let sql = "WITH RECURSIVE c(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM c WHERE n < ?1 + 4999)
                       INSERT INTO t SELECT n, hex(randomblob(200)) FROM c";
            writer.execute(sql, [from]).unwrap();
        };
        add(0);
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        add(5000);
        let reader = Connection::open(&path).unwrap();
        assert!(are_shown_by(&reader), "the tests are built with LIBSQLITE3_FLAGS of .cargo/config.toml");
        let sum = |connection: &Connection| -> (i64, i64, i64) {
            let sql = "SELECT count(*), sum(n), sum(unicode(substr(text, n % 400, 1))) FROM t";
            connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
        };
        reader.execute_batch("BEGIN").unwrap();
        let pinned = sum(&reader);
        add(10_000);
        writer.execute_batch("DELETE FROM t WHERE n < 3000; PRAGMA wal_checkpoint(PASSIVE)").unwrap();

        let copy_path = folder.path().join("copy.db");
        let file = File::create_new(&copy_path).unwrap();
        let mut told = 0;
        copy(&reader, &file, |bytes| {
            told += bytes;
            add(20_000 + i64::try_from(told).unwrap());
            Ok(())
        })
        .unwrap();
        let pages: u64 = reader.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        assert_eq!((told, file.metadata().unwrap().len()), (pages * 1024, pages * 1024));
        let mut magic = [0; 15];
        file.read_exact_at(&mut magic, 0).unwrap();
        assert_eq!(&magic, b"SQLite format 3");
        let restored = Connection::open(&copy_path).unwrap();
        let check: String = restored.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!((check.as_str(), sum(&restored)), ("ok", pinned));
    }
}
