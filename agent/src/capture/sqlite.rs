//! The SQLite sources: this side of the holder. One [`Party`] of the cut, and the copies into staging.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::holder::{Answer, Ask, CopyAsk, Holder, HolderError, HolderProgram, Mode, Opened, Pinned};
use super::problems::Problems;
use super::protocol::{Order, Party, Refusal};
use super::settings::{CutSettings, SqliteSource};
use super::{CaptureError, Copies, Event, Watch, empty_record};
use crate::clock;
use crate::entry::{Entry, EntryKind, EntryPath, Mtime, escape};
use crate::generation::{Role, SourceRecord};
use crate::ids::SourceName;
use crate::platform::tree::{self, Dir, path_stat};
use crate::rows::{self, Rows};
use crate::staging::{Draft, IndexedEntry, LocalGeneration, SourceWriter, StagingError};

/// Opening may have to wait for somebody who recovers a log.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// Questions that are answered from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Counting the rows of one copy. It lies in memory, so a gigabyte takes about a second.
const COUNT_WITHIN: Duration = Duration::from_secs(20);

/// A step of a copy, or its first one, on a disk that has much else to do.
const STEP_WITHIN: Duration = Duration::from_secs(600);

/// All SQLite sources of a capture.
#[derive(Debug)]
pub(super) struct SqliteSet<'a> {
    program: &'a HolderProgram,
    cut: &'a CutSettings,
    holder: Option<Holder>,
    members: Vec<Member<'a>>,
    /// Whether all are pinned at one instant, in a holder that is still the same.
    pinned: Option<Timestamp>,
    /// While writers are held, and after: until when they may be.
    held_until: Option<Instant>,
    known: Known<'a>,
    staging: PathBuf,
}

/// One of them.
#[derive(Debug)]
struct Member<'a> {
    name: &'a SourceName,
    source: &'a SqliteSource,
    /// Its state, or why it cannot be copied.
    opened: Result<Opened, String>,
    /// Where its copy goes, if its path names a file.
    place: Option<Place>,
}

/// What is needed for a copy and takes time to have, so that it is made before anybody is held.
#[derive(Debug)]
struct Place {
    writer: SourceWriter,
    target: Target,
    last: Option<Last>,
}

impl<'a> SqliteSet<'a> {
    /// Opens all of them, to be copied to `draft`. One that cannot be opened does not keep the others from being copied.
    pub(super) fn open(
        sources: &[(&'a SourceName, &'a SqliteSource)],
        program: &'a HolderProgram,
        cut: &'a CutSettings,
        draft: &Draft,
        previous: Option<&'a LocalGeneration>,
    ) -> Result<Self, CaptureError> {
        let known = Known::of(previous)?;
        let member = |(name, source): &(&'a SourceName, &'a SqliteSource)| {
            let place = Place::new(name, source, draft, &known)?;
            Ok(Member { name, source, opened: Err(String::new()), place })
        };
        let members = sources.iter().map(member).collect::<Result<_, CaptureError>>()?;
        let staging = draft.root().to_owned();
        let mut set = Self { program, cut, holder: None, members, pinned: None, held_until: None, known, staging };
        if !set.members.is_empty() {
            set.start().map_err(CaptureError::Holder)?;
        }
        Ok(set)
    }

    fn start(&mut self) -> Result<(), HolderError> {
        let mut holder = Holder::start(self.program)?;
        let path = |member: &Member<'_>| escape(member.source.path.as_os_str().as_encoded_bytes());
        let paths = self.members.iter().map(path).collect();
        match holder.ask(&Ask::Open { paths }, OPEN_WITHIN)? {
            Answer::Opened(opened) if opened.len() == self.members.len() => {
                for (member, opened) in self.members.iter_mut().zip(opened) {
                    member.opened = opened;
                }
            }
            _ => return Err(HolderError::Lost),
        }
        self.holder = Some(holder);
        Ok(())
    }

    fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.members.iter().filter_map(|member| member.opened.as_ref().ok())
    }

    /// Asks for something that is done for all or none.
    fn ask(&mut self, ask: &Ask, within: Duration) -> Result<Answer, Refusal> {
        if self.holder.is_none() {
            self.start().map_err(|e| Refusal::Never(e.to_string()))?;
        }
        let Some(holder) = &mut self.holder else { return Err(Refusal::Never(HolderError::Lost.to_string())) };
        match holder.ask(ask, within) {
            Ok(Answer::Busy(why)) => Err(Refusal::Busy(why)),
            Ok(Answer::Failed { why, .. }) => Err(Refusal::Never(why)),
            Ok(answer) => Ok(answer),
            // A new one is started for the next try; what this one held is free.
            Err(error) => {
                self.holder = None;
                Err(Refusal::Busy(error.to_string()))
            }
        }
    }

    /// Copies all of them, those first whose writers are still held; when none of these is left, `freed` is told, perhaps
    /// more than once. If there will be another cut, it stops as soon as this one is void.
    pub(super) fn copy(
        &mut self,
        again: bool,
        watch: Watch<'_>,
        freed: &mut impl FnMut(),
    ) -> Result<Copies, CaptureError> {
        let mut copies = Copies::default();
        let held = |member: &Member<'_>| matches!(member.opened, Ok(Opened { mode: Mode::Rollback, .. }));
        let mut turns: Vec<(bool, usize)> = self.members.iter().map(held).zip(0..).collect();
        turns.sort_by_key(|(held, _)| !held);
        for (held, at) in turns {
            if !held {
                freed();
            }
            let Some(member) = self.members.get(at) else { continue };
            let mut problems = Problems::new(member.name);
            watch(Event::Started { source: member.name });
            let record = self.copy_one(at, &mut problems, &mut copies.void, watch)?;
            watch(Event::Finished { source: &record.name });
            copies.records.push(record);
            copies.problems.push(problems);
            if again && copies.void.is_some() {
                break;
            }
        }
        freed();
        if copies.void.is_some() {
            for record in &mut copies.records {
                record.role = Role::Leisure;
            }
        }
        if let Some(holder) = &mut self.holder {
            // Closed in good order, SQLite removes the log files it has made; if that fails, the next user does.
            let _closed = holder.ask(&Ask::Close, OPEN_WITHIN);
        }
        Ok(copies)
    }

    fn copy_one(
        &mut self,
        at: usize,
        problems: &mut Problems,
        void: &mut Option<String>,
        watch: Watch<'_>,
    ) -> Result<SourceRecord, CaptureError> {
        let started = clock::now();
        let Some(Member { name, source, place, .. }) = self.members.get_mut(at) else {
            return Err(CaptureError::Holder(HolderError::Lost));
        };
        let (name, source) = (*name, *source);
        let mut record = empty_record(name, "sqlite", started);
        let Some(Place { mut writer, target, last }) = place.take() else {
            problems.missing(None, format!("{} names no file", source.path.display()));
            return Ok(record);
        };
        let copied = loop {
            let watched = |bytes| watch(Event::Copied { source: name, bytes });
            match self.ask_copy(at, &target, last.as_ref(), watched) {
                Ok(answer) => break answer,
                // What was pinned is gone with the holder: what is left is copied by itself.
                Err(error) if self.pinned.take().is_some() => {
                    *void = Some(error.to_string());
                    remove_if_there(&target.path)?;
                }
                Err(error) => break Answer::Failed { why: error.to_string(), full: false },
            }
        };
        let (pinned, linked) = match copied {
            Answer::Copied(pinned) => (pinned, false),
            Answer::Unchanged(pinned) => (pinned, true),
            Answer::Failed { full: true, .. } => {
                return Err(CaptureError::NoSpace { folder: self.staging.clone(), needed: file_bytes(source) });
            }
            Answer::Failed { why, .. } | Answer::Busy(why) => {
                writer.discard()?;
                problems.missing(None, why);
                return Ok(record);
            }
            _ => return Err(CaptureError::Holder(HolderError::Lost)),
        };
        let linked = if linked { last } else { None };
        record.rows = match &linked {
            Some(_) => self.known.rows(name),
            None => rows_of(&target),
        };
        let bytes = record_entries(&mut writer, name, &target, &pinned, linked)?;
        let written = writer.finish()?;
        self.describe(at, &mut record, &pinned);
        record.entries = written.entries;
        record.bytes = bytes;
        record.finished = clock::now();
        Ok(record)
    }

    fn ask_copy(
        &mut self,
        at: usize,
        target: &Target,
        last: Option<&Last>,
        progress: impl FnMut(u64),
    ) -> Result<Answer, HolderError> {
        if self.holder.is_none() {
            self.pinned = None;
            self.start()?;
        }
        match self.members.get(at).map(|member| &member.opened) {
            Some(Ok(_)) => {}
            Some(Err(why)) => return Ok(Answer::Failed { why: why.clone(), full: false }),
            None => return Err(HolderError::Lost),
        }
        let Some(holder) = &mut self.holder else { return Err(HolderError::Lost) };
        let ask = Ask::Copy(CopyAsk {
            database: at,
            to: escape(target.path.as_os_str().as_encoded_bytes()),
            known: last.and_then(|last| last.stamp.clone()),
            like: last.map(|last| escape(last.path.as_os_str().as_encoded_bytes())),
            limit_us: micros(self.cut.rollback_limit),
            pin_within_us: self.pinned.is_none().then(|| micros(self.cut.barrier_within)),
        });
        let within = STEP_WITHIN.max(self.cut.barrier_within * 2);
        let answer = holder.ask_with_progress(&ask, within, progress);
        if answer.is_err() {
            self.holder = None;
        }
        answer
    }

    fn describe(&self, at: usize, record: &mut SourceRecord, pinned: &Pinned) {
        let Some(Member { opened: Ok(opened), .. }) = self.members.get(at) else { return };
        record.engine = Some(opened.engine.clone());
        record.pinned_at = self.pinned.or(Some(record.started));
        record.role = match (self.pinned, self.held_until.is_some()) {
            (None, _) => Role::Leisure,
            (Some(_), true) => Role::Held,
            (Some(_), false) if self.opened().count() == 1 => Role::Pivot,
            (Some(_), false) => Role::Proved,
        };
        record.held_us = pinned.held_us;
        let mode = match opened.mode {
            Mode::Wal => "wal",
            Mode::Rollback => "rollback",
            Mode::Plain => "wal, not in use",
        };
        let mut note = |key: &str, value: String| record.position.insert(key.to_owned(), value);
        note("journal_mode", mode.to_owned());
        note("pages", pinned.pages.to_string());
        note("page_bytes", pinned.page_bytes.to_string());
        note("data_version", pinned.data_version.to_string());
        note("inode", pinned.inode.to_string());
        if let Some(stamp) = &pinned.stamp {
            note(STAMP, stamp.clone());
        }
    }
}

impl Party for SqliteSet<'_> {
    fn order(&self) -> Order {
        Order::Transactions
    }

    fn members(&self) -> usize {
        self.opened().count()
    }

    fn pins_freely(&self) -> bool {
        self.opened().all(|opened| opened.mode != Mode::Rollback)
    }

    fn versions(&mut self) -> Result<String, Refusal> {
        match self.ask(&Ask::Versions, ANSWER_WITHIN)? {
            Answer::Versions(versions) => Ok(format!("{versions:?}")),
            _ => Err(Refusal::Never(HolderError::Lost.to_string())),
        }
    }

    fn hold(&mut self, left: Duration) -> Result<(), Refusal> {
        // Started before the clock runs: opening takes its time.
        if self.holder.is_none() {
            self.start().map_err(|e| Refusal::Never(e.to_string()))?;
        }
        self.held_until = Some(Instant::now() + left);
        self.ask(&Ask::Hold { limit_us: micros(left) }, left).map(|_| ())
    }

    fn pin(&mut self) -> Result<(), Refusal> {
        let now = clock::now();
        self.ask(&Ask::Pin, self.answer_within())?;
        self.pinned = Some(now);
        Ok(())
    }

    fn prove(&mut self) -> Result<(), Refusal> {
        self.ask(&Ask::Prove, self.answer_within()).map(|_| ())
    }

    fn release(&mut self) -> Result<(), Refusal> {
        self.ask(&Ask::Release { limit_us: micros(self.cut.rollback_limit) }, self.answer_within()).map(|_| ())
    }

    fn let_go(&mut self) {
        let within = self.answer_within();
        self.pinned = None;
        self.held_until = None;
        if let Some(holder) = &mut self.holder
            && !matches!(holder.ask(&Ask::LetGo, within), Ok(Answer::Done))
        {
            // Dropped, it is killed, and its locks are gone.
            self.holder = None;
        }
    }
}

impl SqliteSet<'_> {
    /// How long an answer is waited for: while writers are held, until they must not be any longer.
    fn answer_within(&self) -> Duration {
        self.held_until.map_or(ANSWER_WITHIN, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// Where a copy goes.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    file_name: Vec<u8>,
}

impl Place {
    fn new(
        name: &SourceName,
        source: &SqliteSource,
        draft: &Draft,
        known: &Known<'_>,
    ) -> Result<Option<Self>, StagingError> {
        let Some(file_name) = source.path.file_name() else { return Ok(None) };
        let writer = draft.source(name)?;
        let target = Target { path: writer.folder().join(file_name), file_name: file_name.as_encoded_bytes().to_vec() };
        let last = known.find(name, &target.file_name);
        Ok(Some(Self { writer, target, last }))
    }
}

const STAMP: &str = "stamp";

/// What the previous generation has of the same databases.
#[derive(Debug)]
struct Known<'a> {
    previous: Option<&'a LocalGeneration>,
    records: Vec<SourceRecord>,
}

/// A copy that is at hand.
#[derive(Debug)]
struct Last {
    /// What the database had then, if that would have told of any change.
    stamp: Option<String>,
    path: PathBuf,
    folder: PathBuf,
    bytes: u64,
    sparse: bool,
}

impl<'a> Known<'a> {
    fn of(previous: Option<&'a LocalGeneration>) -> Result<Self, StagingError> {
        let records = previous.map(LocalGeneration::document).transpose()?.map_or_else(Vec::new, |d| d.sources);
        Ok(Self { previous, records })
    }

    /// What was counted then.
    fn rows(&self, name: &SourceName) -> BTreeMap<String, Rows> {
        self.records.iter().find(|record| record.name == *name).map(|record| record.rows.clone()).unwrap_or_default()
    }

    fn find(&self, name: &SourceName, file_name: &[u8]) -> Option<Last> {
        let previous = self.previous?;
        let record = self.records.iter().find(|record| record.name == *name)?;
        let stamp = record.position.get(STAMP).cloned();
        let path = EntryPath::new(name.as_str()).and_then(|path| path.join(file_name)).ok()?;
        let entry = previous.entries_of(name).ok()?.filter_map(Result::ok).find(|e| e.entry.path == path)?;
        match entry.entry.kind {
            EntryKind::File { bytes, sparse } => {
                let folder = previous.data_folder(name);
                Some(Last { stamp, path: folder.join(tree::name(file_name)), folder, bytes, sparse })
            }
            _ => None,
        }
    }
}

fn record_entries(
    writer: &mut SourceWriter,
    name: &SourceName,
    target: &Target,
    pinned: &Pinned,
    linked: Option<Last>,
) -> Result<u64, CaptureError> {
    let failed = |e| StagingError::io("finish", &target.path, e);
    let bytes = match &linked {
        Some(last) => {
            let link = || Dir::open(writer.folder())?.link(&Dir::open(&last.folder)?, &target.file_name);
            link().map_err(failed)?;
            last.bytes
        }
        None => {
            let file = std::fs::File::open(&target.path).map_err(failed)?;
            crate::platform::tree::set_file_mode(&file, 0o400).map_err(failed)?;
            path_stat(&target.path).map_err(failed)?.bytes
        }
    };
    let sparse = linked.as_ref().is_some_and(|last| last.sparse);
    let root = EntryPath::new(name.as_str())?;
    let path = root.join(&target.file_name)?;
    let Pinned { mode, uid, gid, mtime, .. } = *pinned;
    let entry = |path, kind, mode, mtime: Mtime| Entry { path, kind, mode, uid, gid, mtime };
    let folder = entry(root, EntryKind::Folder, 0o700, mtime);
    writer.add(&IndexedEntry { entry: folder, linked: false, seen: None })?;
    let file = entry(path, EntryKind::File { bytes, sparse }, mode, mtime);
    writer.add(&IndexedEntry { entry: file, linked: linked.is_some(), seen: None })?;
    Ok(bytes)
}

/// What cannot be counted does not keep the copy from being one.
fn rows_of(target: &Target) -> BTreeMap<String, Rows> {
    match rows::count(&target.path, COUNT_WITHIN) {
        Ok(rows) => BTreeMap::from([(String::from_utf8_lossy(&target.file_name).into_owned(), rows)]),
        Err(error) => {
            tracing::debug!(path = %target.path.display(), %error, "the rows were not counted");
            BTreeMap::new()
        }
    }
}

fn remove_if_there(path: &std::path::Path) -> Result<(), StagingError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StagingError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Bytes of the database file and its log, as far as they can be looked at.
pub(super) fn file_bytes(source: &SqliteSource) -> u64 {
    let mut log = source.path.clone().into_os_string();
    log.push("-wal");
    [source.path.clone(), PathBuf::from(log)]
        .iter()
        .filter_map(|path| path_stat(path).ok())
        .map(|stat| stat.bytes)
        .sum()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
