//! The schedule: which run begins when. Pure: what time it is and what has happened comes in, what is to be done comes out.
//!
//! ```text
//! Schedule (configured) + Memory (durable) + Event, now ──step──▶ Memory' + Actions
//! ```
//!
//! - Each time of a job counts once: its run begins at that time plus the job's delay, which spreads many offices.
//! - Times that passed while nobody could begin them (machine off, suspended, paused, the run before still going on) are
//!   made up for by one run, not by many; or by none, if the job says so.
//! - Runs of one lane never overlap, and no job overlaps itself.
//! - A clock that was set back repeats nothing that has just been done, and does not stop the schedule either.

mod job;
mod memory;
mod plain;
mod promise;
mod step;
mod times;

pub use job::{Deadline, Job, Lane, Late, Schedule, delay};
pub use memory::{Ended, JobMemory, Memory, Running, Waiting, Why};
pub use promise::Promise;
pub use step::{Action, EndWhy, Event, SkipWhy};
pub use times::{Times, TimesError};
