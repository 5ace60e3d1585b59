//! Bringing reports to people and programs: by mail, webhook and ping. What cannot be delivered waits in the outbox, and is
//! tried again whenever [`deliver`] is called: after each run and by the daemon. Nothing here tries twice by itself.

mod http;
mod mail;
mod outbox;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{AddressError, MailConfig, PingConfig, ReportsConfig, SecretError, Wish};
use crate::failure;
use crate::report::{Kind, Report};
use crate::said::plain;
use crate::staging::FolderLock;

pub use http::start;
pub use outbox::{Outbox, OutboxError};

/// What cannot be delivered for so long is given up.
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Between the first tries that nobody asked for; it grows with each of them.
const PAUSE_MINUTES: i64 = 10;
/// So many letters of why something was not delivered are kept.
const WHY_MAX: usize = 400;
/// Between the later ones.
const PAUSE_MINUTES_MAX: i64 = 6 * 60;

/// One message to one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it is known by: as the id of a mail, and to the receiver of a webhook.
    pub id: String,
    /// When it was written.
    pub created: Timestamp,
    /// The name, in the configuration, of what it is for.
    pub name: String,
    /// What it is about.
    pub subject: String,
    /// What is sent.
    pub payload: Payload,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub tried: Option<Timestamp>,
    /// Why that failed.
    pub why: Option<String>,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Payload {
    /// A mail.
    Mail {
        /// The address.
        to: String,
        /// Its plain text.
        text: String,
        /// Its HTML.
        html: String,
    },
    /// A POST of this JSON.
    Webhook {
        /// The JSON.
        body: String,
    },
    /// A ping at the end of a run.
    Ping {
        /// Whether all went well.
        good: bool,
    },
}

/// Why a message was not delivered. Shows no address that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The configuration no longer knows whom it is for.
    #[error("the configuration has no {what} called `{name}` any more")]
    Unknown {
        /// Mail, webhook or ping.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A secret cannot be had.
    #[error("a secret cannot be had")]
    Secret(#[from] SecretError),
    /// The address cannot be had.
    #[error("the address cannot be had")]
    Address(#[from] AddressError),
    /// A file of authorities cannot be used.
    #[error("the certificates in {} cannot be used", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The mail cannot be put together.
    #[error("the mail cannot be put together")]
    Mail(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The mail server cannot be reached, or the connection broke.
    #[error("the mail server {host}:{port} cannot be reached or does not speak as it should")]
    Connection {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// The cause.
        #[source]
        source: lettre::transport::smtp::Error,
    },
    /// The mail server refused.
    #[error("the mail server {host}:{port} refused the mail")]
    Refused {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// The cause.
        #[source]
        source: lettre::transport::smtp::Error,
    },
    /// The mail server took too long.
    #[error("the mail server {host}:{port} did not take the mail within {} s", within.as_secs())]
    Late {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// How long it had.
        within: std::time::Duration,
    },
    /// The server of a webhook or ping cannot be reached.
    #[error("{host} cannot be reached")]
    Request {
        /// The server.
        host: String,
        /// The cause, without the address.
        #[source]
        source: reqwest::Error,
    },
    /// The server of a webhook or ping refused.
    #[error("{host} answered {status}")]
    Status {
        /// The server.
        host: String,
        /// What it answered.
        status: reqwest::StatusCode,
    },
    /// The network of this program could not be started.
    #[error("no connections can be made")]
    Runtime(#[source] io::Error),
    /// It was not tried, because the mail server failed a moment ago.
    #[error("it was not tried: {0}")]
    NotTried(String),
}

/// What became of the messages that were tried.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Delivered and removed.
    pub delivered: Vec<Message>,
    /// Not delivered; each says why, and waits.
    pub waiting: Vec<Message>,
    /// Not delivered for a week, and removed.
    pub given_up: Vec<Message>,
}

/// The messages that `report` makes: one to each address that wants to hear of it.
pub fn messages(report: &Report, config: &ReportsConfig) -> Result<Vec<Message>, serde_json::Error> {
    let mut messages = Vec::new();
    for mail in config.mails.iter().filter(|mail| wants(mail.when, report.kind)) {
        messages.extend(mails(report, mail));
    }
    for hook in config.webhooks.iter().filter(|hook| wants(hook.when, report.kind)) {
        let id = id(report.at);
        let body = serde_json::json!({ "version": 1, "id": id, "report": report });
        let payload = Payload::Webhook { body: serde_json::to_string(&body)? };
        messages.push(Message::new(id, report, &hook.name, payload));
    }
    Ok(messages)
}

/// The mails of `report` to all of `mail`, whatever they usually want.
pub fn mails(report: &Report, mail: &MailConfig) -> Vec<Message> {
    let each = mail.to.iter().map(|to| {
        let payload = Payload::Mail { to: to.to_string(), text: report.text(), html: report.html() };
        Message::new(id(report.at), report, &mail.name, payload)
    });
    each.collect()
}

/// The pings that say how a run ended.
pub fn pings(report: &Report, config: &ReportsConfig) -> Vec<Message> {
    let good = report.kind == Kind::Success;
    let ping = |ping: &PingConfig| Message::new(id(report.at), report, &ping.name, Payload::Ping { good });
    config.pings.iter().map(ping).collect()
}

/// Tries all that waits; what was tried a while ago only if `at_once`. Whoever calls it holds the outbox's lock.
pub fn deliver(
    outbox: &Outbox,
    _lock: &FolderLock,
    config: &ReportsConfig,
    at_once: bool,
    now: Timestamp,
) -> Result<Delivery, OutboxError> {
    let mut delivery = Delivery::default();
    let mut broken: Option<String> = None;
    for mut message in outbox.messages()? {
        if !at_once && message.rests(now) {
            delivery.waiting.push(message);
            continue;
        }
        let sent = match (&message.payload, &broken) {
            (Payload::Mail { .. }, Some(why)) => Err(SendError::NotTried(why.clone())),
            (Payload::Mail { to, text, html }, None) => mail::send(&message, to, text, html, config),
            (Payload::Webhook { body }, _) => http::post(&message, body, config),
            (Payload::Ping { good }, _) => http::ping(&message.name, *good, config),
        };
        let Err(error) = sent else {
            outbox.remove(&message)?;
            delivery.delivered.push(message);
            continue;
        };
        // The next mails would wait just as long and learn nothing else.
        let why = printable(&failure::one_line(&error));
        if matches!(error, SendError::Connection { .. } | SendError::Late { .. }) {
            broken = Some(why.clone());
        }
        message.attempts += 1;
        message.tried = Some(now);
        message.why = Some(why);
        if now.duration_since(message.created) > GIVEN_UP_AFTER || matches!(error, SendError::Unknown { .. }) {
            outbox.remove(&message)?;
            delivery.given_up.push(message);
        } else {
            outbox.put(&message)?;
            delivery.waiting.push(message);
        }
    }
    Ok(delivery)
}

/// What a server answered is shown on terminals: no more of it than a person reads, and nothing that a terminal obeys.
fn printable(text: &str) -> String {
    plain(text).chars().map(|c| if c == '\n' { ' ' } else { c }).take(WHY_MAX).collect()
}

impl Message {
    /// Whether it was tried so short a time ago that another try would tell nothing new.
    fn rests(&self, now: Timestamp) -> bool {
        let minutes = (PAUSE_MINUTES * i64::from(self.attempts)).min(PAUSE_MINUTES_MAX);
        self.tried.is_some_and(|tried| now.duration_since(tried).abs() < SignedDuration::from_mins(minutes))
    }

    fn new(id: String, report: &Report, name: &str, payload: Payload) -> Self {
        Self {
            id,
            created: report.at,
            name: name.to_owned(),
            subject: report.subject.clone(),
            payload,
            attempts: 0,
            tried: None,
            why: None,
        }
    }
}

/// Whether somebody with this wish is told of a report of this kind.
fn wants(wish: Wish, kind: Kind) -> bool {
    match wish {
        Wish::EveryRun => true,
        Wish::Failures => kind.is_bad(),
        Wish::Summary(_) => kind.is_loud(),
    }
}

/// Sorts by time, and no other message has it.
fn id(at: Timestamp) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{made}", at.strftime("%Y%m%dT%H%M%S%fZ"), std::process::id())
}
