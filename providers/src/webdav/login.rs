//! Who asks: what goes into the `Authorization` header.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_smithy_types::base64;
use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use http::{HeaderValue, Method};
use secrecy::ExposeSecret as _;

use crate::settings::{Secret, WebdavLogin};

/// A login with what the server has told us to prove it with.
pub(super) struct Login {
    login: WebdavLogin,
    /// The challenge of a digest login. One nonce serves many requests, each with its own count.
    challenge: Mutex<Option<WwwAuthenticateHeader>>,
}

impl Login {
    pub(super) fn new(login: WebdavLogin) -> Self {
        Self { login, challenge: Mutex::new(None) }
    }

    /// Whether a challenge must be fetched before a request can carry credentials.
    pub(super) fn lacks_challenge(&self) -> bool {
        matches!(self.login, WebdavLogin::Digest { .. }) && self.challenge().is_none()
    }

    /// Takes the challenge of a refusal. `false`: there is no use in asking again.
    pub(super) fn take_challenge<'h>(&self, offers: impl Iterator<Item = &'h HeaderValue>) -> bool {
        if !matches!(self.login, WebdavLogin::Digest { .. }) {
            return false;
        }
        let offer = offers
            .filter_map(|offer| offer.to_str().ok())
            .filter_map(digest_offer)
            .filter_map(|offer| digest_auth::parse(offer).ok())
            .next();
        let Some(offer) = offer else { return false };
        let mut challenge = self.challenge();
        // The same nonce again means that the password is wrong, not that the nonce is old.
        let is_new = challenge.as_ref().is_none_or(|old| old.nonce != offer.nonce);
        *challenge = Some(offer);
        is_new
    }

    /// The header of one request, if this login sends one.
    pub(super) fn header(&self, method: &Method, path: &str) -> Option<HeaderValue> {
        let text = match &self.login {
            WebdavLogin::None => return None,
            WebdavLogin::Basic { user, password } => {
                format!("Basic {}", base64::encode(format!("{user}:{}", password.expose_secret())))
            }
            WebdavLogin::Bearer { token } => format!("Bearer {}", token.expose_secret()),
            WebdavLogin::Digest { user, password } => self.answer(user, password, method, path)?,
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn answer(&self, user: &str, password: &Secret, method: &Method, path: &str) -> Option<String> {
        let method = HttpMethod(method.as_str().into());
        let context = AuthContext::new_with_method(user, password.expose_secret(), path, None::<&[u8]>, method);
        let answer = self.challenge().as_mut()?.respond(&context).ok()?;
        Some(answer.to_header_string())
    }

    fn challenge(&self) -> MutexGuard<'_, Option<WwwAuthenticateHeader>> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest part of a `WWW-Authenticate` header, which may offer several ways in one line.
fn digest_offer(header: &str) -> Option<&str> {
    let at = header.to_ascii_lowercase().find("digest ")?;
    let offer = header.get(at + "digest ".len()..)?;
    let end = ["basic ", "bearer ", "negotiate", "ntlm"]
        .iter()
        .filter_map(|next| offer.to_ascii_lowercase().find(&format!(", {next}")))
        .min();
    offer.get(..end.unwrap_or(offer.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Login {
        Login::new(WebdavLogin::Digest { user: "Mufasa".into(), password: Secret::from("Circle of Life") })
    }

    fn offers(text: &'static str) -> [HeaderValue; 1] {
        [HeaderValue::from_static(text)]
    }

    #[test]
    fn one_challenge_serves_many_requests() {
        let login = digest();
        assert!(login.lacks_challenge());
        let text = r#"Digest realm="lab", nonce="abc", qop="auth", algorithm=MD5, Basic realm="lab""#;
        assert!(login.take_challenge(offers(text).iter()));
        assert!(!login.lacks_challenge());
        for count in ["00000001", "00000002"] {
            let header = login.header(&Method::PUT, "/dav/x").unwrap();
            assert!(header.is_sensitive());
            assert!(header.to_str().unwrap().contains(&format!("nc={count}")), "{header:?}");
        }
    }

    #[test]
    fn a_wrong_password_is_not_sent_for_ever() {
        let login = digest();
        let text = r#"Digest realm="lab", nonce="abc", qop="auth""#;
        assert!(login.take_challenge(offers(text).iter()));
        assert!(!login.take_challenge(offers(text).iter()));
        assert!(login.take_challenge(offers(r#"Digest realm="lab", nonce="new", stale=true"#).iter()));
        assert!(!login.take_challenge(offers(r#"Basic realm="lab""#).iter()));
    }

    #[test]
    fn basic_and_bearer_need_no_challenge() {
        let basic = Login::new(WebdavLogin::Basic { user: "a".into(), password: Secret::from("b:c") });
        assert!(!basic.lacks_challenge());
        assert_eq!(basic.header(&Method::GET, "/").unwrap(), "Basic YTpiOmM=");
        let bearer = Login::new(WebdavLogin::Bearer { token: Secret::from("t0ken") });
        assert_eq!(bearer.header(&Method::GET, "/").unwrap(), "Bearer t0ken");
        assert!(Login::new(WebdavLogin::None).header(&Method::GET, "/").is_none());
    }
}
