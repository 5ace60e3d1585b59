//! How far a run is, as plain numbers: the engine counts, whoever shows it reads. Nothing here prints.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Nothing yet.
    Starting,
    /// Sources are being copied to staging.
    Capturing,
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
    /// Sealed bytes that the store has.
    pub sent: u64,
}

impl Progress {
    /// A new stage, with `total` bytes of content ahead (0 if not known).
    pub fn begin(&self, stage: Stage, total: u64) {
        self.done.store(0, Ordering::Relaxed);
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
        let stages = [Stage::Capturing, Stage::Sealing, Stage::Sending, Stage::Restoring, Stage::Verifying];
        let number = self.stage.load(Ordering::Relaxed);
        Snapshot {
            stage: stages.into_iter().find(|stage| *stage as u8 == number).unwrap_or(Stage::Starting),
            total: self.total.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            to_send: self.to_send.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}
