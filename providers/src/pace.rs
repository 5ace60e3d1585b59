//! How fast bodies go out: one lane that all requests of a store share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::Rate;

/// Bytes handed to the transport at once: small enough that a slow line shows progress within seconds.
const PIECE_BYTES: u64 = 1 << 16;
/// Longest wait before the rate is asked again, so that a timetable's change takes hold at once.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The lane that bytes of all requests pass, one piece after the other.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    rate: Rate,
    free_from: Arc<Mutex<Instant>>,
}

/// What a lane grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// So many bytes may go now.
    Go(u64),
    /// Ask again after this time.
    Wait(Duration),
}

impl Lane {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, free_from: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Asks to send up to `wanted` bytes at `now`.
    pub(crate) fn ask(&self, wanted: u64, now: Instant) -> Grant {
        let piece = wanted.min(PIECE_BYTES);
        let rate = match self.rate.now() {
            None => return Grant::Go(piece),
            Some(0) => return Grant::Wait(WAIT_MAX),
            Some(rate) => rate,
        };
        // At most a tenth of a second's worth at once: a narrow line stays usable for others.
        let piece = piece.min((rate / 10).max(1));
        let mut free_from = self.free_from.lock().unwrap_or_else(PoisonError::into_inner);
        if *free_from > now {
            return Grant::Wait((*free_from - now).min(WAIT_MAX));
        }
        *free_from = now + Duration::from_nanos(piece.saturating_mul(1_000_000_000) / rate);
        Grant::Go(piece)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn sent_within(lane: &Lane, time: Duration) -> u64 {
        let start = Instant::now();
        let (mut now, mut sent) = (start, 0);
        while now < start + time {
            match lane.ask(u64::MAX, now) {
                Grant::Go(bytes) => sent += bytes,
                Grant::Wait(wait) => now += wait,
            }
        }
        sent
    }

    #[test]
    fn a_rate_is_kept_to_within_a_tenth_of_a_second() {
        let lane = Lane::new(Rate::new(|| Some(1 << 20)));
        let sent = sent_within(&lane, Duration::from_secs(10));
        assert!((10 << 20..=(10 << 20) + (1 << 17)).contains(&sent), "{sent}");
    }

    #[test]
    fn a_changed_rate_takes_hold() {
        let allowed = Arc::new(AtomicU64::new(0));
        let asked = allowed.clone();
        let lane = Lane::new(Rate::new(move || Some(asked.load(Ordering::Relaxed))));
        assert_eq!(sent_within(&lane, Duration::from_secs(5)), 0);
        allowed.store(1000, Ordering::Relaxed);
        assert!((1000..=1100).contains(&sent_within(&lane, Duration::from_secs(1))));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(Lane::new(Rate::default()).ask(u64::MAX, Instant::now()), Grant::Go(PIECE_BYTES));
    }
}
