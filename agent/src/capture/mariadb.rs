//! The MariaDB and MySQL sources. Writers are held by `BACKUP STAGE BLOCK_COMMIT`, which waits only for commits under way,
//! or, on MySQL, by `FLUSH TABLES WITH READ LOCK`; they are pinned by the dumps themselves; see [`gate`].
//!
//! They are held in every try. There is a number that changes with each commit (the GTID), but it changes before others can
//! see the commit, so that it may be the same twice although something became visible in between.

mod count;
mod dump;
mod gate;
mod keeper;
mod reaper;
mod rights;
mod server;

use std::time::Duration;

use jiff::Timestamp;

use super::guard::Guard;
use super::problems::Problems;
use super::protocol::{Order, Party, Refusal};
use super::settings::{CutSettings, MariaDbSource};
use super::{CaptureError, Copies, Event, Watch, empty_record, written};
use crate::clock;
use crate::generation::Role;
use crate::ids::SourceName;
use crate::staging::{Draft, SourceWriter};

use server::Server;

/// Whether `source` could be copied now: connected to, staged, every dump brought to the point where it would take its
/// snapshot. The error is one sentence, with the statement that would grant what is missing.
pub(super) fn check(source: &MariaDbSource) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for a first look could be made: {error}"))?;
    Server::open(source, folder.path(), &CutSettings::default())?.is_without_flaw()
}

/// All MariaDB and MySQL sources of a capture.
#[derive(Debug)]
pub(super) struct MariaDbSet<'a> {
    members: Vec<Member<'a>>,
    pinned: Option<Timestamp>,
}

#[derive(Debug)]
struct Member<'a> {
    name: &'a SourceName,
    word: &'static str,
    /// Dumps are begun before the cut, so they need a place to go to.
    writer: SourceWriter,
    /// The server, or why it cannot be copied.
    server: Result<Server, String>,
}

/// Those who watch over the sessions of each source.
#[derive(Debug)]
pub(super) struct Guards(Vec<Option<Guard>>);

impl<'a> MariaDbSet<'a> {
    /// Connects to all of them. One that cannot be had does not keep the others from being copied.
    pub(super) fn open(
        sources: &[(&'a SourceName, &'a MariaDbSource)],
        draft: &Draft,
        cut: &CutSettings,
    ) -> Result<Self, CaptureError> {
        let open = |(name, source): &(&'a SourceName, &MariaDbSource)| {
            let writer = draft.source(name)?;
            let server = Server::open(source, writer.folder(), cut);
            Ok(Member { name, word: source.dialect.word(), writer, server })
        };
        let members: Result<_, CaptureError> = sources.iter().map(open).collect();
        Ok(Self { members: members?, pinned: None })
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Server> {
        self.members.iter_mut().filter_map(|member| member.server.as_mut().ok())
    }

    /// From now on its sessions are watched over, until its dumps have been made; and definitions may be changed again
    /// as far as they are not of tables that are being dumped.
    pub(super) fn guard(&mut self) -> Guards {
        self.servers().for_each(Server::unstage);
        let pinned = self.pinned.is_some();
        let guard = |member: &mut Member<'_>| member.server.as_mut().ok().filter(|_| pinned).and_then(Server::guard);
        Guards(self.members.iter_mut().map(guard).collect())
    }

    /// Waits for the dumps, or makes them now if they are not of a cut. If there will be another cut, it stops as soon as
    /// this one is void.
    pub(super) fn copy(self, guards: Guards, again: bool, watch: Watch<'_>) -> Result<Copies, CaptureError> {
        let mut copies = Copies::default();
        for (member, guard) in self.members.into_iter().zip(guards.0) {
            let Member { name, word, writer, server } = member;
            watch(Event::Started { source: name });
            let mut problems = Problems::new(name);
            let mut record = empty_record(name, word, clock::now());
            match server {
                Ok(server) => {
                    server.describe(&mut record);
                    if self.pinned.is_some() {
                        // Alone and pinned in one act, nobody had to be held for it.
                        record.role = if server.was_held() { Role::Held } else { Role::Pivot };
                        record.pinned_at = self.pinned;
                    }
                    record.rows = server.copy(guard, again, &mut problems, &mut copies);
                    written::record(writer, &mut record, &mut problems)?;
                }
                Err(why) => {
                    writer.discard()?;
                    problems.missing(None, why);
                }
            }
            record.finished = clock::now();
            watch(Event::Copied { source: name, bytes: record.bytes });
            copies.records.push(record);
            copies.problems.push(problems);
            if again && copies.void.is_some() {
                break;
            }
        }
        Ok(copies)
    }
}

impl Party for MariaDbSet<'_> {
    fn order(&self) -> Order {
        Order::Commits
    }

    fn members(&self) -> usize {
        self.members.iter().filter(|member| member.server.is_ok()).count()
    }

    fn pins_freely(&self) -> bool {
        true
    }

    fn has_one_pin(&self) -> bool {
        let servers = self.members.iter().filter_map(|member| member.server.as_ref().ok());
        servers.map(Server::databases).sum::<usize>() <= 1
    }

    fn gains_by_hold(&self) -> bool {
        self.members.iter().filter_map(|member| member.server.as_ref().ok()).all(Server::counts_when_held)
    }

    fn has_versions(&self) -> bool {
        false
    }

    fn ready(&mut self) -> Result<(), Refusal> {
        self.pinned = None;
        self.servers().try_for_each(Server::ready).map_err(Refusal::Busy)
    }

    fn versions(&mut self) -> Result<String, Refusal> {
        Err(Refusal::Never("this engine has no version that would show every commit".to_owned()))
    }

    fn hold(&mut self, left: Duration) -> Result<(), Refusal> {
        let held = self.servers().try_for_each(|server| server.hold(left));
        held.map_err(|why| {
            self.let_go();
            Refusal::Busy(why)
        })
    }

    /// A dump that has its snapshot goes on at once.
    fn copies_at_once(&self) -> bool {
        true
    }

    fn pin(&mut self) -> Result<(), Refusal> {
        let now = clock::now();
        self.servers().try_for_each(Server::let_dumps).map_err(Refusal::Busy)?;
        self.servers().try_for_each(Server::pin).map_err(Refusal::Busy)?;
        self.pinned = Some(now);
        Ok(())
    }

    fn prove(&mut self) -> Result<(), Refusal> {
        self.servers().try_for_each(Server::prove).map_err(Refusal::Busy)
    }

    fn release(&mut self) -> Result<(), Refusal> {
        self.servers().try_for_each(Server::release).map_err(Refusal::Busy)
    }

    fn let_go(&mut self) {
        self.pinned = None;
        self.servers().for_each(Server::let_go);
    }
}
