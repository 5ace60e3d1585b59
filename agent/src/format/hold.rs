//! Legal holds (`holds/<generation>-<n>.json`): what somebody decided must not go, and when it may again. Signed by the
//! site; the one with the highest number counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::VERSION;
use crate::ids::{GenerationId, SiteName};

/// Largest hold that a reader accepts, in bytes.
pub const BYTES_MAX: u64 = 16 << 10;
/// Folder of the holds, below the site's prefix.
pub const FOLDER: &str = "holds";
/// Most characters of a reason.
pub const REASON_MAX: usize = 500;

/// `holds/<generation>-<n>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// `hold`.
    pub offsite: Kind,
    /// Version of the format.
    pub version: u32,
    /// The office.
    pub site: SiteName,
    /// The generation that it is about.
    pub generation: GenerationId,
    /// Its number among those about this generation, from 1.
    pub number: u32,
    /// Whether the generation is held from now on, or released.
    pub held: bool,
    /// Why.
    pub reason: String,
    /// When that was decided, by the site's clock.
    pub decided: Timestamp,
}

/// The word that begins a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The only one.
    Hold,
}

impl Hold {
    /// The hold as text.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a hold; `None` if it is none, of a newer version, or of another place than its name says. Whether it is
    /// genuine is the signature's business, and comes first.
    pub fn decode(text: &[u8], site: &SiteName, generation: &GenerationId, number: u32) -> Option<Self> {
        let hold: Self = serde_json::from_slice(text).ok()?;
        let fits = hold.site == *site && hold.generation == *generation && hold.number == number;
        (hold.version <= VERSION && fits).then_some(hold)
    }

    /// What the signature's trusted comment says.
    pub fn trusted_comment(&self) -> String {
        let word = if self.held { "hold" } else { "release" };
        format!("offsite {word} site={} generation={} number={}", self.site, self.generation, self.number)
    }

    /// Its name below the folder of the site, without an ending.
    pub fn name(generation: &GenerationId, number: u32) -> String {
        format!("{FOLDER}/{generation}-{number:04}")
    }

    /// The generation and number that an object of this name below the folder of the holds is about.
    pub fn of_name(name: &str) -> Option<(GenerationId, u32)> {
        let (generation, number) = name.strip_suffix(".json")?.rsplit_once('-')?;
        let (generation, number) = (generation.parse().ok()?, number.parse().ok()?);
        (Self::name(&generation, number).strip_prefix("holds/")? == name.strip_suffix(".json")?)
            .then_some((generation, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_have_one_name() {
        let generation: GenerationId = "20261122T233004Z-7f3a".parse().unwrap();
        assert_eq!(Hold::name(&generation, 2), "holds/20261122T233004Z-7f3a-0002");
        assert_eq!(Hold::of_name("20261122T233004Z-7f3a-0002.json"), Some((generation, 2)));
        for bad in
            ["20261122T233004Z-7f3a-2.json", "20261122T233004Z-7f3a.json", "20261122T233004Z-7f3a-0002", "x-0001.json"]
        {
            assert_eq!(Hold::of_name(bad), None, "{bad}");
        }
    }
}
