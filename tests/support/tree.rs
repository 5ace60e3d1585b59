//! Trees of files, read with all that a restore must bring back, and compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

/// Differences that are shown at most.
const SHOWN_MAX: usize = 20;

/// Everything below a folder, and the folder itself under the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Node>);

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is and holds.
    pub kind: Kind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
}

/// What a thing in a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Its length.
        bytes: u64,
        /// Of its content.
        sha256: [u8; 32],
        /// Whether it takes clearly less room on the disk than its length.
        sparse: bool,
        /// The first path, in order, that is the same file (a hard link), if that is another one.
        same_as: Option<PathBuf>,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        to: OsString,
    },
    /// A pipe, socket or device.
    Special,
}

impl Tree {
    /// Reads the tree at `root`, every byte of it.
    pub fn read(root: &Path) -> Self {
        let mut nodes = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        nodes.insert(PathBuf::new(), Node::of(Kind::Folder, &std::fs::symlink_metadata(root).unwrap()));
        let mut linked: BTreeMap<PathBuf, (u64, u64)> = BTreeMap::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
                let path = folder.join(entry.unwrap().file_name());
                let metadata = std::fs::symlink_metadata(root.join(&path)).unwrap();
                let kind = Kind::read(&root.join(&path), &metadata);
                match kind {
                    Kind::Folder => folders.push(path.clone()),
                    Kind::File { .. } if metadata.nlink() > 1 => {
                        linked.insert(path.clone(), (metadata.dev(), metadata.ino()));
                    }
                    _ => {}
                }
                nodes.insert(path, Node::of(kind, &metadata));
            }
        }
        let mut firsts: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for (path, inode) in linked {
            let first = firsts.entry(inode).or_insert_with(|| path.clone()).clone();
            if let Kind::File { same_as, .. } = &mut nodes.get_mut(&path).unwrap().kind {
                *same_as = (first != path).then_some(first);
            }
        }
        Self(nodes)
    }

    /// The tree without pipes, sockets and devices, which are not copied.
    #[must_use]
    pub fn without_special(mut self) -> Self {
        self.0.retain(|_, node| node.kind != Kind::Special);
        self
    }

    /// How `copy` differs from this tree, a sentence each. Holes that the copy has in addition are no difference.
    pub fn differences(&self, copy: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, node) in &self.0 {
            match copy.0.get(path) {
                None => found.push(format!("{path:?} is missing")),
                Some(other) => {
                    found.extend(node.differences(other).into_iter().map(|what| format!("{path:?}: {what}")))
                }
            }
        }
        let extra = copy.0.keys().filter(|path| !self.0.contains_key(*path));
        found.extend(extra.map(|path| format!("{path:?} was not in the original")));
        found
    }

    /// Panics unless `copy` holds the same, and says how it differs.
    #[track_caller]
    pub fn assert_equals(&self, copy: &Self) {
        let found = self.differences(copy);
        let shown = &found[..found.len().min(SHOWN_MAX)];
        assert!(found.is_empty(), "{} differences:\n{}", found.len(), shown.join("\n"));
    }
}

/// Panics unless the tree at `copy` is equal to the one at `original`, whose pipes, sockets and devices are not copied.
#[track_caller]
pub fn assert_same(original: &Path, copy: &Path) {
    Tree::read(original).without_special().assert_equals(&Tree::read(copy));
}

impl Node {
    fn of(kind: Kind, metadata: &Metadata) -> Self {
        let mode = if matches!(kind, Kind::Link { .. }) { 0o777 } else { metadata.mode() & 0o7777 };
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { kind, mode, uid: metadata.uid(), gid: metadata.gid(), modified }
    }

    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.kind.is_kept_by(&other.kind) {
            found.push(format!("{:?} became {:?}", self.kind, other.kind));
        }
        if self.mode != other.mode {
            found.push(format!("mode {:o} became {:o}", self.mode, other.mode));
        }
        if (self.uid, self.gid) != (other.uid, other.gid) {
            found.push(format!("owner {}:{} became {}:{}", self.uid, self.gid, other.uid, other.gid));
        }
        if self.modified != other.modified {
            found.push(format!("time {:?} became {:?}", self.modified, other.modified));
        }
        found
    }
}

impl Kind {
    fn read(path: &Path, metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_dir() {
            Self::Folder
        } else if kind.is_symlink() {
            Self::Link { to: std::fs::read_link(path).unwrap().into_os_string() }
        } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            Self::Special
        } else {
            let sparse = metadata.blocks() * 512 + (64 << 10) < metadata.len();
            Self::File { bytes: metadata.len(), sha256: sha256(path), sparse, same_as: None }
        }
    }

    fn is_kept_by(&self, copy: &Self) -> bool {
        let (mut original, mut copy) = (self.clone(), copy.clone());
        if let (Self::File { sparse: was, .. }, Self::File { sparse: is, .. }) = (&mut original, &mut copy) {
            *was &= !*is;
            *is = false;
        }
        original == copy
    }
}

/// SHA-256 of a file.
pub fn sha256(path: &Path) -> [u8; 32] {
    let mut file = File::open(path).unwrap();
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return hash.finalize().into();
        }
        hash.update(&buffer[..read]);
    }
}

/// A path of any bytes.
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}
