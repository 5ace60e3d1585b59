//! Names of objects: validated once, so that no store ever sees a path it could misread.

use std::fmt;
use std::str::FromStr;

/// Longest key a store is asked to hold, in bytes. Every known store allows more.
pub const KEY_BYTES_MAX: usize = 700;

/// Longest segment of a key, in bytes: file systems allow 255, and a temporary name needs some of them.
pub const SEGMENT_BYTES_MAX: usize = 200;

/// The name of one object below a store's prefix.
///
/// Segments are separated by `/`, are not empty, do not start with a dot, and use only `A-Z a-z 0-9 . _ -`:
/// the characters that every S3 server, WebDAV server and file system keeps as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// The beginning of keys: empty, or whole segments with a final `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyPrefix(String);

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` cannot name a stored object: {reason}")]
pub struct KeyError {
    key: String,
    reason: &'static str,
}

impl ObjectKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The prefix of the folder the object lies in; empty for an object at the top.
    pub fn folder(&self) -> KeyPrefix {
        match self.0.rfind('/') {
            Some(end) => KeyPrefix(self.0.get(..=end).unwrap_or_default().to_owned()),
            None => KeyPrefix::default(),
        }
    }
}

impl KeyPrefix {
    /// The prefix as text: empty or ending in `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key `name` below this prefix; `name` may hold several segments.
    pub fn key(&self, name: &str) -> Result<ObjectKey, KeyError> {
        format!("{}{name}", self.0).parse()
    }

    /// The prefix `name` below this prefix.
    pub fn below(&self, name: &str) -> Result<KeyPrefix, KeyError> {
        let text = format!("{}{}", self.0, name.trim_end_matches('/'));
        validate(&text)?;
        Ok(Self(format!("{text}/")))
    }

    /// What is left of `key` after this prefix, if it lies below.
    pub fn strip<'k>(&self, key: &'k ObjectKey) -> Option<&'k str> {
        key.0.strip_prefix(&self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        validate(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for KeyPrefix {
    type Err = KeyError;

    /// Accepts the prefix with or without its final `/`; the empty text is the root.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() { Ok(Self::default()) } else { Self::default().below(text) }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn validate(text: &str) -> Result<(), KeyError> {
    let refuse = |reason| Err(KeyError { key: text.escape_debug().to_string(), reason });
    if text.len() > KEY_BYTES_MAX {
        return refuse("it is too long");
    }
    for segment in text.split('/') {
        if segment.is_empty() {
            return refuse("it has an empty segment");
        }
        if segment.len() > SEGMENT_BYTES_MAX {
            return refuse("it has a segment that is too long");
        }
        if segment.starts_with('.') {
            return refuse("a segment starts with a dot");
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return refuse("it has a character other than A-Z a-z 0-9 . _ -");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_store_could_misread_are_refused() {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/..", "a/./b", ".hidden", "a b", "a%2f", "a\\b", "ä", "a\n"] {
            assert!(bad.parse::<ObjectKey>().is_err(), "{bad:?} was accepted");
        }
        assert!("x".repeat(SEGMENT_BYTES_MAX).parse::<ObjectKey>().is_ok());
        assert!("x".repeat(SEGMENT_BYTES_MAX + 1).parse::<ObjectKey>().is_err());
        assert!("x/".repeat(KEY_BYTES_MAX / 2).parse::<KeyPrefix>().is_ok());
        assert!(format!("{}y", "x/".repeat(KEY_BYTES_MAX / 2)).parse::<ObjectKey>().is_err());
    }

    #[test]
    fn prefix_and_key_fit_together() {
        let root: KeyPrefix = "offices/site-a".parse().unwrap();
        assert_eq!(root.as_str(), "offices/site-a/");
        let key = root.key("rolling/x.json").unwrap();
        assert_eq!(key.as_str(), "offices/site-a/rolling/x.json");
        assert_eq!(root.strip(&key), Some("rolling/x.json"));
        assert_eq!(key.name(), "x.json");
        assert_eq!(key.folder().as_str(), "offices/site-a/rolling/");
        assert_eq!("".parse::<KeyPrefix>().unwrap().key("a").unwrap().folder(), KeyPrefix::default());
    }
}
