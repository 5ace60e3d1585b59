//! One run: a process of this same program.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Message;
use crate::ids::JobName;
use crate::platform;

/// A run under way.
pub(super) struct Child {
    process: process::Child,
    /// When it is killed because it has not stopped.
    kill_at: Option<Instant>,
}

/// A run that is asked to stop ends itself within half a minute.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// No report is so long.
const PRINTED_MAX: u64 = 16 << 20;

impl Child {
    /// Starts a run of `job` that tells of its end through `outbox`.
    pub(super) fn start(
        program: &Path,
        config: &Path,
        run: &[String],
        job: &JobName,
        outbox: &Sender<Message>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("--config").arg(config).arg("--json").args(run);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // Signals from a terminal are for the daemon, which passes them on; so are words to the manager of services.
        command.process_group(0).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        let mut process = command.spawn()?;
        let (stdout, number) = (process.stdout.take(), process.id());
        let (job, outbox) = (job.clone(), outbox.clone());
        let wait = move || {
            let mut printed = Vec::new();
            if let Some(mut stdout) = stdout {
                // What cannot be read is not reported; the exit code says how it ended.
                stdout.by_ref().take(PRINTED_MAX).read_to_end(&mut printed).ok();
                io::copy(&mut stdout, &mut io::sink()).ok();
            }
            // It keeps its number until the loop takes its exit code, so that no signal can reach another process.
            platform::process::wait_for_end(number).ok();
            outbox.send(Message::Ended { job, printed }).ok();
        };
        match std::thread::Builder::new().name("run".to_owned()).spawn(wait) {
            Ok(_) => Ok(Self { process, kill_at: None }),
            Err(error) => {
                platform::process::kill_group(&process);
                process.wait()?;
                Err(error)
            }
        }
    }

    /// Asks it to stop where it can be gone on with; asked a second time, it ends at once.
    pub(super) fn stop(&mut self) {
        platform::process::terminate(&self.process);
        self.kill_at.get_or_insert_with(|| Instant::now() + STOP_LIMIT);
    }

    /// Kills it if it was asked to stop and has not done so for too long. Being killed is safe; only time is lost.
    pub(super) fn end_if_late(&mut self) {
        if self.patience() == Some(Duration::ZERO) {
            platform::process::kill_group(&self.process);
            self.kill_at = None;
        }
    }

    /// How long it still may take to stop.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.kill_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The exit code of a run that has ended; nothing if a signal ended it.
    pub(super) fn exit_code(mut self) -> Option<u8> {
        let status = self.process.wait().ok()?;
        status.code().and_then(|code| u8::try_from(code).ok())
    }
}

/// Why the run failed, as it printed it.
pub(super) fn messages(printed: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Document {
        error: Option<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        messages: Vec<String>,
    }
    let document: Option<Document> = serde_json::from_slice(printed).ok();
    document.and_then(|document| document.error).map(|error| error.messages).unwrap_or_default()
}
