//! What an S3 server's replies prove about the content it holds.

use aws_smithy_types::base64;
use md5::{Digest as _, Md5};
use sha2::Sha256;

use crate::store::{Part, Sha256Digest};

/// What a reply says of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is what we sent.
    Ours,
    /// It is something else.
    Other,
    /// Nothing that we can compare.
    Nothing,
}

/// A digest as S3's headers carry it.
pub(super) fn sha256_text(digest: &Sha256Digest) -> String {
    base64::encode(digest)
}

/// A digest from S3's headers; the digest of digests of an upload in parts is none.
pub(super) fn sha256_of_text(text: &str) -> Option<Sha256Digest> {
    base64::decode(text).ok()?.try_into().ok()
}

/// Compares the reply to one body.
///
/// The checksum decides where the server returns it. Otherwise the ETag does if it is the body's MD5; one that is not
/// may belong to a server that encrypts, and proves nothing.
pub(super) fn of_body(content: &[u8], sha256: &Sha256Digest, checksum: Option<&str>, etag: Option<&str>) -> Said {
    match checksum {
        Some(said) if said == sha256_text(sha256) => Said::Ours,
        Some(_) => Said::Other,
        None if etag.map(bare) == Some(&hex(&Md5::digest(content))) => Said::Ours,
        None => Said::Nothing,
    }
}

/// Compares the reply to the completion of `parts`: the digest of the parts' digests, then `-` and their count.
pub(super) fn of_parts(parts: &[Part], checksum: Option<&str>, etag: Option<&str>) -> Said {
    let digests: Option<Vec<_>> = parts.iter().map(|part| part.sha256).collect();
    if let (Some(said), Some(digests)) = (checksum, digests)
        && let Some((digest, _)) = said.split_once('-')
    {
        let ours = sha256_text(&Sha256::digest(digests.concat()).into());
        return if digest == ours { Said::Ours } else { Said::Other };
    }
    let tags: Option<Vec<_>> = parts.iter().map(|part| md5_of_tag(&part.etag)).collect();
    let ours = tags.map(|tags| format!("{}-{}", hex(&Md5::digest(tags.concat())), parts.len()));
    match (ours, etag.map(bare)) {
        (Some(ours), Some(said)) if ours == said => Said::Ours,
        _ => Said::Nothing,
    }
}

fn bare(etag: &str) -> &str {
    etag.trim_matches('"')
}

fn md5_of_tag(etag: &str) -> Option<[u8; 16]> {
    let text = bare(etag);
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 16];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC_MD5: &str = "\"900150983cd24fb0d6963f7d28e17f72\"";

    #[test]
    fn a_body_is_proved_by_checksum_or_md5() {
        let sha256: Sha256Digest = Sha256::digest(b"abc").into();
        let right = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        assert_eq!(sha256_text(&sha256), right);
        assert_eq!(sha256_of_text(right), Some(sha256));
        assert_eq!(of_body(b"abc", &sha256, Some(right), None), Said::Ours);
        assert_eq!(of_body(b"abc", &sha256, Some("AAAA"), Some(ABC_MD5)), Said::Other);
        assert_eq!(of_body(b"abc", &sha256, None, Some(ABC_MD5)), Said::Ours);
        assert_eq!(of_body(b"abd", &sha256, None, Some(ABC_MD5)), Said::Nothing);
        assert_eq!(of_body(b"abc", &sha256, None, None), Said::Nothing);
    }

    #[test]
    fn parts_are_proved_by_the_digest_of_their_digests() {
        let sha256: Sha256Digest = Sha256::digest(b"abc").into();
        let part = |number| Part { number, bytes: 3, etag: ABC_MD5.to_owned(), sha256: Some(sha256) };
        let parts = [part(1), part(2)];
        let both = [md5_of_tag(ABC_MD5).unwrap(); 2].concat();
        let etag = format!("\"{}-2\"", hex(&Md5::digest(both)));
        assert_eq!(of_parts(&parts, None, Some(&etag)), Said::Ours);
        assert_eq!(of_parts(&parts, None, Some(ABC_MD5)), Said::Nothing);
        let checksum = format!("{}-2", sha256_text(&Sha256::digest([sha256, sha256].concat()).into()));
        assert_eq!(of_parts(&parts, Some(&checksum), None), Said::Ours);
        assert_eq!(of_parts(&parts, Some("AAAA-2"), Some(&etag)), Said::Other);
        assert_eq!(md5_of_tag("\"not-a-digest\""), None);
    }
}
