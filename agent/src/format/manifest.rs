//! The manifest: of which bytes of which packs the stream of a generation is made. JSON lines, sealed like a pack.
//!
//! Plain packs of a chain share one address space, the chain's *content*: the unpacked content of all plain packs that
//! were ever added to it, one after another. A *position* is an offset in it. The full's stream is positions
//! `0..full_bytes`. A patch lies in a patch pack, outside of that space, and refers to one run of positions.

use serde::{Deserialize, Serialize};

use crate::format::names::PackName;
use crate::format::{Sha256, VERSION};
use crate::generation::Class;
use crate::ids::{ChainId, GenerationId, SiteName};

mod check;

/// Longest line of a manifest that a reader accepts, in bytes.
pub const LINE_BYTES_MAX: usize = 4 << 10;

/// A whole manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is about.
    pub head: Head,
    /// Every pack the generation needs: plain packs by position, then patch packs.
    pub packs: Vec<Pack>,
    /// Where the bytes of the stream lie, in stream order.
    pub extents: Vec<Extent>,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// `manifest`.
    pub offsite: Kind,
    /// Version of the format.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// Rolling or archival.
    pub class: Class,
    /// The chain.
    pub chain: ChainId,
    /// The generation.
    pub generation: GenerationId,
    /// Its number in the chain; 0 is the full.
    pub number: u32,
    /// Bytes of the tar stream.
    pub stream_bytes: u64,
    /// Bytes of the full's stream.
    pub full_bytes: u64,
    /// Where in the stream the content of `ENTRIES.jsonl` begins.
    pub entries_at: u64,
    /// Its size.
    pub entries_bytes: u64,
    /// Its digest.
    pub entries_sha256: Sha256,
}

/// The word that begins a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only one.
    Manifest,
}

/// A pack that the generation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Its name.
    pub name: PackName,
    /// The position of its first byte; 0 for a patch pack.
    pub at: u64,
    /// Bytes of its content: unpacked for a plain pack, as they lie inside the age file for a patch pack.
    pub content: u64,
    /// Bytes of the sealed object.
    pub sealed: u64,
}

/// A run of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Bytes of plain packs.
    Plain {
        /// Position of the first.
        from: u64,
        /// How many.
        bytes: u64,
    },
    /// Bytes that a patch gives.
    Patch(PatchExtent),
}

/// A run of the stream that a patch gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchExtent {
    /// Which of [`Manifest::packs`], from 0.
    #[serde(rename = "patch")]
    pub pack: u32,
    /// Where the patch begins in the pack's content.
    pub from: u64,
    /// Its size there: one zstd frame.
    pub packed: u64,
    /// Bytes it gives when it is decompressed.
    pub gives: u64,
    /// Position of the run that it refers to.
    pub reference: u64,
    /// Size of that run.
    pub reference_bytes: u64,
    /// How many of the bytes it gives come before the wanted ones.
    pub skip: u64,
    /// How many are wanted.
    pub take: u64,
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A line is no line of a manifest.
    #[error("line {line} of the manifest cannot be read")]
    Line {
        /// From 1.
        line: usize,
        /// What the parser says.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A newer program wrote it.
    #[error("the manifest has version {0}, which is newer than this program: get the current `offsite`")]
    Newer(u32),
    /// It contradicts itself.
    #[error("the manifest makes no sense: {0}")]
    Sense(&'static str),
}

#[derive(Serialize, Deserialize)]
struct PackLine {
    pack: u32,
    name: PackName,
    at: u64,
    content: u64,
    sealed: u64,
}

#[derive(Serialize, Deserialize)]
struct PlainLine {
    from: u64,
    bytes: u64,
}

impl Manifest {
    /// The manifest as text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = Vec::new();
        let mut line = |json: serde_json::Result<Vec<u8>>| -> serde_json::Result<()> {
            text.extend_from_slice(&json?);
            text.push(b'\n');
            Ok(())
        };
        line(serde_json::to_vec(&self.head))?;
        for (index, pack) in (0..).zip(&self.packs) {
            let Pack { name, at, content, sealed } = *pack;
            line(serde_json::to_vec(&PackLine { pack: index, name, at, content, sealed }))?;
        }
        for extent in &self.extents {
            line(match extent {
                Extent::Plain { from, bytes } => serde_json::to_vec(&PlainLine { from: *from, bytes: *bytes }),
                Extent::Patch(patch) => serde_json::to_vec(patch),
            })?;
        }
        Ok(text)
    }

    /// Reads a manifest and checks that it describes a whole stream within the limits of the format.
    pub fn decode(text: &[u8]) -> Result<Self, ManifestError> {
        let mut lines = (1..).zip(text.split_inclusive(|b| *b == b'\n'));
        let (_, first) = lines.next().ok_or(ManifestError::Line { line: 1, source: None })?;
        let head: Head = parse(1, first)?;
        if head.version > VERSION {
            return Err(ManifestError::Newer(head.version));
        }
        let mut manifest = Self { head, packs: Vec::new(), extents: Vec::new() };
        for (number, line) in lines {
            if line.len() > LINE_BYTES_MAX || !line.ends_with(b"\n") {
                return Err(ManifestError::Line { line: number, source: None });
            }
            if line.starts_with(b"{\"from\"") {
                let PlainLine { from, bytes } = parse(number, line)?;
                manifest.extents.push(Extent::Plain { from, bytes });
            } else if line.starts_with(b"{\"patch\"") {
                manifest.extents.push(Extent::Patch(parse(number, line)?));
            } else if line.starts_with(b"{\"pack\"") && manifest.extents.is_empty() {
                let PackLine { pack, name, at, content, sealed } = parse(number, line)?;
                if pack as usize != manifest.packs.len() {
                    return Err(ManifestError::Sense("its packs are not numbered one by one"));
                }
                manifest.packs.push(Pack { name, at, content, sealed });
            } else {
                return Err(ManifestError::Line { line: number, source: None });
            }
        }
        check::check(&manifest)?;
        Ok(manifest)
    }
}

impl Extent {
    /// How many bytes of the stream it covers.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Plain { bytes, .. } => *bytes,
            Self::Patch(patch) => patch.take,
        }
    }
}

/// Collects extents, joining those that follow each other in their pack or patch.
#[derive(Debug, Default)]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// Adds the next run of the stream.
    pub fn push(&mut self, next: Extent) {
        match (self.0.last_mut(), next) {
            (Some(Extent::Plain { from, bytes }), Extent::Plain { from: next_from, bytes: more })
                if *from + *bytes == next_from =>
            {
                *bytes += more;
            }
            (Some(Extent::Patch(last)), Extent::Patch(next))
                if (last.pack, last.from) == (next.pack, next.from) && last.skip + last.take == next.skip =>
            {
                last.take += next.take;
            }
            _ => self.0.push(next),
        }
    }

    /// The extents, in stream order.
    pub fn finish(self) -> Vec<Extent> {
        self.0
    }
}

fn parse<'t, T: Deserialize<'t>>(line: usize, text: &'t [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(text).map_err(|source| ManifestError::Line { line, source: Some(source) })
}
