//! The PostgreSQL sources: the pivot of the cut. Nobody is held for them; see [`cluster`] for how those are pinned that are
//! dumped, and [`physical`] for those that are copied whole.

mod cluster;
mod count;
mod line;
mod physical;
mod tool;
mod wal;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use jiff::SignedDuration;

use super::command;
use super::guard::Guard;
use super::pivots::Instance;
use super::problems::Problems;
use super::settings::{CommandSource, CutSettings, Output, PostgresMode, PostgresSource};
use super::{CaptureError, Copies, Event, Watch, empty_record, written};
use crate::clock;
use crate::generation::{Role, SourceRecord};
use crate::ids::SourceName;
use crate::rows::Rows;
use crate::staging::{Draft, SourceWriter};

use cluster::{Cluster, Pin};
use line::Line;

pub(super) use physical::PhysicalSet;
pub(crate) use physical::is_server;

/// Long enough for terabytes; a dump that hangs is ended by its guard.
const DUMP_WITHIN: Duration = Duration::from_secs(48 * 3600);

/// For what nobody has to end.
static NEVER: AtomicBool = AtomicBool::new(false);

/// How long somebody who checks waits for a table that another has for himself.
const CHECK_WITHIN: Duration = Duration::from_secs(5);

/// Whether `source` could be copied now: connected to, every table locked and pinned. The error is one sentence, with the
/// statement that would grant what is missing.
pub(super) fn check(source: &PostgresSource) -> Result<(), String> {
    let cut = CutSettings { barrier_within: CHECK_WITHIN, ..CutSettings::default() };
    let tag = own_name();
    if source.mode == PostgresMode::Physical {
        return Line::open(source, &tag).map(drop);
    }
    // On a busy server the pins may not meet at the first try; that is no defect.
    Cluster::open(source, &tag, &cut)?.version().map(drop)
}

/// All PostgreSQL sources of a capture that are dumped.
#[derive(Debug)]
pub(super) struct PostgresSet<'a> {
    members: Vec<Member<'a>>,
    /// What our sessions call themselves.
    tag: String,
    /// Whether the last of them is the pivot.
    pivot: bool,
}

#[derive(Debug)]
struct Member<'a> {
    name: &'a SourceName,
    /// The cluster, or why it cannot be copied.
    cluster: Result<Cluster, String>,
}

impl<'a> PostgresSet<'a> {
    /// Connects to all of them. One that cannot be had does not keep the others from being copied. `pivot` says whether the
    /// last of them is pinned last of all.
    pub(super) fn open(sources: &[(&'a SourceName, &'a PostgresSource)], pivot: bool, cut: &CutSettings) -> Self {
        let tag = own_name();
        let open = |(name, source): &(&'a SourceName, &PostgresSource)| Member {
            name,
            cluster: Cluster::open(source, &tag, cut),
        };
        Self { members: sources.iter().map(open).collect(), tag, pivot }
    }

    /// Those that can be dumped.
    pub(super) fn instances(&mut self) -> impl Iterator<Item = &mut dyn Instance> {
        let clusters = self.members.iter_mut().filter_map(|member| member.cluster.as_mut().ok());
        clusters.map(|cluster| cluster as &mut dyn Instance)
    }

    /// How many can be dumped.
    pub(super) fn members(&self) -> usize {
        self.members.iter().filter(|member| member.cluster.is_ok()).count()
    }

    /// From now on its sessions are watched over, until its dumps have been made.
    pub(super) fn guard(&mut self) -> Guards {
        let tag = self.tag.clone();
        let guard = |member: &mut Member<'_>| {
            let cluster = member.cluster.as_mut().ok().filter(|cluster| cluster.pinned.is_some())?;
            let sessions = cluster.databases.iter_mut().filter_map(|database| database.session.take()).collect();
            Some(Guard::over(sessions, question(&tag)))
        };
        Guards(self.members.iter_mut().map(guard).collect())
    }

    /// Dumps all of them. If there will be another cut, it stops as soon as this one is void.
    pub(super) fn copy(
        &mut self,
        guards: Guards,
        draft: &Draft,
        again: bool,
        watch: Watch<'_>,
    ) -> Result<Copies, CaptureError> {
        let mut copies = Copies::default();
        let last = self.members.iter().rposition(|member| member.cluster.is_ok()).filter(|_| self.pivot);
        for (at, (member, guard)) in self.members.iter_mut().zip(guards.0).enumerate() {
            watch(Event::Started { source: member.name });
            let mut problems = Problems::new(member.name);
            let mut record = empty_record(member.name, "postgres", clock::now());
            let writer = draft.source(member.name)?;
            match &mut member.cluster {
                Ok(cluster) => {
                    describe(&mut record, cluster, Some(at) == last);
                    let (void, rows) = (&mut copies.void, BTreeMap::new());
                    let mut dumps = Dumps { cluster, guard, tag: &self.tag, void, again, rows };
                    dumps.make(&writer, &mut problems);
                    record.rows = dumps.rows;
                    written::record(writer, &mut record, &mut problems)?;
                }
                Err(why) => {
                    writer.discard()?;
                    problems.missing(None, std::mem::take(why));
                }
            }
            record.finished = clock::now();
            watch(Event::Copied { source: member.name, bytes: record.bytes });
            copies.records.push(record);
            copies.problems.push(problems);
            if again && copies.void.is_some() {
                break;
            }
        }
        Ok(copies)
    }
}

/// Those who watch over the sessions of each source.
#[derive(Debug)]
pub(super) struct Guards(Vec<Option<Guard>>);

fn describe(record: &mut SourceRecord, cluster: &Cluster, last: bool) {
    record.engine = Some(cluster.facts.engine.clone());
    let mut note = |key: &str, value: &str| record.position.insert(key.to_owned(), value.to_owned());
    note("system", &cluster.facts.system);
    note("timeline", &cluster.facts.timeline);
    note(
        "role_passwords",
        if cluster.facts.superuser { "included" } else { "left out: only a superuser may read them" },
    );
    if let Some(Pin { at, snapshot, lsn }) = &cluster.pinned {
        note("snapshot", snapshot);
        note("lsn", lsn);
        record.pinned_at = Some(*at);
        record.role = if last { Role::Pivot } else { Role::Proved };
    }
}

/// The dumps of one cluster.
struct Dumps<'a> {
    cluster: &'a mut Cluster,
    guard: Option<Guard>,
    tag: &'a str,
    void: &'a mut Option<String>,
    /// Whether there will be another cut if this one is void.
    again: bool,
    /// Rows of the tables in each dump, as far as they were counted.
    rows: BTreeMap<String, Rows>,
}

impl Dumps<'_> {
    fn make(&mut self, writer: &SourceWriter, problems: &mut Problems) {
        for at in 0..self.cluster.databases.len() {
            if let Err(why) = self.dump(at, writer.folder()) {
                problems.missing(None, why);
            }
            if self.again && self.void.is_some() {
                return;
            }
        }
        if self.cluster.pinned.is_some()
            && let Some(Err(why)) = self.guard.take().map(Guard::finish)
        {
            self.void.get_or_insert(why);
        }
        // Roles and tablespaces belong to no database and to no snapshot.
        let mut arguments = vec!["--globals-only".to_owned(), "--no-password".to_owned()];
        if !self.cluster.facts.superuser {
            arguments.push("--no-role-passwords".to_owned());
        }
        arguments.push("--file={staging}/globals.sql".to_owned());
        let database = self.cluster.databases.first().map_or("postgres", |database| database.name.as_str());
        if let Err(why) = self.run("pg_dumpall", arguments, database, writer.folder()) {
            problems.missing(None, why);
        }
    }

    /// Dumps one database as it was pinned, or, if that has come to nothing, as it is.
    fn dump(&mut self, at: usize, folder: &Path) -> Result<(), String> {
        let Some(database) = self.cluster.databases.get(at) else { return Ok(()) };
        let (name, snapshot) = (database.name.clone(), database.snapshot.clone());
        let file = file_name(&name);
        let mut arguments = vec!["--format=custom".to_owned(), "--compress=0".to_owned()];
        // Whoever has a table for himself for a minute keeps it; the dump fails and says so.
        arguments.extend(["--no-password".to_owned(), "--lock-wait-timeout=60s".to_owned()]);
        arguments.push(format!("--file={{staging}}/{file}"));
        if let (Some(_), Some(snapshot)) = (&self.cluster.pinned, snapshot) {
            let mut pinned = arguments.clone();
            pinned.push(format!("--snapshot={snapshot}"));
            let counting = self.cluster.watcher(&name).ok();
            let (dumped, counted) = thread::scope(|scope| {
                let stop = self.guard.as_ref().map_or(&NEVER, Guard::stop);
                let counting = counting.map(|session| scope.spawn(|| count::count(session, &snapshot, stop)));
                let dumped = self.run("pg_dump", pinned, &name, folder);
                (dumped, counting.and_then(|counting| counting.join().ok()))
            });
            match dumped {
                Ok(()) => {
                    self.rows.extend(counted.flatten().map(|rows| (file, rows)));
                    return Ok(());
                }
                Err(why) => {
                    self.void.get_or_insert(why);
                    self.cluster.pinned = None;
                    self.guard = None;
                    remove(&folder.join(&file))?;
                    if self.again {
                        return Ok(());
                    }
                }
            }
        }
        self.guard = Some(Guard::over(vec![self.cluster.watcher(&name)?], question(self.tag)));
        self.run("pg_dump", arguments, &name, folder).inspect_err(|_| {
            // What is left of it is no dump.
            let _removed = remove(&folder.join(&file));
        })
    }

    fn run(&self, program: &str, arguments: Vec<String>, database: &str, folder: &Path) -> Result<(), String> {
        let source = CommandSource {
            command: std::iter::once(program.to_owned()).chain(arguments).collect(),
            output: Output::Folder,
            env: self.cluster.env(database),
            timeout: DUMP_WITHIN,
            check: None,
            hold: None,
        };
        let stop = self.guard.as_ref().map_or(&NEVER, Guard::stop);
        let ran = command::run_until(&source, folder, stop);
        // A lost session counts even if the dump went on without it: its locks were gone.
        match (self.guard.as_ref().and_then(Guard::why), ran) {
            (Some(why), _) => Err(format!("the dump of {database} is not of the cut: {why}")),
            (None, ran) => ran,
        }
    }
}

/// What our sessions and slots are called at a server, unlike those of every other run: also of one on another machine, whose
/// process may have the same number.
fn own_name() -> String {
    let now = clock::now().as_duration() - SignedDuration::from_secs(1_700_000_000);
    format!("offsite_{}_{}", std::process::id(), now.as_nanos())
}

/// Whether somebody waits for a lock that one of our sessions has, and whether we wait as well. An account sees its own
/// sessions, and everybody's locks.
fn question(tag: &str) -> String {
    let ours = format!("(SELECT pid FROM pg_stat_activity WHERE application_name = '{tag}')");
    format!(
        "SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND NOT pid IN {ours} AND \
         pg_blocking_pids(pid) && ARRAY{ours}) THEN 0 WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted AND \
         pid IN {ours}) THEN 2 ELSE 1 END;"
    )
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("the file {} could not be removed: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The file of a database: its name, with what cannot stand in a file's name written as in addresses.
fn file_name(database: &str) -> String {
    let mut name = String::new();
    for c in database.chars() {
        match c {
            '/' | '%' | '{' | '}' => name.push_str(&format!("%{:02X}", u32::from(c))),
            c => name.push(c),
        }
    }
    name + ".dump"
}

/// The database whose dump has the name `file`, which ends with `ending`; nothing if it is no dump of ours.
pub(crate) fn database_of(file: &str, ending: &str) -> Option<String> {
    // What is no dump of a database has another dot in its name, if such dumps have none.
    let stem = file.strip_suffix(ending).filter(|stem| ending != ".sql" || !stem.contains('.'))?;
    let mut pieces = stem.split('%');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        name.push(char::from(u8::from_str_radix(code, 16).ok()?));
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::{database_of, file_name};

    #[test]
    fn every_name_of_a_database_gives_a_file_of_its_own() {
        assert_eq!(file_name("office"), "office.dump");
        assert_eq!(file_name("a/b%{c}"), "a%2Fb%25%7Bc%7D.dump");
        assert_eq!(file_name(".."), "...dump");
        for name in ["office", "a/b%{c}", "..", "größer"] {
            assert_eq!(database_of(&file_name(name), ".dump").as_deref(), Some(name));
        }
        assert_eq!(database_of("globals.sql", ".dump"), None);
        assert_eq!(database_of("server.accounts.sql", ".sql"), None);
        assert_eq!(database_of("a%2Eb.sql", ".sql").as_deref(), Some("a.b"));
    }
}
