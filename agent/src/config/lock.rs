//! `[store.lock]`: how long nobody can delete what is stored.

use providers::LockMode;

use super::table::Section;
use crate::deliver::LockTerms;

/// How the objects of a store are locked.
#[derive(Clone, Copy, Debug)]
pub struct LockConfig {
    /// How firmly.
    pub mode: LockMode,
    /// How long.
    pub terms: LockTerms,
}

/// The table, if there is one.
pub(super) fn read(store: &Section<'_, '_>) -> Option<LockConfig> {
    let lock = store.section("lock");
    let wanted = store.has("lock");
    let mode = lock.string("mode");
    let (archival, rolling) = (lock.parsed("archival"), lock.parsed("rolling"));
    if wanted {
        lock.must_have("mode", "write mode = \"governance\" or mode = \"compliance\"");
        if !lock.has("archival") && !lock.has("rolling") {
            lock.report("archival", "it says for nothing how long it is locked; write archival = \"10 years\", say");
        }
    }
    let mode = match mode {
        Some("governance") => Some(LockMode::Governance),
        Some("compliance") => Some(LockMode::Compliance),
        Some(other) => {
            lock.report("mode", format_args!("there is no lock `{other}`; there are governance and compliance"));
            None
        }
        None => None,
    };
    lock.finish();
    Some(LockConfig { mode: mode?, terms: LockTerms { archival, rolling } })
}
