//! A small sample office that can be backed up while it works: what `offsite demo` shows the program on.
//!
//! Two databases belong together: every payment is first written to Cash Receipting and then, in a transaction of its
//! own, to Utility Billing. At any instant billing has as many of them as cash, or one fewer, and so has every copy that
//! shows an instant. A third database keeps a rollback journal, and a folder holds documents.

mod office;
mod writer;

pub use office::{DemoError, Findings, Office};
pub use writer::{Writers, write_until_told};
