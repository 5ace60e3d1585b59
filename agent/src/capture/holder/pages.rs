//! Copying the pages of a pinned database: read and written in large pieces. SQLite's own backup reads and writes each page
//! by itself, which costs the kernel as much as everything else together.
//!
//! Most pages are read past SQLite, from the database's file, and that is as exact as asking SQLite:
//!
//! - With a write-ahead log, the file is changed by checkpoints only, and these write no frame beyond the mark of a reader:
//!   what they may write while the pin lasts are pages of which the log has a frame that the pin sees. Those, and any other
//!   page that the log has a frame of, valid or left over, are asked of SQLite. As long as the pin sees a frame, nobody begins the log
//!   anew, so the log still has all of them when it is looked through; if the pin sees none, nobody writes to the file at all.
//! - With a rollback journal nobody writes to the file while somebody reads.
//! - Of what lies beyond the file's end SQLite says that it is zero, and so does this.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::database::Trouble;
use super::target::Target;

/// Bytes read and written at once: a few of them stay in the caches of the cores between which they are passed on.
pub(super) const PIECE: usize = 256 << 10;

/// So many pieces are read ahead of the one that is written or compared: writers may be held until both are done.
const AHEAD: usize = 4;

/// SQLite keeps its locks at this place of the file, and never anything else in this page.
const LOCKS_AT: u64 = 1 << 30;

/// Sizes in a log's header and in front of each of its pages: "WAL File Format" of SQLite's documentation.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// A database that `reader` has pinned, and its file.
pub(super) struct Pages<'a> {
    pub(super) reader: &'a Connection,
    pub(super) file: &'a File,
    pub(super) count: u64,
    pub(super) bytes: u64,
    /// Pages that are asked of SQLite, from 1 on.
    pub(super) asked: BTreeSet<u64>,
}

/// Whether this SQLite can show pages as rows; one that was built otherwise cannot.
pub(super) fn are_shown_by(reader: &Connection) -> bool {
    reader.prepare("SELECT data FROM sqlite_dbpage").is_ok()
}

/// The pages of which this log has a frame, whether it is in use or left over. None if this is no log of pages of this size.
pub(super) fn in_log(log: &File, page_bytes: u64) -> io::Result<Option<BTreeSet<u64>>> {
    let mut pages = BTreeSet::new();
    let end = log.metadata()?.len();
    if end < LOG_HEADER {
        return Ok(Some(pages));
    }
    let number = |at| {
        let mut bytes = [0; 4];
        log.read_exact_at(&mut bytes, at).map(|()| u64::from(u32::from_be_bytes(bytes)))
    };
    if number(8)? != page_bytes {
        return Ok(None);
    }
    let mut at = LOG_HEADER;
    while at + FRAME_HEADER <= end {
        pages.insert(number(at)?);
        at += FRAME_HEADER + page_bytes;
    }
    Ok(Some(pages))
}

impl Pages<'_> {
    /// Copies all of them to `to`, and tells `copied` of the bytes as they go there.
    pub(super) fn copy(
        &self,
        to: &mut Target<'_>,
        copied: &mut dyn FnMut(u64) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let mut ask = self.reader.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let (file, end) = (self.file, self.count * self.bytes);
        thread::scope(|scope| {
            let (used_in, used) = sync_channel(AHEAD);
            let (full, pieces) = sync_channel(AHEAD);
            scope.spawn(move || read_ahead(file, end, &used, &full));
            let mut at = 0;
            for piece in pieces {
                let mut piece = piece?;
                let (first, pages) = (at / self.bytes + 1, piece.len() as u64 / self.bytes);
                for number in self.asked.range(first..first + pages) {
                    self.ask(*number, (number - first) * self.bytes, &mut ask, &mut piece)?;
                }
                if (first..first + pages).contains(&(LOCKS_AT / self.bytes + 1)) {
                    self.ask(LOCKS_AT / self.bytes + 1, LOCKS_AT - at, &mut ask, &mut piece)?;
                }
                to.take(&piece, copied)?;
                copied(piece.len() as u64)?;
                at += piece.len() as u64;
                let _full = used_in.try_send(piece);
            }
            if at == end { Ok(()) } else { Err(Trouble::Failed("the database was not read to its end".to_owned())) }
        })
    }

    /// Puts the page that SQLite sees into its place.
    fn ask(&self, number: u64, at: u64, ask: &mut Statement<'_>, piece: &mut [u8]) -> Result<(), Trouble> {
        let wrong = || Trouble::Failed("SQLite shows a page that is none".to_owned());
        let at = usize::try_from(at).map_err(|_| wrong())?;
        let bytes = usize::try_from(self.bytes).map_err(|_| wrong())?;
        let place = piece.get_mut(at..at + bytes).ok_or_else(wrong)?;
        let mut rows = ask.query([i64::try_from(number).map_err(|_| wrong())?])?;
        match rows.next()?.map(|row| row.get_ref(0)).transpose()? {
            Some(ValueRef::Blob(page)) if page.len() == bytes => place.copy_from_slice(page),
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// Reads the first `end` bytes of the file in pieces, until nobody wants them any more; `used` brings buffers back.
fn read_ahead(file: &File, end: u64, used: &Receiver<Vec<u8>>, pieces: &SyncSender<Result<Vec<u8>, Trouble>>) {
    for at in (0..end).step_by(PIECE) {
        let mut piece = used.try_recv().unwrap_or_default();
        piece.resize(usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE)), 0);
        let done = read(file, &mut piece, at).map(|()| piece);
        let failed = done.is_err();
        if pieces.send(done).is_err() || failed {
            return;
        }
    }
}

/// Reads what the file has from `at` on; beyond its end it has zeros.
fn read(file: &File, piece: &mut [u8], at: u64) -> Result<(), Trouble> {
    let failed = |e| Trouble::Failed(format!("the database cannot be read: {e}"));
    let mut done = 0;
    while let Some(rest) = piece.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64).map_err(failed)? {
            0 => {
                rest.fill(0);
                return Ok(());
            }
            read => done += read,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
