//! The folder that a drill works in: private, and gone afterwards, however the drill ends.
//!
//! A process of its own, the *sweeper*, waits until nobody holds the other end of its input any more, and then ends what
//! still runs in the folder and removes it: at the end of every drill, and when one was killed. If it was killed as well,
//! or the power failed, the next drill or run finds a folder that nobody has locked.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::settings::SweeperProgram;
use crate::{durable, platform};

/// What the names of our folders begin with; nothing else is ever removed.
const PREFIX: &str = "drill-";

/// A folder for one drill. Dropped, it is gone with all it holds.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    sweeper: Child,
    /// Says that this drill is alive.
    _lock: File,
}

/// Why there is no folder to work in.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// It cannot be made.
    #[error("the scratch folder {} cannot be used", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others could look into it.
    #[error(
        "the scratch folder {} belongs to another account, or others may write to it, and what is restored there could be \
         read or changed by them", path.display()
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// The process that would clear it away does not start.
    #[error("the process that clears the scratch folder away could not be started")]
    Sweeper(#[source] io::Error),
}

impl Scratch {
    /// Makes a folder below `base`, after what drills that were killed have left there is gone.
    pub(super) fn open(base: &Path, program: &SweeperProgram) -> Result<Self, ScratchError> {
        let failed = |source| ScratchError::Io { path: base.to_owned(), source };
        durable::create_folder(base).map_err(failed)?;
        let stat = fs::symlink_metadata(base).map_err(failed)?;
        if !stat.is_dir() || !platform::is_mine(&stat) || platform::mode(&stat) & 0o022 != 0 {
            return Err(ScratchError::NotOurs { path: base.to_owned() });
        }
        let base = &base.canonicalize().map_err(failed)?;
        // A server that must not run as root has to get through to its data, and nobody sees what is there by that.
        let mode = if platform::is_root() { 0o711 } else { 0o700 };
        fs::set_permissions(base, Permissions::from_mode(mode)).map_err(failed)?;
        let turn = File::open(base).map_err(failed)?;
        turn.lock().map_err(failed)?;
        sweep_below(base).map_err(failed)?;
        let name = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&name).tempdir_in(base).map_err(failed)?;
        let lock = File::open(folder.path()).map_err(failed)?;
        lock.lock_shared().map_err(failed)?;
        let sweeper = start(program, folder.path()).map_err(ScratchError::Sweeper)?;
        let folder = folder.keep();
        let scratch = Self { folder, sweeper, _lock: lock };
        fs::set_permissions(&scratch.folder, Permissions::from_mode(mode)).map_err(failed)?;
        Ok(scratch)
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Ends whatever runs in it and removes it.
    pub(super) fn close(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.sweeper.stdin.take());
        self.sweeper.wait()?;
        match self.folder.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => clear(&self.folder),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(folder = %self.folder.display(), %error, "the scratch folder could not be removed");
        }
    }
}

/// Removes what drills that were killed have left below `base`. What a living one works in stays.
pub fn sweep(base: &Path) -> io::Result<()> {
    let turn = match File::open(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    turn.lock()?;
    sweep_below(&base.canonicalize()?)
}

fn sweep_below(base: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let folder = entry.path();
        // Its own end may be faster.
        let Ok(lock) = File::open(&folder) else { continue };
        if lock.try_lock().is_ok() {
            clear(&folder)?;
        }
    }
    Ok(())
}

fn clear(folder: &Path) -> io::Result<()> {
    platform::process::kill_those_in(folder)?;
    platform::tree::remove_tree(folder)
}

fn start(program: &SweeperProgram, folder: &Path) -> io::Result<Child> {
    let mut command = Command::new(&program.program);
    // A group of its own: an interrupt typed at the terminal is for the drill, and its end is for the sweeper.
    command.args(&program.arguments).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.current_dir("/").spawn()?;
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut answer)?;
    }
    if answer == READY { Ok(child) } else { Err(io::Error::other("it did not answer")) }
}

const READY: &str = "ready\n";

/// The sweeper's own side: removes `folder`, which is one of a drill's, when `input` ends.
pub fn serve_sweeper(folder: &Path, mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    if !folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no folder of a drill"));
    }
    let lock = File::open(folder)?;
    lock.lock_shared()?;
    output.write_all(READY.as_bytes())?;
    output.flush()?;
    // Nobody says anything.
    io::copy(&mut input, &mut io::sink())?;
    clear(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_locked_is_swept_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = base.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("file"), "left").unwrap();
            folder
        };
        let (dead, alive, other) = (folder("drill-1-a"), folder("drill-2-b"), folder("office"));
        let lock = File::open(&alive).unwrap();
        lock.lock_shared().unwrap();
        sweep(base.path()).unwrap();
        assert!(!dead.exists() && alive.exists() && other.exists());
        sweep(&base.path().join("nothing here")).unwrap();
        drop(lock);
        serve_sweeper(&alive, &b""[..], io::sink()).unwrap();
        assert!(!alive.exists());
        assert!(serve_sweeper(&other, &b""[..], io::sink()).is_err() && other.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), Permissions::from_mode(0o777)).unwrap();
        let program = SweeperProgram { program: "/bin/false".into(), arguments: Vec::new() };
        assert!(matches!(Scratch::open(base.path(), &program), Err(ScratchError::NotOurs { .. })));
        fs::set_permissions(base.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(Scratch::open(base.path(), &program), Err(ScratchError::Sweeper(_))));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0, "something was left");
    }
}
