//! What a verb did goes into the evidence log of this machine, and is told to whoever wants to know.

use std::collections::BTreeSet;

use super::output::say;
use super::report;
use crate::clock;
use crate::config::Place;
use crate::evidence::{Log, Record};
use crate::failure;
use crate::format::Sha256;
use crate::sign::SiteKey;

/// Adds `record` to the evidence log, and tells of it as configured. Where there is no state folder yet, there is nothing to remember; an entry that cannot
/// be added is told, and spoils nothing of what was done.
pub(super) fn record(place: &Place, record: Record) {
    if !place.state.is_dir() {
        return;
    }
    // On a machine without the site's key entries are not signed, and the log says so when it is read.
    let key = SiteKey::load(&place.signing_key).ok();
    match Log::new(&place.state).append(&place.site, record, key.as_ref(), clock::now()) {
        Ok(entry) => report::tell(place, &entry),
        Err(error) => {
            say(&format!("warning: what was done is not in the evidence log: {}", failure::one_line(&error)));
        }
    }
}

/// The digests of all packs that a verification on this machine ever found bad.
pub(super) fn bad_packs(place: &Place) -> BTreeSet<Sha256> {
    match Log::new(&place.state).read(None) {
        Ok(history) => {
            let verified = history.entries.iter().filter_map(|(entry, _)| match &entry.record {
                Record::Verify(verify) => Some(verify),
                _ => None,
            });
            verified.flat_map(|verify| verify.bad_packs()).collect()
        }
        Err(error) => {
            let error = failure::one_line(&error);
            say(&format!(
                "warning: what verifications found is not known, for the evidence log cannot be read: {error}"
            ));
            BTreeSet::new()
        }
    }
}
