//! Asking the person at the terminal.

use std::io::{self, BufRead as _, Write as _};

use age::secrecy::SecretString;

use super::output::{can_ask, say};
use crate::cli::PassphraseSource;
use crate::config::SecretRef;
use crate::failure::{Failure, Kind};

/// Asks for a line; an empty answer is `default`.
pub(super) fn line(question: &str, default: &str) -> Result<String, Failure> {
    let shown = if default.is_empty() { format!("{question}: ") } else { format!("{question} [{default}]: ") };
    let mut answer = String::new();
    let asked = io::stderr()
        .lock()
        .write_all(shown.as_bytes())
        .and_then(|()| io::stderr().lock().flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(0) => Err(Failure::new(Kind::Interrupted, "the answers ended before the questions; nothing was written")),
        Ok(_) => Ok(if answer.trim().is_empty() { default.to_owned() } else { answer.trim().to_owned() }),
        Err(error) => Err(Failure::new(Kind::Failed, error)),
    }
}

/// Gives the passphrase of something that exists: from where it is said to be, or from the person at the terminal.
pub(super) fn passphrase(source: Option<&PassphraseSource>) -> impl Fn(&str) -> Option<SecretString> {
    let place = match source {
        Some(PassphraseSource::Reference(place)) => Some(place.clone()),
        Some(PassphraseSource::Ask) | None => None,
    };
    move |what| match &place {
        Some(place) => place.read().map_err(|error| say(&crate::failure::one_line(&error))).ok(),
        None if can_ask() => rpassword::prompt_password(format!("Passphrase of {what}: ")).ok().map(SecretString::from),
        None => None,
    }
}

/// Gives a new passphrase: asked for twice, or from where it is said to be.
pub(super) fn new_passphrase(source: &PassphraseSource) -> Result<SecretString, Failure> {
    match source {
        PassphraseSource::Reference(place) => read(place),
        PassphraseSource::Ask if !can_ask() => {
            Err(Failure::new(Kind::Usage, "there is no terminal to ask for a passphrase")
                .hint("say where it is found: `--passphrase env:NAME` or `--passphrase file:PATH`"))
        }
        PassphraseSource::Ask => {
            let ask =
                |question| rpassword::prompt_password(question).map_err(|error| Failure::new(Kind::Failed, error));
            let first = ask("New passphrase of the secret key: ")?;
            if first.is_empty() {
                return Err(Failure::new(Kind::Usage, "an empty passphrase protects nothing"));
            }
            if ask("Once more: ")? != first {
                return Err(Failure::new(Kind::Usage, "the two passphrases differ; nothing was written"));
            }
            Ok(SecretString::from(first))
        }
    }
}

fn read(place: &SecretRef) -> Result<SecretString, Failure> {
    place.read().map_err(|error| Failure::new(Kind::Usage, error))
}
