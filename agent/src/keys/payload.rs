//! Encrypting a new age file: the header is made by the age crate, what comes behind it by `ring`.
//!
//! The crate makes the file key, wraps it to every recipient and writes the header; its word for what takes part in that
//! is the trait [`age::Recipient`], and one that wraps others learns the file key. The payload is `STREAM` with
//! ChaCha20-Poly1305 in chunks of 64 KiB (<https://c2sp.org/age>, "Payload"): the crate's takes twice the time of `ring`'s.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Write};

use age::secrecy::ExposeSecret as _;
use age::{EncryptError, Encryptor};
use age_core::format::{FileKey, Stanza};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// Plaintext of one chunk.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// The random bytes between header and payload.
const NONCE_BYTES: usize = 16;

/// What begins a new age file: its header with fresh keys, wrapped to every recipient.
pub struct NewFile {
    header: Vec<u8>,
    key: LessSafeKey,
}

/// Encrypts what is written to it. Only [`finish`](Self::finish) makes it a whole age file.
pub struct Payload<W> {
    key: LessSafeKey,
    /// Chunks so far.
    count: u64,
    chunk: Vec<u8>,
    output: W,
}

impl NewFile {
    /// Fresh keys for a new file to these recipients. Plugins are run by this.
    ///
    /// # Errors
    /// What age has against the recipients, one of them or all together.
    pub(super) fn new<'a>(recipients: impl Iterator<Item = &'a dyn age::Recipient>) -> Result<Self, EncryptError> {
        let file_key = Cell::new(None);
        let knowing: Vec<Knowing<'_>> =
            recipients.map(|recipient| Knowing { recipient, file_key: &file_key }).collect();
        let encryptor = Encryptor::with_recipients(knowing.iter().map(|knowing| knowing as &dyn age::Recipient))?;
        let mut header = Vec::new();
        // It writes all that stands before the payload at once.
        drop(encryptor.wrap_output(&mut header)?);
        let key = file_key.take().zip(header.last_chunk()).and_then(|(key, nonce)| payload_key(&key, nonce));
        let key = key.ok_or_else(|| EncryptError::Io(io::Error::other("the keys of a new file could not be made")))?;
        Ok(Self { header, key })
    }

    /// Writes the header, and encrypts what follows.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn wrap_output<W: Write>(self, mut output: W) -> io::Result<Payload<W>> {
        output.write_all(&self.header)?;
        Ok(Payload {
            key: self.key,
            count: 0,
            chunk: Vec::with_capacity(CHUNK_BYTES + CHACHA20_POLY1305.tag_len()),
            output,
        })
    }
}

/// A recipient that tells the file key it was given.
struct Knowing<'a> {
    recipient: &'a dyn age::Recipient,
    file_key: &'a Cell<Option<FileKey>>,
}

impl age::Recipient for Knowing<'_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let copy = FileKey::init_with_mut(|copy| copy.copy_from_slice(file_key.expose_secret()));
        self.file_key.set(Some(copy));
        self.recipient.wrap_file_key(file_key)
    }
}

/// HKDF of the file key with the file's nonce; a key is never used for another payload.
pub(super) fn payload_key(file_key: &FileKey, nonce: &[u8; NONCE_BYTES]) -> Option<LessSafeKey> {
    let key = Salt::new(HKDF_SHA256, nonce).extract(file_key.expose_secret());
    let key = key.expand(&[b"payload"], &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(key)))
}

/// A chunk is numbered in the first eleven bytes of its nonce; the twelfth tells the last one.
pub(super) fn chunk_nonce(count: u64, last: bool) -> Nonce {
    let [_, _, _, _, nonce @ ..] = ((u128::from(count) << 8) | u128::from(last)).to_be_bytes();
    Nonce::assume_unique_for_key(nonce)
}

impl<W: Write> Payload<W> {
    /// Ends the file with its last chunk, which is marked as such and may be full or, in an empty file only, empty.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.output)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = chunk_nonce(self.count, last);
        self.count += 1;
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk);
        sealed.map_err(|_| io::Error::other("a chunk could not be encrypted"))?;
        // Empty also if that failed: then the file has a gap, and does not open.
        let written = self.output.write_all(&self.chunk);
        self.chunk.clear();
        written
    }
}

impl<W: Write> Write for Payload<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until it is known not to be the last.
        if self.chunk.len() == CHUNK_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.get(..CHUNK_BYTES - self.chunk.len()).unwrap_or(bytes);
        self.chunk.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::{Recipients, generate_identity};
    use super::*;

    #[test]
    fn age_opens_files_of_every_length_and_no_shortened_one() {
        let identity = generate_identity("2026-11-22T23:30:04Z".parse().unwrap());
        let recipients = Recipients::parse([&identity.recipient]).unwrap();
        let secret = identity.file.expose_secret().lines().last().unwrap();
        let identity: age::x25519::Identity = secret.parse().unwrap();
        let open = |sealed: &[u8]| {
            let opened = age::Decryptor::new(sealed).unwrap();
            let mut content = Vec::new();
            let mut reader = opened.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap();
            reader.read_to_end(&mut content).map(|_| content)
        };
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let content: Vec<u8> = (0..length).map(|at| ((at * at) >> 7) as u8).collect();
            for step in [1000, CHUNK_BYTES, 5 * CHUNK_BYTES] {
                let mut payload = recipients.new_file().unwrap().wrap_output(Vec::new()).unwrap();
                content.chunks(step).for_each(|piece| payload.write_all(piece).unwrap());
                let sealed = payload.finish().unwrap();
                assert_eq!(open(&sealed).unwrap(), content, "{length} bytes in steps of {step}");
                assert!(open(&sealed[..sealed.len() - 1]).is_err());
                assert!(
                    length < CHUNK_BYTES || open(&sealed[..sealed.len() - (length - 1) % CHUNK_BYTES - 17]).is_err()
                );
            }
        }
    }
}
