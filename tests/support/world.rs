//! A world for one test: folders, a configuration, and the real program run in them as a child process.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::{guard, process};

/// The longest that one run of the program may take.
const RUN_LIMIT: Duration = Duration::from_secs(600);

/// Folders of one test; removed when it ends.
#[derive(Debug)]
pub struct World {
    folder: tempfile::TempDir,
}

/// One run of the program that is being prepared.
#[derive(Debug)]
pub struct Offsite {
    command: Command,
    input: Vec<u8>,
}

/// The program while it runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    peak_kib: u64,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; nothing if a signal ended it.
    pub code: Option<i32>,
    /// What it printed as its result.
    pub stdout: String,
    /// What it told meanwhile.
    pub stderr: String,
    /// The most memory it was seen to hold, in KiB.
    pub peak_kib: u64,
}

impl World {
    /// An empty world.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("world-").tempdir_in(guard::folder()).unwrap() }
    }

    /// An empty world in memory, if the machine has room for some: for tests that make and remove so many files that it
    /// would take a disk minutes.
    pub fn in_memory() -> Self {
        const ROOM: u64 = 3 << 30;
        let memory = Path::new("/dev/shm");
        let room = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
        if room < ROOM {
            return Self::new();
        }
        let folder = tempfile::Builder::new().prefix("offsite-world-").tempdir_in(memory).unwrap();
        guard::made(folder.path());
        Self { folder }
    }

    /// A path in this world.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a folder with all its parents.
    pub fn make_folder(&self, name: impl AsRef<Path>) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Writes a file that only its owner can read, and the folders it lies in.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(content.as_ref()).unwrap();
        path
    }

    /// Writes the configuration that [`offsite`](Self::offsite) uses.
    pub fn configure(&self, toml: &str) -> PathBuf {
        self.write("offsite.toml", toml)
    }

    /// Lets writers be held for as long as that can be configured: for a machine that has much else to do.
    pub fn be_patient(&self) {
        let path = self.path("offsite.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        self.configure(&format!("{text}\n[capture]\nhold_limit = \"2 s\"\n"));
    }

    /// The program with these arguments, in a clean environment whose `OFFSITE_CONFIG` is this world's configuration.
    pub fn offsite<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Offsite {
        self.command(offsite_program(), arguments)
    }

    /// Commands of a shell, which ends with the first that fails, in the same environment; `offsite` is the program.
    pub fn shell(&self, script: &str) -> Offsite {
        let mut shell = self.command(Path::new("/bin/sh"), ["-e", "-c", script]);
        let folders = std::env::split_paths(&process::search_path()).collect::<Vec<_>>();
        let own = offsite_program().parent().unwrap().to_owned();
        shell.command.env("PATH", std::env::join_paths(std::iter::once(own).chain(folders)).unwrap());
        shell
    }

    fn command<A: AsRef<OsStr>>(&self, program: &Path, arguments: impl IntoIterator<Item = A>) -> Offsite {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", process::search_path())
            .env("HOME", self.make_folder("home"))
            .env("TMPDIR", self.make_folder("tmp"))
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("RUST_BACKTRACE", "1")
            .env("OFFSITE_CONFIG", self.path("offsite.toml"));
        Offsite { command, input: Vec::new() }
    }
}

impl Offsite {
    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads from its standard input; nothing if not said.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it to its end, and panics with all it said if its exit code is not `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        let outcome = self.run();
        assert_eq!(outcome.code, Some(code), "wrong exit code\n{outcome}");
        outcome
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let command = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), self.input);
        // A program that ends without reading its input is fine.
        std::thread::spawn(move || stdin.write_all(&input).ok());
        let stdout = Some(collect(child.stdout.take().unwrap()));
        let stderr = Some(collect(child.stderr.take().unwrap()));
        Running { child, stdout, stderr, peak_kib: 0 }
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether a signal has stopped it.
    pub fn stands_still(&self) -> bool {
        process::state(self.child.id()).is_some_and(|(state, _)| state == 'T')
    }

    /// Kills it as a power failure would, and waits until it is gone.
    pub fn kill(mut self) -> Outcome {
        self.child.kill().unwrap();
        self.wait()
    }

    /// Waits until it ends; kills it and panics after ten minutes.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let began = Instant::now();
        let mut late = false;
        let status = loop {
            self.peak_kib = self.peak_kib.max(peak_kib(self.child.id()));
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            late = began.elapsed() > RUN_LIMIT;
            if late {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let outcome = Outcome {
            code: status.code(),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
            peak_kib: self.peak_kib,
        };
        assert!(!late, "it did not end within {RUN_LIMIT:?}\n{outcome}");
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Outcome {
    /// Its result as a JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error})\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// The `offsite` program, built from the sources as they are now, with the profile of the running tests.
pub fn offsite_program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let tests = std::env::current_exe().unwrap();
        let profile = tests.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut build = Command::new(cargo);
        // Together with a test, so that the features are those of the tests: what was built for them serves here too.
        build.args(["build", "--quiet", "--workspace", "--locked", "--test=it", "--bin=offsite", "--target-dir"]);
        build.arg(profile.parent().unwrap()).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // What Cargo told this test of its package would reach build scripts that look at it, and all be built again.
        for name in std::env::vars_os().map(|(name, _)| name) {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.as_encoded_bytes().starts_with(of.as_bytes())) {
                build.env_remove(name);
            }
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let result = build.output().unwrap();
        assert!(result.status.success(), "offsite does not build:\n{}", String::from_utf8_lossy(&result.stderr));
        profile.join("offsite")
    });
    &PROGRAM
}

/// The most memory that a process has held so far; 0 if it is gone.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn text(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    String::from_utf8_lossy(&reader.unwrap().join().unwrap()).into_owned()
}
