//! What each store was seen to do when it was last probed: kept in the state folder, a file for each store.
//!
//! A lost or unreadable file is no harm: such a store is treated like one that was never probed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use providers::{Finding, Verdict};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::ids::StoreName;

/// A verdict, and the place that it is about: other settings may lead to another place.
#[derive(Debug, Deserialize)]
struct Kept {
    place: String,
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct Keeping<'a> {
    place: &'a str,
    verdict: &'a Verdict,
}

/// The last verdict on `store`, if it was on this place.
pub fn read(state_folder: &Path, store: &StoreName, place: &str) -> Option<Verdict> {
    let kept: Kept = serde_json::from_slice(&fs::read(file(state_folder, store)).ok()?).ok()?;
    (kept.place == place).then_some(kept.verdict)
}

/// Keeps a verdict in the place of the last one. The state folder has to be there.
pub fn write(state_folder: &Path, store: &StoreName, place: &str, verdict: &Verdict) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(&Keeping { place, verdict })?;
    text.push(b'\n');
    durable::write(&file(state_folder, store), &text)
}

/// Why nothing may be sent to a place with this verdict; in sentences without their end.
pub fn obstacles(verdict: &Verdict) -> Vec<String> {
    let sentence = |(name, finding): (&str, &Finding)| match finding {
        Finding::No(why) => format!("it does not do what every backup relies on (`{name}`): {why}"),
        Finding::Unknown(why) => format!("whether it does what every backup relies on (`{name}`) is not known: {why}"),
        Finding::Yes => format!("`{name}` holds"),
    };
    verdict.obstacles().into_iter().map(sentence).collect()
}

/// What the place was seen to do at `earlier` and does no more; in sentences without their end.
pub fn lost(verdict: &Verdict, earlier: &Verdict) -> Vec<String> {
    let lost = verdict.lost_since(earlier);
    let findings = verdict.findings().into_iter().filter(|(name, _)| lost.contains(name));
    findings.map(|(name, finding)| format!("it used to do `{name}` and does it no more ({finding})")).collect()
}

/// What the place does and does not do, a line for each.
pub fn lines(verdict: &Verdict) -> Vec<String> {
    verdict.findings().into_iter().map(|(name, finding)| format!("{name}: {finding}")).collect()
}

/// In a line: what it does not do.
pub fn summary(verdict: &Verdict) -> String {
    let names = |wanted: fn(&Finding) -> bool| -> Vec<&str> {
        verdict.findings().into_iter().filter(|(_, finding)| wanted(finding)).map(|(name, _)| name).collect()
    };
    let (no, unknown) =
        (names(|finding| matches!(finding, Finding::No(_))), names(|finding| matches!(finding, Finding::Unknown(_))));
    let mut parts = Vec::new();
    if !no.is_empty() {
        parts.push(format!("does not: {}", no.join(", ")));
    }
    if !unknown.is_empty() {
        parts.push(format!("not known: {}", unknown.join(", ")));
    }
    if parts.is_empty() { "does all that was tried".to_owned() } else { parts.join("; ") }
}

fn file(state_folder: &Path, store: &StoreName) -> PathBuf {
    state_folder.join(format!("probe-{store}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict() -> Verdict {
        Verdict {
            at: "2026-11-22T12:00:00Z".parse().unwrap(),
            read_back: Finding::Yes,
            ranges: Finding::Yes,
            listing: Finding::Yes,
            create_only: Finding::Yes,
            one_creator: Finding::Yes,
            refuses_taken: Finding::Yes,
            checks_content: Finding::Yes,
            parts: Finding::Yes,
            lock: Finding::Unknown("it was not asked for".to_owned()),
            delete_refused: Finding::No("the credential deleted an object".to_owned()),
            clock_ahead_s: 2,
        }
    }

    #[test]
    fn a_verdict_is_of_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let name = "far".parse().unwrap();
        assert_eq!(read(folder.path(), &name, "s3://one"), None);
        write(folder.path(), &name, "s3://one", &verdict()).unwrap();
        assert_eq!(read(folder.path(), &name, "s3://one"), Some(verdict()));
        assert_eq!(read(folder.path(), &name, "s3://other"), None);
        fs::write(file(folder.path(), &name), "{").unwrap();
        assert_eq!(read(folder.path(), &name, "s3://one"), None);
    }

    #[test]
    fn what_is_lost_and_what_is_in_the_way_is_said() {
        let good = verdict();
        assert_eq!(summary(&good), "does not: delete refused; not known: lock");
        assert_eq!((obstacles(&good), lost(&good, &good)), (vec![], vec![]));
        let bad = Verdict { read_back: Finding::No("other bytes came back".to_owned()), ..verdict() };
        assert_eq!(obstacles(&bad).len(), 1);
        assert_eq!(lost(&bad, &good), ["it used to do `read back` and does it no more (no: other bytes came back)"]);
        assert_eq!(lost(&good, &bad), Vec::<String>::new());
    }
}
