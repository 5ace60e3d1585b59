//! A session at a database server: a child process of the engine's own client, fed with one statement after another.
//!
//! The dump tools use the same client library, so whatever lets them in lets us in: sockets, passwords, certificates. A
//! session that does not answer in time is killed, and the server ends it when its connection closes; it ends as well when
//! this process does, because its input ends then. An answer takes about a tenth of a millisecond longer than by a library.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::command::pass_environment;
use super::settings::EnvValue;
use crate::platform::process;
use crate::said;

/// How to start a session.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The client program.
    pub(super) program: &'static str,
    /// What makes it read statements and write bare rows.
    pub(super) arguments: Vec<String>,
    /// How it is told to write a line of its own, around the text of it.
    pub(super) echo: (&'static str, &'static str),
    /// Where to connect to and as whom; nothing of that is an argument.
    pub(super) env: BTreeMap<String, EnvValue>,
}

/// A session. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Session {
    program: &'static str,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    echo: (&'static str, &'static str),
    /// Statements sent, and answers received.
    sent: u64,
    received: u64,
}

/// Why a session did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The client could not be started.
    #[error("`{program}` could not be started ({source}); install the client programs of the database server")]
    Start {
        /// The client program.
        program: &'static str,
        source: io::Error,
    },
    /// The server refused the statement; the session goes on.
    #[error("the server says: {0}")]
    Refused(String),
    /// The session is over.
    #[error("the session at the server was lost{}", said::behind(.0))]
    Lost(String),
    /// The session was ended, because its answer took too long.
    #[error("the server did not answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl Session {
    /// Starts one. Whether it gets in shows with the first answer.
    pub(super) fn start(client: &Client) -> Result<Self, SessionError> {
        let failed = |source| SessionError::Start { program: client.program, source };
        let (output, writer) = io::pipe().map_err(failed)?;
        let mut command = Command::new(client.program);
        // Both in one, so that an error stands where it belongs. An interrupt typed at the terminal is not for it.
        command.args(&client.arguments).stdin(Stdio::piped()).process_group(0);
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        pass_environment(&mut command, &client.env);
        command.env("LC_ALL", "C.UTF-8");
        let mut child = command.spawn().map_err(failed)?;
        // Its ends of the pipe are the only ones now.
        drop(command);
        let Some(input) = child.stdin.take() else { return Err(SessionError::Lost(String::new())) };
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let Client { program, echo, .. } = *client;
        Ok(Self { program, child, input, lines, echo, sent: 0, received: 0 })
    }

    /// Has a statement carried out, and gives its rows. `statement` is one line, with what ends it. What was sent before and
    /// not received is of no interest any more.
    pub(super) fn ask(&mut self, statement: &str, limit: Duration) -> Result<Vec<String>, SessionError> {
        self.received = self.sent;
        self.send(statement)?;
        self.receive(limit)
    }

    /// Sends a statement whose answer will be received later.
    pub(super) fn send(&mut self, statement: &str) -> Result<(), SessionError> {
        self.sent += 1;
        let (before, after) = self.echo;
        let text = format!("{statement}\n{before}offsite {}{after}\n", self.sent);
        // If it is over, receiving will say why.
        let _written = self.input.write_all(text.as_bytes());
        Ok(())
    }

    /// The rows of the earliest statement whose answer has not been received.
    pub(super) fn receive(&mut self, limit: Duration) -> Result<Vec<String>, SessionError> {
        self.received += 1;
        let end = format!("offsite {}", self.received);
        let earlier = |line: &str| {
            line.strip_prefix("offsite ").and_then(|n| n.parse().ok()).is_some_and(|n: u64| n < self.received)
        };
        let deadline = Instant::now() + limit;
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let line = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    return Err(SessionError::Late(limit));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SessionError::Lost(error.unwrap_or_default()));
                }
            };
            if line == end {
                return error.map_or(Ok(rows), |error| Err(SessionError::Refused(error)));
            }
            if earlier(&line) {
                // So far it was the answer to something that nobody waited for.
                (rows, error) = (Vec::new(), None);
                continue;
            }
            // MariaDB's client stays when its connection is gone, and would answer nothing any more.
            if line.starts_with("ERROR 2006 (") || line.starts_with("ERROR 2013 (") {
                self.kill();
                return Err(SessionError::Lost(said::sentences(&line)));
            }
            match said_by_client(&line) {
                Some(Said::Error) => _ = error.get_or_insert_with(|| said::sentences(&line)),
                Some(Said::Remark) => {}
                None => rows.push(line),
            }
        }
    }

    fn kill(&mut self) {
        tracing::debug!(program = self.program, "a session is ended");
        process::kill_group(&self.child);
    }
}

/// What a client says that is no row.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Error,
    Remark,
}

/// What a line is if it is no row. A row may be the name of anything, such as of a database `ERROR_LOG`.
fn said_by_client(line: &str) -> Option<Said> {
    let coded = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(" (");
    if ["ERROR:", "FATAL:", "PANIC:", "psql: error", "ERROR at line "].iter().any(|start| line.starts_with(start))
        || line.strip_prefix("ERROR ").is_some_and(coded)
    {
        return Some(Said::Error);
    }
    ["WARNING:", "NOTICE:"].iter().any(|start| line.starts_with(start)).then_some(Said::Remark)
}

impl Drop for Session {
    fn drop(&mut self) {
        process::kill_group(&self.child);
        // It cannot fail for a child of ours.
        let _ended = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_may_be_called_as_a_complaint_begins() {
        for row in ["ERROR_LOG", "WARNINGS", "NOTICE", "FATAL", "ERROR", "ERROR 7 days", "psql"] {
            assert_eq!(said_by_client(row), None, "{row}");
        }
        let complaints = [
            "ERROR:  relation \"x\" does not exist",
            "ERROR 1049 (42000): Unknown database 'x'",
            "ERROR at line 1: Unknown command",
            "FATAL:  role \"x\" does not exist",
            "psql: error: connection failed",
        ];
        for complaint in complaints {
            assert_eq!(said_by_client(complaint), Some(Said::Error), "{complaint}");
        }
        assert_eq!(said_by_client("WARNING:  there is no transaction in progress"), Some(Said::Remark));
    }
}
