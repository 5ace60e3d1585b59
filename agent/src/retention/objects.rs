//! What nothing needs any more, object by object, in the order in which it goes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use providers::ObjectKey;

use crate::calendar::Age;
use crate::format::names::{self, PackName};
use crate::ids::{ChainId, GenerationId};

/// Leftovers in a folder where no generation ever came to exist go when nothing was written there for so long: the line of
/// an office can be slow, and a first upload can rest for weeks.
pub const LEFTOVER_AGE: Age = Age::days(60);

/// What lies in the folder of one chain.
#[derive(Clone, Debug, Default)]
pub struct ChainFiles {
    /// Its objects: the key, the path below the folder, the size.
    pub objects: Vec<(ObjectKey, String, u64)>,
    /// When one of them was last written.
    pub written: Option<Timestamp>,
    /// Its generations that expire.
    pub expired: BTreeSet<GenerationId>,
    /// Its generations that are kept and this site's.
    pub kept: Vec<KeptPacks>,
    /// Whether something in it is not this site's: nothing of it is touched then.
    pub foreign: bool,
    /// Whether it can still grow: nothing of it is touched then.
    pub open: bool,
    /// Whether an earlier prune had begun to remove it.
    pub begun: bool,
}

/// What a kept generation needs.
#[derive(Clone, Debug)]
pub struct KeptPacks {
    /// Which one.
    pub id: GenerationId,
    /// Its packs; `None` if its list cannot be read or is not what was stored.
    pub packs: Option<BTreeSet<PackName>>,
}

/// One object that goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removal {
    /// When it goes: everything of one step before anything of the next.
    pub step: Step,
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: u64,
}

/// The order of removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The signature, with which a generation ceases to exist.
    Signature,
    /// Document, list and manifest.
    Document,
    /// Packs that no generation needs.
    Pack,
}

/// What can go of one chain, in order. A chain that can grow, that holds anything foreign, or of which a kept generation's
/// list of packs cannot be read, stays as it is.
pub fn removals(chain: &ChainFiles, leftovers_go: bool) -> Vec<Removal> {
    if chain.open || chain.foreign {
        return Vec::new();
    }
    let mut needed: BTreeSet<PackName> = BTreeSet::new();
    for kept in &chain.kept {
        match &kept.packs {
            Some(packs) => needed.extend(packs),
            None => return Vec::new(),
        }
    }
    // Without any generation, the folder is what an upload left, or one that is under way.
    if chain.kept.is_empty() && chain.expired.is_empty() && !chain.begun && !leftovers_go {
        return Vec::new();
    }
    let kept: BTreeSet<&GenerationId> = chain.kept.iter().map(|kept| &kept.id).collect();
    let mut removals: Vec<Removal> = chain
        .objects
        .iter()
        .filter_map(|(key, path, bytes)| {
            let step = match path.strip_prefix("packs/") {
                Some(name) => name.parse().is_ok_and(|name| !needed.contains(&name)).then_some(Step::Pack),
                None => document(path)
                    .filter(|(id, step)| !kept.contains(id) && (*step != Step::Signature || chain.expired.contains(id)))
                    .map(|(_, step)| step),
            };
            Some(Removal { step: step?, key: key.clone(), bytes: *bytes })
        })
        .collect();
    removals.sort();
    removals
}

/// The generation that an object in a chain's folder is a document of, and when such a one goes.
fn document(path: &str) -> Option<(GenerationId, Step)> {
    let endings = [names::SIGNATURE, names::COMMIT, names::PACKS, names::MANIFEST];
    let (generation, ending) = path.split_once('.')?;
    let step = if ending == names::SIGNATURE { Step::Signature } else { Step::Document };
    Some((generation.parse::<ChainId>().ok().filter(|_| endings.contains(&ending))?, step))
}
