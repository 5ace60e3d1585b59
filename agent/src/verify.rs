//! Proving that what is stored is what was stored: every pack is read again and hashed. Needs no key that opens anything.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use providers::{ByteRange, KeyError, ObjectKey, ObjectStore};
use sha2::Digest as _;

use crate::byhand;
use crate::catalog::{self, CatalogError, Stored, Trust};
use crate::failure::one_line;
use crate::format::Sha256;
use crate::format::commit::Commit;
use crate::format::names::{self, ChainFolder, PackName};
use crate::format::pruned::Ranges;
use crate::ids::{GenerationId, SiteName};
use crate::progress::Progress;
use crate::prune::{self, PruneError};
use crate::sign::SitePublicKey;

/// Largest manifest that is read, sealed: what a restore would read of it.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Largest list of packs that is read, in bytes: half a million packs.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Largest `RESTORE.txt` or `restore.sh` that is read.
const HELP_BYTES_MAX: u64 = 64 << 10;
/// Objects read at once.
const PARALLEL: usize = 4;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Generations looked at.
    pub generations: u64,
    /// Packs read and found whole.
    pub packs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Packs left out by the sample; their presence and size were looked at all the same.
    pub sampled_out: u64,
    /// Packs that are not there, or have other bytes than were stored; not those that only could not be read.
    pub damaged: BTreeSet<Sha256>,
    /// Packs that were read and found whole, wherever they lie.
    pub whole: BTreeSet<Sha256>,
    /// Everything that is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object, or the generation if it is about a whole one.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The generations that it harms.
    pub harms: Vec<GenerationId>,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store refused or does not answer.
    #[error(transparent)]
    Store(#[from] providers::Error),
    /// A document cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What was pruned before cannot be read.
    #[error("the record of what was pruned cannot be read")]
    Pruned(#[from] PruneError),
    /// A key could not be formed.
    #[error("an object has no name")]
    Key(#[from] KeyError),
}

/// Reads the packs of `generations` again. Of the packs, `sample_percent` (1 to 100) are read whole, chosen by their
/// digests and `round`, so that other rounds read others; all of them have to be there.
pub async fn verify(
    store: &dyn ObjectStore,
    site: &SiteName,
    generations: &[Stored],
    sample_percent: u8,
    round: u64,
    progress: &Progress,
) -> Result<VerifyReport, VerifyError> {
    let mut report = VerifyReport { generations: generations.len() as u64, ..VerifyReport::default() };
    let mut wanted: BTreeMap<ObjectKey, (Sha256, u64, Vec<GenerationId>)> = BTreeMap::new();
    for stored in generations {
        match needed(store, site, stored).await? {
            Ok(packs) => {
                for (key, sha256) in packs {
                    // No pack is larger than all packs of its generation together.
                    let most = stored.commit.as_ref().map_or(0, |commit| commit.needed_bytes);
                    wanted.entry(key).or_insert((sha256, most, Vec::new())).2.push(stored.generation.clone());
                }
            }
            Err(finding) => report.findings.push(finding),
        }
    }
    let present = present(store, site, generations).await?;
    let mut to_read = Vec::new();
    let mut left_out = Vec::new();
    for (key, (sha256, most, harms)) in wanted {
        let Some(bytes) = present.get(&key).map(|bytes| most.min(*bytes)) else {
            report.findings.push(Finding { object: key.to_string(), what: "it is missing".to_owned(), harms });
            report.damaged.insert(sha256);
            continue;
        };
        let chosen = if in_sample(&sha256, sample_percent, round) { &mut to_read } else { &mut left_out };
        chosen.push((key, sha256, harms, bytes));
    }
    // A sample of few packs is at least one, each time another one.
    if to_read.is_empty() && !left_out.is_empty() {
        let turn = usize::try_from(round % left_out.len() as u64).unwrap_or(0);
        to_read.push(left_out.swap_remove(turn));
    }
    report.sampled_out = left_out.len() as u64;
    let mut unread: BTreeSet<Sha256> = left_out.iter().map(|(_, sha256, ..)| *sha256).collect();
    progress.begin(crate::progress::Stage::Verifying, to_read.iter().map(|(.., bytes)| bytes).sum());
    let reads = to_read.into_iter().map(|(key, sha256, harms, bytes)| async move {
        // More than was listed would be another object.
        let found = hash(store, &key, bytes, progress).await;
        (key, sha256, harms, found)
    });
    let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
    while let Some((key, sha256, harms, found)) = reads.next().await {
        let what = match found {
            Ok((found, bytes)) if found == sha256 => {
                report.packs += 1;
                report.bytes += bytes;
                report.whole.insert(sha256);
                continue;
            }
            Ok((found, _)) => {
                report.damaged.insert(sha256);
                format!("its bytes are not what was stored (SHA-256 is {found})")
            }
            // A line that is down or a disk that was unplugged says nothing of what is stored.
            Err(error) => {
                unread.insert(sha256);
                format!("it cannot be read: {}", one_line(&error))
            }
        };
        report.findings.push(Finding { object: key.to_string(), what, harms });
    }
    report.whole.retain(|sha256| !report.damaged.contains(sha256) && !unread.contains(sha256));
    report.findings.sort();
    Ok(report)
}

/// What is wrong with a site as a whole, of which `generations` is all that the store lists: generations that are gone or
/// exchanged, the heartbeat, and the instructions for restoring by hand. Without the site's key, signatures prove nothing.
/// What the site, or one of its `keepers`, has pruned is not missing.
pub async fn verify_site(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
    keepers: &[SitePublicKey],
    generations: &[Stored],
) -> Result<Vec<Finding>, VerifyError> {
    let (pruned, unsigned) = match key {
        Some(key) => {
            let pruners: Vec<_> = [key].into_iter().chain(keepers).cloned().collect();
            prune::pruned_before(store, site, &pruners).await?
        }
        None => (Ranges::default(), Vec::new()),
    };
    let mut findings = judge_site(store, site, key, &pruned, generations).await?;
    findings.extend(unsigned.into_iter().map(|object| {
        let what =
            "it cannot be read, or nobody who may prune here signed it: what it says was pruned seems to be missing";
        Finding { object, what: what.to_owned(), harms: Vec::new() }
    }));
    Ok(findings)
}

/// As [`verify_site`], of a site that has pruned the generations with these numbers.
pub async fn judge_site(
    store: &dyn ObjectStore,
    site: &SiteName,
    key: Option<&SitePublicKey>,
    pruned: &Ranges,
    generations: &[Stored],
) -> Result<Vec<Finding>, VerifyError> {
    let mut findings = broken_chain(generations, pruned);
    let root = names::site_prefix(site)?;
    if let Some(key) = key
        && let Some(what) = catalog::pulse(store, site, key, generations).await?.complaint()
    {
        findings.push(Finding { object: root.key(names::HEARTBEAT)?.to_string(), what, harms: Vec::new() });
    }
    let instructions: &[&str] =
        if generations.is_empty() { &[] } else { &[names::RESTORE_TEXT, names::RESTORE_SCRIPT] };
    for name in instructions {
        let key = root.key(name)?;
        let what = match catalog::small(store, &key, HELP_BYTES_MAX).await {
            Ok(text) if byhand::is_ours(name, &text) => continue,
            Ok(_) | Err(CatalogError::TooLarge { .. }) => {
                "it is not what this program puts there: do not follow or run it; remove it, and the next run of \
                 `offsite backup` brings it anew"
                    .to_owned()
            }
            Err(error) => format!("it cannot be read: {}", one_line(&error)),
        };
        findings.push(Finding { object: key.to_string(), what, harms: Vec::new() });
    }
    Ok(findings)
}

/// Gaps in the chain of signatures: each genuine generation names the one before it, unless that was pruned.
fn broken_chain(generations: &[Stored], pruned: &Ranges) -> Vec<Finding> {
    let mut commits: Vec<_> = generations
        .iter()
        .filter_map(|stored| Some((stored.commit.as_ref().filter(|_| stored.trust == Trust::Signed)?, stored.sha256?)))
        .collect();
    commits.sort_by_key(|(commit, _)| commit.sequence);
    let is_unreadable = |id: &GenerationId| {
        generations.iter().any(|stored| stored.generation == *id && matches!(stored.trust, Trust::Unreadable(_)))
    };
    let mut findings = Vec::new();
    let mut find = |commit: &Commit, what: String| {
        let generation = commit.generation.clone();
        findings.push(Finding { object: generation.to_string(), what, harms: vec![generation] });
    };
    let pairs = [None].into_iter().chain(commits.iter().map(Some)).zip(&commits);
    for (earlier, (commit, _)) in pairs {
        let previous = commit.previous.as_ref();
        match earlier {
            Some((earlier, _)) if earlier.sequence == commit.sequence => {
                find(
                    commit,
                    format!("it has the same number as {}: two machines, or an old copy of one", earlier.generation),
                );
            }
            Some((earlier, sha256)) if earlier.sequence + 1 == commit.sequence => {
                if previous.is_none_or(|previous| previous.sha256 != *sha256) {
                    let why = "as the generation before it: one of the two was exchanged";
                    find(commit, format!("it does not name {} {why}", earlier.generation));
                }
            }
            _ if pruned.contains(commit.sequence.saturating_sub(1)) => {}
            _ if previous.is_some_and(|previous| is_unreadable(&previous.generation)) => {}
            // A store may have been tidied by hand, a chain at a time, before there was a record of that.
            _ => {
                if let (Some(previous), true) = (previous, commit.number > 0) {
                    let why = "and that is not there: somebody removed it";
                    find(commit, format!("it names {} as the generation before it, {why}", previous.generation));
                }
            }
        }
    }
    findings
}

type Needed = Result<Vec<(ObjectKey, Sha256)>, Finding>;

/// The packs that a generation's own list names, if the generation and its documents are genuine.
async fn needed(store: &dyn ObjectStore, site: &SiteName, stored: &Stored) -> Result<Needed, VerifyError> {
    let generation = &stored.generation;
    let find = |object: String, what: String| Ok(Err(Finding { object, what, harms: vec![generation.clone()] }));
    let folder = ChainFolder::new(site, stored.class, &stored.chain)?;
    let document = folder.object(generation, names::COMMIT)?.to_string();
    let commit = match (&stored.trust, &stored.commit) {
        (Trust::Refused(why) | Trust::Unreadable(why), _) => return find(document, why.clone()),
        (_, None) => return find(document, "it is missing".to_owned()),
        (_, Some(commit)) => commit,
    };
    let manifest = folder.object(generation, names::MANIFEST)?;
    // It is hashed as it comes, so that memory does not depend on a size that nobody may have signed.
    match hash(store, &manifest, commit.manifest.bytes.min(MANIFEST_BYTES_MAX), &Progress::default()).await {
        Ok((found, _)) if found == commit.manifest.sha256 => {}
        Ok(_) => return find(manifest.to_string(), "its bytes are not what was stored".to_owned()),
        Err(error) => return find(manifest.to_string(), format!("it cannot be read: {}", one_line(&error))),
    }
    let key = folder.object(generation, names::PACKS)?;
    let list = match catalog::small(store, &key, commit.packs.bytes.min(LIST_BYTES_MAX)).await {
        Ok(list) if Sha256::of(&list) == commit.packs.sha256 => list,
        Ok(_) => return find(key.to_string(), "its bytes are not what was stored".to_owned()),
        Err(error) => return find(key.to_string(), format!("it cannot be read: {}", one_line(&error))),
    };
    match parse_list(&list) {
        Some(packs) => {
            let packs = packs.into_iter().map(|name| Ok((folder.pack(&name)?, name.sha256)));
            Ok(Ok(packs.collect::<Result<_, KeyError>>()?))
        }
        None => find(key.to_string(), "it is no list of packs".to_owned()),
    }
}

/// Reads a `.packs` list: lines as `sha256sum` writes them, each naming a pack by its own digest.
pub fn parse_list(list: &[u8]) -> Option<Vec<PackName>> {
    let text = std::str::from_utf8(list).ok()?;
    let line = |line: &str| {
        let (sha256, name) = line.split_once("  packs/")?;
        let name: PackName = name.parse().ok()?;
        (sha256.parse() == Ok(name.sha256)).then_some(name)
    };
    text.lines().map(line).collect()
}

/// Sizes of the packs in the folders that `generations` lie in.
async fn present(
    store: &dyn ObjectStore,
    site: &SiteName,
    generations: &[Stored],
) -> Result<BTreeMap<ObjectKey, u64>, VerifyError> {
    let mut folders = BTreeSet::new();
    for stored in generations {
        let folder = ChainFolder::new(site, stored.class, &stored.chain)?;
        folders.insert(folder.prefix().below("packs")?);
    }
    let mut present = BTreeMap::new();
    for folder in &folders {
        present.extend(catalog::objects(store, folder).await?);
    }
    Ok(present)
}

/// The digest and size of an object. It is not read any further when it has more than `limit` bytes: then both are those
/// of what was read.
pub(crate) async fn hash(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    limit: u64,
    progress: &Progress,
) -> Result<(Sha256, u64), providers::Error> {
    let mut stream = store.get(&key.clone().into(), ByteRange::All).await?;
    let (mut sha256, mut bytes) = (sha2::Sha256::new(), 0);
    while let Some(piece) = stream.try_next().await? {
        sha256.update(&piece);
        bytes += piece.len() as u64;
        progress.add_done(piece.len() as u64);
        if bytes > limit {
            break;
        }
    }
    Ok((Sha256(sha256.finalize().into()), bytes))
}

/// Digests are evenly spread, so the first byte of one, turned by the round, is a fair choice.
fn in_sample(sha256: &Sha256, percent: u8, round: u64) -> bool {
    let [first, second, ..] = sha256.0;
    let number = (u64::from(first) << 8 | u64::from(second)).wrapping_add(round.wrapping_mul(u64::from(percent)));
    percent >= 100 || number % 100 < u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_packs_names_each_by_its_digest() {
        let sha256 = Sha256::of(b"x");
        let good = format!("{sha256}  packs/00-0001-{sha256}.age\n");
        assert_eq!(parse_list(good.as_bytes()).unwrap().len(), 1);
        let other = Sha256::of(b"y");
        for bad in
            [format!("{other}  packs/00-0001-{sha256}.age\n"), good.replace("packs/", "../"), format!("{good}\n")]
        {
            assert_eq!(parse_list(bad.as_bytes()), None, "{bad:?} was accepted");
        }
        assert_eq!(parse_list(b"\xff"), None);
    }

    #[test]
    fn rounds_of_a_sample_reach_every_pack() {
        let digests: Vec<Sha256> = (0..200_u32).map(|n| Sha256::of(&n.to_le_bytes())).collect();
        for digest in &digests {
            assert!((0..10).any(|round| in_sample(digest, 10, round)));
        }
        let read = digests.iter().filter(|digest| in_sample(digest, 10, 3)).count();
        assert!((5..40).contains(&read), "{read} of 200 packs were read");
    }
}
