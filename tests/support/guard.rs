//! Whatever a test process starts or makes ends with it, even if it is killed.
//!
//! A shell holds the read end of a pipe whose write end only the test process has. When that closes, for whatever
//! reason, the shell kills the process groups it was told of and removes the process's temporary folder. (A
//! parent-death signal would not do: it comes when the *thread* that started a server ends, is lost when a server
//! changes its user, and does not reach grandchildren.)

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use rustix::process::Signal;

/// The user that servers run as if the tests run as root, and its group.
const UNPRIVILEGED: (&str, &str) = ("nobody", "nogroup");

/// `started GROUP SIGNAL`, `stopped GROUP`, `made PATH` and `mounted PATH`, a line each; the end of the input means: clean up.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
running= made= mounted=
while read -r word what signal; do
    case $word in
    started) running="$running $what:$signal" ;;
    stopped)
        left=
        for each in $running; do [ "${each%:*}" = "$what" ] || left="$left $each"; done
        running=$left
        ;;
    made) made="$made $what" ;;
    mounted) mounted="$what $mounted" ;;
    esac
done
for each in $running; do kill -"${each#*:}" "-${each%:*}"; done
[ -z "$running" ] || sleep 1
for each in $running; do kill -9 "-${each%:*}"; done
for each in $mounted; do umount -l "$each" || sudo -n umount -l "$each"; done
for each in $made; do rm -rf -- "$each"; done
"#;

#[expect(clippy::zombie_processes, reason = "it outlives this process")]
static GUARD: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh is needed");
    Mutex::new(shell.stdin.take().expect("it was piped"))
});

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::Builder::new().prefix("offsite-tests-").tempdir().unwrap().keep();
    // Servers that run as another user must get through.
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if std::env::var_os("OFFSITE_TEST_KEEP").is_some() {
        eprintln!("kept for a look: {}", folder.display());
    } else {
        made(&folder);
    }
    folder
});

/// The temporary folder of this test process.
pub fn folder() -> &'static Path {
    &FOLDER
}

/// A new folder for a server called `name`, which belongs to the user that it will run as.
pub fn server_folder(name: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(folder()).unwrap().keep();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    give_away(&folder);
    folder
}

/// Gives a file or folder to the user that servers run as.
pub fn give_away(path: &Path) {
    if let Some((user, group)) = unprivileged() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

/// The same for a folder and all it holds.
pub fn give_away_all(folder: &Path) {
    give_away(folder);
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => give_away_all(&entry.path()),
            false => give_away(&entry.path()),
        }
    }
}

/// `command`, to be run as the unprivileged user if we are root.
pub fn without_privileges(program: &Path) -> Command {
    if unprivileged().is_none() {
        return Command::new(program);
    }
    let (user, group) = UNPRIVILEGED;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", group, "--clear-groups", "--"]).arg(program);
    command
}

/// User and group id that servers run as if we are root.
fn unprivileged() -> Option<(u32, u32)> {
    static IDS: LazyLock<Option<(u32, u32)>> = LazyLock::new(|| {
        let id = |file: &str, name: &str| -> u32 {
            let text = std::fs::read_to_string(file).unwrap();
            let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
            line.unwrap_or_else(|| panic!("{file} has no {name}")).split(':').nth(2).unwrap().parse().unwrap()
        };
        let (user, group) = UNPRIVILEGED;
        rustix::process::geteuid().is_root().then(|| (id("/etc/passwd", user), id("/etc/group", group)))
    });
    *IDS
}

/// The process group `group` runs, and at our end gets `signal`, then SIGKILL.
pub(crate) fn started(group: u32, signal: Signal) {
    tell(&format!("started {group} {}", signal.as_raw()));
}

/// The process group `group` is gone.
pub(crate) fn stopped(group: u32) {
    tell(&format!("stopped {group}"));
}

/// `path`, which holds no white space, is to be removed at our end.
pub(crate) fn made(path: &Path) {
    tell(&format!("made {}", path.display()));
}

/// A file system is mounted on `path`, which holds no white space; what is still mounted at our end goes.
pub(crate) fn mounted(path: &Path) {
    tell(&format!("mounted {}", path.display()));
}

fn tell(line: &str) {
    writeln!(GUARD.lock().unwrap(), "{line}").expect("the guard has gone");
}
