//! Until when a chain's objects are locked in their store: known when the chain is opened, and never extended.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{DeliverError, Place};
use crate::calendar::{Age, Calendar};
use crate::clock;
use crate::format::names::{self, ChainFolder};
use crate::generation::Class;
use crate::staging::LocalGeneration;
use crate::state::{ChainRecord, Delivery, State};

/// A lock that is reckoned by a wrong clock may end far too early, or hold for years longer than it should.
const CLOCK_DIFFERENCE_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How long what is stored cannot be deleted, by anyone.
#[derive(Clone, Copy, Debug)]
pub struct LockTerms {
    /// Archival generations that are kept for ever; those that have a lifetime are locked for that, from the time they are
    /// begun. None is locked if absent.
    pub archival: Option<Age>,
    /// Each rolling generation, at least; not locked if absent.
    pub rolling: Option<Age>,
}

impl LockTerms {
    /// Whether generations of this class are locked.
    pub fn hold(&self, class: Class) -> bool {
        match class {
            Class::Archival => self.archival.is_some(),
            Class::Rolling => self.rolling.is_some(),
        }
    }

    /// Until when an archival generation of this lifetime is locked that was begun at `opened`.
    pub fn of_archival(&self, opened: Timestamp, lifetime: Option<Age>) -> Option<Timestamp> {
        Some(after(opened, lifetime.unwrap_or(self.archival?)))
    }

    /// Until when objects of a chain that was begun at `opened`, and takes generations for `chain_days`, are locked. The
    /// last generation of a chain needs its first pack as long as its own, so all have one date.
    pub fn of_chain(&self, opened: Timestamp, chain_days: u16) -> Option<Timestamp> {
        Some(after(after(opened, Age::days(chain_days)), self.rolling?))
    }
}

fn after(at: Timestamp, age: Age) -> Timestamp {
    Calendar::new(TimeZone::UTC).after(at, age)
}

impl Place<'_> {
    /// Until when the objects of a delivery are locked, if they are.
    pub(super) fn lock_of(
        &self,
        state: &State,
        delivery: &Delivery,
        generation: Option<&LocalGeneration>,
    ) -> Result<Option<Timestamp>, DeliverError> {
        let Some(terms) = self.target.lock.filter(|terms| terms.hold(delivery.chain.class)) else { return Ok(None) };
        match (delivery.chain.class, generation) {
            (Class::Rolling, _) => Ok(self.lock_of_chain(&delivery.chain)),
            (Class::Archival, Some(generation)) => {
                Ok(terms.of_archival(delivery.chain.opened, generation.document()?.lifetime))
            }
            // The staged copy is gone, and all packs are stored: what is left gets their date.
            (Class::Archival, None) => {
                let folder = ChainFolder::new(self.settings.site, delivery.chain.class, &delivery.chain.name)?;
                let packs = state.packs(&delivery.chain, delivery.id)?;
                let (Some(pack), Some(versions)) = (packs.first(), self.target.store.versions()) else {
                    return Ok(None);
                };
                Ok(self.runtime.block_on(versions.locked_until(&folder.pack(&pack.name)?.into()))?)
            }
        }
    }

    fn lock_of_chain(&self, chain: &ChainRecord) -> Option<Timestamp> {
        let days = u16::try_from(self.settings.chain_days).unwrap_or(u16::MAX);
        self.target.lock?.of_chain(chain.opened, days)
    }

    /// Fails if something is to be locked, and this machine's clock is not the store's.
    pub(super) fn check_clock(&self, class: Class) -> Result<(), DeliverError> {
        if !self.target.lock.is_some_and(|lock| lock.hold(class)) {
            return Ok(());
        }
        let ahead = clock::now().duration_since(self.runtime.block_on(self.target.store.now())?);
        if ahead.abs() > CLOCK_DIFFERENCE_MAX {
            return Err(DeliverError::Clock { ahead_s: ahead.as_secs() });
        }
        Ok(())
    }

    /// Whether what the next generation of a chain would build on is locked as long as that generation will be.
    pub(super) fn is_locked(&self, chain: &ChainRecord) -> Result<bool, DeliverError> {
        let (Some(until), Some(versions)) = (self.lock_of_chain(chain), self.target.store.versions()) else {
            return Ok(true);
        };
        let folder = ChainFolder::new(self.settings.site, chain.class, &chain.name)?;
        let signature = folder.object(&chain.name, names::SIGNATURE)?;
        let said = self.runtime.block_on(versions.locked_until(&signature.into()))?;
        let locked = providers::lasts_until(said, until);
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
        let age = |text: &str| Some(text.parse::<Age>().unwrap());
        let terms = LockTerms { archival: age("10 years"), rolling: age("30 days") };
        let opened: Timestamp = "2028-02-29T23:00:00Z".parse().unwrap();
        let text = |until: Option<Timestamp>| until.map(|until| until.to_string());
        assert_eq!(text(terms.of_archival(opened, None)).as_deref(), Some("2038-02-28T23:00:00Z"));
        assert_eq!(text(terms.of_archival(opened, age("18 months"))).as_deref(), Some("2029-08-29T23:00:00Z"));
        assert_eq!(text(terms.of_chain(opened, 7)).as_deref(), Some("2028-04-06T23:00:00Z"));
        let none = LockTerms { archival: None, rolling: None };
        assert_eq!((none.of_archival(opened, age("1 year")), none.of_chain(opened, 7)).1, None);
        assert!(!none.hold(Class::Archival) && !none.hold(Class::Rolling));
    }
}
