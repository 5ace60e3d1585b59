//! Other processes, and what this one may use.

use std::io;
use std::process::Child;

/// Whether `child` has ended. It keeps its number until it is waited for.
pub(crate) fn has_ended(child: &Child) -> io::Result<bool> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid(child)?), options)?.is_some())
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
    // It can fail only if nobody is left.
    let _gone = pid(child).map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
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
