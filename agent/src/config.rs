//! The configuration: what the person at the keyboard wrote, checked as a whole before anything is done.
//!
//! Every problem is found in one go and named with its line, its setting and a remedy. What comes out holds no text that
//! is really a path, a size or a duration. Secrets are named by their place ([`SecretRef`]) and read when they are used.

mod drill;
mod jobs;
mod keeper;
mod lock;
mod office;
mod rate;
mod reports;
mod retention;
mod secret;
mod sources;
mod stores;
mod table;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::calendar::Calendar;
use crate::drill::Ask;
use crate::failure;
use crate::ids::{SiteName, SourceName};
use crate::keys::{RecipientError, Recipients, recipients_of_file};
use crate::platform;
use crate::schedule::Schedule;
use crate::sign::SitePublicKey;

pub use drill::DrillConfig;
pub use keeper::KeeperConfig;
pub use lock::{LockConfig, notes as lock_notes};
pub use rate::RateTable;
pub use reports::{
    Address, AddressError, MailConfig, MetricsConfig, PingConfig, ReportsConfig, Security, SmtpConfig, WebhookConfig,
    Wish,
};
pub use retention::RetentionConfig;
pub use secret::{SecretError, SecretRef};
pub use sources::SourceEntry;
pub use stores::{Agreement, Pruner, StoreConfig};
pub use table::Problem;
pub use units::{Size, Span, UnitError};

use table::{Reader, Section};

/// Where the configuration lies unless something else is said.
pub const DEFAULT_PATH: &str = "/etc/offsite/offsite.toml";

/// A configuration that is good for a backup.
#[derive(Debug)]
pub struct Config {
    /// What every verb needs.
    pub place: Place,
    /// To whom everything is sealed.
    pub recipients: Recipients,
    /// How packs are made.
    pub seal: SealConfig,
    /// When a chain is closed.
    pub chain: ChainConfig,
    /// How the instant is had that all sources are cut at.
    pub capture: CaptureConfig,
    /// What is copied: at least one.
    pub sources: Vec<SourceEntry>,
}

/// What every verb needs, and all that reading and restoring needs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The office.
    pub site: SiteName,
    /// Local generations lie here.
    pub staging: PathBuf,
    /// Journal, index, catalog and spool lie here.
    pub state: PathBuf,
    /// The site's signing key lies here: away from the state, so that losing the one does not lose the other.
    pub signing_key: PathBuf,
    /// Whether the configuration says where the signing key lies; then it is expected to be there.
    pub signing_key_set: bool,
    /// The site's public key, if it is configured.
    pub public_key: Option<SitePublicKey>,
    /// Public keys of the keepers, whose word for what was pruned is taken.
    pub keepers: Vec<SitePublicKey>,
    /// The places off site: at least one.
    pub stores: Vec<StoreConfig>,
    /// When people work at the office.
    pub calendar: Calendar,
    /// What happens by itself.
    pub schedule: Schedule,
    /// Who is told of what.
    pub reports: ReportsConfig,
    /// What is kept of what was stored, and when nothing may go.
    pub retention: RetentionConfig,
    /// How a restore is rehearsed.
    pub drill: DrillConfig,
    /// The folders that are copied on the machine that backs up.
    pub source_folders: Vec<(SourceName, PathBuf)>,
}

/// How packs are made.
#[derive(Clone, Debug)]
pub struct SealConfig {
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Sealed packs wait for their stores in the spool, and sealing waits when it holds this many bytes.
    pub spool_bytes: u64,
}

/// When a chain is closed and a new one begun.
#[derive(Clone, Copy, Debug)]
pub struct ChainConfig {
    /// After so many days.
    pub days: u32,
    /// After so many generations, the full included.
    pub generations: u32,
}

/// How the instant is had that all sources are cut at.
#[derive(Clone, Copy, Debug)]
pub struct CaptureConfig {
    /// Writers are never held longer than this.
    pub hold_limit: Duration,
    /// What an earlier run left unfinished holds the capture up no longer than this.
    pub wait: Duration,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{} has {}; nothing was done", path.display(), count(problems.len()))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

/// A configuration and what it leaves to the defaults.
#[derive(Debug)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// The settings it could have and has not, such as `store(s3).region`.
    pub unset: BTreeSet<String>,
}

/// Largest configuration, and largest list of recipients, that is read.
const TEXT_BYTES_MAX: u64 = 4 << 20;
const SIGNING_KEY: &str = "site.key";
const STAGING: &str = "/var/lib/offsite/staging";
const STATE: &str = "/var/lib/offsite/state";
const LEVEL: u32 = 3;
const SPOOL_BYTES: u64 = 1 << 30;
const SPOOL_BYTES_MIN: u64 = 16 << 20;
const CHAIN_DAYS: u32 = 7;
/// The generation's number in its chain has two digits.
const CHAIN_GENERATIONS: u32 = 100;
const HOLD_LIMIT: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_secs(30 * 60);
const HOLD_LIMIT_MAX: Duration = Duration::from_secs(2);

impl Config {
    /// Reads and checks the configuration of a machine that backs up. Secrets are not looked up: whoever needs them
    /// asks for [`Config::missing_secrets`] first.
    pub fn load(path: &Path) -> Result<Loaded<Self>, ConfigError> {
        load(path, Self::read)
    }

    /// Checks `text`, that is to be a configuration in `folder`; secrets are not looked up.
    pub fn parse(text: &str, folder: &Path) -> Result<Loaded<Self>, Vec<Problem>> {
        parse(text, folder, Self::read)
    }

    /// Looks up every secret of every store and source; those that cannot be had are problems.
    pub fn missing_secrets(&self) -> Vec<Problem> {
        let stores = self.place.stores.iter().flat_map(|store| store.settings().err().unwrap_or_default());
        let sources = self.sources.iter().flat_map(|source| source.resolve().err().unwrap_or_default());
        stores.chain(sources).collect()
    }

    fn read(reader: &Reader<'_>, root: &Section<'_, '_>) -> Option<Self> {
        let place = read_place(reader, root);
        let recipients = read_recipients(root);
        let seal = read_seal(root);
        let chain = read_chain(root);
        let capture = read_capture(root);
        let sources = read_sources(reader, root);
        let place = Place { source_folders: folders(&sources), ..place? };
        let config = Self { place, recipients: recipients?, seal, chain, capture, sources };
        config.check_folders(reader);
        config.check_drill(reader);
        lock::check(&config, reader);
        Some(config)
    }

    /// Checks that ask what is not copied.
    fn check_drill(&self, reader: &Reader<'_>) {
        for (at, check) in self.place.drill.settings.checks.iter().enumerate() {
            let source = self.sources.iter().find(|source| source.name == check.source);
            let what = match (source.map(SourceEntry::kind), &check.ask) {
                (None, _) => format!("there is no source `{}`", check.source),
                (Some("folder" | "command"), Ask::Sql { .. }) => {
                    format!("the source `{}` has no database that could be asked; use a `command`", check.source)
                }
                _ => continue,
            };
            reader.report(format!("drill.check[{}].source", at + 1), None, what);
        }
    }

    /// Nothing may be copied into itself.
    fn check_folders(&self, reader: &Reader<'_>) {
        let directories =
            self.place.stores.iter().filter_map(|store| Some(("the directory store", store.directory()?)));
        let own: Vec<_> =
            [("staging", &self.place.staging), ("state", &self.place.state)].into_iter().chain(directories).collect();
        for source in &self.sources {
            for (what, path) in &own {
                if source.folder().is_some_and(|folder| path.starts_with(folder)) {
                    let what = format!(
                        "it contains {what} ({}), so that every backup would hold the one before; move one of them",
                        path.display()
                    );
                    reader.report(source.key("path"), None, what);
                }
            }
        }
    }
}

impl Place {
    /// Reads and checks what restoring needs. Sources and recipients may be missing, as on a new machine after a loss;
    /// secrets are looked up when their store is opened.
    pub fn load(path: &Path) -> Result<Loaded<Self>, ConfigError> {
        load(path, |reader, root| {
            let place = read_place(reader, root)?;
            read_encryption(root).0.finish();
            read_seal(root);
            read_chain(root);
            read_capture(root);
            let (sources, _) = sources::read(root);
            Some(Place { source_folders: folders(&sources), ..place })
        })
    }
}

fn load<C>(
    path: &Path,
    read: impl FnOnce(&Reader<'_>, &Section<'_, '_>) -> Option<C>,
) -> Result<Loaded<C>, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let text = read_text(path).map_err(unreadable)?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    parse(&text, folder, read).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
}

/// The text of a file of a configuration: never a device, nor a pipe that nobody writes to, nor anything without end.
fn read_text(path: &Path) -> io::Result<String> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let file = platform::open_without_waiting(path)?;
    if !file.metadata()?.is_file() {
        return refused("it is no file, but a folder, a device or a pipe");
    }
    let mut text = String::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT_BYTES_MAX { refused("it is larger than any configuration") } else { Ok(text) }
}

fn parse<C>(
    text: &str,
    folder: &Path,
    read: impl FnOnce(&Reader<'_>, &Section<'_, '_>) -> Option<C>,
) -> Result<Loaded<C>, Vec<Problem>> {
    let reader = Reader::new(text, folder);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // The error's own Display shows the line, which may hold a secret that stands in the wrong place.
        let line = error.span().map(|span| reader.line(span.start));
        reader.report("", line, format_args!("this is not TOML: {}", error.message()));
    }
    // What was read past such an error says nothing about what was meant.
    if !errors.is_empty() {
        return Err(reader.into_findings().0);
    }
    let config = {
        let root = reader.root(document.get_ref());
        let config = read(&reader, &root);
        root.finish();
        config
    };
    let (problems, unset) = reader.into_findings();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, unset }),
        _ => Err(problems),
    }
}

fn read_place(reader: &Reader<'_>, root: &Section<'_, '_>) -> Option<Place> {
    let site = root.required("site", "name the office, such as site = \"main-street\"");
    let staging = root.path("staging").unwrap_or_else(|| STAGING.into());
    let state = root.path("state").unwrap_or_else(|| STATE.into());
    if staging.starts_with(&state) || state.starts_with(&staging) {
        root.report("staging", "staging and state have to be two folders, neither within the other");
    }
    let signing = root.section("signing");
    let signing_key_set = signing.has("key");
    let signing_key = signing.path("key").unwrap_or_else(|| reader.folder().join(SIGNING_KEY));
    let public_key = signing.parsed("public_key");
    let keepers = signing.strings("keepers").unwrap_or_default();
    let keepers = keepers.iter().filter_map(|text| text.parse().map_err(|error| signing.report("keepers", error)).ok());
    let keepers = keepers.collect();
    signing.finish();
    let sections = root.sections("store");
    if sections.is_empty() {
        root.report("store", "there is no store, so nothing would leave the building; add a [[store]]");
    }
    let stores: Vec<StoreConfig> = sections.into_iter().filter_map(StoreConfig::read).collect();
    report_twins(reader, "store", stores.iter().map(|store| store.name.as_str()));
    stores::report_shadows(reader, &stores);
    report_shared_folders(reader, &stores, [("staging", &staging), ("state", &state)]);
    let calendar = office::read(root);
    let schedule = jobs::read(reader, root, site.as_ref(), &calendar);
    let reports = reports::read(reader, root);
    let retention = retention::read(root);
    let drill = drill::read(root);
    Some(Place {
        site: site?,
        staging,
        state,
        signing_key,
        signing_key_set,
        public_key,
        keepers,
        stores,
        calendar,
        schedule,
        reports,
        retention,
        drill,
        source_folders: Vec::new(),
    })
}

/// The section, with texts that may be recipients; `None` if not all of them could be had.
fn read_encryption<'r, 't>(root: &Section<'r, 't>) -> (Section<'r, 't>, Option<Vec<String>>) {
    let encryption = root.section("encryption");
    let mut texts = encryption.strings("recipients");
    let Some(path) = encryption.path("recipients_file") else { return (encryption, texts) };
    match read_text(&path) {
        Ok(text) => texts.get_or_insert_default().extend(recipients_of_file(&text).map(str::to_owned)),
        Err(error) => {
            encryption.report("recipients_file", format_args!("{} cannot be read: {error}", path.display()));
            texts = None;
        }
    }
    (encryption, texts)
}

fn read_recipients(root: &Section<'_, '_>) -> Option<Recipients> {
    let (encryption, texts) = read_encryption(root);
    if !encryption.has("recipients") && !encryption.has("recipients_file") {
        encryption.report(
            "recipients",
            "there is no recipient: nothing is backed up that nobody could open; make a key with `offsite key new` and \
             put its public half here: [encryption] recipients = [\"age1…\"]",
        );
    }
    let key = if encryption.has("recipients") { "recipients" } else { "recipients_file" };
    let recipients = texts.and_then(|texts| {
        let report = |error: RecipientError| encryption.report(key, failure::one_line(&error));
        Recipients::parse(&texts).map_err(|errors| errors.into_iter().for_each(report)).ok()
    });
    encryption.finish();
    recipients
}

fn read_seal(root: &Section<'_, '_>) -> SealConfig {
    let seal = root.section("seal");
    let level = seal.integer("level", 1..=19).unwrap_or(LEVEL);
    seal.finish();
    let spool = root.section("spool");
    let mut spool_bytes = spool.parsed("limit").map_or(SPOOL_BYTES, |Size(bytes)| bytes);
    if spool_bytes < SPOOL_BYTES_MIN {
        spool.report("limit", format_args!("it has to be {} or more", Size(SPOOL_BYTES_MIN)));
        spool_bytes = SPOOL_BYTES;
    }
    spool.finish();
    SealConfig { level: level.cast_signed(), spool_bytes }
}

fn read_chain(root: &Section<'_, '_>) -> ChainConfig {
    let chain = root.section("chain");
    let days = chain.integer("days", 1..=366).unwrap_or(CHAIN_DAYS);
    let generations = chain.integer("generations", 1..=CHAIN_GENERATIONS).unwrap_or(CHAIN_GENERATIONS);
    chain.finish();
    ChainConfig { days, generations }
}

fn read_capture(root: &Section<'_, '_>) -> CaptureConfig {
    let capture = root.section("capture");
    let hold_limit = capture.parsed("hold_limit").map_or(HOLD_LIMIT, |Span(limit)| limit);
    if hold_limit > HOLD_LIMIT_MAX {
        capture.report(
            "hold_limit",
            format_args!("it has to be {} or less: people are waiting while writers are held", Span(HOLD_LIMIT_MAX)),
        );
    }
    let wait = capture.parsed("wait").map_or(WAIT, |Span(wait)| wait);
    capture.finish();
    CaptureConfig { hold_limit, wait }
}

fn read_sources(reader: &Reader<'_>, root: &Section<'_, '_>) -> Vec<SourceEntry> {
    let (sources, count) = sources::read(root);
    if count == 0 {
        root.report("source", "there is no source, so nothing would be copied; add a [[source]]");
    }
    report_twins(reader, "source", sources.iter().map(|source| source.name.as_str()));
    sources
}

fn folders(sources: &[SourceEntry]) -> Vec<(SourceName, PathBuf)> {
    sources.iter().filter_map(|source| Some((source.name.clone(), source.folder()?.to_owned()))).collect()
}

/// What leaves the building lies by itself: staging is not encrypted, and two stores in one folder take each other for thieves.
fn report_shared_folders(reader: &Reader<'_>, stores: &[StoreConfig], own: [(&str, &PathBuf); 2]) {
    let mut seen = BTreeSet::new();
    for store in stores {
        let Some(folder) = store.directory() else { continue };
        let report = |what: String| reader.report(store.key("path"), None, what);
        for (what, path) in own {
            if path.starts_with(folder) || folder.starts_with(path) {
                report(format!(
                    "{what} ({}) and a store have to be two folders, neither within the other",
                    path.display()
                ));
            }
        }
        if !seen.insert(folder) {
            report("another store has this folder already; leave one of them out".to_owned());
        }
    }
}

fn report_twins<'n>(reader: &Reader<'_>, what: &str, names: impl Iterator<Item = &'n str>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            reader.report(format!("{what}.name"), None, format_args!("two of them are called `{name}`; rename one"));
        }
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}
