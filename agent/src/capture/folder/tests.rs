//! Folders as sources, with everything that lies in them.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::super::settings::{FolderSource, SourceConfig, SourceKind, SqliteSource};
use super::*;
use crate::capture::Patterns;
use crate::entry::Mtime;
use crate::generation::{Class, Cut, CutMethod, Document, Grade, Problem, SourceRecord};
use crate::ids::GenerationId;
use crate::platform;
use crate::staging::{Staging, generations};

/// A staging folder and a folder to be copied.
struct Office {
    folder: tempfile::TempDir,
    staging: Staging,
    databases: Vec<SourceConfig>,
    count: u16,
}

struct Captured {
    generation: LocalGeneration,
    problems: Vec<Problem>,
}

impl Office {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        let staging = Staging::open(&folder.path().join("staging"), jiff::Timestamp::UNIX_EPOCH).unwrap();
        Self { folder, staging, databases: Vec::new(), count: 0 }
    }

    fn docs(&self) -> PathBuf {
        self.folder.path().join("docs")
    }

    fn capture(&mut self, patterns: Patterns) -> Captured {
        self.capture_watched(patterns, &|_| ())
    }

    fn capture_watched(&mut self, patterns: Patterns, watch: Watch<'_>) -> Captured {
        self.count += 1;
        let id = format!("19700101T000000Z-{:04x}", self.count).parse::<GenerationId>().unwrap();
        let previous = generations(self.staging.root()).unwrap().pop();
        let draft = self.staging.begin(&id, previous.as_ref()).unwrap();
        let name: SourceName = "docs".parse().unwrap();
        let mut writer = draft.source(&name).unwrap();
        let mut problems = Problems::new(&name);
        let root = platform::tree::path_stat(self.staging.root()).unwrap();
        let own = [(root.dev, root.ino)];
        let databases = Databases::of(&self.databases);
        let around = Surroundings { previous: previous.as_ref(), own: &own, databases: &databases, watch };
        let source = FolderSource { path: self.docs(), patterns, snapshot: None, may_be_empty: false };
        copy(&source, &name, &mut writer, &around, None, &mut problems).unwrap();
        writer.finish().unwrap();
        let generation = draft.finish(&document(&id)).unwrap();
        Captured { generation, problems: problems.into_vec() }
    }
}

fn document(id: &GenerationId) -> Document {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let (method, failed_tries) = (CutMethod::Single, Vec::new());
    let cut = Cut { method, not_before: now, not_after: now, tries: 0, failed_tries, held_us_max: 0 };
    Document {
        version: 1,
        site: "office".parse().unwrap(),
        generation: id.clone(),
        class: Class::Rolling,
        label: None,
        lifetime: None,
        program: String::new(),
        grade: Grade::Exact,
        cut,
        sources: Vec::new(),
        problems: Vec::new(),
    }
}

impl Captured {
    fn entries(&self) -> Vec<IndexedEntry> {
        self.generation.entries().unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn entry(&self, path: &[u8]) -> IndexedEntry {
        let all = self.entries();
        all.into_iter()
            .find(|e| e.entry.path.as_bytes() == path)
            .unwrap_or_else(|| panic!("no {}", path.escape_ascii()))
    }

    fn names(&self) -> Vec<String> {
        self.entries().iter().map(|e| e.entry.path.to_string()).collect()
    }

    fn content(&self, path: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        let path = EntryPath::new(path).unwrap();
        self.generation.open_file(&path).unwrap().read_to_end(&mut content).unwrap();
        content
    }
}

/// Waits until the clock of file times has moved so far that what was written before counts as settled.
fn settle(path: &Path) {
    let begin = std::time::Instant::now();
    let changed = fs::metadata(path).unwrap();
    let changed = jiff::Timestamp::new(changed.ctime(), i32::try_from(changed.ctime_nsec()).unwrap()).unwrap();
    while crate::clock::now().duration_since(changed) < jiff::SignedDuration::from_millis(150) {
        assert!(begin.elapsed().as_secs() < 60, "the clock stands still");
        std::thread::yield_now();
    }
}

#[test]
fn every_kind_of_entry_is_recorded_as_it_is() {
    let mut office = Office::new();
    let docs = office.docs();
    let odd = docs.join(platform::tree::name(b"a\n\xff"));
    fs::write(&odd, "odd").unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(&odd, docs.join("hard")).unwrap();
    symlink("../nowhere", docs.join("soft")).unwrap();
    fs::create_dir(docs.join("empty")).unwrap();
    fs::set_permissions(docs.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(docs.join("nothing"), "").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, docs.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();

    let captured = office.capture(Patterns::all());
    assert_eq!(captured.names(), ["docs", "docs/a%0A%FF", "docs/empty", "docs/hard", "docs/nothing", "docs/soft"]);
    let file = captured.entry(b"docs/a\n\xff").entry;
    let stat = fs::metadata(&odd).unwrap();
    assert_eq!((file.mode, file.uid, file.gid), (0o4750, stat.uid().into(), stat.gid().into()));
    assert_eq!(file.mtime, Mtime { seconds: stat.mtime(), nanoseconds: u32::try_from(stat.mtime_nsec()).unwrap() });
    assert_eq!(file.kind, EntryKind::File { bytes: 3, sparse: false });
    assert_eq!(captured.entry(b"docs/hard").entry.kind, EntryKind::HardLink { target: file.path });
    assert_eq!(captured.entry(b"docs/soft").entry.kind, EntryKind::Symlink { target: b"../nowhere".to_vec() });
    assert_eq!(captured.entry(b"docs/empty").entry.mode, 0o1777);
    assert_eq!(captured.content(b"docs/a\n\xff"), b"odd");
    assert_eq!(captured.content(b"docs/nothing"), b"");
    let problems: Vec<_> = captured.problems.iter().map(|p| (p.path.as_deref().unwrap(), p.missing)).collect();
    assert_eq!(problems, [("pipe", false)]);
    let staged = captured.generation.data_folder(&"docs".parse().unwrap());
    assert_eq!(fs::metadata(staged.join("nothing")).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(fs::metadata(staged.join("empty")).unwrap().mode() & 0o7777, 0o500);
    captured.generation.remove().unwrap();
}

#[test]
fn what_has_not_changed_is_linked_and_what_has_is_copied() {
    let mut office = Office::new();
    let docs = office.docs();
    fs::create_dir(docs.join("sub")).unwrap();
    for name in ["same", "edited", "sub/same", "removed"] {
        fs::write(docs.join(name), name).unwrap();
    }
    settle(&docs.join("removed"));
    let first = office.capture(Patterns::all());
    assert!(first.entries().iter().all(|entry| !entry.linked));
    assert_eq!(first.generation.previous().unwrap(), None);

    // Same size, and the time of change set back: the inode's own time gives it away.
    let mtime = fs::metadata(docs.join("edited")).unwrap().modified().unwrap();
    fs::write(docs.join("edited"), "EDITED").unwrap();
    fs::File::options().write(true).open(docs.join("edited")).unwrap().set_modified(mtime).unwrap();
    fs::remove_file(docs.join("removed")).unwrap();
    fs::write(docs.join("added"), "added").unwrap();
    let second = office.capture(Patterns::all());
    assert_eq!(second.generation.previous().unwrap().as_ref(), Some(first.generation.id()));
    let linked: Vec<_> = second.entries().iter().filter(|e| e.linked).map(|e| e.entry.path.to_string()).collect();
    assert_eq!(linked, ["docs/same", "docs/sub/same"]);
    assert_eq!(second.content(b"docs/edited"), b"EDITED");
    assert_eq!(first.content(b"docs/edited"), b"edited");
    assert_eq!(second.content(b"docs/sub/same"), b"sub/same");

    first.generation.remove().unwrap();
    let third = office.capture(Patterns::all());
    assert_eq!(third.content(b"docs/sub/same"), b"sub/same");
    assert!(third.entry(b"docs/sub/same").linked);
}

#[test]
fn holes_stay_holes() {
    let mut office = Office::new();
    let path = office.docs().join("image");
    let file = fs::File::create_new(&path).unwrap();
    file.set_len(1 << 34).unwrap();
    file.write_all_at(b"in the middle", 1 << 33).unwrap();
    let captured = office.capture(Patterns::all());
    assert_eq!(captured.entry(b"docs/image").entry.kind, EntryKind::File { bytes: 1 << 34, sparse: true });
    let mut staged = captured.generation.open_file(&EntryPath::new("docs/image").unwrap()).unwrap();
    assert!(staged.metadata().unwrap().blocks() < 1000);
    let mut content = [0; 13];
    staged.seek(SeekFrom::Start(1 << 33)).unwrap();
    staged.read_exact(&mut content).unwrap();
    assert_eq!(&content, b"in the middle");
}

#[test]
fn patterns_take_files_and_the_folders_on_the_way_to_them() {
    let mut office = Office::new();
    let docs = office.docs();
    for name in ["a/b/c/x.md", "a/y.txt", "d/z.txt", "e/keep.md", "e/draft.md"] {
        fs::create_dir_all(docs.join(name).parent().unwrap()).unwrap();
        fs::write(docs.join(name), name).unwrap();
    }
    let captured = office.capture(Patterns::new(&["*.md"], &["draft*"]).unwrap());
    let expected = ["docs", "docs/a", "docs/a/b", "docs/a/b/c", "docs/a/b/c/x.md", "docs/e", "docs/e/keep.md"];
    assert_eq!(captured.names(), expected);
    let excluded = office.capture(Patterns::new(&[], &["/a/b", "e"]).unwrap());
    assert_eq!(excluded.names(), ["docs", "docs/a", "docs/a/y.txt", "docs/d", "docs/d/z.txt"]);
}

#[test]
fn deep_folders_beyond_the_longest_path_are_copied() {
    let mut office = Office::new();
    let mut folder = Dir::open(&office.docs()).unwrap();
    let name = [b'n'; 100];
    for _ in 0..200 {
        folder = folder.create_dir(&name).unwrap();
    }
    folder.create_file(b"file").unwrap().write_all(b"deep").unwrap();
    let captured = office.capture(Patterns::all());
    let last = captured.entries().pop().unwrap().entry;
    assert_eq!((last.path.segments().count(), last.path.name()), (202, b"file".as_slice()));
    assert_eq!(captured.content(last.path.as_bytes()), b"deep");
    assert!(captured.problems.is_empty());
    captured.generation.remove().unwrap();
    assert!(generations(office.staging.root()).unwrap().is_empty());
}

#[test]
fn a_file_that_never_rests_is_kept_but_not_called_whole() {
    let mut office = Office::new();
    let path = office.docs().join("log");
    fs::write(&path, "begin\n").unwrap();
    // Written to whenever some of it has been read.
    let append = || fs::File::options().append(true).open(&path).unwrap().write_all(b"line\n").unwrap();
    let captured = office.capture_watched(Patterns::all(), &|event| match event {
        Event::Copied { .. } => append(),
        _ => panic!("{event:?}"),
    });
    assert!(captured.content(b"docs/log").starts_with(b"begin\n"));
    assert_eq!(captured.problems.len(), 1);
    assert!(
        captured.problems[0].missing && captured.problems[0].what.contains("being written"),
        "{:?}",
        captured.problems
    );
    let EntryKind::File { bytes, .. } = captured.entry(b"docs/log").entry.kind else { panic!("no file") };
    assert_eq!(bytes, captured.content(b"docs/log").len() as u64);
}

#[test]
fn our_own_folders_are_left_out() {
    let mut office = Office::new();
    fs::write(office.docs().join("a"), "a").unwrap();
    let inside = office.docs().join("backup");
    office.staging = Staging::open(&inside, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let captured = office.capture(Patterns::all());
    assert_eq!(captured.names(), ["docs", "docs/a"]);
    assert_eq!(captured.problems.len(), 1);
    assert!(!captured.problems[0].missing);
}

/// Copied as a file it would be torn, and what SQLite keeps beside it vanishes while it is read.
#[test]
fn databases_that_are_sources_of_their_own_are_left_to_them() {
    let mut office = Office::new();
    let deep = office.docs().join("deep");
    fs::create_dir(&deep).unwrap();
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal", "ledger.db-notes", "other.db"] {
        fs::write(deep.join(name), name).unwrap();
    }
    fs::write(office.docs().join("ledger.db"), "another one").unwrap();
    // Whatever path the configuration has for it.
    symlink(deep.join("ledger.db"), office.folder.path().join("link")).unwrap();
    let path = office.folder.path().join("link");
    office.databases =
        vec![SourceConfig { name: "ledger".parse().unwrap(), kind: SourceKind::Sqlite(SqliteSource { path }) }];
    let captured = office.capture(Patterns::all());
    let expected = ["docs", "docs/deep", "docs/deep/ledger.db-notes", "docs/deep/other.db", "docs/ledger.db"];
    assert_eq!(captured.names(), expected);
    let [Problem { path: Some(path), what, missing: false, .. }] = captured.problems.as_slice() else {
        panic!("{:?}", captured.problems)
    };
    assert!(path == "deep/ledger.db" && what.contains("`ledger`"), "{path}: {what}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_of_the_source() {
    let office = Office::new();
    let draft = office.staging.begin(&"19700101T000000Z-0009".parse::<GenerationId>().unwrap(), None).unwrap();
    let name: SourceName = "docs".parse().unwrap();
    let mut writer = draft.source(&name).unwrap();
    let around = Surroundings { previous: None, own: &[], databases: &Databases::default(), watch: &|_| () };
    let source = FolderSource {
        path: "/nonexistent/docs".into(),
        patterns: Patterns::all(),
        snapshot: None,
        may_be_empty: false,
    };
    let error = copy(&source, &name, &mut writer, &around, None, &mut Problems::new(&name)).unwrap_err();
    assert!(matches!(error, FolderError::Root(_)), "{error:?}");
    writer.discard().unwrap();
    draft.discard().unwrap();
    assert!(office.staging.abandoned().unwrap().is_empty());
}

/// Retention has removed the generation that held something; what was said of those that are left is all that is known.
#[test]
fn a_folder_that_was_emptied_is_not_forgotten_when_nothing_shows_what_it_held() {
    let office = Office::new();
    let name: SourceName = "docs".parse().unwrap();
    let missed = |what: &str| Problem { source: name.clone(), path: None, what: what.to_owned(), missing: true };
    let record = |entries| SourceRecord {
        entries,
        ..crate::capture::empty_record(&name, "folder", jiff::Timestamp::UNIX_EPOCH)
    };
    // On the first night the disk was not there, on the second its mount point was empty.
    let nights = [(1, 0, vec![missed("it cannot be read")]), (2, 1, vec![missed("it is empty")])];
    for (number, entries, problems) in nights {
        let id = format!("19700101T000000Z-{number:04x}").parse::<GenerationId>().unwrap();
        let draft = office.staging.begin(&id, None).unwrap();
        let document = Document { sources: vec![record(entries)], problems, ..document(&id) };
        draft.finish(&document).unwrap();
    }
    let newest = generations(office.staging.root()).unwrap().pop();
    let source = FolderSource { path: office.docs(), patterns: Patterns::all(), snapshot: None, may_be_empty: false };
    let said = emptied(&source, &record(1), newest.as_ref()).unwrap();
    assert!(said.contains("an earlier generation") && said.contains("may_be_empty"), "{said}");
    assert_eq!(emptied(&FolderSource { may_be_empty: true, ..source }, &record(1), newest.as_ref()), None);
}
