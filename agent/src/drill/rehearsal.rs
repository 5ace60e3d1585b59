//! What came back is opened, source by source.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::mariadb::Instance;
use super::postgres::Cluster;
use super::scratch::Scratch;
use super::server::{DatabaseServer, NoServer};
use super::verdict::{About, OpenedDatabase, Verdict, compare_rows};
use super::{DrillRequest, checks, live, millis, room, sqlite};
use crate::capture::{database_of, is_server};
use crate::format::Sha256;
use crate::generation::{Document, SourceRecord};
use crate::ids::SourceName;
use crate::rows::Rows;
use crate::said::plain;

/// What a server needs for data that a dump has as text, with indexes and logs; found on databases of offices.
const DUMP_GROWTH: u64 = 3;
/// What a server needs with nothing in it.
const SERVER_BYTES: u64 = 192 << 20;
/// So many differences in the rows of one database are named.
const ROWS_NAMED_MAX: usize = 10;

/// Starts a server in a scratch folder, for a source, that can read what this engine wrote.
type Start = fn(&Path, &str, Option<&str>) -> Result<Box<dyn DatabaseServer>, NoServer>;

/// How the dumps of one engine are opened.
struct Engine {
    name: &'static str,
    /// What the names of its dumps end with.
    ending: &'static str,
    start: Start,
}

const POSTGRES: Engine = Engine {
    name: "PostgreSQL",
    ending: ".dump",
    start: |scratch, source, engine| Ok(Box::new(Cluster::start(scratch, source, engine)?)),
};

const MARIADB: Engine = Engine {
    name: "MariaDB",
    ending: ".sql",
    start: |scratch, source, _| Ok(Box::new(Instance::start(scratch, source)?)),
};

/// A generation that has come back.
pub(super) struct Rehearsal<'a> {
    pub(super) request: &'a DrillRequest<'a>,
    pub(super) scratch: &'a Scratch,
    pub(super) restored: &'a Path,
    pub(super) verdict: &'a mut Verdict,
    pub(super) tell: &'a dyn Fn(&str),
}

impl Rehearsal<'_> {
    /// Opens every source.
    pub(super) fn open_all(&mut self) {
        let document = match read_document(self.restored) {
            Ok(document) => document,
            Err(why) => return self.verdict.find(About::File, why),
        };
        // Of files only how many: their names stay in the generation.
        let mut absent: BTreeMap<(&SourceName, &str), u64> = BTreeMap::new();
        for problem in document.problems.iter().filter(|problem| problem.missing) {
            let files = absent.entry((&problem.source, &problem.what)).or_default();
            *files += u64::from(problem.path.is_some());
        }
        for ((source, what), files) in absent {
            let of = match files {
                0 => String::new(),
                1 => "1 file of ".to_owned(),
                files => format!("{files} files of "),
            };
            let is = if files > 1 { "are" } else { "is" };
            self.verdict.leave(format!("{of}{source} {is} not in the generation: {what}"));
        }
        for record in &document.sources {
            let folder = self.restored.join(record.name.as_str());
            // What is not in the generation has been told.
            if !folder.is_dir() {
                continue;
            }
            match record.kind.as_str() {
                "sqlite" => self.open_sqlite(record, &folder),
                "postgres" if is_server(&folder) => self.open_copy(record, &folder),
                "postgres" => self.open_dumps(record, &folder, &POSTGRES),
                "mariadb" => self.open_dumps(record, &folder, &MARIADB),
                "folder" => self.compare_live(record, &folder),
                kind => self.leave_unopened(record, kind),
            }
            self.run_commands(record, &folder);
        }
        let known = |name: &SourceName| document.sources.iter().any(|record| record.name == *name);
        for check in self.request.settings.checks.iter().filter(|check| !known(&check.source)) {
            self.verdict
                .find(About::Check, format!("a check asks {}, which the generation does not have", check.source));
        }
    }

    fn open_sqlite(&mut self, record: &SourceRecord, folder: &Path) {
        (self.tell)(&format!("opening {} with SQLite", record.name));
        let files = match files(folder) {
            Ok(files) => files,
            Err(error) => {
                return self.verdict.find(About::Machine, format!("{} cannot be read: {error}", folder.display()));
            }
        };
        for (file, path) in &files {
            let name = format!("{}/{file}", record.name);
            let mut found = sqlite::open(path, &name);
            if let Some(captured) = record.rows.get(file) {
                found.database.sound = Some(self.compare(&name, captured, &found.rows) && found.findings.is_empty());
            }
            self.verdict.findings.extend(found.findings);
            self.verdict.not_done.extend(found.not_done);
            self.verdict.databases.push(found.database);
        }
        let names: Vec<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
        let checks = self.request.settings.checks.iter().filter(|check| check.source == record.name);
        checks::ask(checks, &names, self.verdict, |database, sql| {
            let path = files.iter().find(|(file, _)| file == database).map(|(_, path)| path.as_path());
            path.map_or_else(|| Err("it did not come back".to_owned()), |path| sqlite::ask(path, sql))
        });
    }

    fn open_dumps(&mut self, record: &SourceRecord, folder: &Path, engine: &Engine) {
        let source = record.name.as_str();
        let all = match files(folder) {
            Ok(files) => files,
            Err(error) => {
                return self.verdict.find(About::Machine, format!("{} cannot be read: {error}", folder.display()));
            }
        };
        let dumps: Vec<_> =
            all.iter().filter_map(|(file, path)| Some((file, database_of(file, engine.ending)?, path))).collect();
        let bytes: u64 = dumps.iter().filter_map(|(.., path)| Some(path.metadata().ok()?.len())).sum();
        let needed = bytes.saturating_mul(DUMP_GROWTH).saturating_add(SERVER_BYTES);
        let what = format!("a server for {source}");
        if let Err(what) = room(self.scratch, self.request.settings, needed, self.verdict.bytes, &what) {
            return self.verdict.find(About::Scratch, what);
        }
        (self.tell)(&format!("restoring the dumps of {source} into a {} server of the drill's own", engine.name));
        let began = Instant::now();
        let server = match (engine.start)(self.scratch.path(), source, record.engine.as_deref()) {
            Ok(server) => server,
            Err(NoServer::Absent(why)) => {
                let engine = record.engine.as_deref().unwrap_or(engine.name);
                let unopened = dumps.iter().map(|(file, ..)| unopened(source, file, engine));
                self.verdict.databases.extend(unopened);
                return self.verdict.leave(format!("the databases of {source} were not opened: {why}"));
            }
            Err(NoServer::Failed(why)) => {
                let what = format!(
                    "the {} server that was to open the databases of {source} does not start: {why}",
                    engine.name
                );
                return self.verdict.find(About::Server, what);
            }
        };
        match server.accounts(folder) {
            Ok(refused) => refused.iter().for_each(|line| {
                self.verdict.leave(format!("a statement of {source}/globals.sql was refused: {line}"));
            }),
            Err(why) => self.verdict.find(About::Database, format!("the roles of {source} could not be made: {why}")),
        }
        let mut loaded = Vec::new();
        for (file, database, dump) in &dumps {
            match server.load(database, dump) {
                Ok(()) => loaded.push((file.as_str(), database.as_str())),
                Err(why) => {
                    let what = format!("{source}/{file} came back as it was copied, and could not be restored: {why}");
                    self.verdict.find(About::Database, what);
                    let sound = Some(false);
                    self.verdict.databases.push(OpenedDatabase { sound, ..unopened(source, file, &server.engine()) });
                }
            }
        }
        self.verdict.load_ms += millis(began.elapsed().as_millis());
        for (file, database) in &loaded {
            self.look_into(record, server.as_ref(), file, database);
        }
        let names: Vec<&str> = loaded.iter().map(|(_, database)| *database).collect();
        let checks = self.request.settings.checks.iter().filter(|check| check.source == record.name);
        checks::ask(checks, &names, self.verdict, |database, sql| server.ask(database, sql));
    }

    /// A copy of a whole PostgreSQL server is started.
    fn open_copy(&mut self, record: &SourceRecord, folder: &Path) {
        let source = record.name.as_str();
        let what = format!("a server for {source}");
        if let Err(what) = room(self.scratch, self.request.settings, SERVER_BYTES, self.verdict.bytes, &what) {
            return self.verdict.find(About::Scratch, what);
        }
        (self.tell)(&format!("starting a server on the copy of {source}, which recovers up to the cut"));
        let began = Instant::now();
        let administrator = record.position.get("administrator").map_or("postgres", String::as_str);
        let engine = record.engine.as_deref();
        let server = match Cluster::of_copy(self.scratch.path(), source, engine, folder, administrator) {
            Ok(server) => server,
            Err(NoServer::Absent(why)) => {
                self.verdict.databases.push(unopened(source, "", engine.unwrap_or(POSTGRES.name)));
                return self.verdict.leave(format!("the databases of {source} were not opened: {why}"));
            }
            Err(NoServer::Failed(why)) => {
                let what = format!("the copy of the PostgreSQL server {source} cannot be started: {why}");
                return self.verdict.find(About::Server, what);
            }
        };
        self.verdict.load_ms += millis(began.elapsed().as_millis());
        let databases = server.databases().unwrap_or_else(|why| {
            self.verdict.find(About::Database, format!("{source} does not say which databases it has: {why}"));
            Vec::new()
        });
        for database in &databases {
            self.look_into(record, &server, database, database);
        }
        let names: Vec<&str> = databases.iter().map(String::as_str).collect();
        let checks = self.request.settings.checks.iter().filter(|check| check.source == record.name);
        checks::ask(checks, &names, self.verdict, |database, sql| server.ask(database, sql));
        if let Err(why) = server.end(folder) {
            self.verdict.find(About::Machine, why);
        }
    }

    /// A database that was restored into a server: its rows, and what the engine finds.
    fn look_into(&mut self, record: &SourceRecord, server: &dyn DatabaseServer, file: &str, database: &str) {
        let name = plain(&format!("{}/{file}", record.name));
        let found = self.verdict.findings.len();
        let rows = server.count(database).unwrap_or_else(|why| {
            self.verdict.find(About::Database, format!("the rows of {name} could not be counted: {why}"));
            Rows::new()
        });
        if let Some(captured) = record.rows.get(file).filter(|_| self.verdict.findings.len() == found) {
            self.compare(&name, captured, &rows);
        }
        match server.examine(database) {
            Ok(true) => {}
            Ok(false) => self.verdict.leave(format!(
                "{name} was not looked through by {}: its program for that is not installed here",
                server.engine()
            )),
            Err(why) => {
                self.verdict.find(About::Database, format!("{} finds damage in {name}: {why}", server.engine()))
            }
        }
        self.verdict.databases.push(OpenedDatabase {
            name,
            engine: server.engine(),
            sound: Some(self.verdict.findings.len() == found),
            tables: rows.len() as u64,
            rows: rows.values().sum(),
        });
    }

    /// Whether all rows are there.
    fn compare(&mut self, name: &str, captured: &Rows, found: &Rows) -> bool {
        let different = compare_rows(name, captured, found);
        let more = different.len().saturating_sub(ROWS_NAMED_MAX);
        let good = different.is_empty();
        self.verdict.findings.extend(different.into_iter().take(ROWS_NAMED_MAX));
        if more > 0 {
            self.verdict.find(About::Rows, format!("{more} more tables of {name} have other rows than were copied"));
        }
        good
    }

    fn compare_live(&mut self, record: &SourceRecord, folder: &Path) {
        let Some((_, live)) = self.request.live.iter().find(|(name, _)| *name == record.name) else { return };
        let digest = Sha256::of(self.request.origin.stored.generation.as_str().as_bytes());
        let turn = digest.0.iter().take(8).fold(0, |turn, byte| turn << 8 | u64::from(*byte));
        // A folder that is not there, as after a loss, has nothing to compare with.
        let Ok(compared) = live::compare(folder, live, record.started, turn) else { return };
        self.verdict.compared_live += compared.same;
        for path in compared.different {
            let what = |file: &str| {
                format!(
                    "{file} is not the same as the file that the office works with, though nobody has changed that since; one of \
                     the two was damaged: open both"
                )
            };
            let nameless = what(&format!("a file of `{}`", record.name));
            self.verdict.find_file(what(&format!("{}/{path}", record.name)), nameless);
        }
    }

    fn run_commands(&mut self, record: &SourceRecord, folder: &Path) {
        let checks = self.request.settings.checks.iter().filter(|check| check.source == record.name);
        checks::run(checks, folder, self.scratch.path(), self.verdict);
    }

    /// Only a check of the office's own can open what only the office knows.
    fn leave_unopened(&mut self, record: &SourceRecord, kind: &str) {
        let name = &record.name;
        if self.request.settings.checks.iter().any(|check| check.source == *name) {
            return;
        }
        self.verdict.leave(format!(
            "what the {kind} source {name} holds came back as it was copied, and was not opened; a `[[drill.check]]` with a \
             command can"
        ));
    }
}

fn unopened(source: &str, file: &str, engine: &str) -> OpenedDatabase {
    OpenedDatabase {
        name: plain(&format!("{source}/{file}")),
        engine: engine.to_owned(),
        sound: None,
        tables: 0,
        rows: 0,
    }
}

/// The regular files of a folder, by name.
fn files(folder: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

fn read_document(restored: &Path) -> Result<Document, String> {
    let path = restored.join("GENERATION.json");
    let bytes = fs::read(path)
        .map_err(|error| format!("GENERATION.json, which says what the sources are, is lost: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("GENERATION.json cannot be understood: {error}"))
}
