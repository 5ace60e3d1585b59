//! Nextcloud's chunked upload, version 2: parts in a folder of the user's own, which the server puts together.
//!
//! As its developer manual has it (Client APIs, WebDAV, Chunked file upload): MKCOL `uploads/USER/ID`, PUT of numbered
//! parts, MOVE of `ID/.file`, each with the `Destination`; a folder that nobody touches for 24 hours is removed. Parts
//! cannot be read back, so a listed one is known by its size only; the object is put together under a temporary name and
//! read back before it gets its own. An assembly may outlast the server's patience: it is then asked for again, and what
//! is there by then is taken.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::HeaderName;
use url::Url;

use super::client::Ask;
use super::{LATER, WebdavStore};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyPrefix, ObjectKey};
use crate::proof;
use crate::store::{
    Body, ByteRange, Multipart, ObjectMeta, Part, PartLimits, PutMode, PutOptions, Sha256Digest, Upload,
};
use crate::transport::Expect;

/// Where the server takes parts.
pub(super) struct Uploads {
    /// The encoded path of the folder of the user's uploads.
    folder: String,
    /// What the names of this store's uploads begin with: a user may have several stores, and other uploads. A random
    /// number and the key follow, with `!` instead of `/`.
    mark: String,
}

const RANDOM_DIGITS: usize = 16;

const OC_TOTAL_LENGTH: HeaderName = HeaderName::from_static("oc-total-length");

impl Uploads {
    /// The uploads that belong to a folder of files in Nextcloud; nothing for another server.
    pub(super) fn of(url: &Url) -> Option<Self> {
        use sha2::Digest as _;
        let (before, below) = url.path().split_once("/remote.php/dav/files/")?;
        let user = below.split('/').next().filter(|user| !user.is_empty())?;
        let digest = sha2::Sha256::digest(url.path().trim_end_matches('/'));
        let store: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { folder: format!("{before}/remote.php/dav/uploads/{user}/"), mark: format!("offsite-{store}-") })
    }

    /// A new name for an upload of `key`.
    fn name(&self, key: &ObjectKey) -> String {
        format!("{}{:016x}-{}", self.mark, super::random(), key.as_str().replace('/', "!"))
    }

    /// The random number and the key in the name of an upload of this store.
    fn read<'a>(&self, name: &'a str) -> Option<(&'a str, ObjectKey)> {
        let (random, key) = name.strip_prefix(&self.mark)?.split_once('-')?;
        if random.len() != RANDOM_DIGITS || !random.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some((random, key.replace('!', "/").parse().ok()?))
    }
}

/// An upload's two places on the server.
struct Places {
    /// The encoded path of the folder with its parts.
    parts: String,
    /// Where it is put together: a name that the sweep knows, and that is the same after a restart.
    temporary: String,
}

impl WebdavStore {
    fn places(&self, operation: &'static str, upload: &Upload) -> Result<Places> {
        let Some(uploads) = &self.uploads else {
            return Err(Error::new(ErrorKind::Unsupported, operation).because("this server takes no parts"));
        };
        // The name comes from the journal or from a listing, and becomes part of an address.
        match uploads.read(&upload.id) {
            Some((random, key)) if key.as_str() == upload.key => {
                let parts = format!("{}{}/", uploads.folder, upload.id);
                Ok(Places { parts, temporary: format!("{key}~{random}") })
            }
            _ => Err(Error::new(ErrorKind::Protocol, operation).because("the upload's name is none of ours")),
        }
    }

    /// Names what an error is about.
    fn of<'a>(&'a self, upload: &'a Upload) -> impl Fn(Error) -> Error + 'a {
        move |error| match upload.key.parse() {
            Ok(key) => error.key(&key).store(self),
            Err(_) => error.store(self),
        }
    }

    /// Has the server put the parts together under `temporary`, `bytes` in all.
    async fn assemble(&self, Places { parts, temporary }: &Places, bytes: u64) -> Result<()> {
        const OPERATION: &str = "completing the upload of";
        // An earlier try whose answer was lost.
        if self.size_of(OPERATION, temporary).await? == Some(bytes) {
            return Ok(());
        }
        let source = format!("{parts}.file");
        let mut ask = Ask::new("MOVE", &source)
            .header(HeaderName::from_static("destination"), self.destination(OPERATION, temporary)?)
            .header(OC_TOTAL_LENGTH, bytes.into());
        ask.expect = Expect::ASSEMBLY;
        let told = self.client.tell(OPERATION, &ask, &[200, 201, 204]).await;
        match (told, self.size_of(OPERATION, temporary).await?) {
            // Whatever the answer was: a gateway gave up, or the parts are gone because they became the object.
            (_, Some(held)) if held == bytes => Ok(()),
            (Err(error), _) => Err(error),
            (Ok(()), held) => {
                let why = format!("the server made {} of {bytes} bytes", held.unwrap_or(0));
                Err(Error::new(ErrorKind::Corrupt, OPERATION).retry(LATER).because(why))
            }
        }
    }

    async fn size_of(&self, operation: &'static str, name: &str) -> Result<Option<u64>> {
        Ok(self.client.look_at_file(operation, name).await?.and_then(|entry| entry.bytes))
    }

    /// Reads back what was put together; whether it is what the parts were.
    async fn holds_at(&self, temporary: &str, parts: &[Part]) -> Result<bool> {
        let sizes: Vec<_> = parts.iter().map(|part| part.bytes).collect();
        let content = self.read("reading back", temporary, ByteRange::All, &|error| error).await?;
        let held: Vec<Option<Sha256Digest>> = proof::digests(content, &sizes).await?.into_iter().map(Some).collect();
        Ok(parts.iter().map(|part| part.sha256).eq(held))
    }
}

#[async_trait]
impl Multipart for WebdavStore {
    fn part_limits(&self) -> PartLimits {
        PartLimits { part_bytes_min: 5 << 20, part_bytes_max: 5_000_000_000, parts_max: 10_000 }
    }

    fn parts_are_known_by_size(&self) -> bool {
        true
    }

    async fn begin(&self, key: &ObjectKey, options: &PutOptions) -> Result<Upload> {
        const OPERATION: &str = "beginning the upload of";
        let refuse =
            |why: &'static str| Err(self.named(key)(Error::new(ErrorKind::Unsupported, OPERATION).because(why)));
        if options.mode == PutMode::Overwrite {
            return refuse("objects that may be replaced are stored whole");
        }
        if options.locked_until.is_some() {
            return refuse("WebDAV cannot lock objects against deletion");
        }
        let id = self.uploads.as_ref().map(|uploads| uploads.name(key)).unwrap_or_default();
        let upload = Upload { key: key.to_string(), id, begun: None, locked_until: None };
        let begin = async {
            self.client.make_folders(OPERATION, key.folder().as_str()).await?;
            let places = self.places(OPERATION, &upload)?;
            let destination = self.destination(OPERATION, &places.temporary)?;
            let ask = Ask::new("MKCOL", &places.parts).header(HeaderName::from_static("destination"), destination);
            self.client.tell(OPERATION, &ask, &[200, 201]).await
        };
        begin.await.map_err(self.named(key))?;
        Ok(upload)
    }

    async fn put_part(&self, upload: &Upload, number: u32, body: &Body) -> Result<Part> {
        const OPERATION: &str = "storing a part of";
        let put = async {
            let places = self.places(OPERATION, upload)?;
            let content = body.read().await;
            let content = content.map_err(|cause| Error::new(ErrorKind::Local, OPERATION).because(cause))?;
            self.put_numbered(OPERATION, &places, number, content).await
        };
        put.await.map_err(self.of(upload))?;
        Ok(Part { number, bytes: body.len(), etag: String::new(), sha256: Some(*body.sha256()) })
    }

    async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        const OPERATION: &str = "listing the parts of";
        let list = async { self.client.look_below(OPERATION, &self.places(OPERATION, upload)?.parts).await };
        let mut parts: Vec<_> = (list.await.map_err(self.of(upload))?.into_iter())
            .filter_map(|(name, entry)| {
                let number = name.parse().ok().filter(|number| (1..=10_000).contains(number))?;
                Some(Part { number, bytes: entry.bytes?, etag: String::new(), sha256: None })
            })
            .collect();
        parts.sort_by_key(|part| part.number);
        if parts.array_windows().any(|[one, next]| one.number == next.number) {
            let why = "a part is listed twice";
            return Err(self.of(upload)(Error::new(ErrorKind::Protocol, OPERATION).because(why)));
        }
        Ok(parts)
    }

    async fn complete(&self, upload: &Upload, parts: &[Part]) -> Result<ObjectMeta> {
        const OPERATION: &str = "completing the upload of";
        let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        let complete = async {
            let places = self.places(OPERATION, upload)?;
            if self.client.look_at_file(OPERATION, &upload.key).await?.is_some() {
                return Err(Error::new(ErrorKind::AlreadyExists, OPERATION));
            }
            self.assemble(&places, bytes).await?;
            let temporary = &places.temporary;
            if !self.holds_at(temporary, parts).await? {
                // If this fails, the sweep finds it.
                let _ = self.client.tell(OPERATION, &Ask::new("DELETE", temporary), &[200, 204]).await;
                let why = "what the server put together is not what was sent; it will be sent again";
                return Err(Error::new(ErrorKind::Corrupt, OPERATION).because(why));
            }
            self.rename(OPERATION, temporary, &upload.key, PutMode::Create).await?;
            self.expect_size(&upload.key, bytes).await?;
            upload.key.parse().map_err(|cause| Error::new(ErrorKind::Protocol, OPERATION).because(cause))
        };
        let key: ObjectKey = complete.await.map_err(self.of(upload))?;
        Ok(ObjectMeta { key, bytes, version: None, sha256: None, modified: None })
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        const OPERATION: &str = "giving up the upload of";
        let abort = async {
            let places = self.places(OPERATION, upload)?;
            self.client.tell(OPERATION, &Ask::new("DELETE", &places.parts), &[200, 204, 404]).await
        };
        abort.await.map_err(self.of(upload))
    }

    fn unfinished<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<Upload>> {
        const OPERATION: &str = "listing unfinished uploads";
        let list = async move {
            let Some(uploads) = &self.uploads else { return stream::iter(Vec::new()) };
            match self.client.look_below(OPERATION, &uploads.folder).await {
                // The folder comes with the first upload.
                Err(error) if error.kind == ErrorKind::NotFound => stream::iter(Vec::new()),
                Err(error) => stream::iter(vec![Err(error.store(self))]),
                Ok(found) => {
                    let ours = found.into_iter().filter_map(|(name, entry)| -> Option<Result<Upload>> {
                        let (_, key) = uploads.read(&name).filter(|(_, key)| prefix.strip(key).is_some())?;
                        Some(Ok(Upload { key: key.to_string(), id: name, begun: entry.modified, locked_until: None }))
                    });
                    stream::iter(ours.collect::<Vec<_>>())
                }
            }
        };
        stream::once(list).flatten().boxed()
    }
}

impl WebdavStore {
    async fn put_numbered(&self, operation: &'static str, places: &Places, number: u32, content: Bytes) -> Result<()> {
        let name = &format!("{}{number:05}", places.parts);
        let destination = self.destination(operation, &places.temporary)?;
        let mut ask = Ask::new("PUT", name).header(HeaderName::from_static("destination"), destination);
        let bytes = content.len() as u64;
        ask.body = content;
        self.client.tell(operation, &ask, &[200, 201, 204]).await?;
        match self.size_of(operation, name).await? {
            Some(held) if held == bytes => Ok(()),
            held => {
                let why = format!("the server holds {} of the part's {bytes} bytes", held.unwrap_or(0));
                Err(Error::new(ErrorKind::Corrupt, operation).retry(LATER).because(why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads(url: &str) -> Option<Uploads> {
        Uploads::of(&url.parse().unwrap())
    }

    #[test]
    fn nextcloud_is_known_by_its_addresses() {
        let folder = |url| uploads(url).map(|uploads| uploads.folder);
        let found = folder("https://cloud.example.org/nc/remote.php/dav/files/back%20up/offsite/");
        assert_eq!(found.as_deref(), Some("/nc/remote.php/dav/uploads/back%20up/"));
        assert_eq!(folder("https://cloud.example.org/remote.php/webdav/offsite/"), None);
        assert_eq!(folder("https://cloud.example.org/remote.php/dav/files//offsite/"), None);
    }

    #[test]
    fn an_upload_tells_its_key_and_its_store() {
        let here = uploads("https://cloud.example.org/remote.php/dav/files/backup/here/").unwrap();
        let there = uploads("https://cloud.example.org/remote.php/dav/files/backup/there/").unwrap();
        let key: ObjectKey = "main-street/rolling/00-0001.age".parse().unwrap();
        let name = here.name(&key);
        assert_eq!(here.read(&name).unwrap().1, key);
        assert_eq!(there.read(&name), None);
        let mark = &here.mark;
        for other in ["web-file-upload-1", &format!("{mark}1-a"), &format!("{mark}00112233aabbccdd-..!a"), mark] {
            assert_eq!(here.read(other), None, "{other}");
        }
    }
}
