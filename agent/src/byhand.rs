//! What lies beside the data so that it can be restored without this program: `RESTORE.txt` and `restore.sh`.

use crate::format::names;

/// Instructions for a person, `RESTORE.txt`.
pub const RESTORE_TEXT: &str = include_str!("byhand/RESTORE.txt");

/// A POSIX shell script that needs `age`, `zstd`, `tar` and nothing else, `restore.sh`.
pub const RESTORE_SCRIPT: &str = include_str!("byhand/restore.sh");

/// Whether `bytes` is what a version of this program put beside the data under this name. A text that changes leaves the
/// digest of what it was here: what lies in stores already is not written again.
pub fn is_ours(name: &str, bytes: &[u8]) -> bool {
    match name {
        names::RESTORE_TEXT => bytes == RESTORE_TEXT.as_bytes(),
        names::RESTORE_SCRIPT => bytes == RESTORE_SCRIPT.as_bytes(),
        _ => false,
    }
}
