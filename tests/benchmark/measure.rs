//! Running a program and reading off what it cost: it and everything that it started.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::Serialize;

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cost {
    /// Seconds from start to end.
    pub(crate) wall_s: f64,
    /// Seconds of processor time, of the user and of the system, to a hundredth.
    pub(crate) cpu_s: f64,
    /// The most memory that all its processes together were seen to hold, in MiB.
    pub(crate) peak_mib: f64,
}

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a command that must succeed; what it prints goes to `log`.
pub(crate) fn run(command: &mut Command, log: &Path) -> Cost {
    let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let told = Stdio::from(file.try_clone().unwrap());
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(told).stderr(Stdio::from(file)).spawn().unwrap();
    let pid = child.id();
    let ended = AtomicBool::new(false);
    let (wall_s, peak_kib) = std::thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(resident_kib(pid));
                std::thread::park_timeout(LOOK);
            }
            peak
        });
        // It is left as it is, so that its times can still be read.
        let wait = WaitId::Pid(Pid::from_raw(pid.cast_signed()).unwrap());
        waitid(wait, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let wall_s = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        peak.thread().unpark();
        (wall_s, peak.join().unwrap())
    });
    let cpu_s = cpu_seconds(pid);
    let status: ExitStatus = child.wait().unwrap();
    assert!(status.success(), "{command:?} failed ({status}); see {}", log.display());
    Cost { wall_s, cpu_s, peak_mib: peak_kib as f64 / 1024.0 }
}

/// A line for bash, in which every part of a pipe has to succeed.
pub(crate) fn shell(line: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-euc", line]);
    command
}

impl Cost {
    /// Both, one after the other.
    pub(crate) fn then(self, other: Self) -> Self {
        Self {
            wall_s: self.wall_s + other.wall_s,
            cpu_s: self.cpu_s + other.cpu_s,
            peak_mib: self.peak_mib.max(other.peak_mib),
        }
    }
}

/// The times of an ended process and of those that it has waited for: fields 14 to 17 of `proc_pid_stat(5)`.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Memory of a process and of all below it; what has ended meanwhile counts as nothing.
fn resident_kib(pid: u32) -> u64 {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
    // A child is listed with the thread that started it.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let below: Vec<u32> =
        children.flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    own + below.into_iter().map(resident_kib).sum::<u64>()
}
