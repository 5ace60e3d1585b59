//! The SQLite sources: this side of the holder. One [`Party`] of the cut, and the copies into staging.

mod place;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::holder::{Answer, Ask, CopyAsk, Holder, HolderError, HolderProgram, Mode, Opened, Pinned};
use super::problems::Problems;
use super::protocol::{Order, Party, Refusal};
use super::settings::{CutSettings, SqliteSource};
use super::{CaptureError, Copies, Event, Watch, empty_record};
use crate::clock;
use crate::entry::escape;
use crate::generation::{Role, SourceRecord};
use crate::ids::SourceName;
use crate::platform::tree::path_stat;
use crate::staging::{Draft, LocalGeneration};

use place::{Known, Last, Place, STAMP, Target};

/// Opening may have to wait for somebody who recovers a log.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// Questions that are answered from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

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
    /// The member whose copy has been asked for, and not waited for yet.
    begun: Option<usize>,
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

impl Member<'_> {
    /// Whether its writers stay held until it has been copied.
    fn is_held_for_copy(&self) -> bool {
        matches!(self.opened, Ok(Opened { mode: Mode::Rollback, .. }))
    }
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
        let (holder, pinned, held_until, begun) = (None, None, None, None);
        let mut set = Self { program, cut, holder, members, pinned, held_until, begun, known, staging };
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
        let mut turns: Vec<(bool, usize)> = self.members.iter().map(Member::is_held_for_copy).zip(0..).collect();
        turns.sort_by_key(|(held, _)| !held);
        for (held, at) in turns {
            if !held {
                freed();
            }
            let Some(member) = self.members.get(at) else { continue };
            let mut problems = Problems::new(member.name);
            watch(Event::Started { source: member.name });
            let record = self.copy_one(at, &mut problems, &mut copies.void, watch)?;
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
                    target.remove()?;
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
            None => target.rows(),
        };
        let bytes = target.record(&mut writer, name, &pinned, linked)?;
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
        let begun = self.begun.take_if(|begun| *begun == at).is_some();
        if self.holder.is_none() {
            self.pinned = None;
            self.start()?;
        }
        match self.members.get(at).map(|member| &member.opened) {
            Some(Ok(_)) => {}
            Some(Err(why)) => return Ok(Answer::Failed { why: why.clone(), full: false }),
            None => return Err(HolderError::Lost),
        }
        let ask = self.copy_of(at, target, last);
        let Some(holder) = &mut self.holder else { return Err(HolderError::Lost) };
        let within = STEP_WITHIN.max(self.cut.barrier_within * 2);
        let told = if begun { Ok(()) } else { holder.tell(&ask) };
        let answer = told.and_then(|()| holder.answer_with_progress(within, progress));
        if answer.is_err() {
            self.holder = None;
        }
        answer
    }

    /// What the holder is asked for to have a copy.
    fn copy_of(&self, at: usize, target: &Target, last: Option<&Last>) -> Ask {
        Ask::Copy(CopyAsk {
            database: at,
            to: escape(target.path.as_os_str().as_encoded_bytes()),
            known: last.and_then(|last| last.stamp.clone()),
            like: last.map(|last| escape(last.path.as_os_str().as_encoded_bytes())),
            limit_us: micros(self.cut.rollback_limit),
            pin_within_us: self.pinned.is_none().then(|| micros(self.cut.barrier_within)),
        })
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

    /// Those whose writers are still held are waiting for their copies, so the first is begun before anything else.
    fn settle(&mut self) -> Result<(), Refusal> {
        let held = |member: &Member<'_>| member.is_held_for_copy() && member.place.is_some();
        let first = self.members.iter().position(held);
        let place = first.and_then(|at| Some((at, self.members.get(at)?.place.as_ref()?)));
        let Some((at, Place { target, last, .. })) = place else { return Ok(()) };
        let ask = self.copy_of(at, target, last.as_ref());
        let told = self.holder.as_mut().map_or(Err(HolderError::Lost), |holder| holder.tell(&ask));
        told.map_err(|error| Refusal::Busy(error.to_string()))?;
        self.begun = Some(at);
        Ok(())
    }

    fn let_go(&mut self) {
        let within = self.answer_within();
        self.pinned = None;
        self.held_until = None;
        if let Some(place) = self.begun.take().and_then(|at| self.members.get(at)?.place.as_ref()) {
            // It is at the copy, and answers nothing else; what it leaves of it is none, and may not be there.
            self.holder = None;
            let _removed = place.target.remove();
        }
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

/// Bytes of the database file and its log, as far as they can be looked at.
pub(super) fn file_bytes(source: &SqliteSource) -> u64 {
    bytes_of(&source.path) + log_bytes(source)
}

/// Bytes of its log.
pub(super) fn log_bytes(source: &SqliteSource) -> u64 {
    let mut log = source.path.clone().into_os_string();
    log.push("-wal");
    bytes_of(Path::new(&log))
}

fn bytes_of(path: &Path) -> u64 {
    path_stat(path).map_or(0, |stat| stat.bytes)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
