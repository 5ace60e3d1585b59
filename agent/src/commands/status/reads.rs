//! When what is stored was last read again, and whether it was whole, as the evidence log has it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::show;
use crate::config::Size;
use crate::evidence::{History, Record, Verify};

/// How the last verification of a store ended. One that found something stays the last one until everything was read again
/// and nothing was found: a share that was read since shows nothing of the rest.
#[derive(Serialize)]
pub(super) struct LastRead {
    store: String,
    at: Timestamp,
    bytes: u64,
    packs: u64,
    packs_not_read: u64,
    findings: Vec<String>,
    /// Nothing could be read.
    out_of_reach: bool,
}

impl LastRead {
    /// Of each store, by name.
    pub(super) fn of(history: &History) -> Vec<Self> {
        let mut last: BTreeMap<&str, (Timestamp, &Verify)> = BTreeMap::new();
        for entry in history.iter() {
            let Record::Verify(verify) = &entry.record else { continue };
            let stays = last.get(verify.store.as_str()).is_some_and(|(_, before)| {
                let was_bad = !before.findings.is_empty() && !before.read_nothing();
                let is_less = verify.packs_not_read > 0 || verify.generations < before.generations;
                was_bad && (verify.read_nothing() || (verify.findings.is_empty() && is_less))
            });
            if !stays {
                last.insert(&verify.store, (entry.at, verify));
            }
        }
        let read = |(store, (at, verify)): (&str, (Timestamp, &Verify))| Self {
            store: store.to_owned(),
            at,
            bytes: verify.bytes,
            packs: verify.packs,
            packs_not_read: verify.packs_not_read,
            findings: verify.findings.clone(),
            out_of_reach: verify.read_nothing(),
        };
        last.into_iter().map(read).collect()
    }

    /// What somebody should do something about.
    pub(super) fn attention(&self) -> Option<String> {
        let first = self.findings.first()?.trim_end_matches('.');
        if self.out_of_reach {
            let store = &self.store;
            return Some(format!(
                "what is stored in {store} could not be read again: {first}; when `offsite check` finds nothing, run `offsite \
                 verify`"
            ));
        }
        let more = match self.findings.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!(
            "what is stored in {} was NOT WHOLE when it was last read: {first}{more}; see whether its disks are sound, make a \
             copy that needs nothing of it, `offsite backup --full`, and read it all again, `offsite verify`",
            self.store
        ))
    }

    /// One line for people.
    pub(super) fn text(&self, now: Timestamp) -> String {
        let first = format!("Last read again {} ({}): ", show::ago(self.at, now), show::minute(self.at));
        let read = format!("{} in {}", Size(self.bytes), show::counted(self.packs, "pack"));
        let what = match (self.findings.is_empty(), self.packs_not_read) {
            (false, _) if self.out_of_reach => format!("{} could not be read", self.store),
            (false, _) => format!("{} was NOT WHOLE", self.store),
            (true, 0) => format!("{} is whole: {read}", self.store),
            (true, left) => format!("{}: {read} are whole; {left} more were not read this time", self.store),
        };
        show::wrapped(&first, &what)
    }
}
