//! Where each object of a site lies in a store.

use providers::{KeyError, KeyPrefix, ObjectKey};

use crate::format::Sha256;
use crate::generation::Class;
use crate::ids::{ChainId, GenerationId, KeyName, SiteName};

/// Folder of the chains, below the site's prefix.
pub const ROLLING: &str = "rolling";
/// Folder of the archival generations, below the site's prefix.
pub const ARCHIVE: &str = "archive";
/// How to get everything back by hand.
pub const RESTORE_TEXT: &str = "RESTORE.txt";
/// The script that does it.
pub const RESTORE_SCRIPT: &str = "restore.sh";
/// When the site was last heard of; the only object ever overwritten, with its signature.
pub const HEARTBEAT: &str = "heartbeat.json";

/// Folder of secret keys under passphrases, below the site's prefix.
pub const KEYS: &str = "keys";

/// Endings of the objects that make a generation.
pub const MANIFEST: &str = "manifest.age";
/// See [`MANIFEST`].
pub const PACKS: &str = "packs";
/// See [`MANIFEST`].
pub const COMMIT: &str = "json";
/// See [`MANIFEST`].
pub const SIGNATURE: &str = "json.minisig";

/// The folder of one chain (an archival generation is a chain of one) in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFolder(KeyPrefix);

impl ChainFolder {
    /// The folder of `chain` of `site`.
    pub fn new(site: &SiteName, class: Class, chain: &ChainId) -> Result<Self, KeyError> {
        let place = match class {
            Class::Rolling => ROLLING,
            Class::Archival => ARCHIVE,
        };
        Ok(Self(site_prefix(site)?.below(place)?.below(chain.as_str())?))
    }

    /// The folder as a prefix of keys.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.0
    }

    /// The key of a pack.
    pub fn pack(&self, name: &PackName) -> Result<ObjectKey, KeyError> {
        self.0.key(&format!("packs/{name}"))
    }

    /// The key of one of the four objects that make `generation`: `ending` is one of [`MANIFEST`], [`PACKS`],
    /// [`COMMIT`], [`SIGNATURE`].
    pub fn object(&self, generation: &GenerationId, ending: &str) -> Result<ObjectKey, KeyError> {
        self.0.key(&format!("{generation}.{ending}"))
    }
}

/// The key of a secret key under a passphrase, which its owner calls `name`.
pub fn deposited_key(site: &SiteName, name: &KeyName) -> Result<ObjectKey, KeyError> {
    site_prefix(site)?.below(KEYS)?.key(&format!("{name}.age"))
}

/// The prefix of everything a site stores.
pub fn site_prefix(site: &SiteName) -> Result<KeyPrefix, KeyError> {
    site.as_str().parse()
}

/// The name of a pack: generation in the chain, order, digest of the sealed bytes, and whether it holds patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackName {
    /// Which generation of the chain brought it; 0 is the full.
    pub number: u32,
    /// Its place among the packs of that generation, from 1.
    pub order: u32,
    /// SHA-256 of the sealed bytes.
    pub sha256: Sha256,
    /// Whether it holds patches.
    pub patches: bool,
}

/// Text that is no name of a pack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a pack")]
pub struct PackNameError(String);

impl std::fmt::Display for PackName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ending = if self.patches { "patch.age" } else { "age" };
        write!(f, "{:02}-{:04}-{}.{ending}", self.number, self.order, self.sha256)
    }
}

impl std::str::FromStr for PackName {
    type Err = PackNameError;

    fn from_str(text: &str) -> Result<Self, PackNameError> {
        let parse = || {
            let (stem, patches) = match text.strip_suffix(".patch.age") {
                Some(stem) => (stem, true),
                None => (text.strip_suffix(".age")?, false),
            };
            let mut parts = stem.splitn(3, '-');
            let (number, order) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let name = Self { number, order, sha256: parts.next()?.parse().ok()?, patches };
            (name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| PackNameError(text.chars().take(120).flat_map(char::escape_debug).collect()))
    }
}

impl TryFrom<String> for PackName {
    type Error = PackNameError;

    fn try_from(text: String) -> Result<Self, PackNameError> {
        text.parse()
    }
}

impl From<PackName> for String {
    fn from(name: PackName) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_names_have_one_form() {
        let name = PackName { number: 3, order: 12, sha256: Sha256::of(b"x"), patches: true };
        let text = name.to_string();
        assert!(text.starts_with("03-0012-2d711642") && text.ends_with(".patch.age"), "{text}");
        assert_eq!(text.parse::<PackName>().unwrap(), name);
        for bad in ["", "03-0012.age", &text.replace("03-", "3-"), &text.to_uppercase(), &format!("../{text}")] {
            assert!(bad.parse::<PackName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn objects_lie_where_the_format_says() {
        let site = "townhall".parse().unwrap();
        let chain: ChainId = "20261122T233004Z-7f3a".parse().unwrap();
        let folder = ChainFolder::new(&site, Class::Rolling, &chain).unwrap();
        let key = folder.object(&chain, MANIFEST).unwrap();
        assert_eq!(key.as_str(), "townhall/rolling/20261122T233004Z-7f3a/20261122T233004Z-7f3a.manifest.age");
    }
}
