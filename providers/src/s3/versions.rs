//! Older versions of objects, their locks, and deleting.

use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, LifecycleRuleFilter};
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

    async fn hidden_for(&self, prefix: &KeyPrefix) -> Result<Option<u32>> {
        let request = self.client().await.get_bucket_lifecycle_configuration().bucket(self.bucket());
        match request.send().await {
            Ok(reply) => {
                let below = format!("{}{prefix}", self.settings.prefix);
                Ok(reply.rules().iter().filter_map(|rule| hidden_days(rule, &below)).min())
            }
            Err(cause) if cause.code() == Some("NoSuchLifecycleConfiguration") => Ok(None),
            Err(cause) => Err(classify("asking for the rules of the bucket", cause).store(self)),
        }
    }
}

/// After how many days `rule` removes every version below `prefix` that is hidden; nothing if it spares any.
fn hidden_days(rule: &LifecycleRule, prefix: &str) -> Option<u32> {
    let expiration = rule.noncurrent_version_expiration()?;
    let spares = expiration.newer_noncurrent_versions().is_some_and(|count| count > 0);
    #[expect(deprecated, reason = "servers still answer with what they were given long ago")]
    let old_prefix = rule.prefix();
    let of_filter = |filter: &LifecycleRuleFilter| {
        let of_size = filter.object_size_greater_than().is_some() || filter.object_size_less_than().is_some();
        if of_size || filter.tag().is_some() || filter.and().is_some() {
            return false;
        }
        filter.prefix().is_none_or(|of| prefix.starts_with(of))
    };
    let fits = rule.filter().is_none_or(of_filter) && old_prefix.is_none_or(|of| prefix.starts_with(of));
    let days = expiration.noncurrent_days().and_then(|days| u32::try_from(days).ok())?;
    (fits && !spares && *rule.status() == ExpirationStatus::Enabled).then_some(days)
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

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleRuleAndOperator, NoncurrentVersionExpiration};

    use super::*;

    #[test]
    fn only_a_rule_that_spares_nothing_of_ours_counts() {
        let rule =
            |days: Option<i32>, spared: Option<i32>, status: ExpirationStatus, filter: Option<LifecycleRuleFilter>| {
                let expiration = NoncurrentVersionExpiration::builder()
                    .set_noncurrent_days(days)
                    .set_newer_noncurrent_versions(spared)
                    .build();
                let rule = LifecycleRule::builder().status(status).noncurrent_version_expiration(expiration);
                hidden_days(&rule.set_filter(filter).build().unwrap(), "customers/main-street/")
            };
        let below = |prefix: &str| Some(LifecycleRuleFilter::builder().prefix(prefix).build());
        let both = LifecycleRuleAndOperator::builder().prefix("customers/").object_size_greater_than(1).build();
        let on = || ExpirationStatus::Enabled;
        assert_eq!(rule(Some(30), None, on(), None), Some(30));
        assert_eq!(rule(Some(30), Some(0), on(), below("")), Some(30));
        assert_eq!(rule(Some(30), None, on(), below("customers/")), Some(30));
        assert_eq!(rule(Some(30), None, ExpirationStatus::Disabled, None), None);
        assert_eq!(rule(None, None, on(), None), None);
        assert_eq!(rule(Some(30), Some(1), on(), None), None);
        assert_eq!(rule(Some(30), None, on(), below("customers/main-street/rolling/")), None);
        assert_eq!(rule(Some(30), None, on(), Some(LifecycleRuleFilter::builder().and(both).build())), None);
        let plain = LifecycleRule::builder().status(on()).build().unwrap();
        assert_eq!(hidden_days(&plain, "customers/"), None);
    }
}
