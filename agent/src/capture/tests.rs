//! Captures of several sources in one cut.

use super::*;

#[test]
fn sizes_are_told_in_units_a_person_reads() {
    assert_eq!(size(0), "0 bytes");
    assert_eq!(size(10_239), "10239 bytes");
    assert_eq!(size(10_240), "10 KiB");
    assert_eq!(size(20 << 30), "20 GiB");
}
