//! Promises about what a store may hold beyond whole objects.

use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::SignedDuration;

use super::{Subject, body, listed, noise, read};
use crate::error::ErrorKind;
use crate::store::{ByteRange, Multipart, ObjectRef, Part, PutOptions, Upload};

pub(super) async fn only_the_keeper_deletes(subject: Subject) {
    assert!(subject.agent.deletion().is_none(), "the agent holds a deletion");
    let deletion = subject.keeper.deletion().expect("the keeper holds no deletion");
    let (gone, kept) = (subject.prefix.key("a/gone").unwrap(), subject.prefix.key("a/kept").unwrap());
    for key in [&gone, &kept] {
        subject.agent.put(key, &body(1, 100), &PutOptions::CREATE).await.unwrap();
    }
    for _ in 0..2 {
        deletion.delete(&gone.clone().into()).await.unwrap();
    }
    deletion.delete(&subject.prefix.key("never/was").unwrap().into()).await.unwrap();
    assert_eq!(subject.keeper.head(&gone.clone().into()).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, [(kept, 100)]);
    subject.agent.put(&gone, &body(2, 100), &PutOptions::CREATE).await.unwrap();
}

fn first_part_bytes(multipart: &dyn Multipart) -> usize {
    usize::try_from(multipart.part_limits().part_bytes_min).unwrap().max(1 << 10)
}

async fn send_three(multipart: &dyn Multipart, upload: &Upload) -> Vec<Part> {
    let bytes = first_part_bytes(multipart);
    let mut parts = Vec::new();
    for number in [3, 1, 2] {
        let bytes = if number == 3 { 777 } else { bytes };
        parts.push(multipart.put_part(upload, number, &body(number.into(), bytes)).await.unwrap());
    }
    parts.sort_by_key(|part| part.number);
    parts
}

fn three_parts(multipart: &dyn Multipart) -> Vec<u8> {
    let bytes = first_part_bytes(multipart);
    [noise(1, bytes), noise(2, bytes), noise(3, 777)].concat()
}

pub(super) async fn parts_become_the_object(subject: Subject) {
    let Some(multipart) = subject.agent.multipart() else { return };
    let key = subject.prefix.key("big.age").unwrap();
    let upload = multipart.begin(&key, &PutOptions::CREATE).await.unwrap();
    assert_eq!(upload.key, key.as_str());
    let bytes = first_part_bytes(multipart);
    multipart.put_part(&upload, 2, &body(99, bytes + 5)).await.unwrap();
    let parts = send_three(multipart, &upload).await;
    let held = multipart.parts(&upload).await.unwrap();
    let is_held = |sent: &Part| held.iter().any(|held| (held.number, &held.etag) == (sent.number, &sent.etag));
    assert!(parts.iter().all(is_held), "the part that replaced another is not listed: {held:?}");
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, [], "the object shows before it is complete");
    let meta = multipart.complete(&upload, &parts).await.unwrap();
    let wanted = three_parts(multipart);
    assert_eq!((&meta.key, meta.bytes), (&key, wanted.len() as u64));
    assert!(read(&*subject.agent, key.clone(), ByteRange::All).await.unwrap() == wanted, "other bytes came back");
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, [(key, wanted.len() as u64)]);
}

pub(super) async fn parts_are_listed(subject: Subject) {
    let Some(multipart) = subject.agent.multipart() else { return };
    let key = subject.prefix.key("deep/big.age").unwrap();
    let upload = multipart.begin(&key, &PutOptions::CREATE).await.unwrap();
    assert_eq!(multipart.parts(&upload).await.unwrap(), []);
    let sent = send_three(multipart, &upload).await;
    // As a process would that knows the upload from its journal only.
    let upload = Upload { begun: None, ..upload };
    let held = multipart.parts(&upload).await.unwrap();
    assert_eq!(held.len(), sent.len());
    for (held, sent) in held.iter().zip(&sent) {
        assert_eq!((held.number, held.bytes, &held.etag), (sent.number, sent.bytes, &sent.etag));
        assert!(held.sha256.is_none_or(|digest| sent.sha256 == Some(digest)), "the digest of part {}", held.number);
    }
    let all: Vec<_> = multipart.unfinished(&subject.prefix).try_collect().await.unwrap();
    assert!(
        all.iter().any(|found| found.id == upload.id && found.key == upload.key),
        "not among the unfinished: {all:?}"
    );
    let other = subject.prefix.below("elsewhere").unwrap();
    assert_eq!(multipart.unfinished(&other).count().await, 0);
    // The journal knows the digests; the listing may not.
    multipart.complete(&upload, &sent).await.unwrap();
    assert!(read(&*subject.agent, key, ByteRange::All).await.unwrap() == three_parts(multipart));
    assert_eq!(multipart.unfinished(&subject.prefix).count().await, 0, "a completed upload is listed as unfinished");
}

pub(super) async fn completing_never_replaces(subject: Subject) {
    let Some(multipart) = subject.agent.multipart() else { return };
    let key = subject.prefix.key("taken.age").unwrap();
    let overwriting = multipart.begin(&key, &PutOptions::OVERWRITE).await;
    assert_eq!(overwriting.unwrap_err().kind, ErrorKind::Unsupported);
    let upload = multipart.begin(&key, &PutOptions::CREATE).await.unwrap();
    let parts = send_three(multipart, &upload).await;
    subject.agent.put(&key, &body(9, 100), &PutOptions::CREATE).await.unwrap();
    assert_eq!(multipart.complete(&upload, &parts).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    assert!(read(&*subject.agent, key, ByteRange::All).await.unwrap() == noise(9, 100));
    multipart.abort(&upload).await.unwrap();
}

pub(super) async fn completing_twice_is_harmless(subject: Subject) {
    let Some(multipart) = subject.agent.multipart() else { return };
    let key = subject.prefix.key("twice.age").unwrap();
    let upload = multipart.begin(&key, &PutOptions::CREATE).await.unwrap();
    let parts = send_three(multipart, &upload).await;
    multipart.complete(&upload, &parts).await.unwrap();
    if let Err(error) = multipart.complete(&upload, &parts).await {
        assert!(matches!(error.kind, ErrorKind::NotFound | ErrorKind::AlreadyExists), "{error}");
    }
    let held = crate::proof::holds_parts(&*subject.agent, &key, &parts).await.unwrap();
    assert!(held.is_some(), "the object is not what the parts were");
    let (number, bytes) = (parts[0].number, parts[0].bytes);
    let other = Part { number, bytes, etag: String::new(), sha256: Some([7; 32]) };
    let wrong = [&[other], &parts[1..]].concat();
    assert_eq!(crate::proof::holds_parts(&*subject.agent, &key, &wrong).await.unwrap(), None);
}

pub(super) async fn an_upload_given_up_is_gone(subject: Subject) {
    let Some(multipart) = subject.agent.multipart() else { return };
    let key = subject.prefix.key("given-up.age").unwrap();
    let upload = multipart.begin(&key, &PutOptions::CREATE).await.unwrap();
    let parts = send_three(multipart, &upload).await;
    for _ in 0..2 {
        multipart.abort(&upload).await.unwrap();
    }
    assert_eq!(multipart.parts(&upload).await.unwrap_err().kind, ErrorKind::NotFound);
    let late = multipart.put_part(&upload, 4, &body(4, 10)).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(multipart.complete(&upload, &parts).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(multipart.unfinished(&subject.prefix).count().await, 0);
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, []);
}

pub(super) async fn a_copy_is_what_was_copied(subject: Subject) {
    let Some(copying) = subject.agent.copying() else { return };
    let key = |name| subject.prefix.key(name).unwrap();
    let (from, to, other) = (key("old/from.age"), key("new/packs/to.age"), key("old/other.age"));
    let sent = body(1, 300_000);
    subject.agent.put(&from, &sent, &PutOptions::CREATE).await.unwrap();
    subject.agent.put(&other, &body(2, 1000), &PutOptions::CREATE).await.unwrap();
    let said = copying.copy(&from, &to, None).await.unwrap();
    assert!(said.is_none_or(|said| said == *sent.sha256()), "the store says that it copied something else");
    assert!(crate::proof::holds(&*subject.agent, &to, 300_000, sent.sha256()).await.unwrap().is_some());
    for from in [&from, &other] {
        let taken = copying.copy(from, &to, None).await.unwrap_err();
        assert_eq!(taken.kind, ErrorKind::AlreadyExists, "{taken}");
    }
    let absent = copying.copy(&key("old/absent.age"), &key("new/none.age"), None).await.unwrap_err();
    assert_eq!(absent.kind, ErrorKind::NotFound, "{absent}");
    let mut all = vec![(from.clone(), 300_000), (other, 1000), (to.clone(), 300_000)];
    all.sort();
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, all);
    // Each goes by itself.
    subject.keeper.deletion().unwrap().delete(&from.into()).await.unwrap();
    assert!(read(&*subject.agent, to, ByteRange::All).await.unwrap() == noise(1, 300_000), "other bytes came back");
}

pub(super) async fn locks_of_copies_hold_or_are_refused(subject: Subject) {
    let Some(copying) = subject.agent.copying() else { return };
    let (from, to) = (subject.prefix.key("old.age").unwrap(), subject.prefix.key("copied.age").unwrap());
    let until = subject.agent.now().await.unwrap() + SignedDuration::from_mins(1);
    subject.agent.put(&from, &body(1, 100), &PutOptions::CREATE).await.unwrap();
    let copied = copying.copy(&from, &to, Some(until)).await;
    if subject.known.locks {
        copied.unwrap();
        let copy = subject.agent.head(&to.into()).await.unwrap().object();
        assert_locked(&subject, copy, until).await;
        let original = subject.agent.head(&from.into()).await.unwrap().object();
        let versions = subject.agent.versions().unwrap();
        assert_eq!(versions.locked_until(&original).await.unwrap(), None, "the lock of a copy is its own");
    } else {
        assert_eq!(copied.unwrap_err().kind, ErrorKind::Unsupported);
        assert!(subject.agent.head(&to.into()).await.is_err(), "a copy that is not locked was made");
    }
}

pub(super) async fn leftovers_are_swept(subject: Subject) {
    let kept = subject.prefix.key("kept.age").unwrap();
    subject.agent.put(&kept, &body(1, 100), &PutOptions::CREATE).await.unwrap();
    let now = subject.agent.now().await.unwrap();
    let (past, future) = (now - SignedDuration::from_hours(1), now + SignedDuration::from_hours(1));
    if let Some(multipart) = subject.agent.multipart() {
        let key = subject.prefix.key("left.age").unwrap();
        let upload = multipart.begin(&key, &PutOptions::CREATE).await.unwrap();
        multipart.put_part(&upload, 1, &body(1, 10)).await.unwrap();
        assert_eq!(subject.agent.sweep(&subject.prefix, past).await.unwrap(), 0, "a fresh upload was swept");
        assert_eq!(subject.agent.sweep(&subject.prefix, future).await.unwrap(), 1);
        assert_eq!(multipart.parts(&upload).await.unwrap_err().kind, ErrorKind::NotFound);
    }
    assert_eq!(subject.agent.sweep(&subject.prefix, future).await.unwrap(), 0);
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, [(kept, 100)]);
}

pub(super) async fn older_versions_are_kept(subject: Subject) {
    let key = subject.prefix.key("versioned").unwrap();
    if !subject.known.versions {
        let object = ObjectRef { key: key.clone(), version: Some("none".to_owned()) };
        subject.agent.put(&key, &body(1, 10), &PutOptions::OVERWRITE).await.unwrap();
        assert!(subject.agent.head(&object).await.is_err(), "an invented version was found");
        return;
    }
    let versions = subject.agent.versions().expect("no versions are held");
    for seed in 1..=3 {
        subject.agent.put(&key, &body(seed, 1000 + seed as usize), &PutOptions::OVERWRITE).await.unwrap();
    }
    subject.keeper.deletion().unwrap().delete(&key.clone().into()).await.unwrap();
    assert_eq!(subject.agent.head(&key.clone().into()).await.unwrap_err().kind, ErrorKind::NotFound);
    let all: Vec<_> = versions.list_versions(&subject.prefix).try_collect().await.unwrap();
    assert_eq!(all.iter().filter(|version| version.delete_marker).count(), 1);
    let mut sizes = Vec::new();
    for version in all.iter().filter(|version| !version.delete_marker) {
        assert_eq!(version.object.key, key);
        let back = read(&*subject.agent, version.object.clone(), ByteRange::All).await.unwrap();
        assert!(back == noise(version.bytes - 1000, back.len()), "version of {} bytes differs", version.bytes);
        sizes.push(version.bytes);
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [1001, 1002, 1003]);
}

async fn assert_locked(subject: &Subject, object: ObjectRef, until: jiff::Timestamp) {
    let said = subject.agent.versions().expect("no versions are held").locked_until(&object).await.unwrap();
    assert_eq!(said.map(jiff::Timestamp::as_second), Some(until.as_second()));
    let refused = subject.keeper.deletion().unwrap().delete(&object).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Locked | ErrorKind::Denied), "{refused}");
    subject.agent.head(&object).await.unwrap();
}

pub(super) async fn locks_hold_or_are_refused(subject: Subject) {
    let key = subject.prefix.key("locked").unwrap();
    let until = subject.agent.now().await.unwrap() + SignedDuration::from_mins(1);
    let options = PutOptions { locked_until: Some(until), ..PutOptions::CREATE };
    let stored = subject.agent.put(&key, &body(1, 100), &options).await;
    if subject.known.locks {
        let version = stored.unwrap().version;
        assert_locked(&subject, ObjectRef { key, version }, until).await;
    } else {
        assert_eq!(stored.unwrap_err().kind, ErrorKind::Unsupported);
    }
}

pub(super) async fn locks_of_parts_hold(subject: Subject) {
    let Some(multipart) = subject.agent.multipart() else { return };
    let key = subject.prefix.key("locked.age").unwrap();
    let until = subject.agent.now().await.unwrap() + SignedDuration::from_mins(1);
    let options = PutOptions { locked_until: Some(until), ..PutOptions::CREATE };
    let upload = multipart.begin(&key, &options).await;
    if subject.known.locks {
        let upload = upload.unwrap();
        let parts = send_three(multipart, &upload).await;
        let version = multipart.complete(&upload, &parts).await.unwrap().version;
        assert_locked(&subject, ObjectRef { key, version }, until).await;
    } else {
        assert_eq!(upload.unwrap_err().kind, ErrorKind::Unsupported);
    }
}
