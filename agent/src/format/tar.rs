//! Headers of the logical tar stream: POSIX pax interchange format (IEEE Std 1003.1, `pax`), numeric owners, whole
//! seconds (the nanoseconds are in `ENTRIES.jsonl`; a pax record for each file would triple the headers).

use crate::entry::{Entry, EntryKind};

pub mod read;

/// Unit of a tar stream, in bytes.
pub const BLOCK: u64 = 512;
/// The end of a tar stream: two empty blocks.
pub const END: [u8; 1024] = [0; 1024];

/// Most that fits into the octal fields of a ustar header.
const OWNER_MAX: u64 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
const NAME_BYTES_MAX: usize = 100;

/// The header of `entry`: one ustar block, preceded by a pax header where a value does not fit in it.
pub fn header(entry: &Entry) -> Vec<u8> {
    let (kind, link, bytes): (tar::EntryType, &[u8], u64) = match &entry.kind {
        EntryKind::File { bytes, .. } => (tar::EntryType::Regular, b"", *bytes),
        EntryKind::Folder => (tar::EntryType::Directory, b"", 0),
        EntryKind::Symlink { target } => (tar::EntryType::Symlink, target, 0),
        EntryKind::HardLink { target } => (tar::EntryType::Link, target.as_bytes(), 0),
    };
    let seconds = u64::try_from(entry.mtime.seconds).ok().filter(|seconds| *seconds <= SIZE_MAX);
    let records = pax_records(entry, link, bytes, seconds.is_some());

    let mut out = Vec::with_capacity(3 * BLOCK as usize);
    if !records.is_empty() {
        let mut pax = tar::Header::new_ustar();
        name_fields(&mut pax, b"././@PaxHeader", b"");
        pax.set_entry_type(tar::EntryType::XHeader);
        pax.set_mode(0o644);
        plain_numbers(&mut pax, 0, 0, 0, records.len() as u64);
        pax.set_cksum();
        out.extend_from_slice(pax.as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64), 0);
    }
    let mut ustar = tar::Header::new_ustar();
    name_fields(&mut ustar, entry.path.as_bytes(), link);
    ustar.set_entry_type(kind);
    ustar.set_mode(entry.mode & 0o7777);
    plain_numbers(&mut ustar, entry.uid, entry.gid, seconds.unwrap_or(0), bytes);
    ustar.set_cksum();
    out.extend_from_slice(ustar.as_bytes());
    out
}

/// How many zero bytes follow `bytes` bytes of content.
pub fn padding(bytes: u64) -> usize {
    ((BLOCK - bytes % BLOCK) % BLOCK) as usize
}

fn pax_records(entry: &Entry, link: &[u8], bytes: u64, seconds_fit: bool) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.path.as_bytes().len() > NAME_BYTES_MAX {
        pax_record(&mut records, "path", entry.path.as_bytes());
    }
    if link.len() > NAME_BYTES_MAX {
        pax_record(&mut records, "linkpath", link);
    }
    if bytes > SIZE_MAX {
        pax_record(&mut records, "size", bytes.to_string().as_bytes());
    }
    if entry.uid > OWNER_MAX {
        pax_record(&mut records, "uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > OWNER_MAX {
        pax_record(&mut records, "gid", entry.gid.to_string().as_bytes());
    }
    if !seconds_fit {
        pax_record(&mut records, "mtime", entry.mtime.seconds.to_string().as_bytes());
    }
    records
}

/// `<length> <keyword>=<value>\n`, where the length counts itself.
fn pax_record(out: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {keyword}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn name_fields(header: &mut tar::Header, name: &[u8], link: &[u8]) {
    let fields = header.as_old_mut();
    for (field, bytes) in [(&mut fields.name, name), (&mut fields.linkname, link)] {
        for (to, from) in field.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

/// Numbers too large for their octal field stand in the pax header, and here as 0.
fn plain_numbers(header: &mut tar::Header, uid: u64, gid: u64, seconds: u64, bytes: u64) {
    let within = |value, max| if value <= max { value } else { 0 };
    header.set_uid(within(uid, OWNER_MAX));
    header.set_gid(within(gid, OWNER_MAX));
    header.set_mtime(seconds);
    header.set_size(within(bytes, SIZE_MAX));
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::entry::{EntryPath, Mtime};

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        let mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 5 };
        Entry { path: EntryPath::new(path).unwrap(), kind, mode: 0o4750, uid: 1000, gid: 5_000_000_000, mtime }
    }

    #[test]
    fn a_reader_finds_what_the_header_was_made_of() {
        let long = [b"docs/".as_slice(), &[b'x'; 200], b"/\xff.txt"].concat();
        let kind = EntryKind::File { bytes: 3, sparse: false };
        let mut stream = header(&entry(&long, kind));
        stream.extend_from_slice(b"abc");
        stream.resize(stream.len() + padding(3), 0);
        stream.extend(header(&entry(b"docs/link", EntryKind::Symlink { target: vec![b'y'; 150] })));
        stream.extend_from_slice(&END);

        let mut archive = tar::Archive::new(stream.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut file = entries.next().unwrap().unwrap();
        assert_eq!(&*file.path_bytes(), long.as_slice());
        assert_eq!((file.header().mode().unwrap(), file.header().uid().unwrap()), (0o4750, 1000));
        assert_eq!(file.header().mtime().unwrap(), 1_700_000_000);
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
        let link = entries.next().unwrap().unwrap();
        assert_eq!(link.link_name_bytes().unwrap().len(), 150);
        assert!(entries.next().is_none());
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        let mut record = Vec::new();
        pax_record(&mut record, "path", &[b'x'; 91]);
        assert_eq!(record.len(), 101);
        assert!(record.starts_with(b"101 path=x"));
        for bytes in 1..2000 {
            record.clear();
            pax_record(&mut record, "path", &vec![b'x'; bytes]);
            let length: usize = String::from_utf8_lossy(&record).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, record.len());
        }
    }

    #[test]
    fn a_file_of_more_than_8_gib_has_its_size_in_pax() {
        let header = header(&entry(b"big", EntryKind::File { bytes: 9 << 30, sparse: true }));
        assert!(String::from_utf8_lossy(&header).contains("size=9663676416\n"));
    }
}
