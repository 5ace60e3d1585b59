//! Where a restore must not write: to what is backed up, and to what backs it up.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Place;
use crate::failure::{Failure, Kind};

/// Refuses a folder that lies in one that this program works with, or that contains one: the next backup would hold what was
/// restored, or what is stored would lie among it.
pub(super) fn check(place: &Place, to: &Path) -> Result<(), Failure> {
    let stores = place.stores.iter().filter_map(|store| store.directory());
    let own = [(place.staging.as_path(), "the staging folder"), (place.state.as_path(), "the state folder")];
    let sources = place.source_folders.iter().map(|(_, folder)| (folder.as_path(), "a source"));
    // Whoever copies a whole machine has no place outside it.
    let sources = sources.filter(|(folder, _)| folder.parent().is_some());
    let target = resolved(to).map_err(|error| Failure::new(Kind::Failed, error))?;
    for (folder, what) in own.into_iter().chain(stores.map(|folder| (folder.as_path(), "a store"))).chain(sources) {
        let Ok(folder) = resolved(folder) else { continue };
        let how = match (target.starts_with(&folder), folder.starts_with(&target)) {
            (true, _) => "lies in",
            (_, true) => "contains",
            _ => continue,
        };
        let what = format!(
            "nothing can be restored to {}: it {how} the folder {}, which is {what} of the configuration",
            to.display(),
            folder.display()
        );
        return Err(Failure::new(Kind::Usage, what).hint("name a folder that is apart from those with `--to`"));
    }
    Ok(())
}

/// The path without links, as far as it is there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        if let Ok(real) = there.canonicalize() {
            return Ok(path.strip_prefix(there).map_or_else(|_| real.clone(), |rest| real.join(rest)));
        }
    }
    Ok(path)
}
