//! Server processes: started with a clean environment, watched until they answer, killed and started again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::{guard, wait_until};

/// The longest that a server may take to answer, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How to start a server, so that it can be started again after it was killed.
#[derive(Debug)]
pub struct Recipe {
    name: &'static str,
    folder: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    works_in: PathBuf,
    privileged: bool,
    farewell: Signal,
}

/// A server that runs, or was killed and may be started again. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    recipe: Recipe,
    child: Mutex<Option<Child>>,
}

impl Recipe {
    /// `program` (a path, or a name to be found by [`program`]), to be run in `folder` by the unprivileged user.
    pub fn new(name: &'static str, folder: &Path, file: &str) -> Self {
        Self {
            name,
            folder: folder.to_owned(),
            program: program(file),
            arguments: Vec::new(),
            environment: Vec::new(),
            works_in: folder.to_owned(),
            privileged: false,
            farewell: Signal::KILL,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable; nothing but a path and a home is inherited.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Its processes work in this folder, if that is another one than the one it is run in: for servers that go elsewhere.
    #[must_use]
    pub fn works_in(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.works_in);
        self
    }

    /// Runs as whoever runs the tests: for programs in a home that nobody else can read.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// The signal that ends the server at the end of the tests, a second before SIGKILL; SIGKILL if not said.
    #[must_use]
    pub fn farewell(mut self, signal: Signal) -> Self {
        self.farewell = signal;
        self
    }

    /// Starts the server and waits until `ready` says that it answers.
    #[must_use]
    pub fn start(self, ready: impl FnMut() -> bool) -> Server {
        let server = Server { recipe: self, child: Mutex::new(None) };
        server.start_again(ready);
        server
    }
}

impl Server {
    /// Starts the server anew after [`kill`](Self::kill), and waits until `ready` says that it answers.
    pub fn start_again(&self, ready: impl FnMut() -> bool) {
        assert!(self.child.lock().unwrap().is_none(), "{} runs already", self.recipe.name);
        let child = self.spawn();
        guard::started(child.id(), self.recipe.farewell);
        *self.child.lock().unwrap() = Some(child);
        self.wait_until_ready(ready);
    }

    fn spawn(&self) -> Child {
        let recipe = &self.recipe;
        let mut command =
            if recipe.privileged { Command::new(&recipe.program) } else { guard::without_privileges(&recipe.program) };
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        guard::give_away(&self.log());
        command
            .args(&recipe.arguments)
            .current_dir(&recipe.folder)
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", &recipe.folder)
            .env("TMPDIR", &recipe.folder)
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(recipe.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} could not be started: {error}", recipe.program.display()))
    }

    fn wait_until_ready(&self, mut ready: impl FnMut() -> bool) {
        let name = self.recipe.name;
        let began = Instant::now();
        while !ready() {
            let ended = self.child.lock().unwrap().as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("{name} ended at its start ({status}):\n{}", self.last_words());
            }
            assert!(began.elapsed() < START_LIMIT, "{name} does not answer:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server and all that it started with SIGKILL, as a power failure would. One that is dead is fine.
    pub fn kill(&self) {
        let held = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = held else { return };
        if child.try_wait().unwrap().is_none() {
            // One that stands still starts no other while they are counted.
            rustix::process::kill_process(pid(child.id()), Signal::STOP).ok();
        }
        let mut started = descendants(child.id());
        // Each may be gone already.
        rustix::process::kill_process_group(pid(child.id()), Signal::KILL).ok();
        child.wait().unwrap();
        guard::stopped(child.id());
        wait_until(Duration::from_secs(60), "a killed server's processes to go", || {
            // Somebody else may have killed the server before: what it had started has another parent since.
            started.extend(working_in(&self.recipe.works_in));
            started.retain(|process| state(*process).is_some_and(|(state, _)| state != 'Z'));
            for process in &started {
                rustix::process::kill_process(pid(*process), Signal::KILL).ok();
            }
            started.is_empty()
        });
    }

    /// Sends `signal` to the server and all that it started.
    pub fn signal(&self, signal: Signal) {
        for process in [vec![self.pid()], descendants(self.pid())].concat() {
            // It may have ended meanwhile.
            rustix::process::kill_process(pid(process), signal).ok();
        }
    }

    /// Process id of the server, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("the server runs").id()
    }

    /// The folder with its configuration, data and log.
    pub fn folder(&self) -> &Path {
        &self.recipe.folder
    }

    /// Its standard output and error, in one file.
    pub fn log(&self) -> PathBuf {
        self.recipe.folder.join("log")
    }

    fn last_words(&self) -> String {
        let log = String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            rustix::process::kill_process(pid(child.id()), self.recipe.farewell).ok();
            let began = Instant::now();
            while child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }
}

/// Ports that are free on the loopback interface, each given once.
///
/// They lie below those that the kernel gives by itself to connections and listeners, so that nobody takes one while its
/// server is dead and about to be started again.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    std::array::from_fn(|_| {
        loop {
            let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % 22_000;
            let port = 10_000 + u16::try_from(number).unwrap();
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        }
    })
}

/// Where the program `name` lies: among the tools that tests/run installed, or where the system has it.
///
/// Panics if it is missing: a test without its server has failed, not passed.
pub fn program(name: &str) -> PathBuf {
    if name.contains('/') {
        return name.into();
    }
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; run tests/run, which installs what the tests need"))
}

/// The search path of everything the tests start.
pub fn search_path() -> OsString {
    let tools = std::env::var_os("OFFSITE_TEST_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("offsite-tests")
    });
    let mut folders = vec![tools.join("venv/bin")];
    folders.extend(newest_postgres());
    folders.extend(["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(folders).unwrap()
}

/// The programs of the newest PostgreSQL, which Debian keeps apart.
fn newest_postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    versions.max().map(|version| format!("/usr/lib/postgresql/{version}/bin").into())
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

/// All processes that `process` started, and those that they started.
fn descendants(process: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process| Some((process, state(process)?.1)))
        .collect();
    let mut found = vec![process];
    let mut seen = 0;
    while let Some(parent) = found.get(seen).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        seen += 1;
    }
    found.split_off(1)
}

/// All processes whose folder this is.
fn working_in(folder: &Path) -> Vec<u32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let there = |process: &u32| std::fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|cwd| cwd == folder);
    let all = std::fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(there).collect()
}

/// State and parent of a process, if there is such a one.
pub(crate) fn state(process: u32) -> Option<(char, u32)> {
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
