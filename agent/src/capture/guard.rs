//! Keeps sessions alive while dumps go on that need their locks, and gives way when others have to wait for them.
//!
//! Locks against TRUNCATE and ALTER last as long as the dump. Whoever alters a table waits for them, and everybody else
//! who wants that table queues behind: the whole office would wait for the backup.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::session::Session;

/// How often the sessions are heard of.
const EVERY: Duration = Duration::from_millis(500);

/// So many times in a row somebody may be found waiting.
const PATIENCE: u32 = 10;

/// So many of these it counts for if the dump waits behind those that wait for us: it gets nowhere before somebody gives way.
const STANDOFF: u32 = 5;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Watches over sessions until it is dropped; then they are over.
#[derive(Debug)]
pub(super) struct Guard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the guard and those who dump have in common.
#[derive(Debug, Default)]
struct Shared {
    /// The dump must end.
    stop: AtomicBool,
    /// Why.
    why: OnceLock<String>,
    /// The guard is to end.
    done: AtomicBool,
}

impl Guard {
    /// Watches `sessions`. `question` is what each is asked: `0` means that nobody waits for us, `1` that somebody does,
    /// `2` that we wait for him as well.
    pub(super) fn over(mut sessions: Vec<Session>, question: String) -> Self {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            if let Err(why) = watch(&mut sessions, &question, &mine) {
                // Told once; the sessions end with this thread, before the dump.
                let _first = mine.why.set(why);
                drop(sessions);
                mine.stop.store(true, Ordering::Relaxed);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Set when the dump has to end.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.shared.stop
    }

    /// Why it had to.
    pub(super) fn why(&self) -> Option<&str> {
        self.shared.why.get().map(String::as_str)
    }

    /// Ends the watch when all dumps have been made. The error is why they are not of the cut: a last look shows whether
    /// the locks have been there to the end.
    pub(super) fn finish(mut self) -> Result<(), String> {
        self.end();
        self.why().map_or(Ok(()), |why| Err(why.to_owned()))
    }

    fn end(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has told what it had to tell.
            let _ended = thread.join();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

fn watch(sessions: &mut [Session], question: &str, shared: &Shared) -> Result<(), String> {
    let mut found = 0;
    loop {
        let last = shared.done.load(Ordering::Relaxed);
        let mut weight = 0;
        for session in &mut *sessions {
            let rows = session.ask(question, ANSWER_WITHIN).map_err(|error| error.to_string())?;
            weight = weight.max(match rows.first().map(String::as_str) {
                Some("0") => 0,
                Some("2") => STANDOFF,
                _ => 1,
            });
        }
        if last {
            return Ok(());
        }
        found = if weight > 0 { found + weight } else { 0 };
        if found >= PATIENCE {
            return Err("the dump gave way, because others had to wait for a table that it was reading".to_owned());
        }
        thread::park_timeout(EVERY);
    }
}
