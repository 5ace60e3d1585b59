//! Until when a chain's objects are locked in their store: known when the chain is opened, and never extended.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{DeliverError, Place};
use crate::clock;
use crate::format::names::{self, ChainFolder};
use crate::generation::Class;
use crate::state::ChainRecord;

/// A lock that is reckoned by a wrong clock may end far too early, or hold for years longer than it should.
const CLOCK_DIFFERENCE_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How long what is stored cannot be deleted, by anyone.
#[derive(Clone, Copy, Debug)]
pub struct LockTerms {
    /// Archival generations, from the time they are begun; not locked if absent.
    pub archival: Option<jiff::Span>,
    /// Each rolling generation, at least; not locked if absent.
    pub rolling: Option<jiff::Span>,
}

impl LockTerms {
    /// Until when objects of a chain that was begun at `opened`, and takes generations for `chain_days`, are locked. The
    /// last generation of a chain needs its first pack as long as its own, so all have one date.
    pub fn until(&self, class: Class, opened: Timestamp, chain_days: u32) -> Option<Timestamp> {
        let opened = opened.to_zoned(TimeZone::UTC);
        let (begins, term) = match class {
            Class::Archival => (opened, self.archival?),
            Class::Rolling => (opened.saturating_add(jiff::Span::new().days(chain_days)), self.rolling?),
        };
        Some(begins.saturating_add(term).timestamp())
    }
}

impl Place<'_> {
    /// Until when objects of `chain` are locked, if they are.
    pub(super) fn locked_until(&self, chain: &ChainRecord) -> Option<Timestamp> {
        self.target.lock?.until(chain.class, chain.opened, self.settings.chain_days)
    }

    /// Fails if something is to be locked, and this machine's clock is not the store's.
    pub(super) fn check_clock(&self, class: Class) -> Result<(), DeliverError> {
        let now = clock::now();
        if self.target.lock.and_then(|lock| lock.until(class, now, self.settings.chain_days)).is_none() {
            return Ok(());
        }
        let ahead = now.duration_since(self.runtime.block_on(self.target.store.now())?);
        if ahead.abs() > CLOCK_DIFFERENCE_MAX {
            return Err(DeliverError::Clock { ahead_s: ahead.as_secs() });
        }
        Ok(())
    }

    /// Whether what the next generation of a chain would build on is locked as long as that generation will be.
    pub(super) fn is_locked(&self, chain: &ChainRecord) -> Result<bool, DeliverError> {
        let (Some(until), Some(versions)) = (self.locked_until(chain), self.target.store.versions()) else {
            return Ok(true);
        };
        let folder = ChainFolder::new(self.settings.site, chain.class, &chain.name)?;
        let signature = folder.object(&chain.name, names::SIGNATURE)?;
        let said = self.runtime.block_on(versions.locked_until(&signature.into()))?;
        let locked = said.is_some_and(|said| said.as_second() >= until.as_second());
        if !locked {
            tracing::warn!(
                store = %self.target.name,
                "the chain {} is not locked until {until}, as the configuration has it now: a new chain is begun with a full \
                 generation",
                chain.name
            );
        }
        Ok(locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_objects_of_a_chain_have_one_date() {
        let span = jiff::Span::new();
        let terms = LockTerms { archival: Some(span.years(10)), rolling: Some(span.days(30)) };
        let opened: Timestamp = "2028-02-29T23:00:00Z".parse().unwrap();
        let until = |terms: LockTerms, class| terms.until(class, opened, 7).map(|until| until.to_string());
        assert_eq!(until(terms, Class::Archival).as_deref(), Some("2038-02-28T23:00:00Z"));
        assert_eq!(until(terms, Class::Rolling).as_deref(), Some("2028-04-06T23:00:00Z"));
        let none = LockTerms { archival: None, rolling: None };
        assert_eq!((until(none, Class::Archival), until(none, Class::Rolling)), (None, None));
    }
}
