//! Clusters that are copied whole: the files of the server at leisure *before* the cut, its log from then on until just
//! behind the cut. A server that is started on the copy reads the log up to the very place where the cut was, and goes on
//! from there.
//!
//! The pin is a place in the log. What is visible then was written before that place; what was written before it and is not
//! visible yet has not been acknowledged, so nobody else's copy can hold an effect of it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::line::Line;
use super::wal::Lsn;
use super::{cluster, own_name, tool, wal};
use crate::capture::pivots::Instance;
use crate::capture::problems::Problems;
use crate::capture::settings::{CutSettings, PostgresMode, PostgresSource, SourceConfig, SourceKind};
use crate::capture::{CaptureError, Copies, Event, Watch, empty_record, written};
use crate::clock;
use crate::config::Size;
use crate::generation::{Role, SourceRecord};
use crate::ids::SourceName;
use crate::staging::{Draft, SourceWriter};

const COPY: &str = "pg_basebackup";
const RECEIVE: &str = "pg_receivewal";

/// What it says at last if the sums of some pages do not fit.
const DAMAGED: &str = "checksum error occurred";

/// Which database is connected to: every server has it.
const DATABASE: &str = "postgres";

/// Settings that a server which was started on a copy before may still have, as it keeps them.
const OLD_SETTINGS: [&str; 2] = ["recovery_target", "restore_command"];

/// Whether `folder` is a copy of a whole server.
pub(crate) fn is_server(folder: &Path) -> bool {
    folder.join("PG_VERSION").exists()
}

/// All clusters of a capture that are copied whole. Their files outlive a cut that came to nothing.
#[derive(Debug)]
pub(in crate::capture) struct PhysicalSet<'a>(Vec<Member<'a>>);

#[derive(Debug)]
struct Member<'a> {
    name: &'a SourceName,
    source: &'a PostgresSource,
    tag: String,
    hold_limit: Duration,
    started: Timestamp,
    /// Where its files are.
    files: Option<SourceWriter>,
    /// What is wrong with them at the server itself.
    damage: Option<String>,
    /// The line to the server, or why it cannot be copied.
    line: Result<Line, String>,
}

impl<'a> PhysicalSet<'a> {
    /// Those of `sources`; nobody is connected to yet.
    pub(in crate::capture) fn new(sources: &'a [SourceConfig], cut: &CutSettings) -> Self {
        let member = |source: &'a SourceConfig| match &source.kind {
            SourceKind::Postgres(postgres) if postgres.mode == PostgresMode::Physical => Some(Member {
                name: &source.name,
                source: postgres,
                tag: own_name(),
                hold_limit: cut.hold_limit,
                started: clock::now(),
                files: None,
                damage: None,
                line: Err("nobody has connected to it".to_owned()),
            }),
            _ => None,
        };
        Self(sources.iter().filter_map(member).collect())
    }

    /// Connects to all of them and copies their files, unless those from the last cut can be gone on with. One that cannot
    /// be had does not keep the others from being copied.
    pub(in crate::capture) fn prepare(&mut self, draft: &Draft, watch: Watch<'_>) -> Result<(), CaptureError> {
        for member in &mut self.0 {
            watch(Event::Started { source: member.name });
            member.prepare(draft)?;
        }
        Ok(())
    }

    /// Those that can be copied.
    pub(in crate::capture) fn instances(&mut self) -> impl Iterator<Item = &mut dyn Instance> {
        self.0.iter_mut().filter(|member| member.line.is_ok()).map(|member| member as &mut dyn Instance)
    }

    /// How many can be copied.
    pub(in crate::capture) fn members(&self) -> usize {
        self.0.iter().filter(|member| member.line.is_ok()).count()
    }

    /// Receives the log up to the cut, and lets the servers forget us. The error is why there is another cut to be made.
    pub(in crate::capture) fn receive(&mut self) -> Result<(), String> {
        let received: Vec<_> = self.0.iter_mut().map(Member::receive).collect();
        received.into_iter().collect()
    }

    /// Makes each copy one that a server can be started on. After that there is no other cut.
    pub(in crate::capture) fn finish(self, watch: Watch<'_>) -> Result<Copies, CaptureError> {
        let mut copies = Copies::default();
        let last = self.0.iter().rposition(|member| member.line.is_ok());
        for (at, member) in self.0.into_iter().enumerate() {
            let mut problems = Problems::new(member.name);
            let record = member.finish(Some(at) == last, &mut problems)?;
            watch(Event::Copied { source: &record.name, bytes: record.bytes });
            copies.records.push(record);
            copies.problems.push(problems);
        }
        Ok(copies)
    }
}

impl Member<'_> {
    fn prepare(&mut self, draft: &Draft) -> Result<(), CaptureError> {
        self.line = Line::open(self.source, &self.tag);
        let Ok(line) = &mut self.line else { return Ok(()) };
        if let Some(files) = self.files.take() {
            if line.continues(&log(files.folder())) {
                self.files = Some(files);
                return Ok(());
            }
            files.discard()?;
        }
        let mut files = draft.source(self.name)?;
        let copied = has_room(line, draft).and_then(|()| copy(self.source, &self.tag, line, files.folder(), &[]));
        let copied = match copied {
            // A damaged server needs its backups more than any other.
            Err(why) if why.contains(DAMAGED) => {
                files.discard()?;
                files = draft.source(self.name)?;
                self.damage = Some(format!(
                    "the server finds some of its own pages damaged, and they were copied as they are: {why}; `offsite drill` of \
                     older generations shows in which of them they were whole"
                ));
                copy(self.source, &self.tag, line, files.folder(), &["--no-verify-checksums"])
            }
            copied => copied,
        };
        match copied {
            Ok(()) => self.files = Some(files),
            Err(why) => {
                files.discard()?;
                self.line = Err(why);
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        let (Ok(line), Some(files)) = (&mut self.line, &self.files) else { return Ok(()) };
        if line.pinned.is_some() {
            let received = receive(self.source, &self.tag, line, &log(files.folder()));
            if received.is_err() {
                line.pinned = None;
            }
            line.close();
            received?;
        }
        Ok(())
    }

    fn finish(self, pivot: bool, problems: &mut Problems) -> Result<SourceRecord, CaptureError> {
        let mut record = empty_record(self.name, "postgres", self.started);
        match (self.line, self.files) {
            (Ok(line), Some(files)) => {
                describe(&mut record, &line, pivot);
                if let Some(damage) = self.damage {
                    problems.missing(None, damage);
                }
                let target = line.pinned.as_ref().map(|pin| pin.lsn.as_str());
                if let Err(error) = close(files.folder(), line.facts.segment_bytes, target) {
                    problems.missing(None, format!("the copy of the server could not be completed: {error}"));
                }
                written::record(files, &mut record, problems)?;
            }
            (line, files) => {
                files.map(SourceWriter::discard).transpose()?;
                problems.missing(None, line.err().unwrap_or_default());
            }
        }
        record.finished = clock::now();
        Ok(record)
    }
}

impl Instance for Member<'_> {
    fn ready(&mut self) -> Result<(), String> {
        let Ok(line) = &mut self.line else { return Ok(()) };
        line.pinned = None;
        if !line.is_open() {
            let again = Line::open(self.source, &self.tag)?;
            if !self.files.as_ref().is_some_and(|files| again.continues(&log(files.folder()))) {
                return Err("the server was away, and has not kept the log that the copy of its files needs".to_owned());
            }
            *line = again;
        }
        Ok(())
    }

    fn version(&mut self) -> Result<String, String> {
        self.line.as_mut().map_err(|why| why.clone())?.version(self.hold_limit)
    }

    fn pin(&mut self) -> Result<(), String> {
        self.line.as_mut().map_err(|why| why.clone())?.pin(self.hold_limit)
    }

    fn snapshot(&self) -> Option<&str> {
        self.line.as_ref().ok()?.pinned.as_ref().map(|pin| pin.snapshot.as_str())
    }

    fn let_go(&mut self) {
        if let Ok(line) = &mut self.line {
            line.pinned = None;
        }
    }
}

/// A disk that is full in the middle of the copy would cost the other sources as well.
fn has_room(line: &mut Line, draft: &Draft) -> Result<(), String> {
    let needed = line.bytes()?;
    match draft.free_bytes() {
        Ok(free) if free < needed => Err(format!(
            "the databases of this server take {}, and the disk of the staging folder has {} free; free some space, or let \
             the setting `staging` name a folder on a larger disk",
            Size(needed),
            Size(free)
        )),
        // What is wrong with the disk will show.
        _ => Ok(()),
    }
}

/// The folder of the log.
fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("pg_wal")
}

/// Copies the files of a server, with what its log says meanwhile.
fn copy(source: &PostgresSource, tag: &str, line: &mut Line, folder: &Path, more: &[&str]) -> Result<(), String> {
    let mut to = OsString::from("--pgdata=");
    to.push(folder);
    let mut arguments = vec![to];
    // Staging is written to disk as a whole.
    let others = ["--format=plain", "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-password"];
    arguments.extend(others.iter().chain(more).map(OsString::from));
    tool::run(COPY, &arguments, &cluster::env(source, tag, DATABASE), || line.advance(&log(folder)))
}

/// Receives the log up to the pin and a little more, since a server stops before the first record that it is not to read.
fn receive(source: &PostgresSource, tag: &str, line: &mut Line, folder: &Path) -> Result<(), String> {
    let end: Lsn = line.mark()?;
    wal::reopen(folder, line.facts.segment_bytes)
        .map_err(|error| format!("the folder {} cannot be written to: {error}", folder.display()))?;
    let mut to = OsString::from("--directory=");
    to.push(folder);
    let mut arguments = vec![to, OsString::from(format!("--endpos={end}"))];
    arguments.extend(["--no-loop", "--no-sync", "--no-password"].map(OsString::from));
    let received = tool::run(RECEIVE, &arguments, &cluster::env(source, tag, DATABASE), || line.advance(folder));
    received.map_err(|why| format!("the log of the server could not be had up to the cut: {why}"))
}

/// Ends the log and, if it goes up to a cut, has a server that is started on the copy stop there.
fn close(folder: &Path, segment_bytes: u64, target: Option<&str>) -> io::Result<()> {
    wal::close(&log(folder), segment_bytes)?;
    let Some(lsn) = target else { return Ok(()) };
    let path = folder.join("postgresql.auto.conf");
    let mut settings: String = fs::read_to_string(&path)?
        .lines()
        .filter(|line| !OLD_SETTINGS.iter().any(|old| line.starts_with(old)))
        .flat_map(|line| [line, "\n"])
        .collect();
    // Everything that is needed lies in pg_wal; a command has to be there all the same.
    settings.push_str(&format!(
        "# By offsite: started on this folder, the server recovers up to the cut of the backup, and goes on from there.\n\
         restore_command = 'exit 1'\nrecovery_target_lsn = '{lsn}'\nrecovery_target_inclusive = 'off'\n\
         recovery_target_timeline = 'current'\nrecovery_target_action = 'promote'\n"
    ));
    fs::write(&path, settings)?;
    fs::write(folder.join("recovery.signal"), "")
}

fn describe(record: &mut SourceRecord, line: &Line, pivot: bool) {
    record.engine = Some(line.facts.engine.clone());
    let mut note = |key: &str, value: &str| record.position.insert(key.to_owned(), value.to_owned());
    note("mode", "physical");
    note("system", &line.facts.system);
    note("timeline", &line.facts.timeline);
    note("administrator", &line.facts.administrator);
    if let Some(pin) = &line.pinned {
        note("snapshot", &pin.snapshot);
        note("lsn", &pin.lsn);
        record.pinned_at = Some(pin.at);
        record.role = if pivot { Role::Pivot } else { Role::Proved };
    }
}
