//! The Debian package: it installs, its unit is sound, the service's account makes a backup, and nothing of the office's
//! goes when it is removed. In a root of its own, so that this machine stays as it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::{World, offsite_program};

/// What `systemd-analyze security` may say at most, in tenths: below 2.5 it says OK.
const EXPOSURE_MAX: &str = "25";

struct Installed {
    world: World,
    root: PathBuf,
    package: PathBuf,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{text}\n{}", String::from_utf8_lossy(&stderr));
    text
}

impl Installed {
    fn new() -> Self {
        let world = World::new();
        let mut build = Command::new(repository().join("deploy/debian/build"));
        build.arg("--binary").arg(offsite_program()).arg("--output").arg(world.path("package"));
        let package = succeed(build.env("OFFSITE_DEB_FAST", "1")).trim().into();
        let root = world.make_folder("root");
        // As much of a system as dpkg and systemd-sysusers ask for.
        for folder in ["root/etc", "root/var/lib/dpkg/info", "root/var/lib/dpkg/updates"] {
            world.make_folder(folder);
        }
        world.write("root/var/lib/dpkg/status", "");
        let installed = Self { world, root, package };
        let package = installed.package.to_str().unwrap().to_owned();
        installed.dpkg(&["--force-depends", "-i", &package]);
        installed
    }

    /// Without root's rights, pretended ones do: then everything belongs to whoever runs the tests.
    fn dpkg(&self, arguments: &[&str]) -> String {
        let mut command = if is_root() { Command::new("dpkg") } else { Command::new("fakeroot") };
        if !is_root() {
            command.arg("dpkg");
        }
        command.arg(format!("--root={}", self.root.display())).args(["--log=/dev/null", "--force-script-chrootless"]);
        succeed(command.args(arguments).env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The number of the account that the package made.
    fn account(&self) -> u32 {
        let users = std::fs::read_to_string(self.path("etc/passwd")).unwrap();
        let line = users.lines().find(|line| line.starts_with("offsite:")).expect("there is no account");
        assert!(line.ends_with("/usr/sbin/nologin"), "{line}");
        line.split(':').nth(2).unwrap().parse().unwrap()
    }

    /// The installed program, with the rights that the unit gives it if there are any to give.
    fn offsite(&self, as_service: bool, arguments: &[&str]) -> Command {
        let program = self.path("usr/bin/offsite");
        let mut command = if as_service && is_root() {
            let account = self.account().to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &account, "--regid", &account, "--clear-groups", "--no-new-privs"]).args([
                "--inh-caps=-all,+dac_read_search",
                "--ambient-caps=-all,+dac_read_search",
                "--bounding-set=-all,+dac_read_search",
            ]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env("OFFSITE_CONFIG", self.path("etc/offsite/offsite.toml")).args(arguments);
        command
    }
}

#[test]
fn the_package_installs_backs_up_as_its_own_account_and_leaves_what_is_the_offices() {
    let installed = Installed::new();
    let world = &installed.world;
    let documents = world.make_folder("documents");
    world.write("documents/letter", "Dear customer");
    let store = world.make_folder("root/var/lib/offsite/store");
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (source, store) = (text(documents), text(store));
    let (staging, state) =
        (text(installed.path("var/lib/offsite/staging")), text(installed.path("var/lib/offsite/state")));
    let (one, two) = (text(world.path("one.txt")), text(world.path("two.txt")));
    // As the administrator who sets it up.
    let said = succeed(&mut installed.offsite(
        false,
        &[
            "init",
            "--site",
            "office",
            "--source",
            &source,
            "--store",
            &store,
            "--staging",
            &staging,
            "--state",
            &state,
            "--new-identity",
            &one,
            "--new-identity",
            &two,
        ],
    ));
    assert!(said.contains("What to do next") && said.contains("daemon"), "{said}");
    if is_root() {
        let account = installed.account();
        for made in
            ["etc/offsite/offsite.toml", "etc/offsite/site.key", "var/lib/offsite/staging", "var/lib/offsite/state"]
        {
            let metadata = std::fs::metadata(installed.path(made)).unwrap();
            assert_eq!((metadata.uid(), metadata.mode() & 0o077), (account, 0), "{made}");
        }
        std::os::unix::fs::chown(&store, Some(account), Some(account)).unwrap();
    }
    // As the service, which reads what is the administrator's own.
    succeed(&mut installed.offsite(true, &["check"]));
    let report = succeed(&mut installed.offsite(true, &["--json", "backup"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["stores"][0]["stored"], true, "{report}");
    installed.dpkg(&["-r", "offsite"]);
    assert!(!installed.path("usr/bin/offsite").exists() && !installed.path("usr/lib/systemd").exists());
    installed.dpkg(&["-P", "offsite"]);
    for kept in ["etc/offsite/offsite.toml", "etc/offsite/site.key", "var/lib/offsite/state/state.db"] {
        assert!(installed.path(kept).exists(), "{kept} is gone");
    }
    assert!(Path::new(&store).join("office/heartbeat.json").exists());
}

#[test]
fn the_unit_is_sound_and_exposes_little() {
    let installed = Installed::new();
    let root = format!("--root={}", installed.root.display());
    let exposure = succeed(Command::new("systemd-analyze").args([
        "security",
        "--offline=true",
        "--no-pager",
        &root,
        &format!("--threshold={EXPOSURE_MAX}"),
        "offsite.service",
    ]));
    assert!(exposure.contains("Overall exposure level"), "{exposure}");
    // The units that it refers to are those of this machine.
    let units = installed.path("usr/lib/systemd/system");
    succeed(Command::new("cp").args(["-a", "-n", "/usr/lib/systemd/system/."]).arg(&units));
    succeed(Command::new("systemd-analyze").args(["verify", "--man=no", &root, "offsite.service"]));
    for file in ["usr/share/man/man1/offsite.1.gz", "usr/share/bash-completion/completions/offsite"] {
        assert!(std::fs::metadata(installed.path(file)).unwrap().len() > 1000, "{file}");
    }
    for example in ["full.toml", "minimal.toml"] {
        assert!(installed.path("usr/share/doc/offsite/examples").join(example).exists(), "{example}");
    }
}

/// Without an engine, what can be checked is that the image is made of what is there.
#[test]
fn the_container_is_made_of_what_there_is() {
    let recipe = std::fs::read_to_string(repository().join("deploy/container/Dockerfile")).unwrap();
    let copied =
        recipe.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    let mut files = 0;
    for line in copied {
        let words: Vec<&str> = line.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(repository().join(source).exists(), "{source} is not there");
            files += 1;
        }
    }
    assert!(files >= 5, "{files}");
    let toolchain = recipe.lines().find_map(|line| line.strip_prefix("FROM rust:")).unwrap();
    let version = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    let cargo: toml::Table = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
    let needed = cargo["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(version(toolchain.split('-').next().unwrap()) >= version(needed), "{toolchain} is older than {needed}");
}
