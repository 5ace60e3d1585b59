//! What makes no run fail, and takes from what a backup is for: `offsite check` says it as a note.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::medium;
use crate::config::{Config, Problem, lock_notes};
use crate::platform;

/// Files of an identity are small.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;
/// How many files are looked at in search of secret keys.
const LOOKED_AT_MAX: usize = 500;
/// What a line with a secret key begins with.
const SECRET: &str = "AGE-SECRET-KEY-";

/// Everything that somebody should think about. `config_file` is where the configuration lies, beside which secret keys
/// are looked for.
pub(super) fn notes(config: &Config, config_file: &Path) -> Vec<Problem> {
    let mut notes = lock_notes(config);
    let mut note = |key: String, what: String| notes.push(Problem { key, line: None, what });
    for store in &config.place.stores {
        let Some(folder) = store.directory() else { continue };
        let mut sources = config.sources.iter().filter_map(|source| Some((source, source.path()?)));
        if let Some((source, _)) = sources.find(|(_, path)| are_on_one_disk(path, folder)) {
            let what = format!(
                "{} is on the same disk as the source {}: what breaks or burns the one takes the other; have another \
                 store elsewhere",
                folder.display(),
                source.name
            );
            note(store.key("path"), what);
        }
    }
    for path in secret_keys(config_file.parent().unwrap_or(Path::new("."))) {
        let what = format!(
            "{} holds a secret key: whoever gets this machine can read every backup, and if it is the only copy, it is \
             lost with the machine; take it to two places outside the building",
            path.display()
        );
        note("encryption.recipients".to_owned(), what);
    }
    for source in config.sources.iter().filter(|source| source.kind() == "sqlite") {
        let shut = source.path().filter(|path| !platform::is_root() && is_wal(path) && !can_join(path));
        if let Some(path) = shut {
            let what = format!(
                "{} keeps a write-ahead log, and this user may not write beside it: it can be read only while another \
                 program has it open; let this user write to its folder",
                path.display()
            );
            note(source.key("path"), what);
        }
    }
    notes
}

fn are_on_one_disk(one: &Path, other: &Path) -> bool {
    medium::of_folder(one).same(&medium::of_folder(other))
}

/// Files with a secret key in the clear in `folder` and in the folders in it.
fn secret_keys(folder: &Path) -> Vec<PathBuf> {
    let list =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let inner: Vec<PathBuf> = list(folder).filter(|path| path.is_dir() && !path.is_symlink()).collect();
    let files = list(folder).chain(inner.iter().flat_map(|inner| list(inner).collect::<Vec<_>>()));
    let mut found: Vec<PathBuf> =
        files.take(LOOKED_AT_MAX).filter(|path| path.is_file() && holds_secret(path)).collect();
    found.sort();
    found
}

fn holds_secret(path: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(IDENTITY_BYTES_MAX).read_to_end(&mut text));
    read.is_ok() && text.split(|byte| *byte == b'\n').any(|line| line.starts_with(SECRET.as_bytes()))
}

/// Whether an SQLite database keeps a write-ahead log: two bytes of its header say so.
fn is_wal(path: &Path) -> bool {
    let mut head = [0; 20];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head.ends_with(&[2, 2])
}

/// Whether the index of the log is there and can be written, or can be made.
fn can_join(database: &Path) -> bool {
    let mut index = database.as_os_str().to_owned();
    index.push("-shm");
    let folder = database.parent().unwrap_or(Path::new("."));
    platform::can_write(folder).is_ok() || OpenOptions::new().write(true).open(index).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_init_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("keys/office.txt", "# created: today\n# public key: age1x\nAGE-SECRET-KEY-1QQQ\n");
        write("key.txt", "AGE-SECRET-KEY-1QQQ");
        write("recovery-sheet.txt", "a key looks like this: AGE-SECRET-KEY-1...\n");
        write("sealed.age", "age-encryption.org/v1\n-> scrypt x\n");
        let found = secret_keys(folder.path());
        assert_eq!(found, ["key.txt", "keys/office.txt"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn a_database_with_a_log_is_told_from_one_without() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, is) in [("WAL", true), ("DELETE", false)] {
            let path = folder.path().join(mode);
            let database = rusqlite::Connection::open(&path).unwrap();
            database.pragma_update(None, "journal_mode", mode).unwrap();
            database.execute_batch("CREATE TABLE t (x)").unwrap();
            assert_eq!(is_wal(&path), is, "{mode}");
            assert!(can_join(&path));
        }
        assert!(!is_wal(&folder.path().join("missing")));
    }
}
