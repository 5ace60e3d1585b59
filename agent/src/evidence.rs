//! The evidence log: what was done for the office's data, so that it can be shown years later, and shows if it was changed.
//!
//! `evidence.jsonl` in the state folder: one line of JSON for each run, drill, prune, verification, probe and key proof. Each
//! line holds the SHA-256 of the line before it and is signed by the site's key; `evidence.head`, signed as well, says how
//! far the log goes. An entry that was changed, removed or moved shows, and so does an end that was cut off, unless an older
//! head was put back with it: then the copies of the head that reports carry out of the building tell.
//!
//! Entries that are added while the key is away are chained and not signed, and the head stays that of the last signed one.
//! They are called not signed, not changed. The next signed entry vouches for them; until then nothing shows whether the last
//! of them were removed or replaced.
//!
//! Entries are only ever added. What a loss of power left of a line is removed by the next one, which says so.

mod chain;
mod record;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::durable;
use crate::ids::SiteName;
use crate::sign::{SignError, SiteKey, SitePublicKey};

pub use chain::{Anchor, Entry, Finding, History, Mended};
pub use record::{
    Drill, DrilledDatabase, KeyProof, Probe, Prune, Record, Run, RunGeneration, RunProblem, RunSource, RunStore,
    Undelivered, Verify,
};

const FILE: &str = "evidence.jsonl";
const HEAD: &str = "evidence.head";

/// The log of one site on this machine.
#[derive(Clone, Debug)]
pub struct Log {
    folder: PathBuf,
}

/// Why the log could not be read, or an entry not be added.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file cannot be read or written.
    #[error("cannot {doing} the evidence log {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An entry cannot be signed.
    #[error("an entry of the evidence log cannot be signed")]
    Sign(#[from] SignError),
    /// An entry has no text form.
    #[error("an entry of the evidence log has no text form")]
    Json(#[from] serde_json::Error),
}

impl Log {
    /// The log in the state folder `folder`, whether there is one yet or not.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The file that holds the entries.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Adds an entry and makes it last: when this returns, the entry survives a loss of power. Waits for other programs
    /// that add one. Without a key the entry is not signed, which is said wherever the log is told of.
    ///
    /// A log that was tampered with takes entries all the same, and in a way that keeps the tampering visible.
    pub fn append(
        &self,
        site: &SiteName,
        record: Record,
        key: Option<&SiteKey>,
        now: Timestamp,
    ) -> Result<Entry, EvidenceError> {
        let path = self.path();
        let mut file = durable::open(&path).map_err(self.failed("open"))?;
        file.lock().map_err(self.failed("lock"))?;
        let mut log = Vec::new();
        file.read_to_end(&mut log).map_err(self.failed("read"))?;
        let head = self.read_head()?;

        let end = chain::end(&log, head.as_deref(), key.map(SiteKey::public));
        let entry = end.next(site, record, now);
        let (text, anchor) = chain::encode(&entry, end.needs_line_break, key)?;
        let write = |file: &mut File| {
            file.set_len(end.keep_bytes)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write(&mut file).map_err(self.failed("write"))?;
        if log.is_empty() {
            durable::sync_folder(&self.folder).map_err(self.failed("write"))?;
        }
        // While the key is away, the signed head stays: it goes on showing that nothing was cut off up to there.
        if key.is_some() || !head.as_deref().is_some_and(chain::is_signed) {
            let head = chain::encode_head(&anchor, now, key)?;
            durable::write(&self.folder.join(HEAD), &head).map_err(self.failed("write the head of"))?;
        }
        Ok(entry)
    }

    /// Reads the whole log and says what is wrong with it. Without a key, signatures are not checked. A log that is not
    /// there is one without entries.
    pub fn read(&self, key: Option<&SitePublicKey>) -> Result<History, EvidenceError> {
        let mut log = Vec::new();
        match File::open(self.path()) {
            Ok(mut file) => {
                // So that nobody is seen in the middle of adding an entry.
                file.lock_shared().map_err(self.failed("lock"))?;
                file.read_to_end(&mut log).map_err(self.failed("read"))?;
                let head = self.read_head()?;
                Ok(chain::check(&log, head.as_deref(), key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(chain::check(&log, self.read_head()?.as_deref(), key))
            }
            Err(error) => Err(self.failed("open")(error)),
        }
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>, EvidenceError> {
        match fs::read(self.folder.join(HEAD)) {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read the head of")(error)),
        }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> EvidenceError + use<> {
        let path = self.path();
        move |source| EvidenceError::Io { doing, path: path.clone(), source }
    }
}
