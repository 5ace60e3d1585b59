//! Identities: age secret keys, read from files and never shown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use age::armor::ArmoredReader;
use age::secrecy::{ExposeSecret as _, SecretString};
use age::{DecryptError, Decryptor, IdentityFile, ssh};
use jiff::Timestamp;

use super::{AskPassphrase, Opened};

/// Identities that are ready to open files; no more questions are asked when they are used.
pub struct Identities {
    list: Vec<Box<dyn age::Identity + Send + Sync>>,
    recipients: Vec<String>,
}

/// A new identity, not yet written anywhere.
pub struct NewIdentity {
    /// The content of an identity file, as `age-keygen` writes it.
    pub file: SecretString,
    /// Its public half.
    pub recipient: String,
}

/// Why identities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No file was named.
    #[error("no identity was given; name the file of a secret key with `--identity FILE`")]
    None,
    /// The file cannot be read.
    #[error("the identity file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// The file is too large to be one.
    #[error("{} is no secret key: it is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else that people have beside their keys.
    #[error("{} is no secret key: {what}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What it is, and what it is good for.
        what: &'static str,
    },
    /// The file holds no identity.
    #[error("{} holds no secret key", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is not of a form that age knows.
    #[error("{} is no secret key", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// A kind of key that age cannot use.
    #[error("the SSH key {} is of a kind that age cannot use; use ssh-ed25519 or ssh-rsa", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase is needed and nobody can be asked.
    #[error("{} is protected by a passphrase, and there is no terminal to ask for it; give `--passphrase env:NAME` or `--passphrase file:PATH`", path.display())]
    NoPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is wrong, or the file is damaged.
    #[error("{} could not be unlocked; is the passphrase right?", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: DecryptError,
    },
    /// A plugin is not installed.
    #[error("an identity in {} needs an age plugin that was not found in PATH", path.display())]
    Plugin {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: DecryptError,
    },
}

/// Identity files are small; SSH keys and lists of keys stay far below.
const FILE_BYTES_MAX: u32 = 1 << 20;

impl Identities {
    /// Reads every file: age identity files, age identity files under a passphrase (armored or not), SSH private keys.
    pub fn load<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        ask: AskPassphrase<'_>,
    ) -> Result<Self, IdentityError> {
        let mut identities = Self { list: Vec::new(), recipients: Vec::new() };
        for path in paths {
            identities.add(path.as_ref(), ask)?;
        }
        if identities.list.is_empty() { Err(IdentityError::None) } else { Ok(identities) }
    }

    /// The public halves, as far as they are known without asking a plugin.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// How many they are: at least one.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Opens one age file: reads its header from `input` and returns the reader of its content.
    ///
    /// The content is authenticated piece by piece; only a reader that has come to its end without an error has given
    /// the whole of it. [`DecryptError::NoMatchingKeys`] means that the file was sealed to others.
    pub fn open<R: Read>(&self, input: R) -> Result<Opened<R>, DecryptError> {
        Opened::new(input, self.list.iter().map(|identity| identity.as_ref() as &dyn age::Identity))
    }

    fn add(&mut self, path: &Path, ask: AskPassphrase<'_>) -> Result<(), IdentityError> {
        let content = read(path)?;
        if let Some(what) = other(&content) {
            return Err(IdentityError::Other { path: path.to_owned(), what });
        }
        if is_age_file(&content) {
            self.add_protected(path, &content, ask)
        } else if content.starts_with(b"-----BEGIN") {
            self.add_ssh(path, &content, ask)
        } else {
            self.add_file(path, &content)
        }
    }

    fn add_protected(&mut self, path: &Path, content: &[u8], ask: AskPassphrase<'_>) -> Result<(), IdentityError> {
        let locked = |source| IdentityError::Locked { path: path.to_owned(), source };
        let passphrase = passphrase(path, ask)?;
        let identity = age::scrypt::Identity::new(passphrase);
        let decryptor = Decryptor::new(ArmoredReader::new(content)).map_err(locked)?;
        let mut reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).map_err(locked)?;
        let mut text = SecretBytes::with_room_for(content.len());
        reader.read_to_end(&mut text.0).map_err(|error| locked(DecryptError::Io(error)))?;
        self.add_file(path, &text.0)
    }

    fn add_ssh(&mut self, path: &Path, content: &[u8], ask: AskPassphrase<'_>) -> Result<(), IdentityError> {
        let invalid = |source| IdentityError::Invalid { path: path.to_owned(), source };
        let identity = ssh::Identity::from_buffer(content, Some(path.display().to_string())).map_err(invalid)?;
        if let Ok(recipient) = ssh::Recipient::try_from(identity.clone()) {
            self.recipients.push(recipient.to_string());
        }
        let identity = match identity {
            ssh::Identity::Encrypted(key) => {
                let key = key
                    .decrypt(passphrase(path, ask)?)
                    .map_err(|source| IdentityError::Locked { path: path.to_owned(), source })?;
                ssh::Identity::Unencrypted(key)
            }
            ssh::Identity::Unsupported(_) => return Err(IdentityError::Unsupported { path: path.to_owned() }),
            unencrypted => unencrypted,
        };
        self.list.push(Box::new(identity));
        Ok(())
    }

    fn add_file(&mut self, path: &Path, content: &[u8]) -> Result<(), IdentityError> {
        // The cause names the line and not what stands in it.
        let file = IdentityFile::from_buffer(content)
            .map_err(|source| IdentityError::Invalid { path: path.to_owned(), source })?;
        let mut recipients = Vec::new();
        if file.write_recipients_file(&mut recipients).is_ok() {
            self.recipients.extend(String::from_utf8_lossy(&recipients).lines().map(str::to_owned));
        }
        let list = file.into_identities().map_err(|source| IdentityError::Plugin { path: path.to_owned(), source })?;
        if list.is_empty() {
            return Err(IdentityError::Empty { path: path.to_owned() });
        }
        self.list.extend(list);
        Ok(())
    }
}

/// Makes a new X25519 identity.
pub fn generate_identity(now: Timestamp) -> NewIdentity {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let file = SecretString::from(format!(
        "# created: {now:.0}\n# public key: {recipient}\n{}\n",
        identity.to_string().expose_secret()
    ));
    NewIdentity { file, recipient }
}

/// The identity file under a passphrase: an age file (scrypt) that `age -d` opens and `age -i` takes as it is.
pub fn protect(identity: &NewIdentity, passphrase: SecretString) -> io::Result<Vec<u8>> {
    let mut protected = Vec::new();
    let mut writer = age::Encryptor::with_user_passphrase(passphrase).wrap_output(&mut protected)?;
    writer.write_all(identity.file.expose_secret().as_bytes())?;
    writer.finish()?;
    Ok(protected)
}

/// Whether `content` is a file that only a passphrase opens.
pub fn is_under_passphrase(content: &[u8]) -> bool {
    is_age_file(content) && Decryptor::new(ArmoredReader::new(content)).is_ok_and(|file| file.is_scrypt())
}

/// Bytes that are overwritten when they are no longer needed.
struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// None of so many bytes. With more, what was read would be moved, and left behind where it was.
    fn with_room_for(bytes: usize) -> Self {
        // A reader that is at its end wants to see that there is nothing more.
        Self(Vec::with_capacity(bytes + 64))
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        age::secrecy::zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::ops::Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

fn read(path: &Path) -> Result<SecretBytes, IdentityError> {
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let mut content = SecretBytes::with_room_for(FILE_BYTES_MAX as usize + 1);
    File::open(path)
        .map_err(failed)?
        .take(u64::from(FILE_BYTES_MAX) + 1)
        .read_to_end(&mut content.0)
        .map_err(failed)?;
    if content.0.len() > FILE_BYTES_MAX as usize {
        return Err(IdentityError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// What `content` is, if it is no identity but something that is easily taken for one.
fn other(content: &[u8]) -> Option<&'static str> {
    if is_age_file(content) {
        // One whose header is no header is told from it when it is opened.
        let sealed = Decryptor::new(ArmoredReader::new(content)).is_ok_and(|file| !file.is_scrypt());
        return sealed.then_some("it is something that was sealed, and is opened by one");
    }
    let text = String::from_utf8_lossy(content);
    let mut lines = text.lines().map(str::trim_start);
    if lines.clone().any(|line| line.starts_with("AGE-SECRET-KEY-") || line.starts_with("AGE-PLUGIN-")) {
        return None;
    }
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    match first {
        key if key.starts_with("age1") => {
            Some("it is the public half of one (a recipient), which seals and opens nothing")
        }
        key if key.starts_with("ssh-") => Some(
            "it is the public half of an SSH key, which seals and opens nothing; the secret half is the file of the same name \
             without `.pub`",
        ),
        comment if comment.starts_with("untrusted comment:") => {
            Some("it is a key or a signature of minisign, as the site's key is, which opens nothing")
        }
        _ if text.contains("AGE-SECRET-KEY-1") => Some(
            "it is a page that one may stand on, as a recovery sheet; write the line that begins with AGE-SECRET-KEY-1 into a \
             file of its own",
        ),
        _ => None,
    }
}

fn is_age_file(content: &[u8]) -> bool {
    content.starts_with(b"age-encryption.org/") || content.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

fn passphrase(path: &Path, ask: AskPassphrase<'_>) -> Result<SecretString, IdentityError> {
    ask(&path.display().to_string()).ok_or_else(|| IdentityError::NoPassphrase { path: path.to_owned() })
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewIdentity").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}
