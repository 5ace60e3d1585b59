//! The people of the sample office: processes of their own that write until they are told to stop.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::office::{BILLING, CASH, DemoError, Office, PAYROLL};

/// How long a writer waits for its turn before that is an error that a person would see.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Between two transactions of one writer.
const PAUSE: Duration = Duration::from_millis(10);

/// Processes that write. Dropped, they end.
#[derive(Debug)]
pub struct Writers {
    children: Vec<Child>,
}

impl Writers {
    /// Starts one writer for payments and one for payslips: `program demo-writer DATABASE [MIRROR]`.
    pub fn start(office: &Office, program: &Path) -> Result<Self, DemoError> {
        let mut writers = Self { children: Vec::new() };
        for databases in [vec![CASH, BILLING], vec![PAYROLL]] {
            let child = Command::new(program)
                .arg("demo-writer")
                .args(databases.into_iter().map(|name| office.database(name)))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .map_err(DemoError::Writer)?;
            writers.children.push(child);
        }
        Ok(writers)
    }

    /// Tells all of them to stop, and says whether all had been able to write all the time.
    pub fn stop(mut self) -> Result<(), DemoError> {
        for mut child in std::mem::take(&mut self.children) {
            drop(child.stdin.take());
            let status = child.wait().map_err(DemoError::Writer)?;
            if !status.success() {
                return Err(DemoError::Wrong("somebody in the sample office could not write to a database".to_owned()));
            }
        }
        Ok(())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // The end of its input stops it; what has ended already is fine.
            drop(child.stdin.take());
            child.wait().ok();
        }
    }
}

/// Writes into `database`, and what was written then into `mirror`, about fifty times a second, until standard input
/// ends. Fails as soon as a write does.
pub fn write_until_told(database: &Path, mirror: Option<&Path>) -> Result<(), DemoError> {
    static ENDED: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        // An error is an end as well.
        io::stdin().read_to_end(&mut Vec::new()).ok();
        ENDED.store(true, Ordering::Relaxed);
    });
    let first = open(database)?;
    let second = mirror.map(open).transpose()?;
    let mut number = 0_u64;
    while !ENDED.load(Ordering::Relaxed) {
        number += 1;
        match (&second, mirror) {
            (Some(second), Some(mirror)) => {
                pay(&first, second, number).map_err(|source| failed(mirror, source))?;
            }
            _ => {
                let note = "holiday pay, overtime, travel ".repeat(4);
                let insert = "INSERT INTO payslip (person, note) VALUES (?1, ?2)";
                first.execute(insert, (number % 40, note)).map_err(|source| failed(database, source))?;
            }
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// A payment, and only when it is safe, its effect.
fn pay(cash: &Connection, billing: &Connection, number: u64) -> rusqlite::Result<()> {
    let (account, cents) = (number % 500, number * 7919 % 100_000);
    let insert = "INSERT INTO payment (account, cents, paid) VALUES (?1, ?2, datetime('now'))";
    cash.execute(insert, (account, cents))?;
    let payment = cash.last_insert_rowid();
    billing.execute("INSERT INTO receipt VALUES (?1, ?2, ?3)", (payment, account, cents))?;
    Ok(())
}

fn open(path: &Path) -> Result<Connection, DemoError> {
    let database = Connection::open(path).map_err(|source| failed(path, source))?;
    database.busy_timeout(PATIENCE).map_err(|source| failed(path, source))?;
    Ok(database)
}

fn failed(path: &Path, source: rusqlite::Error) -> DemoError {
    DemoError::Database { what: "write to", path: path.to_owned(), source }
}
