//! Legal holds in one place: who holds what, and since when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use providers::{Body, KeyPrefix, ObjectStore, PutOptions};

use super::PruneError;
use super::survey::{Signed, list, signed};
use crate::format::VERSION;
use crate::format::hold::{self, Hold, Kind};
use crate::ids::{GenerationId, SiteName};
use crate::sign::{SiteKey, SitePublicKey};

/// The holds of one place.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    /// Why each held generation is held, and the number of the last decision about it.
    decided: BTreeMap<GenerationId, (Vec<String>, u32)>,
}

/// What is decided about a generation.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// Which one.
    pub generation: &'a GenerationId,
    /// Whether it is held from now on, or released.
    pub held: bool,
    /// Why.
    pub reason: &'a str,
    /// When.
    pub decided: Timestamp,
}

impl Holds {
    /// Why a generation is held; nothing if it is not.
    pub fn reasons(&self, generation: &GenerationId) -> &[String] {
        self.decided.get(generation).map_or(&[], |(reasons, _)| reasons)
    }

    /// Adds the reasons that another place has.
    pub fn merge(&mut self, other: &Self) {
        for (generation, (reasons, _)) in &other.decided {
            let own = &mut self.decided.entry(generation.clone()).or_default().0;
            own.extend(reasons.iter().filter(|reason| !own.contains(reason)).cloned().collect::<Vec<_>>());
        }
    }

    /// A number that is taken, and decides nothing.
    fn pass_over(&mut self, generation: &GenerationId, number: u32) {
        self.decided.entry(generation.clone()).or_default().1 = number;
    }

    fn add(&mut self, hold: Hold) {
        let (reasons, number) = self.decided.entry(hold.generation).or_default();
        *number = hold.number;
        if hold.held {
            reasons.push(hold.reason);
        } else {
            reasons.clear();
        }
    }
}

/// The holds below `prefix`, and the names of objects there that the site did not sign.
pub async fn read_holds(
    store: &dyn ObjectStore,
    prefix: &KeyPrefix,
    site: &SiteName,
    key: &SitePublicKey,
) -> Result<(Holds, Vec<String>), PruneError> {
    let folder = prefix.below(hold::FOLDER)?;
    let objects = list(store, &folder).await?;
    let names: Vec<String> = objects.iter().filter_map(|object| folder.strip(&object.key)).map(str::to_owned).collect();
    read(store, prefix, site, key, &names).await
}

/// The holds of these names.
pub(super) async fn read(
    store: &dyn ObjectStore,
    prefix: &KeyPrefix,
    site: &SiteName,
    key: &SitePublicKey,
    names: &[String],
) -> Result<(Holds, Vec<String>), PruneError> {
    let mut named: Vec<(GenerationId, u32)> = names.iter().filter_map(|name| Hold::of_name(name)).collect();
    // In the order in which they were decided.
    named.sort();
    let (mut holds, mut unsigned) = (Holds::default(), Vec::new());
    for (generation, number) in named {
        let object = prefix.key(&format!("{}.json", Hold::name(&generation, number)))?;
        let decode = |text: Vec<u8>| Hold::decode(&text, site, &generation, number);
        // A hold counts whoever wrote it, since nothing may go by mistake; a release only if the site signed it.
        let (found, is_genuine) = match signed(store, &object, hold::BYTES_MAX, std::slice::from_ref(key)).await? {
            Signed::Genuine(text) => (decode(text), true),
            Signed::Half(text) => (text.and_then(decode), false),
            Signed::Unreadable => (Some(unreadable(site, &generation, number)), false),
            Signed::Foreign(text) => {
                unsigned.push(object.to_string());
                (decode(text), false)
            }
        };
        match found {
            Some(hold) if is_genuine || hold.held => holds.add(hold),
            _ => holds.pass_over(&generation, number),
        }
    }
    Ok((holds, unsigned))
}

/// What stands for a decision that cannot be read: a hold, since nothing may go by mistake.
fn unreadable(site: &SiteName, generation: &GenerationId, number: u32) -> Hold {
    Hold {
        offsite: Kind::Hold,
        version: VERSION,
        site: site.clone(),
        generation: generation.clone(),
        number,
        held: true,
        reason: "what was decided about it cannot be read".to_owned(),
        decided: Timestamp::UNIX_EPOCH,
    }
}

/// Writes a decision below `prefix`, as one more to those that `holds` knows. A number that is taken meanwhile, or by an
/// object that is not ours, is passed over.
pub async fn decide(
    store: &dyn ObjectStore,
    prefix: &KeyPrefix,
    site: &SiteName,
    key: &SiteKey,
    holds: &Holds,
    decision: &Decision<'_>,
) -> Result<(), PruneError> {
    let failed = |source| PruneError::Store { doing: "the decision was written", source };
    let last = holds.decided.get(decision.generation).map_or(0, |(_, number)| *number);
    for number in last + 1.. {
        let hold = Hold {
            offsite: Kind::Hold,
            version: VERSION,
            site: site.clone(),
            generation: decision.generation.clone(),
            number,
            held: decision.held,
            reason: decision.reason.to_owned(),
            decided: decision.decided,
        };
        let text = hold.encode()?;
        let signature = key.sign(&text, &hold.trusted_comment())?;
        let name = Hold::name(decision.generation, number);
        match store.put(&prefix.key(&format!("{name}.json"))?, &Body::from_bytes(text), &PutOptions::CREATE).await {
            Err(error) if error.kind == providers::ErrorKind::AlreadyExists => continue,
            other => other.map_err(failed)?,
        };
        let body = Body::from_bytes(signature.into_bytes());
        return match store.put(&prefix.key(&format!("{name}.json.minisig"))?, &body, &PutOptions::CREATE).await {
            Err(error) if error.kind == providers::ErrorKind::AlreadyExists => continue,
            other => other.map(|_| ()).map_err(failed),
        };
    }
    Ok(())
}
