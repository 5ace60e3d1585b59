//! The only place that asks what time it is.

use jiff::Timestamp;

/// The wall clock, in UTC.
pub fn now() -> Timestamp {
    Timestamp::now()
}
