//! Copying the pages of a pinned database: its file as it lies there, and what SQLite sees otherwise put into the copy. Where
//! the file system can share content, no byte is moved but what it has not yet written; elsewhere the kernel copies by itself.
//! SQLite's own backup reads and writes each page.
//!
//! Most pages are copied past SQLite, from the database's file, and that is as exact as asking SQLite:
//!
//! - With a write-ahead log, the file is changed by checkpoints only, and these write no frame beyond the mark of a reader:
//!   what they may write while the pin lasts are pages of which the log has a frame that the pin sees. Those, and any other
//!   page that the log has a frame of, valid or left over, are asked of SQLite. As long as the pin sees a frame, nobody begins the log
//!   anew, so the log still has all of them when it is looked through; if the pin sees none, nobody writes to the file at all.
//! - With a rollback journal nobody writes to the file while somebody reads.
//! - Of what lies beyond the file's end SQLite says that it is zero, and so does this.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::database::{Trouble, copy_failed};
use crate::platform::copy::{copy_range, share_content};
use crate::{durable, platform};

/// Bytes compared at once: a few of them stay in the caches of the cores between which they are passed on.
const PIECE: usize = 256 << 10;

/// So many pieces are read ahead of the one that is compared.
const AHEAD: usize = 4;

/// After so many pages that were asked of SQLite it is told that the copy goes on.
const STEP: usize = 256;

/// SQLite keeps its locks at this place of the file, and never anything else in this page.
const LOCKS_AT: u64 = 1 << 30;

/// Sizes in a log's header and in front of each of its pages: "WAL File Format" of SQLite's documentation.
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// A database that `reader` has pinned, and its file.
pub(super) struct Pages<'a> {
    reader: &'a Connection,
    file: &'a File,
    count: u64,
    bytes: u64,
    /// Pages that are asked of SQLite, from 1 on.
    asked: BTreeSet<u64>,
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

impl<'a> Pages<'a> {
    /// `count` pages of `bytes` bytes. Those `in_log` are asked of SQLite, and the one in which it keeps its locks.
    pub(super) fn new(reader: &'a Connection, file: &'a File, count: u64, bytes: u64, in_log: BTreeSet<u64>) -> Self {
        let mut asked = in_log;
        asked.insert(LOCKS_AT / bytes + 1);
        Self { reader, file, count, bytes, asked }
    }

    /// Copies all of them into the new file `to`, unless the earlier copy `like` turns out to hold exactly that: then there is
    /// none, and the answer is false. Tells `copied` of the bytes as they go there, which may end it. What a killed holder leaves
    /// is no file, or one that is not whole.
    pub(super) fn copy(
        &self,
        to: &Path,
        like: Option<&Path>,
        copied: &mut dyn FnMut(u64) -> Result<(), Trouble>,
    ) -> Result<bool, Trouble> {
        let mut same = 0;
        // Without the earlier copy everything is written.
        if let Some(like) = like.and_then(|like| File::open(like).ok()) {
            same = self.compare(&like, copied)?;
            if same == self.end() && like.metadata().is_ok_and(|like| like.len() == same) {
                return Ok(false);
            }
        }
        let file = durable::create_new(to).map_err(|e| copy_failed(to, &e))?;
        let mut done: u64 = 0;
        let mut copied = |bytes| {
            done += bytes;
            // What was compared was told.
            let new = done.saturating_sub(same).min(bytes);
            copied(new)
        };
        self.copy_file(to, &file, &mut copied)?;
        let asked = self.asked.range(1..).take_while(|number| **number <= self.count);
        for (number, index) in asked.zip(1_usize..) {
            if index % STEP == 0 {
                copied(0)?;
            }
            self.ask(*number, |page| Ok(file.write_all_at(page, (number - 1) * self.bytes)?))?;
        }
        Ok(true)
    }

    fn end(&self) -> u64 {
        self.count * self.bytes
    }

    /// The file as it lies there; beyond its end there are zeros.
    fn copy_file(
        &self,
        path: &Path,
        to: &File,
        copied: &mut impl FnMut(u64) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        if share_content(self.file, to)? {
            // It is done, however long that took.
            let _late = copied(self.end());
        } else {
            // What was counted on to share its blocks may turn out not to, and lies on the same disk.
            if platform::free_bytes(path).is_ok_and(|free| free < self.end()) {
                return Err(Trouble::Full);
            }
            { self.file }.seek(SeekFrom::Start(0))?;
            let mut left = self.end();
            copy_range(self.file, to, left, &mut |bytes| {
                left -= bytes;
                copied(bytes)
            })?;
            copied(left)?;
        }
        Ok(to.set_len(self.end())?)
    }

    /// How much of `like` is what a copy would hold, in whole pieces.
    fn compare(&self, like: &File, copied: &mut dyn FnMut(u64) -> Result<(), Trouble>) -> Result<u64, Trouble> {
        let (file, end) = (self.file, self.end());
        let mut old = vec![0; PIECE];
        thread::scope(|scope| {
            let (used_in, used) = sync_channel(AHEAD);
            let (full, pieces) = sync_channel(AHEAD);
            scope.spawn(move || read_ahead(file, end, &used, &full));
            let mut at = 0;
            for piece in pieces {
                let mut piece = piece?;
                let first = at / self.bytes + 1;
                for number in self.asked.range(first..first + piece.len() as u64 / self.bytes) {
                    let offset = usize::try_from((number - first) * self.bytes).map_err(|_| no_page())?;
                    let place = piece.get_mut(offset..).ok_or_else(no_page)?;
                    self.ask(*number, |page| {
                        place.get_mut(..page.len()).map(|place| place.copy_from_slice(page)).ok_or_else(no_page)
                    })?;
                }
                let old = old.get_mut(..piece.len()).unwrap_or_default();
                if like.read_exact_at(old, at).is_err() || *old != *piece {
                    break;
                }
                at += piece.len() as u64;
                copied(piece.len() as u64)?;
                let _full = used_in.try_send(piece);
            }
            Ok(at)
        })
    }

    /// Has the page that SQLite sees.
    fn ask(&self, number: u64, take: impl FnOnce(&[u8]) -> Result<(), Trouble>) -> Result<(), Trouble> {
        let mut ask = self.reader.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let mut rows = ask.query([i64::try_from(number).map_err(|_| no_page())?])?;
        match rows.next()?.map(|row| row.get_ref(0)).transpose()? {
            Some(ValueRef::Blob(page)) if page.len() as u64 == self.bytes => take(page),
            _ => Err(no_page()),
        }
    }
}

fn no_page() -> Trouble {
    Trouble::Failed("SQLite shows a page that is none".to_owned())
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
