//! `[report]`, `[smtp]`, `[[mail]]`, `[[webhook]]`, `[[ping]]`, `[metrics]`: who is told of what, and how.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use lettre::message::Mailbox;
use secrecy::ExposeSecret as _;
use url::Url;

use super::secret::{SecretError, SecretRef};
use super::table::{Problem, Reader, Section};
use crate::calendar::Age;
use crate::failure;
use crate::report::{Limits, Period};

/// Who is told of what.
#[derive(Clone, Debug)]
pub struct ReportsConfig {
    /// When somebody is reminded.
    pub limits: Limits,
    /// The server that mails are handed to; there if there are mails.
    pub smtp: Option<SmtpConfig>,
    /// Mails.
    pub mails: Vec<MailConfig>,
    /// Programs that are told.
    pub webhooks: Vec<WebhookConfig>,
    /// Services that notice when nothing is heard any more.
    pub pings: Vec<PingConfig>,
    /// Numbers for Prometheus.
    pub metrics: MetricsConfig,
}

/// Where Prometheus finds numbers.
#[derive(Clone, Debug, Default)]
pub struct MetricsConfig {
    /// A file that is written after each run.
    pub file: Option<PathBuf>,
    /// Where the daemon answers whoever is on this machine.
    pub listen: Option<SocketAddr>,
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct SmtpConfig {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// The login.
    pub login: Option<(String, SecretRef)>,
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Who mails come from.
    pub from: Mailbox,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// It begins in clear and must become TLS before anything is said (RFC 3207).
    Starttls,
    /// TLS from the start (RFC 8314).
    Tls,
    /// Not at all: only to this machine.
    None,
}

/// What somebody wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Of every run.
    EveryRun,
    /// Of what is not as it should be.
    Failures,
    /// A summary; and at once only what cannot wait.
    Summary(Period),
}

/// Somebody who gets mails.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// What it is called where its delivery is spoken of.
    pub name: String,
    /// The addresses.
    pub to: Vec<Mailbox>,
    /// What is wanted.
    pub when: Wish,
}

/// A program that is told by a POST of JSON.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// What it is called where its delivery is spoken of.
    pub name: String,
    /// Where it listens.
    pub url: Address,
    /// What the JSON is signed with.
    pub secret: Option<SecretRef>,
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What is wanted.
    pub when: Wish,
}

/// A service that is told that a run begins, and how it ended, and that cries when it hears nothing.
#[derive(Clone, Debug)]
pub struct PingConfig {
    /// What it is called where its delivery is spoken of.
    pub name: String,
    /// Its address; `/start` and `/fail` are added to it.
    pub url: Address,
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// An address that may itself be a secret: written as it is, or by where it is found. Never shown whole.
#[derive(Clone)]
pub enum Address {
    /// In the configuration.
    Plain(Url),
    /// Elsewhere.
    Reference(SecretRef),
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is none.
    #[error("it has to be an address that begins with https:// (or http://), or where it is found: `file:/path`")]
    NotAnAddress,
    /// The place where it is found cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// An address and port of this machine that no other can reach.
struct Loopback(SocketAddr);

impl FromStr for Loopback {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self(address)),
            Ok(_) => Err("it answers this machine only: write 127.0.0.1 or [::1], and let a proxy ask for others"),
            Err(_) => Err("write an address and a port of this machine, such as 127.0.0.1:9817"),
        }
    }
}

const DRILL_DAYS: u16 = 35;
const KEY_PROOF_DAYS: u16 = 190;

/// Reads all of it.
pub(super) fn read(reader: &Reader<'_>, root: &Section<'_, '_>) -> ReportsConfig {
    let report = root.section("report");
    let limits = Limits {
        drill: report.parsed("drill_within").unwrap_or(Age::days(DRILL_DAYS)),
        key_proof: report.parsed("key_proof_within").unwrap_or(Age::days(KEY_PROOF_DAYS)),
    };
    report.finish();
    let mails: Vec<MailConfig> = root.sections("mail").into_iter().filter_map(read_mail).collect();
    let smtp = root.section("smtp");
    let smtp = read_smtp(smtp, root.has("smtp") || root.has("mail"));
    let webhooks: Vec<WebhookConfig> = root.sections("webhook").into_iter().filter_map(read_webhook).collect();
    let pings: Vec<PingConfig> = root.sections("ping").into_iter().filter_map(read_ping).collect();
    super::report_twins(reader, "mail", mails.iter().map(|mail| mail.name.as_str()));
    super::report_twins(reader, "webhook", webhooks.iter().map(|hook| hook.name.as_str()));
    super::report_twins(reader, "ping", pings.iter().map(|ping| ping.name.as_str()));
    let metrics = root.section("metrics");
    let (file, listen) = (metrics.path("file"), metrics.parsed("listen").map(|Loopback(address)| address));
    metrics.finish();
    let metrics = MetricsConfig { file, listen };
    ReportsConfig { limits, smtp, mails, webhooks, pings, metrics }
}

fn read_smtp(smtp: Section<'_, '_>, wanted: bool) -> Option<SmtpConfig> {
    if wanted {
        smtp.must_have("host", "name the mail server, such as host = \"smtp.example.org\"");
        smtp.must_have("from", "write who mails come from, such as from = \"backup@example.org\"");
    }
    let host = smtp.string("host");
    let from = smtp.string("from").and_then(|text| mailbox(&smtp, "from", text));
    let security = match smtp.string("security").unwrap_or("starttls") {
        "starttls" => Security::Starttls,
        "tls" => Security::Tls,
        "none" => Security::None,
        other => {
            smtp.report("security", format_args!("there is no `{other}`; there are starttls, tls, none"));
            Security::Starttls
        }
    };
    if security == Security::None && host.is_some_and(|host| !is_this_machine(host)) {
        smtp.report("security", "mails leave this machine protected or not at all: write starttls or tls");
    }
    let usual = match security {
        Security::Starttls => 587,
        Security::Tls => 465,
        Security::None => 25,
    };
    let port = smtp.integer("port", 1..=65535).and_then(|port| u16::try_from(port).ok()).unwrap_or(usual);
    let user = smtp.string("user").map(str::to_owned);
    let password = smtp.parsed::<SecretRef>("password");
    if smtp.has("user") != smtp.has("password") {
        let missing = if smtp.has("user") { "password" } else { "user" };
        smtp.report(missing, "user and password go together; leave both out if the server wants no login");
    }
    let ca_file = smtp.path("ca_file");
    smtp.finish();
    Some(SmtpConfig { host: host?.to_owned(), port, security, login: user.zip(password), ca_file, from: from? })
}

/// Whether `host` names this machine whatever it is called.
pub(super) fn is_this_machine(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1")
}

fn read_mail(section: Section<'_, '_>) -> Option<MailConfig> {
    let name = read_name(&section, "mail");
    section.must_have("to", "write who gets it, such as to = [\"office@example.org\"]");
    let texts = section.strings("to");
    if texts.as_ref().is_some_and(Vec::is_empty) {
        section.report("to", "there has to be one address at least");
    }
    let to = texts.unwrap_or_default().iter().filter_map(|text| mailbox(&section, "to", text)).collect();
    let when = read_wish(&section);
    section.finish();
    Some(MailConfig { name: name?, to, when })
}

fn read_webhook(section: Section<'_, '_>) -> Option<WebhookConfig> {
    let name = read_name(&section, "webhook");
    let url = section.required("url", "write where it listens, such as url = \"https://example.org/hook\"");
    let secret = section.parsed("secret");
    let ca_file = section.path("ca_file");
    let when = read_wish(&section);
    if matches!(when, Wish::Summary(_)) {
        section.report("when", "programs are told at once: write every run or failures");
    }
    section.finish();
    Some(WebhookConfig { name: name?, url: url?, secret, ca_file, when })
}

fn read_ping(section: Section<'_, '_>) -> Option<PingConfig> {
    let name = read_name(&section, "ping");
    let url = section.required("url", "write its address, such as url = \"file:/etc/offsite/ping-url\"");
    let ca_file = section.path("ca_file");
    section.finish();
    Some(PingConfig { name: name?, url: url?, ca_file })
}

fn read_name(section: &Section<'_, '_>, what: &str) -> Option<String> {
    section.must_have("name", &format!("every {what} has a name of its own, such as name = \"office\""));
    section.string("name").map(str::to_owned)
}

fn read_wish(section: &Section<'_, '_>) -> Wish {
    match section.string("when").unwrap_or("every run") {
        "every run" => Wish::EveryRun,
        "failures" => Wish::Failures,
        other => match other.parse() {
            Ok(period) => Wish::Summary(period),
            Err(_) => {
                let what = format!("there is no `{other}`; there are every run, failures, daily, weekly");
                section.report("when", what);
                Wish::EveryRun
            }
        },
    }
}

fn mailbox(section: &Section<'_, '_>, key: &str, text: &str) -> Option<Mailbox> {
    let wrong = |_| section.report(key, format_args!("`{text}` is no mail address"));
    text.parse::<Mailbox>().map_err(wrong).ok()
}

impl ReportsConfig {
    /// Whether nobody is told anything.
    pub fn is_silent(&self) -> bool {
        self.mails.is_empty() && self.webhooks.is_empty() && self.pings.is_empty() && self.metrics.file.is_none()
    }

    /// Looks up every secret; those that cannot be had are problems.
    pub fn missing_secrets(&self) -> Vec<Problem> {
        let problem = |key: String, error: &(dyn std::error::Error + 'static)| Problem {
            key,
            line: None,
            what: failure::one_line(error),
        };
        let mut problems = Vec::new();
        if let Some(error) = self.smtp.as_ref().and_then(|smtp| smtp.login.as_ref()?.1.read().err()) {
            problems.push(problem("smtp.password".to_owned(), &error));
        }
        for (at, hook) in self.webhooks.iter().enumerate() {
            if let Err(error) = hook.url.read() {
                problems.push(problem(format!("webhook[{}].url", at + 1), &error));
            }
            if let Some(Err(error)) = hook.secret.as_ref().map(SecretRef::read) {
                problems.push(problem(format!("webhook[{}].secret", at + 1), &error));
            }
        }
        for (at, ping) in self.pings.iter().enumerate() {
            if let Err(error) = ping.url.read() {
                problems.push(problem(format!("ping[{}].url", at + 1), &error));
            }
        }
        problems
    }
}

impl Address {
    /// The address.
    pub fn read(&self) -> Result<Url, AddressError> {
        match self {
            Self::Plain(url) => Ok(url.clone()),
            Self::Reference(place) => http_url(place.read()?.expose_secret()),
        }
    }
}

fn http_url(text: &str) -> Result<Url, AddressError> {
    let url: Url = text.trim().parse().map_err(|_| AddressError::NotAnAddress)?;
    if matches!(url.scheme(), "https" | "http") && url.has_host() { Ok(url) } else { Err(AddressError::NotAnAddress) }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse() {
            Ok(place) => Ok(Self::Reference(place)),
            Err(_) => http_url(text).map(Self::Plain),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(url) => write!(f, "Address({})", url.host_str().unwrap_or_default()),
            Self::Reference(place) => write!(f, "Address({place})"),
        }
    }
}
