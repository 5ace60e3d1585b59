//! A store as it was at an earlier time: the newest version of each object that was there then.
//!
//! Who holds a key that may write can hide an object below a delete marker or another version; in a place that keeps
//! versions he cannot remove it. This store looks past what was done later. It reads, and does nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyPrefix, ObjectKey};
use crate::store::{
    Body, ByteRange, ByteStream, Copying, Deletion, Limits, Multipart, ObjectMeta, ObjectRef, ObjectStore,
    ObjectVersion, PutOptions, Versions,
};

/// What S3 calls the version of an object in a bucket that keeps none.
pub const NO_VERSION: &str = "null";

/// Objects that are remembered of a listing: packs of a hundred TiB.
const OBJECTS_MAX: usize = 2_000_000;
/// Versions that are looked at. Each object has a few, and the heartbeat one for each run.
const VERSIONS_MAX: usize = 10_000_000;

/// What lies below `prefix` of `store`, as it was at the time `at` of the store's clock. All versions are listed once,
/// here; what happens later is not seen.
///
/// Of versions written in the same second (some clocks tell no more) the one that was there first is taken: objects that
/// are never overwritten have one, and a second one is somebody else's.
///
/// Fails with [`Unsupported`](ErrorKind::Unsupported) where no versions are kept: what was overwritten or deleted there
/// is gone, and to show what is left as what was there would be a lie.
pub async fn as_of(store: Arc<dyn ObjectStore>, prefix: &KeyPrefix, at: Timestamp) -> Result<Arc<dyn ObjectStore>> {
    const OPERATION: &str = "looking back";
    let none = "the place keeps no older versions: what was overwritten or deleted there is gone";
    let refused = || Error::new(ErrorKind::Unsupported, OPERATION).store(&store).because(none);
    let versions = store.versions().ok_or_else(refused)?;
    let mut chosen: BTreeMap<ObjectKey, ObjectVersion> = BTreeMap::new();
    let (mut found, mut named) = (0, false);
    let mut listed = versions.list_versions(prefix);
    while let Some(version) = listed.try_next().await? {
        found += 1;
        if found > VERSIONS_MAX || chosen.len() > OBJECTS_MAX {
            let why = "it lists more versions than any site has: this is no listing of ours";
            return Err(Error::new(ErrorKind::Protocol, OPERATION).store(&store).because(why));
        }
        named |= version.object.version.as_deref().is_some_and(|id| id != NO_VERSION);
        let outdated = |held: &ObjectVersion| {
            let rank = |version: &ObjectVersion| (version.modified.as_second(), !version.delete_marker);
            // Versions are listed from the newest on.
            rank(&version) >= rank(held)
        };
        if version.modified <= at && chosen.get(&version.object.key).is_none_or(outdated) {
            chosen.insert(version.object.key.clone(), version);
        }
    }
    drop(listed);
    if found > 0 && !named {
        return Err(refused());
    }
    let there = chosen.into_iter().filter(|(_, version)| !version.delete_marker);
    let objects = there.map(|(key, version)| {
        let ObjectVersion { object, bytes, modified, .. } = version;
        let meta =
            ObjectMeta { key: object.key, bytes, version: object.version, sha256: None, modified: Some(modified) };
        (key, meta)
    });
    let objects = objects.collect();
    Ok(Arc::new(Past { store, objects }))
}

/// A store as it was.
struct Past {
    store: Arc<dyn ObjectStore>,
    objects: BTreeMap<ObjectKey, ObjectMeta>,
}

impl Past {
    fn find(&self, operation: &'static str, object: &ObjectRef) -> Result<&ObjectMeta> {
        self.objects
            .get(&object.key)
            .filter(|meta| object.version.is_none() || object.version == meta.version)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, operation).key(&object.key).store(self))
    }

    fn refused(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Unsupported, operation).store(self).because("what was, cannot be changed")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Past {
    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn put(&self, key: &ObjectKey, _body: &Body, _options: &PutOptions) -> Result<ObjectMeta> {
        Err(self.refused("storing").key(key))
    }

    async fn get(&self, object: &ObjectRef, range: ByteRange) -> Result<ByteStream> {
        let meta = self.find("reading", object)?;
        let version = ObjectRef { key: meta.key.clone(), version: meta.version.clone() };
        self.store.get(&version, range).await
    }

    async fn head(&self, object: &ObjectRef) -> Result<ObjectMeta> {
        self.find("looking at", object).cloned()
    }

    fn list<'a>(&'a self, prefix: &'a KeyPrefix) -> BoxStream<'a, Result<ObjectMeta>> {
        let below = self.objects.values().filter(|meta| prefix.strip(&meta.key).is_some());
        stream::iter(below.cloned().map(Ok)).boxed()
    }

    async fn sweep(&self, _prefix: &KeyPrefix, _before: Timestamp) -> Result<u64> {
        Err(self.refused("removing leftovers"))
    }

    async fn now(&self) -> Result<Timestamp> {
        self.store.now().await
    }

    fn multipart(&self) -> Option<&dyn Multipart> {
        None
    }

    fn copying(&self) -> Option<&dyn Copying> {
        None
    }

    fn versions(&self) -> Option<&dyn Versions> {
        None
    }

    fn deletion(&self) -> Option<&dyn Deletion> {
        None
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Past").field(&self.store).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, DirectorySettings, MemoryStore, Policy, StoreSettings, open};

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    async fn read(store: &dyn ObjectStore, key: &ObjectKey) -> Option<Vec<u8>> {
        match store.get(&key.clone().into(), ByteRange::All).await {
            Ok(content) => Some(content.try_collect::<Vec<_>>().await.unwrap().concat()),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn every_moment_is_as_it_was() {
        let memory = MemoryStore::new(3, Access::Keeper, time(0));
        let (one, two): (ObjectKey, ObjectKey) = ("site/one".parse().unwrap(), "site/two".parse().unwrap());
        let put = async |key: &ObjectKey, text: &str| {
            memory.put(key, &Body::from_bytes(text.to_owned()), &PutOptions::OVERWRITE).await.unwrap();
        };
        put(&one, "first").await;
        memory.set_now(time(10));
        put(&one, "second").await;
        put(&two, "new").await;
        memory.set_now(time(20));
        memory.deletion().unwrap().delete(&one.clone().into()).await.unwrap();
        memory.set_now(time(30));
        put(&one, "third").await;
        let store: Arc<dyn ObjectStore> = Arc::new(memory.opened_for(Access::Agent));
        let prefix: KeyPrefix = "site".parse().unwrap();
        for (at, first, second) in [
            (-1, None, None),
            (0, Some("first"), None),
            (9, Some("first"), None),
            (10, Some("second"), Some("new")),
            (25, None, Some("new")),
            (30, Some("third"), Some("new")),
        ] {
            let past = as_of(store.clone(), &prefix, time(at)).await.unwrap();
            assert_eq!(read(&*past, &one).await.as_deref(), first.map(str::as_bytes), "at {at}");
            assert_eq!(read(&*past, &two).await.as_deref(), second.map(str::as_bytes), "at {at}");
            let listed: Vec<_> = past.list(&prefix).try_collect().await.unwrap();
            assert_eq!(listed.len(), usize::from(first.is_some()) + usize::from(second.is_some()), "at {at}");
            assert!(past.put(&two, &Body::from_bytes("x"), &PutOptions::OVERWRITE).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_was_there_first_wins_within_a_second() {
        let memory = MemoryStore::new(5, Access::Keeper, time(0));
        let key: ObjectKey = "site/one".parse().unwrap();
        memory.put(&key, &Body::from_bytes("ours"), &PutOptions::CREATE).await.unwrap();
        memory.deletion().unwrap().delete(&key.clone().into()).await.unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(memory);
        let past = as_of(store, &"site".parse().unwrap(), time(0)).await.unwrap();
        assert_eq!(read(&*past, &key).await.as_deref(), Some(&b"ours"[..]));
    }

    #[tokio::test]
    async fn a_place_without_versions_has_no_past() {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings::Directory(DirectorySettings { path: folder.path().to_owned(), mark: None });
        let store = open(&settings, Access::Agent, &Policy::default()).unwrap();
        let refused = as_of(store, &KeyPrefix::default(), time(0)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unsupported);
    }
}
