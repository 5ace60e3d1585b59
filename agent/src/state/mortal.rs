//! The moments at which a test lets the program die: just before and just after each fact becomes durable.
//!
//! [`State::change`](super::State) is the only way to a durable change, so numbering the moments there finds every fact by
//! itself, those that will be added as well. The program that is shipped is built without the feature `testing` and has
//! none of this.

/// What names the moment, from 1.
#[cfg(feature = "testing")]
const DIE_AT: &str = "OFFSITE_DIE_AT";

/// A moment beside `fact`.
#[cfg(not(feature = "testing"))]
pub(super) fn moment(_side: &str, _fact: &str) {}

/// A moment beside `fact`: the one whose number the environment names is the last.
#[cfg(feature = "testing")]
pub(super) fn moment(side: &str, fact: &str) {
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LAST: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var(DIE_AT).ok()?.parse().ok());
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if LAST.is_some_and(|last| last == PASSED.fetch_add(1, Ordering::SeqCst) + 1) {
        // The test reads how it died; a closed pipe does not keep it alive.
        writeln!(std::io::stderr(), "died {side}: {fact}").ok();
        // No handler, no destructor and no other thread gets a word in.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
    }
}
