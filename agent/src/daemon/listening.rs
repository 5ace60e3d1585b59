//! Hearing somebody out who may never come to an end.

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What can be listened to for a time.
pub(crate) trait Line: Read {
    /// From now on a read takes no longer than this.
    fn wait_at_most(&self, time: Duration) -> io::Result<()>;
}

impl Line for &UnixStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Line for &TcpStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

/// Reads until `end` says that what was read ends a message, or nothing more comes. What takes longer than `within` in all, or
/// has more than `most` bytes, is an error.
pub(crate) fn read_until(
    mut line: impl Line,
    within: Duration,
    most: usize,
    end: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + within;
    let (mut message, mut buffer) = (Vec::new(), [0; 4096]);
    while !end(&message) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || message.len() > most {
            return Err(io::ErrorKind::TimedOut.into());
        }
        line.wait_at_most(left)?;
        match line.read(&mut buffer)? {
            0 => break,
            read => message.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok(message)
}
