//! Offsite.
fn main() {}
