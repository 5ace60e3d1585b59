//! Messages on their way: a file each, in a folder of the state. Written before the first try, removed when delivered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Message, Payload};
use crate::durable;
use crate::staging::{FolderLock, StagingError};

const FOLDER: &str = "outbox";

/// The folder of messages on their way.
#[derive(Clone, Debug)]
pub struct Outbox {
    folder: PathBuf,
}

/// Why the outbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// A file cannot be read, written or removed.
    #[error("cannot {doing} the message {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A message has no text form.
    #[error("a message has no text form")]
    Json(#[from] serde_json::Error),
    /// The folder cannot be locked.
    #[error("the outbox cannot be locked")]
    Lock(#[source] StagingError),
}

impl Outbox {
    /// The outbox in the state folder `state`, whether there is one yet or not.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// Keeps `message` until it is removed; a ping replaces those to the same service that wait, for only the newest is
    /// true.
    pub fn put(&self, message: &Message) -> Result<(), OutboxError> {
        durable::add_folder(&self.folder).map_err(failed("make room for", &self.folder))?;
        if let Payload::Ping { .. } = message.payload {
            for other in self.messages()? {
                if other.id < message.id && other.name == message.name && matches!(other.payload, Payload::Ping { .. })
                {
                    self.remove(&other)?;
                }
            }
        }
        let path = self.path(message);
        durable::write(&path, &serde_json::to_vec(message)?).map_err(failed("write", &path))
    }

    /// All that wait, oldest first. A file that is no message is left where it is.
    pub fn messages(&self) -> Result<Vec<Message>, OutboxError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.folder)(error)),
        };
        let mut messages: Vec<Message> = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            match fs::read(&path) {
                Ok(text) => messages.extend(serde_json::from_slice::<Message>(&text).ok()),
                // Another program has delivered it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", &path)(error)),
            }
        }
        messages.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(messages)
    }

    /// Takes the right to deliver; nothing if another program has it.
    pub fn lock(&self, now: Timestamp) -> Result<Option<FolderLock>, OutboxError> {
        durable::add_folder(&self.folder).map_err(failed("make room for", &self.folder))?;
        match FolderLock::take(&self.folder, now) {
            Ok(lock) => Ok(Some(lock)),
            Err(StagingError::Locked { .. }) => Ok(None),
            Err(error) => Err(OutboxError::Lock(error)),
        }
    }

    /// Forgets a message.
    pub(super) fn remove(&self, message: &Message) -> Result<(), OutboxError> {
        let path = self.path(message);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => durable::sync_folder(&self.folder).map_err(failed("remove", &path)),
        }
    }

    fn path(&self, message: &Message) -> PathBuf {
        self.folder.join(format!("{}.json", message.id))
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> OutboxError {
    let path = path.to_owned();
    move |source| OutboxError::Io { doing, path: path.clone(), source }
}
