//! Copies of pages beside writers that write and checkpoints that run; and what an earlier copy spares.

use std::path::{Path, PathBuf};

use super::*;

/// A database whose table grows and changes, with one that reads it.
struct Office {
    folder: tempfile::TempDir,
    writer: Connection,
    reader: Connection,
}

impl Office {
    fn new(pragmas: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch(&format!("PRAGMA page_size = 1024; {pragmas}; CREATE TABLE t (n, text)")).unwrap();
        let reader = Connection::open(&path).unwrap();
        assert!(are_shown_by(&reader), "the tests are built with LIBSQLITE3_FLAGS of .cargo/config.toml");
        let office = Self { folder, writer, reader };
        office.add(0, 5000);
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add(&self, from: u64, count: u64) {
        let sql = "WITH RECURSIVE c(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM c WHERE n < ?1 + ?2 - 1)
                   INSERT INTO t SELECT n, hex(randomblob(200)) FROM c";
        self.writer.execute(sql, [from, count]).unwrap();
    }

    fn write(&self, sql: &str) {
        self.writer.execute_batch(sql).unwrap();
    }

    fn pin(&self) -> (u64, u64, u64) {
        self.reader.execute_batch("BEGIN").unwrap();
        sum(&self.reader)
    }

    /// Copies what is pinned to `to`; `meanwhile` is called again and again. Says whether a file was written.
    fn copy(&self, to: &str, like: Option<&str>, mut meanwhile: impl FnMut(u64)) -> bool {
        let number = |pragma| self.reader.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0)).unwrap();
        let (count, bytes) = (number("page_count"), number("page_size"));
        let in_log = match File::open(self.path("a.db-wal")) {
            Ok(log) => in_log(&log, bytes).unwrap().expect("a log of pages of this size"),
            Err(_) => BTreeSet::new(),
        };
        // Not closed before the reader: that would take the reader's locks away.
        let file = Box::leak(Box::new(File::open(self.path("a.db")).unwrap()));
        let pages = Pages::new(&self.reader, file, count, bytes, in_log);
        let (to, like) = (self.path(to), like.map(|like| self.path(like)));
        let mut told = 0;
        let mut copied = |bytes| {
            told += bytes;
            meanwhile(told);
            Ok(())
        };
        let written = pages.copy(&to, like.as_deref(), &mut copied).unwrap();
        assert_eq!(told, count * bytes);
        assert_eq!(to.exists(), written);
        written
    }

    /// What a copy holds, which is sound.
    fn copied(&self, name: &str) -> (u64, u64, u64) {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let pages: u64 = self.reader.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        assert_eq!((bytes.get(..15), bytes.len() as u64), (Some(b"SQLite format 3".as_slice()), pages * 1024));
        let restored = Connection::open(self.path(name)).unwrap();
        let check: String = restored.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        sum(&restored)
    }
}

fn sum(connection: &Connection) -> (u64, u64, u64) {
    let sql = "SELECT count(*), sum(n), sum(unicode(substr(text, n % 400, 1))) FROM t";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

const WAL: &str = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 50";

#[test]
fn what_is_pinned_is_copied_while_others_write_and_bring_the_log_into_the_file() {
    let office = Office::new(WAL);
    office.write("PRAGMA wal_checkpoint(TRUNCATE)");
    office.add(5000, 5000);
    office.write("PRAGMA wal_autocheckpoint = 0; UPDATE t SET text = hex(randomblob(200)) WHERE n % 7 = 0");
    let pinned = office.pin();
    office.add(10_000, 5000);
    office.write("DELETE FROM t WHERE n < 3000");
    let written = office.copy("copy.db", None, |told| {
        office.add(20_000 + told, 100);
        office.write("UPDATE t SET text = hex(randomblob(200)) WHERE n % 3 = 0; PRAGMA wal_checkpoint(PASSIVE)");
    });
    assert!(written);
    assert_eq!(office.copied("copy.db"), pinned);
}

#[test]
fn a_pin_that_sees_nothing_of_the_log_keeps_the_file_as_it_is() {
    let office = Office::new(WAL);
    office.write("PRAGMA wal_checkpoint(PASSIVE)");
    let pinned = office.pin();
    let written = office.copy("copy.db", None, |told| {
        office.write("UPDATE t SET text = hex(randomblob(200)) WHERE n % 2 = 0; PRAGMA wal_checkpoint(PASSIVE)");
        office.add(20_000 + told, 300);
    });
    assert!(written);
    assert_eq!(office.copied("copy.db"), pinned);
}

#[test]
fn what_an_earlier_copy_holds_is_not_written_again() {
    for pragmas in [WAL, "PRAGMA journal_mode = DELETE"] {
        let office = Office::new(pragmas);
        let pinned = office.pin();
        assert!(office.copy("first.db", None, |_| ()));
        assert!(!office.copy("second.db", Some("first.db"), |_| ()));
        assert!(office.copy("third.db", Some("nothing.db"), |_| ()));
        assert_eq!(office.copied("third.db"), pinned);
        office.reader.execute_batch("ROLLBACK").unwrap();

        // The last page differs, then the earlier copy is the longer one, then the shorter one.
        let whole = std::fs::read(office.path("first.db")).unwrap();
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        let longer = [whole.as_slice(), b"more"].concat();
        for (number, earlier) in [other.as_slice(), &longer, &whole[..whole.len() - 1]].into_iter().enumerate() {
            std::fs::write(office.path("earlier.db"), earlier).unwrap();
            let name = format!("copy-{number}.db");
            office.pin();
            assert!(office.copy(&name, Some("earlier.db"), |_| ()));
            office.reader.execute_batch("ROLLBACK").unwrap();
            assert_eq!(std::fs::read(office.path(&name)).unwrap(), whole);
        }
        office.write("UPDATE t SET text = upper(text) WHERE n = 4999; UPDATE t SET n = 5001 WHERE n = 4999");
        let pinned = office.pin();
        assert!(office.copy("changed.db", Some("first.db"), |_| ()));
        assert_eq!(office.copied("changed.db"), pinned);
    }
}

#[test]
fn a_database_without_pages_has_an_empty_copy() {
    let office = Office::new("PRAGMA journal_mode = DELETE");
    let empty = File::create_new(office.path("empty.db")).unwrap();
    let pages = Pages::new(&office.reader, &empty, 0, 1024, BTreeSet::from([0, 3]));
    let (copy, again) = (office.path("copy.db"), office.path("again.db"));
    assert!(pages.copy(&copy, None, &mut |_| Ok(())).unwrap());
    assert!(std::fs::read(&copy).unwrap().is_empty());
    assert!(!pages.copy(&again, Some(&copy), &mut |_| Ok(())).unwrap());
}

#[test]
fn a_log_of_other_pages_is_none_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let log = |bytes: &[u8]| {
        std::fs::write(folder.path().join("wal"), bytes).unwrap();
        File::open(Path::new(&folder.path().join("wal"))).unwrap()
    };
    assert_eq!(in_log(&log(b""), 1024).unwrap(), Some(BTreeSet::new()));
    let mut bytes = vec![0; 32];
    bytes[10] = 4;
    assert_eq!(in_log(&log(&bytes), 4096).unwrap(), None);
    bytes.extend([[0, 0, 0, 7].as_slice(), &[0; 20], &[1; 1024], &[0, 0, 1, 0], &[0; 20]].concat());
    assert_eq!(in_log(&log(&bytes), 1024).unwrap(), Some(BTreeSet::from([7, 256])));
}
