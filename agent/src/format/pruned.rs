//! The record of what was pruned (`pruned/<number>.json`): why sequence numbers are missing, signed by who removed them.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::VERSION;
use crate::generation::Class;
use crate::ids::{ChainId, SiteName};

/// Folder of the records, below the site's prefix.
pub const FOLDER: &str = "pruned";
/// Largest record that a reader accepts, in bytes.
pub const BYTES_MAX: u64 = 4 << 20;

/// `pruned/<number>.json`. The one with the highest number counts; those before it are removed when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// `pruned`.
    pub offsite: Kind,
    /// Version of the format.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// Its number, from 1.
    pub number: u64,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
    /// Every sequence number that was ever pruned, this time included.
    pub sequences: Ranges,
    /// The folders that this prune removes entirely.
    pub folders: Vec<Folder>,
}

/// The folder of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Folder {
    /// Rolling or archival.
    pub class: Class,
    /// The chain.
    pub chain: ChainId,
}

/// The word that begins a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only one.
    Pruned,
}

/// Numbers, as runs of first and last: in order, apart from each other, none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(Vec<(u64, u64)>);

/// Pairs that are no runs of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runs of numbers overlap or are out of order")]
pub struct RangesError;

impl Pruned {
    /// The record as text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a record of `site` with this number; `None` if it is none, or of a newer version. Whether it is genuine is the
    /// signature's business, and comes first.
    pub fn decode(text: &[u8], site: &SiteName, number: u64) -> Option<Self> {
        let record: Self = serde_json::from_slice(text).ok()?;
        (record.version <= VERSION && record.site == *site && record.number == number).then_some(record)
    }

    /// Its name below the folder of the site.
    pub fn name(number: u64) -> String {
        format!("{FOLDER}/{number}.json")
    }

    /// What the signature's trusted comment says.
    pub fn trusted_comment(&self) -> String {
        format!("offsite pruned site={} number={}", self.site, self.number)
    }
}

impl Ranges {
    /// Whether `number` is in one of them.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// Adds a number.
    pub fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.insert(at, (number, number));
        let joined = self.0.drain(..).fold(Vec::new(), |mut joined: Vec<(u64, u64)>, (first, last)| {
            match joined.last_mut() {
                Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
                _ => joined.push((first, last)),
            }
            joined
        });
        self.0 = joined;
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) {
        let at = self.0.partition_point(|(_, last)| *last < number);
        let Some((first, last)) = self.0.get(at).copied().filter(|(first, _)| *first <= number) else { return };
        let before = number.checked_sub(1).filter(|end| first <= *end).map(|end| (first, end));
        let after = number.checked_add(1).filter(|start| *start <= last).map(|start| (start, last));
        self.0.splice(at..=at, before.into_iter().chain(after));
    }

    /// The runs of numbers from 1 to `newest` that are in none of them.
    pub fn missing(&self, newest: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = 1;
        for (first, last) in &self.0 {
            if *first > next {
                missing.push((next, (*first - 1).min(newest)));
            }
            next = last.saturating_add(1);
            if next > newest {
                break;
            }
        }
        if next <= newest {
            missing.push((next, newest));
        }
        missing.retain(|(first, last)| first <= last);
        missing
    }
}

impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = RangesError;

    fn try_from(runs: Vec<(u64, u64)>) -> Result<Self, RangesError> {
        let ordered =
            runs.windows(2).all(|pair| matches!(pair, [(_, last), (first, _)] if *last < first.saturating_sub(1)));
        if ordered && runs.iter().all(|(first, last)| 0 < *first && first <= last) {
            Ok(Self(runs))
        } else {
            Err(RangesError)
        }
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: Vec<String> = self.0.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        f.write_str(&runs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_numbers_know_what_they_hold_and_what_is_missing() {
        let mut ranges = Ranges::default();
        for number in [5, 1, 2, 9, 6, 4, 2] {
            ranges.insert(number);
        }
        assert_eq!(ranges.to_string(), "1-2,4-6,9-9");
        let held: Vec<u64> = (0..12).filter(|number| ranges.contains(*number)).collect();
        assert_eq!(held, [1, 2, 4, 5, 6, 9]);
        assert_eq!(ranges.missing(10), [(3, 3), (7, 8), (10, 10)]);
        assert_eq!(ranges.missing(7), [(3, 3), (7, 7)]);
        assert_eq!(ranges.missing(2), []);
        assert_eq!(Ranges::default().missing(3), [(1, 3)]);
        let mut fewer: Ranges = serde_json::from_str(&format!("[[1,{}]]", u64::MAX)).unwrap();
        [1, 7, u64::MAX, 7].iter().for_each(|number| fewer.remove(*number));
        assert_eq!(fewer.to_string(), format!("2-6,8-{}", u64::MAX - 1));
        let text = serde_json::to_string(&ranges).unwrap();
        assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), ranges);
        for bad in ["[[0,1]]", "[[3,2]]", "[[1,2],[3,4]]", "[[5,6],[1,2]]"] {
            assert!(serde_json::from_str::<Ranges>(bad).is_err(), "{bad} was accepted");
        }
    }
}
