//! Engines that a command copies and that have programs of their own to keep writers waiting: they are of the instant, and
//! writers are let go whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent::capture::{CommandHold, CommandSource, CutSettings, Output, SourceConfig, SourceKind, SqliteSource};
use agent::config::Config;
use agent::generation::{CutMethod, Document, Grade, Role};
use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use tests::captures::{newest_staged, of, patient, run_with, sqlite_source};
use tests::clerks::Book;
use tests::office::set_mode;
use tests::{World, wait_until};

/// A ledger that is a file of lines, written to by whoever has its lock; and a database beside it.
struct Office {
    world: World,
    /// Pieces of business done.
    done: AtomicU64,
    stop: AtomicBool,
}

impl Office {
    fn new() -> Self {
        let world = World::new();
        let cash = Connection::open(world.path("cash.db")).unwrap();
        cash.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE event (id INTEGER PRIMARY KEY)").unwrap();
        world.write("ledger", "");
        world.write("lock", "");
        Self { world, done: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    /// Does business until it is stopped: in turn, the cause is in the one and the effect in the other.
    fn work(&self) {
        let cash = Connection::open(self.world.path("cash.db")).unwrap();
        cash.busy_timeout(Duration::from_secs(60)).unwrap();
        let mut ledger = std::fs::File::options().append(true).open(self.world.path("ledger")).unwrap();
        let lock = std::fs::File::open(self.world.path("lock")).unwrap();
        let mut in_ledger = |id: u64| {
            flock(&lock, FlockOperation::LockExclusive).unwrap();
            writeln!(ledger, "{id}").unwrap();
            flock(&lock, FlockOperation::Unlock).unwrap();
        };
        let in_cash = |id: u64| {
            cash.execute("INSERT INTO event VALUES (?1)", [id.cast_signed()]).unwrap();
        };
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.done.load(Ordering::Relaxed);
            if id.is_multiple_of(2) {
                in_ledger(id);
                in_cash(id);
            } else {
                in_cash(id);
                in_ledger(id);
            }
            self.done.store(id + 1, Ordering::Relaxed);
        }
    }

    fn wait_for_business(&self) {
        let before = self.done.load(Ordering::Relaxed);
        wait_until(Duration::from_secs(60), "business", || self.done.load(Ordering::Relaxed) >= before + 50);
    }

    /// The ledger, held by whoever has its lock; and the database.
    fn sources(&self) -> [SourceConfig; 2] {
        let folder = self.world.path("").display().to_string();
        let shell = |script: &str| ["sh", "-e", "-c", script].map(str::to_owned).to_vec();
        // The lock is that of a process that stays, and is the proof that it was there to the end.
        let hold = "cd \"$OFFICE\"; exec 9< lock; flock 9; cp ledger frozen; sleep 3600 & echo $! > holds";
        let command = CommandSource {
            command: shell("cp \"$OFFICE/frozen\" {staging}/ledger"),
            output: Output::Folder,
            env: BTreeMap::from([("OFFICE".to_owned(), agent::capture::EnvValue::Plain(folder))]),
            timeout: Duration::from_secs(60),
            check: None,
            hold: Some(CommandHold { hold: shell(hold), release: shell("kill \"$(cat \"$OFFICE/holds\")\"") }),
        };
        let source = |name: &str, kind| SourceConfig { name: name.parse().unwrap(), kind };
        let cash = SqliteSource { path: self.world.path("cash.db") };
        [source("ledger", SourceKind::Command(command)), source("cash", SourceKind::Sqlite(cash))]
    }
}

/// Ends the business when the test ends, however that ends.
struct EndOfBusiness<'a>(&'a Office);

impl Drop for EndOfBusiness<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether two copies may have been of one instant: no effect is without its cause, and nothing is missing before the last.
fn are_of_one_instant(ledger: &str, cash: &Path) -> bool {
    let ledger: BTreeSet<u64> = ledger.lines().map(|line| line.parse().unwrap()).collect();
    let connection = Connection::open(cash).unwrap();
    let mut statement = connection.prepare("SELECT id FROM event").unwrap();
    let ids = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    let cash: BTreeSet<u64> = ids.map(|id| id.unwrap().cast_unsigned()).collect();
    assert!(ledger.len() + cash.len() > 50, "there is nothing to judge");
    let last = ledger.iter().chain(&cash).max().copied().unwrap();
    let (cause, effect) = if last.is_multiple_of(2) { (&ledger, &cash) } else { (&cash, &ledger) };
    let earlier = (0..last).all(|id| ledger.contains(&id) && cash.contains(&id));
    earlier && (cause.contains(&last) || !effect.contains(&last))
}

fn copy_of(world: &World, staged: PathBuf) -> PathBuf {
    let to = tempfile::tempdir_in(world.path("")).unwrap().keep().join("cash.db");
    std::fs::write(&to, std::fs::read(staged).unwrap()).unwrap();
    to
}

#[test]
fn an_engine_that_is_held_by_a_program_is_copied_at_the_instant_of_the_others() {
    let office = Office::new();
    std::thread::scope(|scope| {
        scope.spawn(|| office.work());
        let _end = EndOfBusiness(&office);
        for _ in 0..3 {
            let early = std::fs::read_to_string(office.world.path("ledger")).unwrap();
            office.wait_for_business();
            let (generation, document) = run_with(&office.world, &office.sources(), &patient(), &|_| ());
            office.wait_for_business();
            assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Barrier), "{document:#?}");
            assert_eq!((of(&document, "ledger").role, of(&document, "cash").role), (Role::Held, Role::Held));
            assert!(of(&document, "ledger").held_us > 0);
            let staged = |source: &str, file: &str| generation.data_folder(&source.parse().unwrap()).join(file);
            let ledger = std::fs::read_to_string(staged("ledger", "ledger")).unwrap();
            let cash = copy_of(&office.world, staged("cash", "cash.db"));
            assert!(are_of_one_instant(&ledger, &cash));
            // One after the other they are not.
            assert!(!are_of_one_instant(&early, &cash));
        }
    });
    let lock = std::fs::File::open(office.world.path("lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn an_engine_that_can_not_be_held_is_copied_at_leisure_and_one_that_is_not_let_go_is_told() {
    let office = Office::new();
    // Its writers are held until it has been copied.
    let till = Book::create("till", office.world.path("till.db"), "delete");
    let with = |hold: &str, release: &str, cut: &CutSettings| {
        let mut sources = office.sources().to_vec();
        sources.push(sqlite_source(&till));
        let SourceKind::Command(command) = &mut sources[0].kind else { unreachable!() };
        let shell = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        command.command = shell("echo all > {staging}/ledger");
        command.hold = Some(CommandHold { hold: shell(hold), release: shell(release) });
        run_with(&office.world, &sources, cut, &|_| ()).1
    };
    let short = CutSettings { barrier_within: Duration::from_millis(300), ..patient() };
    let document = with("echo no lock to be had >&2; exit 1", "exit 0", &short);
    assert_eq!((document.grade, document.problems.len()), (Grade::Sequential, 0), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("no lock to be had")), "{document:#?}");
    assert_eq!(of(&document, "ledger").role, Role::Leisure);
    // The engine says that nobody was held when the release came; and it stays with that.
    let document = with("exit 0", "echo nobody is held >&2; exit 1", &patient());
    assert_eq!((document.grade, document.cut.method), (Grade::Incomplete, CutMethod::None), "{document:#?}");
    assert!(document.problems[0].what.contains("nobody is held"), "{document:#?}");
    assert!(document.problems[0].what.contains("let them go by hand"), "{document:#?}");
    assert_eq!(document.cut.tries, 2, "{document:#?}");
    assert!(of(&document, "till").role == Role::Leisure && of(&document, "till").bytes > 0, "{document:#?}");
    let till = Connection::open(&till.path).unwrap();
    till.busy_timeout(Duration::ZERO).unwrap();
    till.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
}

/// An office with an engine that is frozen as long as a file is there, and takes as long about it as another file is.
struct Frozen(World);

impl Frozen {
    fn new(also: &str) -> Self {
        let world = World::new();
        let path = |name: &str| world.path(name).display().to_string();
        Connection::open(world.path("cash.db")).unwrap().execute_batch("CREATE TABLE event (id INTEGER)").unwrap();
        world.make_folder("usb");
        let script = |name: &str, text: &str| {
            let text = format!("#!/bin/sh\ncd '{}'\n{text}", world.path("").display());
            set_mode(&world.write(name, text), 0o755);
        };
        script("freeze", &format!("touch frozen\n{also}\nwhile [ -e slow ]; do sleep 0.01; done\n"));
        script("thaw", "rm -f frozen\n");
        script("export", "echo all > \"$1/ledger\"\n");
        let ledger = format!(
            "name=ledger,type=command,command={},command={{staging}},hold={},release={}",
            path("export"),
            path("freeze"),
            path("thaw")
        );
        let arguments = [
            "init".to_owned(),
            "--site=office".to_owned(),
            "--one-key-is-enough".to_owned(),
            format!("--source={ledger}"),
            format!("--source=name=cash,type=sqlite,path={}", path("cash.db")),
            format!("--store=name=usb,type=directory,path={}", path("usb")),
            format!("--new-identity={}", path("keys/office.txt")),
            format!("--staging={}", path("staging")),
            format!("--state={}", path("state")),
        ];
        world.offsite(arguments).expect(0);
        world.be_patient();
        world.offsite(["check"]).expect(0);
        Self(world)
    }

    fn is_frozen(&self) -> bool {
        self.0.path("frozen").exists()
    }

    fn wait_until_frozen(&self, frozen: bool) {
        wait_until(Duration::from_secs(60), "the engine", || self.is_frozen() == frozen);
    }

    /// What the newest generation says, which must be exact.
    #[track_caller]
    fn assert_exact(&self) -> Document {
        let (_, document) = newest_staged(&self.0);
        assert_eq!(document.grade, Grade::Exact, "{document:#?}");
        assert_eq!(of(&document, "ledger").role, Role::Held);
        document
    }
}

#[test]
fn a_run_that_is_killed_while_a_program_holds_leaves_nobody_held_and_the_next_one_works() {
    let office = Frozen::new("");
    office.0.write("slow", "");
    let running = office.0.offsite(["backup"]).start();
    office.wait_until_frozen(true);
    running.kill();
    office.wait_until_frozen(false);
    std::fs::remove_file(office.0.path("slow")).unwrap();
    office.0.offsite(["backup"]).expect(0);
    office.assert_exact();
    assert!(!office.is_frozen());
}

#[test]
fn a_run_that_is_stopped_while_a_program_holds_holds_nobody_and_finds_out() {
    let office = Frozen::new("");
    office.0.write("slow", "");
    let running = office.0.offsite(["backup"]).start();
    office.wait_until_frozen(true);
    running.signal(Signal::STOP);
    // The limit is kept by somebody else.
    office.wait_until_frozen(false);
    std::fs::remove_file(office.0.path("slow")).unwrap();
    running.signal(Signal::CONT);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(!office.assert_exact().cut.failed_tries.is_empty());
    assert!(!office.is_frozen());
}

#[test]
fn a_helper_that_is_killed_or_stopped_while_its_program_holds_costs_a_try() {
    for signal in ["KILL", "STOP"] {
        let office = Frozen::new(&format!("if mkdir once 2>/dev/null; then kill -s {signal} $PPID; sleep 3600; fi"));
        office.0.offsite(["backup"]).expect(0);
        let document = office.assert_exact();
        assert!(document.cut.failed_tries.iter().any(|why| why.contains("helper process")), "{document:#?}");
        assert!(!office.is_frozen());
    }
}

#[test]
fn whoever_is_held_has_to_be_let_go_says_the_configuration() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/minimal.toml")).unwrap();
    let source = "[[source]]\nname = \"mail\"\ntype = \"command\"\ncommand = [\"/bin/cp\", \"{staging}\"]\n\
                  hold = [\"/bin/true\"]\n";
    let problems = Config::parse(&format!("{text}\n{source}"), Path::new("/etc/offsite")).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.contains("`hold` and `release` go together"), "{problems:?}");
}
