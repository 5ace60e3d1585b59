//! What is said when somebody stops a restore: what there is, that nothing half done looks done, and how to go on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::commands::interrupt;
use crate::config::Size;
use crate::failure::Failure;
use crate::progress::{Progress, Stage};
use crate::restore::UNFINISHED;

/// How far a restore is.
pub(super) struct Watched {
    pub(super) progress: Arc<Progress>,
    /// All files are in their places, and databases are loaded.
    loads: Arc<AtomicBool>,
}

impl Watched {
    /// From here on nothing changes in the folder.
    pub(super) fn files_are_there(&self) {
        self.loads.store(true, Ordering::Relaxed);
    }
}

/// Ends this process with a word when it is asked to end.
pub(super) fn watch(to: &Path) -> Result<Watched, Failure> {
    let (progress, loads) = (Arc::<Progress>::default(), Arc::<AtomicBool>::default());
    let watched = Watched { progress: Arc::clone(&progress), loads: Arc::clone(&loads) };
    let to = to.to_owned();
    interrupt::end(move || told(&to, &progress, loads.load(Ordering::Relaxed)))?;
    Ok(watched)
}

fn told(to: &Path, progress: &Progress, loads: bool) -> String {
    let (now, to) = (progress.snapshot(), to.display());
    if loads {
        return format!(
            "Stopped while databases were being loaded. All files are in {to}, each one whole. The databases of a source get their \
             names when all of them are loaded and checked; those that have none were not loaded.\n  what to do: run the same \
             command again with `--overwrite`, without the `--into` of a source whose databases are there"
        );
    }
    let far = match now.stage {
        Stage::Restoring => format!("after {} of {}", Size(now.done.min(now.total)), Size(now.total)),
        _ => "before the first file".to_owned(),
    };
    format!(
        "Stopped {far}. What has its own name in {to} is whole and proved; what is half done has none, and lies in \
         {to}/{UNFINISHED}.\n  what to do: run the same command again: it replaces what this one has put there, and begins anew"
    )
}
