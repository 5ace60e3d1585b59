//! Keeps the sessions of a cluster alive while its dumps go on, and gives way when others have to wait for them.
//!
//! Locks against TRUNCATE and ALTER last as long as the dump. Whoever alters a table waits for them, and everybody else
//! who wants that table queues behind: the whole office would wait for the backup.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::capture::session::Session;

/// How often the sessions are heard of.
const EVERY: Duration = Duration::from_secs(1);

/// So many times in a row somebody may be found waiting.
const PATIENCE: u32 = 5;

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
    /// Watches `sessions`, of a process whose sessions all call themselves `tag`.
    pub(super) fn over(mut sessions: Vec<Session>, tag: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (mine, waiters) = (Arc::clone(&shared), waiters(tag));
        let thread = thread::spawn(move || {
            if let Err(why) = watch(&mut sessions, &waiters, &mine) {
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
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has told what it had to tell.
            let _ended = thread.join();
        }
    }
}

fn watch(sessions: &mut [Session], waiters: &str, shared: &Shared) -> Result<(), String> {
    let mut found = 0;
    loop {
        let mut waiting = false;
        for session in &mut *sessions {
            let rows = session.ask(waiters, ANSWER_WITHIN).map_err(|error| error.to_string())?;
            waiting |= rows.first().is_some_and(|count| count != "0");
        }
        found = if waiting { found + 1 } else { 0 };
        if found >= PATIENCE {
            return Err("the dump gave way, because others had to wait for a table that it was reading".to_owned());
        }
        if shared.done.load(Ordering::Relaxed) {
            return Ok(());
        }
        thread::park_timeout(EVERY);
        if shared.done.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// How many wait for a lock that one of our sessions has. An account sees its own sessions, and everybody's locks.
fn waiters(tag: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_locks w WHERE NOT w.granted AND pg_blocking_pids(w.pid) && \
         (SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = '{tag}') AND NOT w.pid IN \
         (SELECT pid FROM pg_stat_activity WHERE application_name = '{tag}');"
    )
}
