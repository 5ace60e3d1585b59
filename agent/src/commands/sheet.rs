//! The recovery sheet: what a person needs who starts with nothing but it.

mod html;
mod qr;

use std::fmt::Write as _;
use std::path::Path;

use age::secrecy::{ExposeSecret as _, SecretString};
use jiff::Timestamp;

use super::spec::quote;
use crate::config::StoreConfig;
use crate::ids::SiteName;

/// What stands on the sheet.
pub(super) struct Sheet<'a> {
    pub(super) site: &'a SiteName,
    pub(super) stores: &'a [StoreConfig],
    /// The keys that open the backups.
    pub(super) recipients: Vec<String>,
    /// The site's public key, and its fingerprint.
    pub(super) public_key: Option<(String, String)>,
    /// The content of an identity file.
    pub(super) secret: Option<&'a SecretString>,
    pub(super) printed: Timestamp,
}

const BY_HAND: &str = "\
HOW TO GET EVERYTHING BACK

With the program (any Linux machine):
  1. Get offsite: the one file that `which offsite` names on the old machine is all of it; keep a copy with a key, and
     write below where. Or build it from its sources: `cargo install --path agent`.
     Write the lines between the marks below to a file offsite.toml. Where it says env:NAME, set that variable to
     the secret.
  2. offsite --config offsite.toml list
  3. offsite --config offsite.toml restore latest --to NEW-FOLDER --identity KEY-FILE

By hand (any machine with age, zstd and tar):
  1. Fetch everything below the place above with whatever the storage offers: a browser will do.
  2. Read RESTORE.txt there. It needs nothing but what you have fetched, the secret key, and those three programs.
  3. In short, with restore.sh and KEY-FILE beside the folder CHAIN (rolling/... or archive/...) of the copy, in which
     GENERATION is the latest time among the names of the .json files, and OUT a folder that is not there yet:
       sh restore.sh KEY-FILE CHAIN GENERATION OUT

KEY-FILE is a text file with one line, the secret key: AGE-SECRET-KEY-1...
";

impl Sheet<'_> {
    /// The sheet as text of at most 100 columns.
    pub(super) fn text(&self) -> String {
        let mut text = format!("RECOVERY SHEET of {}\nprinted {:.0}\n\n", self.site, self.printed);
        text.push_str("Keep this sheet outside the building. Keep a second one somewhere else.\n\n");
        text.push_str("WHERE THE DATA LIES\n\n");
        for store in self.stores {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "  {} ({}): {store}\n      below it, the folder {}/",
                store.name,
                store.kind(),
                self.site
            );
        }
        text.push_str("\nWHO CAN OPEN IT (one of these keys is enough)\n\n");
        for recipient in &self.recipients {
            let _ = writeln!(
                text,
                "  public key   {recipient}\n  secret key   kept at: ______________________________________________\n"
            );
        }
        match self.secret {
            Some(secret) => {
                text.push_str("SECRET KEY: whoever reads this line can read every backup\n\n");
                for line in secret.expose_secret().lines().filter(|line| !line.starts_with('#')) {
                    let _ = writeln!(text, "  {line}");
                }
                text.push('\n');
            }
            None => text.push_str(
                "The secret key is not on this sheet. Write down where it is kept, or print it on the sheet with\n\
                 `offsite key sheet --identity FILE`.\n\n",
            ),
        }
        text.push_str("WHO SIGNED IT (shows that the backups are this office's own)\n\n");
        match &self.public_key {
            Some((key, fingerprint)) => {
                let _ = writeln!(text, "  site key     {key}\n  fingerprint  {fingerprint}\n");
            }
            None => text.push_str("  no signing key has been made yet\n\n"),
        }
        text.push_str(BY_HAND);
        let version = env!("CARGO_PKG_VERSION");
        let _ = write!(
            text,
            "\nThis sheet was printed by offsite {version}. A copy of the program is kept at: __________________________\n\n"
        );
        text.push_str("--- offsite.toml ---\n");
        text.push_str(&self.configuration(&self.stores.iter().collect::<Vec<_>>()));
        text.push_str("--- end ---\n");
        text
    }

    /// Whether a sheet in a file of this name is a page to be printed from a browser.
    pub(super) fn is_page(file: &Path) -> bool {
        file.extension().is_some_and(|ending| ending == "html")
    }

    /// A configuration to restore with.
    fn configuration(&self, stores: &[&StoreConfig]) -> String {
        let mut text = format!("site = {}\n", quote(self.site.as_str()));
        if let Some((key, _)) = &self.public_key {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[signing]\npublic_key = {}", quote(key));
        }
        stores.iter().for_each(|store| text.push_str(&store.for_restoring()));
        text
    }
}
