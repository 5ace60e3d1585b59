//! What a folder lies on: a disk of this machine, or a folder of another machine that is mounted here.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Kinds of file systems that show what lies on another machine.
const REMOTE: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "ceph",
    "9p",
    "fuse.sshfs",
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.davfs",
    "davfs",
];

/// What a folder lies on. Two that are equal are lost together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Medium {
    /// The disk as the system calls it, such as `sda`; or what is mounted from elsewhere.
    pub(crate) name: String,
    /// Whether it is another machine's.
    pub(crate) remote: bool,
}

/// What `path` lies on, or would if it were there; nothing if the system does not say. Partitions of one disk are one.
pub(crate) fn medium(path: &Path) -> Option<Medium> {
    let there = path.ancestors().find_map(|path| fs::canonicalize(path).ok())?;
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    let mut medium = of_mounts(&mounts, &there)?;
    // `/dev/disk/by-uuid/…` and `/dev/mapper/…` are other names of devices.
    if let Some(device) = medium.name.strip_prefix("/dev/") {
        let device = fs::canonicalize(&medium.name)
            .ok()
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .unwrap_or_else(|| device.to_owned());
        medium.name = whole_disk(&device).unwrap_or(device);
    }
    Some(medium)
}

/// The disk that a partition is of.
fn whole_disk(device: &str) -> Option<String> {
    let place = fs::canonicalize(Path::new("/sys/class/block").join(device)).ok()?;
    let disk = if place.join("partition").exists() { place.parent()? } else { &place };
    Some(disk.file_name()?.to_str()?.to_owned())
}

/// What is mounted at the nearest place above `path`, by the system's table (proc(5), `/proc/PID/mountinfo`).
fn of_mounts(table: &[u8], path: &Path) -> Option<Medium> {
    let mut nearest: Option<(usize, Medium)> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(end) = fields.iter().position(|field| *field == b"-") else { continue };
        let (Some(number), Some(at), Some(kind), Some(source)) =
            (fields.get(2), fields.get(4), fields.get(end + 1), fields.get(end + 2))
        else {
            continue;
        };
        let at = PathBuf::from(OsString::from_vec(unescaped(at)));
        let depth = at.components().count();
        // Of two in one place, the later one hides the other.
        if !path.starts_with(&at) || nearest.as_ref().is_some_and(|(known, _)| *known > depth) {
            continue;
        }
        let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
        let (kind, source) = (text(kind), text(source));
        let remote = REMOTE.contains(&kind.as_str());
        // What has no device of its own is known by its number.
        let name = if remote || source.starts_with("/dev/") { source } else { format!("{kind} {}", text(number)) };
        nearest = Some((depth, Medium { name, remote }));
    }
    nearest.map(|(_, medium)| medium)
}

/// Blanks and the like are written as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_lies_on_is_what_is_mounted_nearest_above_it() {
        let table = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda2 rw\n\
            30 27 0:40 / /srv rw shared:1 - nfs4 nas:/export rw\n\
            31 27 254:1 / /mnt/usb\\040disk rw - vfat /dev/sdb1 rw\n\
            32 27 0:41 / /run rw - tmpfs tmpfs rw\n\
            33 27 0:42 / /mnt/usb\\040disk rw - ext4 /dev/sdc1 rw\n";
        let of = |path: &str| of_mounts(table, Path::new(path)).map(|medium| (medium.name, medium.remote)).unwrap();
        assert_eq!(of("/var/lib/offsite"), ("/dev/vda2".to_owned(), false));
        assert_eq!(of("/srv/documents"), ("nas:/export".to_owned(), true));
        assert_eq!(of("/srvs"), ("/dev/vda2".to_owned(), false));
        assert_eq!(of("/mnt/usb disk/x"), ("/dev/sdc1".to_owned(), false));
        assert_eq!(of("/run/x"), ("tmpfs 0:41".to_owned(), false));
    }

    #[test]
    fn folders_of_one_file_system_lie_on_one_disk_also_those_that_are_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let one = medium(folder.path()).unwrap();
        assert_eq!(medium(&folder.path().join("not/there/yet")), Some(one));
    }
}
