//! How many copies there are: what is lost together is one. Pure.

use super::{Found, Surroundings};
use crate::report::counted;

/// What a copy lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A disk of the office's machine, by the name that its system has for it.
    Disk(String),
    /// Disks that are connected one after the other, and lie elsewhere meanwhile.
    Rotation(String),
    /// A folder of another machine, by what is mounted.
    Network(String),
    /// A service, of this kind, by the name of its store.
    Service {
        /// `s3` or `webdav`.
        kind: String,
        /// The store.
        store: String,
    },
    /// The system does not say.
    Unknown,
}

impl Medium {
    /// Whether it lies in the office's machine, as far as is known.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Unknown)
    }

    /// Whether both are known to be the same, so that what takes the one takes the other.
    pub fn same(&self, other: &Self) -> bool {
        *self != Self::Unknown && self == other
    }

    /// Nothing if that is not known.
    fn kind(&self) -> Option<String> {
        match self {
            Self::Disk(_) => Some("disks of the office's machine".to_owned()),
            Self::Rotation(_) => Some("disks that are taken away".to_owned()),
            Self::Network(_) => Some("a folder of another machine".to_owned()),
            Self::Service { kind, .. } => Some(kind.clone()),
            Self::Unknown => None,
        }
    }
}

/// The copies that count, and why others do not.
pub(super) struct Copies {
    /// Those that are on nothing that holds another one, or the data itself.
    counted: Vec<(String, Medium)>,
    /// A clause for each that does not count.
    left_out: Vec<String>,
}

impl Copies {
    /// Goes through what this machine and its stores hold.
    pub(super) fn of(around: &Surroundings) -> Self {
        let own = (around.local_generations > 0)
            .then(|| ("the office's own copies".to_owned(), "lie", around.staging.clone()));
        let holds = |found: &Found| found.rolling + found.archival > 0;
        let stores = around.stores.iter().filter(|store| store.found.as_ref().is_ok_and(holds));
        // Whichever comes first counts: what is off site says more than what is not.
        let mut places: Vec<(String, &str, Medium)> =
            stores.map(|store| (format!("`{}`", store.name), "lies", store.medium.clone())).collect();
        places.extend(own);
        let mut copies = Self { counted: Vec::new(), left_out: Vec::new() };
        for (name, lie, medium) in places {
            if medium == Medium::Unknown {
                copies.left_out.push(format!("what {name} {lie} on could not be seen"));
            } else if around.data.contains(&medium) {
                copies.left_out.push(format!("{name} {lie} on a disk that the data itself lies on"));
            } else if let Some((other, _)) = copies.counted.iter().find(|(_, known)| *known == medium) {
                copies.left_out.push(format!("{name} {lie} on what {other} lies on"));
            } else {
                copies.counted.push((name, medium));
            }
        }
        copies
    }

    /// How many there are, the data itself among them.
    pub(super) fn count(&self) -> u64 {
        1 + self.counted.len() as u64
    }

    /// `3: the data itself, `cloud` and `near`; not counted: …`.
    pub(super) fn text(&self) -> String {
        let names = std::iter::once("the data itself").chain(self.counted.iter().map(|(name, _)| name.as_str()));
        let names = names.collect::<Vec<_>>().join(", ");
        let left_out = match self.left_out.as_slice() {
            [] => String::new(),
            some => format!("; not counted: {}", some.join("; ")),
        };
        format!("{}: {names}{left_out}", self.count())
    }

    /// The kinds of storage, that of the data among them.
    pub(super) fn kinds(&self, around: &Surroundings) -> (usize, String) {
        let mut kinds: Vec<String> = Vec::new();
        let media = around.data.iter().chain(self.counted.iter().map(|(_, medium)| medium));
        for kind in media.filter_map(Medium::kind) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        (kinds.len(), format!("{}: {}", counted(kinds.len() as u64, "kind"), kinds.join(", ")))
    }
}
