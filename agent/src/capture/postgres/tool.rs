//! The programs of PostgreSQL that copy a whole cluster. They end with this process, however it ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::capture::command::pass_environment;
use crate::capture::settings::EnvValue;
use crate::platform::process;
use crate::said::{last_words, tail};

/// Runs its arguments, and ends them with itself when the other end of its input is closed: a copy that nobody waits for
/// would go on for hours.
const MORTAL: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
tool=$!
{ read -r end <&3; kill -s KILL 0; } &
exec 3<&-
wait "$tool"
"#;

/// What the shell says if there is no such program.
const NOT_FOUND: i32 = 127;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How often something else is done meanwhile.
const MEANWHILE: Duration = Duration::from_secs(1);

/// Runs a program to its end; `meanwhile` is called every second, and ends it with an error. The error is one sentence.
pub(super) fn run(
    program: &str,
    arguments: &[OsString],
    env: &BTreeMap<String, EnvValue>,
    mut meanwhile: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let failed = |error| format!("`{program}` could not be run: {error}");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", MORTAL, "offsite", program]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    pass_environment(&mut command, env);
    command.env("LC_ALL", "C.UTF-8");
    let mut child = process::spawn_group(&mut command).map_err(failed)?;
    let said = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
    let mut last = Instant::now();
    let ended = loop {
        match process::has_ended(&child) {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(failed(error)),
        }
        if last.elapsed() >= MEANWHILE {
            if let Err(why) = meanwhile() {
                break Err(why);
            }
            last = Instant::now();
        }
        thread::sleep(LOOK);
    };
    // The shell that would have ended it is still there.
    process::kill_group(&child);
    let status = child.wait().map_err(failed)?;
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    ended?;
    match status.code() {
        Some(0) => Ok(()),
        Some(NOT_FOUND) => {
            Err(format!("`{program}` could not be started; install the client programs of the database server"))
        }
        _ => Err(format!("`{program}` failed with {status}{}", last_words(&said))),
    }
}
