//! Writing one pack: bytes are encrypted with age, hashed, and put into the spool.

use std::fs::File;
use std::io::{self, Write};

use super::SealError;
use super::parts::{ObjectHasher, PartDigests};
use crate::format::Sha256;
use crate::keys::{Payload, Recipients};
use crate::spool::{Draft, Spool, SpoolError};

/// A sealed object under way into the spool.
pub(crate) struct SealedWriter {
    draft: Draft,
    output: Payload<Hashed>,
    plaintext_bytes: u64,
}

/// What a finished object is.
#[derive(Clone, Debug)]
pub(crate) struct SealedObject {
    /// SHA-256 of the sealed bytes.
    pub(crate) sha256: Sha256,
    /// The same of the parts that it is sent in.
    pub(crate) parts: Option<PartDigests>,
    /// Size of the sealed bytes.
    pub(crate) bytes: u64,
}

impl SealedWriter {
    /// Begins an object to `recipients`, with a file key of its own, to be sent in parts of `part_bytes`, if in parts.
    pub(crate) fn begin(spool: &Spool, recipients: &Recipients, part_bytes: Option<u64>) -> Result<Self, SealError> {
        let draft = spool.draft()?;
        let fail = |source| SpoolError::writing(draft.path().to_owned(), source);
        let file = draft.file().try_clone().map_err(fail)?;
        let hasher = ObjectHasher::new(part_bytes);
        let hashed = Hashed { file, waiting: Vec::with_capacity(2 * PIECE), hasher, bytes: 0 };
        let output = recipients.new_file()?.wrap_output(hashed).map_err(fail)?;
        Ok(Self { draft, output, plaintext_bytes: 0 })
    }

    /// Adds plaintext.
    pub(crate) fn write(&mut self, plaintext: &[u8]) -> Result<(), SealError> {
        self.plaintext_bytes += plaintext.len() as u64;
        self.output
            .write_all(plaintext)
            .map_err(|source| SpoolError::writing(self.draft.path().to_owned(), source).into())
    }

    /// Plaintext so far; the sealed object is larger by less than a thousandth.
    pub(crate) fn plaintext_bytes(&self) -> u64 {
        self.plaintext_bytes
    }

    /// Ends the object and makes it last in the spool under the name that `name` gives it.
    pub(crate) fn finish(self, name: impl FnOnce(&SealedObject) -> String) -> Result<SealedObject, SealError> {
        let Self { draft, output, .. } = self;
        let finish = || {
            let mut hashed = output.finish()?;
            hashed.flush()?;
            let (sha256, parts) = hashed.hasher.finish();
            Ok(SealedObject { sha256, parts, bytes: hashed.bytes })
        };
        let sealed = finish().map_err(|source| SpoolError::writing(draft.path().to_owned(), source))?;
        draft.keep(&name(&sealed))?;
        Ok(sealed)
    }
}

/// Sealed bytes are hashed and written in pieces of this size: whole blocks for the hasher, whole pages for the kernel.
const PIECE: usize = 256 << 10;

struct Hashed {
    file: File,
    /// Less than a piece.
    waiting: Vec<u8>,
    hasher: ObjectHasher,
    bytes: u64,
}

impl Hashed {
    /// Hashes and writes the first bytes of those that wait.
    fn pass(&mut self, bytes: usize) -> io::Result<()> {
        let piece = self.waiting.get(..bytes).unwrap_or_default();
        self.hasher.update(piece);
        self.file.write_all(piece)?;
        self.waiting.drain(..bytes);
        Ok(())
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        self.pass(self.waiting.len() / PIECE * PIECE)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass(self.waiting.len())
    }
}
