//! The only place that asks what time it is.

use jiff::Timestamp;

/// The wall clock, in UTC.
#[cfg(not(feature = "testing"))]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The wall clock, in UTC, unless [`simulate`] set another one.
#[cfg(feature = "testing")]
pub fn now() -> Timestamp {
    SIMULATED.get().unwrap_or_else(Timestamp::now)
}

/// Sets the clock of this thread, so that a test lives through a year in seconds; with `None` it is right again.
#[cfg(feature = "testing")]
pub fn simulate(at: Option<Timestamp>) {
    SIMULATED.set(at);
}

#[cfg(feature = "testing")]
thread_local! {
    static SIMULATED: std::cell::Cell<Option<Timestamp>> = const { std::cell::Cell::new(None) };
}
