//! Bodies on the way: paced as they go out, watched for silence in both directions.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::TransportError;
use crate::pace::{Grant, Lane};

/// How often something moved; [`DONE`] is set once all of the body is with the transport.
pub(super) type Moved = Arc<AtomicU64>;

const DONE: u64 = 1 << 63;
/// A silence is measured in so many steps.
const STEPS: u32 = 8;

/// A body that goes out in small pieces, as fast as its lane allows.
pub(crate) struct Paced<B> {
    inner: B,
    ready: Bytes,
    wait: Option<Pin<Box<Sleep>>>,
    lane: Lane,
    moved: Moved,
}

impl<B> Paced<B> {
    pub(super) fn new(inner: B, lane: Lane, moved: Moved) -> Self
    where
        B: Body<Data = Bytes>,
    {
        let paced = Self { inner, ready: Bytes::new(), wait: None, lane, moved };
        if paced.is_finished() {
            paced.moved.fetch_or(DONE, Ordering::Relaxed);
        }
        paced
    }

    // The transport does not ask again once it has as many bytes as it was promised.
    fn is_finished(&self) -> bool
    where
        B: Body<Data = Bytes>,
    {
        self.ready.is_empty() && (self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0))
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(wait) = &mut this.wait {
                ready!(wait.as_mut().poll(cx));
                this.wait = None;
            }
            this.moved.fetch_add(1, Ordering::Relaxed);
            if this.ready.is_empty() {
                match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => this.ready = data,
                        Err(other) => return Poll::Ready(Some(Ok(other))),
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        this.moved.fetch_or(DONE, Ordering::Relaxed);
                        return Poll::Ready(None);
                    }
                }
                continue;
            }
            match this.lane.ask(this.ready.len() as u64, Instant::now()) {
                Grant::Go(bytes) => {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(this.ready.len());
                    let piece = this.ready.split_to(bytes);
                    if this.is_finished() {
                        this.moved.fetch_or(DONE, Ordering::Relaxed);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Grant::Wait(time) => this.wait = Some(Box::pin(tokio::time::sleep(time))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_finished()
    }

    fn size_hint(&self) -> SizeHint {
        let (ready, inner) = (self.ready.len() as u64, self.inner.size_hint());
        match inner.exact() {
            Some(inner) => SizeHint::with_exact(ready + inner),
            None => SizeHint::default(),
        }
    }
}

/// Waits for `answer` as long as the body moves at least once in `silence`, and after its end for `thinking`.
pub(super) async fn unless_silent<T>(
    answer: impl Future<Output = T>,
    moved: &Moved,
    silence: Duration,
    thinking: Duration,
) -> Result<T, TransportError> {
    let mut answer = std::pin::pin!(answer);
    let (mut seen, mut since) = (moved.load(Ordering::Relaxed), Instant::now());
    loop {
        if let Ok(answer) = tokio::time::timeout(silence / STEPS, &mut answer).await {
            return Ok(answer);
        }
        let now = moved.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        let patience = if now & DONE == 0 { silence } else { thinking };
        if since.elapsed() >= patience {
            return Err(TransportError::Silent(patience));
        }
    }
}

/// The body of an answer, which may not be silent for too long while someone waits for it, nor be longer than
/// expected.
#[derive(Debug)]
pub(crate) struct Patient {
    inner: reqwest::Body,
    silence: Duration,
    bytes_left: u64,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(super) fn new(inner: reqwest::Body, silence: Duration, bytes_max: u64) -> Self {
        Self { inner, silence, bytes_left: bytes_max, waiting: None }
    }

    fn counted(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, TransportError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(TransportError::TooLong)?;
        Ok(frame)
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| this.counted(frame.map_err(TransportError::Failed)?)));
        }
        let silence = this.silence;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Some(Err(TransportError::Silent(silence))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
