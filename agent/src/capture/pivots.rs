//! What nobody is held for, as one party of the cut: the PostgreSQL sources, whichever way they are copied, and the snapshot
//! of a file system. What is pinned last is the pivot.

use std::time::{Duration, Instant};

use super::postgres::{PhysicalSet, PostgresSet};
use super::protocol::{Order, Party, Refusal};
use super::snapshots::SnapshotSet;

/// A cluster in a cut. Errors are sentences.
pub(super) trait Instance {
    /// Does what may take its time; nothing is pinned after it.
    fn ready(&mut self) -> Result<(), String>;

    /// What changes with every commit.
    fn version(&mut self) -> Result<String, String>;

    /// Pins what is committed.
    fn pin(&mut self) -> Result<(), String>;

    /// Does what is left to do for it when nobody is held any more.
    fn settle(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// The version at which it is pinned.
    fn snapshot(&self) -> Option<&str>;

    /// Lets the pin go.
    fn let_go(&mut self);
}

/// All of them. The snapshot is pinned last: it has no version by which it could be seen that nothing has changed since.
#[derive(Debug)]
pub(super) struct Pivots<'s, 'd, 'p, 'f> {
    /// Clusters that are dumped.
    dumped: &'s mut PostgresSet<'d>,
    /// Those that are copied whole.
    physical: &'s mut PhysicalSet<'p>,
    /// Folders.
    folders: &'s mut SnapshotSet<'f>,
    /// While others are held: until when it may be pinned once more.
    again_until: Option<Instant>,
}

/// So much of the time that others may be held for is spent on pinning anew: they are held for as long.
const AGAIN: u32 = 4;

impl<'s, 'd, 'p, 'f> Pivots<'s, 'd, 'p, 'f> {
    /// All of them as one party.
    pub(super) fn new(
        dumped: &'s mut PostgresSet<'d>,
        physical: &'s mut PhysicalSet<'p>,
        folders: &'s mut SnapshotSet<'f>,
    ) -> Self {
        Self { dumped, physical, folders, again_until: None }
    }

    /// Why what was pinned first is not of the moment of what was pinned last, if it is not.
    fn moved(&mut self) -> Result<Option<&'static str>, String> {
        let clusters = self.dumped.members() + self.physical.members();
        let (last, moved) = match self.folders.members() {
            0 => (clusters.saturating_sub(1), "something was committed in one cluster while another was pinned"),
            _ => (clusters, "something was committed in PostgreSQL while the snapshot of the file system was taken"),
        };
        for instance in self.instances().take(last) {
            let now = instance.version()?;
            if instance.snapshot().is_none_or(|pinned| pinned != now) {
                return Ok(Some(moved));
            }
        }
        Ok(None)
    }

    fn instances(&mut self) -> impl Iterator<Item = &mut dyn Instance> {
        self.dumped.instances().chain(self.physical.instances())
    }
}

impl Party for Pivots<'_, '_, '_, '_> {
    fn order(&self) -> Order {
        Order::Pivot
    }

    fn members(&self) -> usize {
        self.dumped.members() + self.physical.members() + self.folders.members()
    }

    fn pins_freely(&self) -> bool {
        true
    }

    fn ready(&mut self) -> Result<(), Refusal> {
        self.again_until = None;
        self.folders.ready();
        self.instances().try_for_each(Instance::ready).map_err(Refusal::Busy)
    }

    fn versions(&mut self) -> Result<String, Refusal> {
        let versions: Result<Vec<String>, String> = self.instances().map(Instance::version).collect();
        versions.map(|versions| versions.join(" ")).map_err(Refusal::Busy)
    }

    fn hold(&mut self, left: Duration) -> Result<(), Refusal> {
        self.folders.expect_within(left);
        self.again_until = Some(Instant::now() + left / AGAIN);
        Ok(())
    }

    fn pin(&mut self) -> Result<(), Refusal> {
        loop {
            let begin = Instant::now();
            self.instances().try_for_each(Instance::pin).map_err(Refusal::Busy)?;
            self.folders.pin().map_err(Refusal::Busy)?;
            // Only the last one is the pivot; nothing may have happened in the others before it was pinned.
            let Some(why) = self.moved().map_err(Refusal::Busy)? else { return Ok(()) };
            // While others are held, more and more of those who write come to wait there, and the next time it is quiet.
            let end = Instant::now() + begin.elapsed();
            if self.folders.members() == 0 || self.again_until.is_none_or(|until| end > until) {
                return Err(Refusal::Busy(why.to_owned()));
            }
            self.folders.set_aside();
        }
    }

    fn prove(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn release(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Refusal> {
        self.instances().try_for_each(Instance::settle).map_err(Refusal::Busy)
    }

    fn let_go(&mut self) {
        self.instances().for_each(Instance::let_go);
        self.folders.let_go();
    }
}
