//! What lies in a store in which nothing of the site was found: for whoever may have misspelt its name, or the store's place.

use std::collections::BTreeSet;

use futures_util::stream::StreamExt as _;
use providers::{KeyPrefix, ObjectStore};

use super::signature_of;
use crate::format::names;
use crate::ids::{ChainId, SiteName};

/// Objects that are looked at.
const OBJECTS_LOOKED_AT: usize = 5000;

/// What was found instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Other sites that keep something in the store.
    pub sites: BTreeSet<SiteName>,
    /// The store would have to begin in another folder.
    pub misplaced: Option<Misplaced>,
}

/// How far the place of a store is from the one that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// It leads into the folder of a site, so many folders too deep.
    TooDeep(usize),
    /// It ends too early: this folder of it is a store that has the site that is looked for.
    TooHigh(String),
}

/// Looks at what there is, as far as a short look and the rights of its login let us see it.
pub async fn elsewhere(store: &dyn ObjectStore, site: &SiteName) -> Elsewhere {
    let root = KeyPrefix::default();
    let mut objects = store.list(&root).take(OBJECTS_LOOKED_AT);
    let mut found = Elsewhere::default();
    while let Some(Ok(object)) = objects.next().await {
        match root.strip(&object.key).and_then(place_of) {
            Some(Place::OfSite(name)) if name != *site => drop(found.sites.insert(name)),
            // Whose folder the store leads into is not known, so one that has this very site's name counts more.
            Some(Place::Deep(folders)) => {
                found.misplaced = found.misplaced.or(Some(Misplaced::TooDeep(folders)));
            }
            Some(Place::High(folder, name)) if name == *site => {
                if !matches!(found.misplaced, Some(Misplaced::TooHigh(_))) {
                    found.misplaced = Some(Misplaced::TooHigh(folder));
                }
            }
            // In a bucket of many, what others keep deeper down is their own concern.
            Some(Place::High(..) | Place::OfSite(_)) | None => {}
        }
    }
    found
}

enum Place {
    /// The folder of this site lies in the store, where it belongs.
    OfSite(SiteName),
    /// What belongs into the folder of a site lies there: the store begins so many folders too deep.
    Deep(usize),
    /// The folder of this site lies in this folder of the store.
    High(String, SiteName),
}

/// What an object of this name tells of the place of its store, if it is one of ours.
fn place_of(path: &str) -> Option<Place> {
    let segments: Vec<&str> = path.split('/').collect();
    let class = |segment: &&str| [names::ROLLING, names::ARCHIVE].contains(segment);
    let is_chain = |segment: Option<&&str>| segment.is_some_and(|name| name.parse::<ChainId>().is_ok());
    let is_beat = |name: &&str| name.strip_suffix(".minisig") == Some(names::HEARTBEAT);
    // How many folders the folder of a site is below.
    let below = match segments.iter().position(class) {
        Some(at) if is_chain(segments.get(at + 1)) => at,
        // Its own name is anybody's; with a signature beside it, it is ours.
        _ if segments.last().is_some_and(is_beat) => segments.len() - 1,
        _ if signature_of(path).is_some() => return Some(Place::Deep(2)),
        _ => return None,
    };
    match segments.get(..below)? {
        [] => Some(Place::Deep(1)),
        [name] => name.parse().ok().map(Place::OfSite),
        [folders @ .., name] => name.parse().ok().map(|name| Place::High(folders.join("/"), name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_tells_where_the_store_should_begin() {
        let misplaced = |path: &str| match place_of(path) {
            Some(Place::Deep(folders)) => Some((folders, String::new())),
            Some(Place::High(folder, name)) => Some((0, format!("{folder} of {name}"))),
            _ => None,
        };
        let deep = |folders| Some((folders, String::new()));
        let chain = "20261122T233004Z-7f3a";
        let commit = format!("{chain}/{chain}.json.minisig");
        assert_eq!(misplaced("heartbeat.json.minisig"), deep(1));
        assert_eq!(misplaced(&format!("rolling/{commit}")), deep(1));
        assert_eq!(misplaced(&commit), deep(2));
        assert_eq!(misplaced(&format!("townhall/archive/{commit}")), None);
        let high = (0, "backup/2026 of townhall".to_owned());
        assert_eq!(misplaced(&format!("backup/2026/townhall/rolling/{commit}")), Some(high.clone()));
        assert_eq!(misplaced("backup/2026/townhall/heartbeat.json.minisig"), Some(high));
        assert!(matches!(place_of("townhall/heartbeat.json.minisig"), Some(Place::OfSite(_))));
        for other in [
            "letters/rolling/stone.mp3",
            "rolling/stone.mp3",
            "a/b/c",
            "Music/Rolling Stones/heartbeat.json.minisig",
            "heartbeat.json",
            "x/y/heartbeat.json",
        ] {
            assert!(place_of(other).is_none(), "{other}");
        }
    }
}
