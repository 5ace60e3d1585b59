//! What a verb did goes into the evidence log of this machine, and is told to whoever wants to know.

use std::collections::BTreeSet;

use super::output::say;
use super::{key, preflight, report};
use crate::clock;
use crate::config::Place;
use crate::evidence::{EvidenceError, History, Log, Record, Verify};
use crate::failure;
use crate::format::Sha256;
use crate::sign::SiteKey;

/// Adds `record` to the evidence log, and tells of it as configured. Where there is no state folder yet, there is nothing to
/// remember, and the log of another site is not this one's to add to; an entry that cannot be added is told, and spoils nothing
/// of what was done. Answers whether it is in the log.
pub(super) fn record(place: &Place, record: Record) -> bool {
    if !place.state.is_dir() || preflight::other_site(place).is_some() {
        return false;
    }
    // While the site's key is away entries are not signed, which is said wherever the log is told of.
    let key = SiteKey::load(&place.signing_key).ok();
    match Log::new(&place.state).append(&place.site, record, key.as_ref(), clock::now()) {
        Ok(entry) => {
            report::tell(place, &entry);
            true
        }
        Err(error) => {
            let error = failure::one_line(&error);
            say(&format!(
                "warning: what was done is not in the evidence log: {error}; see that the disk of the state folder has room, and \
                 that it belongs to the account that runs `offsite`"
            ));
            false
        }
    }
}

/// The whole log, as everybody is told of it: its signatures are checked as far as this machine knows the site's public key.
pub(super) fn history(place: &Place) -> Result<History, EvidenceError> {
    // A key that is there and cannot be read is named by `check` and by every run.
    let key = key::public_key(place).ok().flatten();
    Log::new(&place.state).read(key.as_ref())
}

/// The digests of all packs that verifications on this machine found bad, and not whole since.
pub(super) fn bad_packs(place: &Place) -> BTreeSet<Sha256> {
    match Log::new(&place.state).read(None) {
        Ok(history) => {
            let verified = history.entries.iter().filter_map(|(entry, _)| match &entry.record {
                Record::Verify(verify) => Some(verify),
                _ => None,
            });
            Verify::bad_packs(verified)
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
