//! Everything that a store holds of a site, as retention wants to know it: one listing, and the small documents.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use providers::{ErrorKind, KeyPrefix, ObjectKey, ObjectMeta, ObjectStore};

use super::holds::{self, Holds};
use super::{Keeping, PruneError};
use crate::catalog::{self, CatalogError, ListedGeneration, Stored, Trust};
use crate::clock;
use crate::format::Sha256;
use crate::format::hold;
use crate::format::names::{self, ChainFolder, PackName};
use crate::format::pruned::{self, Pruned, Ranges};
use crate::generation::Class;
use crate::ids::{ChainId, SiteName};
use crate::retention::{ChainFiles, Facts, KeptPacks, Subject};
use crate::sign::SitePublicKey;
use crate::verify::parse_list;

/// Documents read at once.
const PARALLEL: usize = 8;
/// Largest list of packs that is read, in bytes.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// What was found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The store's clock.
    pub now: Timestamp,
    /// This machine's, at the same moment.
    pub ours: Timestamp,
    /// Every generation.
    pub generations: Vec<Stored>,
    /// Who holds what.
    pub holds: Holds,
    /// Objects that should be signed by the site and are not.
    pub unsigned: Vec<String>,
    /// What was pruned before.
    pub record: Option<Pruned>,
    /// The newest sequence number that the heartbeat knows of.
    pub heartbeat: Option<u64>,
    /// The folders of chains, with what each generation in them needs.
    pub(super) chains: BTreeMap<(Class, ChainId), ChainFiles>,
    /// Every record of what was pruned, oldest first.
    pub(super) records: Vec<ObjectKey>,
    /// The number for the next record.
    pub(super) next_record: u64,
}

/// Every object of `site` in `store`, in one pass.
pub async fn list_site(store: &dyn ObjectStore, site: &SiteName) -> Result<Vec<ObjectMeta>, PruneError> {
    list(store, &names::site_prefix(site)?).await
}

/// Every object below `prefix`, once.
pub(super) async fn list(store: &dyn ObjectStore, prefix: &KeyPrefix) -> Result<Vec<ObjectMeta>, PruneError> {
    let failed = |source| PruneError::Store { doing: "it was listed", source };
    let mut objects = store.list(prefix);
    // A listing may name an object twice, and must end.
    let (mut found, mut looked_at) = (BTreeMap::new(), 0);
    while let Some(object) = objects.try_next().await.map_err(failed)? {
        found.insert(object.key.clone(), object);
        looked_at += 1;
        if looked_at > catalog::OBJECTS_MAX {
            return Err(CatalogError::Endless.into());
        }
    }
    Ok(found.into_values().collect())
}

/// The sequence numbers that were pruned, by the newest record that one of `pruners` signed; and the records that count for
/// nothing, because they cannot be read or somebody else signed them.
pub async fn pruned_before(
    store: &dyn ObjectStore,
    site: &SiteName,
    pruners: &[SitePublicKey],
) -> Result<(Ranges, Vec<String>), PruneError> {
    let folder = names::site_prefix(site)?.below(pruned::FOLDER)?;
    let sorted = Sorted::of(list(store, &folder).await?, site)?;
    let mut unsigned = Vec::new();
    let (record, _) = newest_record(store, site, pruners, &sorted.records, &mut unsigned).await?;
    Ok((record.map(|record| record.sequences).unwrap_or_default(), unsigned))
}

/// Reads what there is to know about `objects`, which is all that the store lists of the site.
pub async fn survey(
    store: &dyn ObjectStore,
    keeping: &Keeping<'_>,
    objects: Vec<ObjectMeta>,
) -> Result<Survey, PruneError> {
    let failed = |source| PruneError::Store { doing: "it was asked for the time", source };
    let now = store.now().await.map_err(failed)?;
    let ours = clock::now();
    let sorted = Sorted::of(objects, keeping.site)?;
    let generations = catalog::read_all(store, keeping.site, Some(keeping.key), sorted.signatures).await?;
    let prefix = names::site_prefix(keeping.site)?;
    let (holds, mut unsigned) = holds::read(store, &prefix, keeping.site, keeping.key, &sorted.holds).await?;
    let (record, next_record) =
        newest_record(store, keeping.site, keeping.pruners, &sorted.records, &mut unsigned).await?;
    let heartbeat = catalog::heartbeat(store, keeping.site, keeping.key).await?;
    let mut chains = sorted.chains;
    needs(store, keeping.site, &generations, &mut chains).await?;
    for folder in record.iter().flat_map(|record| &record.folders) {
        if let Some(files) = chains.get_mut(&(folder.class, folder.chain.clone())) {
            files.begun = true;
        }
    }
    Ok(Survey {
        now,
        ours,
        generations,
        holds,
        unsigned,
        record,
        heartbeat: heartbeat.map(|beat| beat.sequence),
        chains,
        records: sorted.records.into_values().flatten().collect(),
        next_record,
    })
}

impl Survey {
    /// The packs that a genuine generation of this survey needs; `None` if its list is missing or not what was stored.
    pub fn packs(&self, stored: &Stored) -> Option<&BTreeSet<PackName>> {
        let files = self.chains.get(&(stored.class, stored.chain.clone()))?;
        files.kept.iter().find(|kept| kept.id == stored.generation)?.packs.as_ref()
    }

    /// All records but the one that counts.
    pub(super) fn older_records(&self) -> Vec<ObjectKey> {
        let Some(record) = &self.record else { return Vec::new() };
        let newest = format!("/{}.json", record.number);
        let newest = |key: &&ObjectKey| !key.as_str().trim_end_matches(".minisig").ends_with(&newest);
        self.records.iter().filter(newest).cloned().collect()
    }
}

/// Generations of one store as retention sees them. The chain that tonight's run may build on is open, and so is the newest
/// generation of all, from which the numbers go on.
pub fn subjects(generations: &[Stored], holds: &Holds) -> Vec<Subject> {
    let genuine = || generations.iter().filter_map(|stored| Some((stored, facts(stored)?)));
    let newest = genuine().max_by_key(|(_, facts)| facts.sequence).map(|(stored, _)| stored);
    let rolling = genuine().filter(|(stored, _)| stored.class == Class::Rolling);
    let open = rolling.max_by_key(|(_, facts)| facts.sequence).map(|(stored, _)| &stored.chain);
    let subject = |stored: &Stored| Subject {
        id: stored.generation.clone(),
        class: stored.class,
        chain: stored.chain.clone(),
        at: stored.at,
        facts: facts(stored),
        unreadable: matches!(stored.trust, Trust::Unreadable(_)),
        held: holds.reasons(&stored.generation).to_vec(),
        needed: Vec::new(),
        open: newest.is_some_and(|newest| newest.generation == stored.generation)
            || (stored.class == Class::Rolling && open == Some(&stored.chain)),
    };
    generations.iter().map(subject).collect()
}

/// What was listed, by what it is.
#[derive(Default)]
struct Sorted {
    chains: BTreeMap<(Class, ChainId), ChainFiles>,
    signatures: Vec<ListedGeneration>,
    holds: Vec<String>,
    /// Both objects of each record, by its number.
    records: BTreeMap<u64, Vec<ObjectKey>>,
}

impl Sorted {
    fn of(objects: Vec<ObjectMeta>, site: &SiteName) -> Result<Self, PruneError> {
        let prefix = names::site_prefix(site)?;
        let mut sorted = Self::default();
        for object in objects {
            let Some(path) = prefix.strip(&object.key).map(str::to_owned) else { continue };
            let Some((folder, path)) = path.split_once('/') else { continue };
            match folder {
                names::ROLLING => sorted.add(Class::Rolling, path, object),
                names::ARCHIVE => sorted.add(Class::Archival, path, object),
                hold::FOLDER => sorted.holds.push(path.to_owned()),
                pruned::FOLDER => {
                    let name = path.strip_suffix(".minisig").unwrap_or(path);
                    if let Some(number) = name.strip_suffix(".json").and_then(|number| number.parse().ok()) {
                        sorted.records.entry(number).or_default().push(object.key);
                    }
                }
                _ => {}
            }
        }
        Ok(sorted)
    }

    fn add(&mut self, class: Class, path: &str, object: ObjectMeta) {
        let Some((chain, path)) = path.split_once('/') else { return };
        let Ok(chain) = chain.parse::<ChainId>() else { return };
        let generation = path.strip_suffix(names::SIGNATURE).and_then(|path| path.strip_suffix('.')?.parse().ok());
        if let Some(generation) = generation {
            self.signatures.push((class, chain.clone(), generation, object.modified));
        }
        let files = self.chains.entry((class, chain)).or_default();
        files.written = files.written.max(object.modified);
        files.objects.push((object.key, path.to_owned(), object.bytes));
    }
}

/// The record that counts, and the number for the next one. One that is not signed by who may prune is none.
async fn newest_record(
    store: &dyn ObjectStore,
    site: &SiteName,
    pruners: &[SitePublicKey],
    records: &BTreeMap<u64, Vec<ObjectKey>>,
    unsigned: &mut Vec<String>,
) -> Result<(Option<Pruned>, u64), PruneError> {
    // After the newest that counts: whoever puts junk there under the highest number there is does not end the counting.
    let next = |newest: u64| (newest.saturating_add(1)..u64::MAX).find(|number| !records.contains_key(number));
    let prefix = names::site_prefix(site)?;
    for number in records.keys().rev() {
        let key = prefix.key(&Pruned::name(*number))?;
        match signed(store, &key, pruned::BYTES_MAX, pruners).await? {
            // Half of it: a prune died before it removed anything.
            Signed::Half(_) => {}
            Signed::Foreign(_) | Signed::Unreadable => unsigned.push(key.to_string()),
            Signed::Genuine(text) => match Pruned::decode(&text, site, *number) {
                Some(record) => return Ok((Some(record), next(*number).unwrap_or(u64::MAX))),
                None => unsigned.push(key.to_string()),
            },
        }
    }
    Ok((None, next(0).unwrap_or(u64::MAX)))
}

/// An object that should be signed.
pub(super) enum Signed {
    /// It is.
    Genuine(Vec<u8>),
    /// The document or the signature is missing, as a run leaves it that died between the two.
    Half(Option<Vec<u8>>),
    /// It is signed by somebody else, or was changed, or what should prove it cannot be read.
    Foreign(Vec<u8>),
    /// It is there, and cannot be read.
    Unreadable,
}

/// What `key` holds, and whether one of `keys` signed it.
pub(super) async fn signed(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    limit: u64,
    keys: &[SitePublicKey],
) -> Result<Signed, PruneError> {
    let signature = format!("{key}.minisig").parse()?;
    let text = small(store, key, limit).await?;
    let signature = small(store, &signature, catalog::SIGNATURE_BYTES_MAX).await?;
    let (text, signature) = match (text, signature) {
        (Small::Content(text), Small::Content(signature)) => (text, signature),
        (Small::Content(text), Small::Absent) => return Ok(Signed::Half(Some(text))),
        (Small::Content(text), Small::Unreadable) => return Ok(Signed::Foreign(text)),
        (Small::Absent, _) => return Ok(Signed::Half(None)),
        (Small::Unreadable, _) => return Ok(Signed::Unreadable),
    };
    let signature = std::str::from_utf8(&signature).unwrap_or_default();
    let genuine = keys.iter().any(|key| key.verify(&text, signature).is_ok());
    Ok(if genuine { Signed::Genuine(text) } else { Signed::Foreign(text) })
}

enum Small {
    Content(Vec<u8>),
    /// It is not there, or is none.
    Absent,
    Unreadable,
}

async fn small(store: &dyn ObjectStore, key: &ObjectKey, limit: u64) -> Result<Small, PruneError> {
    match catalog::small(store, key, limit).await {
        Ok(bytes) => Ok(Small::Content(bytes)),
        Err(CatalogError::TooLarge { .. }) => Ok(Small::Absent),
        Err(CatalogError::Store(error)) if error.kind == ErrorKind::NotFound => Ok(Small::Absent),
        Err(error) if catalog::is_of_one_object(store, key, &error).await => Ok(Small::Unreadable),
        Err(error) => Err(error.into()),
    }
}

/// Reads the packs that each genuine generation needs.
async fn needs(
    store: &dyn ObjectStore,
    site: &SiteName,
    generations: &[Stored],
    chains: &mut BTreeMap<(Class, ChainId), ChainFiles>,
) -> Result<(), PruneError> {
    let genuine = generations.iter().filter(|stored| stored.trust == Trust::Signed);
    let reads =
        genuine.filter_map(|stored| Some((stored, stored.commit.as_ref()?))).map(|(stored, commit)| async move {
            let folder = ChainFolder::new(site, stored.class, &stored.chain)?;
            let list = small(store, &folder.object(&stored.generation, names::PACKS)?, LIST_BYTES_MAX).await?;
            let packs = match list {
                Small::Content(list) if Sha256::of(&list) == commit.packs.sha256 => parse_list(&list),
                _ => None,
            };
            let packs = packs.map(|packs| packs.into_iter().collect());
            Ok::<_, PruneError>((stored, KeptPacks { id: stored.generation.clone(), packs }))
        });
    let mut reads = stream::iter(reads).buffer_unordered(PARALLEL);
    while let Some((stored, kept)) = reads.try_next().await? {
        chains.entry((stored.class, stored.chain.clone())).or_default().kept.push(kept);
    }
    Ok(())
}

fn facts(stored: &Stored) -> Option<Facts> {
    let commit = stored.commit.as_ref().filter(|_| stored.trust == Trust::Signed)?;
    Some(Facts {
        sequence: commit.sequence,
        committed: commit.committed,
        grade: commit.grade,
        stream_bytes: commit.stream_bytes,
        sources: commit.sources,
        lifetime: commit.lifetime,
        sha256: stored.sha256,
        previous: commit.previous.as_ref().map(|previous| previous.sha256),
    })
}
