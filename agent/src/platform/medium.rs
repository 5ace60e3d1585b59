//! What a folder lies on: a disk of this machine, or a folder of another machine that is mounted here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Kinds of file systems that show what lies on another machine.
const REMOTE: [&str; 16] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "ceph",
    "9p",
    "lustre",
    "virtiofs",
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
    /// The disk as the system calls it, such as `sda`, or all that a volume is made of, such as `sda+sdb`; or what is mounted
    /// from elsewhere.
    pub(crate) name: String,
    /// Whether it is another machine's.
    pub(crate) remote: bool,
}

/// What `path` lies on, or would if it were there; nothing if the system does not say. Partitions and volumes of one disk are one.
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
        let mut disks = BTreeSet::new();
        add_disks(Path::new("/sys/class/block"), device, &mut disks);
        medium.name = disks.into_iter().collect::<Vec<_>>().join("+");
    }
    Some(medium)
}

/// The disks that a device is made of: that which it is a partition of, and those below a volume of LVM, a RAID or what is
/// encrypted. `devices` is the system's folder of all of them (sysfs(5), `/sys/class/block`).
fn add_disks(devices: &Path, device: String, disks: &mut BTreeSet<String>) {
    let Ok(place) = fs::canonicalize(devices.join(&device)) else {
        disks.insert(device);
        return;
    };
    let whole = if place.join("partition").exists() { place.parent().unwrap_or(&place) } else { &place };
    let below = fs::read_dir(whole.join("slaves")).into_iter().flatten().filter_map(Result::ok);
    let below: Vec<String> = below.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    if below.is_empty() {
        disks.insert(whole.file_name().and_then(|name| name.to_str()).map_or(device, str::to_owned));
    }
    below.into_iter().for_each(|part| add_disks(devices, part, disks));
}

/// What is mounted at the nearest place above `path`, by the system's table (proc(5), `/proc/PID/mountinfo`).
fn of_mounts(table: &[u8], path: &Path) -> Option<Medium> {
    let mut nearest: Option<(usize, Option<Medium>)> = None;
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
        nearest = Some((depth, of_mount(&kind, source, &text(number))));
    }
    nearest.and_then(|(_, medium)| medium)
}

/// What is mounted, by the kind of the file system, what it was mounted from, and its number.
fn of_mount(kind: &str, source: String, number: &str) -> Option<Medium> {
    let remote = REMOTE.contains(&kind);
    if remote || source.starts_with("/dev/") {
        return Some(Medium { name: source, remote });
    }
    let name = match kind {
        // A program shows it; from where, only that knows.
        fuse if fuse.starts_with("fuse") => return None,
        // The pool; each of its data sets has a number of its own.
        "zfs" => format!("zfs {}", source.split('/').next().unwrap_or_default()),
        // What has no device of its own is known by its number.
        kind => format!("{kind} {number}"),
    };
    Some(Medium { name, remote })
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
    fn what_a_program_shows_is_not_taken_for_a_disk_and_data_sets_of_one_pool_are_one() {
        let of = |kind: &str, source: &str| {
            let table = format!("27 1 254:0 / / rw - ext4 /dev/vda2 rw\n30 27 0:45 / /srv rw - {kind} {source} rw\n");
            of_mounts(table.as_bytes(), Path::new("/srv/x")).map(|medium| (medium.name, medium.remote))
        };
        for (kind, source) in [
            ("fuse", "https://dav.example.org/office"),
            ("fuse.s3fs", "s3fs"),
            ("fuse.gcsfuse", "bucket"),
            ("fuse.mergerfs", "a:b"),
        ] {
            assert_eq!(of(kind, source), None, "{kind}");
        }
        for (kind, source) in [("virtiofs", "share"), ("lustre", "10.0.0.1@tcp:/far"), ("fuse.sshfs", "nas:/far")] {
            assert_eq!(of(kind, source), Some((source.to_owned(), true)), "{kind}");
        }
        assert_eq!(of("fuseblk", "/dev/sdb1"), Some(("/dev/sdb1".to_owned(), false)));
        assert_eq!(of("zfs", "tank/office/documents"), Some(("zfs tank".to_owned(), false)));
        assert_eq!(of("zfs", "tank"), of("zfs", "tank/backup"));
        assert_ne!(of("zfs", "tank"), of("zfs", "tank2"));
    }

    /// A system with the partitions of `sda` and `sdb` and what is made of them: `dm-0` is what is encrypted on the one, `dm-1` and
    /// `dm-2` are volumes on that, `md0` is a RAID of both.
    fn devices() -> tempfile::TempDir {
        let system = tempfile::tempdir().unwrap();
        let class = system.path().join("class");
        fs::create_dir(&class).unwrap();
        let known = |place: &str, partition: bool, below: &[&str]| {
            let place = system.path().join(place);
            below.iter().for_each(|part| fs::create_dir_all(place.join("slaves").join(part)).unwrap());
            fs::create_dir_all(&place).unwrap();
            if partition {
                fs::write(place.join("partition"), "1\n").unwrap();
            }
            std::os::unix::fs::symlink(&place, class.join(place.file_name().unwrap())).unwrap();
        };
        for (place, partition) in
            [("sda", false), ("sda/sda2", true), ("sda/sda3", true), ("sdb", false), ("sdb/sdb1", true), ("sdc", false)]
        {
            known(place, partition, &[]);
        }
        for (place, below) in [
            ("dm-0", &["sda3"][..]),
            ("dm-1", &["dm-0"]),
            ("dm-2", &["dm-0"]),
            ("dm-3", &["dm-0", "sdb"]),
            ("md0", &["sda2", "sdb1"]),
        ] {
            known(place, false, below);
        }
        known("md0/md0p1", true, &[]);
        system
    }

    #[test]
    fn volumes_of_one_disk_lie_on_that_disk_and_those_of_several_on_all_of_them() {
        let system = devices();
        let of = |device: &str| {
            let mut disks = BTreeSet::new();
            add_disks(&system.path().join("class"), device.to_owned(), &mut disks);
            disks.into_iter().collect::<Vec<_>>().join("+")
        };
        for device in ["sda", "sda2", "sda3", "dm-0", "dm-1", "dm-2"] {
            assert_eq!(of(device), "sda", "{device}");
        }
        for device in ["dm-3", "md0", "md0p1"] {
            assert_eq!(of(device), "sda+sdb", "{device}");
        }
        assert_eq!((of("sdc").as_str(), of("sdb1").as_str()), ("sdc", "sdb"));
        // Where the system does not say, it is what it is called.
        assert_eq!(of("root"), "root");
    }

    #[test]
    fn folders_of_one_file_system_lie_on_one_disk_also_those_that_are_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(medium(&folder.path().join("not/there/yet")), medium(folder.path()));
    }
}
