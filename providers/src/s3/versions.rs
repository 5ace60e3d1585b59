//! Older versions of objects, their locks, and deleting.

use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use super::classify::classify;
use super::pages::{Page, pages};
use super::{S3Store, timestamp};
use crate::error::{ErrorKind, Result};
use crate::key::KeyPrefix;
use crate::store::{Deletion, ObjectRef, ObjectVersion, Versions};

#[async_trait]
impl Versions for S3Store {
    fn list_versions<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectVersion>> {
        pages(self, "listing versions", move |from: Option<(String, Option<String>)>| async move {
            let (key_marker, version_marker) = from.unzip();
            let request = self.client().await.list_object_versions().bucket(self.bucket());
            let request = request.prefix(format!("{}{prefix}", self.settings.prefix));
            let request = request.set_key_marker(key_marker).set_version_id_marker(version_marker.flatten());
            let reply = request.send().await.map_err(|cause| classify("listing versions", cause).store(self))?;
            let object = |key: Option<&str>, version: Option<&str>| {
                let key = self.own(key?).filter(|key| prefix.strip(key).is_some())?;
                Some(ObjectRef { key, version: Some(version?.to_owned()) })
            };
            let mut items = Vec::new();
            items.extend(reply.versions().iter().filter_map(|found| {
                Some(ObjectVersion {
                    object: object(found.key(), found.version_id())?,
                    bytes: u64::try_from(found.size()?).ok()?,
                    modified: timestamp(found.last_modified()?)?,
                    delete_marker: false,
                })
            }));
            items.extend(reply.delete_markers().iter().filter_map(|found| {
                Some(ObjectVersion {
                    object: object(found.key(), found.version_id())?,
                    bytes: 0,
                    modified: timestamp(found.last_modified()?)?,
                    delete_marker: true,
                })
            }));
            let more = reply.is_truncated().unwrap_or_default();
            let next = reply.next_key_marker().filter(|_| more);
            let next = next.map(|key| (key.to_owned(), reply.next_version_id_marker().map(str::to_owned)));
            Ok(Page { items, next })
        })
    }

    async fn locked_until(&self, object: &ObjectRef) -> Result<Option<Timestamp>> {
        let request = self.client().await.get_object_retention().bucket(self.bucket()).key(self.full(&object.key));
        match request.set_version_id(object.version.clone()).send().await {
            Ok(reply) => {
                let until = reply.retention().and_then(|retention| retention.retain_until_date());
                Ok(until.and_then(timestamp))
            }
            Err(cause) => {
                let unlocked = matches!(
                    cause.code(),
                    Some("NoSuchObjectLockConfiguration" | "ObjectLockConfigurationNotFoundError" | "InvalidRequest")
                );
                if unlocked {
                    return Ok(None);
                }
                Err(self.failed("asking for the lock of", &object.key, cause))
            }
        }
    }
}

#[async_trait]
impl Deletion for S3Store {
    async fn delete(&self, object: &ObjectRef) -> Result<()> {
        let request = self.client().await.delete_object().bucket(self.bucket()).key(self.full(&object.key));
        match request.set_version_id(object.version.clone()).send().await {
            Ok(_) => Ok(()),
            Err(cause) => match self.failed("deleting", &object.key, cause) {
                error if error.kind == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}
