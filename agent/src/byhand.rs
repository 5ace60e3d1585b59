//! What lies beside the data so that it can be restored without this program: `RESTORE.txt` and `restore.sh`.

/// Instructions for a person, `RESTORE.txt`.
pub const RESTORE_TEXT: &str = include_str!("byhand/RESTORE.txt");

/// A POSIX shell script that needs `age`, `zstd`, `tar` and nothing else, `restore.sh`.
pub const RESTORE_SCRIPT: &str = include_str!("byhand/restore.sh");
