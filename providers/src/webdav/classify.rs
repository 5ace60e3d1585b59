//! What a WebDAV server's refusals mean.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::error::{Error, ErrorKind, Retry};
use crate::transport::{self, TransportError};

/// The error of an answer that is not what was hoped for; not yet named.
pub(super) fn refused(operation: &'static str, status: StatusCode, headers: &HeaderMap) -> Error {
    let (kind, retry) = of_status(status.as_u16());
    let after = headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let retry = match retry {
        Retry::Later { .. } => Retry::Later { after: after.map(Duration::from_secs) },
        other => other,
    };
    let mut said = format!("the server said {status}");
    match status.as_u16() {
        401 => {
            let logins = logins(headers);
            if !logins.is_empty() {
                said = format!("{said}; it takes {}", logins.join(" or "));
            }
            said.push_str("; are login, name and password right, or is an app password needed?");
        }
        405 => said.push_str("; it may be read-only, or its disk full"),
        301..=308 => {
            let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("somewhere else");
            said = format!("{said}: the address has moved to {to}");
        }
        _ => {}
    }
    Error::new(kind, operation).retry(retry).because(said)
}

/// The logins that a refusal offers, as the configuration has them.
fn logins(headers: &HeaderMap) -> Vec<String> {
    let offers = headers.get_all(header::WWW_AUTHENTICATE);
    let offers: Vec<String> = offers.iter().filter_map(|o| Some(o.to_str().ok()?.to_ascii_lowercase())).collect();
    // One header may offer several.
    let offered = |name: &&str| {
        offers.iter().any(|o| o.split(", ").any(|part| part.split(' ').next().is_some_and(|w| w == *name)))
    };
    ["basic", "digest", "bearer"]
        .iter()
        .filter(|name| offered(name))
        .map(|name| format!("login = \"{name}\""))
        .collect()
}

/// The error of a request that got no answer; not yet named.
pub(super) fn unanswered(operation: &'static str, cause: &TransportError) -> Error {
    let (kind, retry) = transport::classify(cause);
    Error::new(kind, operation).retry(retry).because(transport::describe(cause))
}

fn of_status(status: u16) -> (ErrorKind, Retry) {
    const LATER: Retry = Retry::Later { after: None };
    match status {
        301 | 302 | 303 | 307 | 308 => (ErrorKind::Config, Retry::Never),
        401 | 403 => (ErrorKind::Denied, Retry::Never),
        404 | 410 => (ErrorKind::NotFound, Retry::Never),
        405 | 501 => (ErrorKind::Unsupported, Retry::Never),
        408 | 409 | 500 | 502 | 503 | 504 | 509 => (ErrorKind::Unavailable, LATER),
        412 => (ErrorKind::AlreadyExists, Retry::Never),
        413 | 507 => (ErrorKind::OutOfSpace, Retry::Never),
        // Someone else's WebDAV lock, or a file that is being put together: it passes.
        423 => (ErrorKind::Locked, LATER),
        425 | 429 => (ErrorKind::Throttled, LATER),
        _ => (ErrorKind::Protocol, Retry::Never),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_kind() {
        use ErrorKind as K;
        let later = Retry::Later { after: None };
        let rows = [
            (301, K::Config, Retry::Never),
            (302, K::Config, Retry::Never),
            (303, K::Config, Retry::Never),
            (307, K::Config, Retry::Never),
            (308, K::Config, Retry::Never),
            (400, K::Protocol, Retry::Never),
            (401, K::Denied, Retry::Never),
            (403, K::Denied, Retry::Never),
            (404, K::NotFound, Retry::Never),
            (405, K::Unsupported, Retry::Never),
            (408, K::Unavailable, later),
            (409, K::Unavailable, later),
            (410, K::NotFound, Retry::Never),
            (412, K::AlreadyExists, Retry::Never),
            (413, K::OutOfSpace, Retry::Never),
            (423, K::Locked, later),
            (425, K::Throttled, later),
            (429, K::Throttled, later),
            (500, K::Unavailable, later),
            (501, K::Unsupported, Retry::Never),
            (502, K::Unavailable, later),
            (503, K::Unavailable, later),
            (504, K::Unavailable, later),
            (507, K::OutOfSpace, Retry::Never),
            (509, K::Unavailable, later),
        ];
        for (status, kind, retry) in rows {
            assert_eq!(of_status(status), (kind, retry), "{status}");
        }
    }

    #[test]
    fn a_refused_login_names_those_that_are_taken() {
        let said = |offers: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for offer in offers {
                headers.append(header::WWW_AUTHENTICATE, offer.parse().unwrap());
            }
            let error = refused("listing", StatusCode::UNAUTHORIZED, &headers);
            std::error::Error::source(&error).unwrap().to_string()
        };
        assert!(said(&["Basic realm=\"dav\""]).contains("; it takes login = \"basic\"; are"));
        let several = said(&["Digest realm=\"a, b\", nonce=\"x\", Basic realm=\"digest \"", "Negotiate"]);
        assert!(several.contains("it takes login = \"basic\" or login = \"digest\"; are"), "{several}");
        assert!(!said(&["Negotiate"]).contains("it takes") && !said(&[]).contains("it takes"));
    }

    #[test]
    fn the_wait_that_is_asked_for_is_kept() {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, "17".parse().unwrap())]);
        let error = refused("storing", StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert_eq!(error.retry, Retry::Later { after: Some(Duration::from_secs(17)) });
        assert_eq!(refused("storing", StatusCode::NOT_FOUND, &headers).retry, Retry::Never);
    }
}
