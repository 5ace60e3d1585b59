//! The questions of `offsite init`: what the command line left open.

use super::Plan;
use crate::clock;
use crate::commands::output::say;
use crate::commands::prompt::line;
use crate::commands::spec::{Spec, slug};
use crate::failure::Failure;
use crate::keys::{Recipients, generate_identity};

pub(super) fn complete(plan: &mut Plan) -> Result<(), Failure> {
    if plan.site.is_none() {
        plan.site = Some(site()?);
    }
    if plan.sources.is_empty() {
        say("\nWhat is to be copied? Folders and SQLite database files, one at a time.");
        plan.sources = several("Path (nothing: go on)", Spec::source)?;
    }
    if plan.stores.is_empty() {
        say("\nWhere to? A folder (USB drive, NAS), an address https://… (WebDAV), or s3://BUCKET/PREFIX.");
        plan.stores = several("Place (nothing: go on)", Spec::store)?;
        for store in &mut plan.stores {
            login(store)?;
        }
    }
    if plan.recipients.len() + plan.identities.len() == 0 {
        keys(plan)?;
    }
    Ok(())
}

fn site() -> Result<crate::ids::SiteName, Failure> {
    let host = std::fs::read_to_string("/etc/hostname").map(|name| slug(name.trim())).unwrap_or_default();
    loop {
        match line("Name of the office (lower case, no blanks)", &host)?.parse() {
            Ok(site) => return Ok(site),
            Err(error) => say(&format!("{error}")),
        }
    }
}

fn several(question: &str, parse: fn(&str) -> Result<Spec, String>) -> Result<Vec<Spec>, Failure> {
    let mut specs = Vec::new();
    loop {
        let answer = line(question, "")?;
        match parse(&answer) {
            _ if answer.is_empty() && !specs.is_empty() => return Ok(specs),
            _ if answer.is_empty() => say("At least one is needed."),
            Ok(spec) => specs.push(spec),
            Err(error) => say(&error),
        }
    }
}

/// Passwords are not asked for: they would end in a file that was not meant for them.
fn login(store: &mut Spec) -> Result<(), Failure> {
    let name = store.get("name").unwrap_or_default().to_owned();
    let kind = store.get("type").unwrap_or_default().to_owned();
    let mut ask = |question: &str, key: &str, default: &str| -> Result<bool, Failure> {
        let answer = line(&format!("{name}: {question}"), default)?;
        if !answer.is_empty() {
            store.push(key, &answer);
        }
        Ok(!answer.is_empty())
    };
    let place = format!("env:OFFSITE_{}", name.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    match kind.as_str() {
        "s3" => {
            ask("address of the server (nothing: AWS)", "endpoint", "")?;
            if ask("access key (nothing: the machine's own role)", "access_key", "")? {
                ask("where the secret key is found (env:NAME, file:/path, cred:NAME)", "secret_key", &place)?;
            }
        }
        "webdav" if ask("user (nothing: no login)", "user", "")? => {
            ask("login, basic or digest", "login", "basic")?;
            ask("where the password is found (env:NAME, file:/path, cred:NAME)", "password", &place)?;
        }
        _ => {}
    }
    Ok(())
}

fn keys(plan: &mut Plan) -> Result<(), Failure> {
    say("\nKeys. Everything is sealed so that one of the keys is enough to open it. Two are needed: the office's,");
    say("and one kept elsewhere. Give a new file for each (on a USB stick, best), or a public key that exists.");
    for which in ["The office's key", "The key kept elsewhere (nothing: none)"] {
        loop {
            let answer = line(which, "")?;
            if answer.is_empty() && !which.contains("nothing") {
                continue;
            }
            if answer.is_empty() {
                break;
            }
            if answer.starts_with("age1") || answer.starts_with("ssh-") {
                match Recipients::parse([&answer]) {
                    Ok(_) => plan.recipients.push(answer),
                    Err(errors) => {
                        errors.iter().for_each(|error| say(&error.to_string()));
                        continue;
                    }
                }
            } else {
                plan.identities.push((super::absolute(answer.as_ref())?, generate_identity(clock::now())));
            }
            break;
        }
    }
    Ok(())
}
