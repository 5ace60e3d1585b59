//! Places off site: S3-compatible storage, WebDAV servers, directories.
//!
//! This crate knows names and bytes. It never sees plaintext, a passphrase, or what the objects mean.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod directory;
mod error;
mod exact;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod guarded;
mod key;
mod lanes;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod open;
mod pace;
mod past;
mod probe;
mod proof;
mod retry;
mod s3;
mod settings;
mod store;
mod transport;
mod webdav;

pub use error::{Error, ErrorKind, Result, Retry};
pub use key::{KEY_BYTES_MAX, KeyError, KeyPrefix, ObjectKey, SEGMENT_BYTES_MAX};
#[cfg(any(test, feature = "testing"))]
pub use memory::MemoryStore;
pub use open::{guard, open, open_as_seen};
pub use past::{NO_VERSION, as_of};
pub use probe::{Finding, Verdict, probe};
pub use proof::holds;
pub use settings::{
    Access, DirectorySettings, LockMode, Mark, Policy, Rate, S3Credentials, S3Settings, Secret, Seen, StoreSettings,
    WebdavLogin, WebdavSettings,
};
pub use store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore,
    ObjectVersion, Part, PartLimits, PutMode, PutOptions, Sha256Digest, Upload, Versions, lasts_until,
};

/// Reads an answer to PROPFIND, as tests of foreign bytes want it: whatever comes, it ends, and its entries have paths.
#[cfg(any(test, feature = "testing"))]
pub fn read_multistatus(xml: &[u8]) -> Vec<String> {
    webdav::paths_in(xml)
}

pub use secrecy::ExposeSecret;
pub use url::Url;
