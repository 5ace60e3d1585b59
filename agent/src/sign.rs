//! The site's signing key: who made a generation, proved without any secret.
//!
//! Keys and signatures are minisign's (<https://jedisct1.github.io/minisign/>, prehashed Ed25519), so that
//! `minisign -V -P <public key> -m FILE` checks what is signed here. age says to whom a file is sealed and never by whom.

use std::fmt;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use minisign::{KeyPair, PError, PublicKey, SecretKey, SecretKeyBox, SignatureBox};

use crate::{durable, platform};

/// The secret half: stays on the machine of the site.
pub struct SiteKey {
    secret: SecretKey,
    public: SitePublicKey,
}

/// The public half: stands on the recovery sheet, as 56 characters of base64.
#[derive(Clone)]
pub struct SitePublicKey(PublicKey);

/// Why a key or a signature cannot be used, or is not good.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The file of the key cannot be read.
    #[error("the signing key {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// The file of the key cannot be written.
    #[error("the signing key {} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// Others can read the file of the key.
    #[error("the signing key {} can be read by others (mode {mode:04o}); run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no signing key.
    #[error("{} is not a signing key of a site (an unencrypted minisign secret key)", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: PError,
    },
    /// The text is no public key.
    #[error("`{text}` is not the public key of a site; it has 56 characters and begins with RW")]
    NotAPublicKey {
        /// What was given.
        text: String,
    },
    /// A key could not be made.
    #[error("no signing key could be made")]
    Generate(#[source] PError),
    /// Something could not be signed.
    #[error("the data could not be signed")]
    Sign(#[source] PError),
    /// The trusted comment cannot be put on its one line.
    #[error("a comment with line breaks or blanks at its ends cannot be signed")]
    Comment,
    /// The signature has not the form of one.
    #[error("the signature is not a minisign signature")]
    Malformed,
    /// The signature was made by another key.
    #[error("it is signed by the key {found}, not by this site's key {wanted}")]
    OtherKey {
        /// Fingerprint of the key that signed.
        found: String,
        /// Fingerprint of the key that should have.
        wanted: String,
    },
    /// The signature does not fit the data: one of them was changed.
    #[error("the signature does not fit: what was signed has been changed")]
    Bad(#[source] PError),
}

impl SiteKey {
    /// Makes a new key, not yet written anywhere.
    pub fn generate() -> Result<Self, SignError> {
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().map_err(SignError::Generate)?;
        Ok(Self { secret: sk, public: SitePublicKey(pk) })
    }

    /// Reads the key from `path`; a file that others can read is refused.
    pub fn load(path: &Path) -> Result<Self, SignError> {
        let read = |source| SignError::Read { path: path.to_owned(), source };
        let mode = platform::mode(&fs::metadata(path).map_err(read)?);
        if mode & 0o077 != 0 {
            return Err(SignError::Exposed { path: path.to_owned(), mode });
        }
        let not_a_key = |source| SignError::NotAKey { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(read)?;
        let secret = SecretKeyBox::from(text).into_unencrypted_secret_key().map_err(not_a_key)?;
        let public = SitePublicKey(PublicKey::from_secret_key(&secret).map_err(not_a_key)?);
        Ok(Self { secret, public })
    }

    /// Writes the key to the new file `path`, private (0600); an existing file is an error.
    pub fn save(&self, path: &Path) -> Result<(), SignError> {
        let write = |source| SignError::Write { path: path.to_owned(), source };
        let comment = format!("offsite signing key of a site {}", self.public.fingerprint());
        let text = self.secret.to_box(Some(&comment)).map_err(|error| write(io::Error::other(error)))?;
        let draft = durable::Draft::beside(path).map_err(write)?;
        let mut file = fs::OpenOptions::new().write(true).open(draft.path()).map_err(write)?;
        io::Write::write_all(&mut file, &text.to_bytes()).map_err(write)?;
        file.sync_all().map_err(write)?;
        draft.publish_new(path).map_err(write)
    }

    /// The public half.
    pub fn public(&self) -> &SitePublicKey {
        &self.public
    }

    /// Signs `data` together with `trusted_comment` (one line); returns the content of a `.minisig` file.
    pub fn sign(&self, data: &[u8], trusted_comment: &str) -> Result<String, SignError> {
        if trusted_comment.contains(['\n', '\r']) || trusted_comment.trim() != trusted_comment {
            return Err(SignError::Comment);
        }
        let untrusted = untrusted_comment(&self.public);
        let signature = minisign::sign(
            Some(&self.public.0),
            &self.secret,
            Cursor::new(data),
            Some(trusted_comment),
            Some(&untrusted),
        );
        Ok(signature.map_err(SignError::Sign)?.into_string())
    }
}

impl SitePublicKey {
    /// Checks that `text` (the content of a `.minisig` file) is a signature of `data` as [`SiteKey::sign`] makes it with
    /// this key; returns the trusted comment.
    pub fn verify(&self, data: &[u8], text: &str) -> Result<String, SignError> {
        check_shape(text)?;
        let signature = SignatureBox::from_string(text).map_err(|_| SignError::Malformed)?;
        if signature.keynum() != self.0.keynum() {
            let found = fingerprint(signature.keynum());
            return Err(SignError::OtherKey { found, wanted: self.fingerprint() });
        }
        minisign::verify(&self.0, &signature, Cursor::new(data), true, false, false).map_err(SignError::Bad)?;
        // What the signature does not cover has one form all the same, so that a changed bit shows wherever it is.
        if signature.untrusted_comment().ok() != Some(untrusted_comment(self)) || signature.to_string() != text {
            return Err(SignError::Malformed);
        }
        signature.trusted_comment().map_err(SignError::Bad)
    }

    /// The key's id as minisign shows it: 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.0.keynum())
    }
}

fn untrusted_comment(key: &SitePublicKey) -> String {
    format!("signature of the site {}", key.fingerprint())
}

fn fingerprint(keynum: &[u8]) -> String {
    keynum.iter().rev().map(|byte| format!("{byte:02X}")).collect()
}

/// The library takes the lengths of the two signatures on trust: 74 and 64 bytes, in base64. It passes over space around them.
fn check_shape(signature: &str) -> Result<(), SignError> {
    let is_base64 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    let lines: Vec<&str> = signature.lines().collect();
    match lines.as_slice() {
        [_, a, _, b] if a.len() == 100 && b.len() == 88 && is_base64(a) && is_base64(b) => Ok(()),
        _ => Err(SignError::Malformed),
    }
}

impl FromStr for SitePublicKey {
    type Err = SignError;

    /// Takes the 56 characters, or the content of a minisign `.pub` file.
    fn from_str(text: &str) -> Result<Self, SignError> {
        let key = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("untrusted comment:"));
        let wrong = || SignError::NotAPublicKey { text: text.trim().escape_debug().to_string() };
        let key = key.filter(|key| key.starts_with("RW")).ok_or_else(wrong)?;
        PublicKey::from_base64(key).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for SitePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_base64())
    }
}

impl fmt::Debug for SitePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SitePublicKey({self})")
    }
}

impl PartialEq for SitePublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bytes() == other.0.to_bytes()
    }
}

impl Eq for SitePublicKey {}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteKey").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_data_and_key_only() {
        let key = SiteKey::generate().unwrap();
        let signature = key.sign(b"generation", "seq:7 prev:abc").unwrap();
        assert_eq!(key.public().verify(b"generation", &signature).unwrap(), "seq:7 prev:abc");
        assert!(matches!(key.public().verify(b"generatioN", &signature), Err(SignError::Bad(_))));
        let forged = signature.replace("seq:7", "seq:8");
        assert!(matches!(key.public().verify(b"generation", &forged), Err(SignError::Bad(_))));
        let other = SiteKey::generate().unwrap();
        assert!(matches!(other.public().verify(b"generation", &signature), Err(SignError::OtherKey { .. })));
    }

    #[test]
    fn what_has_not_the_form_of_a_signature_is_refused() {
        let key = SiteKey::generate().unwrap();
        let signature = key.sign(b"x", "c").unwrap();
        let mut cases: Vec<String> = (0..signature.len() - 1).map(|end| signature[..end].to_owned()).collect();
        cases.push(format!("{signature}more\n"));
        cases.push(signature.replace('R', "S"));
        // The library passes over the spaces, and then takes the three bytes that are left for sixty-four.
        let fourth = signature.lines().nth(3).unwrap();
        cases.push(signature.replace(fourth, &format!("AAAA{}", " ".repeat(84))));
        for at in 0..signature.len() * 8 {
            let mut flipped = signature.clone().into_bytes();
            flipped[at / 8] ^= 1 << (at % 8);
            cases.extend(String::from_utf8(flipped));
        }
        for bad in cases {
            assert!(key.public().verify(b"x", &bad).is_err(), "{bad:?} was accepted");
        }
        assert!(matches!(key.sign(b"x", "two\nlines"), Err(SignError::Comment)));
    }

    #[test]
    fn a_key_is_saved_private_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.key");
        let key = SiteKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(SiteKey::load(&path).unwrap().public(), key.public());
        assert!(matches!(key.save(&path), Err(SignError::Write { .. })));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(SiteKey::load(&path), Err(SignError::Exposed { mode: 0o640, .. })));
        assert!(!format!("{key:?}").contains(&fs::read_to_string(&path).unwrap().lines().nth(1).unwrap()[20..]));
    }

    #[test]
    fn a_public_key_is_read_as_text_and_as_a_file() {
        let key = SiteKey::generate().unwrap();
        let text = key.public().to_string();
        assert_eq!(&text.parse::<SitePublicKey>().unwrap(), key.public());
        let file = format!("untrusted comment: minisign public key {}\n{text}\n", key.public().fingerprint());
        assert_eq!(&file.parse::<SitePublicKey>().unwrap(), key.public());
        for bad in ["", "RW", &text[..55], "age1abc", "untrusted comment: x"] {
            assert!(bad.parse::<SitePublicKey>().is_err(), "{bad:?} was accepted");
        }
    }
}
