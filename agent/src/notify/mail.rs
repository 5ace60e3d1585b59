//! One mail to one address, through the office's mail server (RFC 5321; STARTTLS: RFC 3207; TLS from the start: RFC 8314).

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport as _};
use secrecy::ExposeSecret as _;

use super::{Message, SendError};
use crate::config::{ReportsConfig, Security, SmtpConfig};
use crate::platform;

/// The longest that a mail server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A mail is taken within this time, however talkative the server is.
const SENT_WITHIN: Duration = Duration::from_secs(180);

pub(super) fn send(
    message: &Message,
    to: &str,
    text: &str,
    html: &str,
    config: &ReportsConfig,
) -> Result<(), SendError> {
    let known = config.mails.iter().any(|mail| mail.name == message.name);
    let smtp = config.smtp.as_ref().filter(|_| known);
    let smtp = smtp.ok_or_else(|| SendError::Unknown { what: "mail", name: message.name.clone() })?;
    let mail = compose(message, to, text, html, smtp)?;
    let (transport, host, port) = (transport(smtp)?, smtp.host.clone(), smtp.port);
    let Some(sent) = within(SENT_WITHIN, move || transport.send(&mail).map(drop)) else {
        return Err(SendError::Late { host, port, within: SENT_WITHIN });
    };
    sent.map_err(|source| {
        if source.is_permanent() || source.is_transient() {
            SendError::Refused { host, port, source }
        } else {
            SendError::Connection { host, port, source }
        }
    })
}

/// What `work` comes to, if it does so within `limit`. Otherwise it is left to itself: a server that says a letter now and
/// then must not hold up whoever has something to tell.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = mpsc::channel();
    let worker = thread::Builder::new().name("mail".to_owned()).spawn(move || {
        // Nobody may wait for it any more.
        sender.send(work()).ok();
    });
    worker.ok().and_then(|_| done.recv_timeout(limit).ok())
}

fn compose(
    message: &Message,
    to: &str,
    text: &str,
    html: &str,
    smtp: &SmtpConfig,
) -> Result<lettre::Message, SendError> {
    let to: Mailbox = to.parse().map_err(|error| SendError::Mail(Box::new(error)))?;
    let id = format!("<{}@{}>", message.id, smtp.from.email.domain());
    // A second try is the same mail; whoever gets it twice sees it once. And no holiday notice answers it (RFC 3834).
    let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    lettre::Message::builder()
        .from(smtp.from.clone())
        .to(to)
        .subject(&message.subject)
        .date(SystemTime::from(message.created))
        .message_id(Some(id))
        .raw_header(automatic)
        .multipart(MultiPart::alternative_plain_html(text.to_owned(), html.to_owned()))
        .map_err(|error| SendError::Mail(Box::new(error)))
}

fn transport(smtp: &SmtpConfig) -> Result<SmtpTransport, SendError> {
    let tls = match smtp.security {
        Security::Starttls => Tls::Required(tls(smtp)?),
        Security::Tls => Tls::Wrapper(tls(smtp)?),
        Security::None => Tls::None,
    };
    let mut transport = SmtpTransport::builder_dangerous(&smtp.host)
        .port(smtp.port)
        .tls(tls)
        .timeout(Some(SILENCE_MAX))
        .hello_name(ClientId::Domain(platform::host_name()));
    if let Some((user, password)) = &smtp.login {
        let password = password.read()?.expose_secret().to_owned();
        transport = transport.credentials(Credentials::new(user.clone(), password));
    }
    Ok(transport.build())
}

fn tls(smtp: &SmtpConfig) -> Result<TlsParameters, SendError> {
    let mut tls = TlsParameters::builder(smtp.host.clone());
    if let Some(path) = &smtp.ca_file {
        let pem = fs::read(path).map_err(|error| unusable(path, error.into()))?;
        let authorities = Certificate::from_pem(&pem).map_err(|error| unusable(path, error.into()))?;
        tls = tls.certificate_store(CertificateStore::None).add_root_certificate(authorities);
    }
    tls.build().map_err(|source| SendError::Connection { host: smtp.host.clone(), port: smtp.port, source })
}

fn unusable(path: &Path, source: Box<dyn std::error::Error + Send + Sync>) -> SendError {
    SendError::Authorities { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let (_never, waits) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(1), move || waits.recv().is_ok()), None);
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
    }
}
