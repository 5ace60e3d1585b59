//! `offsite key`: identities, recipients, the recovery sheet, and the proof of who can open what.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::output::{Output, say};
use super::sheet::Sheet;
use super::{deposit, load_config, load_place, prompt, proof};
use crate::cli::{KeyVerb, PassphraseSource};
use crate::config::{Config, Place};
use crate::failure::{Failure, Kind};
use crate::keys::{Identities, IdentityError, NewIdentity, generate_identity, is_under_passphrase, protect};
use crate::sign::{SignError, SiteKey, SitePublicKey};
use crate::{clock, durable};

pub(super) fn run(verb: &KeyVerb, config: &Path, output: Output) -> Result<(), Failure> {
    match verb {
        KeyVerb::New { file, passphrase } => new(file, passphrase.as_ref(), output),
        KeyVerb::Show { files, passphrase } => show(files, passphrase.as_ref(), config, output),
        KeyVerb::Site => site(config, output),
        KeyVerb::Sheet { identity, output: file, html } => {
            let html = *html || file.as_deref().is_some_and(Sheet::is_page);
            sheet(identity.as_deref(), file.as_deref(), html, config, output)
        }
        KeyVerb::Check { identities, passphrase } => proof::run(identities, passphrase.as_ref(), config, output),
        KeyVerb::Deposit { file, name, passphrase } => deposit::run(file, name, passphrase.as_ref(), config, output),
    }
}

/// Writes a new identity to the new file `path`, private, and under a passphrase if there is one.
pub(super) fn write_identity(
    identity: &NewIdentity,
    path: &Path,
    passphrase: Option<&SecretString>,
) -> Result<(), Failure> {
    let failed = |error| Failure::new(Kind::Failed, FileError::new("write the secret key", path, error));
    let protected = passphrase.map(|passphrase| protect(identity, passphrase.clone())).transpose().map_err(failed)?;
    let content = protected.as_deref().unwrap_or(identity.file.expose_secret().as_bytes());
    let mut file = durable::create_new(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

/// The site's public key: the configured one, or that of the signing key on this machine.
pub(super) fn public_key(place: &Place) -> Result<Option<SitePublicKey>, SignError> {
    if let Some(key) = &place.public_key {
        return Ok(Some(key.clone()));
    }
    if !place.signing_key.exists() {
        return Ok(None);
    }
    SiteKey::load(&place.signing_key).map(|key| Some(key.public().clone()))
}

/// Makes a signing key and writes it to the new file `path`, and the folder it lies in.
pub(super) fn new_site_key(path: &Path) -> Result<SiteKey, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let key = SiteKey::generate().map_err(failed)?;
    if let Some(folder) = path.parent() {
        let error = |source| failed(SignError::Write { path: path.to_owned(), source });
        durable::create_folder(folder).map_err(error)?;
    }
    key.save(path).map_err(failed)?;
    Ok(key)
}

/// A signing key in place of one that is lost.
fn site(config: &Path, output: Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Result<'a> {
        file: &'a Path,
        site_key: String,
        site_fingerprint: String,
    }
    let path = load_place(config)?.signing_key;
    if path.symlink_metadata().is_ok() {
        return Err(Failure::new(Kind::Usage, format!("{} exists, and is the site's signing key", path.display()))
            .hint("nothing is to be made; `offsite key show` shows its public half"));
    }
    let key = new_site_key(&path)?;
    let public = key.public();
    say(
        "From now on generations are signed with this key. What an older one signed counts as refused where this one is",
    );
    say("asked for: print a new recovery sheet (`offsite key sheet`), and keep the old one with it.");
    let result = Result { file: &path, site_key: public.to_string(), site_fingerprint: public.fingerprint() };
    output.result(&result, || format!("{}\n{public} (fingerprint {})", path.display(), public.fingerprint()))
}

fn new(file: &Path, passphrase: Option<&PassphraseSource>, output: Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Result<'a> {
        file: &'a Path,
        recipient: &'a str,
    }
    let passphrase = passphrase.map(prompt::new_passphrase).transpose()?;
    let identity = generate_identity(clock::now());
    write_identity(&identity, file, passphrase.as_ref())?;
    say(&format!("The secret key is in {}. Keep a copy of it outside the building.", file.display()));
    say("Put the public key into the configuration: [encryption] recipients = [\"…\"]");
    output.result(&Result { file, recipient: &identity.recipient }, || identity.recipient.clone())
}

fn show(
    files: &[PathBuf],
    passphrase: Option<&PassphraseSource>,
    config: &Path,
    output: Output,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Result {
        recipients: Vec<String>,
        site_key: Option<String>,
        site_fingerprint: Option<String>,
    }
    let result = if files.is_empty() {
        let config = load_config(config)?;
        let key = public_key(&config.place).map_err(|error| Failure::new(Kind::Failed, error))?;
        Result {
            recipients: recipients(&config),
            site_key: key.as_ref().map(ToString::to_string),
            site_fingerprint: key.as_ref().map(SitePublicKey::fingerprint),
        }
    } else {
        let identities = load_identities(files, passphrase)?;
        Result { recipients: identities.recipients().to_vec(), site_key: None, site_fingerprint: None }
    };
    output.result(&result, || {
        let mut text: String = result.recipients.iter().map(|recipient| format!("{recipient}\n")).collect();
        if let (Some(key), Some(fingerprint)) = (&result.site_key, &result.site_fingerprint) {
            text.push_str(&format!("site key {key} (fingerprint {fingerprint})\n"));
        }
        text
    })
}

fn sheet(
    identity: Option<&Path>,
    file: Option<&Path>,
    html: bool,
    config: &Path,
    output: Output,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Result<'a> {
        sheet: Option<&'a str>,
        file: Option<&'a Path>,
    }
    let config = load_config(config)?;
    let secret = identity.map(|path| read_secret(path, &config)).transpose()?;
    let key = public_key(&config.place).map_err(|error| Failure::new(Kind::Failed, error))?;
    let sheet = Sheet {
        site: &config.place.site,
        stores: &config.place.stores,
        recipients: recipients(&config),
        public_key: key.map(|key| (key.to_string(), key.fingerprint())),
        secret: secret.as_ref(),
        printed: clock::now(),
    };
    let text = if html { sheet.html() } else { sheet.text() };
    let Some(path) = file else {
        return output.result(&Result { sheet: Some(&text), file: None }, || text.clone());
    };
    write_new(path, text.as_bytes(), "write the recovery sheet")?;
    output.result(&Result { sheet: None, file }, || format!("The recovery sheet is in {}.", path.display()))
}

pub(super) fn opens_nothing(files: &[PathBuf]) -> Failure {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let what = format!("{} opens nothing that is sealed with this configuration", names.join(", "));
    Failure::new(Kind::Verification, what)
        .hint("find the secret key of one of the recipients that `offsite key show` prints")
        .hint("if none can be found, make a new one with `offsite key new`: what is stored already stays closed")
}

/// Seals a few bytes to one recipient and tries to open them.
pub(super) fn proves(recipient: &crate::keys::Recipient, identities: &Identities) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::new(Kind::Failed, error);
    let sealed = recipient.seal(b"proof").map_err(|error| Failure::new(Kind::Failed, error))?;
    let mut content = Vec::new();
    match identities.open(sealed.as_slice()) {
        Ok(mut reader) => reader.read_to_end(&mut content).map_err(failed).map(|_| content == b"proof"),
        Err(_) => Ok(false),
    }
}

/// What is looked for where a secret key is wanted.
const WHERE_KEYS_ARE: &str = "name the file of a secret key: it has a line that begins with AGE-SECRET-KEY-1 (or is an SSH private \
                              key, or an age file under a passphrase), was written by `offsite init` or `offsite key new`, and was \
                              taken away from this machine since, as to a stick; or type that line from a recovery sheet that has it \
                              into a file";

/// Reads identity files; passphrases come from where they are said to be, or from the person at the terminal.
pub(super) fn load_identities(files: &[PathBuf], passphrase: Option<&PassphraseSource>) -> Result<Identities, Failure> {
    Identities::load(files, &prompt::passphrase(passphrase)).map_err(|error| {
        let kind = if matches!(error, IdentityError::Locked { .. }) { Kind::Failed } else { Kind::Usage };
        let is_none = matches!(
            error,
            IdentityError::Other { .. }
                | IdentityError::Empty { .. }
                | IdentityError::Invalid { .. }
                | IdentityError::TooLarge { .. }
        );
        let failure = Failure::new(kind, error);
        if is_none { failure.hint(WHERE_KEYS_ARE) } else { failure }
    })
}

fn recipients(config: &Config) -> Vec<String> {
    config.recipients.iter().map(ToString::to_string).collect()
}

/// A secret key for the sheet: one that opens what is sealed with this configuration, and no other.
fn read_secret(path: &Path, config: &Config) -> Result<SecretString, Failure> {
    let files = [path.to_owned()];
    let failed = |error| Failure::new(Kind::Failed, FileError::new("read", path, error));
    if is_under_passphrase(&fs::read(path).map_err(failed)?) {
        let what = format!("{} is under a passphrase, and cannot be printed", path.display());
        return Err(Failure::new(Kind::Usage, what)
            .hint("`offsite key deposit` puts it into the stores, and the sheet says how to open it there"));
    }
    // The content goes on paper as it is; that it is one is checked by reading it as one.
    let identities = load_identities(&files, None)?;
    let mut opens = false;
    for recipient in config.recipients.iter() {
        opens |= proves(recipient, &identities)?;
    }
    if !opens {
        return Err(opens_nothing(&files));
    }
    fs::read_to_string(path).map(SecretString::from).map_err(failed)
}

/// Writes a new, private file; an existing one is an error.
pub(super) fn write_new(path: &Path, content: &[u8], what: &'static str) -> Result<(), Failure> {
    let failed = |error| Failure::new(Kind::Failed, FileError::new(what, path, error));
    let mut file = durable::create_new(path).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

/// A file of the person's own that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {}", path.display())]
pub(super) struct FileError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl FileError {
    pub(super) fn new(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self { what, path: path.to_owned(), source }
    }
}
