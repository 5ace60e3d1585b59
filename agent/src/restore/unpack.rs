//! Unpacking a run of zstd frames: each at once and in place where it fits, which spares zstd a window and its copying.

use std::io::{self, Read};

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::packs::{PackError, WINDOW_LOG_MAX};

/// Bytes that one read asks for.
const READ: usize = 256 << 10;
/// A frame's content fits into this, if the writer kept to the format.
const CONTENT: usize = 4 << 20;
/// A frame fits into this: content that does not compress, and what zstd adds to it.
const FRAME: usize = CONTENT + READ;

/// Unpacks packs one after another; each thread has its own, for the buffers are costly to come by.
pub(super) struct Unpacker {
    context: DCtx<'static>,
    /// What has been read; what lies before `from` is done with.
    packed: Vec<u8>,
    from: usize,
    content: Vec<u8>,
}

/// What becomes of the content of a pack.
pub(super) trait Taker {
    /// Whether anything is wanted of the content from offset `from` to `to`. Frames of which nothing is are passed over.
    fn wants(&self, from: u64, to: u64) -> bool;

    /// Whether somebody else unpacks this whole frame, whose content is said to have `content` bytes and begins at `offset`.
    fn passes_on(&mut self, offset: u64, content: usize, frame: &[u8]) -> bool;

    /// Takes content that begins at `offset`.
    fn take(&mut self, offset: u64, content: &[u8]) -> Result<(), PackError>;
}

/// Unpacks what a test of foreign bytes has, and answers how many bytes came out, if those are as many as were expected.
#[cfg(feature = "testing")]
pub fn unpack_foreign(mut packed: &[u8], expected: u64) -> Result<u64, PackError> {
    struct Counter(u64);

    impl Taker for Counter {
        fn wants(&self, _: u64, _: u64) -> bool {
            true
        }

        fn passes_on(&mut self, _: u64, _: usize, _: &[u8]) -> bool {
            false
        }

        fn take(&mut self, _: u64, content: &[u8]) -> Result<(), PackError> {
            self.0 += content.len() as u64;
            Ok(())
        }
    }

    let mut counter = Counter(0);
    Unpacker::new().unpack(&mut packed, expected, &mut counter)?;
    Ok(counter.0)
}

impl Unpacker {
    /// With empty buffers, which grow as the frames require.
    pub(super) fn new() -> Self {
        Self { context: DCtx::create(), packed: Vec::new(), from: 0, content: Vec::new() }
    }

    /// Hands the content to `taker`, piece by piece, and makes sure that it is exactly `bytes` bytes long.
    pub(super) fn unpack(
        &mut self,
        packed: &mut dyn Read,
        bytes: u64,
        taker: &mut impl Taker,
    ) -> Result<(), PackError> {
        self.packed.clear();
        self.from = 0;
        self.begin()?;
        let mut offset = 0;
        let mut inside = false;
        loop {
            let more = self.fetch(packed).map_err(PackError::Open)?;
            if !more && !inside {
                break;
            }
            let waiting = self.packed.get(self.from..).unwrap_or_default();
            if let Some((frame, content)) = whole_frame(waiting).filter(|_| !inside)
                && content <= bytes.saturating_sub(offset)
                && (!taker.wants(offset, offset + content) || passed_on(taker, offset, content, frame))
            {
                self.from += frame.len();
                offset += content;
                continue;
            }
            let mut input = InBuffer::around(waiting);
            self.content.clear();
            let mut output = OutBuffer::around(&mut self.content);
            let hint = self.context.decompress_stream(&mut output, &mut input).map_err(refused)?;
            self.from += input.pos();
            inside = hint != 0;
            if self.content.len() as u64 > bytes.saturating_sub(offset) {
                return Err(PackError::Size);
            }
            if !more && self.content.is_empty() {
                return Err(PackError::Open(io::ErrorKind::UnexpectedEof.into()));
            }
            if !self.content.is_empty() {
                taker.take(offset, &self.content)?;
            }
            offset += self.content.len() as u64;
        }
        if offset == bytes { Ok(()) } else { Err(PackError::Size) }
    }

    /// The content of one frame that a [`Taker`] was asked to pass on, which is `content` bytes long.
    pub(super) fn frame(&mut self, frame: &[u8], content: usize) -> Result<&[u8], PackError> {
        self.begin()?;
        self.content.clear();
        self.context.decompress(&mut self.content, frame).map_err(refused)?;
        if self.content.len() == content { Ok(&self.content) } else { Err(PackError::Size) }
    }

    fn begin(&mut self) -> Result<(), PackError> {
        self.context.init().map_err(refused)?;
        self.context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(refused)?;
        self.content.clear();
        self.content.reserve_exact(CONTENT);
        Ok(())
    }

    /// Reads until a whole frame is at hand, or as much as one may have, or all there is; `false` if that is nothing.
    fn fetch(&mut self, packed: &mut dyn Read) -> io::Result<bool> {
        loop {
            let waiting = self.packed.get(self.from..).unwrap_or_default();
            if waiting.len() >= FRAME || zstd_safe::find_frame_compressed_size(waiting).is_ok() {
                return Ok(true);
            }
            self.packed.drain(..self.from);
            self.from = 0;
            let before = self.packed.len();
            self.packed.reserve(READ);
            packed.take(READ as u64).read_to_end(&mut self.packed)?;
            if self.packed.len() == before {
                return Ok(before > 0);
            }
        }
    }
}

/// The frame at the beginning of `bytes`, if all of it is there, and the size of its content, if it says so.
fn whole_frame(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let packed = zstd_safe::find_frame_compressed_size(bytes).ok()?;
    let content = zstd_safe::get_frame_content_size(bytes).ok()??;
    Some((bytes.get(..packed)?, content))
}

fn passed_on(taker: &mut impl Taker, offset: u64, content: u64, frame: &[u8]) -> bool {
    let content = usize::try_from(content).ok().filter(|content| *content <= CONTENT);
    content.is_some_and(|content| taker.passes_on(offset, content, frame))
}

fn refused(code: zstd_safe::ErrorCode) -> PackError {
    PackError::Open(io::Error::other(zstd_safe::get_error_name(code)))
}
