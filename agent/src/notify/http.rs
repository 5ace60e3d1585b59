//! Webhooks and pings. Addresses may be secrets: errors name the host only.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, RequestBuilder};
use secrecy::ExposeSecret as _;
use url::Url;

use super::{Message, SendError};
use crate::config::{PingConfig, ReportsConfig};

/// The longest that a server may take to connect, and to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The header that holds `sha256=` and the HMAC-SHA256 (RFC 2104) of the body, in hexadecimal digits.
const SIGNATURE: &str = "x-offsite-signature-256";

/// Tells every ping service that a run begins. What they do not hear now is not told later; each failure is returned with
/// the name of the service.
pub fn start(config: &ReportsConfig) -> Vec<(String, SendError)> {
    let failed = |service: &PingConfig| Some((service.name.clone(), get(service, "/start").err()?));
    config.pings.iter().filter_map(failed).collect()
}

pub(super) fn post(message: &Message, body: &str, config: &ReportsConfig) -> Result<(), SendError> {
    let hook = config.webhooks.iter().find(|hook| hook.name == message.name);
    let hook = hook.ok_or_else(|| SendError::Unknown { what: "webhook", name: message.name.clone() })?;
    let url = hook.url.read()?;
    let signature = match &hook.secret {
        Some(secret) => Some(sign(secret.read()?.expose_secret().as_bytes(), body.as_bytes())),
        None => None,
    };
    request(&url, hook.ca_file.as_deref(), |client| {
        let mut request = client.post(url.clone()).header("content-type", "application/json").body(body.to_owned());
        if let Some(signature) = signature {
            request = request.header(SIGNATURE, signature);
        }
        request
    })
}

pub(super) fn ping(name: &str, good: bool, config: &ReportsConfig) -> Result<(), SendError> {
    let service = config.pings.iter().find(|ping| ping.name == name);
    let service = service.ok_or_else(|| SendError::Unknown { what: "ping", name: name.to_owned() })?;
    get(service, if good { "" } else { "/fail" })
}

fn get(service: &PingConfig, end: &str) -> Result<(), SendError> {
    let mut url = service.url.read()?;
    let path = format!("{}{end}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    request(&url, service.ca_file.as_deref(), |client| client.get(url.clone()))
}

fn request(url: &Url, ca_file: Option<&Path>, build: impl FnOnce(&Client) -> RequestBuilder) -> Result<(), SendError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |error: reqwest::Error| SendError::Request { host: host.clone(), source: error.without_url() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SendError::Runtime)?;
    let answer = runtime.block_on(async {
        let client = client(ca_file, &failed)?;
        build(&client).send().await.map_err(&failed)
    })?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(SendError::Status { host, status }) }
}

fn client(ca_file: Option<&Path>, failed: &impl Fn(reqwest::Error) -> SendError) -> Result<Client, SendError> {
    // Whoever came first has installed a provider; it is ring in either case, for there is no other in the program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_MAX)
        .timeout(ANSWER_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .user_agent(concat!("offsite/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let unusable = |source| SendError::Authorities { path: path.to_owned(), source };
        let pem = fs::read(path).map_err(|error| unusable(error.into()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.into()))?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(failed)
}

/// `sha256=` and the HMAC of `body`.
pub(super) fn sign(secret: &[u8], body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}
