//! Uploads in parts, which the server keeps until they are completed or aborted.

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};

use super::classify::classify;
use super::client::KnownDigest;
use super::pages::{Page, pages};
use super::tags::{self, Said};
use super::{S3Store, lock, timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyPrefix, ObjectKey};
use crate::proof;
use crate::store::{Body, Multipart, ObjectMeta, Part, PartLimits, PutMode, PutOptions, Upload};

impl S3Store {
    fn key_of(&self, operation: &'static str, upload: &Upload) -> Result<ObjectKey> {
        upload.key.parse().map_err(|cause| self.error(ErrorKind::Protocol, operation).because(cause))
    }

    fn part_number(&self, operation: &'static str, number: u32) -> Result<i32> {
        let wrong = |cause: std::num::TryFromIntError| self.error(ErrorKind::Protocol, operation).because(cause);
        i32::try_from(number).map_err(wrong)
    }
}

#[async_trait]
impl Multipart for S3Store {
    fn part_limits(&self) -> PartLimits {
        PartLimits { part_bytes_min: 5 << 20, part_bytes_max: 5 << 30, parts_max: 10_000 }
    }

    async fn begin(&self, key: &ObjectKey, options: &PutOptions) -> Result<Upload> {
        const OPERATION: &str = "beginning the upload of";
        if options.mode == PutMode::Overwrite {
            let why = "objects that may be replaced are stored whole";
            return Err(self.error(ErrorKind::Unsupported, OPERATION).key(key).because(why));
        }
        if options.locked_until.is_some() {
            self.refuse_without_lock(OPERATION, key).await?;
        }
        let lock = options.locked_until.map(|until| self.lock(until));
        let request = self.client().await.create_multipart_upload().bucket(self.bucket()).key(self.full(key));
        let request = request
            .content_type("application/octet-stream")
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_object_lock_mode(lock.as_ref().map(|lock| lock.mode.clone()))
            .set_object_lock_retain_until_date(lock.map(|lock| lock.until));
        let sent = request.send().await;
        let reply = sent.map_err(|cause| lock::refused(self.failed(OPERATION, key, cause), options))?;
        match reply.upload_id() {
            Some(id) if !id.is_empty() => {
                Ok(Upload { key: key.to_string(), id: id.to_owned(), begun: None, locked_until: options.locked_until })
            }
            _ => Err(self.error(ErrorKind::Protocol, OPERATION).key(key).because("the upload got no name")),
        }
    }

    async fn put_part(&self, upload: &Upload, number: u32, body: &Body) -> Result<Part> {
        const OPERATION: &str = "storing a part of";
        let key = self.key_of(OPERATION, upload)?;
        let content = body.read().await;
        let content = content.map_err(|cause| self.error(ErrorKind::Local, OPERATION).key(&key).because(cause))?;
        let request = self.client().await.upload_part().bucket(self.bucket()).key(self.full(&key));
        let request = request
            .upload_id(&upload.id)
            .part_number(self.part_number(OPERATION, number)?)
            .checksum_sha256(tags::sha256_text(body.sha256()))
            .body(content.clone().into());
        let sent = request.customize().interceptor(KnownDigest::new(body.sha256())).send().await;
        let reply = sent.map_err(|cause| self.failed(OPERATION, &key, cause))?;
        let strange = |why| Err(self.error(ErrorKind::Protocol, OPERATION).key(&key).because(why));
        let Some(etag) = reply.e_tag() else { return strange("the part got no tag") };
        match tags::of_body(&content, body.sha256(), self.believed(reply.checksum_sha256()), Some(etag)) {
            // A part cannot be read back; the completed object can, and is if it has to be.
            Said::Ours | Said::Nothing => {}
            Said::Other => return Err(self.corrupt(OPERATION, &key)),
        }
        Ok(Part { number, bytes: body.len(), etag: etag.to_owned(), sha256: Some(*body.sha256()) })
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        const OPERATION: &str = "listing the parts of";
        let key = &self.key_of(OPERATION, upload)?;
        let found = pages(self, OPERATION, move |from: Option<String>| async move {
            let request = self.client().await.list_parts().bucket(self.bucket()).key(self.full(key));
            let reply = request.upload_id(&upload.id).set_part_number_marker(from).send().await;
            let reply = reply.map_err(|cause| self.failed(OPERATION, key, cause))?;
            let items = reply.parts().iter().filter_map(|part| {
                Some(Part {
                    number: u32::try_from(part.part_number()?).ok()?,
                    bytes: u64::try_from(part.size()?).ok()?,
                    etag: part.e_tag()?.to_owned(),
                    sha256: self.believed(part.checksum_sha256()).and_then(tags::sha256_of_text),
                })
            });
            let more = reply.is_truncated().unwrap_or_default();
            let next = reply.next_part_number_marker().filter(|_| more).map(str::to_owned);
            Ok(Page { items: items.collect(), next })
        });
        // A server that died while a part was replaced may list both (seen on SeaweedFS): the caller takes the proved one.
        let listed_max = 2 * usize::try_from(self.part_limits().parts_max).unwrap_or(usize::MAX / 4);
        let mut parts: Vec<_> = found.take(listed_max + 1).try_collect().await?;
        parts.sort_by_key(|part| part.number);
        if parts.len() > listed_max {
            let error: Error = self.error(ErrorKind::Protocol, OPERATION).key(key);
            return Err(error.because("more parts are listed than there can be"));
        }
        Ok(parts)
    }

    async fn complete(&self, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta> {
        const OPERATION: &str = "completing the upload of";
        let key = self.key_of(OPERATION, upload)?;
        if !self.seen.refuses_taken {
            self.refuse_taken(OPERATION, &key).await?;
        }
        let mut named = CompletedMultipartUpload::builder();
        for part in parts {
            let number = self.part_number(OPERATION, part.number)?;
            let checksum = part.sha256.as_ref().map(tags::sha256_text);
            let part = CompletedPart::builder().part_number(number).e_tag(&part.etag).set_checksum_sha256(checksum);
            named = named.parts(part.build());
        }
        let request = self.client().await.complete_multipart_upload().bucket(self.bucket()).key(self.full(&key));
        let request = request.upload_id(&upload.id).if_none_match("*").multipart_upload(named.build());
        let reply = request.send().await.map_err(|cause| self.failed(OPERATION, &key, cause))?;
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let version = reply.version_id().map(str::to_owned);
        let meta = ObjectMeta { key: key.clone(), bytes, version, sha256: None, modified: None };
        let meta = match tags::of_parts(parts, self.believed(reply.checksum_sha256()), reply.e_tag()) {
            Said::Ours => meta,
            said => {
                let held = proof::holds_parts(self, &key, parts);
                self.read_back(said, held).await?.ok_or_else(|| self.corrupt(OPERATION, &key))?
            }
        };
        if let Some(until) = upload.locked_until {
            self.assure_locked(OPERATION, &meta.object(), until).await?;
        }
        Ok(meta)
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        const OPERATION: &str = "giving up the upload of";
        let key = self.key_of(OPERATION, upload)?;
        let request = self.client().await.abort_multipart_upload().bucket(self.bucket()).key(self.full(&key));
        match request.upload_id(&upload.id).send().await {
            Ok(_) => Ok(()),
            Err(cause) => match self.failed(OPERATION, &key, cause) {
                error if error.kind == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    fn unfinished<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<Upload>> {
        const OPERATION: &str = "listing unfinished uploads";
        pages(self, OPERATION, move |from: Option<(String, Option<String>)>| async move {
            let (key_marker, id_marker) = from.unzip();
            let request = self.client().await.list_multipart_uploads().bucket(self.bucket());
            let request = request.prefix(format!("{}{prefix}", self.settings.prefix));
            let request = request.set_key_marker(key_marker).set_upload_id_marker(id_marker.flatten());
            let reply = request.send().await.map_err(|cause| classify(OPERATION, cause).store(self))?;
            let items = reply.uploads().iter().filter_map(|upload| {
                let key = self.own(upload.key()?).filter(|key| prefix.strip(key).is_some())?;
                Some(Upload {
                    key: key.to_string(),
                    id: upload.upload_id()?.to_owned(),
                    begun: upload.initiated().and_then(timestamp),
                    locked_until: None,
                })
            });
            let more = reply.is_truncated().unwrap_or_default();
            let next = reply.next_key_marker().filter(|_| more);
            let next = next.map(|key| (key.to_owned(), reply.next_upload_id_marker().map(str::to_owned)));
            Ok(Page { items: items.collect(), next })
        })
    }
}
