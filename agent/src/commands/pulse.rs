//! How far a run is, for whoever does not sit before it: a file that `offsite status` reads, and lines in the log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::show;
use crate::config::{Size, Span};
use crate::progress::{Pace, Progress, Snapshot, Stage};
use crate::{clock, durable};

const FILE: &str = "progress.json";
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Of about all that is to be sent; so that a short run says something, too.
const LOG_SHARE: u64 = 10;
/// A run that has not been heard of for so long has died.
const SILENCE_MAX: SignedDuration = SignedDuration::from_mins(1);

/// How far a run is. The file lasts no longer than the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    /// The process.
    pid: u32,
    /// When it was so.
    at: Timestamp,
    /// What it does, in a word.
    stage: String,
    /// Sealed bytes that the stores have.
    sent_bytes: u64,
    /// About how many there will be.
    to_send_bytes: Option<u64>,
    /// Over the last minutes.
    bytes_per_second: Option<u64>,
    /// When it will be done, about.
    done_at: Option<Timestamp>,
}

/// Tells of a run until it is dropped.
pub(super) struct Pulse {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
    file: PathBuf,
}

impl Pulse {
    pub(super) fn start(progress: &Arc<Progress>, state: &Path) -> Self {
        let (progress, file) = (Arc::clone(progress), state.join(FILE));
        let (end, ended) = mpsc::channel();
        let path = file.clone();
        let thread = std::thread::spawn(move || {
            let (began, mut pace, mut log) = (Instant::now(), Pace::default(), Log::default());
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = progress.snapshot();
                pace.note(began.elapsed(), now.sent);
                let running = Running::of(&now, &pace, clock::now());
                log.tell(&running, began.elapsed());
                // Whoever looks for it finds the last one, or none; the run does not depend on it.
                if let Ok(text) = serde_json::to_vec(&running) {
                    durable::replace(&path, &text).ok();
                }
            }
        });
        Self { thread: Some((end, thread)), file }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            drop(end);
            thread.join().ok();
        }
        fs::remove_file(&self.file).ok();
    }
}

impl Running {
    /// How far the run with this state folder is, if there is one.
    pub(super) fn read(state: &Path, now: Timestamp) -> Option<Self> {
        let running: Self = serde_json::from_slice(&fs::read(state.join(FILE)).ok()?).ok()?;
        (now.duration_since(running.at).abs() <= SILENCE_MAX).then_some(running)
    }

    fn of(now: &Snapshot, pace: &Pace, at: Timestamp) -> Self {
        let to_send_bytes = now.to_send_in_all();
        let left = to_send_bytes.and_then(|all| pace.time_for(all.saturating_sub(now.sent)));
        let done_at = left.and_then(|left| at.checked_add(SignedDuration::try_from(left).ok()?).ok());
        Self {
            pid: std::process::id(),
            at,
            stage: stage(now.stage).to_owned(),
            sent_bytes: now.sent,
            to_send_bytes,
            bytes_per_second: pace.per_second(),
            done_at,
        }
    }

    /// A sentence without its end.
    pub(super) fn text(&self) -> String {
        let Self { sent_bytes, to_send_bytes, bytes_per_second, done_at, .. } = self;
        let mut text = self.stage.clone();
        if let Some(all) = to_send_bytes {
            text.push_str(&format!(", {} of about {} are sent", Size(*sent_bytes), Size(*all)));
            match bytes_per_second {
                Some(rate) => text.push_str(&format!(", {}/s", Size(*rate))),
                None => text.push_str(", and nothing moves at present"),
            }
        }
        if let Some(done_at) = done_at {
            let left = Span(done_at.duration_since(self.at).unsigned_abs());
            text.push_str(&format!(", done in about {left} ({})", show::time(*done_at)));
        }
        text
    }
}

/// What was told last.
#[derive(Default)]
struct Log {
    at: Duration,
    sent: u64,
}

impl Log {
    /// Tells each minute, and of each tenth.
    fn tell(&mut self, running: &Running, now: Duration) {
        let Some(all) = running.to_send_bytes else { return };
        let step = (all / LOG_SHARE).max(1);
        if now.saturating_sub(self.at) >= LOG_EVERY || running.sent_bytes.saturating_sub(self.sent) >= step {
            tracing::info!("{}", running.text());
            *self = Self { at: now, sent: running.sent_bytes };
        }
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Capturing => "copying",
        Stage::Copying => "having packs copied in the store",
        Stage::Sealing => "sealing and sending",
        Stage::Sending => "sending the last of it",
        Stage::Restoring => "restoring",
        Stage::Verifying => "verifying",
    }
}
