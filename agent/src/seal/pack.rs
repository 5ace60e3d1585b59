//! Writing one pack: bytes are encrypted with age, hashed, and put into the spool.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use sha2::Digest as _;

use super::SealError;
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedObject {
    /// SHA-256 of the sealed bytes.
    pub(crate) sha256: Sha256,
    /// Size of the sealed bytes.
    pub(crate) bytes: u64,
}

impl SealedWriter {
    /// Begins an object to `recipients`, with a file key of its own.
    pub(crate) fn begin(spool: &Spool, recipients: &Recipients) -> Result<Self, SealError> {
        let draft = spool.draft()?;
        let fail = |source| SpoolError::writing(draft.path().to_owned(), source);
        let file = draft.file().try_clone().map_err(fail)?;
        let hashed = Hashed { file: BufWriter::with_capacity(256 << 10, file), sha256: sha2::Sha256::new(), bytes: 0 };
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
            hashed.file.flush()?;
            Ok(SealedObject { sha256: Sha256(hashed.sha256.finalize().into()), bytes: hashed.bytes })
        };
        let sealed = finish().map_err(|source| SpoolError::writing(draft.path().to_owned(), source))?;
        draft.keep(&name(&sealed))?;
        Ok(sealed)
    }
}

struct Hashed {
    file: BufWriter<File>,
    sha256: sha2::Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
