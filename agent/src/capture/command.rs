//! Sources that another program copies: it writes files into staging, or its output becomes one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;

use super::problems::remedy;
use super::settings::{CommandHold, CommandSource, EnvValue, Output};
use crate::config::Span;
use crate::platform;
use crate::said;

/// What a program may see of our environment: where to find things, and in which language. Everything else is ours.
const ENVIRONMENT: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// What stands for the folder that a program writes to.
const STAGING: &str = "{staging}";

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The same while others are held for it.
const LOOK_CLOSELY: Duration = Duration::from_millis(1);

/// Longer than this a program that lets writers go on must not take.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

/// Runs the program, and then the check, with `folder` as the place to write to. The error is one sentence, perhaps with
/// the last lines of what the program said.
pub(super) fn run(source: &CommandSource, folder: &Path) -> Result<(), String> {
    run_until(source, folder, &AtomicBool::new(false))
}

/// As [`run`]; the program is ended as soon as `stop` is set.
pub(super) fn run_until(source: &CommandSource, folder: &Path, stop: &AtomicBool) -> Result<(), String> {
    let stdout = match &source.output {
        Output::Folder => Stdio::null(),
        Output::Stdout(name) => {
            let path = folder.join(name);
            let file = crate::durable::create_new(&path);
            file.map_err(|e| format!("the file for its output, {}, could not be created: {e}", path.display()))?.into()
        }
    };
    let limit = source.timeout;
    start("the command", &source.command, source, folder, stdout)?.finish(limit, limit, source, stop)?;
    match &source.check {
        Some(check) => start("the check", check, source, folder, Stdio::null())?.finish(limit, limit, source, stop),
        None => Ok(()),
    }
}

/// A program that runs, as the leader of a group.
#[derive(Debug)]
struct Started {
    /// For a person.
    name: String,
    child: Child,
    said: Option<JoinHandle<String>>,
    /// It has been waited for.
    ended: bool,
}

fn start(
    what: &str,
    arguments: &[String],
    source: &CommandSource,
    folder: &Path,
    stdout: Stdio,
) -> Result<Started, String> {
    let mut arguments = arguments.iter().map(|argument| fill(argument, folder));
    let program = arguments.next().ok_or_else(|| format!("{what} is empty"))?;
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    pass_environment(&mut command, &source.env);
    let name = format!("{what} `{}`", program.to_string_lossy());
    let mut child = platform::process::spawn_group(&mut command)
        .map_err(|e| format!("{name} could not be started: {e}{}", remedy(&e)))?;
    let said = child.stderr.take().map(|stderr| thread::spawn(move || said::tail(stderr)));
    Ok(Started { name, child, said, ended: false })
}

impl Started {
    /// Waits for its end. It is ended after `limit`, of which `left` is left, or when `stop` is set.
    fn finish(
        &mut self,
        left: Duration,
        limit: Duration,
        source: &CommandSource,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let ended = wait(&mut self.child, left, stop);
        self.ended = true;
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        let said = hide(&said, source);
        let said = said::behind(&said);
        let name = &self.name;
        match ended {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(format!("{name} failed with {status}{said}")),
            Ok(None) if stop.load(Ordering::Relaxed) => Err(format!("{name} was ended{said}")),
            Ok(None) => Err(format!("{name} was ended because it took longer than {}{said}", Span(limit))),
            Err(error) => Err(format!("{name} could not be waited for: {error}")),
        }
    }
}

/// The program of a source that keeps writers waiting, and all that it has started. Dropped, they are ended.
#[derive(Debug)]
pub(super) struct Holding(Started);

/// Starts it, in `folder`.
pub(super) fn hold(source: &CommandSource, programs: &CommandHold, folder: &Path) -> Result<Holding, String> {
    start("the hold", &programs.hold, source, folder, Stdio::null()).map(Holding)
}

impl Holding {
    /// The process group of all of them.
    pub(super) fn group(&self) -> u32 {
        self.0.child.id()
    }

    /// Waits until the program has ended well; what it has started goes on. If it does not, all of them are ended.
    pub(super) fn wait(&mut self, limit: Duration, source: &CommandSource) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match platform::process::exit_code(&self.0.child) {
                Ok(Some(0)) => return Ok(()),
                Ok(None) => thread::sleep(LOOK_CLOSELY),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        self.0.finish(Duration::ZERO, limit, source, &AtomicBool::new(false))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if !self.0.ended {
            platform::process::kill_group(&self.0.child);
            // It cannot fail for a child of ours.
            let _ended = self.0.child.wait();
        }
    }
}

/// Runs the program of a source that lets writers go on.
pub(super) fn release(source: &CommandSource, programs: &CommandHold, folder: &Path) -> Result<(), String> {
    let mut started = start("the release", &programs.release, source, folder, Stdio::null())?;
    started.finish(RELEASE_WITHIN, RELEASE_WITHIN, source, &AtomicBool::new(false))
}

/// Gives a program what it may see of our environment, and `env`.
pub(super) fn pass_environment(command: &mut Command, env: &BTreeMap<String, EnvValue>) {
    command.env_clear();
    for name in ENVIRONMENT {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    for (name, value) in env {
        match value {
            EnvValue::Plain(value) => command.env(name, value),
            EnvValue::Secret(value) => command.env(name, value.expose_secret()),
        };
    }
}

fn fill(argument: &str, folder: &Path) -> std::ffi::OsString {
    let mut filled = std::ffi::OsString::new();
    for (at, piece) in argument.split(STAGING).enumerate() {
        if at > 0 {
            filled.push(folder);
        }
        filled.push(piece);
    }
    filled
}

/// Waits for the end of the leader of a process group; nothing if it had to be killed after `limit`, or because of `stop`.
pub(crate) fn wait(child: &mut Child, limit: Duration, stop: &AtomicBool) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let mut ended = platform::process::has_ended(child)?;
    while !ended && begin.elapsed() < limit && !stop.load(Ordering::Relaxed) {
        // What is short may be waited for by those who are held.
        thread::sleep(if begin.elapsed() < LOOK * 10 { LOOK_CLOSELY } else { LOOK });
        ended = platform::process::has_ended(child)?;
    }
    // Whoever is left of the group has no business any more. Only then may the number of the group become another's.
    platform::process::kill_group(child);
    let status = child.wait()?;
    Ok(ended.then_some(status))
}

/// What a program said, without secrets, on one line, and not too much of it.
fn hide(said: &str, source: &CommandSource) -> String {
    let mut said = said.to_owned();
    for value in source.env.values() {
        if let EnvValue::Secret(secret) = value
            && !secret.expose_secret().is_empty()
        {
            said = said.replace(secret.expose_secret(), "***");
        }
    }
    said::one_line(&said)
}

#[cfg(test)]
mod tests;
