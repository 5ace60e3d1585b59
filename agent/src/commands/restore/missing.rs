//! What a generation that is incomplete lacks: whoever restores it has to know before they look for it.

use std::fs;
use std::path::Path;

use crate::evidence::RunGeneration;
use crate::failure::Failure;
use crate::generation::Document;
use crate::ids::GenerationId;
use crate::progress::Progress;
use crate::restore::{self, RestoreRequest, StoredOrigin};

/// Where a generation says what it lacks.
const DOCUMENT: &str = "GENERATION.json";

/// What it says of itself: a clause for each source, with the reason.
pub(super) fn of(document: &Document) -> Vec<String> {
    RunGeneration::of(document).shortfalls().into_iter().map(|(clause, why)| format!("{clause}: {why}")).collect()
}

/// The same of the generation that was restored to `folder`; nothing if its document did not come back there.
pub(super) fn read(folder: &Path, generation: &GenerationId) -> Option<Vec<String>> {
    let document: Document = serde_json::from_slice(&fs::read(folder.join(DOCUMENT)).ok()?).ok()?;
    (document.generation == *generation).then(|| of(&document))
}

/// The same of one in a store, of which only something else was asked for. Whatever keeps it from being had, keeps nothing
/// from being restored.
pub(super) fn in_store(origin: &StoredOrigin<'_>) -> Vec<String> {
    let document = || {
        let folder = tempfile::tempdir().ok()?;
        let paths = DOCUMENT.parse().ok()?;
        let request = RestoreRequest { to: folder.path(), source: None, paths: Some(&paths), overwrite: true };
        restore::from_store(origin, &request, &Progress::default()).ok()?;
        read(folder.path(), &origin.stored.generation)
    };
    document().unwrap_or_default()
}

/// `failure` with what is missing, if that is why nothing was found.
pub(super) fn hinted(failure: Failure, missing: &[String]) -> Failure {
    let hint = |failure: Failure, what: &String| {
        failure.hint(format!("this generation is incomplete, and {what}; take another one from `offsite list`"))
    };
    missing.iter().fold(failure, hint)
}
