//! `[[store]]`: the places off site.

use std::fmt;
use std::path::PathBuf;

use jiff::civil::Date;
use providers::{
    DirectorySettings, KeyPrefix, LockMode, S3Credentials, S3Settings, Secret, StoreSettings, WebdavLogin,
    WebdavSettings,
};
use url::Url;

use super::lock::{self, LockConfig};
use super::rate::{self, RateTable};
use super::secret::SecretRef;
use super::table::{Problem, Reader, Section};
use super::units::Size;
use crate::disks::{SLOT_NAME_MAX, STORE_NAME_MAX};
use crate::failure;
use crate::ids::{SlotName, StoreName};
use crate::retention::Limits;

/// One store, as configured.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its name.
    pub name: StoreName,
    /// Packs are cut when they reach this many sealed bytes.
    pub pack_bytes: u64,
    /// Parts of a multipart transfer have this many bytes; packs up to it are sent in one piece.
    pub part_bytes: u64,
    /// How its objects are locked, if they are.
    pub lock: Option<LockConfig>,
    /// Who deletes what has expired.
    pub prune: Pruner,
    /// Whether it takes protected health information (45 CFR 160.103); then there is an agreement.
    pub phi: bool,
    /// The business associate agreement with whoever holds it.
    pub agreement: Option<Agreement>,
    /// How fast it is sent to.
    pub rate: RateTable,
    /// Its path in the configuration: `store[2].`
    key: String,
    kind: Kind,
}

/// Who deletes what has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruner {
    /// This machine.
    Agent,
    /// Another one, so that this machine's credential cannot delete.
    Keeper,
}

/// A business associate agreement (45 CFR 164.308(b)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Whom it is with.
    pub with: String,
    /// The day it was signed.
    pub signed: Date,
}

#[derive(Clone, Debug)]
enum Kind {
    S3 {
        endpoint: Option<Url>,
        region: String,
        bucket: String,
        prefix: KeyPrefix,
        path_style: bool,
        ca_file: Option<PathBuf>,
        keys: Option<(String, SecretRef, Option<SecretRef>)>,
    },
    Webdav {
        url: Url,
        login: Login,
        ca_file: Option<PathBuf>,
    },
    Directory {
        path: PathBuf,
        /// Disks that are mounted there one after the other; none if it is always the same.
        slots: Vec<SlotName>,
    },
}

#[derive(Clone, Debug)]
enum Login {
    None,
    Basic(String, SecretRef),
    Digest(String, SecretRef),
    Bearer(SecretRef),
}

const PACK_BYTES: u64 = 64 << 20;
/// A pack of a WebDAV store is sent whole each time the line breaks.
const PACK_BYTES_WEBDAV: u64 = 16 << 20;
const PACK_BYTES_MIN: u64 = 1 << 20;
const PACK_BYTES_MAX: u64 = 4 << 30;
const PART_BYTES: u64 = 8 << 20;
/// S3 takes no smaller part but the last, and no larger object in one piece.
const PART_BYTES_MIN: u64 = 5 << 20;

impl StoreConfig {
    pub(super) fn read(section: Section<'_, '_>) -> Option<Self> {
        let name = section.required("name", "every store has a name of its own, such as name = \"offsite\"");
        section.must_have("type", "write type = \"s3\", \"webdav\" or \"directory\"");
        let kind = section.string("type")?;
        section.is_of_kind(kind);
        let key = section.key("");
        let settings = match kind {
            "s3" => read_s3(&section),
            "webdav" => read_webdav(&section),
            "directory" => read_directory(&section),
            other => {
                section.report(
                    "type",
                    format_args!("there is no store of type `{other}`; there are s3, webdav, directory"),
                );
                return None;
            }
        };
        let pack_default = if kind == "webdav" { PACK_BYTES_WEBDAV } else { PACK_BYTES };
        let pack_bytes = size(&section, "pack", pack_default, PACK_BYTES_MIN);
        let part_bytes = if kind == "s3" { size(&section, "part", PART_BYTES, PART_BYTES_MIN) } else { PART_BYTES };
        let lock = if kind == "s3" { lock::read(&section) } else { None };
        let prune = section.parsed("prune").unwrap_or(Pruner::Agent);
        let (phi, agreement) = read_agreement(&section);
        // A folder has no line that others wait for.
        let rate = if kind == "directory" { RateTable::default() } else { rate::read(&section) };
        section.finish();
        let kind = settings?;
        Some(Self { name: name?, pack_bytes, part_bytes, lock, prune, phi, agreement, rate, key, kind })
    }

    /// The kind, as it is written in the configuration: `s3`, `webdav` or `directory`.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::S3 { .. } => "s3",
            Kind::Webdav { .. } => "webdav",
            Kind::Directory { .. } => "directory",
        }
    }

    /// The folder of a directory store.
    pub fn directory(&self) -> Option<&PathBuf> {
        match &self.kind {
            Kind::Directory { path, .. } => Some(path),
            Kind::S3 { .. } | Kind::Webdav { .. } => None,
        }
    }

    /// The disks that are connected one after the other, in their order; none if it is always the same place.
    pub fn slots(&self) -> &[SlotName] {
        match &self.kind {
            Kind::Directory { slots, .. } => slots,
            Kind::S3 { .. } | Kind::Webdav { .. } => &[],
        }
    }

    /// Where the brakes take hold in this store: a disk of a rotation has its turn only after all others.
    pub fn limits(&self, limits: &Limits) -> Limits {
        let turns = u16::try_from(self.slots().len()).unwrap_or(u16::MAX).max(1);
        Limits { newest_age: limits.newest_age.times(turns), ..*limits }
    }

    /// The name of the setting that says where in it everything lies.
    pub fn place_key(&self) -> &'static str {
        match &self.kind {
            Kind::S3 { .. } => "prefix",
            Kind::Webdav { .. } => "url",
            Kind::Directory { .. } => "path",
        }
    }

    /// The path of its setting `key` in the configuration: `store[2].path`.
    pub fn key(&self, key: &str) -> String {
        format!("{}{key}", self.key)
    }

    /// The table `[[store]]` of a configuration to restore with, without any secret: where one is needed, its place is one
    /// that whoever restores has to fill.
    pub fn for_restoring(&self) -> String {
        let mut text = format!("[[store]]\nname = {}\ntype = {}\n", quote(self.name.as_str()), quote(self.kind()));
        let mut set = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
        match &self.kind {
            Kind::S3 { endpoint, region, bucket, prefix, path_style, keys, .. } => {
                if let Some(endpoint) = endpoint {
                    set("endpoint", quote(endpoint.as_str()));
                }
                set("region", quote(region));
                set("bucket", quote(bucket));
                let prefix = prefix.to_string();
                if !prefix.is_empty() {
                    set("prefix", quote(prefix.trim_end_matches('/')));
                }
                set("path_style", path_style.to_string());
                if let Some((access_key, ..)) = keys {
                    set("access_key", quote(access_key));
                    set("secret_key", quote("env:SECRET_KEY"));
                }
            }
            Kind::Webdav { url, login, .. } => {
                set("url", quote(url.as_str()));
                match login {
                    Login::None => set("login", quote("none")),
                    Login::Basic(user, _) | Login::Digest(user, _) => {
                        let digest = matches!(login, Login::Digest(..));
                        set("login", quote(if digest { "digest" } else { "basic" }));
                        set("user", quote(user));
                        set("password", quote("env:PASSWORD"));
                    }
                    Login::Bearer(_) => set("token", quote("env:TOKEN")),
                }
            }
            Kind::Directory { path, .. } => set("path", quote(&path.to_string_lossy())),
        }
        text
    }

    /// Looks up the secrets; every one that cannot be had is a problem.
    pub fn settings(&self) -> Result<StoreSettings, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut secret = |key: &str, place: &SecretRef| match place.read() {
            Ok(secret) => secret,
            Err(error) => {
                problems.push(Problem { key: self.key(key), line: None, what: failure::one_line(&error) });
                Secret::default()
            }
        };
        let settings = match &self.kind {
            Kind::S3 { endpoint, region, bucket, prefix, path_style, ca_file, keys } => {
                let credentials = match keys {
                    None => S3Credentials::Chain,
                    Some((access_key, secret_key, session_token)) => S3Credentials::Static {
                        access_key: access_key.clone(),
                        secret_key: secret("secret_key", secret_key),
                        session_token: session_token.as_ref().map(|token| secret("session_token", token)),
                    },
                };
                StoreSettings::S3(S3Settings {
                    endpoint: endpoint.clone(),
                    region: region.clone(),
                    bucket: bucket.clone(),
                    prefix: prefix.clone(),
                    path_style: *path_style,
                    ca_file: ca_file.clone(),
                    credentials,
                    lock_mode: self.lock.map_or(LockMode::Governance, |lock| lock.mode),
                })
            }
            Kind::Webdav { url, login, ca_file } => {
                let login = match login {
                    Login::None => WebdavLogin::None,
                    Login::Basic(user, password) => {
                        WebdavLogin::Basic { user: user.clone(), password: secret("password", password) }
                    }
                    Login::Digest(user, password) => {
                        WebdavLogin::Digest { user: user.clone(), password: secret("password", password) }
                    }
                    Login::Bearer(token) => WebdavLogin::Bearer { token: secret("token", token) },
                };
                StoreSettings::Webdav(WebdavSettings { url: url.clone(), login, ca_file: ca_file.clone() })
            }
            Kind::Directory { path, .. } => {
                StoreSettings::Directory(DirectorySettings { path: path.clone(), mark: None })
            }
        };
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

/// Disks of a rotation are remembered as `<store>.<slot>.<disk>`: no other store may be called like that.
pub(super) fn report_shadows(reader: &Reader<'_>, stores: &[StoreConfig]) {
    for store in stores.iter().filter(|store| !store.slots().is_empty()) {
        let begins = format!("{}.", store.name);
        for other in stores.iter().filter(|other| other.name.as_str().starts_with(&begins)) {
            let what = format!("its name begins like those of the disks of {}; give it another one", store.name);
            reader.report(other.key("name"), None, what);
        }
    }
}

impl std::str::FromStr for Pruner {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "agent" => Ok(Self::Agent),
            "keeper" => Ok(Self::Keeper),
            _ => Err("it has to be \"agent\" or \"keeper\""),
        }
    }
}

impl fmt::Display for StoreConfig {
    /// Where it lies, for people: `s3://bucket/prefix at https://host`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::S3 { endpoint, bucket, prefix, .. } => {
                write!(f, "s3://{bucket}/{prefix}")?;
                endpoint.as_ref().map_or(Ok(()), |endpoint| write!(f, " at {endpoint}"))
            }
            Kind::Webdav { url, .. } => write!(f, "{url}"),
            Kind::Directory { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// A text as TOML writes it.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn read_agreement(section: &Section<'_, '_>) -> (bool, Option<Agreement>) {
    let phi = section.boolean("phi").unwrap_or(false);
    let agreement = section.inline("baa").and_then(|baa| {
        baa.must_have("with", "name whoever has signed it");
        baa.must_have("signed", "write the day it was signed: signed = 2026-01-15");
        let with = baa.string("with").map(str::to_owned);
        let signed = baa.date("signed");
        baa.finish();
        with.zip(signed).map(|(with, signed)| Agreement { with, signed })
    });
    if phi && !section.has("baa") {
        section.report(
            "phi",
            "protected health information goes to nobody without a business associate agreement: record it, \
             baa = { with = \"Example Storage Inc.\", signed = 2026-01-15 }; for hardware of the office's own, say so there: \
             with = \"own hardware\"",
        );
    }
    (phi, agreement)
}

fn size(section: &Section<'_, '_>, key: &'static str, default: u64, least: u64) -> u64 {
    let Some(Size(bytes)) = section.parsed(key) else { return default };
    if (least..=PACK_BYTES_MAX).contains(&bytes) {
        return bytes;
    }
    section.report(key, format_args!("it has to be from {} to {}", Size(least), Size(PACK_BYTES_MAX)));
    default
}

fn read_directory(section: &Section<'_, '_>) -> Option<Kind> {
    let path = section.required_path("path", "name the folder, such as path = \"/mnt/backup\"");
    let mut slots: Vec<SlotName> = Vec::new();
    for text in section.strings("slots").unwrap_or_default() {
        match text.parse::<SlotName>() {
            Err(error) => section.report("slots", error),
            Ok(slot) if text.contains('.') || text.len() > SLOT_NAME_MAX => section.report(
                "slots",
                format_args!(
                    "`{slot}` is too long, or has a dot: use up to {SLOT_NAME_MAX} letters and digits, such as `mon`"
                ),
            ),
            Ok(slot) if slots.contains(&slot) => section.report("slots", format_args!("`{slot}` stands there twice")),
            Ok(slot) => slots.push(slot),
        }
    }
    if section.has("slots") && slots.len() < 2 {
        section.report("slots", "a rotation has two disks or more; leave `slots` out if it is always the same one");
    }
    if !slots.is_empty() && section.string("name").is_some_and(|name| name.len() > STORE_NAME_MAX) {
        section.report("name", format_args!("a store with slots has a name of at most {STORE_NAME_MAX} characters"));
    }
    Some(Kind::Directory { path: path?, slots })
}

fn read_s3(section: &Section<'_, '_>) -> Option<Kind> {
    let endpoint = url(section, "endpoint");
    let region = section.string("region").unwrap_or("us-east-1").to_owned();
    let bucket: Option<String> = section.required("bucket", "name the bucket; it has to exist");
    let prefix = section.parsed::<KeyPrefix>("prefix").unwrap_or_default();
    let path_style = section.boolean("path_style").unwrap_or(endpoint.is_some());
    let ca_file = section.path("ca_file");
    let access_key = section.string("access_key");
    let secret_key = section.parsed::<SecretRef>("secret_key");
    let session_token = section.parsed::<SecretRef>("session_token");
    if section.has("access_key") != section.has("secret_key") {
        let missing = if section.has("access_key") { "secret_key" } else { "access_key" };
        section.report(missing, "access_key and secret_key go together; leave both out to use the machine's own role");
    }
    let keys = access_key.zip(secret_key).map(|(name, secret)| (name.to_owned(), secret, session_token));
    Some(Kind::S3 { endpoint, region, bucket: bucket?, prefix, path_style, ca_file, keys })
}

fn read_webdav(section: &Section<'_, '_>) -> Option<Kind> {
    section.must_have("url", "write the address of the folder, such as url = \"https://dav.example.org/backup/\"");
    let url = url(section, "url");
    let user = section.string("user").map(str::to_owned);
    let password = section.parsed::<SecretRef>("password");
    let token = section.parsed::<SecretRef>("token");
    let ca_file = section.path("ca_file");
    let login = match section.string("login") {
        Some(login) => login,
        None if section.has("token") => "bearer",
        None if section.has("user") => "basic",
        None => "none",
    };
    let needs = |keys: &[&'static str]| {
        for key in keys {
            section.must_have(key, &format!("login = \"{login}\" needs it"));
        }
    };
    let login = match login {
        "none" => Some(Login::None),
        "basic" => {
            needs(&["user", "password"]);
            user.zip(password).map(|(user, password)| Login::Basic(user, password))
        }
        "digest" => {
            needs(&["user", "password"]);
            user.zip(password).map(|(user, password)| Login::Digest(user, password))
        }
        "bearer" => {
            needs(&["token"]);
            token.map(Login::Bearer)
        }
        other => {
            section.report("login", format_args!("there is no login `{other}`; there are none, basic, digest, bearer"));
            None
        }
    };
    Some(Kind::Webdav { url: url?, login: login?, ca_file })
}

/// An http or https address without a password in it.
fn url(section: &Section<'_, '_>, key: &'static str) -> Option<Url> {
    let url: Url = section.parsed(key)?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        section.report(key, "it has to be an address that begins with https:// (or http://)");
    } else if url.password().is_some() || !url.username().is_empty() {
        section.report(key, "name and password do not belong into the address; there are settings for them");
    } else {
        return Some(url);
    }
    None
}
