//! Plain frames: up to four MiB of content as one independent zstd frame.
//!
//! A frame knows its content's size and carries no checksum: every chunk is checked against its BLAKE3, every file
//! against its SHA-256, and age authenticates each 64 KiB of a pack. `zstd -d` reads any run of frames as one stream.

use std::io::Cursor;

use zstd_safe::{CCtx, CParameter, ErrorCode, ResetDirective};

/// The longest content of one frame: four chunks. What occurs again within it is found; a long run of small files, which
/// share frames, loses a ninth of its compression with frames of one MiB.
pub const CONTENT_MAX: usize = crate::format::FRAME_BYTES_MAX;

/// How content is compressed that hardly shrinks: zstd takes long steps and stores what gains nothing, but remembers
/// enough of it, over a whole frame, to find the picture that occurs in two documents. Level 3 pays five times as much.
const BARELY: [CParameter; 3] = [CParameter::CompressionLevel(-5), CParameter::WindowLog(22), CParameter::HashLog(16)];

/// Level 3 with tables of half the size, which stay in a core's own cache beside all else: a fifth less time for one
/// hundredth more bytes. Below [`LARGE`], zstd chooses such tables by itself.
const THREE: [CParameter; 3] = [CParameter::CompressionLevel(3), CParameter::HashLog(16), CParameter::ChainLog(15)];
const LARGE: usize = 256 << 10;

/// The same for a frame that is full, as those of large files are: such tables remember little beyond half a MiB, and nearer
/// matches take fewer bytes. Databases and dumps become a thousandth smaller in a fiftieth less time, programs a few thousandths
/// larger; small files, which fill no frame to its last byte, would lose a hundredth.
const FULL: [CParameter; 4] =
    [CParameter::CompressionLevel(3), CParameter::HashLog(16), CParameter::ChainLog(15), CParameter::WindowLog(19)];

/// What zstd did not do, and to what.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The library refused to compress; only lack of memory or a wrong level makes it do that.
    #[error("zstd could not compress {len} bytes at level {level}: {}", zstd_safe::get_error_name(*code))]
    Compress {
        /// Bytes of content.
        len: usize,
        /// zstd's level.
        level: i32,
        /// zstd's error code.
        code: ErrorCode,
    },
    /// The frame is damaged, or its content is longer than it was said to be.
    #[error("a zstd frame of {len} bytes cannot be decompressed to {expected}: {}", zstd_safe::get_error_name(*code))]
    Decompress {
        /// Bytes of the frame.
        len: usize,
        /// Bytes of content that were expected.
        expected: usize,
        /// zstd's error code.
        code: ErrorCode,
    },
    /// The frame's content is shorter than it was said to be.
    #[error("a zstd frame holds {found} bytes of content where {expected} were expected")]
    Length {
        /// Bytes of content that were expected.
        expected: usize,
        /// Bytes of content found.
        found: usize,
    },
}

/// Compresses frames, one after another; each worker thread has its own, for its tables are costly to set up.
pub struct Compressor {
    ctx: CCtx<'static>,
    level: i32,
}

impl Compressor {
    /// Compresses at zstd's `level`, 3 a little faster.
    #[must_use]
    pub fn new(level: i32) -> Self {
        Self { ctx: CCtx::create(), level }
    }

    /// Appends one frame with this content to `out`.
    ///
    /// Content that [`looks_incompressible`] costs little more than a copy, whatever the level.
    ///
    /// # Errors
    /// [`FrameError::Compress`]; `out` is then as long as it was.
    pub fn frame(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let level = [CParameter::CompressionLevel(self.level)];
        let settings: &[CParameter] = match self.level {
            _ if looks_incompressible(content) => &BARELY,
            3 if content.len() == CONTENT_MAX => &FULL,
            3 if content.len() > LARGE => &THREE,
            _ => &level,
        };
        self.ctx
            .reset(ResetDirective::Parameters)
            .and_then(|_| settings.iter().try_for_each(|setting| self.ctx.set_parameter(*setting).map(|_| ())))
            .and_then(|()| append(&mut self.ctx, content, out))
            .map_err(|code| FrameError::Compress { len: content.len(), level: self.level, code })
    }
}

/// Whether most of the content's bytes are as evenly spread over all values as those of compressed or encrypted data.
///
/// Sixteen samples are looked at; content of which more than a quarter is uneven (text among pictures) is worth
/// compressing. The usual case, compressible content, is known after the first five samples. Repetitions are not seen.
#[must_use]
pub fn looks_incompressible(content: &[u8]) -> bool {
    const SAMPLES: usize = 16;
    const SAMPLE: usize = 4096;
    let Some(room) = content.len().checked_sub(SAMPLE) else { return false };
    (0..SAMPLES)
        .map(|i| i * room / (SAMPLES - 1))
        .filter_map(|at| content.get(at..at + SAMPLE))
        .filter(|sample| pairs_alike(sample) > EVEN)
        .nth(SAMPLES / 4)
        .is_none()
}

/// Of 4096 random bytes 69 632 ± 370 ordered pairs (each byte with itself among them) are alike; deflated data and
/// photographs mostly stay below 90 000; base64 has 262 000, text and tables more.
const EVEN: u64 = 90_000;

/// How many ordered pairs of bytes of the sample are alike: the sum of the squares of how often each value occurs.
fn pairs_alike(sample: &[u8]) -> u64 {
    // Four tables, lest the same counter be waited for when neighbours are alike.
    let mut counts = [[0u32; 256]; 4];
    for four in sample.chunks(4) {
        for (table, byte) in counts.iter_mut().zip(four) {
            #[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
            {
                table[usize::from(*byte)] += 1;
            }
        }
    }
    let [a, b, c, d] = &counts;
    a.iter().zip(b).zip(c.iter().zip(d)).map(|((a, b), (c, d))| u64::from(a + b + c + d).pow(2)).sum()
}

/// Appends what the context makes of the content, as one frame; on failure `out` stays as long as it was.
pub(crate) fn append(ctx: &mut CCtx<'_>, content: &[u8], out: &mut Vec<u8>) -> Result<(), ErrorCode> {
    out.reserve(zstd_safe::compress_bound(content.len()));
    let end = out.len() as u64;
    let mut tail = Cursor::new(out);
    tail.set_position(end);
    ctx.compress2(&mut tail, content).map(|_| ())
}

/// The content, if it is as long as was expected.
pub(crate) fn exactly(content: Vec<u8>, expected: usize) -> Result<Vec<u8>, FrameError> {
    match content.len() {
        found if found == expected => Ok(content),
        found => Err(FrameError::Length { expected, found }),
    }
}

#[cfg(test)]
mod tests;
