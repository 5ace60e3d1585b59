//! Small disks that can be full.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guard;

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
    assert!(output.status.success(), "a disk is needed, and mounting it needs root or sudo: {command:?}: {said}");
}
