//! `offsite key check`: which recipients an identity is, and which stored generations it opens, without touching data.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;
use providers::{ByteRange, ObjectKey, ObjectStore};
use serde::Serialize;

use super::find::Stores;
use super::key::{load_identities, opens_nothing, proves};
use super::output::{Output, say};
use super::{evidence, load_config, show};
use crate::catalog::{self, CatalogError, Stored};
use crate::cli::PassphraseSource;
use crate::config::Config;
use crate::evidence::{KeyProof, Record};
use crate::failure::{Failure, one_line};
use crate::format::names::{self, ChainFolder};
use crate::ids::{ChainId, SiteName};
use crate::keys::Identities;
use crate::platform;

/// The header of an age file is far smaller, whatever number of recipients it has.
const HEADER_BYTES: u64 = 64 << 10;
/// Generations looked at at once.
const PARALLEL: usize = 8;

#[derive(Serialize)]
struct Proof {
    who: String,
    opens: Vec<String>,
    cannot_open: Vec<String>,
    stores: Vec<InStore>,
}

#[derive(Serialize)]
struct InStore {
    store: String,
    opened: Vec<String>,
    not_opened: Vec<String>,
    /// Why it could not be looked at, or not all of it.
    problem: Option<String>,
}

pub(super) fn run(
    files: &[PathBuf],
    passphrase: Option<&PassphraseSource>,
    path: &Path,
    output: Output,
) -> Result<(), Failure> {
    let config = load_config(path)?;
    let identities = load_identities(files, passphrase)?;
    let mut proof = Proof { who: who(), opens: Vec::new(), cannot_open: Vec::new(), stores: Vec::new() };
    for recipient in config.recipients.iter() {
        let opened = proves(recipient, &identities)?;
        if opened { &mut proof.opens } else { &mut proof.cannot_open }.push(recipient.to_string());
    }
    look_into_stores(&config, &identities, &mut proof);
    let opened = |store: &InStore| !store.opened.is_empty();
    let something = !proof.opens.is_empty() || proof.stores.iter().any(opened);
    evidence::record(&config.place, Record::KeyProof(proof.for_evidence()));
    if !something {
        return Err(opens_nothing(files));
    }
    output.result(&proof, || proof.text())
}

/// Whoever cannot reach the stores learns at least what the key is.
fn look_into_stores(config: &Config, identities: &Identities, proof: &mut Proof) {
    let stores = match Stores::read(&config.place, None) {
        Ok(stores) => stores,
        Err(failure) => {
            return say(&format!("warning: the stores could not be looked into: {}", failure.chain().join(": ")));
        }
    };
    for store in &stores.closed {
        let problem = Some(store.messages().join("; "));
        let name = store.config.name.to_string();
        proof.stores.push(InStore { store: name, opened: Vec::new(), not_opened: Vec::new(), problem });
    }
    for (store, read) in &stores.read {
        let mut found = InStore { store: store.shown(), opened: Vec::new(), not_opened: Vec::new(), problem: None };
        let looked = match read {
            Ok(listed) => {
                let site = &config.place.site;
                stores.runtime.block_on(look(store.store.as_ref(), site, listed, identities, &mut found))
            }
            Err(error) => {
                found.problem = Some(one_line(error));
                Ok(())
            }
        };
        if let Err(error) = looked {
            found.problem = Some(one_line(&error));
        }
        proof.stores.push(found);
    }
}

async fn look(
    store: &dyn ObjectStore,
    site: &SiteName,
    listed: &[Stored],
    identities: &Identities,
    found: &mut InStore,
) -> Result<(), CatalogError> {
    let genuine = || listed.iter().filter(|stored| stored.trust.complaint().is_none());
    // The manifest says nothing of what the generation builds on, which may have been sealed without this key.
    let chains: BTreeMap<&ChainId, &Stored> = genuine().map(|stored| (&stored.chain, stored)).collect();
    let firsts = chains.into_iter().map(|(chain, stored)| async move {
        let folder = ChainFolder::new(site, stored.class, chain)?;
        let packs = catalog::objects(store, &folder.prefix().below("packs")?).await?;
        let opens = match packs.into_keys().next() {
            Some(first) => opens(store, first, identities).await?,
            None => true,
        };
        Ok::<_, CatalogError>((chain, opens))
    });
    let firsts: BTreeMap<&ChainId, bool> = futures_util::stream::iter(firsts).buffered(PARALLEL).try_collect().await?;
    let manifests = genuine().map(|stored| async move {
        let key = ChainFolder::new(site, stored.class, &stored.chain)?.object(&stored.generation, names::MANIFEST)?;
        Ok::<_, CatalogError>((stored, opens(store, key, identities).await?))
    });
    let mut manifests = futures_util::stream::iter(manifests).buffered(PARALLEL);
    while let Some((stored, opens)) = manifests.try_next().await? {
        let opened = opens && firsts.get(&stored.chain) == Some(&true);
        if opened { &mut found.opened } else { &mut found.not_opened }.push(stored.generation.to_string());
    }
    Ok(())
}

/// Whether one of `identities` opens the object, of which only the beginning is read.
async fn opens(store: &dyn ObjectStore, key: ObjectKey, identities: &Identities) -> Result<bool, CatalogError> {
    let range = ByteRange::From { offset: 0, bytes: HEADER_BYTES };
    let pieces: Vec<_> = store.get(&key.into(), range).await?.try_collect().await?;
    let head = pieces.concat();
    // A byte of what is inside is proof enough that it opens.
    let mut reader = match identities.open(head.as_slice()) {
        Ok(reader) => reader,
        Err(_) => return Ok(false),
    };
    Ok(reader.read(&mut [0]).is_ok() || head.len() as u64 == HEADER_BYTES)
}

/// The account and the machine.
fn who() -> String {
    let account = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    format!("{} at {}", account.as_deref().unwrap_or("an account without a name"), platform::host_name())
}

impl Proof {
    fn for_evidence(&self) -> KeyProof {
        let all = |of: fn(&InStore) -> &Vec<String>| {
            let names =
                self.stores.iter().flat_map(|store| of(store).iter().map(move |id| format!("{}: {id}", store.store)));
            names.collect()
        };
        KeyProof {
            who: self.who.clone(),
            opens: self.opens.clone(),
            not_proved: self.cannot_open.clone(),
            generations: all(|store| &store.opened),
            not_opened: all(|store| &store.not_opened),
        }
    }

    fn text(&self) -> String {
        let opens = self.opens.iter().map(|key| format!("opens    {key}\n"));
        let others = self.cannot_open.iter().map(|key| format!("not its  {key}\n"));
        let mut text: String = opens.chain(others).collect();
        for store in &self.stores {
            let opened = show::counted(store.opened.len() as u64, "generation");
            text.push_str(&format!("{}: opens {opened}", store.store));
            if !store.not_opened.is_empty() {
                text.push_str(&format!(", and not {}: sealed without this key", store.not_opened.join(", ")));
            }
            if let Some(problem) = &store.problem {
                text.push_str(&format!("; it could not be looked through: {problem}"));
            }
            text.push('\n');
        }
        text.push_str(match self.opens.is_empty() {
            false => "What is sealed with this configuration can be opened.\n",
            true => "What is sealed from now on CANNOT be opened with it: it is no recipient of this configuration.\n",
        });
        text
    }
}
