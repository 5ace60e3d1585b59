//! What lies in a store, byte by byte: the on-storage types and their text forms. Pure; `FORMAT.md` is the specification.
//!
//! These types are not the working types of the program: a change here is a change of the format, and needs a version.

pub mod commit;
pub mod entries;
pub mod hold;
pub mod manifest;
pub mod names;
pub mod pruned;
pub mod tar;
pub mod verified;

/// The version of the format that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Most content bytes of one chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Most content bytes of one zstd frame of a pack; a reader need not hold more.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Most bytes that one patch gives, and most bytes of the full that it may refer to.
pub const PATCH_BYTES_MAX: u64 = 2 << 20;
/// See [`PATCH_BYTES_MAX`].
pub const PATCH_REFERENCE_BYTES_MAX: u64 = 8 << 20;

/// A SHA-256 digest; its text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256: 64 hexadecimal digits are wanted")]
pub struct DigestError(String);

impl std::str::FromStr for Sha256 {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let refused = || DigestError(text.chars().take(80).flat_map(char::escape_debug).collect());
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 64 || !text.bytes().all(lower_hex) {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(Self(digest))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.to_string()
    }
}
