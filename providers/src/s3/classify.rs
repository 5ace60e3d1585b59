//! What an S3 server's refusals mean.

use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::{Error, ErrorKind, Retry};
use crate::transport;

/// The error of one request, not yet named.
pub(super) fn classify<E>(operation: &'static str, failed: SdkError<E, HttpResponse>) -> Error
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let answer = failed.raw_response();
    let after = answer.and_then(|answer| answer.headers().get("retry-after")).and_then(seconds);
    let (kind, retry) = match (&failed, answer) {
        (SdkError::ServiceError(refused), Some(answer)) => {
            let meta = refused.err().meta();
            of_code(meta.code().unwrap_or_default(), meta.message().unwrap_or_default(), answer.status().as_u16())
        }
        (SdkError::ConstructionFailure(_), _) => (ErrorKind::Config, Retry::Never),
        (SdkError::ResponseError(_), Some(answer)) if answer.status().is_success() => transport::classify(&failed),
        (_, Some(answer)) => of_code("", "", answer.status().as_u16()),
        _ => transport::classify(&failed),
    };
    let retry = if matches!(retry, Retry::Later { .. }) { Retry::Later { after } } else { retry };
    Error::new(kind, operation).retry(retry).because(words(&failed))
}

/// What happened, in one line: the client's own errors say little by themselves.
fn words<E>(failed: &SdkError<E, HttpResponse>) -> String
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = failed.raw_response().map(|answer| answer.status().as_u16()).unwrap_or_default();
    match (failed.code(), failed.message()) {
        (Some(code), Some(message)) => format!("the server said {status} {code}: {message}"),
        (Some(code), None) => format!("the server said {status} {code}"),
        _ if status != 0 => format!("the server said {status}: {}", transport::describe(failed)),
        _ => transport::describe(failed),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

const LATER: Retry = Retry::Later { after: None };

/// By the code where there is one, otherwise by the status.
fn of_code(code: &str, message: &str, status: u16) -> (ErrorKind, Retry) {
    match code {
        "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload" | "NotFound" => (ErrorKind::NotFound, Retry::Never),
        "PreconditionFailed" => (ErrorKind::AlreadyExists, Retry::Never),
        "ConditionalRequestConflict" | "OperationAborted" => (ErrorKind::Unavailable, LATER),
        "ObjectLocked" | "ObjectUnderRetention" => (ErrorKind::Locked, Retry::Never),
        "AccessDenied" | "InvalidRequest" if speaks_of_lock(message) => (ErrorKind::Locked, Retry::Never),
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "UnauthorizedAccess" => (ErrorKind::Denied, Retry::Never),
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => (ErrorKind::Throttled, LATER),
        "QuotaExceeded"
        | "QuotaExceededException"
        | "EntityTooLarge"
        | "InsufficientStorage"
        | "StorageFull"
        | "XMinioStorageFull" => (ErrorKind::OutOfSpace, Retry::Never),
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "ChecksumMismatch"
        | "IncompleteBody" => (ErrorKind::Corrupt, LATER),
        "NotImplemented" | "MethodNotAllowed" | "InvalidObjectState" => (ErrorKind::Unsupported, Retry::Never),
        "NoSuchBucket"
        | "InvalidBucketName"
        | "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => (ErrorKind::Config, Retry::Never),
        "EntityTooSmall" | "InvalidPart" | "InvalidPartOrder" => (ErrorKind::Protocol, Retry::Never),
        "InternalError" | "ServiceUnavailable" | "RequestTimeout" => (ErrorKind::Unavailable, LATER),
        _ => of_status(status),
    }
}

fn of_status(status: u16) -> (ErrorKind, Retry) {
    match status {
        301 | 302 | 307 | 308 => (ErrorKind::Config, Retry::Never),
        401 | 403 => (ErrorKind::Denied, Retry::Never),
        404 => (ErrorKind::NotFound, Retry::Never),
        405 | 501 => (ErrorKind::Unsupported, Retry::Never),
        408 => (ErrorKind::Unavailable, LATER),
        409 => (ErrorKind::Unavailable, LATER),
        412 => (ErrorKind::AlreadyExists, Retry::Never),
        413 | 507 => (ErrorKind::OutOfSpace, Retry::Never),
        423 => (ErrorKind::Locked, Retry::Never),
        429 => (ErrorKind::Throttled, LATER),
        500 | 502 | 503 | 504 | 509 => (ErrorKind::Unavailable, LATER),
        _ => (ErrorKind::Protocol, Retry::Never),
    }
}

/// S3 answers `AccessDenied` for a locked version; only the words tell it from a missing right.
fn speaks_of_lock(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["object lock", "worm", "retention", "legal hold"].iter().any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    use ErrorKind as K;
    type Row = (&'static str, u16, K, Retry);

    const CODES: &[Row] = &[
        ("NoSuchKey", 404, K::NotFound, Retry::Never),
        ("NoSuchVersion", 404, K::NotFound, Retry::Never),
        ("NoSuchUpload", 404, K::NotFound, Retry::Never),
        ("NotFound", 404, K::NotFound, Retry::Never),
        ("PreconditionFailed", 412, K::AlreadyExists, Retry::Never),
        ("ConditionalRequestConflict", 409, K::Unavailable, LATER),
        ("OperationAborted", 409, K::Unavailable, LATER),
        ("ObjectLocked", 400, K::Locked, Retry::Never),
        ("ObjectUnderRetention", 403, K::Locked, Retry::Never),
        ("AccessDenied", 403, K::Denied, Retry::Never),
        ("InvalidAccessKeyId", 403, K::Denied, Retry::Never),
        ("SignatureDoesNotMatch", 403, K::Denied, Retry::Never),
        ("ExpiredToken", 400, K::Denied, Retry::Never),
        ("InvalidToken", 400, K::Denied, Retry::Never),
        ("TokenRefreshRequired", 400, K::Denied, Retry::Never),
        ("RequestTimeTooSkewed", 403, K::Denied, Retry::Never),
        ("AllAccessDisabled", 403, K::Denied, Retry::Never),
        ("AccountProblem", 403, K::Denied, Retry::Never),
        ("UnauthorizedAccess", 403, K::Denied, Retry::Never),
        ("SlowDown", 503, K::Throttled, LATER),
        ("Throttling", 400, K::Throttled, LATER),
        ("ThrottlingException", 400, K::Throttled, LATER),
        ("TooManyRequests", 429, K::Throttled, LATER),
        ("RequestLimitExceeded", 503, K::Throttled, LATER),
        ("BandwidthLimitExceeded", 509, K::Throttled, LATER),
        ("QuotaExceeded", 403, K::OutOfSpace, Retry::Never),
        ("QuotaExceededException", 403, K::OutOfSpace, Retry::Never),
        ("EntityTooLarge", 400, K::OutOfSpace, Retry::Never),
        ("InsufficientStorage", 507, K::OutOfSpace, Retry::Never),
        ("StorageFull", 507, K::OutOfSpace, Retry::Never),
        ("XMinioStorageFull", 507, K::OutOfSpace, Retry::Never),
        ("BadDigest", 400, K::Corrupt, LATER),
        ("InvalidDigest", 400, K::Corrupt, LATER),
        ("XAmzContentSHA256Mismatch", 400, K::Corrupt, LATER),
        ("XAmzContentChecksumMismatch", 400, K::Corrupt, LATER),
        ("ChecksumMismatch", 400, K::Corrupt, LATER),
        ("IncompleteBody", 400, K::Corrupt, LATER),
        ("NotImplemented", 501, K::Unsupported, Retry::Never),
        ("MethodNotAllowed", 405, K::Unsupported, Retry::Never),
        ("InvalidObjectState", 403, K::Unsupported, Retry::Never),
        ("NoSuchBucket", 404, K::Config, Retry::Never),
        ("InvalidBucketName", 400, K::Config, Retry::Never),
        ("PermanentRedirect", 301, K::Config, Retry::Never),
        ("AuthorizationHeaderMalformed", 400, K::Config, Retry::Never),
        ("IllegalLocationConstraintException", 400, K::Config, Retry::Never),
        ("EntityTooSmall", 400, K::Protocol, Retry::Never),
        ("InvalidPart", 400, K::Protocol, Retry::Never),
        ("InvalidPartOrder", 400, K::Protocol, Retry::Never),
        ("InternalError", 500, K::Unavailable, LATER),
        ("ServiceUnavailable", 503, K::Unavailable, LATER),
        ("RequestTimeout", 400, K::Unavailable, LATER),
    ];

    /// Without a code: the answers to HEAD, and proxies in between.
    const STATUSES: &[Row] = &[
        ("", 301, K::Config, Retry::Never),
        ("", 401, K::Denied, Retry::Never),
        ("", 403, K::Denied, Retry::Never),
        ("", 404, K::NotFound, Retry::Never),
        ("", 405, K::Unsupported, Retry::Never),
        ("", 408, K::Unavailable, LATER),
        ("", 409, K::Unavailable, LATER),
        ("", 412, K::AlreadyExists, Retry::Never),
        ("", 413, K::OutOfSpace, Retry::Never),
        ("", 423, K::Locked, Retry::Never),
        ("", 429, K::Throttled, LATER),
        ("", 500, K::Unavailable, LATER),
        ("", 501, K::Unsupported, Retry::Never),
        ("", 502, K::Unavailable, LATER),
        ("", 503, K::Unavailable, LATER),
        ("", 504, K::Unavailable, LATER),
        ("", 507, K::OutOfSpace, Retry::Never),
        ("SomethingNew", 418, K::Protocol, Retry::Never),
    ];

    #[test]
    fn every_code_has_its_kind() {
        for (code, status, kind, retry) in CODES.iter().chain(STATUSES) {
            assert_eq!(of_code(code, "", *status), (*kind, *retry), "{code} {status}");
        }
    }

    #[test]
    fn a_lock_is_told_from_a_missing_right() {
        for message in ["Object is WORM protected", "Access Denied because object protected by object lock."] {
            assert_eq!(of_code("AccessDenied", message, 403), (ErrorKind::Locked, Retry::Never));
        }
        assert_eq!(of_code("AccessDenied", "Access Denied.", 403), (ErrorKind::Denied, Retry::Never));
    }
}
