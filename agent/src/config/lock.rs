//! `[store.lock]`: how long nobody can delete what is stored.

use providers::LockMode;

use super::Config;
use super::stores::StoreConfig;
use super::table::{Problem, Reader, Section};
use crate::deliver::LockTerms;

/// How the objects of a store are locked.
#[derive(Clone, Copy, Debug)]
pub struct LockConfig {
    /// How firmly.
    pub mode: LockMode,
    /// How long.
    pub terms: LockTerms,
}

/// Refuses locks that outlast what has to be gone before.
pub(super) fn check(config: &Config, reader: &Reader<'_>) {
    let Some(max_age) = config.place.retention.rolling.max_age else { return };
    for store in &config.place.stores {
        let Some(rolling) = store.lock.and_then(|lock| lock.terms.rolling) else { continue };
        let days = config.chain.days;
        if rolling.most_days() + days > max_age.least_days() {
            let what = format!(
                "rolling = \"{rolling}\" and [rolling] max_age = \"{max_age}\" contradict each other: all objects of a chain are \
                 locked until {rolling} after its {days} days, so the first of them could not be deleted when it has to be \
                 gone; shorten the lock, or lengthen max_age"
            );
            reader.report(store.key("lock"), None, what);
        }
    }
}

/// What a store's lock does not do, though one might think so.
pub fn notes(config: &Config) -> Vec<Problem> {
    config.place.stores.iter().flat_map(|store| notes_of(config, store)).collect()
}

fn notes_of(config: &Config, store: &StoreConfig) -> Vec<Problem> {
    let Some(LockConfig { terms, .. }) = store.lock else { return Vec::new() };
    let retention = &config.place.retention;
    let mut notes = Vec::new();
    let mut note = |what: String| notes.push(Problem { key: store.key("lock"), line: None, what });
    for rule in &retention.archival {
        match (terms.archival, rule.lifetime) {
            (None, _) => {
                note("archival generations are not locked here, since `archival` is not set: whoever gets a key that may \
                     delete can delete them".to_owned());
            }
            (Some(archival), None) => note(format!(
                "archival generations that are kept for ever are locked for {archival}: from then on, whoever gets a key that \
                 may delete can delete them"
            )),
            (Some(archival), Some(lifetime)) if archival != lifetime => note(format!(
                "archival generations with a lifetime of {lifetime} are locked for just that; archival = \"{archival}\" counts \
                 for those that are kept for ever"
            )),
            (Some(_), Some(_)) => {}
        }
    }
    match (terms.rolling, retention.rolling.min_age) {
        (Some(rolling), Some(min_age)) if rolling.least_days() < min_age.least_days() => note(format!(
            "[rolling] min_age keeps everything for {min_age}, but it is locked for {rolling} only: from then on, whoever gets \
             a key that may delete can delete it"
        )),
        _ => {}
    }
    notes
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
