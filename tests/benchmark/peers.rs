//! Other tools on the same data, those that are installed.

use std::path::Path;
use std::process::Command;

use crate::measure;
use crate::office::Office;
use crate::report::Report;

/// restic, or rustic, which takes the same arguments.
pub(crate) struct Peer<'a> {
    name: &'static str,
    root: &'a Path,
    log: &'a Path,
}

/// Those that are installed, with a line about each.
pub(crate) fn installed<'a>(root: &'a Path, log: &'a Path) -> Vec<Peer<'a>> {
    let mut peers = Vec::new();
    for name in ["restic", "rustic"] {
        let version = if name == "restic" { "version" } else { "--version" };
        match Command::new(name).arg(version).output() {
            Ok(output) if output.status.success() => {
                eprint!("{}", String::from_utf8_lossy(&output.stdout));
                peers.push(Peer { name, root, log });
            }
            _ => eprintln!("{name} is not installed"),
        }
    }
    peers
}

impl Peer<'_> {
    /// Makes an empty repository.
    pub(crate) fn begin(&self) {
        std::fs::remove_dir_all(self.repository()).ok();
        measure::run(self.command().arg("init"), self.log);
    }

    /// A backup of the office.
    pub(crate) fn backup(&self, what: &str, office: &Office, report: &mut Report) {
        let before = self.stored();
        let cost = measure::run(self.command().arg("backup").arg(&office.root), self.log);
        let after = self.stored();
        report.add(&format!("{}: {what}", self.name), cost, Some(after.0 - before.0), Some(after.1 - before.1));
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

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        let (repository, password) = match self.name {
            "restic" => ("RESTIC_REPOSITORY", "RESTIC_PASSWORD"),
            _ => ("RUSTIC_REPOSITORY", "RUSTIC_PASSWORD"),
        };
        command.env(repository, self.repository()).env(password, "bench");
        command.env("RESTIC_CACHE_DIR", self.root.join("cache")).env("RUSTIC_CACHE_DIR", self.root.join("cache"));
        command
    }

    fn repository(&self) -> std::path::PathBuf {
        self.root.join(self.name)
    }

    fn stored(&self) -> (u64, u64) {
        let files = tests::office::paths(&self.repository());
        let files = files.iter().map(|path| path.metadata().unwrap()).filter(std::fs::Metadata::is_file);
        files.fold((0, 0), |(bytes, objects), file| (bytes + file.len(), objects + 1))
    }
}
