//! A guarded store over a faulty one.

use futures_util::TryStreamExt as _;

use bytes::Bytes;

use super::*;
use crate::conformance::noise;
use crate::faulty::{Call, Fault, Faulty};
use crate::{Access, MemoryStore, Retry};

fn memory() -> Arc<MemoryStore> {
    let limits = PartLimits { part_bytes_min: 10, part_bytes_max: 1 << 20, parts_max: 10 };
    Arc::new(MemoryStore::new(3, Access::Agent, Timestamp::UNIX_EPOCH).with_part_limits(limits))
}

fn guarded(store: &Arc<MemoryStore>, plan: impl Fn(&Call<'_>) -> Fault + Send + Sync + 'static) -> Guarded {
    let policy = Policy { attempts: 4, ..Policy::default() };
    Guarded::new(Arc::new(Faulty::new(store.clone(), plan)), &policy)
}

/// The first call of `method` has this fault.
fn first(method: &'static str, fault: Fault) -> impl Fn(&Call<'_>) -> Fault + Send + Sync {
    let done = std::sync::atomic::AtomicBool::new(false);
    move |call| {
        let now = call.method == method && !done.swap(true, std::sync::atomic::Ordering::SeqCst);
        if now { fault } else { Fault::None }
    }
}

fn key() -> ObjectKey {
    "a/b".parse().unwrap()
}

fn body(seed: u64) -> Body {
    Body::from_bytes(noise(seed, 300_000))
}

async fn content(store: &dyn ObjectStore, range: ByteRange) -> Result<Bytes> {
    let pieces: Vec<Bytes> = store.get(&key().into(), range).await?.try_collect().await?;
    Ok(pieces.concat().into())
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_reply_was_lost_is_done() {
    let memory = memory();
    guarded(&memory, first("put", Fault::LostReply)).put(&key(), &body(1), &PutOptions::CREATE).await.unwrap();
    assert!(content(&*memory, ByteRange::All).await.unwrap() == noise(1, 300_000));
}

#[tokio::test(start_paused = true)]
async fn another_object_is_not_taken_for_ours() {
    let memory = memory();
    memory.put(&key(), &body(2), &PutOptions::CREATE).await.unwrap();
    let flaky = guarded(&memory, first("put", Fault::BrokenAfter(0)));
    let error = flaky.put(&key(), &body(1), &PutOptions::CREATE).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    // Nor is the same object, if nothing of ours was lost.
    let sound = guarded(&memory, |_| Fault::None);
    assert_eq!(sound.put(&key(), &body(2), &PutOptions::CREATE).await.unwrap_err().kind, ErrorKind::AlreadyExists);
}

#[tokio::test(start_paused = true)]
async fn a_completion_whose_reply_was_lost_is_done() {
    let memory = memory();
    let store = guarded(&memory, first("complete", Fault::LostReply));
    let parts = store.multipart().unwrap();
    let upload = parts.begin(&key(), &PutOptions::CREATE).await.unwrap();
    let sent =
        [parts.put_part(&upload, 1, &body(1)).await.unwrap(), parts.put_part(&upload, 2, &body(2)).await.unwrap()];
    let meta = parts.complete(&upload, &sent).await.unwrap();
    assert_eq!(meta.bytes, 600_000);
    // A forgotten upload stays one.
    let error = parts.complete(&Upload { id: "gone".to_owned(), ..upload }, &sent).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_broken_body_goes_on_where_it_broke() {
    let memory = memory();
    memory.put(&key(), &body(1), &PutOptions::CREATE).await.unwrap();
    let whole = noise(1, 300_000);
    for (range, wanted) in [
        (ByteRange::All, whole.clone()),
        (ByteRange::From { offset: 10, bytes: 250_000 }, whole.slice(10..250_010)),
        (ByteRange::From { offset: 200_000, bytes: 900_000 }, whole.slice(200_000..)),
    ] {
        // Every reading breaks after a little more than was read before: the count begins anew with each advance.
        let store = guarded(&memory, |_| Fault::BrokenAfter(70_001));
        assert!(content(&store, range).await.unwrap() == wanted, "{range:?}");
    }
    let stuck = guarded(&memory, |_| Fault::BrokenAfter(0));
    let error = content(&stuck, ByteRange::All).await.unwrap_err();
    assert_eq!(error.retry, Retry::Exhausted { attempts: 4 });
}

#[tokio::test(start_paused = true)]
async fn a_listing_goes_on_after_a_failure() {
    let memory = memory();
    memory.put(&key(), &body(1), &PutOptions::CREATE).await.unwrap();
    let later = Fault::Refused(ErrorKind::Throttled, Retry::Later { after: None });
    let store = guarded(&memory, first("list", later));
    assert_eq!(store.list(&KeyPrefix::default()).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    let refused = guarded(&memory, |_| Fault::Refused(ErrorKind::Denied, Retry::Never));
    let error = refused.list(&KeyPrefix::default()).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_asked_once() {
    let store = Arc::new(Faulty::new(memory(), |_| Fault::Refused(ErrorKind::Denied, Retry::Never)));
    let guarded = Guarded::new(store.clone(), &Policy::default());
    guarded.head(&key().into()).await.unwrap_err();
    assert_eq!(store.calls(), 1);
}
