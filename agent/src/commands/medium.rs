//! What stores and folders lie on: which of them are lost together, and with this machine.

use std::path::Path;

use crate::config::StoreConfig;
use crate::platform;
use crate::report::Medium;

/// What a store lies on.
pub(super) fn of_store(store: &StoreConfig) -> Medium {
    match store.directory() {
        Some(_) if !store.slots().is_empty() => Medium::Rotation(store.name.to_string()),
        Some(path) => of_folder(path),
        None => Medium::Service { kind: store.kind().to_owned(), store: store.name.to_string() },
    }
}

/// Whether a store lies in a folder of this machine now, as far as is known: a disk of a rotation does while it is connected.
pub(super) fn is_here(store: &StoreConfig) -> bool {
    store.directory().is_some_and(|path| of_folder(path).is_here())
}

/// What a folder lies on.
pub(super) fn of_folder(path: &Path) -> Medium {
    match platform::medium::medium(path) {
        Some(medium) if medium.remote => Medium::Network(medium.name),
        Some(medium) => Medium::Disk(medium.name),
        None => Medium::Unknown,
    }
}
