//! Recipients: age public keys of every kind that can be encrypted to.

use std::fmt;
use std::io::{self, Write as _};

use age::EncryptError;
use age::NoCallbacks;
use age::plugin::{self, RecipientPluginV1};
use age::ssh::{self, ParseRecipientKeyError};

use super::payload::NewFile;

/// One or more recipients; there is no empty list of recipients.
pub struct Recipients {
    list: Vec<Recipient>,
}

/// One recipient.
pub struct Recipient {
    text: String,
    kind: &'static str,
    key: Box<dyn age::Recipient + Send + Sync>,
}

/// Why recipients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipientError {
    /// There is none.
    #[error("there is no recipient: nothing is backed up that nobody could open; make one with `offsite key new`")]
    None,
    /// A secret key stands where a public key belongs. The text is not repeated.
    #[error("a secret key stands where a recipient belongs; put its public half here (`age1…`) and keep it elsewhere")]
    Secret,
    /// The text is no recipient.
    #[error("`{text}` is no recipient: {reason}")]
    Invalid {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A plugin is not installed.
    #[error("the recipient `{text}` needs the program `age-plugin-{plugin}`, which was not found in PATH")]
    Plugin {
        /// What was given.
        text: String,
        /// The plugin's name.
        plugin: String,
    },
    /// age refuses to encrypt to these recipients together.
    #[error("nothing can be sealed to these recipients")]
    Refused(#[source] EncryptError),
}

impl Recipients {
    /// Parses each text; all errors are returned, not only the first.
    ///
    /// Kinds: `age1…` (X25519), `age1tag1…`, `age1tagpq1…`, `ssh-ed25519 …`, `ssh-rsa …` (2048 bits and more), and
    /// `age1<plugin>1…` if the plugin is installed. Repeated recipients count once.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, Vec<RecipientError>> {
        let mut list: Vec<Recipient> = Vec::new();
        let mut errors = Vec::new();
        for text in texts {
            match Recipient::parse(text.as_ref()) {
                Ok(new) if list.iter().any(|old| old.text == new.text) => {}
                Ok(new) => list.push(new),
                Err(error) => errors.push(error),
            }
        }
        if list.is_empty() && errors.is_empty() {
            errors.push(RecipientError::None);
        }
        let recipients = Self { list };
        // Only plugins are programs; all other kinds can be tried here at no cost.
        if errors.is_empty()
            && recipients.list.iter().all(|recipient| recipient.kind != PLUGIN)
            && let Err(error) = recipients.new_file()
        {
            errors.push(error);
        }
        if errors.is_empty() { Ok(recipients) } else { Err(errors) }
    }

    /// Parses a recipients file as `age -R` reads it: one to a line; empty lines and lines that begin with `#` are not.
    pub fn parse_file(content: &str) -> Result<Self, Vec<RecipientError>> {
        Self::parse(recipients_of_file(content))
    }

    /// What makes one new file: fresh keys, wrapped to every recipient. Plugins are run by this.
    pub fn new_file(&self) -> Result<NewFile, RecipientError> {
        let keys = self.list.iter().map(|recipient| recipient.key.as_ref() as &dyn age::Recipient);
        NewFile::new(keys).map_err(RecipientError::Refused)
    }

    /// Each recipient.
    pub fn iter(&self) -> impl Iterator<Item = &Recipient> {
        self.list.iter()
    }

    /// How many they are: at least one.
    pub fn count(&self) -> usize {
        self.list.len()
    }
}

/// The lines of a recipients file that are recipients, unchecked.
pub fn recipients_of_file(content: &str) -> impl Iterator<Item = &str> {
    content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

const PLUGIN: &str = "plugin";

impl Recipient {
    /// The recipient as it is written in a configuration.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its kind: `x25519`, `tag`, `tagpq`, `ssh` or `plugin`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Seals `content` to this recipient alone: the proof that an identity is its secret half.
    pub fn seal(&self, content: &[u8]) -> Result<Vec<u8>, RecipientError> {
        let refused = |error: io::Error| RecipientError::Refused(EncryptError::Io(error));
        let key = self.key.as_ref() as &dyn age::Recipient;
        let file = NewFile::new(std::iter::once(key)).map_err(RecipientError::Refused)?;
        let mut sealed = file.wrap_output(Vec::new()).map_err(refused)?;
        sealed.write_all(content).and_then(|()| sealed.finish()).map_err(refused)
    }

    fn parse(text: &str) -> Result<Self, RecipientError> {
        let text = text.trim();
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-")
            || text.to_ascii_uppercase().starts_with("AGE-PLUGIN-")
            || text.starts_with("-----BEGIN")
        {
            return Err(RecipientError::Secret);
        }
        let made = |kind, key| Ok(Self { text: text.to_owned(), kind, key });
        if let Ok(key) = text.parse::<age::x25519::Recipient>() {
            made("x25519", Box::new(key))
        } else if let Ok(key) = text.parse::<age::tag::Recipient>() {
            made("tag", Box::new(key))
        } else if let Ok(key) = text.parse::<age::tagpq::Recipient>() {
            made("tagpq", Box::new(key))
        } else if text.starts_with("age1") {
            made(PLUGIN, plugin_recipient(text)?)
        } else {
            made("ssh", ssh_recipient(text)?)
        }
    }
}

fn plugin_recipient(text: &str) -> Result<Box<dyn age::Recipient + Send + Sync>, RecipientError> {
    let key: plugin::Recipient = text.parse().map_err(|_| RecipientError::Invalid {
        text: text.to_owned(),
        reason: "it looks like an age public key, but its checksum does not match; was a character lost or changed?"
            .to_owned(),
    })?;
    let name = key.plugin().to_owned();
    match RecipientPluginV1::new(&name, &[key], &[], NoCallbacks) {
        Ok(plugin) => Ok(Box::new(plugin)),
        Err(_) => Err(RecipientError::Plugin { text: text.to_owned(), plugin: name }),
    }
}

fn ssh_recipient(text: &str) -> Result<Box<dyn age::Recipient + Send + Sync>, RecipientError> {
    let reason = match text.parse::<ssh::Recipient>() {
        Ok(key) => return Ok(Box::new(key)),
        Err(ParseRecipientKeyError::RsaModulusTooLarge) => "the RSA key is too long for age".to_owned(),
        Err(ParseRecipientKeyError::RsaModulusTooSmall) => "RSA keys under 2048 bits are not safe".to_owned(),
        Err(ParseRecipientKeyError::Unsupported(kind)) => {
            format!("age cannot encrypt to SSH keys of the kind {kind}; use ssh-ed25519 or ssh-rsa")
        }
        Err(_) => "give an age public key (`age1…`) or an SSH public key (`ssh-ed25519 …`, `ssh-rsa …`)".to_owned(),
    };
    Err(RecipientError::Invalid { text: text.to_owned(), reason })
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}
