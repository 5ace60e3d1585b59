//! The command line of `offsite init`.

use std::path::PathBuf;

use clap::Args;

use super::PassphraseSource;
use crate::ids::SiteName;

/// `offsite init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// The office's name; every store gets a folder of this name
    #[arg(long, value_name = "NAME")]
    pub site: Option<SiteName>,

    /// What to copy: the path of a folder or an SQLite file, or settings such as
    /// `name=ledger,type=sqlite,path=/srv/ledger.db`; repeat for more
    #[arg(long = "source", value_name = "SOURCE")]
    pub sources: Vec<String>,

    /// Where to: a folder, `s3://BUCKET/PREFIX`, `https://…` (WebDAV), or settings such as
    /// `name=cloud,type=s3,bucket=b,endpoint=https://…,access_key=…,secret_key=file:/…`; repeat for more
    #[arg(long = "store", value_name = "STORE")]
    pub stores: Vec<String>,

    /// A public key that can open the backups; repeat for more
    #[arg(long = "recipient", value_name = "KEY")]
    pub recipients: Vec<String>,

    /// Make a new key, write its secret half to this new file, and use its public half; repeat for more
    #[arg(long = "new-identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,

    /// Protect the new secret keys with the passphrase found here: env:NAME or file:PATH; asked for if `ask`
    #[arg(long, value_name = "WHERE")]
    pub passphrase: Option<PassphraseSource>,

    /// A secret key that is there when restores are rehearsed, on a drive that is connected for that: then it is done each
    /// week. Without it, somebody does it by hand
    #[arg(long, value_name = "FILE")]
    pub drill_identity: Option<PathBuf>,

    /// Do with a single key, though the backups are lost with it
    #[arg(long)]
    pub one_key_is_enough: bool,

    /// Local generations go here
    #[arg(long, value_name = "FOLDER")]
    pub staging: Option<PathBuf>,

    /// Journal, catalog and spool go here
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,

    /// Write the recovery sheet to this new file instead of beside the configuration
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
}
