//! Reports that no run writes, and those that could not be delivered: another process of this program sees to them now and
//! then, so that neither a slow mail server nor a broken one holds the schedule up.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Sees to reports now and then.
pub(super) struct Tidings {
    program: PathBuf,
    config: PathBuf,
    next: Instant,
    under_way: Option<Child>,
}

/// After a start, what was missed is made up for first, and called overdue only if it is not.
const FIRST: Duration = Duration::from_secs(30 * 60);
const AGAIN: Duration = Duration::from_secs(10 * 60);

impl Tidings {
    pub(super) fn new(program: &Path, config: &Path) -> Self {
        let next = Instant::now() + FIRST;
        Self { program: program.to_owned(), config: config.to_owned(), next, under_way: None }
    }

    /// Sees to them if it is time, and to the end of the process that did so last.
    pub(super) fn look(&mut self, stopping: bool) {
        if let Some(child) = &mut self.under_way {
            match child.try_wait() {
                Ok(None) if stopping => {
                    // What it has not delivered waits for the next one. It may have ended meanwhile.
                    child.kill().ok();
                    child.wait().ok();
                }
                Ok(None) => return,
                Ok(Some(status)) if !status.success() => tracing::warn!("reports could not be seen to: {status}"),
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!("reports could not be seen to: {error}"),
            }
            self.under_way = None;
        }
        if stopping || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + AGAIN;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).arg("tidings").stdin(Stdio::null()).stdout(Stdio::null());
        match command.spawn() {
            Ok(child) => self.under_way = Some(child),
            Err(error) => tracing::warn!("reports could not be seen to: {error}"),
        }
    }
}
