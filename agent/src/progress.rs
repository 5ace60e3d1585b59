//! How far a run is, as plain numbers: the engine counts, whoever shows it reads. Nothing here prints.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Nothing yet.
    Starting,
    /// Sources are being copied to staging.
    Capturing,
    /// Packs of an earlier chain are being copied in the store.
    Copying,
    /// The staged copy is being sealed, and packs are being sent.
    Sealing,
    /// The last objects are being sent.
    Sending,
    /// Packs are being fetched and opened.
    Restoring,
    /// Packs are being fetched and hashed.
    Verifying,
}

/// Counters of one run, in bytes; written by the engine, read by whoever shows them.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    total: AtomicU64,
    done: AtomicU64,
    to_send: AtomicU64,
    to_send_before: AtomicU64,
    sent: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What is being done.
    pub stage: Stage,
    /// Bytes of content there are; 0 if not known.
    pub total: u64,
    /// Bytes of content dealt with.
    pub done: u64,
    /// Sealed bytes to be sent, as far as they are sealed.
    pub to_send: u64,
    /// Of these, what was there when the stage began: of another store, or of an earlier run.
    pub to_send_before: u64,
    /// Sealed bytes that the store has.
    pub sent: u64,
}

impl Snapshot {
    /// About how many sealed bytes there will be to send, with those that were; unknown before anything is sealed. The
    /// content that is left is taken to be sealed as small as what was.
    pub fn to_send_in_all(&self) -> Option<u64> {
        match self.stage {
            Stage::Sealing if self.done > 0 && self.total > 0 => {
                let own = u128::from(self.to_send.saturating_sub(self.to_send_before));
                let own = own * u128::from(self.total.max(self.done)) / u128::from(self.done);
                Some(self.to_send_before.saturating_add(u64::try_from(own).unwrap_or(u64::MAX)))
            }
            Stage::Sending => Some(self.to_send),
            _ => None,
        }
    }
}

/// How fast something was sent over the last minutes.
#[derive(Debug, Default)]
pub struct Pace {
    /// When, since the beginning, and how many bytes had been sent by then.
    seen: VecDeque<(Duration, u64)>,
}

/// What happened before says nothing about a line that has changed.
const PACE_WINDOW: Duration = Duration::from_secs(5 * 60);

impl Pace {
    /// So many bytes had been sent at this time since the beginning; times only grow.
    pub fn note(&mut self, at: Duration, sent: u64) {
        self.seen.push_back((at, sent));
        while self.seen.front().is_some_and(|(first, _)| at.saturating_sub(*first) > PACE_WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Bytes in a second; unknown as long as there is nothing to tell it by.
    pub fn per_second(&self) -> Option<u64> {
        let ((from, before), (to, after)) = (self.seen.front()?, self.seen.back()?);
        let milliseconds = to.saturating_sub(*from).as_millis();
        let bytes = u128::from(after.saturating_sub(*before)) * 1000;
        u64::try_from(bytes.checked_div(milliseconds)?).ok().filter(|rate| *rate > 0)
    }

    /// How long `bytes` more take at this pace.
    pub fn time_for(&self, bytes: u64) -> Option<Duration> {
        Some(Duration::from_secs(bytes.div_ceil(self.per_second()?)))
    }
}

impl Progress {
    /// A new stage, with `total` bytes of content ahead (0 if not known).
    pub fn begin(&self, stage: Stage, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.to_send_before.store(self.to_send.load(Ordering::Relaxed), Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// More content was dealt with.
    pub fn add_done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More is there to be sent.
    pub fn add_to_send(&self, bytes: u64) {
        self.to_send.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was sent.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let stages =
            [Stage::Capturing, Stage::Copying, Stage::Sealing, Stage::Sending, Stage::Restoring, Stage::Verifying];
        let number = self.stage.load(Ordering::Relaxed);
        Snapshot {
            stage: stages.into_iter().find(|stage| *stage as u8 == number).unwrap_or(Stage::Starting),
            total: self.total.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            to_send: self.to_send.load(Ordering::Relaxed),
            to_send_before: self.to_send_before.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_to_be_like_what_was() {
        let progress = Progress::default();
        progress.begin(Stage::Sealing, 1000);
        assert_eq!(progress.snapshot().to_send_in_all(), None);
        progress.add_done(250);
        progress.add_to_send(100);
        assert_eq!(progress.snapshot().to_send_in_all(), Some(400));
        progress.add_done(750);
        progress.add_to_send(200);
        assert_eq!(progress.snapshot().to_send_in_all(), Some(300));
        progress.begin(Stage::Sending, 0);
        assert_eq!(progress.snapshot().to_send_in_all(), Some(300));
        // Another store: what the first one got is no measure.
        progress.begin(Stage::Sealing, 1000);
        progress.add_done(500);
        progress.add_to_send(10);
        assert_eq!(progress.snapshot().to_send_in_all(), Some(320));
    }

    #[test]
    fn the_pace_is_that_of_the_last_minutes() {
        let mut pace = Pace::default();
        let at = Duration::from_secs;
        pace.note(at(0), 0);
        assert_eq!((pace.per_second(), pace.time_for(10)), (None, None));
        pace.note(at(10), 1000);
        assert_eq!((pace.per_second(), pace.time_for(150)), (Some(100), Some(at(2))));
        for second in 11..=400 {
            pace.note(at(second), 1000 + (second - 10) * 7);
        }
        assert_eq!(pace.per_second(), Some(7));
        // A line that is dead has no pace, and nothing is foretold of it.
        for second in 401..=800 {
            pace.note(at(second), 3730);
        }
        assert_eq!(pace.per_second(), None);
    }
}
