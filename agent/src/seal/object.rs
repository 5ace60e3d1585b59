//! Sealing a document that is made at once, in memory: the manifest.

use super::pack::SealedWriter;
use super::{SealError, SealSettings};
use crate::format::Sha256;
use crate::frame::Compressor;
use crate::spool::Spool;

/// A sealed document in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedDocument {
    /// SHA-256 of the sealed bytes.
    pub sha256: Sha256,
    /// Size of the sealed bytes.
    pub bytes: u64,
}

/// Compresses and encrypts `content` like a pack, into the spool under `name`.
pub fn seal_document(
    settings: &SealSettings<'_>,
    spool: &Spool,
    name: &str,
    content: &[u8],
) -> Result<SealedDocument, SealError> {
    let mut compressor = Compressor::new(settings.level);
    let mut writer = SealedWriter::begin(spool, settings.recipients, None)?;
    for piece in content.chunks(crate::format::FRAME_BYTES_MAX) {
        let mut frame = Vec::new();
        compressor.frame(piece, &mut frame)?;
        writer.write(&frame)?;
    }
    let sealed = writer.finish(|_| name.to_owned())?;
    Ok(SealedDocument { sha256: sealed.sha256, bytes: sealed.bytes })
}
