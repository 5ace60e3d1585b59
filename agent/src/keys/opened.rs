//! Opening an age file: the age crate reads its header, `ring` what comes behind it.
//!
//! The crate finds the identity that unwraps the file key, and proves the header with it; an [`age::Identity`] that asks
//! another one learns the key. The payload (<https://c2sp.org/age>, "Payload") takes the crate twice the time of `ring`.

use std::cell::Cell;
use std::io::{self, Read};
use std::ops::Range;

use age::secrecy::ExposeSecret as _;
use age::{DecryptError, Decryptor};
use age_core::format::{FileKey, Stanza};
use ring::aead::{Aad, LessSafeKey};

use super::payload::{CHUNK_BYTES, chunk_nonce, payload_key};

/// Bytes of a full chunk as it is sealed.
const SEALED_BYTES: usize = CHUNK_BYTES + 16;

/// The content of an age file. Every byte that is read was authenticated; but only a reader that has come to the end without
/// an error has read the whole of it. After an error there are only errors. What was read is not wiped from memory.
pub struct Opened<R> {
    input: R,
    key: LessSafeKey,
    /// Chunks so far.
    count: u64,
    /// What the last one of them holds.
    chunk: Vec<u8>,
    /// What of it was not read yet.
    left: Range<usize>,
    /// The first byte behind it: there is none behind the last one, which is sealed as such.
    behind: Option<u8>,
    failed: bool,
}

impl<R: Read> Opened<R> {
    /// Reads the header from `input`, and nothing behind it.
    ///
    /// # Errors
    /// [`DecryptError::NoMatchingKeys`] if the file was sealed to others; what age has against the header otherwise.
    pub(super) fn new<'a>(
        input: R,
        identities: impl Iterator<Item = &'a dyn age::Identity>,
    ) -> Result<Self, DecryptError> {
        let file_key = Cell::new(None);
        let knowing: Vec<Knowing<'_>> = identities.map(|identity| Knowing { identity, file_key: &file_key }).collect();
        let mut head = Head { input, seen: Vec::new() };
        let decryptor = Decryptor::new(&mut head)?;
        drop(decryptor.decrypt(knowing.iter().map(|knowing| knowing as &dyn age::Identity))?);
        // The header ends with the nonce, and the crate reads no further.
        let key = file_key.take().zip(head.seen.last_chunk()).and_then(|(key, nonce)| payload_key(&key, nonce));
        let key = key.ok_or(DecryptError::DecryptionFailed)?;
        let chunk = Vec::with_capacity(SEALED_BYTES + 1);
        Ok(Self { input: head.input, key, count: 0, chunk, left: 0..0, behind: None, failed: false })
    }

    /// Opens the next chunk.
    fn next(&mut self) -> io::Result<()> {
        self.chunk.clear();
        self.chunk.extend(self.behind);
        let wanted = SEALED_BYTES + 1 - self.chunk.len();
        (&mut self.input).take(wanted as u64).read_to_end(&mut self.chunk)?;
        let behind = if self.chunk.len() > SEALED_BYTES { self.chunk.pop() } else { None };
        let opened = self.key.open_in_place(chunk_nonce(self.count, behind.is_none()), Aad::empty(), &mut self.chunk);
        let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let bytes = opened.map_err(|_| wrong("the age file is damaged or cut off"))?.len();
        if bytes == 0 && self.count > 0 {
            return Err(wrong("the age file ends with an empty chunk"));
        }
        self.behind = behind;
        self.count += 1;
        self.left = 0..bytes;
        Ok(())
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let is_last = self.count > 0 && self.behind.is_none();
        if self.left.is_empty() && !is_last {
            if std::mem::replace(&mut self.failed, true) {
                return Err(io::Error::other("the age file could not be read before"));
            }
            self.next()?;
            self.failed = false;
        }
        let taken = self.chunk.get(self.left.clone()).unwrap_or_default().read(buffer)?;
        self.left.start += taken;
        Ok(taken)
    }
}

/// An identity that tells the file key it has found.
struct Knowing<'a> {
    identity: &'a dyn age::Identity,
    file_key: &'a Cell<Option<FileKey>>,
}

impl Knowing<'_> {
    fn tell(&self, found: &Result<FileKey, DecryptError>) {
        if let Ok(key) = found {
            self.file_key.set(Some(FileKey::init_with_mut(|copy| copy.copy_from_slice(key.expose_secret()))));
        }
    }
}

impl age::Identity for Knowing<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.identity.unwrap_stanza(stanza).inspect(|found| self.tell(found))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        self.identity.unwrap_stanzas(stanzas).inspect(|found| self.tell(found))
    }
}

/// Remembers what was read.
struct Head<R> {
    input: R,
    seen: Vec<u8>,
}

impl<R: Read> Read for Head<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::iter::once;

    use age::Encryptor;
    use age::x25519::{Identity, Recipient};

    use super::*;

    /// A file of age's own making, and its header's size.
    fn sealed(to: &Recipient, content: &[u8]) -> (Vec<u8>, usize) {
        let encryptor = Encryptor::with_recipients(once(to as &dyn age::Recipient)).unwrap();
        let mut file = Vec::new();
        let mut output = encryptor.wrap_output(&mut file).unwrap();
        output.write_all(content).unwrap();
        output.finish().unwrap();
        let chunks = content.len().div_ceil(CHUNK_BYTES).max(1);
        let header = file.len() - content.len() - 16 * chunks;
        (file, header)
    }

    fn read(identity: &Identity, mut file: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let mut opened = Opened::new(&mut file, once(identity as &dyn age::Identity)).unwrap();
        let (mut content, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            match opened.read(&mut buffer) {
                Ok(0) => return Ok(content),
                Ok(bytes) => content.extend_from_slice(&buffer[..bytes]),
                Err(error) => {
                    assert!(opened.read(&mut buffer).is_err(), "behind an error comes an end");
                    return Err(error);
                }
            }
        }
    }

    #[test]
    fn files_of_every_length_are_opened() {
        let identity = Identity::generate();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let content: Vec<u8> = (0..length).map(|at| ((at * at) >> 7) as u8).collect();
            let (file, _) = sealed(&identity.to_public(), &content);
            for step in [1000, CHUNK_BYTES, 5 * CHUNK_BYTES] {
                assert_eq!(read(&identity, &file, step).unwrap(), content, "{length} bytes in steps of {step}");
            }
        }
    }

    #[test]
    fn nothing_is_opened_that_is_not_whole_and_in_order() {
        let identity = Identity::generate();
        for length in [0, 5, CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 5] {
            let content: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let (file, header) = sealed(&identity.to_public(), &content);
            let refused = |what: &str, file: &[u8]| {
                assert!(read(&identity, file, CHUNK_BYTES).is_err(), "{length} bytes, {what}");
            };
            for end in
                [header, header + 1, header + 15, header + SEALED_BYTES, header + SEALED_BYTES + 1, file.len() - 1]
            {
                if end < file.len() {
                    refused("cut off", &file[..end]);
                }
            }
            for at in (header..file.len()).step_by(SEALED_BYTES / 2 + 1).chain(once(file.len() - 1)) {
                let mut changed = file.clone();
                changed[at] ^= 1;
                refused("a bit changed", &changed);
            }
            refused("a byte more", &[&file[..], &[0]].concat());
            let inserted = [&file[..header], &[7; SEALED_BYTES + 1], &file[header..]].concat();
            refused("what would be read over", &inserted);
            refused("twice", &[&file[..], &file[header..]].concat());
            if length > CHUNK_BYTES {
                let (first, rest) = file[header..].split_at(SEALED_BYTES);
                refused("a chunk less", &[&file[..header], rest].concat());
                refused("a chunk twice", &[&file[..header], first, first, rest].concat());
                refused("in another order", &[&file[..header], rest, first].concat());
            }
        }
    }

    #[test]
    fn an_empty_chunk_ends_an_empty_file_only() {
        let identity = Identity::generate();
        let file_key = Cell::new(None);
        let (file, header) = sealed(&identity.to_public(), &[7; CHUNK_BYTES]);
        let knowing = Knowing { identity: &identity, file_key: &file_key };
        drop(Decryptor::new(&file[..]).unwrap().decrypt(once(&knowing as &dyn age::Identity)).unwrap());
        let key = payload_key(&file_key.take().unwrap(), file[..header].last_chunk().unwrap()).unwrap();
        let mut changed = file[..header].to_vec();
        for (count, last, content) in [(0, false, vec![7; CHUNK_BYTES]), (1, true, Vec::new())] {
            let mut chunk = content;
            key.seal_in_place_append_tag(chunk_nonce(count, last), Aad::empty(), &mut chunk).unwrap();
            changed.extend(chunk);
        }
        assert!(read(&identity, &changed, 1000).is_err());
        assert_eq!(read(&identity, &file, 1000).unwrap(), [7; CHUNK_BYTES]);
    }
}
