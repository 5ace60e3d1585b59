//! The one way bytes reach a network store, for S3 and WebDAV alike: TLS by rustls and ring, a private certificate
//! authority where one is set, paced bodies, and no wait without an end.
//!
//! Nothing is retried and no redirection is followed here.

mod body;

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::pace::Lane;
use crate::settings::Policy;

pub(crate) use body::{Paced, Patient};

/// Connections to one server.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    client: reqwest::Client,
    lane: Lane,
    silence: Duration,
}

/// What is expected of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    /// How long the server may take to begin to answer once it has the request, where that is more than the usual
    /// silence.
    pub(crate) thinking: Duration,
    /// Longest body of an answer.
    pub(crate) bytes_max: u64,
}

impl Expect {
    /// An answer that is kept in memory: a listing, a confirmation, an error.
    pub(crate) const MESSAGE: Self = Self { thinking: Duration::ZERO, bytes_max: 16 << 20 };
    /// An object.
    pub(crate) const OBJECT: Self = Self { thinking: Duration::ZERO, bytes_max: u64::MAX };
    /// A confirmation after the server has put an object together.
    pub(crate) const ASSEMBLY: Self = Self { thinking: Duration::from_secs(300), bytes_max: 16 << 20 };
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// Nothing moved for too long.
    #[error("the line has been silent for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The answer does not end where any honest one would.
    #[error("the answer is too long")]
    TooLong,
    /// The connection failed, or could not be made.
    #[error("the connection failed")]
    Failed(#[source] reqwest::Error),
}

impl Transport {
    /// `ca_file` holds the authorities to trust instead of the system's.
    pub(crate) fn new(ca_file: Option<&Path>, policy: &Policy) -> Result<Self> {
        // Whoever came first has installed a provider; it is ring in either case, for there is no other in the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let keepalive = policy.silence_timeout / 3;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(policy.connect_timeout)
            .tcp_user_timeout(policy.silence_timeout)
            .tcp_keepalive(keepalive)
            .tcp_keepalive_interval(keepalive)
            .tcp_keepalive_retries(2)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("offsite/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = ca_file {
            builder = builder.tls_certs_only(authorities(path)?);
        }
        let client = builder.build().map_err(|cause| opening(ErrorKind::Config).because(cause))?;
        Ok(Self { client, lane: Lane::new(policy.rate.clone()), silence: policy.silence_timeout })
    }

    /// Sends `request` and waits for the head of the answer.
    pub(crate) async fn send<B>(
        &self,
        request: http::Request<B>,
        expect: Expect,
    ) -> Result<http::Response<Patient>, TransportError>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let moved = Arc::default();
        let request = request.map(|body| {
            let paced = Paced::new(body, self.lane.clone(), Arc::clone(&moved));
            reqwest::Body::wrap(paced)
        });
        let request = reqwest::Request::try_from(request).map_err(TransportError::Failed)?;
        let patience = expect.thinking.max(self.silence);
        let answer = body::unless_silent(self.client.execute(request), &moved, self.silence, patience).await?;
        let answer = http::Response::from(answer.map_err(TransportError::Failed)?);
        // What is wrong is a message, however large what was asked for might be.
        let bytes_max = if answer.status().is_success() { expect.bytes_max } else { Expect::MESSAGE.bytes_max };
        Ok(answer.map(|body| Patient::new(body, self.silence, bytes_max.min(expect.bytes_max))))
    }
}

/// What a failed connection is to a caller.
pub(crate) fn classify(cause: &(dyn StdError + 'static)) -> (ErrorKind, Retry) {
    let mut next = Some(cause);
    while let Some(error) = next {
        if is_certificate_refused(error) {
            return (ErrorKind::Config, Retry::Never);
        }
        if let Some(TransportError::TooLong) = error.downcast_ref() {
            return (ErrorKind::Protocol, Retry::Never);
        }
        if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_builder) {
            return (ErrorKind::Config, Retry::Never);
        }
        next = error.source();
    }
    (ErrorKind::Unavailable, Retry::Later { after: None })
}

/// All that a chain of causes says, in one line.
pub(crate) fn describe(cause: &(dyn StdError + 'static)) -> String {
    let mut said = cause.to_string();
    let mut next = cause.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        next = error.source();
    }
    said
}

/// A certificate that is not trusted will not be trusted the next time. The refusal lies in I/O errors in I/O errors.
fn is_certificate_refused(error: &(dyn StdError + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return true;
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.is_some_and(|inner| is_certificate_refused(inner))
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let unreadable = |cause: Box<dyn StdError + Send + Sync>| {
        opening(ErrorKind::Local).because(Unreadable { path: path.display().to_string(), cause })
    };
    let pem = std::fs::read(path).map_err(|cause| unreadable(cause.into()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|cause| unreadable(cause.into()))?;
    if found.is_empty() {
        return Err(unreadable("it holds no certificate".into()));
    }
    Ok(found)
}

fn opening(kind: ErrorKind) -> Error {
    Error::new(kind, "opening the store")
}

#[derive(Debug, thiserror::Error)]
#[error("the certificate file {path} cannot be used")]
struct Unreadable {
    path: String,
    #[source]
    cause: Box<dyn StdError + Send + Sync>,
}
