//! Probes of stores in memory, honest and not.

use std::sync::Arc;

use super::*;
use crate::faulty::{Call, Fault, Faulty};
use crate::{DirectorySettings, ErrorKind, MemoryStore, Retry};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

async fn probed(plan: impl Fn(&Call<'_>) -> Fault + Send + Sync + Clone + 'static) -> Verdict {
    let keeper = MemoryStore::new(5, Access::Keeper, NOW);
    let [agent, bare] = [(), ()].map(|()| Faulty::new(Arc::new(keeper.opened_for(Access::Agent)), plan.clone()));
    let keeper = Faulty::new(Arc::new(keeper), plan);
    let stores = steps::Stores { agent: &agent, keeper: &keeper, bare: &bare };
    steps::run(stores, &"site".parse().unwrap(), "n1", NOW, true).await.unwrap()
}

#[tokio::test]
async fn a_strict_store_does_everything_but_refuse_the_keeper() {
    let verdict = probed(|_| Fault::None).await;
    for (name, finding) in verdict.findings() {
        let wanted = name != "delete refused";
        assert_eq!(*finding == Finding::Yes, wanted, "{name}: {finding}");
    }
    assert!(verdict.is_usable());
    assert_eq!(verdict.clock_ahead_s, 0);
    assert_eq!(verdict.seen(), Seen { refuses_taken: true, checks_content: true, takes_parts: true, locks: true });
}

#[tokio::test]
async fn what_was_seen_not_to_work_is_not_offered_and_what_is_not_known_is_tried() {
    let fails = |kind| {
        move |call: &Call<'_>| {
            let parts = ["begin", "locked_until"].contains(&call.method);
            if parts { Fault::Refused(kind, Retry::Never) } else { Fault::None }
        }
    };
    let without = Seen { refuses_taken: true, checks_content: true, takes_parts: false, locks: false };
    assert_eq!(probed(fails(ErrorKind::Protocol)).await.seen(), without);
    let with = Seen { takes_parts: true, locks: true, ..without };
    assert_eq!(probed(fails(ErrorKind::Denied)).await.seen(), with);
}

#[tokio::test]
async fn damage_is_seen_and_makes_a_place_unusable() {
    let verdict = probed(|call| if call.method == "get" { Fault::Damaged(1100) } else { Fault::None }).await;
    assert!(matches!(verdict.read_back, Finding::No(_)) && !verdict.is_usable());
    let before = probed(|_| Fault::None).await;
    assert!(verdict.lost_since(&before).contains(&"read back"));
    assert_eq!(before.lost_since(&verdict), [""; 0]);
}

#[tokio::test]
async fn what_could_not_be_tried_is_not_denied() {
    let refused = Fault::Refused(ErrorKind::Denied, Retry::Never);
    let verdict = probed(move |call| if call.method == "delete" { refused } else { Fault::None }).await;
    assert_eq!(verdict.delete_refused, Finding::Yes);
    let verdict = probed(move |call| if call.method == "get" { refused } else { Fault::None }).await;
    assert!(matches!(verdict.read_back, Finding::Unknown(_)), "{}", verdict.read_back);
}

#[tokio::test]
async fn a_directory_is_usable_and_left_clean() {
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings::Directory(DirectorySettings { path: folder.path().to_owned(), mark: None });
    let verdict =
        probe(&settings, &Policy::default(), &KeyPrefix::default(), "n1", Timestamp::now(), true).await.unwrap();
    assert!(verdict.is_usable(), "{verdict:?}");
    assert!(matches!(verdict.lock, Finding::No(_)) && matches!(verdict.parts, Finding::No(_)));
    assert!(verdict.clock_ahead_s.abs() < 60);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
