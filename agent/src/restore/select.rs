//! What of a generation is wanted, and in which order it is put in its places.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};

use super::target::Target;
use super::{Lost, RestoreError, RestoreRequest};
use crate::entry::{EntryKind, EntryPath};
use crate::format::entries::EntryLine;
use crate::platform;

/// A pattern of paths, `<source>/<path>`: `*` and `?` stay inside a name, `**` goes through folders. What matches a
/// folder matches all it holds.
#[derive(Clone, Debug)]
pub struct PathPattern(GlobMatcher);

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no pattern of paths")]
pub struct PathPatternError {
    text: String,
    source: globset::Error,
}

impl std::str::FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        let glob = GlobBuilder::new(text.trim_end_matches('/')).literal_separator(true).build();
        let glob = glob.map_err(|source| PathPatternError { text: text.to_owned(), source })?;
        Ok(Self(glob.compile_matcher()))
    }
}

impl PathPattern {
    fn matches(&self, path: &EntryPath) -> bool {
        let path = path.as_bytes();
        ancestors(path).chain([path]).any(|path| self.0.is_match(platform::tree::name(path)))
    }
}

/// What is wanted.
#[derive(Debug, Default)]
pub(super) struct Chosen<'l> {
    /// Folders, each before what it holds.
    pub(super) folders: Vec<&'l EntryLine>,
    /// Files, with where in the stream their contents begin; in stream order.
    pub(super) files: Vec<(&'l EntryLine, u64)>,
    /// Symbolic and hard links.
    pub(super) links: Vec<&'l EntryLine>,
}

impl<'l> Chosen<'l> {
    /// Everything that is wanted.
    pub(super) fn all(&self) -> Vec<&'l EntryLine> {
        let files = self.files.iter().map(|(line, _)| *line);
        self.folders.iter().copied().chain(files).chain(self.links.iter().copied()).collect()
    }
}

/// Chooses by source and pattern, with the folders that what was chosen lies in. A hard link brings the file that it is a
/// second name of.
pub(super) fn select<'l>(
    lines: &'l [(EntryLine, u64)],
    request: &RestoreRequest<'_>,
) -> Result<Chosen<'l>, RestoreError> {
    let wanted = |path: &EntryPath| {
        let source = path.segments().next().unwrap_or_default();
        request.source.is_none_or(|wanted| wanted.as_str().as_bytes() == source)
            && request.paths.is_none_or(|pattern| pattern.matches(path))
    };
    let everything = request.source.is_none() && request.paths.is_none();
    let mut paths: BTreeSet<&[u8]> = BTreeSet::new();
    for (line, _) in lines {
        let path = &line.entry.path;
        if everything || wanted(path) {
            paths.insert(path.as_bytes());
            if let EntryKind::HardLink { target } = &line.entry.kind {
                paths.insert(target.as_bytes());
            }
        }
    }
    if paths.is_empty() {
        let sources = lines.iter().filter(|(line, _)| matches!(line.entry.kind, EntryKind::Folder));
        let sources = sources.filter(|(line, _)| !line.entry.path.as_bytes().contains(&b'/'));
        return Err(RestoreError::Nothing { sources: sources.map(|(line, _)| line.entry.path.to_string()).collect() });
    }
    let folders: BTreeSet<&[u8]> = paths.iter().flat_map(|path| ancestors(path)).collect();
    let mut chosen = Chosen::default();
    for (line, start) in lines {
        let path = line.entry.path.as_bytes();
        if !paths.contains(path) && !folders.contains(path) {
            continue;
        }
        match &line.entry.kind {
            EntryKind::File { .. } => chosen.files.push((line, *start)),
            EntryKind::Folder => chosen.folders.push(line),
            EntryKind::Symlink { .. } | EntryKind::HardLink { .. } => chosen.links.push(line),
        }
    }
    Ok(chosen)
}

/// Makes the links, then gives the folders their permissions, the deepest first. Answers with what could not be done.
pub(super) fn finish(target: &Target, links: &[&EntryLine], folders: &[&EntryLine]) -> Vec<Lost> {
    let mut lost = Vec::new();
    let mut note = |line: &EntryLine, result: std::io::Result<()>| {
        if let Err(error) = result {
            let why = format!("it could not be made as it was: {error}");
            lost.push(Lost { path: line.entry.path.to_string(), why });
        }
    };
    for line in links {
        note(line, target.link(line));
    }
    for line in folders.iter().rev() {
        note(line, target.finish_folder(line));
    }
    lost
}

/// Bytes of content.
pub(super) fn content_bytes(line: &EntryLine) -> u64 {
    match line.entry.kind {
        EntryKind::File { bytes, .. } => bytes,
        _ => 0,
    }
}

fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    ends.filter_map(|end| path.get(..end))
}
