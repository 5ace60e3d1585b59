//! Other processes, and what this one may use.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The process groups that this process has started and not ended yet, by their leaders.
#[derive(Debug)]
struct Groups {
    leaders: BTreeSet<u32>,
    /// This process is about to end: nothing is started any more.
    closed: bool,
}

/// Of the whole process, since it is its end that ends them.
static GROUPS: Mutex<Groups> = Mutex::new(Groups { leaders: BTreeSet::new(), closed: false });

/// Starts `command` as the leader of a group of its own, so that it can be ended with all that it starts: by
/// [`kill_group`], which has to be called, or by [`end_groups`].
pub(crate) fn spawn_group(command: &mut Command) -> io::Result<Child> {
    let mut groups = groups();
    if groups.closed {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "this run is about to end"));
    }
    let child = command.process_group(0).spawn()?;
    groups.leaders.insert(child.id());
    Ok(child)
}

/// Ends everything that [`spawn_group`] has started: for whoever ends this process while others work in it.
pub(crate) fn end_groups() {
    let mut groups = groups();
    groups.closed = true;
    for leader in std::mem::take(&mut groups.leaders) {
        kill(leader);
    }
}

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `child` has ended. It keeps its number until it is waited for.
pub(crate) fn has_ended(child: &Child) -> io::Result<bool> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid(child)?), options)?.is_some())
}

/// With what code `child` has ended, if it has: -1 if by a signal. It keeps its number until it is waited for.
pub(crate) fn exit_code(child: &Child) -> io::Result<Option<i32>> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid(child)?), options)?.map(|status| status.exit_status().unwrap_or(-1)))
}

/// Waits until the child with the number `child` has ended. It keeps its number until it is waited for.
pub(crate) fn wait_for_end(child: u32) -> io::Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::Pid(number(child)?), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return Ok(ended.map(|_| ())?),
        }
    }
}

/// Asks `child` to stop. It must not have been waited for.
pub(crate) fn terminate(child: &Child) {
    // It can fail only if it has ended already.
    let _gone = pid(child).map(|child| rustix::process::kill_process(child, rustix::process::Signal::TERM));
}

/// Ends the process group that `child` leads, at once. It must not have been waited for.
pub(crate) fn kill_group(child: &Child) {
    groups().leaders.remove(&child.id());
    kill(child.id());
}

/// The same for the group of another process's child. The number must not have become another group's.
pub(crate) fn kill_group_of(leader: u32) {
    kill(leader);
}

fn kill(leader: u32) {
    let group = rustix::process::Pid::from_raw(leader.cast_signed());
    // It can fail only if nobody is left.
    let _gone = group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
}

fn pid(child: &Child) -> io::Result<rustix::process::Pid> {
    number(child.id())
}

fn number(child: u32) -> io::Result<rustix::process::Pid> {
    rustix::process::Pid::from_raw(child.cast_signed()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Lets this process have as many files open as it is allowed to: a walk has some open for each level of folders.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Refused, the walk goes less deep and says where it stopped.
    let _raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Ends, at once, every process whose working folder is `folder` or lies below it, as far as this account may. The path leads
/// through no link.
pub(crate) fn kill_those_in(folder: &Path) -> io::Result<()> {
    const TRIES: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(10);
    // What one of them has started meanwhile shows at the next look; so does one that takes a while to die.
    for _ in 0..TRIES {
        let mut left = false;
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Others' processes, and those that have ended meanwhile, do not say.
            let Ok(place) = fs::read_link(entry.path().join("cwd")) else { continue };
            if place.starts_with(folder) && number != std::process::id().cast_signed() {
                left = true;
                let pid = rustix::process::Pid::from_raw(number);
                let _gone = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            }
        }
        if !left {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// User and group of the account `name` of this machine.
pub(crate) fn account(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.filter(|fields| fields.first() == Some(&name)).find_map(|fields| match fields.as_slice() {
        [_, _, user, group, ..] => Some((user.parse().ok()?, group.parse().ok()?)),
        _ => None,
    })
}
