//! Patches: a chunk's new content as one zstd frame that refers to old content, its *reference*.
//!
//! What changed in a day is scattered over all chunks of a database, but it is little; compressed with the old bytes at
//! hand, the rest of a chunk is a few references to them. By hand: `zstd -d --patch-from=REFERENCE PATCH -o CONTENT`.
//!
//! zstd's own tables have to be told two things, or they silently forget the beginning of the reference and the
//! patch is as large as a plain frame: the window must reach over reference and content together
//! (`2^WINDOW_LOG ≥ reference + content`), and a match finder indexes only the last `8 × 2^HASH_LOG` bytes of a prefix.

use zstd_safe::{CCtx, CParameter, DCtx, ErrorCode};

use crate::frame::{FrameError, append, exactly};

/// The longest reference: a chunk's own length and room on both sides for content that shifted.
pub const REFERENCE_MAX: usize = 2 << 20;

/// What a dictionary file begins with. Stock `zstd` takes a reference that begins so for a dictionary, and fails.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// 4 MiB: a reference and a chunk, so that stock `zstd -d` needs no option about windows or memory.
const WINDOW_LOG: u32 = 22;

/// 2 MiB of a reference are indexed.
const HASH_LOG: u32 = 18;

/// The patch that makes `content` of `reference`, if it is clearly smaller than a plain frame.
///
/// The fast match finder suffices where nearly everything is found in the reference. A chunk of which it finds less is
/// tried again with the one that plain frames use, and then has to stay below three quarters of a plain frame.
/// Which old bytes are the reference is for `seal` to say; of one longer than
/// [`REFERENCE_MAX`] only the end would be searched.
///
/// # Errors
/// [`FrameError::Compress`].
pub fn make_patch(reference: &[u8], content: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
    if reference.starts_with(&DICTIONARY_MAGIC) {
        return Ok(None);
    }
    let failed = |level| move |code| FrameError::Compress { len: content.len(), level, code };
    let quick = frame(1, reference, content).map_err(failed(1))?;
    if quick.len() <= content.len() / 8 {
        return Ok(Some(quick));
    }
    let plain = frame(1, &[], content).map_err(failed(1))?;
    if quick.len() > plain.len() / 8 * 7 {
        return Ok(None);
    }
    let patch = frame(3, reference, content).map_err(failed(3))?;
    Ok((patch.len() < plain.len() / 4 * 3).then_some(patch))
}

/// The content, `len` bytes long, that this patch makes of the reference it was made with.
///
/// Any other reference gives an error or, undetected here, other bytes: the chunk's hash tells.
///
/// # Errors
/// [`FrameError::Decompress`] and [`FrameError::Length`].
pub fn apply_patch(reference: &[u8], patch: &[u8], len: usize) -> Result<Vec<u8>, FrameError> {
    let mut content = Vec::with_capacity(len);
    // A context for each patch: it borrows the reference, and costs next to nothing.
    let mut ctx = DCtx::create();
    ctx.ref_prefix(reference)
        .and_then(|_| ctx.decompress(&mut content, patch))
        .map_err(|code| FrameError::Decompress { len: patch.len(), expected: len, code })?;
    exactly(content, len)
}

/// One frame of the content, with the reference as its prefix.
///
/// A context borrows its prefix, so each frame gets a new one; measured, that costs nothing.
fn frame(level: i32, reference: &[u8], content: &[u8]) -> Result<Vec<u8>, ErrorCode> {
    let mut ctx = CCtx::create();
    ctx.set_parameter(CParameter::CompressionLevel(level))?;
    ctx.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    ctx.set_parameter(CParameter::HashLog(HASH_LOG))?;
    ctx.ref_prefix(reference)?;
    let mut out = Vec::new();
    append(&mut ctx, content, &mut out)?;
    out.shrink_to_fit(); // room was made for the worst case, and patches wait together
    Ok(out)
}

#[cfg(test)]
mod tests;
