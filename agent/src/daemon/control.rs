//! What the daemon is told and asked: one line of JSON each way over a socket in the state folder, which only its owner can
//! enter.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::listening::read_until;
use super::{DaemonError, Message};
use crate::ids::JobName;
use crate::schedule::Memory;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How things are.
    Status,
    /// Begin no scheduled run before this time.
    Pause {
        /// The time.
        until: Timestamp,
    },
    /// End the pause.
    Resume,
    /// Run a job now.
    Run {
        /// The job.
        job: JobName,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "is", rename_all = "snake_case")]
pub enum Answer {
    /// How things are now.
    Status {
        /// The daemon's process.
        pid: u32,
        /// When it began.
        since: Timestamp,
        /// What it remembers.
        memory: Memory,
        /// When each of its jobs begins next, by the configuration that it has read.
        #[serde(default)]
        next: BTreeMap<JobName, Option<Timestamp>>,
    },
    /// It was not done, and why.
    Refused(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no daemon.
    #[error("the daemon does not run")]
    NotRunning,
    /// It cannot be spoken to.
    #[error("the daemon cannot be asked over {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
}

const SOCKET: &str = "socket";
/// One line that somebody writes or waits for.
const LINE_LIMIT: Duration = Duration::from_secs(10);
const LINE_MAX: usize = 1 << 20;
/// So many are answered at once.
const AT_ONCE: usize = 32;

/// Asks the daemon of the site with this state folder.
pub fn ask(state_folder: &Path, request: &Request) -> Result<Answer, AskError> {
    let path = socket(state_folder);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        _ => AskError::Io { path: path.clone(), source },
    };
    let stream = UnixStream::connect(&path).map_err(failed)?;
    exchange(stream, request).map_err(failed)
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Answer> {
    stream.set_write_timeout(Some(LINE_LIMIT))?;
    write_line(&mut stream, request)?;
    Ok(serde_json::from_str(&read_line(&stream)?)?)
}

/// Listens for whoever has something to say to the daemon.
pub(super) fn listen(state_folder: &Path, outbox: &Sender<Message>) -> Result<(), DaemonError> {
    let path = socket(state_folder);
    let failed = |source| DaemonError::Listen { path: path.clone(), source };
    // The lock is ours: whoever made it is gone.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let outbox = outbox.clone();
    let serve = move || {
        let under_way = Arc::new(());
        for stream in listener.incoming() {
            // Somebody who asks and does not go on keeps nobody else waiting; too many of them are turned away.
            if Arc::strong_count(&under_way) > AT_ONCE {
                continue;
            }
            let (outbox, one) = (outbox.clone(), Arc::clone(&under_way));
            let answering = std::thread::Builder::new().name("answer".to_owned()).spawn(move || {
                if let Err(error) = stream.and_then(|stream| answer(stream, &outbox)) {
                    tracing::debug!("somebody who asked got no answer: {error}");
                }
                drop(one);
            });
            if let Err(error) = answering {
                tracing::debug!("somebody who asked cannot be answered: {error}");
            }
        }
    };
    std::thread::Builder::new().name("socket".to_owned()).spawn(serve).map(|_| ()).map_err(failed)
}

/// The daemon has ended: nobody is to knock in vain.
pub(super) fn forget(state_folder: &Path) {
    // The next daemon removes it otherwise.
    fs::remove_file(socket(state_folder)).ok();
}

/// Answers one question, from whoever could enter the folder.
fn answer(mut stream: UnixStream, outbox: &Sender<Message>) -> io::Result<()> {
    stream.set_write_timeout(Some(LINE_LIMIT))?;
    let request = serde_json::from_str(&read_line(&stream)?)?;
    let (sender, receiver) = mpsc::channel();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    outbox.send(Message::Asked { request, answer: sender }).map_err(|_| gone())?;
    let answer = receiver.recv().map_err(|_| gone())?;
    write_line(&mut stream, &answer)
}

fn read_line(stream: &UnixStream) -> io::Result<String> {
    let line = read_until(stream, LINE_LIMIT, LINE_MAX, |line| line.last() == Some(&b'\n'))?;
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn socket(state_folder: &Path) -> PathBuf {
    super::folder(state_folder).join(SOCKET)
}
