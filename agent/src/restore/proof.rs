//! The SHA-256 of a file while it is put together: what comes in order is hashed as it comes, while it is at hand; what
//! comes early is read again when its turn has come. Whoever brings the next piece hashes; nobody waits for anybody.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Mutex;

use sha2::Digest as _;

use crate::format::Sha256;
use crate::platform::place::read_at;

/// Bytes read again at once.
const READ: u64 = 256 << 10;

/// How far a file is proved.
#[derive(Default)]
pub(super) struct Proof(Mutex<Hashing>);

#[derive(Default)]
struct Hashing {
    /// Everything before this is hashed.
    next: u64,
    /// Absent while a thread hashes, and before the first one does.
    sha256: Option<Box<sha2::Sha256>>,
    busy: bool,
    /// What has come early: beginnings and ends of stretches.
    early: BTreeMap<u64, u64>,
}

impl Proof {
    /// `bytes` were written to `file`, of `size` bytes in all, at `offset`. Answers with the digest when all of it is hashed.
    pub(super) fn add(&self, file: &File, offset: u64, bytes: &[u8], size: u64) -> io::Result<Option<Sha256>> {
        let end = offset + bytes.len() as u64;
        let mut sha256 = {
            let mut hashing = self.lock();
            if hashing.busy || hashing.next != offset {
                hashing.early.insert(offset, end);
                return Ok(None);
            }
            hashing.busy = true;
            hashing.sha256.take().unwrap_or_default()
        };
        sha256.update(bytes);
        let mut next = end;
        loop {
            let early = {
                let mut hashing = self.lock();
                hashing.next = next;
                let early = hashing.early.remove(&next);
                if early.is_none() && next < size {
                    hashing.busy = false;
                    hashing.sha256 = Some(sha256);
                    return Ok(None);
                }
                early
            };
            match early {
                Some(end) => hash_again(&mut sha256, file, next, end)?,
                None => return Ok(Some(Sha256(sha256.finalize().into()))),
            }
            next = early.unwrap_or(next);
        }
    }

    /// How many bytes from the beginning on are proved.
    pub(super) fn reached(&self) -> u64 {
        self.lock().next
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hashing> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn hash_again(sha256: &mut sha2::Sha256, file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut at = from;
    while at < to {
        buffer.resize(usize::try_from(READ.min(to - at)).unwrap_or(0), 0);
        read_at(file, &mut buffer, at)?;
        sha256.update(&buffer);
        at += buffer.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// Adds the pieces in the order given and answers with what the last one gave.
    fn prove(content: &[u8], order: &[std::ops::Range<usize>]) -> Option<Sha256> {
        let file = tempfile::tempfile().unwrap();
        let proof = Proof::default();
        let mut found = None;
        for range in order {
            assert!(found.is_none(), "complete before its last piece");
            let (bytes, offset) = (&content[range.clone()], range.start as u64);
            file.write_all_at(bytes, offset).unwrap();
            found = proof.add(&file, offset, bytes, content.len() as u64).unwrap();
        }
        assert_eq!(proof.reached() == content.len() as u64, found.is_some());
        found
    }

    #[test]
    fn the_digest_is_that_of_the_whole_file_in_whichever_order_it_came() {
        let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
        let pieces = [0..1, 1..300_000, 300_000..700_000, 700_000..1_000_000];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
            let order: Vec<_> = order.into_iter().map(|at: usize| pieces[at].clone()).collect();
            assert_eq!(prove(&content, &order), Some(Sha256::of(&content)));
        }
        assert_eq!(prove(&content, &pieces[..3]), None);
        assert_eq!(prove(&content, &pieces[1..]), None);
    }

    #[test]
    fn many_threads_bring_one_file() {
        let content: Vec<u8> = (0..4_000_000_u32).map(|n| (n ^ (n >> 7)) as u8).collect();
        let (file, proof) = (tempfile::tempfile().unwrap(), Proof::default());
        let bring = |first: usize| {
            let mut found = None;
            for (at, piece) in content.chunks(10_000).enumerate().skip(first).step_by(4) {
                let offset = at as u64 * 10_000;
                file.write_all_at(piece, offset).unwrap();
                found = found.or(proof.add(&file, offset, piece, content.len() as u64).unwrap());
            }
            found
        };
        let found = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|first| scope.spawn(move || bring(first))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(found, [Sha256::of(&content)]);
    }
}
