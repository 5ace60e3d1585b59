//! Progress bars, if standard error is a terminal.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use crate::progress::{Progress, Stage};
use crate::said::plain;

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
            let mut stage = Stage::Starting;
            while ended.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                let now = progress.snapshot();
                if now.stage != stage {
                    // Each stage has its own speed.
                    content.reset();
                    stage = now.stage;
                }
                let template = if now.total > 0 { KNOWN } else { UNKNOWN };
                draw(&content, template, name(now.stage), now.done, now.total);
                if now.to_send > 0 {
                    draw(&sent, SENDING, "sending", now.sent, now.to_send_in_all().unwrap_or(now.to_send));
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

/// Before it has run for so long, and if it would run for so much longer, the time that is left is a guess.
const LEFT_AFTER: Duration = Duration::from_secs(5);
const LEFT_MAX: Duration = Duration::from_secs(100 * 3600);

/// How much there will be to send is not known before all is sealed, but about.
const SENDING: &str = "{msg:10!} {binary_bytes:>11} of about {binary_total_bytes:11} {binary_bytes_per_sec:13} {left}";
/// The bar takes what is left of the terminal's width.
const KNOWN: &str =
    "{msg:10!} [{wide_bar}] {binary_bytes:>11} of {binary_total_bytes:11} {binary_bytes_per_sec:13} {left}";
const UNKNOWN: &str = "{msg:10!} {binary_bytes:>11} {binary_bytes_per_sec}";

fn style(template: &'static str) -> ProgressStyle {
    // The templates are fixed; should one be refused, the plain bar does as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("left", left).progress_chars("=> ")
}

fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    if state.elapsed() >= LEFT_AFTER && state.pos() > 0 && state.eta() <= LEFT_MAX {
        // Nothing can be done about a bar that cannot be drawn.
        write!(out, "{} left", HumanDuration(state.eta())).ok();
    }
}

fn draw(bar: &ProgressBar, template: &'static str, name: &'static str, done: u64, total: u64) {
    bar.set_style(style(template));
    bar.set_message(name);
    bar.set_length(total);
    bar.set_position(done);
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Capturing => "copying",
        Stage::Copying => "copying in the store",
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
        // The colours are the log's own: what was logged of others has none by now.
        let text = String::from_utf8_lossy(bytes).split('\u{1b}').map(plain).collect::<Vec<_>>().join("\u{1b}");
        suspend(|| io::stderr().lock().write_all(text.as_bytes())).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal of 80 columns that keeps what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Narrow(Arc<Mutex<String>>);

    impl TermLike for Narrow {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_bar_fits_into_a_narrow_terminal() {
        for (template, total) in [(KNOWN, 900 << 30), (UNKNOWN, 0), (SENDING, 900 << 30)] {
            let terminal = Narrow::default();
            let bar = ProgressBar::no_length();
            bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
            draw(&bar, template, "restoring", 345 << 30, total);
            bar.tick();
            let shown = terminal.0.lock().unwrap().trim_end().to_owned();
            assert!(shown.contains("restoring") && shown.contains("345"), "{shown}");
            assert!(shown.len() <= 80 && !shown.contains("left"), "{shown}");
        }
    }
}
