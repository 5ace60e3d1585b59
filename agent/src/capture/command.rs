//! Sources that another program copies: it writes files into staging, or its output becomes one.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;

use super::settings::{CommandSource, EnvValue, Output};
use crate::platform;

/// What a program may see of our environment: where to find things, and in which language. Everything else is ours.
const ENVIRONMENT: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// What stands for the folder that a program writes to.
const STAGING: &str = "{staging}";

/// How much of what a program says last is kept, in bytes.
const TAIL: usize = 2000;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);

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
    run_one("the command", &source.command, source, folder, stdout, stop)?;
    match &source.check {
        Some(check) => run_one("the check", check, source, folder, Stdio::null(), stop),
        None => Ok(()),
    }
}

fn run_one(
    what: &str,
    arguments: &[String],
    source: &CommandSource,
    folder: &Path,
    stdout: Stdio,
    stop: &AtomicBool,
) -> Result<(), String> {
    let mut arguments = arguments.iter().map(|argument| fill(argument, folder));
    let program = arguments.next().ok_or_else(|| format!("{what} is empty"))?;
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    pass_environment(&mut command, &source.env);
    let program = program.to_string_lossy().into_owned();
    let mut child = platform::process::spawn_group(&mut command)
        .map_err(|e| format!("{what} `{program}` could not be started: {e}"))?;
    let said = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
    let ended = wait(&mut child, source.timeout, stop);
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    let said = hide(&said, source);
    let said = if said.is_empty() { said } else { format!("; it said: {said}") };
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("{what} `{program}` failed with {status}{said}")),
        Ok(None) if stop.load(Ordering::Relaxed) => Err(format!("{what} `{program}` was ended{said}")),
        Ok(None) => {
            let limit = source.timeout.as_secs();
            Err(format!("{what} `{program}` was ended because it took longer than {limit} s{said}"))
        }
        Err(error) => Err(format!("{what} `{program}` could not be waited for: {error}")),
    }
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
    let deadline = Instant::now() + limit;
    let mut ended = platform::process::has_ended(child)?;
    while !ended && Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        ended = platform::process::has_ended(child)?;
    }
    // Whoever is left of the group has no business any more. Only then may the number of the group become another's.
    platform::process::kill_group(child);
    let status = child.wait()?;
    Ok(ended.then_some(status))
}

/// The last of what a program says.
pub(crate) fn tail(mut output: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let surplus = kept.len().saturating_sub(2 * TAIL);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
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
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = lines.join(" | ");
    let from = joined.char_indices().rev().nth(TAIL / 2).map_or(0, |(at, _)| at);
    let kept = joined.get(from..).unwrap_or_default();
    kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
