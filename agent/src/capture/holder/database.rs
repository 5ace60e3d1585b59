//! One SQLite database in the holder: two connections, one that holds and one that pins.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionState};

use super::pages::{self, Pages};
use super::{Mode, Opened, Pinned};
use crate::capture::problems::remedy;
use crate::clock;
use crate::durable;
use crate::entry::Mtime;
use crate::platform::tree::{FileStat, file_stat, path_stat};
use crate::rows;

/// Pages copied between two looks at the time.
const STEP: i32 = 2048;

/// Bytes copied between two words about them.
const TOLD: u64 = 8 << 20;

/// How old the last change must be for the next one to show in the times of the files.
const MARGIN: Duration = Duration::from_millis(100);

/// A database that is open.
pub(super) struct Database {
    path: PathBuf,
    mode: Mode,
    /// Holds. Absent if this account may not write.
    writer: Option<Connection>,
    /// Pins, and is copied from.
    reader: Connection,
    file: (u64, u64),
    held_since: Option<Instant>,
    held: Duration,
    pinned: Option<Look>,
    /// The file itself. The last of all, so that it is closed after the connections.
    content: Option<File>,
}

/// What went wrong with a database.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Somebody else has it for the moment.
    Busy(String),
    /// It cannot be done.
    Failed(String),
    /// The disk of the copy is full.
    Full,
}

/// The files of a database at one moment.
struct Look {
    database: FileStat,
    log: Option<FileStat>,
    settled: bool,
}

impl Database {
    /// Opens it, without holding or pinning anything.
    pub(super) fn open(path: &Path) -> Result<(Self, Opened), String> {
        let path = path.canonicalize().map_err(|e| format!("{} cannot be found: {e}{}", path.display(), remedy(&e)))?;
        let stat =
            path_stat(&path).map_err(|e| format!("{} cannot be looked at: {e}{}", path.display(), remedy(&e)))?;
        let had_log = path_stat(&log_path(&path)).is_ok();
        let failed = |e: rusqlite::Error| format!("{} cannot be opened as an SQLite database: {e}", path.display());
        let (reader, mode) = match open_usual(&path) {
            Ok((reader, mode)) => (reader, mode),
            // With a log, or a journal to be rolled back, the file by itself is not the database.
            Err(error) if is_denied(&error) && !had_log && path_stat(&beside(&path, "-journal")).is_err() => {
                (rows::open_unchanging(&path).map_err(|_| failed(error))?, Mode::Plain)
            }
            Err(error) => return Err(failed(error)),
        };
        let read_only = mode == Mode::Plain || reader.is_readonly(MAIN_DB).map_err(failed)?;
        if read_only && mode == Mode::Rollback {
            return Err(format!(
                "{} may not be written by this account, so its writers could not be kept waiting while it is copied, as a \
                 database with a rollback journal requires; let the account write the file and its folder",
                path.display()
            ));
        }
        let writer = if read_only { None } else { Some(open_usual(&path).map_err(failed)?.0) };
        for connection in writer.iter().chain([&reader]) {
            connection.busy_timeout(Duration::ZERO).map_err(failed)?;
            if had_log {
                // Whoever left the log there has the say over when it is written back.
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
            }
        }
        let engine = format!("SQLite {}", rusqlite::version());
        let file = (stat.dev, stat.ino);
        let (held, held_since, pinned, content) = (Duration::ZERO, None, None, None);
        let database = Self { path, mode, writer, reader, file, held_since, held, pinned, content };
        Ok((database, Opened { mode, read_only, engine }))
    }

    /// A number that changes when somebody commits.
    pub(super) fn version(&self) -> Result<i64, Trouble> {
        match &self.writer {
            Some(connection) => Ok(data_version(connection)?),
            // The reader may be pinned and would see nothing: the files tell, if more than necessary.
            None => self.look().map(|look| look.number()),
        }
    }

    /// Keeps writers waiting from now on.
    pub(super) fn hold(&mut self) -> Result<(), Trouble> {
        let Some(writer) = &self.writer else {
            let path = self.path.display();
            return Err(Trouble::Failed(format!(
                "{path} may not be written by this account, so its writers cannot be held"
            )));
        };
        writer.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.held_since = Some(Instant::now());
        Ok(())
    }

    /// Whether writers have been kept waiting since [`Database::hold`].
    pub(super) fn prove(&self) -> Result<(), Trouble> {
        let held = match &self.writer {
            Some(writer) => writer.transaction_state(Some(MAIN_DB))? == TransactionState::Write,
            None => false,
        };
        let stat = path_stat(&self.path).map_err(|e| Trouble::Failed(e.to_string()))?;
        if held && (stat.dev, stat.ino) == self.file {
            return Ok(());
        }
        Err(Trouble::Failed(format!("{} was replaced or not held", self.path.display())))
    }

    /// Pins what is committed now.
    pub(super) fn pin(&mut self) -> Result<(), Trouble> {
        // Looked at first: a commit between the two makes it look changed next time, and not unchanged.
        let look = self.look()?;
        self.reader.prepare_cached("BEGIN")?.execute([])?;
        self.pinned = Some(look);
        self.reader.prepare_cached("SELECT count(*) FROM sqlite_master")?.query_row([], |_| Ok(()))?;
        Ok(())
    }

    /// Lets writers go on.
    pub(super) fn release(&mut self) {
        if let (Some(since), Some(writer)) = (self.held_since.take(), &self.writer) {
            // It cannot fail: nothing has been written.
            let _ended = writer.prepare_cached("ROLLBACK").and_then(|mut s| s.execute([]));
            self.held = self.held.max(since.elapsed());
        }
    }

    /// Lets writers and the pin go.
    pub(super) fn let_go(&mut self) {
        if self.pinned.take().is_some() && !self.reader.is_autocommit() {
            let _ended = self.reader.prepare_cached("ROLLBACK").and_then(|mut s| s.execute([]));
        }
        self.release();
    }

    /// Its file system and number there.
    pub(super) fn file(&self) -> (u64, u64) {
        self.file
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// What is pinned.
    pub(super) fn pinned(&self) -> Result<Pinned, Trouble> {
        let Some(look) = &self.pinned else {
            return Err(Trouble::Failed(format!("{} was not pinned", self.path.display())));
        };
        let number = |pragma| self.reader.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        Ok(Pinned {
            mode: look.database.mode,
            uid: look.database.uid,
            gid: look.database.gid,
            mtime: look.mtime(),
            inode: look.database.ino,
            pages: number("page_count")?.unsigned_abs(),
            page_bytes: number("page_size")?.unsigned_abs(),
            data_version: number("data_version")?,
            stamp: look.settled.then(|| look.stamp()),
            held_us: u64::try_from(self.held.as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// Copies what is pinned into the new file `to`; there is none if the file `like` holds the same, and the answer is false.
    /// Given up after `limit`, if its writers are held.
    pub(super) fn copy(
        &mut self,
        to: &Path,
        like: Option<&Path>,
        limit: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<bool, Trouble> {
        self.open_file()?;
        let deadline = (self.mode == Mode::Rollback).then(|| self.held_since.unwrap_or_else(Instant::now) + limit);
        let mut untold = 0;
        let mut copied = |bytes| {
            untold += bytes;
            if bytes == 0 || untold >= TOLD {
                progress(std::mem::take(&mut untold));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) { Err(self.too_long(limit)) } else { Ok(()) }
        };
        let written = match self.pages()? {
            Some(pages) => pages.copy(to, like, &mut copied)?,
            None => {
                drop(durable::create_new(to).map_err(|e| copy_failed(to, &e))?);
                self.back_up(to, copied)?;
                true
            }
        };
        progress(untold);
        self.check_plain()?;
        Ok(written)
    }

    /// Opens the database's file, which stays open for as long as SQLite has it: closing it would take the locks of both
    /// connections away.
    fn open_file(&mut self) -> Result<(), Trouble> {
        if self.content.is_none() {
            let failed = |e| Trouble::Failed(format!("{} cannot be read: {e}", self.path.display()));
            let file = self.content.insert(File::open(&self.path).map_err(failed)?);
            let stat = file_stat(file).map_err(failed)?;
            if (stat.dev, stat.ino) != self.file {
                return Err(Trouble::Failed(format!("{} has been replaced by another file", self.path.display())));
            }
        }
        Ok(())
    }

    /// What is pinned, as pages that can be read; none if only SQLite's own means are left.
    fn pages(&self) -> Result<Option<Pages<'_>>, Trouble> {
        let (Some(file), true) = (&self.content, pages::are_shown_by(&self.reader)) else { return Ok(None) };
        let Pinned { pages: count, page_bytes: bytes, .. } = self.pinned()?;
        let in_log = match self.mode {
            Mode::Rollback | Mode::Plain => BTreeSet::new(),
            Mode::Wal => {
                let failed = |e| Trouble::Failed(format!("the log of {} cannot be read: {e}", self.path.display()));
                let log = File::open(log_path(&self.path)).map_err(failed)?;
                match pages::in_log(&log, bytes).map_err(failed)? {
                    Some(pages) => pages,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(Pages::new(&self.reader, file, count, bytes, in_log)))
    }

    /// The same by SQLite's own means.
    fn back_up(&self, to: &Path, mut copied: impl FnMut(u64) -> Result<(), Trouble>) -> Result<(), Trouble> {
        let page_bytes = self.pinned()?.page_bytes;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut target = Connection::open_with_flags(to, flags)?;
        // Nobody sees the copy before it is whole, and it is written to disk with all others.
        target.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
        let backup = Backup::new(&self.reader, &mut target)?;
        let mut done = 0;
        loop {
            let step = backup.step(STEP)?;
            let state = backup.progress();
            let now = u64::try_from(state.pagecount - state.remaining).unwrap_or(0);
            copied(now.saturating_sub(done) * page_bytes)?;
            done = now;
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => return Err(Trouble::Failed(format!("{} is locked although pinned", self.path.display()))),
            }
        }
        drop(backup);
        target.close().map_err(|(_, error)| error)?;
        Ok(())
    }

    fn too_long(&self, limit: Duration) -> Trouble {
        Trouble::Failed(format!(
            "{} could not be copied within the {} s that its writers may be kept waiting; switch it to \
             `PRAGMA journal_mode = WAL`, or raise the limit",
            self.path.display(),
            limit.as_secs()
        ))
    }

    /// A database that was read as a plain file must be as it was.
    fn check_plain(&self) -> Result<(), Trouble> {
        match &self.pinned {
            Some(pinned) if self.mode == Mode::Plain && pinned.stamp() != self.look()?.stamp() => {
                Err(Trouble::Failed(format!("{} came into use while it was copied", self.path.display())))
            }
            _ => Ok(()),
        }
    }

    fn look(&self) -> Result<Look, Trouble> {
        let failed = |e: io::Error| Trouble::Failed(format!("{} cannot be looked at: {e}", self.path.display()));
        let database = path_stat(&self.path).map_err(failed)?;
        if (database.dev, database.ino) != self.file {
            return Err(Trouble::Failed(format!("{} has been replaced by another file", self.path.display())));
        }
        let log = match path_stat(&log_path(&self.path)) {
            Ok(log) => (log.bytes > 0).then_some(log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let now = clock::now().as_nanosecond();
        let age = |time: Mtime| now - i128::from(time.seconds) * 1_000_000_000 - i128::from(time.nanoseconds);
        let margin = i128::try_from(MARGIN.as_nanos()).unwrap_or(i128::MAX);
        let settled = log.iter().chain([&database]).all(|stat| age(stat.ctime) > margin);
        Ok(Look { database, log, settled })
    }
}

impl Look {
    fn mtime(&self) -> Mtime {
        self.log.as_ref().map_or(self.database.mtime, |log| log.mtime.max(self.database.mtime))
    }

    /// Everything that changes when the database does.
    fn stamp(&self) -> String {
        let text = |stat: &FileStat| {
            let FileStat { dev, ino, bytes, mtime, ctime, .. } = stat;
            let (m, c) = (mtime, ctime);
            format!("{dev}:{ino}:{bytes}:{}.{:09}:{}.{:09}", m.seconds, m.nanoseconds, c.seconds, c.nanoseconds)
        };
        format!("{} {}", text(&self.database), self.log.as_ref().map_or_else(|| "-".to_owned(), text))
    }

    fn number(&self) -> i64 {
        let stamp = blake3::hash(self.stamp().as_bytes());
        stamp.as_bytes().first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                Self::Busy(error.to_string())
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed(format!("it cannot be copied into staging: {error}")),
        }
    }
}

fn open_usual(path: &Path) -> Result<(Connection, Mode), rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Nothing is held yet: whoever recovers the log right now may finish.
    connection.busy_timeout(Duration::from_secs(5))?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    // Reads the file: what is no database fails here.
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    Ok((connection, if mode.eq_ignore_ascii_case("wal") { Mode::Wal } else { Mode::Rollback }))
}

/// Whether this account lacks the rights for the files that SQLite makes beside a database with a log.
fn is_denied(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

fn data_version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn log_path(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    path.into()
}

pub(super) fn copy_failed(to: &Path, error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
        _ => Trouble::Failed(format!("the copy {} cannot be created: {error}", to.display())),
    }
}
