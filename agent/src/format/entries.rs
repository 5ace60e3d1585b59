//! `ENTRIES.jsonl` and `SHA256SUMS`, the two lists that end every generation's stream.
//!
//! `ENTRIES.jsonl` says where in the stream the content of each file lies, and all that a tar header cannot; it is what
//! the program restores from. `SHA256SUMS` is for people with `sha256sum -c`.

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryKind, EntryPath, Mtime, PathError, escape, unescape};
use crate::format::Sha256;

/// Names of the entries that are the generation's own, beside the folders of its sources.
pub const GENERATION: &str = "GENERATION.json";
/// See [`GENERATION`].
pub const SUMS: &str = "SHA256SUMS";
/// See [`GENERATION`].
pub const ENTRIES: &str = "ENTRIES.jsonl";

/// Longest tar header of an entry: two of the longest paths, and room for the rest.
pub const HEAD_BYTES_MAX: u64 = 72 << 10;

/// One line of `ENTRIES.jsonl`: an entry, the length of its header in the stream, and the digest of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryLine {
    /// The entry.
    pub entry: Entry,
    /// Bytes of its tar header, pax header included.
    pub head: u64,
    /// SHA-256 of the content, for files.
    pub sha256: Option<Sha256>,
}

/// Why a line of `ENTRIES.jsonl` was refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryLineError {
    /// No JSON, or fields are missing or of the wrong type.
    #[error("a line of the list of entries cannot be read")]
    Json(#[from] serde_json::Error),
    /// A path leads elsewhere.
    #[error("the list of entries names a path that is not allowed")]
    Path(#[from] PathError),
    /// Fields contradict each other.
    #[error("the entry `{path}` makes no sense: {reason}")]
    Sense {
        /// The entry.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: EntryPath,
    #[serde(rename = "type")]
    kind: Kind,
    head: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    bytes: u64,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sparse: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    File,
    Folder,
    Symlink,
    Hardlink,
}

impl EntryLine {
    /// The line, with its line feed.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let entry = &self.entry;
        let (kind, bytes, sparse, target) = match &entry.kind {
            EntryKind::File { bytes, sparse } => (Kind::File, *bytes, *sparse, None),
            EntryKind::Folder => (Kind::Folder, 0, false, None),
            EntryKind::Symlink { target } => (Kind::Symlink, 0, false, Some(escape(target))),
            EntryKind::HardLink { target } => (Kind::Hardlink, 0, false, Some(target.clone().into())),
        };
        let line = Line {
            path: entry.path.clone(),
            kind,
            head: self.head,
            bytes,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: (entry.mtime.seconds, entry.mtime.nanoseconds),
            sha256: self.sha256,
            target,
            sparse,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads one line, with or without its line feed.
    pub fn decode(text: &[u8]) -> Result<Self, EntryLineError> {
        let line: Line = serde_json::from_slice(text)?;
        let refuse = |reason| EntryLineError::Sense { path: line.path.to_string(), reason };
        let target = line.target.as_deref();
        let kind = match (line.kind, target) {
            (Kind::File, None) => EntryKind::File { bytes: line.bytes, sparse: line.sparse },
            (Kind::Folder, None) => EntryKind::Folder,
            (Kind::Symlink, Some(target)) => {
                EntryKind::Symlink { target: unescape(target).ok_or_else(|| refuse("its target cannot be read"))? }
            }
            (Kind::Hardlink, Some(target)) => EntryKind::HardLink { target: EntryPath::try_from(target.to_owned())? },
            _ => return Err(refuse("a link has a target, and nothing else has")),
        };
        if matches!(kind, EntryKind::File { .. }) != line.sha256.is_some() {
            return Err(refuse("a file has a SHA-256, and nothing else has"));
        }
        if line.mode > 0o7777 || line.mtime.1 >= 1_000_000_000 {
            return Err(refuse("its mode or time is out of range"));
        }
        if line.head == 0 || !line.head.is_multiple_of(crate::format::tar::BLOCK) || line.head > HEAD_BYTES_MAX {
            return Err(refuse("the length of its header is no tar header's"));
        }
        let mtime = Mtime { seconds: line.mtime.0, nanoseconds: line.mtime.1 };
        let entry = Entry { path: line.path, kind, mode: line.mode, uid: line.uid, gid: line.gid, mtime };
        Ok(Self { entry, head: line.head, sha256: line.sha256 })
    }
}

/// One line of `SHA256SUMS`, as `sha256sum -c` of GNU coreutils reads it: a name with a backslash, line feed or carriage
/// return is escaped, and the line begins with a backslash.
pub fn sum_line(sha256: &Sha256, path: &EntryPath) -> Vec<u8> {
    let mut name = Vec::with_capacity(path.as_bytes().len());
    for b in path.as_bytes() {
        match b {
            b'\\' => name.extend_from_slice(b"\\\\"),
            b'\n' => name.extend_from_slice(b"\\n"),
            b'\r' => name.extend_from_slice(b"\\r"),
            _ => name.push(*b),
        }
    }
    let mut line = Vec::with_capacity(name.len() + 68);
    if name.len() != path.as_bytes().len() {
        line.push(b'\\');
    }
    line.extend_from_slice(sha256.to_string().as_bytes());
    line.extend_from_slice(b"  ");
    line.extend_from_slice(&name);
    line.push(b'\n');
    line
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_entry_is_read_as_it_was_written() {
        let path = |text: &str| EntryPath::new(text).unwrap();
        let kinds = [
            (EntryKind::File { bytes: 9 << 30, sparse: true }, Some(Sha256::of(b""))),
            (EntryKind::File { bytes: 0, sparse: false }, Some(Sha256::of(b""))),
            (EntryKind::Folder, None),
            (EntryKind::Symlink { target: b"../\xff".to_vec() }, None),
            (EntryKind::HardLink { target: path("docs/a") }, None),
        ];
        for (kind, sha256) in kinds {
            let mtime = Mtime { seconds: -1, nanoseconds: 999_999_999 };
            let entry = Entry { path: path("docs/n\n%ä"), kind, mode: 0o4755, uid: 7, gid: 1 << 40, mtime };
            let line = EntryLine { entry, head: 512, sha256 };
            assert_eq!(EntryLine::decode(&line.encode().unwrap()).unwrap(), line);
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        let good = r#"{"path":"a","type":"folder","head":512,"mode":493,"uid":0,"gid":0,"mtime":[0,0]}"#;
        assert!(EntryLine::decode(good.as_bytes()).is_ok());
        let bad = [
            ("\"a\"", "\"../a\""),
            ("\"a\"", "\"/a\""),
            ("\"folder\"", "\"file\""),
            ("\"folder\"", "\"symlink\""),
            ("\"folder\"", "\"socket\""),
            ("512", "0"),
            ("512", "513"),
            ("493", "65535"),
            ("[0,0]", "[0,1000000000]"),
        ];
        for (from, to) in bad {
            assert!(EntryLine::decode(good.replacen(from, to, 1).as_bytes()).is_err(), "{to} was accepted");
        }
    }

    #[test]
    fn odd_names_are_escaped_as_sha256sum_does() {
        let path = EntryPath::new(b"d/a\\b\nc".to_vec()).unwrap();
        let line = sum_line(&Sha256::of(b""), &path);
        assert!(line.starts_with(b"\\e3b0") && line.ends_with(b"  d/a\\\\b\\nc\n"));
    }
}
