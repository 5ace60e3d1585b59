//! What the integration tests stand on: worlds to run the program in, real servers, trees of files to compare.
//!
//! Everything lies in temporary folders and listens on the loopback interface only, and ends with the test process,
//! however that ends (see [`guard`]). Nothing here waits for a fixed time: [`wait_until`] waits for a condition.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "support of tests: a panic is a failed test that says where"
)]

pub mod bare;
pub mod captures;
pub mod clerks;
pub mod disk;
pub mod engine;
pub mod fuzz;
pub mod guard;
pub mod http;
pub mod line;
pub mod machine;
pub mod nights;
pub mod office;
pub mod process;
pub mod proxy;
pub mod rng;
pub mod servers;
pub mod tls;
pub mod tree;
pub mod verdict;
mod wait;
mod world;

pub use rng::Rng;
pub use wait::wait_until;
pub use world::{Offsite, Outcome, Running, World, offsite_program};
