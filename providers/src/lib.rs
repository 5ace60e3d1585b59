//! Places off site: S3-compatible storage, WebDAV servers, directories.
//!
//! This crate knows names and bytes. It never sees plaintext, a passphrase, or what the objects mean.

mod error;
mod key;
mod settings;
mod store;

pub use error::{Error, ErrorKind, Result, Retry};
pub use key::{KEY_BYTES_MAX, KeyError, KeyPrefix, ObjectKey};
pub use settings::{
    Access, DirectorySettings, LockMode, Policy, Rate, S3Credentials, S3Settings, Secret, StoreSettings, WebdavLogin,
    WebdavSettings,
};
pub use store::{
    Body, ByteRange, ByteStream, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore, ObjectVersion, Part,
    PartLimits, PutMode, PutOptions, Sha256Digest, Upload, Versions,
};

pub use secrecy::ExposeSecret;
pub use url::Url;
