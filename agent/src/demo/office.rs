//! Building the office, and judging a copy of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

/// The databases, by the names they have as sources.
pub(super) const CASH: &str = "cash-receipting";
pub(super) const BILLING: &str = "utility-billing";
pub(super) const PAYROLL: &str = "payroll";
const DOCUMENTS: &str = "documents";
/// Rows that each database has from the beginning.
const HISTORY: u64 = 40_000;

/// A sample office in a folder of its own.
#[derive(Clone, Debug)]
pub struct Office {
    folder: PathBuf,
}

/// What a copy of the office was found to be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Findings {
    /// Payments in Cash Receipting.
    pub payments: u64,
    /// Payments that Utility Billing knows.
    pub billed: u64,
    /// Payslips in Payroll.
    pub payslips: u64,
    /// Documents that are equal to those of the office.
    pub documents: u64,
}

/// What can go wrong with the sample office.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The folder is in use.
    #[error("{} exists already; the demo needs a new folder", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the office.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// A database of the office.
    #[error("cannot {what} the database {}", path.display())]
    Database {
        /// What was tried.
        what: &'static str,
        /// The database.
        path: PathBuf,
        #[source]
        /// The cause.
        source: rusqlite::Error,
    },
    /// A process that writes.
    #[error("a program that writes into the sample office does not work")]
    Writer(#[source] io::Error),
    /// A copy is not right.
    #[error("the copy is not right: {0}")]
    Wrong(String),
}

impl Office {
    /// Builds an office in the new folder `folder`.
    pub fn build(folder: &Path) -> Result<Self, DemoError> {
        if folder.exists() {
            return Err(DemoError::Exists { folder: folder.to_owned() });
        }
        let office = Self { folder: folder.to_owned() };
        let documents = office.documents();
        fs::create_dir_all(&documents).map_err(|source| DemoError::File {
            what: "make the folder",
            path: documents,
            source,
        })?;
        let payments = "SELECT n, n * 7919 % 500, n * 104729 % 100000";
        for (name, journal, sql) in [
            (
                CASH,
                "wal",
                format!(
                    "CREATE TABLE payment (id INTEGER PRIMARY KEY, account INTEGER, cents INTEGER, paid TEXT);
                     INSERT INTO payment {}, datetime(1700000000 + n * 60, 'unixepoch') {}",
                    payments,
                    history()
                ),
            ),
            (
                BILLING,
                "wal",
                format!(
                    "CREATE TABLE receipt (payment INTEGER PRIMARY KEY, account INTEGER, cents INTEGER);
                     INSERT INTO receipt {} {}",
                    payments,
                    history()
                ),
            ),
            (
                PAYROLL,
                "delete",
                format!(
                    "CREATE TABLE payslip (id INTEGER PRIMARY KEY, person INTEGER, note TEXT);
                     INSERT INTO payslip SELECT n, n % 40, 'overtime ' || n * 7919 % 6000 {}",
                    history()
                ),
            ),
        ] {
            create_database(&office.database(name), journal, &sql)?;
        }
        office.write_documents()?;
        Ok(office)
    }

    /// Every database with the name it has as a source.
    pub fn databases(&self) -> Vec<(&'static str, PathBuf)> {
        [CASH, BILLING, PAYROLL].map(|name| (name, self.database(name))).into()
    }

    /// The folder of documents, which is a source of this name.
    pub fn documents(&self) -> PathBuf {
        self.folder.join(DOCUMENTS)
    }

    /// Payments and payslips that the office has by now.
    pub fn rows(&self) -> Result<u64, DemoError> {
        Ok(count(&self.database(CASH), "payment")? + count(&self.database(PAYROLL), "payslip")?)
    }

    /// Opens everything in a restored copy and compares it: the databases with themselves and each other, the documents
    /// with those of the office.
    pub fn judge(&self, restored: &Path) -> Result<Findings, DemoError> {
        let copy = |name: &str| restored.join(name).join(format!("{name}.db"));
        for name in [CASH, BILLING, PAYROLL] {
            check_integrity(&copy(name))?;
        }
        let findings = Findings {
            payments: count(&copy(CASH), "payment")?,
            billed: count(&copy(BILLING), "receipt")?,
            payslips: count(&copy(PAYROLL), "payslip")?,
            documents: self.compare_documents(&restored.join(DOCUMENTS))?,
        };
        let ahead = findings.payments.checked_sub(findings.billed);
        if !matches!(ahead, Some(0 | 1)) {
            return Err(DemoError::Wrong(format!(
                "cash has {} payments and billing knows {}: the two copies are not of one instant",
                findings.payments, findings.billed
            )));
        }
        Ok(findings)
    }

    pub(super) fn database(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.db"))
    }

    /// Letters that compress, scans that do not, and some of what offices have besides.
    fn write_documents(&self) -> Result<(), DemoError> {
        let mut noise = Noise(0x0ff1_ce00);
        for (number, folder) in (0..240_u32).zip(["letters", "scans", "plans/2026"].iter().cycle()) {
            let folder = self.documents().join(folder);
            let (name, content) = if number % 3 == 1 {
                (format!("scan-{number:03}.jpg"), noise.bytes(20_000 + number as usize * 200))
            } else {
                (format!("letter-{number:03}.txt"), letter(number).into_bytes())
            };
            let path = folder.join(name);
            fs::create_dir_all(&folder).and_then(|()| fs::write(&path, content)).map_err(|source| DemoError::File {
                what: "write",
                path,
                source,
            })?;
        }
        let link = self.documents().join("newest-plan");
        std::os::unix::fs::symlink("plans/2026/letter-239.txt", &link).map_err(|source| DemoError::File {
            what: "write",
            path: link,
            source,
        })
    }

    fn compare_documents(&self, restored: &Path) -> Result<u64, DemoError> {
        let mut equal = 0;
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let here = self.documents().join(&folder);
            let failed = |path: &Path| {
                let path = path.to_owned();
                |source| DemoError::File { what: "read", path, source }
            };
            for entry in fs::read_dir(&here).map_err(failed(&here))? {
                let entry = entry.map_err(failed(&here))?;
                let (kind, path) = (entry.file_type().map_err(failed(&here))?, folder.join(entry.file_name()));
                let (office, copy) = (self.documents().join(&path), restored.join(&path));
                let same = if kind.is_dir() {
                    folders.push(path.clone());
                    continue;
                } else if kind.is_symlink() {
                    fs::read_link(&office).map_err(failed(&office))? == fs::read_link(&copy).map_err(failed(&copy))?
                } else {
                    fs::read(&office).map_err(failed(&office))? == fs::read(&copy).map_err(failed(&copy))?
                };
                if !same {
                    return Err(DemoError::Wrong(format!("{} differs from the original", path.display())));
                }
                equal += 1;
            }
        }
        Ok(equal)
    }
}

/// Years of work: the numbers `n`, in a statement's FROM.
fn history() -> String {
    format!(
        "FROM (WITH RECURSIVE past(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM past WHERE n < {HISTORY}) SELECT n FROM past)"
    )
}

fn create_database(path: &Path, journal: &str, sql: &str) -> Result<(), DemoError> {
    let failed = |source| DemoError::Database { what: "make", path: path.to_owned(), source };
    let database = Connection::open(path).map_err(failed)?;
    database.pragma_update(None, "journal_mode", journal).map_err(failed)?;
    database.execute_batch(sql).map_err(failed)
}

fn check_integrity(path: &Path) -> Result<(), DemoError> {
    let failed = |source| DemoError::Database { what: "check", path: path.to_owned(), source };
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(failed)?;
    if verdict == "ok" { Ok(()) } else { Err(DemoError::Wrong(format!("{}: {verdict}", path.display()))) }
}

fn count(path: &Path, table: &str) -> Result<u64, DemoError> {
    let failed = |source| DemoError::Database { what: "read", path: path.to_owned(), source };
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    database.busy_timeout(super::writer::PATIENCE).map_err(failed)?;
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).map_err(failed)
}

fn letter(number: u32) -> String {
    let line = format!("Dear customer {number}, thank you for your letter. We have read it and will answer it soon.\n");
    line.repeat(40 + number as usize)
}

/// Bytes that do not compress; the same each time.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy made while nobody writes.
    fn copy(office: &Office, to: &Path) {
        for (name, path) in office.databases() {
            fs::create_dir_all(to.join(name)).unwrap();
            Connection::open(path)
                .unwrap()
                .execute("VACUUM INTO ?", [to.join(name).join(format!("{name}.db")).to_str().unwrap()])
                .unwrap();
        }
        let status = std::process::Command::new("cp").arg("-a").arg(office.documents()).arg(to).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_right_copy_is_told_from_wrong_ones() {
        let folder = tempfile::tempdir().unwrap();
        let office = Office::build(&folder.path().join("office")).unwrap();
        assert!(matches!(Office::build(&folder.path().join("office")), Err(DemoError::Exists { .. })));
        let cash = Connection::open(office.database(CASH)).unwrap();
        cash.execute("INSERT INTO payment (account, cents) VALUES (1, 100)", []).unwrap();
        let restored = folder.path().join("restored");
        copy(&office, &restored);
        let findings = office.judge(&restored).unwrap();
        assert_eq!((findings.payments, findings.billed, findings.documents), (HISTORY + 1, HISTORY, 241));

        let document = restored.join("documents/letters/letter-000.txt");
        fs::write(&document, "changed").unwrap();
        assert!(matches!(office.judge(&restored), Err(DemoError::Wrong(what)) if what.contains("letter-000")));
        fs::remove_file(&document).unwrap();
        assert!(matches!(office.judge(&restored), Err(DemoError::File { .. })));
        let billing = Connection::open(restored.join("utility-billing/utility-billing.db")).unwrap();
        billing.execute_batch("INSERT INTO receipt (account) VALUES (1), (2)").unwrap();
        fs::copy(office.documents().join("letters/letter-000.txt"), &document).unwrap();
        assert!(matches!(office.judge(&restored), Err(DemoError::Wrong(what)) if what.contains("instant")));
    }
}
