//! The agent: captures an office's data at one instant, seals it, stores it off site, and brings it back.
//!
//! `ARCHITECTURE.md` beside this crate draws the map; `FORMAT.md` describes every byte that is stored.

// Words, pure.
pub mod calendar;
pub mod entry;
pub mod format;
pub mod generation;
pub mod ids;
pub mod progress;
pub mod retention;

// Hot copies: what is captured, and where it is written to.
pub mod capture;
pub mod rows;
pub mod staging;

// The ground: time, disk, operating system.
pub mod clock;
pub mod durable;
mod platform;
mod said;

// Keys.
pub mod keys;
pub mod sign;

// What happens by itself, and when.
pub mod daemon;
pub mod schedule;

// The program.
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod failure;

// Content becomes packs, and packs content.
pub mod frame;
pub mod patch;
pub mod seal;
pub mod spool;

// Stores.
pub mod backup;
pub mod byhand;
pub mod catalog;
pub mod deliver;
pub mod disks;
pub mod drill;
pub mod into;
pub mod keeper;
mod mysql;
pub mod probed;
pub mod prune;
pub mod psql;
pub mod restore;
pub mod upload;
pub mod verify;

// What this machine remembers of its runs, can show years later, and tells people.
pub mod evidence;
pub mod notify;
pub mod report;
pub mod state;
