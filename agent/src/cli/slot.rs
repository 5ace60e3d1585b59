//! The command line of `offsite slot`.

use clap::Args;

use crate::ids::{SlotName, StoreName};

/// `offsite slot`.
#[derive(Args, Debug)]
pub struct SlotArgs {
    /// The slot that the disk which is connected now becomes; without it, the rotation is shown
    pub slot: Option<SlotName>,

    /// The store, if several have slots
    #[arg(long, value_name = "STORE")]
    pub store: Option<StoreName>,

    /// Also if the disk has a slot already, is not empty, or seems to be this machine's own
    #[arg(long, requires = "slot")]
    pub anyway: bool,
}
