//! Small disks that can be full, and such that can take snapshots.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guard;
use crate::process::program;

/// A file system of its own, in memory and of a set size, mounted on a folder. Dropped, it is gone with all it held.
///
/// Mounting is the right of root: tests run as root, or as somebody who may use `sudo` without being asked.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts a disk of `bytes` bytes on the folder `at`, which is made if it is missing and belongs to this user alone.
    #[track_caller]
    pub fn mount(at: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let options = format!("size={bytes},mode=700,uid={uid},gid={gid}");
        as_root(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at));
        guard::mounted(at);
        Self { at: at.to_owned() }
    }

    /// Takes all the room but `bytes`.
    pub fn fill(&self, bytes: u64) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        let length = filler.metadata().unwrap().len();
        filler.set_len(length.saturating_sub(bytes)).unwrap();
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// Makes the disk another size.
    pub fn resize(&self, bytes: u64) {
        as_root(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.at));
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        as_root(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

/// A Btrfs file system on a loop device, whose image lies in memory. Dropped, it is gone.
///
/// The kernel has to know Btrfs and loop devices; both are in those of Debian and Ubuntu.
#[derive(Debug)]
pub struct Btrfs {
    at: PathBuf,
    _image: Disk,
}

impl Btrfs {
    /// Makes one of 256 MiB and mounts it on the folder `at`; it belongs to this user, who may also remove snapshots.
    #[track_caller]
    pub fn mount(at: &Path) -> Self {
        let memory = at.with_extension("memory");
        let disk = Disk::mount(&memory, 300 << 20);
        let image = memory.join("image");
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let made = Command::new(program("mkfs.btrfs")).arg("--quiet").arg(&image).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::create_dir_all(at).unwrap();
        as_root(Command::new("mount").args(["-t", "btrfs", "-o", "loop,user_subvol_rm_allowed"]).arg(&image).arg(at));
        guard::mounted(at);
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        as_root(Command::new("chown").arg(format!("{uid}:{gid}")).arg(at));
        Self { at: at.to_owned(), _image: disk }
    }

    /// A new subvolume.
    #[track_caller]
    pub fn subvolume(&self, name: &str) -> PathBuf {
        let path = self.at.join(name);
        let made = Command::new(program("btrfs")).args(["subvolume", "create"]).arg(&path).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        path
    }

    /// Takes all the room there is, for content as well as for names and trees, until not even a snapshot of the subvolume
    /// `name` can be taken any more.
    pub fn fill(&self, name: &str) {
        let mut content = std::fs::File::create(self.at.join("filler")).unwrap();
        while content.write_all(&[0; 1 << 20]).is_ok() {}
        let names = self.at.join("names");
        std::fs::create_dir(&names).unwrap();
        // What a link refers to lies where names do.
        let mut number = 0..;
        for target in ["far".repeat(1300), "near".to_owned()] {
            while number.next().is_some_and(|n| symlink(&target, names.join(n.to_string())).is_ok()) {}
        }
        while self.snapshot(name, number.next().unwrap()) {}
    }

    /// Gives some of it back.
    pub fn make_room(&self, name: &str) {
        std::fs::remove_file(self.at.join("filler")).unwrap();
        let mut number = 1_000_000..;
        crate::wait_until(Duration::from_secs(60), "the file system to have room", || {
            self.snapshot(name, number.next().unwrap())
        });
    }

    /// Whether a snapshot can be taken, when all that was written before is on disk.
    fn snapshot(&self, name: &str, number: u32) -> bool {
        rustix::fs::syncfs(std::fs::File::open(&self.at).unwrap()).unwrap();
        let mut command = Command::new(program("btrfs"));
        command.args(["subvolume", "snapshot", "-r"]).arg(self.at.join(name));
        command.arg(self.at.join(format!("filler-{number}"))).output().unwrap().status.success()
    }

    /// All subvolumes by their paths, snapshots too.
    pub fn subvolumes(&self) -> Vec<String> {
        let mut found = Vec::new();
        find_subvolumes(&self.at, &mut found);
        found.iter().map(|path| path.strip_prefix(&self.at).unwrap().display().to_string()).collect()
    }
}

/// The roots of subvolumes below `folder`, which have a number that nothing else has.
fn find_subvolumes(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        // What is being removed may be gone.
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            found.extend((data.ino() == 256).then(|| entry.path()));
            find_subvolumes(&entry.path(), found);
        }
    }
    found.sort_unstable();
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        as_root(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

#[track_caller]
fn as_root(command: &mut Command) {
    let mut command = if rustix::process::geteuid().is_root() {
        std::mem::replace(command, Command::new("true"))
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("-n").arg(command.get_program()).args(command.get_args());
        sudo
    };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "a disk is needed, and mounting it needs root or sudo, loop devices and a kernel that knows it: {command:?}: {said}"
    );
}
