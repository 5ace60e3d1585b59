//! The contract of [`ObjectStore`] as tests that every store must pass: one function for each promise.
//!
//! A promise about an ability that the store does not hold is checked to be refused, not skipped. The functions panic
//! with what was broken.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken promise ends the test that asked for it"
)]

mod abilities;
mod objects;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::error::Result;
use crate::key::{KeyPrefix, ObjectKey};
use crate::store::{Body, ByteRange, ObjectRef, ObjectStore};

/// A store under test, and what is known of it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Opened for the agent.
    pub agent: Arc<dyn ObjectStore>,
    /// The same place, opened for the keeper.
    pub keeper: Arc<dyn ObjectStore>,
    /// A place that is empty and belongs to this run.
    pub prefix: KeyPrefix,
    /// What the server is known to do or not to do.
    pub known: Known,
}

/// What a server is known to do or not to do.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Of several writers who create one name at the same moment, one wins and all others are told.
    pub create_is_atomic: bool,
    /// Older versions are kept.
    pub versions: bool,
    /// Objects can be locked, and a locked version cannot be deleted.
    pub locks: bool,
    /// Objects that the listing test writes: more than one page where the store has pages.
    pub listed: usize,
}

/// A promise: its name, and the test.
pub type Promise = (&'static str, fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// All promises.
pub const PROMISES: &[Promise] = &[
    ("what is put is what is read", |s| Box::pin(objects::what_is_put_is_what_is_read(s))),
    ("creating never replaces", |s| Box::pin(objects::creating_never_replaces(s))),
    ("one creator wins", |s| Box::pin(objects::one_creator_wins(s))),
    ("overwriting replaces", |s| Box::pin(objects::overwriting_replaces(s))),
    ("what is missing is said to be", |s| Box::pin(objects::what_is_missing_is_said_to_be(s))),
    ("ranges are exact", |s| Box::pin(objects::ranges_are_exact(s))),
    ("listing is complete and keeps to its prefix", |s| Box::pin(objects::listing_is_complete(s))),
    ("folders appear under many hands", |s| Box::pin(objects::folders_appear_under_many_hands(s))),
    ("long names are kept", |s| Box::pin(objects::long_names_are_kept(s))),
    ("a body that changed is not stored", |s| Box::pin(objects::a_changed_body_is_not_stored(s))),
    ("the clock is told", |s| Box::pin(objects::the_clock_is_told(s))),
    ("only the keeper deletes", |s| Box::pin(abilities::only_the_keeper_deletes(s))),
    ("parts become the object", |s| Box::pin(abilities::parts_become_the_object(s))),
    ("parts survive and are listed", |s| Box::pin(abilities::parts_are_listed(s))),
    ("completing never replaces", |s| Box::pin(abilities::completing_never_replaces(s))),
    ("a lost reply to completing is resolved", |s| Box::pin(abilities::completing_twice_is_harmless(s))),
    ("an upload given up is gone", |s| Box::pin(abilities::an_upload_given_up_is_gone(s))),
    ("leftovers are swept", |s| Box::pin(abilities::leftovers_are_swept(s))),
    ("a copy is what was copied", |s| Box::pin(abilities::a_copy_is_what_was_copied(s))),
    ("older versions are kept", |s| Box::pin(abilities::older_versions_are_kept(s))),
    ("locks hold or are refused", |s| Box::pin(abilities::locks_hold_or_are_refused(s))),
    ("locks of parts hold or are refused", |s| Box::pin(abilities::locks_of_parts_hold(s))),
    ("locks of copies hold or are refused", |s| Box::pin(abilities::locks_of_copies_hold_or_are_refused(s))),
];

/// Checks every promise, one after the other, and panics at the first that is broken.
pub async fn check_all(subject: &Subject) {
    for (at, (name, promise)) in PROMISES.iter().enumerate() {
        let own = subject.prefix.below(&format!("promise-{at}")).unwrap();
        let subject = Subject { prefix: own, ..subject.clone() };
        let store = subject.agent.to_string();
        if let Err(broken) = tokio::spawn(promise(subject)).await {
            let panic = broken.into_panic();
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
            panic!("{store} breaks the promise `{name}`: {said}");
        }
    }
}

/// Bytes that follow from `seed`, do not compress, and differ everywhere.
pub fn noise(seed: u64, bytes: usize) -> Bytes {
    use sha2::{Digest as _, Sha256};
    let mut out = BytesMut::with_capacity(bytes + 32);
    for block in 0..bytes.div_ceil(32) {
        out.extend_from_slice(&Sha256::digest([seed.to_le_bytes(), (block as u64).to_le_bytes()].concat()));
    }
    out.truncate(bytes);
    out.freeze()
}

fn body(seed: u64, bytes: usize) -> Body {
    Body::from_bytes(noise(seed, bytes))
}

async fn read(store: &dyn ObjectStore, object: impl Into<ObjectRef>, range: ByteRange) -> Result<Bytes> {
    let pieces: Vec<Bytes> = store.get(&object.into(), range).await?.try_collect().await?;
    Ok(pieces.concat().into())
}

async fn listed(store: &dyn ObjectStore, prefix: &KeyPrefix) -> Vec<(ObjectKey, u64)> {
    let mut found: Vec<_> =
        store.list(prefix).map(|meta| meta.map(|meta| (meta.key, meta.bytes)).unwrap()).collect().await;
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{Access, DirectorySettings, MemoryStore, PartLimits, Policy, StoreSettings, guard, open};

    #[tokio::test]
    async fn memory_keeps_every_promise() {
        let limits = PartLimits { part_bytes_min: 1 << 10, part_bytes_max: 1 << 20, parts_max: 100 };
        let keeper = MemoryStore::new(7, Access::Keeper, Timestamp::now()).with_part_limits(limits);
        let known = Known { create_is_atomic: true, versions: true, locks: true, listed: 1100 };
        let agent = Arc::new(keeper.opened_for(Access::Agent));
        let plain = Subject { agent, keeper: Arc::new(keeper), prefix: KeyPrefix::default(), known };
        check_all(&plain).await;
        let guarded = Subject {
            agent: guard(plain.agent, &Policy::default()),
            keeper: guard(plain.keeper, &Policy::default()),
            prefix: "guarded".parse().unwrap(),
            known,
        };
        check_all(&guarded).await;
    }

    #[tokio::test]
    async fn a_directory_keeps_every_promise() {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings::Directory(DirectorySettings { path: folder.path().to_owned(), mark: None });
        let subject = Subject {
            agent: open(&settings, Access::Agent, &Policy::default()).unwrap(),
            keeper: open(&settings, Access::Keeper, &Policy::default()).unwrap(),
            prefix: KeyPrefix::default(),
            known: Known { create_is_atomic: true, versions: false, locks: false, listed: 300 },
        };
        check_all(&subject).await;
    }
}
