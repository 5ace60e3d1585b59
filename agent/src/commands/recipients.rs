//! To whom this machine sealed last, and what it means that this has changed.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::keys::Recipients;

/// Version of the file; a field that is added does not change it.
const VERSION: u32 = 1;
const FILE: &str = "recipients.json";

#[derive(Deserialize, Serialize)]
struct Sealed {
    version: u32,
    recipients: Vec<String>,
}

/// How the recipients of the configuration differ from those of the last run.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    added: Vec<String>,
    removed: Vec<String>,
    /// Why those of the last run are not known.
    unknown: Option<String>,
}

impl Change {
    /// Since the last run of this machine; nothing if it remembers none, or all are the same.
    pub(super) fn since_last(state: &Path, recipients: &Recipients) -> Option<Self> {
        let last = match read(&state.join(FILE)) {
            Ok(last) => last?,
            Err(error) => {
                let unknown = Some(format!("{FILE} in the state folder cannot be read: {error}"));
                return Some(Self { added: Vec::new(), removed: Vec::new(), unknown });
            }
        };
        let now = texts(recipients);
        let without = |some: &[String], others: &[String]| -> Vec<String> {
            some.iter().filter(|one| !others.contains(one)).cloned().collect()
        };
        let (added, removed) = (without(&now, &last.recipients), without(&last.recipients, &now));
        (added.len() + removed.len() > 0).then_some(Self { added, removed, unknown: None })
    }

    /// Whether there is, or may be, a key that cannot open what the open chains begin with, and so nothing that builds on it.
    pub(super) fn needs_new_chains(&self) -> bool {
        !self.added.is_empty() || self.unknown.is_some()
    }

    /// What it means, a line for each key.
    pub(super) fn lines(&self) -> Vec<String> {
        let added = self.added.iter().map(|key| {
            format!(
                "a new key can open the backups: {key}; it opens what is made from now on, with a full generation in every \
                 store first, and nothing that is older"
            )
        });
        let removed = self.removed.iter().map(|key| {
            format!(
                "a key no longer opens new backups: {key}; whoever has its secret half still opens everything that was made \
                 before, for as long as it is stored"
            )
        });
        let unknown = self.unknown.iter().map(|why| {
            format!(
                "it is not known who could open what was made so far ({why}): what is made from now on begins with a full \
                 generation in every store, so that all keys open it"
            )
        });
        added.chain(removed).chain(unknown).collect()
    }
}

/// What was remembered; nothing if nothing ever was.
fn read(path: &Path) -> io::Result<Option<Sealed>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let sealed: Sealed = serde_json::from_slice(&text)?;
    if sealed.version == VERSION { Ok(Some(sealed)) } else { Err(io::Error::other("another version wrote it")) }
}

/// Remembers to whom everything is sealed from now on.
pub(super) fn remember(state: &Path, recipients: &Recipients) -> io::Result<()> {
    let sealed = Sealed { version: VERSION, recipients: texts(recipients) };
    durable::write(&state.join(FILE), &serde_json::to_vec_pretty(&sealed)?)
}

fn texts(recipients: &Recipients) -> Vec<String> {
    recipients.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_came_and_went_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let keys = [
            "age1c6jmkffv5mrt7vecchjcghtzytyp5gxg0p909q8a6l39hq3cjczs06mx3h",
            "age16ff6q3rhls86h6vgfrj59f0fer2vhva9637aj9lcu7804d6zj3cqms4gd8",
        ];
        let (one, other) = (Recipients::parse(&keys[..1]).unwrap(), Recipients::parse(&keys[1..]).unwrap());
        assert_eq!(Change::since_last(folder.path(), &one), None);
        remember(folder.path(), &one).unwrap();
        assert_eq!(Change::since_last(folder.path(), &one), None);
        let change = Change::since_last(folder.path(), &other).unwrap();
        assert!(change.needs_new_chains() && change.lines()[1].contains(keys[0]), "{change:?}");
        let both = Recipients::parse(keys).unwrap();
        remember(folder.path(), &both).unwrap();
        assert!(!Change::since_last(folder.path(), &one).unwrap().needs_new_chains());
        for damaged in ["", "{", r#"{"version": 2, "recipients": []}"#] {
            fs::write(folder.path().join(FILE), damaged).unwrap();
            let change = Change::since_last(folder.path(), &one).unwrap();
            assert!(change.needs_new_chains() && change.lines().len() == 1, "{change:?}");
        }
    }
}
