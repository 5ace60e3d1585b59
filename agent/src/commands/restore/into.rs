//! `offsite restore --into`: what was restored, on into a database server.

use std::path::Path;

use serde::Serialize;

use crate::cli::RestoreArgs;
use crate::commands::output::say;
use crate::commands::spec::Spec;
use crate::config::SecretRef;
use crate::failure::{self, Failure, Kind};
use crate::ids::{NameError, SourceName};
use crate::into::{IntoError, IntoEvent, IntoRequest, Server, load};

/// Programs that load at the same time.
const JOBS: usize = 4;

/// What can be set.
const KEYS: [&str; 8] = ["source", "host", "port", "user", "password", "ca_file", "database", "as"];

/// One `--into`.
#[derive(Debug)]
pub(super) struct Target {
    source: SourceName,
    server: Server,
    /// Only this database, and what it is to be called.
    only: Option<(String, String)>,
}

/// A database that is in its place.
#[derive(Debug, Serialize)]
pub(super) struct InPlace {
    source: String,
    database: String,
    tables: u64,
    checked_by: Option<&'static str>,
}

impl InPlace {
    pub(super) fn text(&self) -> String {
        let checked = match self.checked_by {
            Some(program) => format!("{program} found nothing wrong"),
            None => "not checked: the engine's program for that is not installed".to_owned(),
        };
        let tables = if self.tables == 1 { "1 table".to_owned() } else { format!("{} tables", self.tables) };
        format!("In its place: {} of {}: {tables}; {checked}.\n", self.database, self.source)
    }
}

/// Reads what was asked for, before anything is restored.
pub(super) fn targets(arguments: &RestoreArgs) -> Result<Vec<Target>, Failure> {
    let read = |text: &String| {
        read_one(text).map_err(|why| {
            Failure::new(Kind::Usage, format!("`--into` cannot be used: {why}"))
                .hint("write it like `--into source=server,host=/run/postgresql,user=postgres`")
        })
    };
    arguments.into.iter().map(read).collect()
}

fn read_one(text: &str) -> Result<Target, String> {
    if !text.contains('=') {
        return Err("these are no settings".to_owned());
    }
    let spec = Spec::source(text)?;
    if let Some(key) = spec.keys().find(|key| !KEYS.contains(key)) {
        return Err(format!("there is no setting `{key}`; there are {}", KEYS.join(", ")));
    }
    let owned = |key: &str| spec.get(key).map(str::to_owned);
    let source = spec.get("source").ok_or("it does not say which source; add source=NAME")?;
    let port = spec.get("port").map(|port| port.parse().map_err(|_| format!("`{port}` is no port"))).transpose()?;
    let password = spec.get("password").map(|place| {
        // It may be a password, and is not repeated.
        let place: SecretRef = place.parse().map_err(|_| {
            "a password does not stand on the command line; write env:NAME, file:/path or cred:NAME".to_owned()
        })?;
        place.read().map_err(|error| failure::one_line(&error))
    });
    let only = match (owned("database"), owned("as")) {
        (Some(database), called) => Some((database.clone(), called.unwrap_or(database))),
        (None, Some(_)) => return Err("`as` needs `database`: the one that is to be called so".to_owned()),
        (None, None) => None,
    };
    Ok(Target {
        source: source.parse().map_err(|error: NameError| failure::one_line(&error))?,
        server: Server {
            host: owned("host"),
            port,
            user: owned("user"),
            password: password.transpose()?,
            ca_file: spec.get("ca_file").map(Into::into),
        },
        only,
    })
}

/// Loads each of them; those that were loaded before one that fails stay.
pub(super) fn run(targets: &[Target], to: &Path, replace: bool, quiet: bool) -> Result<Vec<InPlace>, Failure> {
    let mut all = Vec::new();
    for target in targets {
        let request = IntoRequest {
            folder: &to.join(target.source.as_str()),
            server: &target.server,
            only: target.only.as_ref().map(|(database, called)| (database.as_str(), called.as_str())),
            replace,
            jobs: JOBS,
        };
        let tell = |event: IntoEvent<'_>| {
            if !quiet {
                say(&match event {
                    IntoEvent::Loading(database) => format!("loading {database}"),
                    IntoEvent::Checking(database) => format!("checking {database}"),
                });
            }
        };
        let loaded = load(&request, &tell).map_err(failed)?;
        all.extend(loaded.into_iter().map(|loaded| InPlace {
            source: target.source.to_string(),
            database: loaded.database,
            tables: loaded.tables,
            checked_by: loaded.checked_by,
        }));
    }
    Ok(all)
}

fn failed(error: IntoError) -> Failure {
    let hint = match &error {
        IntoError::NotEmpty { .. } => {
            "to replace it, say `--replace-databases`; to have both, load it under another name: `database=NAME,as=OTHER`"
        }
        IntoError::WholeServer { .. } => "the README says how, step by step: `A whole PostgreSQL server`",
        IntoError::Damaged { .. } => "restore another generation: `offsite list` shows which there are",
        _ => "what was restored lies in its folder, and can be loaded by hand",
    };
    let kind = if matches!(error, IntoError::Damaged { .. }) { Kind::Verification } else { Kind::Failed };
    Failure::new(kind, error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_what_is_wrong_is_named() {
        let text = "source=server,host=/run/postgresql,port=5433,user=postgres,database=office,as=copy";
        let target = read_one(text).unwrap();
        assert_eq!((target.source.as_str(), target.server.port), ("server", Some(5433)));
        assert_eq!(target.only, Some(("office".to_owned(), "copy".to_owned())));
        for (text, why) in [
            ("server", "no settings"),
            ("host=x", "which source"),
            ("source=server,typ=x", "`typ`"),
            ("source=server,port=x", "`x` is no port"),
            ("source=server,as=x", "`as` needs"),
            ("source=server,password=hidden", "does not stand"),
        ] {
            let error = read_one(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("hidden"), "{error}");
        }
    }
}
