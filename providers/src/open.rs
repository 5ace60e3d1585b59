//! Making a store of its settings.

use std::sync::Arc;

use crate::directory::DirectoryStore;
use crate::error::Result;
use crate::guarded::Guarded;
use crate::s3::S3Store;
use crate::settings::{Access, Policy, Seen, StoreSettings};
use crate::store::ObjectStore;
use crate::webdav::WebdavStore;

/// Opens a store that was never probed, with retries, limits and time limits around it. No request is made yet.
///
/// Fails with [`Config`](crate::ErrorKind::Config) if the settings cannot be right, and with
/// [`Local`](crate::ErrorKind::Local) if the certificate file cannot be read.
pub fn open(settings: &StoreSettings, access: Access, policy: &Policy) -> Result<Arc<dyn ObjectStore>> {
    open_as_seen(settings, access, policy, Seen::default())
}

/// As [`open`], a store of which is known what it really does: what it was seen not to do is not offered.
pub fn open_as_seen(
    settings: &StoreSettings,
    access: Access,
    policy: &Policy,
    seen: Seen,
) -> Result<Arc<dyn ObjectStore>> {
    Ok(guard(unguarded(settings, access, policy, seen)?, policy))
}

/// The store itself: whatever it answers is the answer.
pub(crate) fn unguarded(
    settings: &StoreSettings,
    access: Access,
    policy: &Policy,
    seen: Seen,
) -> Result<Arc<dyn ObjectStore>> {
    Ok(match settings {
        StoreSettings::Directory(settings) => Arc::new(DirectoryStore::new(settings, access)?),
        StoreSettings::S3(settings) => Arc::new(S3Store::new(settings, access, policy, seen)?),
        StoreSettings::Webdav(settings) => Arc::new(WebdavStore::new(settings, access, policy, seen)?),
    })
}

/// Puts retries and the limit on requests around any store.
pub fn guard(store: Arc<dyn ObjectStore>, policy: &Policy) -> Arc<dyn ObjectStore> {
    Arc::new(Guarded::new(store, policy))
}
