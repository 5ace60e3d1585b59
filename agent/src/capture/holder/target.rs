//! Where a copy is written: nowhere, for as long as it is what an earlier copy holds already.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::database::{Trouble, copy_failed};
use super::pages::PIECE;
use crate::durable;

/// A copy that is being made. What a killed holder leaves is no file at all, or one that is not whole.
pub(super) struct Target<'a> {
    path: &'a Path,
    /// An earlier copy.
    like: Option<File>,
    /// Made when the earlier copy turns out to be another.
    file: Option<File>,
    at: u64,
    /// What the earlier copy holds at that place.
    old: Vec<u8>,
}

impl<'a> Target<'a> {
    /// A copy at `path`, where nothing is, unless it turns out to be what the file `like` holds.
    pub(super) fn new(path: &'a Path, like: Option<&Path>) -> Self {
        // Without the earlier copy everything is written.
        let like = like.and_then(|like| File::open(like).ok());
        Self { path, like, file: None, at: 0, old: Vec::new() }
    }

    /// Takes the next bytes, at most [`PIECE`]. `alive` is called now and then if this takes long.
    pub(super) fn take(
        &mut self,
        piece: &[u8],
        alive: &mut dyn FnMut(u64) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        if self.file.is_none() && !self.is_as_before(piece) {
            self.begin(alive)?;
        }
        if let Some(file) = &self.file {
            file.write_all_at(piece, self.at)?;
        }
        self.at += piece.len() as u64;
        Ok(())
    }

    /// Ends it. Says whether a file was written; otherwise the earlier copy holds exactly what was taken.
    pub(super) fn finish(mut self, alive: &mut dyn FnMut(u64) -> Result<(), Trouble>) -> Result<bool, Trouble> {
        let same = |like: &File| like.metadata().is_ok_and(|metadata| metadata.len() == self.at);
        if self.file.is_none() && !self.like.as_ref().is_some_and(same) {
            self.begin(alive)?;
        }
        Ok(self.file.is_some())
    }

    fn is_as_before(&mut self, piece: &[u8]) -> bool {
        let Some(like) = &self.like else { return false };
        self.old.resize(piece.len(), 0);
        like.read_exact_at(&mut self.old, self.at).is_ok() && self.old == piece
    }

    /// Makes the file, and writes what was found to be the same so far.
    fn begin(&mut self, alive: &mut dyn FnMut(u64) -> Result<(), Trouble>) -> Result<(), Trouble> {
        let file = durable::create_new(self.path).map_err(|e| copy_failed(self.path, &e))?;
        if let Some(like) = &self.like {
            let mut from = 0;
            while from < self.at {
                self.old.resize(usize::try_from(self.at - from).map_or(PIECE, |left| left.min(PIECE)), 0);
                like.read_exact_at(&mut self.old, from)?;
                file.write_all_at(&self.old, from)?;
                from += self.old.len() as u64;
                alive(0)?;
            }
        }
        self.file = Some(file);
        Ok(())
    }
}
