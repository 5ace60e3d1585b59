//! Promises about whole objects.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;

use super::{Subject, body, listed, noise, read};
use crate::error::ErrorKind;
use crate::key::SEGMENT_BYTES_MAX;
use crate::store::{Body, ByteRange, ObjectRef, PutOptions};

pub(super) async fn what_is_put_is_what_is_read(subject: Subject) {
    let folder = tempfile::tempdir().unwrap();
    for (at, bytes) in [0, 1, 1000, 65_537, 3 << 20].into_iter().enumerate() {
        let (content, seed) = (noise(at as u64, bytes), at as u64);
        let file = folder.path().join(at.to_string());
        std::fs::write(&file, &content).unwrap();
        let in_memory = body(seed, bytes);
        let in_file = Body::from_file(file, bytes as u64, *in_memory.sha256());
        for (body, name) in [(in_memory, "memory"), (in_file, "file")] {
            let key = subject.prefix.key(&format!("{name}/{bytes}.age")).unwrap();
            let said = subject.agent.put(&key, &body, &PutOptions::CREATE).await.unwrap();
            assert_eq!((&said.key, said.bytes), (&key, bytes as u64), "what `put` said");
            let meta = subject.agent.head(&key.clone().into()).await.unwrap();
            assert_eq!((&meta.key, meta.bytes), (&key, bytes as u64), "what `head` said");
            assert!(meta.sha256.is_none_or(|sha256| sha256 == *body.sha256()), "the digest that `head` said");
            let back = read(&*subject.agent, key, ByteRange::All).await.unwrap();
            assert!(back == content, "{bytes} bytes from {name} came back differently");
        }
    }
}

pub(super) async fn creating_never_replaces(subject: Subject) {
    let key = subject.prefix.key("once").unwrap();
    subject.agent.put(&key, &body(1, 5000), &PutOptions::CREATE).await.unwrap();
    for seed in [1, 2] {
        let again = subject.agent.put(&key, &body(seed, 5000), &PutOptions::CREATE).await;
        assert_eq!(again.unwrap_err().kind, ErrorKind::AlreadyExists);
    }
    assert!(read(&*subject.agent, key, ByteRange::All).await.unwrap() == noise(1, 5000));
}

pub(super) async fn one_creator_wins(subject: Subject) {
    let key = subject.prefix.key("race/prize").unwrap();
    let bodies: Vec<_> = (0..8).map(|seed| body(seed, 20_000)).collect();
    let done = join_all(bodies.iter().map(|body| subject.agent.put(&key, body, &PutOptions::CREATE))).await;
    let winners: Vec<_> = (0..8).filter(|at| done[*at].is_ok()).collect();
    for error in done.iter().filter_map(|done| done.as_ref().err()) {
        assert_eq!(error.kind, ErrorKind::AlreadyExists, "{error}");
    }
    let held = read(&*subject.agent, key, ByteRange::All).await.unwrap();
    let held = (0..8).find(|seed| noise(*seed, 20_000) == held).expect("the object is a mixture") as usize;
    assert!(winners.contains(&held), "{held} is there, yet {winners:?} were told they had won");
    if subject.known.create_is_atomic {
        assert_eq!(winners.len(), 1, "{winners:?} were all told they had won");
    }
}

pub(super) async fn overwriting_replaces(subject: Subject) {
    let key = subject.prefix.key("heartbeat").unwrap();
    for (seed, bytes) in [(1, 9000), (2, 100), (3, 20_000)] {
        subject.agent.put(&key, &body(seed, bytes), &PutOptions::OVERWRITE).await.unwrap();
        assert!(read(&*subject.agent, key.clone(), ByteRange::All).await.unwrap() == noise(seed, bytes));
    }
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, [(key, 20_000)]);
}

pub(super) async fn what_is_missing_is_said_to_be(subject: Subject) {
    for name in ["absent", "no/such/folder/absent"] {
        let object = ObjectRef::from(subject.prefix.key(name).unwrap());
        assert_eq!(subject.agent.head(&object).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(subject.agent.get(&object, ByteRange::All).await.err().unwrap().kind, ErrorKind::NotFound);
    }
    let key = subject.prefix.key("folder/object").unwrap();
    subject.agent.put(&key, &body(1, 10), &PutOptions::CREATE).await.unwrap();
    let folder = ObjectRef::from(subject.prefix.key("folder").unwrap());
    assert_eq!(subject.agent.head(&folder).await.unwrap_err().kind, ErrorKind::NotFound, "a folder is no object");
}

pub(super) async fn ranges_are_exact(subject: Subject) {
    let key = subject.prefix.key("ranged").unwrap();
    let content = noise(4, 300_000);
    subject.agent.put(&key, &body(4, 300_000), &PutOptions::CREATE).await.unwrap();
    let cases = [
        (0, 1),
        (0, 300_000),
        (1, 65_536),
        (299_999, 1),
        (299_999, 10),
        (100, 0),
        (300_000, 1),
        (999_999, 5),
        (5, u64::MAX - 5),
    ];
    for (offset, bytes) in cases {
        let back = read(&*subject.agent, key.clone(), ByteRange::From { offset, bytes }).await.unwrap();
        let clamp = |at: u64| usize::try_from(at).unwrap().min(content.len());
        let wanted = &content[clamp(offset)..clamp(offset.saturating_add(bytes))];
        assert!(back == wanted, "{bytes} bytes from {offset}: {} came back", back.len());
    }
}

pub(super) async fn listing_is_complete(subject: Subject) {
    let mut wanted = Vec::new();
    let names = ["a/b/c.age", "a/b.age", "a-b.age", "ab/c", "a/b/d/e", "A/b/c.age", "z"];
    let many = (0..subject.known.listed).map(|at| format!("many/{at:05}.age"));
    for name in names.into_iter().map(str::to_owned).chain(many) {
        wanted.push((subject.prefix.key(&name).unwrap(), name.len()));
    }
    let agent = subject.agent.clone();
    let puts = stream::iter(wanted.clone()).map(move |(key, bytes)| {
        let (agent, body) = (agent.clone(), body(0, bytes));
        async move { agent.put(&key, &body, &PutOptions::CREATE).await }
    });
    let done: Vec<_> = puts.buffer_unordered(8).collect().await;
    assert!(done.iter().all(Result::is_ok), "{:?}", done.into_iter().find(Result::is_err));
    wanted.sort();
    let below = |prefix: &crate::KeyPrefix| -> Vec<_> {
        let inside = wanted.iter().filter(|(key, _)| prefix.strip(key).is_some());
        inside.map(|(key, bytes)| (key.clone(), *bytes as u64)).collect()
    };
    for name in ["a", "a/b", "ab", "many", "A", "none", "a/none"] {
        let prefix = subject.prefix.below(name).unwrap();
        assert_eq!(listed(&*subject.agent, &prefix).await, below(&prefix), "below `{prefix}`");
    }
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, below(&subject.prefix), "everything");
}

pub(super) async fn folders_appear_under_many_hands(subject: Subject) {
    let keys: Vec<_> =
        (0..12).map(|at| subject.prefix.key(&format!("new/deep/folder-{}/{at}", at % 3)).unwrap()).collect();
    let body = body(1, 100);
    for done in join_all(keys.iter().map(|key| subject.agent.put(key, &body, &PutOptions::CREATE))).await {
        done.unwrap();
    }
    assert_eq!(listed(&*subject.agent, &subject.prefix).await.len(), keys.len());
}

pub(super) async fn long_names_are_kept(subject: Subject) {
    let segment = "0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz.age".repeat(4);
    let name = format!("{0}/{0}/end", &segment[..SEGMENT_BYTES_MAX]);
    let key = subject.prefix.key(&name).unwrap();
    subject.agent.put(&key, &body(1, 100), &PutOptions::CREATE).await.unwrap();
    let long = subject.prefix.key(&segment[..SEGMENT_BYTES_MAX].replace("0123", "long")).unwrap();
    subject.agent.put(&long, &body(1, 100), &PutOptions::CREATE).await.unwrap();
    let mut wanted = [(key, 100), (long, 100)];
    wanted.sort();
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, wanted);
}

pub(super) async fn a_changed_body_is_not_stored(subject: Subject) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spooled");
    std::fs::write(&file, noise(1, 4999)).unwrap();
    let key = subject.prefix.key("changed").unwrap();
    for (path, name) in [(file, "shorter"), (folder.path().join("absent"), "absent")] {
        let body = Body::from_file(path, 5000, *body(1, 5000).sha256());
        let error = subject.agent.put(&key, &body, &PutOptions::CREATE).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Local, "a body that is {name}: {error}");
    }
    assert_eq!(listed(&*subject.agent, &subject.prefix).await, []);
}

pub(super) async fn the_clock_is_told(subject: Subject) {
    let told = subject.agent.now().await.unwrap();
    let apart = told.duration_since(Timestamp::now()).abs();
    assert!(apart.as_secs() < 300, "the store says {told}");
}
