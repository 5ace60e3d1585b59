//! What a removal comes to in a place that keeps versions: there it only hides, and it is a rule of the place that frees room.
//!
//! The program itself never removes a version. Who gets hold of a credential that prunes can hide everything with it;
//! what he cannot do is destroy, and `--as-of` brings back what he hid.

use std::fmt;

use providers::{ErrorKind, ObjectStore};
use serde::Serialize;

use super::PruneError;
use crate::format::names;
use crate::ids::SiteName;

/// What becomes of what was removed from a place that keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "hidden")]
pub enum Hidden {
    /// A rule of the place removes it after so long.
    For {
        /// Days.
        days: u32,
    },
    /// Nothing ever removes it.
    ForEver,
    /// The credential may not ask.
    Unknown,
}

/// What becomes of what is removed of `site` in `store`; nothing if it is simply gone, since no versions are kept.
pub async fn hidden(store: &dyn ObjectStore, site: &SiteName) -> Result<Option<Hidden>, PruneError> {
    let Some(versions) = store.versions() else { return Ok(None) };
    let failed = |source| PruneError::Store { doing: "it was asked whether it keeps versions", source };
    let prefix = names::site_prefix(site)?;
    // Of the only object that is written again and again.
    let beat = match store.head(&prefix.key(names::HEARTBEAT)?.into()).await {
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        head => head.map_err(failed)?,
    };
    if beat.version.is_none_or(|version| version == providers::NO_VERSION) {
        return Ok(None);
    }
    match versions.hidden_for(&prefix).await {
        Ok(Some(days)) => Ok(Some(Hidden::For { days })),
        Ok(None) => Ok(Some(Hidden::ForEver)),
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unsupported) => Ok(Some(Hidden::Unknown)),
        Err(error) => Err(failed(error)),
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bucket keeps versions, so what is removed is hidden first")?;
        match self {
            Self::For { days } => write!(f, "; a rule of the bucket removes it {days} days later"),
            Self::ForEver => f.write_str(
                ", and no rule of the bucket ever removes it: it takes room, and what should be gone after max_age is still \
                 there; give the bucket the rule in deploy/policies/lifecycle.json",
            ),
            Self::Unknown => f.write_str(
                ", and this key may not ask whether a rule of the bucket removes it later (s3:GetLifecycleConfiguration): \
                 see that it has the rule in deploy/policies/lifecycle.json",
            ),
        }
    }
}
