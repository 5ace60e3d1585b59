//! A person's machine without the program: POSIX tools, `age`, `zstd`, `tar`, and what a test says.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// What every such machine has.
const TOOLS: [&str; 17] = [
    "sh",
    "age",
    "zstd",
    "tar",
    "sha256sum",
    "sed",
    "cut",
    "grep",
    "head",
    "tail",
    "wc",
    "cat",
    "mkdir",
    "rm",
    "rmdir",
    "cp",
    "ls",
];

/// The machine: a folder of tools, which is all that its shell finds.
pub struct BareMachine {
    tools: PathBuf,
}

impl BareMachine {
    /// One with `more` beside the usual tools. Its tools lie in `folder`; those that are there already stay.
    pub fn new(folder: PathBuf, more: &[&str]) -> Self {
        for tool in TOOLS.iter().chain(more).filter(|tool| !folder.join(tool).exists()) {
            symlink(process::program(tool), folder.join(tool)).unwrap();
        }
        Self { tools: folder }
    }

    /// Its shell, which is to run `command` in `folder`.
    pub fn shell(&self, command: &str, folder: &Path) -> Command {
        let program = self.tools.join("sh");
        let mut shell = Command::new(&program);
        shell.args(["-c", command]).current_dir(folder).env_clear().env("PATH", &self.tools).env("SHELL", program);
        shell
    }
}
