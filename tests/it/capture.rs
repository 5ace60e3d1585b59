//! Captures of databases that are in use by other processes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::capture::{
    CaptureError, CaptureRequest, CommandSource, CutSettings, FolderSource, HolderProgram, Output, Patterns,
    SourceConfig, SourceKind, SqliteSource, capture,
};
use agent::entry::{EntryKind, EntryPath};
use agent::generation::{Class, CutMethod, Document, Grade, Role};
use agent::ids::{GenerationId, SiteName};
use agent::staging::{LocalGeneration, Staging, StagingError};
use rusqlite::Connection;
use tests::captures::patient;
use tests::clerks::{Book, Clerks, judge};
use tests::{World, offsite_program, wait_until};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// An office whose databases are captured by the library, with the real holder.
struct Office {
    world: World,
    sources: Vec<SourceConfig>,
    cut: CutSettings,
    holder: HolderProgram,
    site: SiteName,
}

impl Office {
    fn new() -> Self {
        let world = World::new();
        world.make_folder("office");
        let holder = HolderProgram { program: offsite_program().to_owned(), arguments: vec!["holder".to_owned()] };
        let site = "office".parse().unwrap();
        Self { world, sources: Vec::new(), cut: patient(), holder, site }
    }

    fn book(&mut self, name: &'static str, journal_mode: &str) -> Book {
        let book = Book::create(name, self.world.path("office").join(format!("{name}.db")), journal_mode);
        self.source(name, SourceKind::Sqlite(SqliteSource { path: book.path.clone() }));
        book
    }

    fn source(&mut self, name: &str, kind: SourceKind) {
        self.sources.push(SourceConfig { name: name.parse().unwrap(), kind });
    }

    fn staging(&self) -> Staging {
        Staging::open(&self.world.path("staging"), agent::clock::now()).unwrap()
    }

    fn try_capture(&mut self) -> Result<LocalGeneration, CaptureError> {
        let staging = self.staging();
        let previous = staging.generations().unwrap().pop();
        let draft = staging.begin(&GenerationId::new(agent::clock::now()), previous.as_ref()).unwrap();
        let request = CaptureRequest {
            site: &self.site,
            class: Class::Rolling,
            label: None,
            lifetime: None,
            sources: &self.sources,
            cut: &self.cut,
            holder: &self.holder,
            own_folders: &[],
        };
        capture(&request, draft, previous.as_ref(), &|_| ())
    }

    fn capture(&mut self) -> (LocalGeneration, Document) {
        let generation = self.try_capture().unwrap();
        let document = generation.document().unwrap();
        (generation, document)
    }
}

fn staged(generation: &LocalGeneration, name: &str) -> PathBuf {
    generation.data_folder(&name.parse().unwrap()).join(format!("{name}.db"))
}

/// Copies of the books that can be opened to write, as SQLite does to look at a database with a log.
fn copies(world: &World, generation: &LocalGeneration, books: &[Book]) -> Vec<Book> {
    let copy = |book: &Book| {
        let path = world.path(format!("restored-{}-{}.db", generation.id(), book.name));
        std::fs::write(&path, std::fs::read(staged(generation, book.name)).unwrap()).unwrap();
        Book { name: book.name, path, database: None }
    };
    books.iter().map(copy).collect()
}

#[test]
fn databases_in_use_are_copied_at_one_instant() {
    let mut office = Office::new();
    let books = [office.book("cash", "wal"), office.book("billing", "delete"), office.book("stock", "wal")];
    let clerks = Clerks::start(Path::new(CLERK), 4, 15, &books);
    let mut held_us = Vec::new();
    for _ in 0..5 {
        clerks.work(20);
        let (generation, document) = office.capture();
        held_us.push(document.cut.held_us_max);
        assert_eq!(document.grade, Grade::Exact, "{document:#?}");
        assert_eq!(document.cut.method, CutMethod::Barrier);
        assert!(document.sources.iter().all(|source| source.role == Role::Held && source.held_us > 0));
        // Otherwise nothing was going on, and anything would pass.
        clerks.work(20);
        let verdict = judge(&copies(&office.world, &generation, &books));
        assert!(verdict.events >= 60, "{verdict:?}");
        assert_eq!((verdict.without_cause, verdict.torn), (0, Vec::new()));
        assert!(document.cut.not_before <= document.cut.not_after);
    }
    let journal = clerks.stop();
    assert_eq!(journal.errors, Vec::<String>::new());
    let worst = journal.steps.iter().map(|step| step.took_us).max().unwrap();
    eprintln!("{} steps, the longest took {worst} µs; held for {held_us:?} µs", journal.steps.len());
    for book in &books {
        // Whatever the copy made beside the database is gone when its users are.
        assert!(!book.path.with_extension("db-wal").exists() && !book.path.with_extension("db-journal").exists());
    }
}

#[test]
fn copies_made_one_after_another_do_not_pass_the_judge() {
    let mut office = Office::new();
    let books = [office.book("cash", "wal"), office.book("billing", "delete")];
    let clerks = Clerks::start(Path::new(CLERK), 2, 5, &books);
    let mut made = Vec::new();
    for book in &books {
        clerks.work(20);
        let path = office.world.path(format!("copy-{}.db", book.name));
        let source = Connection::open(&book.path).unwrap();
        source.busy_timeout(Duration::from_secs(60)).unwrap();
        source.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
        made.push(Book { name: book.name, path, database: None });
    }
    clerks.stop();
    let verdict = judge(&made);
    assert!(verdict.without_cause > 0, "{verdict:?}");
    assert!(verdict.torn.is_empty(), "{verdict:?}");
}

#[test]
fn a_busy_database_with_a_log_is_copied_in_bounded_time_without_holding_anybody() {
    let mut office = Office::new();
    let books = [office.book("cash", "wal")];
    Connection::open(&books[0].path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE bulk (content BLOB);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64)
             INSERT INTO bulk SELECT randomblob(1048576) FROM n;",
        )
        .unwrap();
    // A clerk needs two databases; the other one is not captured.
    let other = Book::create("other", office.world.path("other.db"), "wal");
    let clerks = Clerks::start(Path::new(CLERK), 2, 5, &[books[0].clone(), other]);
    clerks.work(20);
    let (generation, document) = office.capture();
    clerks.work(20);
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single));
    assert_eq!(document.cut.held_us_max, 0);
    assert!(judge(&copies(&office.world, &generation, &books)).torn.is_empty());
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
}

#[test]
fn a_quiet_office_is_copied_without_holding_anybody_and_the_same_way_each_time() {
    let mut office = Office::new();
    let books = [office.book("cash", "wal"), office.book("billing", "wal")];
    let (first, document) = office.capture();
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Optimistic));
    assert!(document.sources.iter().all(|source| source.role == Role::Proved && source.held_us == 0));
    let names: Vec<_> = first.entries().unwrap().map(|entry| entry.unwrap().entry.path.to_string()).collect();
    assert_eq!(names, ["billing", "billing/billing.db", "cash", "cash/cash.db"]);

    // A later time of change, and nothing else: copied again, and the same byte for byte.
    let file = std::fs::File::options().write(true).open(&books[0].path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    drop(file);
    wait_until(Duration::from_secs(60), "the databases count as settled", || {
        let (_, document) = office.capture();
        document.sources.iter().all(|source| source.position.contains_key("stamp"))
    });
    let (last, _) = office.capture();
    let entries: Vec<_> = last.entries().unwrap().map(Result::unwrap).collect();
    assert!(entries.iter().all(|entry| entry.linked == matches!(entry.entry.kind, EntryKind::File { .. })));
    for book in &books {
        let content = |generation| std::fs::read(staged(generation, book.name)).unwrap();
        assert!(content(&first) == content(&last), "{} differs", book.name);
    }
    let (again, _) = office.capture();
    assert_eq!(again.previous().unwrap().as_ref(), Some(last.id()));
}

#[test]
fn a_database_that_somebody_keeps_locked_is_copied_but_not_called_exact() {
    let mut office = Office::new();
    let books = [office.book("cash", "wal"), office.book("billing", "delete")];
    office.cut.barrier_within = Duration::from_millis(300);
    let clerk = Connection::open(&books[0].path).unwrap();
    clerk.execute_batch("BEGIN IMMEDIATE; UPDATE tally SET n = n + 1").unwrap();
    let (generation, document) = office.capture();
    assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
    assert!(!document.cut.failed_tries.is_empty());
    assert!(document.sources.iter().all(|source| source.role == Role::Leisure));
    assert!(document.problems.is_empty());
    clerk.execute_batch("ROLLBACK").unwrap();
    assert!(judge(&copies(&office.world, &generation, &books)).torn.is_empty());

    // Locked for readers too, it cannot be copied at all; the others can.
    let clerk = Connection::open(&books[1].path).unwrap();
    clerk.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (generation, document) = office.capture();
    assert_eq!(document.grade, Grade::Incomplete);
    assert_eq!(document.problems.len(), 1);
    assert_eq!(document.problems[0].source.as_str(), "billing");
    assert_eq!(generation.sources().unwrap().iter().map(|s| s.as_str()).collect::<Vec<_>>(), ["cash"]);
}

/// A holder that is stopped when it is asked to pin, while it holds; after that, holders are as they should be.
const STOPPED: &str = r#"
mkdir "$1" 2>/dev/null || exec "$2" holder
mkfifo "$1/in"
"$2" holder < "$1/in" &
exec 3> "$1/in"
while read -r line; do
    case "$line" in '"pin"') kill -s "$3" $! ;; esac
    printf '%s\n' "$line" >&3
done
wait
"#;

#[test]
fn a_holder_that_stops_or_dies_while_it_holds_harms_nobody() {
    for signal in ["STOP", "KILL"] {
        let mut office = Office::new();
        let books = [office.book("cash", "wal"), office.book("billing", "delete")];
        let marker = office.world.path("stopped");
        let offsite = offsite_program().to_str().unwrap();
        let arguments = ["-c", STOPPED, "sh", marker.to_str().unwrap(), offsite, signal];
        office.holder = HolderProgram { program: "/bin/sh".into(), arguments: arguments.map(str::to_owned).to_vec() };
        let clerks = Clerks::start(Path::new(CLERK), 2, 5, &books);
        clerks.work(10);
        let (generation, document) = office.capture();
        clerks.work(10);
        assert!(marker.exists());
        assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Barrier), "{document:#?}");
        assert!(document.cut.tries > 1, "{document:#?}");
        assert!(document.cut.failed_tries.iter().any(|why| why.contains("helper process")), "{document:#?}");
        let verdict = judge(&copies(&office.world, &generation, &books));
        assert_eq!((verdict.without_cause, verdict.torn), (0, Vec::new()));
        assert_eq!(clerks.stop().errors, Vec::<String>::new());
    }
}

#[test]
fn a_holder_nobody_talks_to_lets_go_by_itself() {
    use std::io::{BufRead as _, Write as _};
    let mut office = Office::new();
    let book = office.book("cash", "wal");
    let mut holder = std::process::Command::new(offsite_program())
        .arg("holder")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = holder.stdin.take().unwrap();
    let mut answers = std::io::BufReader::new(holder.stdout.take().unwrap()).lines();
    let mut ask = |line: String| {
        writeln!(input, "{line}").unwrap();
        answers.next().unwrap().unwrap()
    };
    let opened = ask(format!(r#"{{"open":{{"paths":["{}"]}}}}"#, book.path.display()));
    assert!(opened.contains(r#""mode":"wal""#), "{opened}");
    let clerk = Connection::open(&book.path).unwrap();
    clerk.busy_timeout(Duration::from_secs(60)).unwrap();
    let begin = Instant::now();
    assert_eq!(ask(r#"{"hold":{"limit_us":2000000}}"#.to_owned()), r#""done""#);
    // It waits until then, and no longer.
    clerk.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert!(!holder.wait().unwrap().success());
}

/// The program as an account that may only do what the permissions of files say, also when this test is root.
fn without_override(holder: &mut HolderProgram) {
    if rustix::process::geteuid().is_root() {
        let program = std::mem::replace(&mut holder.program, "setpriv".into());
        let drop = "-dac_override,-dac_read_search";
        let arguments = ["--inh-caps", drop, "--bounding-set", drop, "--", program.to_str().unwrap(), "holder"];
        holder.arguments = arguments.map(str::to_owned).to_vec();
    }
}

#[test]
fn databases_that_may_only_be_read_are_copied_if_that_can_be_right() {
    use tests::office::set_mode;
    let mut office = Office::new();
    without_override(&mut office.holder);
    let books = [office.book("cash", "wal"), office.book("billing", "delete"), office.book("stock", "wal")];
    for book in &books {
        set_mode(&book.path, 0o444);
    }
    set_mode(&office.world.path("office"), 0o555);
    // Two databases with logs, in use by nobody: read as files. The one with a rollback journal cannot be pinned.
    let (generation, document) = office.capture();
    set_mode(&office.world.path("office"), 0o755);
    assert_eq!((document.grade, document.cut.method), (Grade::Incomplete, CutMethod::Optimistic), "{document:#?}");
    assert_eq!(document.problems.len(), 1);
    assert!(document.problems[0].what.contains("may not be written by this account"), "{document:#?}");
    assert_eq!(generation.sources().unwrap().iter().map(|s| s.as_str()).collect::<Vec<_>>(), ["cash", "stock"]);
    assert!(judge(&copies(&office.world, &generation, &[books[0].clone(), books[2].clone()])).torn.is_empty());
    let left: Vec<_> = std::fs::read_dir(office.world.path("office")).unwrap().collect();
    assert_eq!(left.len(), 3);
}

#[test]
fn writers_of_a_database_that_may_only_be_read_are_never_taken_for_held() {
    use tests::office::set_mode;
    let mut office = Office::new();
    without_override(&mut office.holder);
    let books = [office.book("cash", "wal"), office.book("billing", "wal")];
    let clerks = Clerks::start(Path::new(CLERK), 2, 5, &books);
    clerks.work(10);
    set_mode(&books[0].path, 0o444);
    // `BEGIN IMMEDIATE` succeeds there, and holds nobody.
    office.cut.optimistic_tries = 0;
    let (generation, document) = office.capture();
    clerks.work(10);
    assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("its writers cannot be held")), "{document:#?}");
    assert!(judge(&copies(&office.world, &generation, &books)).torn.is_empty());
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
}

#[test]
fn a_source_that_fails_does_not_keep_the_others_from_being_copied() {
    let mut office = Office::new();
    office.book("cash", "wal");
    let missing = office.world.path("office").join("missing.db");
    office.source("missing", SourceKind::Sqlite(SqliteSource { path: missing }));
    let twice = office.world.path("office").join("cash.db");
    office.source("twice", SourceKind::Sqlite(SqliteSource { path: twice }));
    let text = office.world.write("office/text.db", "this is no database, however one looks at it".repeat(99));
    office.source("text", SourceKind::Sqlite(SqliteSource { path: text }));
    let folder = |path: PathBuf| {
        SourceKind::Folder(FolderSource { path, patterns: Patterns::all(), snapshot: None, may_be_empty: false })
    };
    office.source("nowhere", folder("/nonexistent/folder".into()));
    let documents = office.world.make_folder("documents");
    office.world.write("documents/letter.txt", "Dear");
    office.source("documents", folder(documents));
    let command = |script: &str| {
        SourceKind::Command(CommandSource {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            output: Output::Folder,
            env: Default::default(),
            timeout: Duration::from_secs(60),
            check: None,
            hold: None,
        })
    };
    office.source("dump", command("mkdir {staging}/sub && echo 1 > sub/one && ln sub/one two && ln -s two three"));
    office.source("broken", command("echo out of luck >&2; exit 1"));

    let (generation, document) = office.capture();
    assert_eq!(document.grade, Grade::Incomplete);
    let mut failed: Vec<_> = document.problems.iter().map(|problem| problem.source.as_str()).collect();
    failed.sort_unstable();
    assert_eq!(failed, ["broken", "missing", "nowhere", "text", "twice"]);
    assert!(document.problems.iter().all(|problem| problem.missing));
    assert_eq!(document.sources.len(), 8);
    let entries: Vec<_> = generation.entries().unwrap().map(|entry| entry.unwrap().entry).collect();
    let names: Vec<_> = entries.iter().map(|entry| entry.path.to_string()).collect();
    let expected = [
        "cash",
        "cash/cash.db",
        "documents",
        "documents/letter.txt",
        "dump",
        "dump/sub",
        "dump/sub/one",
        "dump/three",
        "dump/two",
    ];
    assert_eq!(names, expected);
    let target = EntryPath::new("dump/sub/one").unwrap();
    assert_eq!(entries.last().unwrap().kind, EntryKind::HardLink { target });
}

#[test]
fn what_cannot_fit_is_not_begun() {
    let mut office = Office::new();
    office.book("cash", "wal");
    let huge = office.world.write("office/huge.db", "");
    // As large as a file can be here, without taking any room.
    let file = std::fs::File::options().write(true).open(&huge).unwrap();
    let bytes = (40..63).rev().map(|power| 1 << power).find(|bytes| file.set_len(*bytes).is_ok()).unwrap();
    office.source("huge", SourceKind::Sqlite(SqliteSource { path: huge }));
    match office.try_capture() {
        Err(CaptureError::NoSpace { needed, .. }) => assert!(needed > bytes),
        other => panic!("{other:?}"),
    }
    let staging = office.staging();
    assert!(staging.generations().unwrap().is_empty());
    assert_eq!(staging.abandoned().unwrap().len(), 1);
}

#[test]
fn a_second_run_is_told_who_is_first() {
    let office = Office::new();
    let _first = office.staging();
    let second = Staging::open(&office.world.path("staging"), agent::clock::now());
    assert!(matches!(second, Err(StagingError::Locked { holder: Some(_), .. })));
}
