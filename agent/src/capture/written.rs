//! Records what a program has written into staging: nothing is copied, everything becomes read-only.

use std::collections::HashMap;
use std::io;
use std::vec;

use super::problems::Problems;
use crate::entry::{Entry, EntryKind, EntryPath};
use crate::generation::SourceRecord;
use crate::ids::SourceName;
use crate::platform::tree::{Dir, FileKind, FileStat};
use crate::staging::{IndexedEntry, SourceWriter, StagingError};

/// Adds everything in the folder of `writer` to its index, ends it, and notes in `record` what there is.
pub(super) fn record(
    mut writer: SourceWriter,
    record: &mut SourceRecord,
    problems: &mut Problems,
) -> Result<(), StagingError> {
    index(&mut writer, &record.name, problems)?;
    let written = writer.finish()?;
    (record.entries, record.bytes) = (written.entries, written.bytes);
    Ok(())
}

fn index(writer: &mut SourceWriter, name: &SourceName, problems: &mut Problems) -> Result<(), StagingError> {
    let folder = writer.folder().to_owned();
    let failed = |e| StagingError::io("look through", &folder, e);
    let root = Dir::open(&folder).map_err(failed)?;
    let path = EntryPath::new(name.as_str()).map_err(|e| failed(io::Error::other(e)))?;
    let stat = root.own_stat().map_err(failed)?;
    writer.add(&entry(path.clone(), EntryKind::Folder, &stat))?;
    let names = root.names().map_err(failed)?.into_iter();
    let mut stack = vec![Level { path, folder: root, names }];
    let mut links = HashMap::new();
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.next() else {
            level.folder.set_mode(0o500).map_err(failed)?;
            stack.pop();
            continue;
        };
        let path = level.path.join(&name).map_err(|e| failed(io::Error::other(e)))?;
        let stat = level.folder.stat(&name).map_err(failed)?;
        let kind = match stat.kind {
            FileKind::Folder => {
                writer.add(&entry(path.clone(), EntryKind::Folder, &stat))?;
                // It may have been made so that nobody can look into it.
                level.folder.set_mode_of(&name, 0o700).map_err(failed)?;
                let folder = level.folder.open_dir(&name).map_err(failed)?;
                let names = folder.names().map_err(failed)?.into_iter();
                stack.push(Level { path, folder, names });
                continue;
            }
            FileKind::File => {
                level.folder.set_mode_of(&name, 0o400).map_err(failed)?;
                match links.get(&stat.ino) {
                    Some(target) => EntryKind::HardLink { target: EntryPath::clone(target) },
                    None => {
                        if stat.links > 1 {
                            links.insert(stat.ino, path.clone());
                        }
                        EntryKind::File { bytes: stat.bytes, sparse: false }
                    }
                }
            }
            FileKind::Symlink => EntryKind::Symlink { target: level.folder.read_link(&name).map_err(failed)? },
            FileKind::Special(word) => {
                level.folder.remove_file(&name).map_err(failed)?;
                problems.skipped(Some(&path), format!("a {word} is not kept"));
                continue;
            }
        };
        writer.add(&entry(path, kind, &stat))?;
    }
    Ok(())
}

struct Level {
    path: EntryPath,
    folder: Dir,
    names: vec::IntoIter<Vec<u8>>,
}

fn entry(path: EntryPath, kind: EntryKind, stat: &FileStat) -> IndexedEntry {
    let FileStat { mode, uid, gid, mtime, .. } = *stat;
    IndexedEntry { entry: Entry { path, kind, mode, uid, gid, mtime }, linked: false, seen: None }
}
