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
    if now.stage != Stage::Restoring {
        return format!(
            "Stopped before the first file: this run has put nothing in its place in {to}.\n  what to do: run the same command again"
        );
    }
    format!(
        "Stopped after {} of {}. Every file that this run has put in its place in {to} is whole; what is half done has no name \
         of its own, and lies in {to}/{UNFINISHED}.\n  what to do: run the same command again: it replaces what this one has put \
         there, and begins anew",
        Size(now.done.min(now.total)),
        Size(now.total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_file_nothing_is_said_of_files() {
        let progress = Progress::default();
        let told_now = || told(Path::new("/back"), &progress, false);
        // Somebody is being asked for a passphrase, or what is there is being looked at.
        assert!(told_now().contains("before the first file") && !told_now().contains(UNFINISHED), "{}", told_now());
        progress.begin(Stage::Restoring, 5 << 20);
        progress.add_done(1 << 20);
        assert!(told_now().contains("after 1 MiB of 5 MiB") && told_now().contains(UNFINISHED), "{}", told_now());
        // What lay there before, and what no list of digests is at hand for, was not proved.
        assert!(!told_now().contains("proved"), "{}", told_now());
    }
}
