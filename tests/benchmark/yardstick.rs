//! What everything is compared with: the everyday programs, and the limit of what a day's work can be sent in.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use zstd_safe::{CCtx, CParameter};

use crate::measure::{self, Cost, shell};
use crate::office::Office;

/// Files of the yardstick, in a folder.
pub(crate) struct Yardstick<'a> {
    /// The folder.
    pub(crate) root: &'a Path,
    /// The public key.
    pub(crate) recipient: &'a str,
    /// The file with the secret key.
    pub(crate) identity: &'a Path,
    /// Where programs tell what they have to say.
    pub(crate) log: &'a Path,
}

/// Bytes that a day's work needs at least, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The database, MiB by MiB beside what stood there.
    pub(crate) database: u64,
    /// The dump, in pieces of 16 MiB beside what stood around there.
    pub(crate) dump: u64,
    /// The changed documents, each by itself.
    pub(crate) documents: u64,
}

impl Yardstick<'_> {
    /// A tar of the office. Not measured.
    pub(crate) fn tar(&self, office: &Office) {
        let line = format!("tar -C '{}' -cf '{}' .", office.root.display(), self.path("office.tar").display());
        measure::run(&mut shell(&line), self.log);
    }

    /// `zstd -3 | age` of the tar, and the size of `zstd -3` alone.
    pub(crate) fn full(&self) -> (Cost, u64) {
        let (tar, sealed) = (self.path("office.tar"), self.path("office.tar.zst.age"));
        let (tar, sealed_name) = (tar.display(), sealed.display());
        let line = format!("zstd -q -3 -c '{tar}' | age -r {} -o '{sealed_name}'", self.recipient);
        let cost = measure::run(&mut shell(&line), self.log);
        let bytes = sealed.metadata().unwrap().len();
        // age adds a header and 16 bytes to each 64 KiB.
        (cost, bytes - bytes / 65_552 * 16)
    }

    /// `age -d | zstd -d` into a file, and hashing the file.
    pub(crate) fn restore(&self) -> Cost {
        let (sealed, restored) = (self.path("office.tar.zst.age"), self.path("restored.tar"));
        let (sealed, restored_name, identity) = (sealed.display(), restored.display(), self.identity.display());
        let line = format!("age -d -i '{identity}' '{sealed}' | zstd -q -d > '{restored_name}'");
        let cost = measure::run(&mut shell(&line), self.log);
        let cost = cost.then(measure::run(&mut shell(&format!("openssl dgst -sha256 '{restored_name}'")), self.log));
        std::fs::remove_file(restored).unwrap();
        cost
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Limit {
    /// Of what makes `new` out of `old`; `changed` are the paths of documents in `new`.
    pub(crate) fn of(old: &Office, new: &Office, changed: &[PathBuf]) -> Self {
        let documents = changed.iter().map(|path| compressed(&mut plain(), &std::fs::read(path).unwrap())).sum();
        Self {
            database: patches(
                &old.database(),
                &new.database(),
                Piece { bytes: 1 << 20, before: 0, after: 0, ldm: false },
            ),
            dump: patches(
                &old.dump(),
                &new.dump(),
                Piece { bytes: 16 << 20, before: 8 << 20, after: 16 << 20, ldm: true },
            ),
            documents,
        }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.database + self.dump + self.documents
    }
}

/// How a file is cut, and what of the old one is at hand for each piece.
#[derive(Clone, Copy)]
struct Piece {
    bytes: u64,
    before: u64,
    after: u64,
    ldm: bool,
}

/// Bytes that the pieces of `new` take, each with a stretch of `old` as its prefix; unchanged ones take none.
fn patches(old: &Path, new: &Path, piece: Piece) -> u64 {
    let (old, new) = (File::open(old).unwrap(), File::open(new).unwrap());
    let (old_bytes, new_bytes) = (old.metadata().unwrap().len(), new.metadata().unwrap().len());
    let mut sum = 0;
    for at in (0..new_bytes).step_by(piece.bytes as usize) {
        let content = read(&new, at, (at + piece.bytes).min(new_bytes));
        let from = at.saturating_sub(piece.before).min(old_bytes);
        let reference = read(&old, from, (at + piece.bytes + piece.after).min(old_bytes));
        if !piece.ldm && reference == content {
            continue;
        }
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(3)).unwrap();
        if piece.ldm {
            context.set_parameter(CParameter::WindowLog(27)).unwrap();
            context.set_parameter(CParameter::EnableLongDistanceMatching(true)).unwrap();
        }
        context.ref_prefix(&reference).unwrap();
        sum += compressed(&mut context, &content);
    }
    sum
}

fn plain() -> CCtx<'static> {
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(3)).unwrap();
    context
}

fn compressed(context: &mut CCtx<'_>, content: &[u8]) -> u64 {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    context.compress2(&mut out, content).unwrap() as u64
}

fn read(file: &File, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = vec![0; (to - from) as usize];
    file.read_exact_at(&mut bytes, from).unwrap();
    bytes
}

/// Whether both files hold the same.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    let (mut a, mut b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = a.read(&mut left).unwrap();
        if count == 0 {
            return b.read(&mut right).unwrap() == 0;
        }
        if b.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return false;
        }
    }
}
