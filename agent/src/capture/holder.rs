//! The holder: a small process of its own that holds, pins and copies the SQLite databases; and, each in another such
//! process, engines that have programs to hold them ([`freeze`]).
//!
//! The locks of SQLite belong to a process, and vanish when that process opens and closes the database file by other means
//! or ends. So nothing else happens in the holder; it ends by itself when it has held writers for too long or when nobody
//! talks to it any more, and this side kills it when it does not answer in time. Whatever happens, the writers go on.
//!
//! Both talk in lines of JSON: one [`Ask`], then one [`Answer`], with [`Answer::Progress`] before that while copying.

mod database;
mod freeze;
mod pages;
mod serve;

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::entry::Mtime;
use crate::platform::process;

pub(super) use freeze::FreezeAsk;
pub use serve::serve;

/// How to start a holder: this program, with what makes it call [`serve()`].
#[derive(Clone, Debug)]
pub struct HolderProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl HolderProgram {
    /// This program itself: `offsite holder`.
    pub fn this() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["holder".to_owned()] })
    }
}

/// What the holder is asked to do. Databases are numbered as they were opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Open these databases. Nobody is held. Answered by [`Answer::Opened`].
    Open {
        /// Paths, as [`crate::entry::escape`] writes them.
        paths: Vec<String>,
    },
    /// Numbers that change when somebody commits. Answered by [`Answer::Versions`].
    Versions,
    /// Hold the writers of all databases, or of none. Answered by [`Answer::Done`] or [`Answer::Busy`].
    Hold {
        /// The holder ends itself after this long, in microseconds, unless they are released.
        limit_us: u64,
    },
    /// Pin what is committed. Answered by [`Answer::Done`] or [`Answer::Busy`].
    Pin,
    /// Show that all writers have been held all the time. Answered by [`Answer::Done`] or [`Answer::Failed`].
    Prove,
    /// Let writers go on, except those of databases that cannot be pinned otherwise. Answered by [`Answer::Done`].
    Release {
        /// The holder ends itself after this long, in microseconds, unless those that are left have been copied.
        limit_us: u64,
    },
    /// Let everything go. Answered by [`Answer::Done`].
    LetGo,
    /// Copy a pinned database. Answered by [`Answer::Copied`], [`Answer::Unchanged`] or [`Answer::Failed`].
    Copy(CopyAsk),
    /// Run the program that keeps the writers of an engine waiting. Answered by [`Answer::Begun`], and then by
    /// [`Answer::Done`], or by [`Answer::Busy`] if it did not work, and nobody is held.
    Freeze(FreezeAsk),
    /// Show that they have been kept waiting all the time. Answered by [`Answer::Done`] or [`Answer::Busy`].
    IsFrozen,
    /// Run the program that lets them go on. Answered by [`Answer::Done`], [`Answer::Failed`], or [`Answer::Busy`] if they
    /// have been let go before.
    Thaw,
    /// Close everything and end. Answered by [`Answer::Done`].
    Close,
}

/// What to copy where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CopyAsk {
    /// The database.
    pub(super) database: usize,
    /// The new file, as [`crate::entry::escape`] writes it.
    pub(super) to: String,
    /// The stamp of the copy that is at hand: if the database still has it, it is not copied.
    pub(super) known: Option<String>,
    /// The copy that is at hand, as [`crate::entry::escape`] writes it: if the database has the same content, nothing is written.
    pub(super) like: Option<String>,
    /// If its writers have to be held for it: the copy is given up after this long, in microseconds.
    pub(super) limit_us: u64,
    /// Whether it is not pinned yet: then the holder waits up to this long, in microseconds, until it can be.
    pub(super) pin_within_us: Option<u64>,
}

/// What the holder answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Each database, or why it cannot be copied.
    Opened(Vec<Result<Opened, String>>),
    /// One number per database that is open; the same for as long as nobody commits.
    Versions(Vec<i64>),
    /// Done, for all databases that are open.
    Done,
    /// Nothing is held or pinned; it can be tried again.
    Busy(String),
    /// It cannot be done.
    Failed {
        /// Why.
        why: String,
        /// Whether because the disk of the copy is full.
        full: bool,
    },
    /// This many bytes more have been copied.
    Progress(u64),
    /// A program has been started; this is its process group.
    Begun(u32),
    /// Copied.
    Copied(Pinned),
    /// Not copied: it is as it was when the known stamp was taken, or has the same content as the copy at hand.
    Unchanged(Pinned),
}

/// A database that has been opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    /// How writers and readers meet.
    pub(super) mode: Mode,
    /// Whether this account may not write it: its writers cannot be held.
    pub(super) read_only: bool,
    /// The engine and its version.
    pub(super) engine: String,
}

/// How a database is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// Write-ahead log: a pin holds nobody.
    Wal,
    /// Rollback journal: a pin keeps commits waiting.
    Rollback,
    /// Write-ahead log, but nobody has it open and this account cannot open it as usual: it is read as a plain file, and
    /// must not change meanwhile.
    Plain,
}

/// A database as it was pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pinned {
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u64,
    /// Group.
    pub(super) gid: u64,
    /// Last change of the database or of its log.
    pub(super) mtime: Mtime,
    /// Its number in the file system.
    pub(super) inode: u64,
    /// Pages.
    pub(super) pages: u64,
    /// Bytes of a page.
    pub(super) page_bytes: u64,
    /// SQLite's data version.
    pub(super) data_version: i64,
    /// Tells next time whether it has changed. Absent if a change just now might not show.
    pub(super) stamp: Option<String>,
    /// How long its writers were held, in microseconds.
    pub(super) held_us: u64,
}

/// Why the helper process that copies SQLite databases is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// It could not be started.
    #[error("the helper process that copies SQLite databases could not be started")]
    Start(#[source] io::Error),
    /// It ended, or its answer was no answer.
    #[error("the helper process that copies SQLite databases ended unexpectedly")]
    Lost,
    /// It was killed because it did not answer in time.
    #[error("the helper process that copies SQLite databases did not answer within {} ms and was ended", .0.as_millis())]
    Late(Duration),
}

/// A running holder.
#[derive(Debug)]
pub(super) struct Holder {
    child: Child,
    input: ChildStdin,
    answers: Receiver<Answer>,
    killed: bool,
}

impl Holder {
    pub(super) fn start(program: &HolderProgram) -> Result<Self, HolderError> {
        let mut child = Command::new(&program.program)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt typed at the terminal is for the agent; the holder ends when the agent does.
            .process_group(0)
            .spawn()
            .map_err(HolderError::Start)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(HolderError::Lost);
        };
        let (sender, answers) = sync_channel(16);
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let answer = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(answer) = answer else { return };
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, answers, killed: false })
    }

    /// Asks, and waits for the answer. A holder that has not answered after `limit` is killed: its locks are gone when
    /// this returns.
    pub(super) fn ask(&mut self, ask: &Ask, limit: Duration) -> Result<Answer, HolderError> {
        self.tell(ask)?;
        self.answer(limit)
    }

    /// The answer to what was asked for a copy, waited for as in [`Holder::ask`]; `limit` is for each step of it.
    pub(super) fn answer_with_progress(
        &mut self,
        limit: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<Answer, HolderError> {
        loop {
            match self.answer(limit)? {
                Answer::Progress(bytes) => progress(bytes),
                answer => return Ok(answer),
            }
        }
    }

    /// Asks something whose answer will be waited for later.
    pub(super) fn tell(&mut self, ask: &Ask) -> Result<(), HolderError> {
        let mut line = serde_json::to_vec(ask).map_err(|_| HolderError::Lost)?;
        line.push(b'\n');
        self.input.write_all(&line).map_err(|_| HolderError::Lost)
    }

    /// The next answer, waited for as in [`Holder::ask`].
    pub(super) fn answer(&mut self, limit: Duration) -> Result<Answer, HolderError> {
        self.answers.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Disconnected => HolderError::Lost,
            RecvTimeoutError::Timeout => {
                self.kill();
                HolderError::Late(limit)
            }
        })
    }

    fn kill(&mut self) {
        if !std::mem::replace(&mut self.killed, true) {
            process::kill_group(&self.child);
            // It cannot fail for a child of ours.
            let _ended = self.child.wait();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}
