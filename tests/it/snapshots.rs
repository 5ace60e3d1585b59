//! Folders that are copied from a snapshot of a real Btrfs: of the instant of the databases, under load; and nothing is left
//! behind, whatever happens.
//!
//! `OFFSITE_CUT_ROUNDS=20` makes as many rounds of the first test, and `OFFSITE_CUT_LOAD` chooses the load (`cut.rs`) of the
//! clerks.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agent::capture::{CutSettings, FolderSource, Patterns, SnapshotKind, SourceConfig, SourceKind, check_snapshots};
use agent::generation::{CutMethod, Document, Grade, Role};
use tests::captures::{
    MARIADB_RIGHTS, copy_sqlite, load_mariadb, load_postgres, mariadb_account, newest_staged, of, postgres_account,
    run, run_with, sqlite_source,
};
use tests::clerks::{Book, Clerks, Engine, judge};
use tests::disk::{Btrfs, Disk};
use tests::process::{program, search_path};
use tests::servers::{mariadb, postgres};
use tests::{World, office, wait_until};

use crate::cut::load;

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");

/// An office whose folders lie on Btrfs.
struct Office {
    world: World,
    books: Vec<Book>,
    disk: Btrfs,
}

impl Office {
    /// Two folders in one subvolume, and databases of three engines.
    fn new() -> Self {
        let (world, disk) = disk();
        let books = vec![
            Book::create("cash", world.path("cash.db"), "wal"),
            Book::create_in("stock", postgres()),
            Book::create_at("shop", mariadb()),
            Book::of_papers("letters", world.path("disk/srv/letters")),
            Book::of_papers("bills", world.path("disk/srv/bills")),
        ];
        let office = Self { world, books, disk };
        let (pg, my) = (postgres(), mariadb());
        let (pg_user, my_user) = (postgres_account(pg), mariadb_account(my, MARIADB_RIGHTS));
        let mut sources = vec![
            format!(
                "name=stock,type=postgres,host={},port={},user={pg_user},databases={}",
                pg.socket.display(),
                pg.port,
                office.books[1].database()
            ),
            format!(
                "name=shop,type=mariadb,host={},user={my_user},databases={}",
                my.socket.display(),
                office.books[2].database()
            ),
        ];
        sources.extend(office.own_sources());
        office.init(&sources);
        office
    }

    /// With nothing but an SQLite database, whose name is `cash`, and a folder, `letters`.
    fn small() -> Self {
        let (world, disk) = disk();
        let books = vec![
            Book::create("cash", world.path("cash.db"), "wal"),
            Book::of_papers("letters", world.path("disk/srv/letters")),
        ];
        world.write("disk/srv/letters/old.txt", "Dear");
        let office = Self { world, books, disk };
        office.init(&office.own_sources());
        office
    }

    fn own_sources(&self) -> Vec<String> {
        let source = |book: &Book| match (&book.database, book.path.is_dir()) {
            (None, false) => Some(format!("name={},type=sqlite,path={}", book.name, book.path.display())),
            (None, true) => Some(format!("name={},type=folder,snapshot=btrfs,path={}", book.name, book.path.display())),
            (Some(_), _) => None,
        };
        self.books.iter().filter_map(source).collect()
    }

    fn init(&self, sources: &[String]) {
        let path = |name: &str| self.world.path(name).display().to_string();
        self.world.make_folder("usb");
        let mut arguments = vec!["init".to_owned(), "--site=office".to_owned(), "--one-key-is-enough".to_owned()];
        arguments.extend(sources.iter().map(|source| format!("--source={source}")));
        arguments.push(format!("--store=name=usb,type=directory,path={}", path("usb")));
        arguments.push(format!("--new-identity={}", path("office.txt")));
        arguments.extend([format!("--staging={}", path("staging")), format!("--state={}", path("state"))]);
        self.world.offsite(arguments).expect(0);
        if std::env::var_os("OFFSITE_CUT_ROUNDS").is_none() {
            self.world.be_patient();
        }
    }

    /// One generation; what it says.
    #[track_caller]
    fn backup(&self, code: i32) -> Document {
        self.world.offsite(["backup"]).expect(code);
        newest_staged(&self.world).1
    }

    /// The books, as they come back from the store.
    fn restore(&self, generation: &str) -> Vec<Book> {
        let to = format!("back-{generation}");
        let arguments = ["restore", generation, "--from", "usb", "--to", &to, "--identity", "office.txt"];
        self.world.offsite(arguments).expect(0);
        let copy = |book: &Book| {
            let folder = self.world.path(&to).join(book.name);
            if book.is_at(Engine::Postgres) {
                load_postgres(postgres(), book, &folder.join(format!("{}.dump", book.database())))
            } else if book.is_at(Engine::MariaDb) {
                load_mariadb(mariadb(), book, &folder.join(format!("{}.sql", book.database())))
            } else if book.path.is_dir() {
                Book::of_papers(book.name, folder)
            } else {
                Book { name: book.name, path: folder.join("cash.db"), database: None }
            }
        };
        self.books.iter().map(copy).collect()
    }

    /// The tool of the file system, with `script` in its place: `$real` is the tool itself.
    fn with_tool(&self, script: &str) -> std::ffi::OsString {
        let folder = self.world.make_folder("tools");
        let script = format!("#!/bin/sh\nreal='{}'\n{script}\n", program("btrfs").display());
        office::set_mode(&self.world.write("tools/btrfs", script), 0o755);
        std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&search_path()))).unwrap()
    }
}

/// A world with a Btrfs at `disk`, which has the subvolume `srv`.
fn disk() -> (World, Btrfs) {
    let world = World::new();
    let disk = Btrfs::mount(&world.path("disk"));
    disk.subvolume("srv");
    (world, disk)
}

fn folder_source(name: &str, path: PathBuf) -> SourceConfig {
    let kind =
        FolderSource { path, patterns: Patterns::all(), snapshot: Some(SnapshotKind::Btrfs), may_be_empty: false };
    SourceConfig { name: name.parse().unwrap(), kind: SourceKind::Folder(kind) }
}

#[test]
fn folders_in_a_snapshot_come_back_as_they_were_at_the_instant_of_the_databases() {
    let rounds: usize = std::env::var("OFFSITE_CUT_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let office = Office::new();
    let (load, mut manner) = load();
    if std::env::var_os("OFFSITE_CUT_ROUNDS").is_none() {
        // On a machine that has much else to do a snapshot takes longer, and in that time nobody may commit in PostgreSQL.
        manner.clerks = 3;
    }
    let clerks = Clerks::start_in(Path::new(CLERK), manner, &office.books);
    let (mut held, mut took, mut tries) = (Vec::new(), Vec::new(), Vec::new());
    let began = Instant::now();
    for _ in 0..rounds {
        // Otherwise nothing was going on, and anything would pass.
        clerks.work(20);
        let document = office.backup(0);
        clerks.work(20);
        assert_eq!((document.grade, document.problems.len()), (Grade::Exact, 0), "{document:#?}");
        for (name, role) in
            [("letters", Role::Pivot), ("bills", Role::Pivot), ("stock", Role::Proved), ("shop", Role::Held)]
        {
            assert_eq!(of(&document, name).role, role, "{document:#?}");
        }
        let letters = of(&document, "letters");
        assert_eq!((letters.position["snapshot"].as_str(), letters.held_us), ("btrfs", 0));
        assert!(letters.pinned_at.is_some_and(|at| document.cut.not_before <= at && at <= document.cut.not_after));
        judge(&office.restore(document.generation.as_str())).assert_of_one_instant(office.books.len() * 20);
        assert_eq!(office.disk.subvolumes(), ["srv"]);
        held.push(document.cut.held_us_max);
        took.push(letters.position["snapshot_us"].clone());
        tries.push(document.cut.tries);
    }
    let seconds = began.elapsed().as_secs_f64();
    let journal = clerks.stop();
    assert_eq!(journal.errors, Vec::<String>::new());
    let rate = journal.steps.len() as f64 / 2.0 / seconds;
    eprintln!(
        "{load}: {rounds} rounds, {rate:.0} pieces of business a second; held {held:?} µs; snapshots of {took:?} µs; tries {tries:?}"
    );
}

/// More than half of the disk: beside it there is no room for it a second time.
#[test]
fn a_database_shares_its_blocks_with_its_copy() {
    let (world, _disk) = disk();
    let path = |name: &str| world.path(name).display().to_string();
    let ledger = rusqlite::Connection::open(world.path("disk/srv/cash.db")).unwrap();
    ledger
        .execute_batch(
            "PRAGMA journal_mode = OFF; CREATE TABLE scan (n INTEGER PRIMARY KEY, page BLOB);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 120)
             INSERT INTO scan SELECT n, randomblob(1 << 20) FROM c;
             PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
             UPDATE scan SET page = randomblob(9000) WHERE n % 30 = 0; DELETE FROM scan WHERE n = 7",
        )
        .unwrap();
    world.make_folder("usb");
    let arguments = [
        "init".to_owned(),
        "--site=office".to_owned(),
        "--one-key-is-enough".to_owned(),
        format!("--source=name=cash,type=sqlite,path={}", path("disk/srv/cash.db")),
        format!("--store=name=usb,type=directory,path={}", path("usb")),
        format!("--new-identity={}", path("office.txt")),
        format!("--staging={}", path("disk/staging")),
        format!("--state={}", path("state")),
    ];
    world.offsite(arguments).expect(0);
    world.offsite(["backup"]).expect(0);
    let arguments = ["restore", "latest", "--from", "usb", "--to", "back", "--identity", "office.txt"];
    world.offsite(arguments).expect(0);
    ledger.execute("ATTACH ?1 AS back", [path("back/cash/cash.db")]).unwrap();
    let number = |sql: &str| ledger.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(number("SELECT count(*) FROM back.scan"), 119);
    assert_eq!(number("SELECT count(*) FROM scan JOIN back.scan AS b USING (n) WHERE scan.page = b.page"), 119);
    let check: String = ledger.query_row("PRAGMA back.integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn the_same_folder_copied_at_leisure_does_not_pass_the_judge() {
    let (world, _disk) = disk();
    let books = [
        Book::create("cash", world.path("cash.db"), "wal"),
        Book::of_papers("letters", world.path("disk/srv/letters")),
    ];
    let clerks = Clerks::start(Path::new(CLERK), 3, 5, &books);
    let cut = CutSettings { hold_limit: CutSettings::HOLD_LIMIT_MAX, ..CutSettings::default() };
    let look = |snapshot| {
        clerks.work(20);
        let letters =
            FolderSource { path: books[1].path.clone(), patterns: Patterns::all(), snapshot, may_be_empty: false };
        let letters = SourceConfig { name: "letters".parse().unwrap(), kind: SourceKind::Folder(letters) };
        let (generation, document) = run_with(&world, &[sqlite_source(&books[0]), letters], &cut, &|_| ());
        // What is written to while it is read in use may be missed as well.
        assert!(document.grade == Grade::Exact || snapshot.is_none(), "{document:#?}");
        let staged = |name: &str| generation.data_folder(&name.parse().unwrap());
        let cash = copy_sqlite(&world, &books[0], &staged("cash").join("cash.db"));
        judge(&[cash, Book::of_papers("letters", staged("letters"))])
    };
    look(Some(SnapshotKind::Btrfs)).assert_of_one_instant(40);
    wait_until(Duration::from_secs(60), "a copy at leisure to be of another moment", || {
        let verdict = look(None);
        verdict.without_cause + verdict.lost > 0
    });
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
}

#[test]
fn what_is_copied_from_a_snapshot_is_known_again_and_our_own_folders_are_not_in_it() {
    let office = Office::small();
    let document = office.backup(0);
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Optimistic), "{document:#?}");
    assert_eq!(of(&document, "letters").role, Role::Pivot);
    // The whole subvolume, with what the runs before have left there of their own: an empty folder, and perhaps staging.
    let old = std::fs::metadata(office.world.path("disk/srv/letters/old.txt")).unwrap();
    assert!(office.world.path("disk/srv/.offsite-snapshots").is_dir());
    let sources = [folder_source("all", office.world.path("disk/srv"))];
    let inner = World::new();
    // What changed while the snapshot was taken, or just before, does not count as known; and it may take as long as writers
    // may be held.
    let age = || old.modified().unwrap().elapsed().unwrap_or_default();
    let settled = CutSettings::HOLD_LIMIT_MAX + Duration::from_secs(1);
    wait_until(Duration::from_secs(60), "the letter to be old", || age() > settled);
    let (generation, document) = run(&inner, &sources);
    assert_eq!((document.grade, document.cut.method), (Grade::Exact, CutMethod::Single), "{document:#?}");
    let entries: Vec<_> = generation.entries().unwrap().map(Result::unwrap).collect();
    let names: Vec<_> = entries.iter().map(|entry| entry.entry.path.to_string()).collect();
    assert_eq!(names, ["all", "all/letters", "all/letters/old.txt"]);
    // By what the folder in use says: the next snapshot has another number for the file system.
    let seen = entries[2].seen.unwrap();
    assert_eq!((seen.dev, seen.ino), (old.dev(), old.ino()));
    assert_eq!(office.disk.subvolumes(), ["srv"]);
}

#[test]
fn a_run_that_is_killed_leaves_a_snapshot_which_the_next_one_removes_and_no_other() {
    let office = Office::small();
    office.backup(0);
    // Somebody else's, beside ours.
    let others = office.world.path("disk/srv/.offsite-snapshots/other-office@1");
    let source = office.world.path("disk/srv");
    let mut command = Command::new(program("btrfs"));
    assert!(command.args(["subvolume", "snapshot"]).arg(source).arg(&others).status().unwrap().success());
    let path = office.with_tool("\"$real\" \"$@\"; [ \"$2\" != snapshot ] || kill -9 $PPID");
    assert_eq!(office.world.offsite(["backup"]).env("PATH", path).run().code, None);
    assert_eq!(office.disk.subvolumes().len(), 3, "{:?}", office.disk.subvolumes());
    assert_eq!(office.backup(0).grade, Grade::Exact);
    assert_eq!(office.disk.subvolumes(), ["srv", "srv/.offsite-snapshots/other-office@1"]);
}

#[test]
fn what_a_snapshot_does_not_hold_is_missed() {
    let (world, disk) = disk();
    world.write("disk/srv/here.txt", "here");
    disk.subvolume("srv/inner");
    world.write("disk/srv/inner/letter.txt", "Dear");
    let _mounted = Disk::mount(&world.path("disk/srv/mounted"), 1 << 20);
    world.write("disk/srv/mounted/letter.txt", "Dear");
    let mut source = folder_source("srv", world.path("disk/srv"));
    let (_, document) = run(&world, std::slice::from_ref(&source));
    assert_eq!(document.grade, Grade::Incomplete);
    let paths: Vec<_> = document.problems.iter().map(|problem| problem.path.as_deref().unwrap()).collect();
    assert_eq!(paths, ["inner", "mounted"], "{document:#?}");
    assert!(document.problems.iter().all(|problem| problem.missing && problem.what.contains("not in the snapshot")));
    let SourceKind::Folder(folder) = &mut source.kind else { panic!("no folder") };
    folder.patterns = Patterns::new(&[], &["inner", "mounted"]).unwrap();
    let (_, document) = run(&world, &[source]);
    assert_eq!((document.grade, document.problems.len()), (Grade::Exact, 0), "{document:#?}");
    assert_eq!(disk.subvolumes(), ["srv", "srv/inner"]);
}

#[test]
fn a_folder_that_cannot_be_had_in_a_snapshot_is_copied_all_the_same_and_that_is_told() {
    let office = Office::small();
    office.world.write("elsewhere/letter.txt", "Dear");
    office.disk.subvolume("two");
    office.world.write("disk/two/letter.txt", "Dear");
    let site = "office".parse().unwrap();
    for (path, why) in [("elsewhere", "does not lie on Btrfs"), ("disk/two", "in another subvolume")] {
        let first = folder_source("first", office.world.path("disk/srv"));
        let sources = [first, folder_source("second", office.world.path(path)), sqlite_source(&office.books[0])];
        let found = check_snapshots(&sources, &site);
        assert!(matches!(&found[..], [(name, what)] if name.as_str() == "second" && what.contains(why)), "{found:?}");
        let (_, document) = run(&World::new(), &sources);
        assert_eq!((document.grade, document.cut.method), (Grade::Sequential, CutMethod::None), "{document:#?}");
        assert!(document.cut.failed_tries.iter().any(|failed| failed.contains(why)), "{document:#?}");
        assert!(matches!(&document.problems[..], [problem] if problem.what.contains(why) && !problem.missing));
        assert!(of(&document, "second").bytes == 4 && of(&document, "first").bytes > 0, "{document:#?}");
    }

    // The tool fails, or is missing, or is far too slow.
    let full = office.with_tool(
        "[ \"$2\" != snapshot ] || { echo 'ERROR: No space left on device' >&2; exit 1; }; exec \"$real\" \"$@\"",
    );
    let none = office.world.make_folder("empty").into_os_string();
    for (path, why) in [(full, "No space left on device"), (none.clone(), "install btrfs-progs")] {
        let outcome = office.world.offsite(["check"]).env("PATH", &path).run();
        assert!(outcome.code != Some(0) && outcome.stderr.contains(why), "{outcome}");
        let outcome = office.world.offsite(["backup"]).env("PATH", &path).expect(3);
        assert!(outcome.stdout.contains("NOT OF ONE INSTANT"), "{outcome}");
        let document = newest_staged(&office.world).1;
        assert!(document.cut.failed_tries.iter().any(|failed| failed.contains(why)), "{document:#?}");
        assert_eq!(of(&document, "letters").bytes, 4);
    }
    // That it is empty now, as a mount point is, is told beside it.
    std::fs::remove_file(office.world.path("disk/srv/letters/old.txt")).unwrap();
    office.world.offsite(["backup"]).env("PATH", &none).expect(3);
    let document = newest_staged(&office.world).1;
    assert_eq!(document.grade, Grade::Incomplete, "{document:#?}");
    office.world.write("disk/srv/letters/old.txt", "Dear");
    office.world.offsite(["check"]).expect(0);
    assert_eq!(office.backup(0).grade, Grade::Exact);
    assert_eq!(office.disk.subvolumes(), ["srv", "two"]);
}

#[test]
fn a_file_system_without_room_for_a_snapshot_is_copied_in_use_and_says_so() {
    let office = Office::small();
    assert_eq!(office.backup(0).grade, Grade::Exact);
    office.disk.fill("srv");
    let before = office.disk.subvolumes();
    let why = "No space left on device; free some space there";
    let outcome = office.world.offsite(["check"]).run();
    assert!(outcome.code != Some(0) && outcome.stderr.contains(why), "{outcome}");
    let document = office.backup(3);
    assert_eq!((document.grade, of(&document, "letters").bytes), (Grade::Sequential, 4), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|failed| failed.contains(why)), "{document:#?}");
    assert!(document.problems.iter().all(|problem| problem.what.contains(why) && !problem.missing), "{document:#?}");
    assert_eq!(office.disk.subvolumes(), before);
    office.disk.make_room("srv");
    let before = office.disk.subvolumes();
    assert_eq!(office.backup(0).grade, Grade::Exact);
    assert_eq!(office.disk.subvolumes(), before);
}

#[test]
fn a_snapshot_that_takes_too_long_is_not_waited_for() {
    let office = Office::small();
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    office.world.configure(&config.replace("hold_limit = \"2 s\"", "hold_limit = \"200 ms\""));
    let calls = office.world.path("calls");
    let script =
        format!("[ \"$2\" != snapshot ] || {{ echo 1 >> '{}'; sleep 0.6; }}; exec \"$real\" \"$@\"", calls.display());
    let path = office.with_tool(&script);
    office.world.offsite(["backup"]).env("PATH", path).expect(3);
    let document = newest_staged(&office.world).1;
    assert_eq!((document.grade, of(&document, "letters").bytes), (Grade::Sequential, 4), "{document:#?}");
    assert!(document.cut.failed_tries.iter().any(|why| why.contains("took longer for a snapshot than the 200 ms")));
    // None of them was used, and none is left, though each was taken in the end.
    assert_eq!(std::fs::read_to_string(&calls).unwrap().lines().count(), 3);
    assert_eq!(office.disk.subvolumes(), ["srv"]);
}

#[test]
fn what_is_not_offered_is_refused_with_what_to_do() {
    let world = World::new();
    let source = |name: &str, kind: &str| {
        format!("[[source]]\nname = \"{name}\"\ntype = \"folder\"\npath = \"/srv\"\nsnapshot = \"{kind}\"\n")
    };
    world.configure(&[source("a", "lvm"), source("b", "zfs"), source("c", "ext4")].concat());
    let outcome = world.offsite(["check"]).expect(2);
    for said in [
        "snapshots of lvm are not taken by offsite",
        "snapshots of zfs",
        "whose `hold` takes the snapshot",
        "no snapshot of `ext4`",
    ] {
        assert!(outcome.stderr.contains(said), "{said}: {outcome}");
    }
}
