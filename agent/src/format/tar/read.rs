//! Reading headers back. What is not exactly what `header` writes is none: so, a header is told from
//! anything else by a look at its bytes.

use super::{BLOCK, header, padding};
use crate::entry::{Entry, EntryKind, EntryPath, Mtime};

/// Longest header that is read, pax header included: paths have at most 4 KiB each.
pub const HEADER_BYTES_MAX: u64 = 16 << 10;

/// Whether a block may be the first of a header: a quick look.
pub fn looks_like_one(block: &[u8]) -> bool {
    block.get(257..263) == Some(b"ustar\0")
}

/// The entry whose header `bytes` begin with, and the length of that header. Nanoseconds and holes are not in it.
pub fn entry(bytes: &[u8]) -> Option<(Entry, u64)> {
    let first = tar::Header::from_byte_slice(bytes.get(..BLOCK as usize)?);
    let (records, at) = if first.entry_type() == tar::EntryType::XHeader {
        let size = usize::try_from(first.entry_size().ok()?).ok()?;
        let records = bytes.get(BLOCK as usize..)?.get(..size)?;
        (records, BLOCK as usize + size + padding(size as u64))
    } else {
        (&[][..], 0)
    };
    let end = at.checked_add(BLOCK as usize)?;
    let ustar = tar::Header::from_byte_slice(bytes.get(at..end)?);
    let found = decode(ustar, records)?;
    (header(&found) == bytes.get(..end)?).then_some((found, end as u64))
}

fn decode(ustar: &tar::Header, records: &[u8]) -> Option<Entry> {
    let record = |key: &str| pax_value(records, key.as_bytes());
    let number = |key: &str, field: std::io::Result<u64>| match record(key) {
        Some(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        None => field.ok(),
    };
    let bytes = number("size", ustar.entry_size())?;
    let link = || match record("linkpath") {
        Some(link) => Some(link.to_vec()),
        None => ustar.link_name_bytes().map(Into::into),
    };
    let kind = match ustar.entry_type() {
        tar::EntryType::Regular => EntryKind::File { bytes, sparse: false },
        tar::EntryType::Directory => EntryKind::Folder,
        tar::EntryType::Symlink => EntryKind::Symlink { target: link()? },
        tar::EntryType::Link => EntryKind::HardLink { target: EntryPath::new(link()?).ok()? },
        _ => return None,
    };
    let path = record("path").map_or_else(|| ustar.path_bytes().into_owned(), <[u8]>::to_vec);
    let seconds = match record("mtime") {
        Some(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        None => i64::try_from(ustar.mtime().ok()?).ok()?,
    };
    Some(Entry {
        path: EntryPath::new(path).ok()?,
        kind,
        mode: ustar.mode().ok()?,
        uid: number("uid", ustar.uid())?,
        gid: number("gid", ustar.gid())?,
        mtime: Mtime { seconds, nanoseconds: 0 },
    })
}

/// The value of `key` in the records of a pax header, each `<length> <key>=<value>\n`; a value may hold line feeds.
fn pax_value<'r>(mut records: &'r [u8], key: &[u8]) -> Option<&'r [u8]> {
    while !records.is_empty() {
        let digits = records.iter().take_while(|b| b.is_ascii_digit()).count();
        let length: usize = std::str::from_utf8(records.get(..digits)?).ok()?.parse().ok()?;
        let record = records.get(digits + 1..length.checked_sub(1)?)?;
        match record.strip_prefix(key).and_then(|rest| rest.strip_prefix(b"=")) {
            Some(value) => return Some(value),
            None => records = records.get(length..)?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_is_read_as_it_was_written_and_nothing_else_is() {
        let path = |text: &[u8]| EntryPath::new(text).unwrap();
        let long = [b"docs/".as_slice(), &[b'x'; 300], b"/\xff\n.txt"].concat();
        let kinds = [
            EntryKind::File { bytes: 0, sparse: false },
            EntryKind::File { bytes: 9 << 30, sparse: false },
            EntryKind::Folder,
            EntryKind::Symlink { target: b"../\xff elsewhere".to_vec() },
            EntryKind::Symlink { target: vec![b'y'; 200] },
            EntryKind::HardLink { target: path(&long) },
        ];
        for kind in kinds {
            for (name, seconds) in [(&b"docs/a"[..], 1_700_000_000), (&long[..], -2), (&[b'n'; 100][..], 7_000_000_000)]
            {
                let mtime = Mtime { seconds, nanoseconds: 0 };
                let written =
                    Entry { path: path(name), kind: kind.clone(), mode: 0o4755, uid: 1000, gid: 5_000_000_000, mtime };
                let mut bytes = header(&written);
                let head = bytes.len() as u64;
                bytes.extend_from_slice(b"content");
                assert_eq!(entry(&bytes), Some((written, head)));
                for at in [0, 100, 148, 156, 257, 500, bytes.len() - 8] {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1;
                    assert_eq!(entry(&changed), None, "byte {at} was changed");
                }
                assert_eq!(entry(&bytes[..head as usize - 1]), None);
            }
        }
        assert_eq!(entry(&[0; 1024]), None);
    }
}
