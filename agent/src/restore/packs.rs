//! Reading one sealed pack: fetched once, hashed, opened and unpacked on the way, in pieces.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use providers::{ByteRange, ObjectKey, ObjectStore};
use sha2::Digest as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::unpack::{Taker, Unpacker};
use crate::format::Sha256;
use crate::format::manifest::Pack;
use crate::format::names::ChainFolder;
use crate::keys::Identities;
use crate::platform::tree::Dir;

/// Largest window that a frame may ask a reader for, as a power of two: 8 MiB.
pub(super) const WINDOW_LOG_MAX: u32 = 23;
/// Pieces of an object that may wait between the line and the reader.
const QUEUE: usize = 8;

/// Where packs come from.
pub(super) struct Packs<'a> {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) runtime: &'a Handle,
    pub(super) folder: &'a ChainFolder,
    pub(super) identities: &'a Identities,
    /// Where sealed packs that will be needed again are kept meanwhile.
    pub(super) kept: &'a Dir,
}

/// What packs are read for, and so what proves what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The list of entries, which has a digest of its own. Its packs are needed again.
    List,
    /// Files, each of which has a digest of its own. Packs are hashed only when one of those is wrong, to tell which it was.
    Files,
    /// Whatever is there. Nothing proves it but the digests of the packs.
    Unproved,
}

/// Why a pack is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is not there or cannot be fetched.
    #[error("it cannot be fetched")]
    Store(#[source] providers::Error),
    /// It cannot be opened or unpacked.
    #[error("it is damaged, or was sealed to other recipients")]
    Open(#[source] io::Error),
    /// None of the identities opens it.
    #[error("it cannot be opened with this identity")]
    Decrypt(#[source] age::DecryptError),
    /// It is not the object that the generation names.
    #[error("it is not the object that the generation names: its SHA-256 is {found}")]
    Digest {
        /// What was found.
        found: Sha256,
    },
    /// It holds more or less than the manifest says.
    #[error("it holds more or less than the manifest says")]
    Size,
    /// What was in it could not be written.
    #[error("what is in it could not be written")]
    Write(#[source] io::Error),
}

impl Packs<'_> {
    /// Reads a plain pack: hands its content to `taker`. For [`Purpose::Unproved`], the pack is proved to be the one that is
    /// named, but only when this returns.
    pub(super) fn plain(
        &self,
        pack: &Pack,
        purpose: Purpose,
        unpacker: &mut Unpacker,
        taker: &mut impl Taker,
    ) -> Result<(), PackError> {
        self.open(pack, purpose, |opened| unpacker.unpack(opened, pack.content, taker))
    }

    /// Reads a patch pack: its content as it lies inside the age file.
    pub(super) fn patches(
        &self,
        pack: &Pack,
        purpose: Purpose,
        take: impl FnMut(u64, &[u8]) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        self.open(pack, purpose, |opened| copy(opened, pack.content, take))
    }

    /// Proves that a pack is the one that is named, whatever is in it.
    pub(super) fn prove(&self, pack: &Pack) -> Result<(), PackError> {
        let mut sealed = self.sealed(pack, Purpose::Unproved)?;
        let proved = sealed.drain().map_err(PackError::Open).and_then(|found| is_named(pack, found));
        proved.map_err(|error| sealed.cause(error))
    }

    fn open(
        &self,
        pack: &Pack,
        purpose: Purpose,
        read: impl FnOnce(&mut dyn Read) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let mut sealed = self.sealed(pack, purpose)?;
        let opened = self.identities.open(&mut sealed).map_err(|error| match error {
            age::DecryptError::Io(error) => PackError::Open(error),
            error => PackError::Decrypt(error),
        });
        let result = opened.and_then(|mut opened| read(&mut opened));
        let digest = sealed.drain();
        let proved = match result {
            Err(error) => Err(sealed.cause(error)),
            Ok(()) => digest.map_err(PackError::Open).and_then(|found| is_named(pack, found)),
        };
        if purpose == Purpose::List && (proved.is_err() || sealed.copy.is_none()) {
            // What is of no use, or only half of it, must not be found again instead of the object.
            self.kept.remove_file(pack.name.to_string().as_bytes()).map_err(PackError::Write)?;
        }
        proved
    }

    fn sealed(&self, pack: &Pack, purpose: Purpose) -> Result<Sealed, PackError> {
        let key = self.folder.pack(&pack.name).map_err(|error| PackError::Open(io::Error::other(error)))?;
        let name = pack.name.to_string();
        let source = match self.kept.open_part(name.as_bytes()) {
            Ok(file) => Source::Kept(file),
            Err(_) => Source::Line(self.fetch(key)),
        };
        let copy = match purpose {
            Purpose::List => Some(self.kept.create_part(name.as_bytes()).map_err(PackError::Write)?),
            Purpose::Files | Purpose::Unproved => None,
        };
        let sha256 = (purpose == Purpose::Unproved).then(sha2::Sha256::new);
        Ok(Sealed { source, current: Bytes::new(), sha256, left: pack.sealed, copy, failed: None })
    }

    fn fetch(&self, key: ObjectKey) -> mpsc::Receiver<providers::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let store = Arc::clone(&self.store);
        // The task ends when the object does, or when nobody listens any more.
        #[expect(clippy::let_underscore_future, reason = "its result comes over the channel")]
        let _ = self.runtime.spawn(async move {
            match store.get(&key.into(), ByteRange::All).await {
                Err(error) => {
                    let _gone = sender.send(Err(error)).await;
                }
                Ok(mut stream) => {
                    while let Some(piece) = stream.next().await {
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        receiver
    }
}

/// The sealed bytes on their way: counted, hashed if nothing else will prove them, and kept if they are wanted again.
struct Sealed {
    source: Source,
    current: Bytes,
    sha256: Option<sha2::Sha256>,
    left: u64,
    copy: Option<File>,
    failed: Option<providers::Error>,
}

enum Source {
    Line(mpsc::Receiver<providers::Result<Bytes>>),
    Kept(File),
}

impl Sealed {
    /// Reads what is left and answers with the digest of everything, if it was to be hashed.
    fn drain(&mut self) -> io::Result<Option<Sha256>> {
        io::copy(self, &mut io::sink())?;
        Ok(self.sha256.take().map(|sha256| Sha256(sha256.finalize().into())))
    }

    /// What went wrong first: a failure on the line shows as a failure to open.
    fn cause(&mut self, error: PackError) -> PackError {
        self.failed.take().map_or(error, PackError::Store)
    }

    fn next(&mut self) -> io::Result<()> {
        let piece = match &mut self.source {
            Source::Line(line) => match line.blocking_recv() {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("the object cannot be fetched"));
                }
                None => Bytes::new(),
            },
            Source::Kept(file) => {
                let mut piece = vec![0; 256 << 10];
                let read = file.read(&mut piece)?;
                piece.truncate(read);
                piece.into()
            }
        };
        // A store that sends more than the object's size is not listened to for ever.
        self.left =
            self.left.checked_sub(piece.len() as u64).ok_or_else(|| io::Error::other("the object is too long"))?;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&piece);
        }
        // A copy that cannot be written costs a second fetch, and nothing else.
        if self.copy.as_mut().is_some_and(|copy| copy.write_all(&piece).is_err()) {
            self.copy = None;
        }
        self.current = piece;
        Ok(())
    }
}

impl Read for Sealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            self.next()?;
        }
        let taken = self.current.len().min(buffer.len());
        self.current.split_to(taken).copy_to_slice(buffer.get_mut(..taken).unwrap_or_default());
        Ok(taken)
    }
}

fn is_named(pack: &Pack, found: Option<Sha256>) -> Result<(), PackError> {
    match found {
        Some(found) if found != pack.name.sha256 => Err(PackError::Digest { found }),
        _ => Ok(()),
    }
}

/// Hands exactly `bytes` bytes on, and makes sure that there are no more.
fn copy(
    from: &mut dyn Read,
    bytes: u64,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = fill(from, &mut buffer).map_err(PackError::Open)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if offset + read as u64 > bytes {
            return Err(PackError::Size);
        }
        if read == 0 {
            return if offset == bytes { Ok(()) } else { Err(PackError::Size) };
        }
        take(offset, piece)?;
        offset += read as u64;
    }
}

fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
