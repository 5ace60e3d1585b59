//! One file, folder or link of a generation, and the order in which they stand. Pure.

use std::cmp::Ordering;
use std::fmt;

/// Longest path of an entry, in bytes: deeper trees than any system lets people make, and short enough for every reader.
pub const PATH_BYTES_MAX: usize = 32 << 10;

/// The path of an entry inside its generation: `<source>/<path in the source>`, as bytes.
///
/// Relative, `/`-separated, without empty, `.` or `..` segments and without NUL. Ordered segment by segment, so that a
/// folder stands directly before what it holds.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryPath(Vec<u8>);

/// Why bytes are not a path of an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path `{path}` cannot be used: {reason}")]
pub struct PathError {
    path: String,
    reason: &'static str,
}

/// What is known of an entry besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-uid, set-gid and sticky: at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of the last change of the content.
    pub mtime: Mtime,
}

/// Seconds and nanoseconds since 1970-01-01 UTC, as file systems keep them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(from = "(i64, u32)", into = "(i64, u32)")]
pub struct Mtime {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Below 1 000 000 000.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with content.
    File {
        /// Size in bytes.
        bytes: u64,
        /// Whether it has holes, to be made again when it is restored.
        sparse: bool,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink {
        /// What it points to, as it was found; never followed.
        target: Vec<u8>,
    },
    /// Another name of a file that stands earlier in the generation.
    HardLink {
        /// The entry with the content.
        target: EntryPath,
    },
}

impl EntryPath {
    /// Checks and takes `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        let reason = if bytes.is_empty() {
            "it is empty"
        } else if bytes.len() > PATH_BYTES_MAX {
            "it is longer than 32 KiB"
        } else if bytes.contains(&0) {
            "it contains a zero byte"
        } else if bytes.split(|b| *b == b'/').any(|s| s.is_empty() || s == b"." || s == b"..") {
            "it is absolute or has an empty, `.` or `..` segment"
        } else {
            return Ok(Self(bytes));
        };
        let shown = bytes.get(..200).unwrap_or(&bytes);
        Err(PathError { path: escape(shown), reason })
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its segments, from the first.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// Its last segment.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The path of `name` below this one.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }
}

impl From<(i64, u32)> for Mtime {
    fn from((seconds, nanoseconds): (i64, u32)) -> Self {
        Self { seconds, nanoseconds }
    }
}

impl From<Mtime> for (i64, u32) {
    fn from(time: Mtime) -> Self {
        (time.seconds, time.nanoseconds)
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.segments().cmp(other.segments())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", escape(&self.0))
    }
}

impl From<EntryPath> for String {
    fn from(path: EntryPath) -> String {
        escape(&path.0)
    }
}

impl TryFrom<String> for EntryPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        match unescape(&text) {
            Some(bytes) => Self::new(bytes),
            None => Err(PathError { path: text, reason: "a `%` is not followed by two hexadecimal digits" }),
        }
    }
}

/// Whether a character is one that terminals and mail programs obey instead of showing it: a control character, or one that
/// turns the order of others around.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Bytes as text: UTF-8 as it is; `%`, [hidden](is_hidden) characters and bytes that are not UTF-8 as `%XX`, byte by byte.
/// [`unescape`] reverses it.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for c in piece.valid().chars() {
            if c == '%' || is_hidden(c) {
                let mut bytes = [0; 4];
                text.extend(c.encode_utf8(&mut bytes).bytes().map(|b| format!("%{b:02X}")));
            } else {
                text.push(c);
            }
        }
        for b in piece.invalid() {
            text.push_str(&format!("%{b:02X}"));
        }
    }
    text
}

/// The bytes that [`escape`] made `text` of, or `None` if a `%` is not followed by two hexadecimal digits.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(b);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in ["", "/", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a", "a/\0"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(EntryPath::new("docs/..a/b..").is_ok());
    }

    #[test]
    fn text_form_is_reversible_for_all_bytes() {
        let bytes: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
        let path = EntryPath::new(bytes).unwrap();
        assert_eq!(EntryPath::try_from(String::from(path.clone())).unwrap(), path);
        assert_eq!(escape("naïve 100%\n".as_bytes()), "naïve 100%25%0A");
        let odd = "C1 \u{9b}, bidi \u{202e}".as_bytes();
        assert_eq!(escape(odd), "C1 %C2%9B, bidi %E2%80%AE");
        assert_eq!(unescape(&escape(odd)).unwrap(), odd);
        assert_eq!(unescape("%4"), None);
    }

    #[test]
    fn a_folder_stands_directly_before_what_it_holds() {
        let mut paths: Vec<_> = ["a-b", "a/z", "a", "a/b", "b"].map(|p| EntryPath::new(p).unwrap()).into();
        paths.sort();
        assert_eq!(paths.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "a/b", "a/z", "a-b", "b"]);
    }
}
