//! Database servers of the drill's own, and the programs that speak to them: found on this machine, started without rights,
//! reachable through a socket in the scratch folder only.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::capture::wait;
use crate::platform;
use crate::platform::tree::Dir;
use crate::rows::Rows;
use crate::said::{last_words, tail};

/// A server with nothing in it answers within this time, or it does not start.
pub(super) const START_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at whether it answers.
const LOOK: Duration = Duration::from_millis(50);
/// Long enough for terabytes.
pub(super) const LOAD_WITHIN: Duration = Duration::from_secs(48 * 3600);

/// A server of the drill's own, for the databases of one source. Errors are sentences.
pub(super) trait DatabaseServer {
    /// What it is, for a person.
    fn engine(&self) -> String;

    /// Makes the accounts that the dumps in `folder` speak of. Answers with statements that were refused.
    fn accounts(&self, folder: &Path) -> Result<Vec<String>, String>;

    /// Restores a dump into a new database.
    fn load(&self, database: &str, dump: &Path) -> Result<(), String>;

    /// The rows of every table.
    fn count(&self, database: &str) -> Result<Rows, String>;

    /// Has the engine look through all tables and indexes. `Ok(false)` if it has no program for that here.
    fn examine(&self, database: &str) -> Result<bool, String>;

    /// The answer to a question: rows as lines, columns with `|` between them.
    fn ask(&self, database: &str, sql: &str) -> Result<String, String>;
}

/// Why there is no server.
pub(super) enum NoServer {
    /// This machine has no programs that could open the source.
    Absent(String),
    /// They are there, and do not do it.
    Failed(String),
}

/// The account that servers run as.
#[derive(Clone, Debug)]
pub(super) struct Account {
    name: &'static str,
    ids: (u32, u32),
}

impl Account {
    /// The first of `names` that there is, if this process is root, whom no server lets run it.
    pub(super) fn unprivileged(names: [&'static str; 2]) -> Result<Option<Self>, String> {
        if !platform::is_root() {
            return Ok(None);
        }
        let found = names.into_iter().find_map(|name| Some(Self { name, ids: platform::process::account(name)? }));
        match found {
            Some(account) => Ok(Some(account)),
            None => Err("there is no account without rights on this machine that a server could run as".to_owned()),
        }
    }

    /// Whether it can get to `folder`; the error says why not.
    fn reaches(&self, folder: &Path) -> Result<(), String> {
        for above in folder.ancestors() {
            let closed = fs::metadata(above).map_or(true, |stat| platform::mode(&stat) & 0o001 == 0);
            if closed {
                return Err(format!(
                    "the account {}, that a database server has to run as when this program runs as root, cannot get into {}; \
                     let `[drill] scratch` name a folder that it can reach, such as one in /var/tmp",
                    self.name,
                    above.display()
                ));
            }
        }
        Ok(())
    }
}

/// Makes a folder in `scratch` that a server has for itself.
pub(super) fn home(scratch: &Path, name: &str, account: Option<&Account>) -> Result<PathBuf, String> {
    let folder = closed_home(scratch, name, account)?;
    give(&folder, account).map_err(|error| format!("{} could not be given away: {error}", folder.display()))?;
    Ok(folder)
}

/// The same folder while only this process can enter it: it is filled, and then [given](give) as a whole.
pub(super) fn closed_home(scratch: &Path, name: &str, account: Option<&Account>) -> Result<PathBuf, String> {
    if let Some(account) = account {
        account.reaches(scratch)?;
    }
    let folder = scratch.join(name);
    let made = Dir::open(scratch).and_then(|scratch| scratch.create_dir(name.as_bytes()));
    made.map_err(|error| format!("the folder {} could not be made: {error}", folder.display()))?;
    Ok(folder)
}

/// Gives a folder and all it holds to `account`: the folder itself last, so that nobody changes what is in it meanwhile.
pub(super) fn give(folder: &Path, account: Option<&Account>) -> std::io::Result<()> {
    let Some(Account { ids: (uid, gid), .. }) = account else { return Ok(()) };
    Dir::open(folder)?.give(*uid, *gid)
}

/// A program that is to run in `folder`, as `account`, with nothing of our environment but where programs lie.
pub(super) fn program(program: &Path, folder: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("HOME", folder).env("TMPDIR", folder).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.current_dir(folder).stdin(Stdio::null());
    if let Some(Account { ids: (uid, gid), .. }) = account {
        command.uid(*uid).gid(*gid);
    }
    command
}

/// Runs a program to its end, and gives what it printed. The error is one sentence with the last it said.
pub(super) fn run(command: &mut Command, within: Duration) -> Result<String, String> {
    let ended = run_to_end(command, within)?;
    if ended.status.is_some_and(|status| status.success()) { Ok(ended.printed) } else { Err(ended.sentence()) }
}

/// How a program ended.
pub(super) struct Ended {
    name: String,
    /// Nothing if it took too long.
    pub(super) status: Option<ExitStatus>,
    /// Its standard output.
    pub(super) printed: String,
    /// The last of its standard error.
    pub(super) said: String,
}

impl Ended {
    fn sentence(&self) -> String {
        let how = match self.status {
            Some(status) => format!("failed with {status}"),
            None => "was ended because it took too long".to_owned(),
        };
        format!("`{}` {how}{}", self.name, last_words(&self.said))
    }
}

/// Runs a program until it ends, well or not.
pub(super) fn run_to_end(command: &mut Command, within: Duration) -> Result<Ended, String> {
    let name =
        Path::new(command.get_program()).file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
    let failed = |error| format!("`{name}` could not be run: {error}");
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = platform::process::spawn_group(command).map_err(failed)?;
    let printed = child.stdout.take().map(|mut stdout| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read is what there is.
            stdout.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let said = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
    let status = wait(&mut child, within, &std::sync::atomic::AtomicBool::new(false)).map_err(failed)?;
    let printed = printed.and_then(|printed| printed.join().ok()).unwrap_or_default();
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    Ok(Ended { name, status, printed, said })
}

/// A server that runs. Dropped, it is ended.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Server {
    /// Starts it, with what it says going to the file `log`, and waits until `answers`.
    pub(super) fn start(
        command: &mut Command,
        log: &Path,
        within: Duration,
        answers: impl Fn() -> bool,
    ) -> Result<Self, String> {
        let written = crate::durable::create_new(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = written.map_err(|error| format!("{} could not be made: {error}", log.display()))?;
        let name = command.get_program().display().to_string();
        let child = platform::process::spawn_group(command.stdout(stdout).stderr(stderr));
        let server = Self(child.map_err(|error| format!("{name} could not be started: {error}"))?);
        let deadline = Instant::now() + within;
        loop {
            if answers() {
                return Ok(server);
            }
            let ended = platform::process::has_ended(&server.0);
            let ended = ended.map_err(|error| format!("{name} could not be waited for: {error}"))?;
            if ended || Instant::now() >= deadline {
                let said = File::open(log).map(tail).unwrap_or_default();
                let how = if ended { "ended at its start" } else { "does not answer" };
                return Err(format!("{name} {how}{}", last_words(&said)));
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        platform::process::kill_group(&self.0);
        // It cannot fail for a child of ours.
        let _ended = self.0.wait();
    }
}
