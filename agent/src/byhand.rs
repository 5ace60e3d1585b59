//! What lies beside the data so that it can be restored without this program: `RESTORE.txt` and `restore.sh`.

use providers::{Body, ErrorKind, KeyPrefix, ObjectStore, PutOptions};

use crate::format::{Sha256, names};

/// Instructions for a person, `RESTORE.txt`.
pub const RESTORE_TEXT: &str = include_str!("byhand/RESTORE.txt");

/// A POSIX shell script that needs `age`, `zstd`, `tar` and nothing else, `restore.sh`.
pub const RESTORE_SCRIPT: &str = include_str!("byhand/restore.sh");

/// SHA-256 of what earlier versions put there: what lies in stores is not written again. A text that changes leaves its
/// digest here.
const EARLIER: [&str; 7] = [
    "6e0225af541fed1b5728d3691a93fd2e374156196a1c0bbd178cb76186422992",
    "e4592cce683fe4d41dcb2206951c58c78e37472756755ae43b991b83d74a4828",
    "0ca09e2ce009720512d5a074f5ee5693062064375e8d8eeb3d621fae0eca64e4",
    "3b61da7a4d21d3119c5f9b649526f23e6b5b7d02ffc16b8ebd758f1d3edea4e7",
    "56bcf667596a902ea1199cc2904ee3c3a6178921d690fa794d54eecad1659270",
    "f9c919066a1fb59f2cd993c1e464386c655ea66044c2a68373da5bc9ec996a32",
    "1e6a411497356e7ce27b9e1991561b8eb552482a07c0b3dc2dd57085eb15d575",
];

/// Puts both into the folder of a site, where they are missing.
pub async fn put(store: &dyn ObjectStore, site: &KeyPrefix) -> Result<(), providers::Error> {
    for (name, text) in [(names::RESTORE_TEXT, RESTORE_TEXT), (names::RESTORE_SCRIPT, RESTORE_SCRIPT)] {
        let key = site.key(name).map_err(|error| providers::Error::new(ErrorKind::Local, "storing").because(error))?;
        match store.put(&key, &Body::from_bytes(text.as_bytes()), &PutOptions::CREATE).await {
            Err(error) if error.kind != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether `bytes` is what this or an earlier version of the program put beside the data under this name.
pub fn is_ours(name: &str, bytes: &[u8]) -> bool {
    let now = match name {
        names::RESTORE_TEXT => RESTORE_TEXT,
        names::RESTORE_SCRIPT => RESTORE_SCRIPT,
        _ => return false,
    };
    bytes == now.as_bytes() || EARLIER.contains(&Sha256::of(bytes).to_string().as_str())
}
