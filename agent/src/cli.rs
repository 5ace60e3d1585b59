//! The command line: types and their help, and nothing else. Completions and the man page are made of them.

mod init;
mod key;
mod slot;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::calendar::Age;
use crate::config::{DEFAULT_PATH, SecretRef, Span};
use crate::ids::{GenerationId, JobName, NameError, SiteName, SourceName, StoreName};
use crate::restore::PathPattern;
use crate::schedule::Lane;

pub use init::InitArgs;
pub use key::KeyVerb;
pub use slot::SlotArgs;

/// Gets an office's data out of the building, whole and in step, and proves that it can come back.
#[derive(Debug, Parser)]
#[command(name = "offsite", version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "OFFSITE_CONFIG", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Print the result as one JSON document
    #[arg(long, global = true)]
    pub json: bool,

    /// Tell more on the way; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Tell only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong command line or configuration;
3 stored, but incomplete or not of one instant; 4 a store cannot be reached
or refuses; 5 verification or drill failed; 6 another run is under way; 130 interrupted.";

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show all of it on a small sample office, in a minute, without touching anything else
    Demo(DemoArgs),
    /// Write a configuration and the keys, and say what to do next
    Init(InitArgs),
    /// Keys: make, show, print the recovery sheet, prove who can open what
    #[command(subcommand)]
    Key(KeyVerb),
    /// Find everything that would make tonight's run fail, and what each store really does
    Check,
    /// Copy everything at one instant and bring it to every store, now
    Backup(BackupArgs),
    /// Show the generations there are, on this machine and in every store
    List(ListArgs),
    /// Get a generation back, or parts of it
    Restore(RestoreArgs),
    /// Read what is stored again and prove that it is what was stored; needs no key
    Verify(VerifyArgs),
    /// Remove what has expired by the rules, here and in every store
    Prune(PruneArgs),
    /// Keep a generation whatever the rules say, until it is released
    Hold(HoldArgs),
    /// Let a generation that was held go by the rules again
    Release(HoldArgs),
    /// Disks in rotation: which one is in, which comes next; give a new one its slot
    Slot(SlotArgs),
    /// Rehearse a restore into scratch, open every database, and judge
    Drill(DrillArgs),
    /// Show what needs attention, the last run and the next, and what is unfinished
    Status(StatusArgs),
    /// Run the schedule: every job of the configuration at its time
    Daemon(DaemonArgs),
    /// Make the auditor's document, or send a test report
    Report(ReportArgs),
    /// Verify, prune and vouch for what many sites store; needs no key that opens it
    Keeper(KeeperArgs),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page
    Man,
    /// Write into a database of the demo until standard input ends
    #[command(hide = true)]
    DemoWriter(DemoWriterArgs),
    /// Hold and copy SQLite databases for a capture, which starts this by itself
    #[command(hide = true)]
    Holder,
    /// Deliver the reports that wait and write those that are due, for the daemon, which starts this by itself
    #[command(hide = true)]
    Tidings,
    /// Remove the scratch folder of a drill when standard input ends; a drill starts this by itself
    #[command(hide = true)]
    Sweeper {
        /// The folder
        folder: PathBuf,
    },
}

/// `offsite backup`.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Make an archival generation: full, self-contained, and never overwritten
    #[arg(long)]
    pub archive: bool,

    /// Make a full generation, that needs nothing of what is stored already, and begin a new chain in every store
    #[arg(long, conflicts_with = "archive")]
    pub full: bool,

    /// Keep the archival generation so long, such as `10 years`; for ever if not given
    #[arg(long, value_name = "AGE", requires = "archive")]
    pub keep: Option<Age>,

    /// Copy nothing: only finish what an earlier run has begun to store
    #[arg(long, conflicts_with_all = ["archive", "full", "label"])]
    pub resume: bool,

    /// Call the generation something, such as `before the upgrade`
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// Write to the disk of a rotation that is connected, though the last generation lies on it already
    #[arg(long)]
    pub same_disk: bool,
}

/// `offsite prune`.
#[derive(Args, Debug)]
pub struct PruneArgs {
    /// Only show what would be removed, and why everything else is kept
    #[arg(long)]
    pub dry_run: bool,

    /// Do what this plan says though something speaks against it; its sixteen digits are shown with it; repeat for more
    #[arg(long, value_name = "PLAN", conflicts_with = "dry_run")]
    pub lift: Vec<String>,
}

/// `offsite hold` and `offsite release`.
#[derive(Args, Debug)]
pub struct HoldArgs {
    /// The generation: its name as `offsite list` shows it
    pub generation: GenerationId,

    /// Why, for whoever reads it years from now
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `offsite list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Look only here: the name of a store, or `local`
    #[arg(long, value_name = "STORE")]
    pub from: Option<From>,

    /// Show the stores as they were at this time: `2026-11-22T06:00:00Z`, or `2026-11-22 06:00` by the clock on the wall.
    /// Needs stores that keep older versions
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<AsOf>,
}

/// `offsite restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The generation: its name as `offsite list` shows it, or `latest`
    pub generation: Which,

    /// The folder to restore to; nothing outside it is touched
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,

    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<SourceName>,

    /// Only what matches, from the name of the source on: `documents/letters/**`
    #[arg(long, value_name = "PATTERN")]
    pub path: Option<PathPattern>,

    /// A secret key that opens what is in the stores, which are looked into if there is one. Without it, the copy that is
    /// still on this machine is restored. Repeat for more
    #[arg(long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,

    /// Where to find its passphrase: env:NAME or file:PATH; asked for if not given
    #[arg(long, value_name = "WHERE")]
    pub passphrase: Option<PassphraseSource>,

    /// Take it from here: the name of a store, or `local`
    #[arg(long, value_name = "STORE")]
    pub from: Option<From>,

    /// Take it as it was in the store at this time (see `offsite list`), whatever was overwritten or deleted later
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<AsOf>,

    /// Replace files that are there already
    #[arg(long)]
    pub overwrite: bool,

    /// Then load the databases of a source into a server and check them there:
    /// `source=NAME,host=…,port=…,user=…,password=env:NAME`, and with `database=NAME,as=OTHER` only that one, under another
    /// name; repeat for more sources
    #[arg(long, value_name = "SETTINGS")]
    pub into: Vec<String>,

    /// Replace databases of the server that hold something already
    #[arg(long, requires = "into")]
    pub replace_databases: bool,
}

/// `offsite verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Only this generation: its name as `offsite list` shows it, or `latest`
    pub generation: Option<Which>,

    /// Read so much of it, another part each day; all packs have to be there in any case
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub sample: u8,

    /// Only in this store
    #[arg(long, value_name = "STORE")]
    pub from: Option<StoreName>,
}

/// `offsite status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Ask this store when the site was last heard of, instead of this machine
    #[arg(long, value_name = "STORE")]
    pub from: Option<StoreName>,
}

/// `offsite daemon`.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// What to tell the daemon that runs; without it, this becomes the daemon
    #[command(subcommand)]
    pub tell: Option<DaemonVerb>,
}

/// What the daemon can be told.
#[derive(Debug, Subcommand)]
pub enum DaemonVerb {
    /// Begin no scheduled run for a while; what runs goes on
    Pause {
        /// For so long, at most 7 days: a pause that nobody ends is the end of the backups
        #[arg(long = "for", value_name = "TIME", default_value = "24 h")]
        span: Span,
    },
    /// End the pause; what it held back begins
    Resume,
    /// Run a job now
    Run {
        /// The job
        job: JobName,
    },
}

/// Whether a job can run these arguments by itself, and what it must not run beside; an error is what to do about it.
pub fn scheduled(run: &[String]) -> Result<Lane, String> {
    // The daemon gives these itself.
    if let Some(own) = run.iter().find(|argument| argument.starts_with("--config") || *argument == "--json") {
        return Err(format!("leave out {own}: the daemon says it already"));
    }
    let arguments = std::iter::once("offsite").chain(run.iter().map(String::as_str));
    let cli = Cli::try_parse_from(arguments).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        format!("this is no command of offsite: {}", first.trim_start_matches("error: "))
    })?;
    match cli.verb {
        Verb::Backup(_) | Verb::Prune(_) => Ok(Lane::Changes),
        Verb::Verify(_) | Verb::Check | Verb::Drill(_) => Ok(Lane::Reads),
        _ => Err("this is nothing that runs by itself; backup, prune, verify, check and drill are".to_owned()),
    }
}

/// `offsite report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// The first day of the auditor's document, such as 2026-01-01
    #[arg(long, value_name = "DAY", required_unless_present = "test")]
    pub from: Option<Date>,

    /// The last day; today if not given
    #[arg(long, value_name = "DAY")]
    pub to: Option<Date>,

    /// Write the document to this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Send a test to everybody in the configuration, and say who got it
    #[arg(long, conflicts_with_all = ["from", "to", "output"])]
    pub test: bool,
}

/// `offsite keeper`.
#[derive(Args, Debug)]
pub struct KeeperArgs {
    /// Only this site; repeat for more
    #[arg(long = "site", value_name = "NAME")]
    pub sites: Vec<SiteName>,

    /// Only read and report: nothing is written, removed or remembered
    #[arg(long)]
    pub dry_run: bool,

    /// Do what this plan says though something speaks against it; its sixteen digits are shown with it; repeat for more
    #[arg(long, value_name = "PLAN", conflicts_with = "dry_run")]
    pub lift: Vec<String>,
}

/// `offsite drill`.
#[derive(Args, Debug)]
pub struct DrillArgs {
    /// The generation: its name as `offsite list` shows it, or `latest`
    #[arg(default_value = "latest")]
    pub generation: Which,

    /// Take it from this store
    #[arg(long, value_name = "STORE")]
    pub from: Option<StoreName>,

    /// A secret key that opens the backups, instead of the one in the configuration; repeat for more
    #[arg(long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,

    /// Where to find its passphrase: env:NAME or file:PATH; asked for if not given
    #[arg(long, value_name = "WHERE")]
    pub passphrase: Option<PassphraseSource>,
}

/// A generation as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Latest,
    /// This one.
    Id(GenerationId),
}

impl std::str::FromStr for Which {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "latest" { Ok(Self::Latest) } else { text.parse().map(Self::Id) }
    }
}

/// Where generations are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The staging folder of this machine.
    Local,
    /// A store.
    Store(StoreName),
}

impl From {
    /// The store, if it is one.
    pub fn store(&self) -> Option<&StoreName> {
        match self {
            Self::Local => None,
            Self::Store(name) => Some(name),
        }
    }
}

impl std::str::FromStr for From {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "local" { Ok(Self::Local) } else { text.parse().map(Self::Store) }
    }
}

/// A moment in the past of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf(pub Timestamp);

impl std::str::FromStr for AsOf {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = text.parse() {
            return Ok(Self(at));
        }
        let wall: Option<DateTime> = text.parse().ok();
        let at = wall.and_then(|wall| wall.to_zoned(TimeZone::system()).ok());
        at.map(|at| Self(at.timestamp())).ok_or("a time is written 2026-11-22T06:00:00Z or \"2026-11-22 06:00\"")
    }
}

/// `offsite demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// A new folder for the sample office; one below the folder for temporary files if not given. It is kept
    pub folder: Option<PathBuf>,
}

/// `offsite demo-writer`.
#[derive(Args, Debug)]
pub struct DemoWriterArgs {
    /// The database
    pub database: PathBuf,
    /// A second database that is written in the same breath
    pub mirror: Option<PathBuf>,
}

/// Where a passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassphraseSource {
    /// The person at the terminal.
    Ask,
    /// A place.
    Reference(SecretRef),
}

impl std::str::FromStr for PassphraseSource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ask" => Ok(Self::Ask),
            place => place.parse().map(Self::Reference).map_err(
                |_| "a passphrase does not stand on the command line; write env:NAME, file:/path, cred:NAME or ask",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn a_moment_is_written_with_or_without_a_zone() {
        let at: AsOf = "2026-11-22T06:00:00Z".parse().unwrap();
        assert_eq!(at.0.as_second(), 1_795_327_200);
        let wall: AsOf = "2026-11-22 06:00".parse().unwrap();
        assert_eq!(at.0.to_zoned(TimeZone::UTC).datetime(), wall.0.to_zoned(TimeZone::system()).datetime());
        for bad in ["", "yesterday", "6 o'clock", "2026-13-01"] {
            assert!(bad.parse::<AsOf>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
