//! Making an object of another one inside the bucket.

use async_trait::async_trait;
use aws_sdk_s3::types::ChecksumAlgorithm;

use super::{S3Store, tags};
use crate::error::Result;
use crate::key::ObjectKey;
use crate::store::{Copying, Sha256Digest};

#[async_trait]
impl Copying for S3Store {
    async fn copy(&self, from: &ObjectKey, to: &ObjectKey) -> Result<Option<Sha256Digest>> {
        const OPERATION: &str = "copying to";
        self.refuse_taken(OPERATION, to).await?;
        let request = self.client().await.copy_object().bucket(self.bucket()).key(self.full(to));
        let request = request
            // Nothing in a key needs to be encoded.
            .copy_source(format!("{}/{}", self.bucket(), self.full(from)))
            // A server that knows what this means reads the bytes and says what they are.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .if_none_match("*");
        let reply = request.send().await.map_err(|cause| self.failed(OPERATION, to, cause))?;
        let said = reply.copy_object_result().and_then(|copied| copied.checksum_sha256());
        Ok(said.and_then(tags::sha256_of_text))
    }
}
