//! Progress bars, if standard error is a terminal.

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::{Progress, Stage};

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

const REFRESH: Duration = Duration::from_millis(100);

/// Shows a progress until it is dropped.
pub(crate) struct Bars {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Bars {
    /// Shows `progress`, unless `quiet` or nobody looks.
    pub(crate) fn show(progress: &Arc<Progress>, quiet: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self { thread: None };
        }
        let progress = Arc::clone(progress);
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let content = BARS.add(ProgressBar::no_length());
            let sent = BARS.add(ProgressBar::no_length());
            while ended.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                let now = progress.snapshot();
                draw(&content, name(now.stage), now.done, now.total);
                if now.to_send > 0 {
                    draw(&sent, "sending", now.sent, now.to_send);
                }
            }
            content.finish_and_clear();
            sent.finish_and_clear();
        });
        Self { thread: Some((end, thread)) }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            drop(end);
            // A thread that draws has nothing to say about the run.
            thread.join().ok();
        }
    }
}

/// Does what writes to standard error while no bar is in the way.
pub(crate) fn suspend<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

fn draw(bar: &ProgressBar, name: &'static str, done: u64, total: u64) {
    let template = if total > 0 {
        "{msg:12!} [{bar:36}] {binary_bytes:>10} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
    } else {
        "{msg:12!} {binary_bytes:>10}, {binary_bytes_per_sec}"
    };
    // The templates are fixed; should one be refused, the plain bar does as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(name);
    bar.set_length(total);
    bar.set_position(done);
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Capturing => "copying",
        Stage::Sealing => "sealing",
        Stage::Sending => "finishing",
        Stage::Restoring => "restoring",
        Stage::Verifying => "verifying",
    }
}

/// Writes log lines beside the bars.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
