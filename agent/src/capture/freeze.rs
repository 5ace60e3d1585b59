//! Engines that another program copies, and that have programs to keep their writers waiting: one [`Party`] of the cut.
//!
//! The program that holds also fixes what is going to be copied (a snapshot, a file that the engine no longer writes to). Each
//! engine has a holder process, which lets writers go when this one dies or stands still; when the holder dies or stands
//! still, this one does.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::command;
use super::holder::{Answer, Ask, FreezeAsk, Holder, HolderProgram};
use super::problems::Problems;
use super::protocol::{Order, Party, Refusal};
use super::settings::{CommandHold, CommandSource};
use super::{CaptureError, Copies, Event, Watch, empty_record, written};
use crate::clock;
use crate::generation::{Role, SourceRecord};
use crate::ids::SourceName;
use crate::platform::process;
use crate::staging::{Draft, SourceWriter};

/// Longer than a release is waited for by whoever runs it.
const RELEASED_WITHIN: Duration = Duration::from_secs(12);

/// All such sources of a capture.
pub(super) struct FreezeSet<'a> {
    program: &'a HolderProgram,
    members: Vec<Member<'a>>,
    pinned: Option<Timestamp>,
    /// Until when writers may be held.
    until: Instant,
}

/// One of them.
struct Member<'a> {
    name: &'a SourceName,
    source: &'a CommandSource,
    programs: &'a CommandHold,
    writer: SourceWriter,
    holder: Option<Holder>,
    /// Since when its writers are held, or may be.
    held: Option<Instant>,
    held_us: u64,
    /// The process group of the program that holds.
    group: Option<u32>,
    /// Why it is not tried again: its writers may still be held.
    stuck: Option<String>,
}

impl<'a> FreezeSet<'a> {
    /// Nothing is run yet.
    pub(super) fn open(
        sources: &[(&'a SourceName, &'a CommandSource)],
        program: &'a HolderProgram,
        draft: &Draft,
    ) -> Result<Self, CaptureError> {
        let mut members = Vec::new();
        for (name, source) in sources {
            let Some(programs) = &source.hold else { continue };
            members.push(Member {
                name,
                source,
                programs,
                writer: draft.source(name)?,
                holder: None,
                held: None,
                held_us: 0,
                group: None,
                stuck: None,
            });
        }
        Ok(Self { program, members, pinned: None, until: Instant::now() })
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Has all of them copied, one after the other.
    pub(super) fn copy(self, watch: Watch<'_>) -> Result<Copies, CaptureError> {
        let mut copies = Copies::default();
        for member in self.members {
            watch(Event::Started { source: member.name });
            let mut problems = Problems::new(member.name);
            let record = member.copy(self.pinned, &mut problems)?;
            watch(Event::Copied { source: &record.name, bytes: record.bytes });
            copies.records.push(record);
            copies.problems.push(problems);
        }
        Ok(copies)
    }
}

impl Party for FreezeSet<'_> {
    fn order(&self) -> Order {
        Order::Programs
    }

    fn members(&self) -> usize {
        self.members.len()
    }

    fn pins_freely(&self) -> bool {
        false
    }

    fn has_versions(&self) -> bool {
        false
    }

    fn ready(&mut self) -> Result<(), Refusal> {
        self.pinned = None;
        for member in &mut self.members {
            if let Some(why) = &member.stuck {
                return Err(Refusal::Never(why.clone()));
            }
            if member.holder.is_none() {
                let holder = Holder::start(self.program).map_err(|e| Refusal::Never(e.to_string()))?;
                member.holder = Some(holder);
            }
        }
        Ok(())
    }

    fn versions(&mut self) -> Result<String, Refusal> {
        Err(Refusal::Never("this engine has no version that would show every commit".to_owned()))
    }

    fn hold(&mut self, left: Duration) -> Result<(), Refusal> {
        self.until = Instant::now() + left;
        let mut held = self.members.iter_mut().try_for_each(|member| member.begin(left));
        for member in &mut self.members {
            let until = self.until;
            held = held.and_then(|()| member.wait_until_held(until));
        }
        held.map_err(|why| {
            self.let_go();
            Refusal::Busy(why)
        })
    }

    /// The programs have fixed what is to be copied.
    fn pin(&mut self) -> Result<(), Refusal> {
        self.pinned = Some(clock::now());
        Ok(())
    }

    fn prove(&mut self) -> Result<(), Refusal> {
        let left = self.left();
        self.members.iter_mut().try_for_each(|member| member.ask(&Ask::IsFrozen, left)).map_err(Refusal::Busy)
    }

    fn release(&mut self) -> Result<(), Refusal> {
        self.members.iter_mut().try_for_each(|member| member.tell(&Ask::Thaw)).map_err(Refusal::Busy)
    }

    /// Waits until writers go on.
    fn settle(&mut self) -> Result<(), Refusal> {
        self.members.iter_mut().try_for_each(Member::wait_until_released)
    }

    fn let_go(&mut self) {
        self.pinned = None;
        self.members.iter_mut().for_each(Member::let_go);
    }
}

impl Member<'_> {
    fn begin(&mut self, left: Duration) -> Result<(), String> {
        let limit_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        let ask = FreezeAsk::new(self.source, self.programs, self.writer.folder(), limit_us);
        (self.held, self.group) = (Some(Instant::now()), None);
        self.tell(&Ask::Freeze(ask))
    }

    fn wait_until_held(&mut self, until: Instant) -> Result<(), String> {
        loop {
            match self.answer(until.saturating_duration_since(Instant::now()))? {
                Answer::Begun(group) => self.group = Some(group),
                Answer::Done => return Ok(()),
                Answer::Busy(why) => {
                    // The holder has let them go.
                    self.held = None;
                    return Err(why);
                }
                _ => return Err(self.lost()),
            }
        }
    }

    fn wait_until_released(&mut self) -> Result<(), Refusal> {
        let answer = self.answer(RELEASED_WITHIN).map_err(Refusal::Busy)?;
        let held = self.held.take();
        match answer {
            Answer::Done => {
                let held = held.map_or(Duration::ZERO, |held| held.elapsed());
                self.held_us = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
                Ok(())
            }
            Answer::Busy(why) => Err(Refusal::Busy(why)),
            Answer::Failed { why, .. } => {
                self.released(Err(why.clone()));
                Err(Refusal::Busy(why))
            }
            _ => Err(Refusal::Busy(self.lost())),
        }
    }

    /// Writers are let go by the holder, and if that does not work, by this process.
    fn let_go(&mut self) {
        if self.held.take().is_none() {
            return;
        }
        let thawed = self.tell(&Ask::Thaw).and_then(|()| self.answer(RELEASED_WITHIN));
        match thawed {
            Ok(Answer::Done | Answer::Busy(_)) => {}
            Ok(Answer::Failed { why, .. }) => self.released(Err(why)),
            _ => {
                // Dropped, it is killed; what it has begun must not hold anybody afterwards.
                self.holder = None;
                if let Some(group) = self.group {
                    process::kill_group_of(group);
                }
                let released = command::release(self.source, self.programs, self.writer.folder());
                self.released(released);
            }
        }
    }

    /// A release that has failed is tried once more, and no hold after it if it fails again.
    fn released(&mut self, released: Result<(), String>) {
        if released.is_err() {
            let again = command::release(self.source, self.programs, self.writer.folder());
            self.stuck = again.err().map(|why| {
                format!("{why}; see whether the writers of {} are still held, and let them go by hand", self.name)
            });
        }
    }

    fn tell(&mut self, ask: &Ask) -> Result<(), String> {
        let Some(holder) = &mut self.holder else { return Err(self.lost()) };
        holder.tell(ask).map_err(|error| {
            self.holder = None;
            error.to_string()
        })
    }

    fn answer(&mut self, limit: Duration) -> Result<Answer, String> {
        let Some(holder) = &mut self.holder else { return Err(self.lost()) };
        holder.answer(limit).map_err(|error| {
            self.holder = None;
            error.to_string()
        })
    }

    fn ask(&mut self, ask: &Ask, limit: Duration) -> Result<(), String> {
        self.tell(ask)?;
        match self.answer(limit)? {
            Answer::Done => Ok(()),
            Answer::Busy(why) => Err(why),
            _ => Err(self.lost()),
        }
    }

    fn lost(&mut self) -> String {
        self.holder = None;
        format!("the helper process that holds the writers of {} was lost", self.name)
    }

    fn copy(self, pinned: Option<Timestamp>, problems: &mut Problems) -> Result<SourceRecord, CaptureError> {
        let mut record = empty_record(self.name, "command", clock::now());
        if pinned.is_some() {
            (record.role, record.pinned_at, record.held_us) = (Role::Held, pinned, self.held_us);
        }
        if let Some(why) = self.stuck {
            problems.missing(None, why);
        }
        match command::run(self.source, self.writer.folder()) {
            Ok(()) => written::record(self.writer, &mut record, problems)?,
            Err(why) => {
                self.writer.discard()?;
                problems.missing(None, why);
            }
        }
        record.finished = clock::now();
        Ok(record)
    }
}
