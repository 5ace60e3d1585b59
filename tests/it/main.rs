//! Integration tests: one binary, one module per theme, real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that panics has failed, and says where"
)]

mod byhand;
mod capture;
mod carried;
mod chain;
mod channels;
mod cli;
mod config;
mod conformance;
mod copies;
mod crash;
mod cut;
mod daemon;
mod damage;
mod deploy;
mod disaster;
mod drill;
mod dumps;
mod evidence;
mod faults;
mod format;
mod full_disks;
mod fuzz;
mod heartbeat;
mod histories;
mod holds;
mod hostile;
mod keeper;
mod kills;
mod lock;
mod machines;
mod mariadb;
mod nextcloud;
mod parts;
mod physical;
mod pitfalls;
mod policies;
mod postgres;
mod privacy;
mod probe;
mod program;
mod proxy;
mod prune;
mod recovery;
mod reports;
mod requests;
mod restoring;
mod retention;
mod rotation;
mod scale;
mod signals;
mod snapshots;
mod stores_end_to_end;
mod support;
mod tidy;
mod unreadable;
mod weak;
mod year;

/// Every file of this folder is a module of this binary: a test that is never built would pass for ever.
#[test]
fn no_file_of_tests_is_forgotten() {
    let source = include_str!("main.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/it");
    let mut forgotten = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        if module != "main" && !source.contains(&format!("\nmod {module};\n")) {
            forgotten.push(name);
        }
    }
    assert!(forgotten.is_empty(), "not named in tests/it/main.rs: {forgotten:?}");
}
