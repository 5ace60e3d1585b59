//! What a verb did goes into the evidence log of this machine, and is told to whoever wants to know.

use super::output::say;
use super::report;
use crate::clock;
use crate::config::Place;
use crate::evidence::{Log, Record};
use crate::failure;
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
