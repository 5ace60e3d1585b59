//! Which files of a folder are copied. Pure.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::platform;

/// Which files of a folder are copied: those an include pattern matches, or all if there is none, except those an exclude
/// pattern matches.
///
/// `*` and `?` stay inside one name, `**` spans folders. A pattern without `/` applies to names at any depth; one with `/`
/// to paths from the folder's root. What matches a folder applies to all it holds.
#[derive(Clone, Debug)]
pub struct Patterns {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the pattern `{pattern}` cannot be read")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// Why.
    #[source]
    pub source: globset::Error,
}

/// What the patterns say of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is copied, with all it holds that is not excluded.
    Take,
    /// It is not copied itself, but what it holds may be.
    Look,
    /// Neither it nor anything in it is copied.
    Skip,
}

impl Patterns {
    /// Reads the patterns. No include pattern includes everything.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, PatternError> {
        let include = if include.is_empty() { None } else { Some(set(include)?) };
        Ok(Self { include, exclude: set(exclude)? })
    }

    /// Everything.
    pub fn all() -> Self {
        Self { include: None, exclude: GlobSet::empty() }
    }

    /// What they say of `path`, relative to the folder, if the folder it lies in is taken or only looked into.
    pub(super) fn choose(&self, path: &[u8], parent_taken: bool) -> Choice {
        let path = Path::new(platform::tree::name(path));
        if self.exclude.is_match(path) {
            return Choice::Skip;
        }
        match &self.include {
            Some(include) if !parent_taken && !include.is_match(path) => Choice::Look,
            _ => Choice::Take,
        }
    }

    /// Whether the folder itself is taken: there is no include pattern.
    pub(super) fn take_root(&self) -> bool {
        self.include.is_none()
    }
}

fn set<S: AsRef<str>>(patterns: &[S]) -> Result<GlobSet, PatternError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.as_ref();
        let failed = |source| PatternError { pattern: pattern.to_owned(), source };
        let rooted = pattern.trim_end_matches('/').trim_start_matches("./");
        let full = match rooted.strip_prefix('/') {
            Some(rooted) => rooted.to_owned(),
            None if rooted.contains('/') => rooted.to_owned(),
            None => format!("**/{rooted}"),
        };
        set.add(GlobBuilder::new(&full).literal_separator(true).build().map_err(failed)?);
    }
    set.build().map_err(|source| PatternError { pattern: String::new(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_say_what_their_documentation_says() {
        let patterns = Patterns::new(&["docs", "/*.txt", "**/keep/*.md"], &["*.tmp", "/docs/old/"]).unwrap();
        let choose = |path: &str, taken| patterns.choose(path.as_bytes(), taken);
        assert_eq!(choose("docs", false), Choice::Take);
        assert_eq!(choose("a/docs", false), Choice::Take);
        assert_eq!(choose("docs/x", true), Choice::Take);
        assert_eq!(choose("docs/x.tmp", true), Choice::Skip);
        assert_eq!(choose("docs/old", true), Choice::Skip);
        assert_eq!(choose("a/docs/old", true), Choice::Take);
        assert_eq!(choose("a.txt", false), Choice::Take);
        assert_eq!(choose("a/a.txt", false), Choice::Look);
        assert_eq!(choose("a/keep/x.md", false), Choice::Take);
        assert_eq!(Patterns::all().choose(b"\xff", true), Choice::Take);
        assert!(Patterns::new(&["["], &[]).is_err());
    }

    #[test]
    fn names_that_are_not_text_are_matched_too() {
        let patterns = Patterns::new(&[], &["*.tmp"]).unwrap();
        assert_eq!(patterns.choose(b"a/\xff.tmp", true), Choice::Skip);
    }
}
