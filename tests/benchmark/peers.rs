//! Other tools on the same data, those that are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::servers::Keys;

use crate::measure;
use crate::office::Office;
use crate::report::Report;
use crate::site::{Sent, Store};

/// restic, or rustic, which takes the same arguments.
pub(crate) struct Peer<'a> {
    name: &'static str,
    store: Store<'a>,
    root: &'a Path,
    log: &'a Path,
}

/// Those that are installed; says which.
pub(crate) fn installed() -> Vec<&'static str> {
    let is_there = |name: &&str| {
        let version = if *name == "restic" { "version" } else { "--version" };
        match Command::new(name).arg(version).output() {
            Ok(output) if output.status.success() => {
                eprint!("{}", String::from_utf8_lossy(&output.stdout));
                true
            }
            _ => {
                eprintln!("{name} is not installed");
                false
            }
        }
    };
    ["restic", "rustic"].into_iter().filter(is_there).collect()
}

impl<'a> Peer<'a> {
    /// With an empty repository in `store`, or in a folder below `root`.
    pub(crate) fn begin(name: &'static str, store: Store<'a>, root: &'a Path, log: &'a Path) -> Self {
        let peer = Self { name, store, root, log };
        std::fs::remove_dir_all(peer.folder()).ok();
        std::fs::remove_dir_all(peer.cache()).ok();
        measure::run(peer.command().arg("init"), log);
        peer
    }

    /// A backup of the office.
    pub(crate) fn backup(&self, what: &str, office: &Office, report: &mut Report) {
        let before = self.stored();
        let cost = measure::run(self.command().arg("backup").arg(&office.root), self.log);
        let after = self.stored();
        let bytes = after.bytes.saturating_sub(before.bytes);
        let objects = after.objects.saturating_sub(before.objects);
        report.add(&format!("{}: {what}", self.name), cost, Some(bytes), Some(objects));
    }

    /// A restore of the last backup.
    pub(crate) fn restore(&self, report: &mut Report) {
        let to = self.root.join("restored");
        let cost = match self.name {
            "restic" => {
                measure::run(self.command().args(["restore", "latest", "--verify", "--target"]).arg(&to), self.log)
            }
            _ => measure::run(self.command().args(["restore", "latest"]).arg(&to), self.log),
        };
        report.add(&format!("{}: restore", self.name), cost, None, None);
        std::fs::remove_dir_all(to).unwrap();
    }

    /// Removes what it kept in folders.
    pub(crate) fn end(self) {
        std::fs::remove_dir_all(self.folder()).ok();
        std::fs::remove_dir_all(self.cache()).ok();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        let prefix = self.name.to_uppercase();
        let repository = match (&self.store, self.name) {
            (Store::Directory, _) => self.folder().display().to_string(),
            (Store::S3 { server, bucket }, "restic") => format!("s3:{}/{}", server.url(), bucket.name),
            (Store::S3 { server, bucket }, _) => {
                command.env("OPENDAL_ENDPOINT", server.url()).env("OPENDAL_BUCKET", &bucket.name);
                command.env("OPENDAL_REGION", "us-east-1").env("OPENDAL_ROOT", "/");
                command
                    .env("OPENDAL_ACCESS_KEY_ID", Keys::ADMIN.id)
                    .env("OPENDAL_SECRET_ACCESS_KEY", Keys::ADMIN.secret);
                "opendal:s3".to_owned()
            }
        };
        command.env("AWS_ACCESS_KEY_ID", Keys::ADMIN.id).env("AWS_SECRET_ACCESS_KEY", Keys::ADMIN.secret);
        command.env(format!("{prefix}_REPOSITORY"), repository).env(format!("{prefix}_PASSWORD"), "bench");
        command.env(format!("{prefix}_CACHE_DIR"), self.cache());
        command
    }

    fn folder(&self) -> PathBuf {
        self.root.join(self.name)
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn stored(&self) -> Sent {
        self.store.holds(&self.folder())
    }
}
