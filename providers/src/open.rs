//! Making a store of its settings.

use std::sync::Arc;

use crate::directory::DirectoryStore;
use crate::error::Result;
use crate::guarded::Guarded;
use crate::s3::S3Store;
use crate::settings::{Access, Policy, StoreSettings};
use crate::store::ObjectStore;
use crate::webdav::WebdavStore;

/// Opens a store, with retries, limits and time limits around it. No request is made yet.
///
/// Fails with [`Config`](crate::ErrorKind::Config) if the settings cannot be right, and with
/// [`Local`](crate::ErrorKind::Local) if the certificate file cannot be read.
pub fn open(settings: &StoreSettings, access: Access, policy: &Policy) -> Result<Arc<dyn ObjectStore>> {
    let store: Arc<dyn ObjectStore> = match settings {
        StoreSettings::Directory(settings) => Arc::new(DirectoryStore::new(settings, access)?),
        StoreSettings::S3(settings) => Arc::new(S3Store::new(settings, access, policy)?),
        StoreSettings::Webdav(settings) => Arc::new(WebdavStore::new(settings, access, policy)?),
    };
    Ok(guard(store, policy))
}

/// Puts retries and the limit on requests around any store.
pub fn guard(store: Arc<dyn ObjectStore>, policy: &Policy) -> Arc<dyn ObjectStore> {
    Arc::new(Guarded::new(store, policy))
}
