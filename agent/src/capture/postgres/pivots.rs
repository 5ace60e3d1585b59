//! The PostgreSQL sources as one party of the cut, whichever way they are copied. Nobody is held for them.

use std::time::Duration;

use super::PostgresSet;
use super::cluster::Cluster;
use super::physical::PhysicalSet;
use crate::capture::protocol::{Order, Party, Refusal};

/// A cluster in a cut. Errors are sentences.
pub(super) trait Instance {
    /// Does what may take its time; nothing is pinned after it.
    fn ready(&mut self) -> Result<(), String>;

    /// What changes with every commit.
    fn version(&mut self) -> Result<String, String>;

    /// Pins what is committed.
    fn pin(&mut self) -> Result<(), String>;

    /// The version at which it is pinned.
    fn snapshot(&self) -> Option<&str>;

    /// Lets the pin go.
    fn let_go(&mut self);
}

/// All of them: the one that is pinned last is the pivot.
#[derive(Debug)]
pub(in crate::capture) struct Pivots<'s, 'd, 'p> {
    /// Those that are dumped.
    pub(in crate::capture) dumped: &'s mut PostgresSet<'d>,
    /// Those that are copied whole.
    pub(in crate::capture) physical: &'s mut PhysicalSet<'p>,
}

impl Pivots<'_, '_, '_> {
    fn instances(&mut self) -> impl Iterator<Item = &mut dyn Instance> {
        let dumped = self.dumped.clusters().map(|cluster| cluster as &mut dyn Instance);
        dumped.chain(self.physical.instances())
    }
}

impl Party for Pivots<'_, '_, '_> {
    fn order(&self) -> Order {
        Order::Pivot
    }

    fn members(&self) -> usize {
        self.dumped.members() + self.physical.members()
    }

    fn pins_freely(&self) -> bool {
        true
    }

    fn ready(&mut self) -> Result<(), Refusal> {
        self.instances().try_for_each(Instance::ready).map_err(Refusal::Busy)
    }

    fn versions(&mut self) -> Result<String, Refusal> {
        let versions: Result<Vec<String>, String> = self.instances().map(Instance::version).collect();
        versions.map(|versions| versions.join(" ")).map_err(Refusal::Busy)
    }

    fn hold(&mut self, _: Duration) -> Result<(), Refusal> {
        Ok(())
    }

    fn pin(&mut self) -> Result<(), Refusal> {
        self.instances().try_for_each(Instance::pin).map_err(Refusal::Busy)?;
        // Only the last one is the pivot; nothing may have happened in the others before it was pinned.
        let last = self.members().saturating_sub(1);
        for instance in self.instances().take(last) {
            let now = instance.version().map_err(Refusal::Busy)?;
            if instance.snapshot().is_none_or(|pinned| pinned != now) {
                return Err(Refusal::Busy(
                    "something was committed in one cluster while another was pinned".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn prove(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn release(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn let_go(&mut self) {
        self.instances().for_each(Instance::let_go);
    }
}

impl Instance for Cluster {
    fn ready(&mut self) -> Result<(), String> {
        Self::ready(self)
    }

    fn version(&mut self) -> Result<String, String> {
        Self::version(self)
    }

    fn pin(&mut self) -> Result<(), String> {
        Self::pin(self)
    }

    fn snapshot(&self) -> Option<&str> {
        self.pinned.as_ref().map(|pin| pin.snapshot.as_str())
    }

    fn let_go(&mut self) {
        self.pinned = None;
    }
}
