//! Whether a store holds what we sent: asked when a reply was lost.

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorKind, Result};
use crate::key::ObjectKey;
use crate::store::{ByteRange, ByteStream, ObjectMeta, ObjectRef, ObjectStore, Part, Sha256Digest};

/// Looks whether `key` holds exactly the `bytes` bytes whose digest is `sha256`.
///
/// The store's own word is taken for the digest where it gives one; otherwise the object is read back. `None` is a
/// missing or a different object.
pub async fn holds(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    bytes: u64,
    sha256: &Sha256Digest,
) -> Result<Option<ObjectMeta>> {
    let Some(meta) = head_of_size(store, key, bytes).await? else { return Ok(None) };
    let held = match meta.sha256 {
        Some(digest) => digest,
        None => match digests(content_of(store, &meta).await?, &[bytes]).await?.as_slice() {
            [digest] => *digest,
            _ => return Ok(None),
        },
    };
    Ok((held == *sha256).then_some(meta))
}

/// Looks whether `key` holds exactly `parts`, one after the other, by reading it back. A part of unknown digest is
/// no proof.
pub(crate) async fn holds_parts(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    parts: &[Part],
) -> Result<Option<ObjectMeta>> {
    let bytes = parts.iter().map(|part| part.bytes).sum();
    let Some(meta) = head_of_size(store, key, bytes).await? else { return Ok(None) };
    let sizes: Vec<_> = parts.iter().map(|part| part.bytes).collect();
    let held = digests(content_of(store, &meta).await?, &sizes).await?;
    let equal = parts.len() == held.len() && parts.iter().zip(&held).all(|(part, held)| part.sha256 == Some(*held));
    Ok(equal.then_some(meta))
}

async fn head_of_size(store: &dyn ObjectStore, key: &ObjectKey, bytes: u64) -> Result<Option<ObjectMeta>> {
    match store.head(&ObjectRef::from(key.clone())).await {
        Ok(meta) => Ok((meta.bytes == bytes).then_some(meta)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the name shows now, and not its version: an agent's key may read no versions.
async fn content_of(store: &dyn ObjectStore, meta: &ObjectMeta) -> Result<ByteStream> {
    store.get(&meta.key.clone().into(), ByteRange::All).await
}

/// The digests of consecutive pieces of `sizes` bytes; of fewer, if the content ends early.
pub(crate) async fn digests(mut content: ByteStream, sizes: &[u64]) -> Result<Vec<Sha256Digest>> {
    let mut found = Vec::with_capacity(sizes.len());
    let mut sizes = sizes.iter();
    let (mut digest, mut missing) = (Sha256::new(), sizes.next().copied());
    while let Some(piece) = content.next().await {
        let mut piece = piece?;
        while let Some(wanted) = missing.filter(|wanted| *wanted <= piece.len() as u64) {
            digest.update(piece.split_to(usize::try_from(wanted).unwrap_or(piece.len())));
            found.push(digest.finalize_reset().into());
            missing = sizes.next().copied();
        }
        missing = missing.map(|wanted| wanted - piece.len() as u64);
        digest.update(&piece);
    }
    if missing == Some(0) {
        found.push(digest.finalize().into());
    }
    Ok(found)
}
