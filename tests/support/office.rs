//! An office's files: made up from a seed, with everything that a file system allows, and a day's work on them.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

use crate::Rng;
use crate::tree::path_of;

/// Names that somebody's file system holds: spaces, quotes, what shells and tools take for something else, Latin-1.
const ODD_NAMES: [&[u8]; 14] = [
    b"with space",
    b"with\nnewline",
    b"tab\tand \"quotes\" and 'more'",
    b"-rf",
    b"--",
    b"*?[a-z]",
    b"$HOME `id`",
    b"back\\slash",
    b"caf\xe9 latin-1",
    b"\xff\xfe",
    "Größe 漢字 🙂".as_bytes(),
    b".hidden",
    b"...",
    b" ",
];

/// Makes one of everything below `root`, which must exist: odd names, sizes, modes, owners (as root), times, links,
/// holes, empty folders, and a pipe and a socket, which a copy leaves out.
pub fn zoo(root: &Path, rng: &mut Rng) {
    for name in ODD_NAMES {
        std::fs::write(root.join(path_of(name)), name).unwrap();
    }
    let odd = root.join("folders").join(path_of(b"\xe9\n"));
    std::fs::create_dir_all(odd.join("empty")).unwrap();
    std::fs::write(odd.join("n".repeat(255)), "a long name").unwrap();
    let sizes = root.join("sizes");
    std::fs::create_dir(&sizes).unwrap();
    for bytes in [0, 1, 511, 512, 513, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000] {
        std::fs::write(sizes.join(format!("{bytes}.bin")), rng.bytes(bytes)).unwrap();
        std::fs::write(sizes.join(format!("{bytes}.txt")), rng.text(bytes)).unwrap();
    }
    links(&root.join("links"));
    holes(&root.join("holes"), rng);
    modes(&root.join("modes"));
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    socket(root);
    for path in paths(root) {
        let time = (rng.below(1_700_000_000).cast_signed(), rng.below(1_000_000_000).cast_signed());
        set_modified(&path, time);
    }
    set_modified(&root.join("sizes/1.bin"), (-2, 500_000_000));
    set_modified(&root.join("sizes/1.txt"), (7_000_000_000, 1));
    set_modified(root, (1_700_000_000, 123_456_789));
}

/// Makes `files` documents of about `bytes` in all below `root`, half of them text; a few hundred in each folder.
pub fn documents(root: &Path, rng: &mut Rng, files: u64, bytes: u64) {
    for number in 0..files {
        let folder = root.join(format!("folder-{:03}", number / 300));
        std::fs::create_dir_all(&folder).unwrap();
        let size = rng.below(2 * bytes / files + 1) as usize;
        let (name, content) = if rng.chance(50) { ("txt", rng.text(size)) } else { ("jpg", rng.bytes(size)) };
        std::fs::write(folder.join(format!("document-{number:06}.{name}")), content).unwrap();
    }
}

/// Makes folders within folders, `levels` of them, with a file in the innermost.
pub fn deep(root: &Path, levels: usize) {
    let folder = (0..levels).fold(root.to_owned(), |folder, level| folder.join(format!("{level}")));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bottom"), "found").unwrap();
}

/// A day's work on the files below `root`: of 100 files about two each are overwritten in part, grown, shrunk,
/// replaced, renamed, deleted, made anew, and given another mode.
pub fn one_day(root: &Path, rng: &mut Rng) {
    one_day_but(root, rng, &[]);
}

/// The same, but nobody touches the files `but`.
pub fn one_day_but(root: &Path, rng: &mut Rng, but: &[PathBuf]) {
    let files = paths(root).into_iter().filter(|path| path.symlink_metadata().unwrap().is_file());
    let files: Vec<PathBuf> = files.filter(|path| !but.contains(path)).collect();
    for (number, path) in files.iter().enumerate() {
        let bytes = path.symlink_metadata().unwrap().len();
        match rng.below(50) {
            0 if bytes > 0 => {
                let patch = rng.bytes(100.min(bytes) as usize);
                let at = rng.below(bytes - patch.len() as u64 + 1);
                open(path).write_all_at(&patch, at).unwrap();
            }
            1 => open(path).write_all_at(&rng.text(5000), bytes).unwrap(),
            2 => open(path).set_len(bytes / 2).unwrap(),
            3 => std::fs::write(path, rng.text(3000)).unwrap(),
            4 => {
                std::fs::rename(path, path.with_file_name(format!("renamed-{number}-{}", rng.below(1 << 30)))).unwrap()
            }
            5 => std::fs::remove_file(path).unwrap(),
            6 => {
                let made = path.with_file_name(format!("new-{number}-{}", rng.below(1 << 30)));
                std::fs::write(made, rng.text(20_000)).unwrap();
            }
            7 => set_mode(path, [0o600, 0o640, 0o444, 0o755][number % 4]),
            _ => {}
        }
    }
}

/// Everything below `root`, innermost first, so that setting the time of one does not touch another's.
pub fn paths(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(paths(&path));
        }
        found.push(path);
    }
    found
}

/// Sets the modification time of anything, in seconds and nanoseconds since 1970; of a link, not of what it points to.
pub fn set_modified(path: &Path, (seconds, nanoseconds): (i64, i64)) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Sets permission bits.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn links(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("one"), "one file, three names").unwrap();
    std::fs::hard_link(folder.join("one"), folder.join("two")).unwrap();
    std::fs::hard_link(folder.join("one"), folder.join("../links-three")).unwrap();
    symlink("one", folder.join("to a file")).unwrap();
    symlink("../sizes", folder.join("to a folder")).unwrap();
    symlink("nowhere", folder.join("to nothing")).unwrap();
    symlink("/etc/passwd", folder.join("out")).unwrap();
    symlink(path_of(b"caf\xe9\n"), folder.join("odd")).unwrap();
}

fn holes(folder: &Path, rng: &mut Rng) {
    std::fs::create_dir(folder).unwrap();
    File::create(folder.join("only a hole")).unwrap().set_len(10 << 20).unwrap();
    let file = File::create(folder.join("data, hole, data")).unwrap();
    file.write_all_at(&rng.bytes(5000), 0).unwrap();
    file.write_all_at(&rng.bytes(5000), 7 << 20).unwrap();
    let file = File::create(folder.join("hole at the end")).unwrap();
    file.write_all_at(&rng.bytes(100_000), 1 << 20).unwrap();
    file.set_len(20 << 20).unwrap();
    std::fs::write(folder.join("zeros"), vec![0; 300_000]).unwrap();
}

fn modes(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    let root = rustix::process::geteuid().is_root();
    for mode in [0o600, 0o644, 0o755, 0o400, 0o4755, 0o2755, 0o1666] {
        let file = folder.join(format!("file-{mode:o}"));
        std::fs::write(&file, format!("{mode:o}")).unwrap();
        if root {
            let (user, group) = (Uid::from_raw(1000 + mode), Gid::from_raw(2000 + mode));
            rustix::fs::chown(&file, Some(user), Some(group)).unwrap();
        }
        set_mode(&file, mode);
        let inner = folder.join(format!("folder-{mode:o}"));
        std::fs::create_dir(&inner).unwrap();
        // Only root could write into, or clean up, a folder without rights.
        set_mode(&inner, if root { mode } else { mode | 0o700 });
    }
    if root {
        std::fs::write(folder.join("no rights"), "root reads it").unwrap();
        set_mode(&folder.join("no rights"), 0);
    }
}

/// Makes a socket. Its path may be 108 bytes long at most, so it leads through the open folder.
fn socket(root: &Path) {
    let folder = File::open(root).unwrap();
    let path = format!("/proc/self/fd/{}/socket", std::os::fd::AsRawFd::as_raw_fd(&folder));
    drop(UnixListener::bind(path).unwrap());
}

fn open(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}
