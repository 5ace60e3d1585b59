//! Making an object of another one inside the bucket.

use async_trait::async_trait;
use aws_sdk_s3::types::ChecksumAlgorithm;
use jiff::Timestamp;

use super::{S3Store, lock, tags};
use crate::error::Result;
use crate::key::ObjectKey;
use crate::store::{Copying, ObjectRef, PutOptions, Sha256Digest};

#[async_trait]
impl Copying for S3Store {
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        locked_until: Option<Timestamp>,
    ) -> Result<Option<Sha256Digest>> {
        const OPERATION: &str = "copying to";
        if locked_until.is_some() {
            self.refuse_without_lock(OPERATION, to).await?;
        }
        self.refuse_taken(OPERATION, to).await?;
        let lock = locked_until.map(|until| self.lock(until));
        let request = self.client().await.copy_object().bucket(self.bucket()).key(self.full(to));
        let request = request
            // Nothing in a key needs to be encoded.
            .copy_source(format!("{}/{}", self.bucket(), self.full(from)))
            // A server that knows what this means reads the bytes and says what they are.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_object_lock_mode(lock.as_ref().map(|lock| lock.mode.clone()))
            .set_object_lock_retain_until_date(lock.map(|lock| lock.until))
            .if_none_match("*");
        let options = PutOptions { locked_until, ..PutOptions::CREATE };
        let reply = request.send().await;
        let reply = reply.map_err(|cause| lock::refused(self.failed(OPERATION, to, cause), &options))?;
        if let Some(until) = locked_until {
            let copy = ObjectRef { key: to.clone(), version: reply.version_id().map(str::to_owned) };
            self.assure_locked(OPERATION, &copy, until).await?;
        }
        let said = reply.copy_object_result().and_then(|copied| copied.checksum_sha256());
        Ok(self.believed(said).and_then(tags::sha256_of_text))
    }
}
