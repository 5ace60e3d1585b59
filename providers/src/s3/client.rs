//! The vendor's client, set up so that it works with every S3 server we know, and carried by our own transport.

use std::fmt;

use aws_config::{AppName, BehaviorVersion, Region};
use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::retry::{ReconnectMode, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    ConfigBag, Credentials, Intercept, RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{BoxError, ConnectorError};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use secrecy::ExposeSecret as _;

use crate::settings::{S3Credentials, S3Settings};
use crate::store::Sha256Digest;
use crate::transport::{Expect, Transport, TransportError};

/// A client for `settings`. Nothing is asked of the store; the credentials chain may look around on this machine.
pub(super) async fn client(settings: &S3Settings, transport: &Transport) -> Client {
    let connector = SharedHttpConnector::new(Connector(transport.clone()));
    let http: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
    let region = Region::new(settings.region.clone());
    let mut config = aws_sdk_s3::config::Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(region.clone())
        .force_path_style(settings.path_style)
        .http_client(http.clone())
        // `retry.rs` alone tries again, and the transport alone measures time and judges connections.
        .retry_config(RetryConfig::disabled().with_reconnect_mode(ReconnectMode::ReuseAllConnections))
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The defaults add checksums in a framing that some servers refuse and one stores as content.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    config.set_app_name(AppName::new("offsite").ok());
    config.set_endpoint_url(settings.endpoint.as_ref().map(ToString::to_string));
    config.set_credentials_provider(match &settings.credentials {
        S3Credentials::Static { access_key, secret_key, session_token } => {
            let token = session_token.as_ref().map(|token| token.expose_secret().to_owned());
            Some(SharedCredentialsProvider::new(Credentials::new(
                access_key,
                secret_key.expose_secret(),
                token,
                None,
                "settings",
            )))
        }
        S3Credentials::Chain => {
            let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(region).http_client(http);
            loader.load().await.credentials_provider()
        }
    });
    Client::from_conf(config.build())
}

/// Signs the body by the digest we have already, so that it is not hashed a second time.
#[derive(Debug)]
pub(super) struct KnownDigest(String);

impl KnownDigest {
    pub(super) fn new(sha256: &Sha256Digest) -> Self {
        use std::fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in sha256 {
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex)
    }
}

impl Intercept for KnownDigest {
    fn name(&self) -> &'static str {
        "KnownDigest"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}

/// Our transport as the vendor's client knows one.
#[derive(Clone)]
struct Connector(Transport);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let transport = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|cause| ConnectorError::user(cause.into()))?;
            let expect = match request.uri().query() {
                Some(query) if query.contains("x-id=GetObject") => Expect::OBJECT,
                Some(query) if query.contains("uploadId=") && request.method() == http::Method::POST => {
                    Expect::ASSEMBLY
                }
                Some(query) if query.contains("x-id=CopyObject") => Expect::ASSEMBLY,
                _ => Expect::MESSAGE,
            };
            let answer = transport.send(request, expect).await.map_err(|cause| match cause {
                TransportError::Silent(_) => ConnectorError::timeout(cause.into()),
                TransportError::TooLong | TransportError::Failed(_) => ConnectorError::io(cause.into()),
            })?;
            let answer = answer.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(answer).map_err(|cause| ConnectorError::other(cause.into(), None))
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
