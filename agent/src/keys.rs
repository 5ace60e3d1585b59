//! age keys: the recipients everything is sealed to, and the identities that open it again.
//!
//! The formats are age's own (<https://c2sp.org/age>), so that the stock `age` program opens what is sealed here and
//! reads the files that are written here. The agent's nightly run holds [`Recipients`] only.

mod identities;
mod opened;
mod payload;
mod recipients;
#[cfg(test)]
mod tests;

use age::secrecy::SecretString;

pub use identities::{Identities, IdentityError, NewIdentity, generate_identity, is_under_passphrase, protect};
pub use opened::Opened;
pub use payload::{NewFile, Payload};
pub use recipients::{Recipient, RecipientError, Recipients, recipients_of_file};

/// Asks for the passphrase of what the text names; `None` if nobody can be asked.
pub type AskPassphrase<'a> = &'a dyn Fn(&str) -> Option<SecretString>;
