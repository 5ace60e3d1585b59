//! Snapshots of a Btrfs subvolume, taken and removed by the file system's own tool.
//!
//! They lie in a folder at the root of the subvolume, which nobody else can enter, since only there is one sure to be in
//! the same file system. Each is called after the site, so that what a killed run left is known, and nobody else's is touched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::command::pass_environment;
use super::super::folder::SNAPSHOTS;
use crate::ids::SiteName;
use crate::platform;
use crate::platform::process;
use crate::platform::tree::Dir;
use crate::said;

/// How often it is looked whether the tool has ended.
const LOOK: Duration = Duration::from_micros(500);

/// Removing a snapshot takes milliseconds: its blocks are given back later.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// What to do about a file system that is full.
const FULL: &str = "; free some space there (`btrfs filesystem usage` shows what of, as room for names and trees is apart from \
                    room for content)";

/// What the names of all snapshots of `site` begin with: no other site's do.
pub(super) fn tag(site: &SiteName) -> String {
    format!("{site}@")
}

/// A subvolume, and where its snapshots are.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    dev: u64,
    folder: PathBuf,
}

impl Place {
    /// The subvolume that begins at `root` and whose file system has the number `dev`. Nothing is made yet.
    pub(super) fn new(root: PathBuf, dev: u64) -> Self {
        let folder = root.join(SNAPSHOTS);
        Self { root, dev, folder }
    }

    /// Where the subvolume begins.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The number of its file system.
    pub(super) fn dev(&self) -> u64 {
        self.dev
    }

    /// Makes the folder of snapshots, if it is missing.
    pub(super) fn make(&self) -> Result<(), String> {
        let made = platform::create_private_folder(&self.folder);
        made.and_then(|()| platform::can_write(&self.folder)).map_err(|error| {
            let folder = self.folder.display();
            let advice = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL,
                _ => "; make it, with mode 700, for the account that offsite runs as",
            };
            format!("the folder {folder}, where snapshots have to lie, cannot be written to: {error}{advice}")
        })
    }

    /// Where the snapshot `name` is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Begins to take a snapshot, which is there when the tool has ended.
    pub(super) fn take(&self, path: &Path) -> Result<Run, String> {
        let arguments =
            ["subvolume".as_ref(), "snapshot".as_ref(), "-r".as_ref(), self.root.as_os_str(), path.as_os_str()];
        Run::start(&arguments, &format!("a snapshot of {} could not be taken", self.root.display()))
    }

    /// Removes a snapshot. It may be gone already.
    pub(super) fn remove(&self, path: &Path) -> Result<(), String> {
        let failed = format!("the snapshot {} could not be removed", path.display());
        let remove = || run(&["subvolume".as_ref(), "delete".as_ref(), path.as_os_str()], &failed);
        if !is_there(path) {
            return Ok(());
        }
        let Err(why) = remove() else { return Ok(()) };
        // Only root may remove one that cannot be written to.
        let opened = run(
            &["property".as_ref(), "set".as_ref(), "-ts".as_ref(), path.as_os_str(), "ro".as_ref(), "false".as_ref()],
            &failed,
        );
        match opened.and_then(|()| remove()) {
            Err(_) if is_there(path) => Err(why),
            _ => Ok(()),
        }
    }

    /// Removes all snapshots of `site`.
    pub(super) fn remove_all_of(&self, site: &SiteName) -> Result<(), String> {
        let names = Dir::open(&self.folder).and_then(|folder| folder.names());
        let names = names.map_err(|error| format!("the folder {} cannot be read: {error}", self.folder.display()))?;
        let ours = names.iter().filter(|name| name.starts_with(tag(site).as_bytes()));
        ours.map(|name| self.folder.join(platform::tree::name(name))).try_for_each(|path| self.remove(&path))
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn run(arguments: &[&OsStr], failed: &str) -> Result<(), String> {
    let ended = Run::start(arguments, failed)?.wait(Instant::now() + REMOVED_WITHIN);
    ended.unwrap_or_else(|| Err(format!("{failed}: the file system has not answered for a minute")))
}

/// The tool at work. Dropped, it is ended as soon as the file system lets it.
#[derive(Debug)]
pub(super) struct Run {
    child: Child,
    /// What has failed if it does.
    failed: String,
    ended: bool,
}

impl Run {
    fn start(arguments: &[&OsStr], failed: &str) -> Result<Self, String> {
        let mut command = Command::new("btrfs");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        pass_environment(&mut command, &BTreeMap::new());
        command.env("LC_ALL", "C.UTF-8");
        match process::spawn_group(&mut command) {
            Ok(child) => Ok(Self { child, failed: failed.to_owned(), ended: false }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("{failed}, because `btrfs` is missing; install btrfs-progs"))
            }
            Err(error) => Err(format!("{failed}, because `btrfs` could not be started: {error}")),
        }
    }

    /// Waits for its end, but not longer than `until`: then there is no answer yet.
    pub(super) fn wait(&mut self, until: Instant) -> Option<Result<(), String>> {
        let code = loop {
            match process::exit_code(&self.child) {
                Ok(Some(code)) => break Ok(code),
                Ok(None) if Instant::now() < until => thread::sleep(LOOK),
                Ok(None) => return None,
                Err(error) => break Err(error),
            }
        };
        self.ended = true;
        process::kill_group(&self.child);
        let said = self.child.stderr.take().map(said::tail).unwrap_or_default();
        // It has ended.
        let _status = self.child.wait();
        Some(match code {
            Ok(0) => Ok(()),
            Ok(_) => Err(explain(&self.failed, &said)),
            Err(error) => Err(format!("{}: {error}", self.failed)),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            // Not waited for: it ends when the file system has answered it.
            process::kill_group(&self.child);
        }
    }
}

fn explain(failed: &str, said: &str) -> String {
    let said = said::one_line(said);
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let advice = if says(&["not permitted", "denied", "Read-only"]) {
        "; only root may do that, or an account with CAP_FOWNER and CAP_SYS_ADMIN, or one that owns the subvolume of a \
         file system that is mounted with user_subvol_rm_allowed"
    } else if says(&["No space left", "quota exceeded"]) {
        FULL
    } else {
        ""
    };
    format!("{failed}: `btrfs` said: {said}{advice}")
}
