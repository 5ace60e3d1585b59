//! Memory that stays with a virtual machine. What such a machine frees, its host may take away, and gives back page by page, at a
//! cost of two and more seconds of processor time per GiB that nobody asked to measure.

use std::fs::File;
use std::io::Write as _;

use rustix::fs::{FallocateFlags, fallocate};

/// Of so many bytes, one page stays in use, so that what is free around it is in pieces too small to be given away.
const SPAN: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// Takes up to `bytes` bytes of the memory that is available, and frees all of it but a page here and there. They are held until the
/// file is closed.
pub(crate) fn hold(bytes: u64) -> Option<File> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    let bytes = bytes.min(available / 8 * 7 * 1024) / SPAN * SPAN;
    let mut file = tempfile::tempfile_in("/dev/shm").ok()?;
    eprintln!("making {} MiB of memory this machine's own", bytes >> 20);
    let page = vec![1; SPAN as usize];
    for _ in 0..bytes / SPAN {
        file.write_all(&page).unwrap();
    }
    for at in (0..bytes).step_by(SPAN as usize) {
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at + PAGE, SPAN - PAGE).unwrap();
    }
    Some(file)
}
