//! `offsite key deposit`: a secret key under a passphrase goes into every store, so that whoever has nothing but the
//! passphrase and a login gets everything back.

use std::fs;
use std::path::Path;

use age::secrecy::{ExposeSecret as _, SecretString};
use providers::{Access, Body, ErrorKind, Policy, PutOptions};
use serde::Serialize;

use super::key::{FileError, opens_nothing, proves};
use super::output::{Output, say};
use super::{load_config, prompt, stores};
use crate::catalog;
use crate::cli::PassphraseSource;
use crate::config::Config;
use crate::failure::{Failure, Kind, one_line};
use crate::format::names;
use crate::ids::KeyName;
use crate::keys::{Identities, is_under_passphrase};

/// Whoever can read a store can try passphrases at leisure: six words by chance have more characters.
const CHARACTERS_MIN: usize = 16;
/// A key file is small.
const BYTES_MAX: u64 = 64 << 10;

#[derive(Serialize)]
struct Deposited {
    object: String,
    stores: Vec<Where>,
}

#[derive(Serialize)]
struct Where {
    store: String,
    /// It has it now, or had it already.
    has_it: bool,
    why_not: Option<String>,
}

pub(super) fn run(
    file: &Path,
    name: &KeyName,
    passphrase: Option<&PassphraseSource>,
    path: &Path,
    output: Output,
) -> Result<(), Failure> {
    let config = load_config(path)?;
    let content = fs::read(file).map_err(|error| Failure::new(Kind::Usage, FileError::new("read", file, error)))?;
    if content.len() as u64 > BYTES_MAX || !is_under_passphrase(&content) {
        let what =
            format!("{} is not a secret key under a passphrase, and no other may lie in a store", file.display());
        return Err(Failure::new(Kind::Usage, what).hint("make one: `offsite key new FILE.age --passphrase ask`"));
    }
    let passphrase = prompt::passphrase(passphrase)(&file.display().to_string());
    check(&config, file, passphrase.as_ref())?;
    let deposited = put(&config, name, content)?;
    let failed = deposited.stores.iter().filter(|store| !store.has_it);
    for store in failed.clone() {
        say(&format!("error: {} has not got it: {}", store.store, store.why_not.as_deref().unwrap_or_default()));
    }
    if failed.count() > 0 {
        return Err(Failure::new(Kind::Store, "not every store has got the key"));
    }
    output.result(&deposited, || {
        let stores = deposited.stores.iter().map(|store| store.store.as_str()).collect::<Vec<_>>().join(", ");
        format!(
            "{} is in {stores}. From now on whoever can read there and knows the passphrase can read every backup:\n\
             `age -d -o key.txt {}` asks for it. Print the recovery sheet anew, and keep the passphrase elsewhere.",
            deposited.object, deposited.object
        )
    })
}

/// That the passphrase opens the key, the key what is sealed from now on, and that it is not too easily guessed.
fn check(config: &Config, file: &Path, passphrase: Option<&SecretString>) -> Result<(), Failure> {
    let identities = Identities::load([file], &|_| passphrase.cloned());
    let identities = identities.map_err(|error| Failure::new(Kind::Usage, error))?;
    let mut opens = false;
    for recipient in config.recipients.iter() {
        opens |= proves(recipient, &identities)?;
    }
    if !opens {
        return Err(opens_nothing(&[file.to_owned()]));
    }
    let characters = passphrase.map_or(0, |passphrase| passphrase.expose_secret().chars().count());
    if characters < CHARACTERS_MIN {
        let what = format!(
            "the passphrase has {characters} characters, and whoever can read the store can try others at leisure; it has to \
             have {CHARACTERS_MIN} or more"
        );
        return Err(Failure::new(Kind::Usage, what)
            .hint("make a key with a longer one, such as six words drawn by chance: `offsite key new FILE.age --passphrase ask`"));
    }
    Ok(())
}

fn put(config: &Config, name: &KeyName, content: Vec<u8>) -> Result<Deposited, Failure> {
    let stores = stores::open_all(&config.place, Access::Agent, &Policy::default())?;
    let key = names::deposited_key(&config.place.site, name).map_err(|error| Failure::new(Kind::Usage, error))?;
    let runtime = stores::runtime()?;
    let mut all = Vec::new();
    for store in &stores {
        let body = Body::from_bytes(content.clone());
        let why_not = match runtime.block_on(store.store.put(&key, &body, &PutOptions::CREATE)) {
            Ok(_) => None,
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                match runtime.block_on(catalog::small(store.store.as_ref(), &key, BYTES_MAX)) {
                    Ok(there) if there == content => None,
                    Ok(_) => {
                        Some("another key lies there under this name, and nothing is replaced; say `--name`".to_owned())
                    }
                    Err(error) => Some(one_line(&error)),
                }
            }
            Err(error) => Some(one_line(&error)),
        };
        all.push(Where { store: store.config.name.to_string(), has_it: why_not.is_none(), why_not });
    }
    let object = format!("{}/{name}.age", names::KEYS);
    Ok(Deposited { object, stores: all })
}
