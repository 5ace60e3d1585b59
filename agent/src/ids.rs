//! Names of the things the program speaks of; each its own type, checked when it is made.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Why a text is not a name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {kind}: {rule}")]
pub struct NameError {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

const SLUG: &str = "use 1 to 64 characters out of a-z 0-9 . _ -, beginning with a letter or digit";

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_slug(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { text: text.escape_debug().to_string(), kind: $kind, rule: SLUG })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

slug!(
    /// One office: the name of its prefix in every store.
    SiteName,
    "name of a site"
);
slug!(
    /// One source of a site: the first segment of the paths of its files.
    SourceName,
    "name of a source"
);
slug!(
    /// One configured store.
    StoreName,
    "name of a store"
);
slug!(
    /// One place in a rotation of disks: what is written on the disk's sticker.
    SlotName,
    "name of a slot"
);
slug!(
    /// One secret key that lies in the stores under a passphrase.
    KeyName,
    "name of a key"
);
slug!(
    /// One job of the schedule.
    JobName,
    "name of a job"
);

fn is_slug(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// One generation, named by the time of its capture: the second (UTC) and its fraction in 65536ths.
///
/// The text form, `20261122T233004Z-7f3a`, sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationId(String);

/// One chain, named by its full generation.
pub type ChainId = GenerationId;

impl GenerationId {
    /// The id of a generation captured at `now`.
    pub fn new(now: Timestamp) -> Self {
        let time = now.to_zoned(TimeZone::UTC);
        let fraction = i64::from(time.subsec_nanosecond()) * 65_536 / 1_000_000_000;
        Self(format!("{}-{fraction:04x}", time.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GenerationId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = |b: u8| b.is_ascii_digit();
        let shape = text.bytes().enumerate().all(|(at, b)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            16 => b == b'-',
            0..16 => digits(b),
            _ => digits(b) || (b'a'..=b'f').contains(&b),
        });
        if shape && text.len() == 21 {
            return Ok(Self(text.to_owned()));
        }
        let rule = "it looks like 20261122T233004Z-7f3a; `offsite list` shows those there are";
        Err(NameError { text: text.escape_debug().to_string(), kind: "generation", rule })
    }
}

impl TryFrom<String> for GenerationId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<GenerationId> for String {
    fn from(id: GenerationId) -> String {
        id.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_named_by_its_time() {
        let id = GenerationId::new("2026-11-22T23:30:04.497Z".parse().unwrap());
        assert_eq!(id.as_str(), "20261122T233004Z-7f3b");
        assert_eq!(id.as_str().parse::<GenerationId>().unwrap(), id);
        for bad in
            ["", "20261122T233004Z-7f3A", "20261122T233004Z-7f3", "../20261122T233004Z-", "20261122 233004Z-7f3a"]
        {
            assert!(bad.parse::<GenerationId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_are_safe_in_paths_and_keys() {
        for bad in ["", ".", "..", "a/b", "A", "a b", "-a", "é", &"a".repeat(65)] {
            assert!(bad.parse::<SourceName>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("cash-receipting.2".parse::<SourceName>().unwrap().as_str(), "cash-receipting.2");
    }
}
