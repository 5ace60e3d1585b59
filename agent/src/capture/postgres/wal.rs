//! Places in the log of a cluster, and the files that hold it: segments, named after the place where they begin.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the name of a segment ends with that is still being received.
const PARTIAL: &str = ".partial";

/// A place in the log, as a number of bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(u64);

impl Lsn {
    /// As the server writes it: `16/B374D848`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
        Some(Self(u64::from(high) << 32 | u64::from(low)))
    }

    /// Where the segment begins that is called `name`: timeline, then two numbers of eight digits each.
    fn of_segment(name: &str, segment_bytes: u64) -> Option<Self> {
        if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)) {
            return None;
        }
        let number = |from: usize| u64::from_str_radix(name.get(from..from + 8)?, 16).ok();
        let in_a_log = (1u64 << 32).checked_div(segment_bytes)?;
        let segment = number(8)?.checked_mul(in_a_log)?.checked_add(number(16)?)?;
        segment.checked_mul(segment_bytes).map(Self)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The newest segment in a folder: its file, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    path: PathBuf,
    partial: bool,
    /// Where it begins.
    pub(super) start: Lsn,
}

/// The newest segment in `folder`, if there is one yet.
pub(super) fn newest(folder: &Path, segment_bytes: u64) -> io::Result<Option<Newest>> {
    let mut newest: Option<Newest> = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let whole = name.strip_suffix(PARTIAL);
        let Some(start) = Lsn::of_segment(whole.unwrap_or(name), segment_bytes) else { continue };
        if newest.as_ref().is_none_or(|newest| newest.start < start) {
            newest = Some(Newest { path: folder.join(name), partial: whole.is_some(), start });
        }
    }
    Ok(newest)
}

/// Says of the newest segment that there is more to come, as the program does that receives segments: it goes on there.
pub(super) fn reopen(folder: &Path, segment_bytes: u64) -> io::Result<()> {
    match newest(folder, segment_bytes)? {
        Some(Newest { path, partial: false, .. }) => {
            let mut partial = path.clone().into_os_string();
            partial.push(PARTIAL);
            fs::rename(path, partial)
        }
        _ => Ok(()),
    }
}

/// Says that nothing more will come: every segment has the name under which a server looks for it, and counts as one that
/// is in the archive already.
pub(super) fn close(folder: &Path, segment_bytes: u64) -> io::Result<()> {
    if let Some(Newest { path, partial: true, .. }) = newest(folder, segment_bytes)? {
        fs::rename(&path, path.with_extension(""))?;
    }
    let status = folder.join("archive_status");
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| Lsn::of_segment(name, segment_bytes).is_some()) {
            let done = status.join(format!("{name}.done"));
            fs::File::options().create(true).append(true).open(done)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn places_are_read_and_written_as_the_server_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(Lsn::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "0", "/", "G/0", "0/100000000"] {
            assert_eq!(Lsn::parse(text), None, "{text}");
        }
        assert!(Lsn::parse("1/0") > Lsn::parse("0/FFFFFFFF"));
    }

    #[test]
    fn segments_begin_where_their_names_say() {
        let start = |name: &str, bytes: u64| Lsn::of_segment(name, bytes).map(|lsn| lsn.to_string());
        assert_eq!(start("000000010000000000000002", 16 * MIB).as_deref(), Some("0/2000000"));
        assert_eq!(start("0000000300000002000000FF", 16 * MIB).as_deref(), Some("2/FF000000"));
        assert_eq!(start("000000010000000100000003", 1024 * MIB).as_deref(), Some("1/C0000000"));
        for name in
            ["00000002.history", "000000010000000000000002.partial", "archive_status", "00000001000000000000000g"]
        {
            assert_eq!(start(name, 16 * MIB), None, "{name}");
        }
    }

    #[test]
    fn the_newest_segment_is_gone_on_with_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
                .into_iter()
                .map(|name| name.into_string().unwrap())
                .filter(|name| !name.starts_with("arch"))
                .collect::<Vec<_>>()
        };
        assert_eq!(newest(folder.path(), 16 * MIB).unwrap(), None);
        fs::create_dir(folder.path().join("archive_status")).unwrap();
        for name in ["000000010000000000000009", "00000001000000000000000A", "00000001.history"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let expected = ["00000001.history", "000000010000000000000009", "00000001000000000000000A.partial"];
        for _ in 0..2 {
            reopen(folder.path(), 16 * MIB).unwrap();
            assert_eq!(names(), expected);
        }
        assert_eq!(newest(folder.path(), 16 * MIB).unwrap().unwrap().start.to_string(), "0/A000000");
        close(folder.path(), 16 * MIB).unwrap();
        assert_eq!(names(), ["00000001.history", "000000010000000000000009", "00000001000000000000000A"]);
        assert!(folder.path().join("archive_status/00000001000000000000000A.done").exists());
    }
}
