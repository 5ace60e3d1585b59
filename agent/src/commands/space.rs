//! Whether the disks that sealed packs go to have room for another full generation, by what the last one took there.

use super::probing::Probed;
use super::prune;
use crate::config::{Config, Problem, Size};
use crate::{platform, spool};

/// What is too small.
#[derive(Default)]
pub(super) struct Lacks {
    /// The disk of the spool.
    pub(super) spool: Option<Problem>,
    /// Disks of directory stores.
    pub(super) stores: Vec<Problem>,
}

/// Looks at the disk of the spool, and of every store that is a folder. What was never stored to is not known to be too small.
pub(super) fn lacks(config: &Config, stores: &[Probed<'_>]) -> Lacks {
    let (mut lacks, mut largest) = (Lacks::default(), 0);
    // What is wrong with a state that cannot be read is said elsewhere.
    let Ok(Some(state)) = prune::state(&config.place) else { return lacks };
    for store in stores {
        let needed = state.last_full_bytes(&store.place).ok().flatten().unwrap_or(0);
        largest = largest.max(needed);
        let Some(folder) = store.config.directory() else { continue };
        let Ok(free) = platform::free_bytes(folder) else { continue };
        if free < needed {
            let what = format!(
                "the disk of {} has {} free, and the last full generation took {} there, so the next one will not fit; free some \
                 space (`offsite prune` removes what has expired), or take a larger disk",
                folder.display(),
                Size(free),
                Size(needed)
            );
            lacks.stores.push(Problem { key: store.config.key("path"), line: None, what });
        }
    }
    let folder = config.place.state.join("spool");
    let needed = largest.min(config.seal.spool_bytes);
    // What waits there already has its room.
    let has_room = |free: u64| free.saturating_add(spool::bytes(&config.place.state)) >= needed;
    if let Some(free) = platform::free_bytes(&folder).ok().filter(|free| !has_room(*free)) {
        let what = format!(
            "the disk of {} has {} free, and sealed packs that wait for their stores may take up to {} of it; free some space, or \
             let `[spool] limit` be smaller",
            folder.display(),
            Size(free),
            Size(needed)
        );
        lacks.spool = Some(Problem { key: "state".to_owned(), line: None, what });
    }
    lacks
}
