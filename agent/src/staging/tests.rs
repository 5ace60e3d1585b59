//! Staging: written once, read in stream order, locked.

use super::*;
use crate::entry::{Entry, EntryKind, EntryPath, Mtime};
use crate::generation::{Class, Cut, CutMethod, Document, Grade};

const NOW: &str = "2026-11-22T23:30:04Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn root() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state").join("staging");
    fs::create_dir(root.parent().unwrap()).unwrap();
    (folder, root)
}

fn id(chance: u16) -> GenerationId {
    format!("20261122T233004Z-{chance:04x}").parse().unwrap()
}

fn document(id: &GenerationId) -> Document {
    Document {
        version: 1,
        site: "office".parse().unwrap(),
        generation: id.clone(),
        class: Class::Rolling,
        label: None,
        lifetime: None,
        program: "0".to_owned(),
        grade: Grade::Exact,
        cut: Cut {
            method: CutMethod::Single,
            not_before: now(),
            not_after: now(),
            tries: 1,
            failed_tries: Vec::new(),
            held_us_max: 0,
        },
        sources: Vec::new(),
        problems: Vec::new(),
    }
}

fn entry(path: &[u8], kind: EntryKind) -> IndexedEntry {
    let mtime = Mtime { seconds: -1, nanoseconds: 999_999_999 };
    let path = EntryPath::new(path).unwrap();
    let seen = Some(Seen { dev: 1, ino: u64::MAX, ctime: mtime });
    IndexedEntry { entry: Entry { path, kind, mode: 0o4755, uid: 1, gid: 2, mtime }, linked: true, seen }
}

#[test]
fn a_finished_generation_reads_as_it_was_written() {
    let (_folder, root) = root();
    let staging = Staging::open(&root, now()).unwrap();
    let draft = staging.begin(&id(1), None).unwrap();
    let written = [
        entry(b"docs", EntryKind::Folder),
        entry(b"docs/a\xff\n%", EntryKind::File { bytes: 5, sparse: true }),
        entry(b"docs/hard", EntryKind::HardLink { target: EntryPath::new(b"docs/a\xff\n%".as_slice()).unwrap() }),
        entry(b"docs/soft", EntryKind::Symlink { target: b"../\xfe".to_vec() }),
    ];
    // Sources may come in any order; they are read by name.
    draft.source(&"last".parse().unwrap()).unwrap().finish().unwrap();
    let mut source = draft.source(&"docs".parse().unwrap()).unwrap();
    fs::write(source.folder().join(platform::tree::name(b"a\xff\n%")), "hello").unwrap();
    for entry in &written {
        source.add(entry).unwrap();
    }
    assert_eq!(source.finish().unwrap(), Written { entries: 4, bytes: 5 });
    let finished = draft.finish(&document(&id(1))).unwrap();

    assert_eq!(generations(&root).unwrap(), std::slice::from_ref(&finished));
    assert_eq!(finished.document().unwrap(), document(&id(1)));
    assert_eq!(finished.previous().unwrap(), None);
    assert_eq!(finished.entries().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), written);
    let mut text = String::new();
    finished.open_file(&written[1].entry.path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert!(staging.abandoned().unwrap().is_empty());

    finished.remove().unwrap();
    assert!(generations(&root).unwrap().is_empty());
    assert!(staging.abandoned().unwrap().is_empty());
}

#[test]
fn one_run_at_a_time_and_the_second_learns_who_is_first() {
    let (_folder, root) = root();
    let staging = Staging::open(&root, now()).unwrap();
    let error = Staging::open(&root, now()).unwrap_err();
    assert!(error.to_string().contains(&format!("process {} on", std::process::id())), "{error}");
    drop(staging);
    Staging::open(&root, now()).unwrap();
}

#[test]
fn a_folder_open_to_others_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, root) = root();
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(Staging::open(&root, now()), Err(StagingError::NotPrivate { .. })));
}

#[test]
fn what_was_not_finished_is_abandoned_and_removed_by_plan_only() {
    let (_folder, root) = root();
    let staging = Staging::open(&root, now()).unwrap();
    let draft = staging.begin(&id(1), None).unwrap();
    draft.source(&"docs".parse().unwrap()).unwrap().finish().unwrap();
    drop(draft);
    drop(staging);
    let staging = Staging::open(&root, now()).unwrap();
    assert!(staging.generations().unwrap().is_empty());
    let abandoned = staging.abandoned().unwrap();
    assert_eq!(abandoned.len(), 1);
    for left in abandoned {
        left.remove().unwrap();
    }
    assert!(staging.abandoned().unwrap().is_empty());
}

#[test]
fn a_damaged_index_is_an_error_and_not_a_short_list() {
    let (_folder, root) = root();
    let staging = Staging::open(&root, now()).unwrap();
    let draft = staging.begin(&id(1), None).unwrap();
    let name = "docs".parse().unwrap();
    let mut source = draft.source(&name).unwrap();
    for n in 0..1000 {
        let path = if n == 0 { "docs".to_owned() } else { format!("docs/{n:04}") };
        source.add(&entry(path.as_bytes(), EntryKind::Folder)).unwrap();
    }
    assert!(matches!(source.add(&entry(b"docs/0001", EntryKind::Folder)), Err(StagingError::OutOfOrder { .. })));
    source.finish().unwrap();
    let finished = draft.finish(&document(&id(1))).unwrap();
    assert_eq!(finished.entries_of(&name).unwrap().filter(Result::is_ok).count(), 1000);

    let path = index::index_file(&finished.folder().join("index"), &name);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(finished.entries().unwrap().any(|entry| matches!(entry, Err(StagingError::Damaged { .. }))));
}
