//! Bodies that end where they said they would, or fail.

use std::error::Error as StdError;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};

use crate::error::Error;
use crate::store::ByteStream;

/// The pieces of a body of `wanted` bytes; fails with `broken` if it breaks, ends early or goes on.
pub(crate) fn exact<E>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    wanted: u64,
    broken: Error,
) -> ByteStream
where
    E: Into<Box<dyn StdError + Send + Sync>> + Send + 'static,
{
    stream::unfold(Some((pieces, wanted, broken)), |state| async move {
        let (mut pieces, left, broken) = state?;
        match pieces.next().await {
            Some(Ok(piece)) => match left.checked_sub(piece.len() as u64) {
                Some(left) => Some((Ok(piece), Some((pieces, left, broken)))),
                None => Some((Err(broken.because("the answer is longer than it said")), None)),
            },
            Some(Err(cause)) => Some((Err(broken.because(cause)), None)),
            None if left == 0 => None,
            None => Some((Err(broken.because(format!("the answer ended {left} bytes early"))), None)),
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::error::ErrorKind;

    async fn read(pieces: &[&'static [u8]], wanted: u64) -> Result<Vec<u8>, Error> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
        let broken = Error::new(ErrorKind::Unavailable, "reading");
        let read: Vec<Bytes> = exact(stream::iter(pieces), wanted, broken).try_collect().await?;
        Ok(read.concat())
    }

    #[tokio::test]
    async fn a_body_has_the_length_it_promised() {
        assert_eq!(read(&[b"ab", b"", b"c"], 3).await.unwrap(), b"abc");
        assert_eq!(read(&[], 0).await.unwrap(), b"");
        for wanted in [2, 4] {
            assert_eq!(read(&[b"ab", b"c"], wanted).await.unwrap_err().kind, ErrorKind::Unavailable);
        }
    }
}
