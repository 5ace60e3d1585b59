//! One of the readers of foreign bytes, named by `OFFSITE_FUZZ_READER`.
#![no_main]

use std::sync::LazyLock;

static READ: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("OFFSITE_FUZZ_READER").expect("OFFSITE_FUZZ_READER names the reader");
    tests::fuzz::READERS.iter().find(|(known, _)| *known == name).expect("there is no such reader").1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| READ(bytes));
