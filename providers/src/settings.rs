//! What a store is opened with: plain values, with every secret already looked up.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::key::KeyPrefix;

/// A password, key or token. `Debug` shows nothing of it, and its memory is wiped when it goes.
pub type Secret = secrecy::SecretString;

/// One place off site, of one of the kinds there are.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// A bucket prefix in S3-compatible storage.
    S3(S3Settings),
    /// A folder of a WebDAV server.
    Webdav(WebdavSettings),
    /// A folder of this machine: a disk, a NAS, a USB drive.
    Directory(DirectorySettings),
}

/// Where an S3 store lies, and who asks.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// The server; the one of AWS for `region` if absent.
    pub endpoint: Option<url::Url>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket. It must exist.
    pub bucket: String,
    /// All keys lie below it.
    pub prefix: KeyPrefix,
    /// Whether the bucket is named in the path instead of in the host's name.
    pub path_style: bool,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Who asks.
    pub credentials: S3Credentials,
    /// How firmly objects are locked that are written with a lock date.
    pub lock_mode: LockMode,
}

/// Who asks an S3 store.
#[derive(Clone, Debug)]
pub enum S3Credentials {
    /// Whoever the usual places name: environment, profile files, the machine's role.
    Chain,
    /// A key pair.
    Static {
        /// Identifier of the key; not a secret.
        access_key: String,
        /// The key itself.
        secret_key: Secret,
        /// For temporary keys.
        session_token: Option<Secret>,
    },
}

/// How firmly S3 locks an object (S3 Object Lock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Holders of a special right can remove the lock.
    Governance,
    /// Nobody can, before its date.
    Compliance,
}

/// Where a WebDAV store lies, and who asks.
#[derive(Clone, Debug)]
pub struct WebdavSettings {
    /// The folder all keys lie below; it is made if absent, the server's root must exist.
    pub url: url::Url,
    /// Who asks.
    pub login: WebdavLogin,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Who asks a WebDAV store.
#[derive(Clone, Debug)]
pub enum WebdavLogin {
    /// Nobody in particular.
    None,
    /// Name and password with every request (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// Name and proof of the password (RFC 7616).
    Digest {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token with every request (RFC 6750).
    Bearer {
        /// The token.
        token: Secret,
    },
}

/// Where a directory store lies.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// An existing folder, given absolutely; it is never made, so that an absent USB drive is noticed.
    pub path: PathBuf,
    /// A file of the folder that tells the disk from others that are mounted there at other times.
    pub mark: Option<Mark>,
}

/// What tells one disk from another. Without it, nothing is done: somebody has changed disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The file's name.
    pub file: String,
    /// All it holds.
    pub content: Vec<u8>,
}

/// For whom a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Adds and reads; gets no [`deletion`](crate::ObjectStore::deletion).
    Agent,
    /// Executes retention.
    Keeper,
}

/// What a place was seen to do, as far as it changes what is done there: [`Verdict::seen`](crate::Verdict::seen).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// It refuses by itself to create what is there, so nobody looks before small objects are written.
    pub refuses_taken: bool,
    /// It refuses bodies that are not what their checksum says, so what it says of checksums counts.
    pub checks_content: bool,
    /// Parts that are sent to it are listed and become the object.
    pub takes_parts: bool,
    /// What is locked cannot be deleted.
    pub locks: bool,
}

/// To send a larger object for nothing costs more than to look whether it is there.
const SMALL_BYTES: u64 = 1 << 20;

impl Seen {
    /// Whether an object of `bytes` bytes is looked for before it is created.
    pub(crate) fn looks_before(&self, bytes: u64) -> bool {
        !self.refuses_taken || bytes > SMALL_BYTES
    }
}

impl Default for Seen {
    /// Of a place that was never probed: what can be proved again each time is tried, and nothing else is relied on.
    fn default() -> Self {
        Self { refuses_taken: false, checks_content: true, takes_parts: true, locks: true }
    }
}

/// How patient and how hungry the work with a store is.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Attempts at one operation, the first included; at least 1.
    pub attempts: u32,
    /// No attempt is begun after this time since the first.
    pub elapsed_max: Duration,
    /// Time to reach the server.
    pub connect_timeout: Duration,
    /// Time without a byte moving in either direction, or without an answer to a whole request.
    pub silence_timeout: Duration,
    /// Requests under way at once; at least 1.
    pub requests_max: usize,
    /// How fast bodies are sent.
    pub rate: Rate,
}

impl Default for Policy {
    /// Eight attempts within fifteen minutes, a dead line noticed in 45 seconds, four requests at once, full speed.
    fn default() -> Self {
        Self {
            attempts: 8,
            elapsed_max: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(15),
            silence_timeout: Duration::from_secs(45),
            requests_max: 4,
            rate: Rate::default(),
        }
    }
}

/// How many bytes a second may be sent to network stores, asked again and again while sending.
#[derive(Clone)]
pub struct Rate(Arc<dyn Fn() -> Option<u64> + Send + Sync>);

impl Rate {
    /// `bytes_per_second` says what is allowed at the moment it is called; `None` is no limit, 0 is a standstill.
    pub fn new(bytes_per_second: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes_per_second))
    }

    /// What is allowed now.
    pub fn now(&self) -> Option<u64> {
        (self.0)()
    }
}

impl Default for Rate {
    /// No limit.
    fn default() -> Self {
        Self::new(|| None)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rate({:?})", self.now())
    }
}
