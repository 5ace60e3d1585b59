//! Where a secret is found. The configuration names the place; the secret itself is read when it is used.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::SecretString;
use age::secrecy::zeroize::Zeroizing;

use crate::platform;

/// A place of a secret: `env:NAME`, `file:/path`, or `cred:NAME` (a systemd credential).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; one line break at its end is not part of the secret.
    File(PathBuf),
    /// A file in the folder that systemd names in `CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Why a secret cannot be had. Never shows any part of one.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text names no place.
    #[error("a secret does not stand here; write where it is found: `env:NAME`, `file:/path` or `cred:NAME`")]
    NoReference,
    /// The variable is not set.
    #[error("the environment variable {name} is not set")]
    Unset {
        /// The variable.
        name: String,
    },
    /// systemd gave no credentials.
    #[error("there is no systemd credential {name}: the unit needs `LoadCredential={name}:/path`")]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// The file cannot be read.
    #[error("the file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// Everybody can read the file.
    #[error("the file {} can be read or written by others (mode {mode:04o}); run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The secret is empty, not text, or too long to be one.
    #[error("what {place} holds cannot be a secret: it is empty, longer than {SECRET_BYTES_MAX} bytes, or not text")]
    Unusable {
        /// The place.
        place: String,
    },
}

/// Longer than any password or token.
const SECRET_BYTES_MAX: usize = 64 << 10;

impl SecretRef {
    /// Reads the secret.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let secret = match self {
            Self::Env(name) => match env::var(name) {
                Ok(text) => SecretString::from(text),
                Err(env::VarError::NotPresent) => return Err(SecretError::Unset { name: name.clone() }),
                Err(env::VarError::NotUnicode(_)) => return Err(self.unusable()),
            },
            Self::File(path) => {
                let failed = |source| SecretError::Read { path: path.clone(), source };
                let file = File::open(path).map_err(failed)?;
                // Of the very file that is read, whatever the path names a moment later.
                let mode = platform::mode(&file.metadata().map_err(failed)?);
                if mode & 0o027 != 0 {
                    return Err(SecretError::Exposed { path: path.clone(), mode });
                }
                self.read_file(path, file)?
            }
            Self::Credential(name) => match env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => {
                    let path = Path::new(&folder).join(name);
                    let file = File::open(&path).map_err(|source| SecretError::Read { path: path.clone(), source })?;
                    self.read_file(&path, file)?
                }
                None => return Err(SecretError::NoCredentials { name: name.clone() }),
            },
        };
        if age::secrecy::ExposeSecret::expose_secret(&secret).is_empty() { Err(self.unusable()) } else { Ok(secret) }
    }

    fn read_file(&self, path: &Path, file: File) -> Result<SecretString, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        // So much room that nothing is ever moved, and left behind where it was.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 64));
        let limit = SECRET_BYTES_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(self.unusable());
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| self.unusable())?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        Ok(SecretString::from(text.strip_suffix('\r').unwrap_or(text)))
    }

    fn unusable(&self) -> SecretError {
        SecretError::Unusable { place: self.to_string() }
    }
}

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let name = |name: &str| {
            let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if good && !name.starts_with('.') { Ok(name.to_owned()) } else { Err(SecretError::NoReference) }
        };
        match text.split_once(':') {
            Some(("env", variable)) => Ok(Self::Env(name(variable)?)),
            Some(("cred", credential)) => Ok(Self::Credential(name(credential)?)),
            Some(("file", path)) if Path::new(path).is_absolute() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(SecretError::NoReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "cred:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_secret_in_the_place_of_a_reference_is_refused_and_not_repeated() {
        for bad in ["hunter2", "env:", "env:A B", "file:relative", "cred:../x", "cred:a/b", "https://x", ""] {
            let error = bad.parse::<SecretRef>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_gives_its_text_without_the_line_break_and_only_if_it_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let reference: SecretRef = format!("file:{}", path.display()).parse().unwrap();
        assert!(matches!(reference.read(), Err(SecretError::Read { .. })));
        fs::write(&path, "pass word \n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(reference.read(), Err(SecretError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(reference.read().unwrap().expose_secret(), "pass word ");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(reference.read(), Err(SecretError::Unusable { .. })));
    }
}
