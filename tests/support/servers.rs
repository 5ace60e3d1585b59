//! Real servers. Each is started once per test process, when the first test asks for it, and shared by all tests; what
//! a test stores lies in a bucket or collection of its own. A test that kills or breaks a server starts one of its own.

mod apache;
mod ceph;
mod mariadb;
mod nginx;
mod postgres;
mod rclone;
mod sabre;
mod seaweedfs;
mod sink;
mod wsgidav;

pub use apache::{apache, own_apache};
pub use ceph::s3_with_policies;
pub use mariadb::{MariaDb, mariadb};
pub use nginx::nginx;
pub use postgres::{Postgres, SUPERUSER, postgres};
pub use rclone::{RcloneS3, rclone_s3, rclone_webdav};
pub use sabre::{nextcloud_stand_in, own_nextcloud_stand_in, sabre};
pub use seaweedfs::{Bucket, Keys, SeaweedFs, Version, seaweedfs};
pub use sink::{MAIL_PASSWORD, MAIL_USER, Sink};
pub use wsgidav::wsgidav;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::Server;
use crate::{guard, http};

/// Who logs in at every WebDAV server.
pub const USER: &str = "site-a";
/// The password of [`USER`].
pub const PASSWORD: &str = "secret-a";

/// An S3 server whose buckets give each role its rights as `deploy/policies` has them.
pub trait S3Server: Sync {
    /// Its endpoint.
    fn url(&self) -> String;
    /// Makes a bucket whose name begins with `name`.
    fn bucket(&self, name: &str) -> Bucket;
    /// Makes a bucket that keeps versions and can lock them.
    fn locking_bucket(&self, name: &str) -> Bucket;
}

/// A WebDAV server.
#[derive(Debug)]
pub struct WebDav {
    /// What it is called in the tables of what servers do.
    pub name: &'static str,
    /// The process, to be killed and started again.
    pub server: Server,
    /// The folder that it serves.
    pub folder: PathBuf,
    /// Its addresses, each ending in `/`.
    pub urls: Urls,
}

/// The addresses of one collection of a WebDAV server, each ending in `/`; those that the server has.
#[derive(Clone, Debug, Default)]
pub struct Urls {
    /// Basic login, not encrypted.
    pub http: Option<String>,
    /// Basic login; the certificate is signed by [`authority`](crate::tls::authority).
    pub https: Option<String>,
    /// Digest login, not encrypted.
    pub http_digest: Option<String>,
    /// Digest login; the certificate is signed by [`authority`](crate::tls::authority).
    pub https_digest: Option<String>,
}

/// Every WebDAV server, for what has to hold on all of them.
pub fn every_webdav() -> [&'static WebDav; 5] {
    [apache(), sabre(), nginx(), wsgidav(), rclone_webdav()]
}

/// An empty collection that one test has for itself.
#[derive(Debug)]
pub struct Collection {
    /// Its addresses.
    pub urls: Urls,
    /// Its folder on the server's disk, to look at and to tamper with.
    pub folder: PathBuf,
}

impl WebDav {
    /// The port of its plain address.
    pub fn port(&self) -> u16 {
        let (_, rest) = self.urls.http.as_ref().unwrap().rsplit_once(':').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    /// Starts it anew after it was killed, on the same port and data.
    pub fn start_again(&self) {
        let port = self.port();
        self.server.start_again(|| http::answers(port));
    }

    /// Makes a new, empty collection whose name begins with `name`.
    pub fn collection(&self, name: &str) -> Collection {
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&self.folder).unwrap().keep();
        guard::give_away(&folder);
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let below = |url: &Option<String>| url.as_ref().map(|url| format!("{url}{name}/"));
        let Urls { http, https, http_digest, https_digest } = &self.urls;
        let urls = Urls {
            http: below(http),
            https: below(https),
            http_digest: below(http_digest),
            https_digest: below(https_digest),
        };
        Collection { urls, folder }
    }
}

/// A line of a password file; bcrypt, made by Apache's own tool.
fn basic_login() -> String {
    let output = Command::new("htpasswd").args(["-nbB", USER, PASSWORD]).stderr(Stdio::null()).output();
    String::from_utf8(output.expect("htpasswd is needed").stdout).unwrap()
}

/// The same for digest login, as RFC 7616 has it: the MD5 of user, realm and password.
fn digest_login() -> String {
    let secret = md5_hex(format!("{USER}:offsite:{PASSWORD}").as_bytes());
    format!("{USER}:offsite:{secret}\n")
}

/// MD5 as lower-case hexadecimal digits, as digest login has it.
fn md5_hex(bytes: &[u8]) -> String {
    use md5::Digest as _;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `name` with a number that no other bucket of this process has.
fn unique(name: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(1);
    format!("{name}-{}", MADE.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command that must succeed.
#[track_caller]
fn run(command: &mut Command) {
    output(command);
}

/// What a command prints, which must succeed; without the last line's end.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {error}", command.get_program().display());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A new folder in `parent` that belongs to the user that servers run as.
fn subfolder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).unwrap();
    guard::give_away(&folder);
    folder
}

/// Writes a file of a server's configuration, which the server can read.
fn write_settings(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    guard::give_away(&file);
    file
}
