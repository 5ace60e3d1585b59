//! The command line of `offsite key`.

use std::path::PathBuf;

use clap::Subcommand;

use super::PassphraseSource;
use crate::ids::KeyName;

/// `offsite key`.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a new key: the secret half into a new file, the public half on standard output
    New {
        /// The new file, in the form of age-keygen
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Protect it with the passphrase found here: env:NAME or file:PATH; asked for if `ask`
        #[arg(long, value_name = "WHERE")]
        passphrase: Option<PassphraseSource>,
    },
    /// Show the public keys: of the configuration, and of identity files
    Show {
        /// Identity files
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where to find their passphrase: env:NAME or file:PATH; asked for if not given
        #[arg(long, value_name = "WHERE")]
        passphrase: Option<PassphraseSource>,
    },
    /// Make a new signing key for the site, in place of one that is lost
    Site,
    /// Print the recovery sheet: what a person needs who starts with nothing
    Sheet {
        /// Print the secret key of this file on it as well; the sheet then opens everything
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// Write it to this new, private file instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// As a page with QR codes, to be printed from a browser; so is a file whose name ends in .html
        #[arg(long)]
        html: bool,
    },
    /// Put a secret key under a passphrase into every store, so that the passphrase alone gets everything back
    Deposit {
        /// The file of the key, made with `offsite key new FILE --passphrase ask`
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What it is called in the stores: keys/NAME.age
        #[arg(long, value_name = "NAME")]
        name: KeyName,
        /// Where to find its passphrase: env:NAME or file:PATH; asked for if not given
        #[arg(long, value_name = "WHERE")]
        passphrase: Option<PassphraseSource>,
    },
    /// Prove which keys of the configuration an identity is, and which generations it opens; no data is touched
    Check {
        /// Identity files
        #[arg(long = "identity", value_name = "FILE", required = true)]
        identities: Vec<PathBuf>,
        /// Where to find their passphrase: env:NAME or file:PATH; asked for if not given
        #[arg(long, value_name = "WHERE")]
        passphrase: Option<PassphraseSource>,
    },
}
