//! A dump that is stopped right before it takes its snapshot, and let go when that is wanted.
//!
//! MariaDB's snapshots cannot be shared between sessions, so the dump itself has to take its own inside the hold. It is
//! started before that, with a pipe for what it says that is so full that it can say that it connects and has to wait
//! when it wants to say that it starts its transaction. When the pipe is emptied, it goes on; what it says after the
//! transaction has been started shows that it has its snapshot. This takes some milliseconds, whatever the
//! connection is like.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::platform::process;
use crate::said::{last_words, sentences};

/// What it says before it connects, and after.
const STARTS: &str = "-- Starting transaction...";

/// How often it is looked whether a dump has to end.
const LOOK: Duration = Duration::from_millis(50);

/// A dump that waits, or goes on.
#[derive(Debug)]
pub(super) struct Gate {
    child: Child,
    full: Option<(PipeReader, usize, usize)>,
    lines: Option<Receiver<String>>,
    last: String,
}

impl Gate {
    /// Starts `command` with its output in `to`. `host` is how it will call the server.
    pub(super) fn start(command: &mut Command, to: File, host: &str) -> io::Result<Self> {
        use std::io::Write as _;
        use std::os::unix::process::CommandExt as _;
        let (reader, mut writer) = io::pipe()?;
        let connects = format!("-- Connecting to {host}...\n").len();
        // Room for that and not for what comes next.
        let filled = rustix::pipe::fcntl_getpipe_size(&reader)?.saturating_sub(connects + STARTS.len() / 2);
        writer.write_all(&vec![b'\n'; filled])?;
        command.stdin(Stdio::null()).stdout(to).stderr(writer).process_group(0);
        let child = command.spawn()?;
        command.stderr(Stdio::null()).stdout(Stdio::null());
        Ok(Self { child, full: Some((reader, filled, connects)), lines: None, last: String::new() })
    }

    /// Whether it has got to the point where it connects and then stops.
    pub(super) fn has_stopped(&self) -> io::Result<bool> {
        let Some((reader, filled, connects)) = &self.full else { return Ok(false) };
        let there = rustix::io::ioctl_fionread(reader)?;
        Ok(there == u64::try_from(filled + connects).unwrap_or(u64::MAX))
    }

    /// Whether it has ended before its time.
    pub(super) fn has_ended(&self) -> bool {
        process::has_ended(&self.child).unwrap_or(true)
    }

    /// Lets it go on. It must have stopped: otherwise its snapshot may be older than this.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let Some((mut reader, filled, _)) = self.full.take() else { return Ok(()) };
        reader.read_exact(&mut vec![0; filled])?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in io::BufRead::lines(io::BufReader::new(reader)).map_while(Result::ok) {
                // Nobody may be interested any more; the dump must be able to go on speaking.
                let _heard = sender.send(line);
            }
        });
        self.lines = Some(lines);
        Ok(())
    }

    /// Waits until it has its snapshot. The error is what it said last.
    pub(super) fn pinned(&mut self, limit: Duration) -> Result<(), String> {
        let Some(lines) = &self.lines else { return Err("it was not let go".to_owned()) };
        let deadline = Instant::now() + limit;
        let mut started = false;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == STARTS => started = true,
                Ok(line) if started && line.starts_with("-- ") => return Ok(()),
                Ok(line) => self.last = line,
                Err(RecvTimeoutError::Timeout) => return Err("the dump did not take its snapshot in time".to_owned()),
                Err(RecvTimeoutError::Disconnected) => return Err(sentences(&self.last)),
            }
        }
    }

    /// Waits for its end, which is brought about if `stop` is set. The error is one sentence.
    pub(super) fn finish(mut self, stop: &AtomicBool) -> Result<(), String> {
        let Some(lines) = self.lines.take() else { return Err("it was not let go".to_owned()) };
        // Until the pipe is closed, which the thread that reads it notices.
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) if line.starts_with("-- ") || line.is_empty() => {}
                Ok(line) => self.last = line,
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => process::kill_group(&self.child),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().map_err(|error| format!("the dump could not be waited for: {error}"))?;
        let said = last_words(&self.last);
        if status.success() { Ok(()) } else { Err(format!("the dump failed with {status}{said}")) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            process::kill_group(&self.child);
            // It cannot fail for a child of ours.
            let _ended = self.child.wait();
        }
    }
}
