//! The questions of `offsite init`: what the command line left open.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use providers::{Access, KeyPrefix, Policy};

use super::Plan;
use crate::clock;
use crate::commands::output::say;
use crate::commands::prompt::line;
use crate::commands::spec::{Spec, slug};
use crate::commands::{preflight, stores};
use crate::config::{Config, Problem, StoreConfig};
use crate::failure::{Failure, one_line};
use crate::keys::{Recipients, generate_identity};

/// A person is waiting.
const REACH_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn complete(plan: &mut Plan) -> Result<(), Failure> {
    if plan.site.is_none() {
        plan.site = Some(site()?);
    }
    if plan.sources.is_empty() {
        say("\nWhat is to be copied? Folders and SQLite database files, one at a time.");
        plan.sources = several("Path (nothing: go on)", source)?;
    }
    if plan.stores.is_empty() {
        say("\nWhere to? A folder (USB drive, NAS), an address https://… (WebDAV), or s3://BUCKET/PREFIX.");
        plan.stores = several("Place (nothing: go on)", store)?;
    }
    if plan.recipients.len() + plan.identities.len() == 0 {
        keys(plan)?;
        drill(plan)?;
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

/// What an answer means, or what is wrong with it.
type Answer = Result<Spec, String>;

/// Asks until there is nothing more. Each answer is looked at when it is given: what is wrong is said at once, and nothing
/// that was answered before is lost.
fn several(question: &str, read: fn(&str) -> Result<Answer, Failure>) -> Result<Vec<Spec>, Failure> {
    let mut specs = Vec::new();
    loop {
        let answer = line(question, "")?;
        if answer.is_empty() && !specs.is_empty() {
            super::make_names_differ(&mut specs);
            return Ok(specs);
        }
        if answer.is_empty() {
            say("At least one is needed.");
            continue;
        }
        match read(&answer)? {
            Ok(spec) => specs.push(spec),
            Err(error) => say(&format!("{error}\nIt is left out; try again.")),
        }
    }
}

fn source(answer: &str) -> Result<Answer, Failure> {
    Ok(Spec::source(answer).and_then(|spec| check("source", &spec).map(|_| spec)))
}

fn store(answer: &str) -> Result<Answer, Failure> {
    let mut spec = match Spec::store(answer).and_then(|spec| check("store", &spec).map(|_| spec)) {
        Ok(spec) => spec,
        Err(error) => return Ok(Err(error)),
    };
    login(&mut spec)?;
    Ok(match check("store", &spec) {
        Err(error) => Err(error),
        Ok(config) => reach(config.place.stores.first())?.map_or(Ok(spec), Err),
    })
}

/// The smallest configuration with this source or store, or what is wrong with that.
fn check(header: &str, spec: &Spec) -> Result<Config, String> {
    let recipient = generate_identity(clock::now()).recipient;
    let others = match header {
        "source" => "[[store]]\nname = \"other\"\ntype = \"s3\"\nbucket = \"other\"\n",
        _ => "[[source]]\nname = \"other\"\ntype = \"command\"\ncommand = [\"/bin/true\", \"{staging}\"]\n",
    };
    let text =
        format!("site = \"office\"\n[encryption]\nrecipients = [\"{recipient}\"]\n{others}{}", spec.to_toml(header));
    let said = |problem: &Problem| format!("{}: {}", problem.key.rsplit('.').next().unwrap_or_default(), problem.what);
    let parsed = Config::parse(&text, Path::new("/"));
    let config = parsed.map_err(|problems| problems.iter().map(said).collect::<Vec<_>>().join("\n"))?.config;
    let absent = preflight::absent_folders(&config);
    if absent.is_empty() { Ok(config) } else { Err(absent.iter().map(said).collect::<Vec<_>>().join("\n")) }
}

/// Asks a store whether it is there, if all that is needed for that is at hand. Answers with why it is not to be kept.
fn reach(config: Option<&StoreConfig>) -> Result<Option<String>, Failure> {
    let Some(config) = config else { return Ok(None) };
    let settings = match config.settings() {
        Ok(settings) => settings,
        Err(missing) => {
            for Problem { what, .. } in missing {
                say(&format!("note: {what}; put it there before the first backup. The store was not asked"));
            }
            return Ok(None);
        }
    };
    let policy = Policy { attempts: 1, elapsed_max: REACH_LIMIT, ..Policy::default() };
    let root = KeyPrefix::default();
    let asked = match providers::open(&settings, Access::Agent, &policy) {
        Ok(store) => stores::runtime()?.block_on(async { store.list(&root).next().await.transpose() }).map(drop),
        Err(error) => Err(error),
    };
    let Err(error) = asked else { return Ok(None) };
    let what = one_line(&error);
    say(&format!("{} does not let itself be used: {what}", config.name));
    let keep = line("Keep it all the same? yes or no", "no")?;
    Ok((keep != "yes").then(|| "Correct it, and say it again.".to_owned()))
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
            ask("region", "region", "us-east-1")?;
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

fn drill(plan: &mut Plan) -> Result<(), Failure> {
    // A key under a passphrase opens nothing by itself, and the one who could be asked sleeps.
    if plan.drill.is_some() || plan.passphrase.is_some() || plan.identities.is_empty() {
        return Ok(());
    }
    say("\nA restore can be rehearsed each week by itself, if the drive with one of these keys is connected for it.");
    loop {
        let answer = line("The key's file (nothing: somebody does it by hand)", "")?;
        if answer.is_empty() {
            return Ok(());
        }
        let path = super::absolute(answer.as_ref())?;
        if plan.identities.iter().any(|(known, _)| *known == path) {
            plan.drill = Some((path, None));
            return Ok(());
        }
        say(&format!("{} is none of the keys above", path.display()));
    }
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
                let path = super::absolute(answer.as_ref())?;
                if path.symlink_metadata().is_ok() || plan.identities.iter().any(|(known, _)| *known == path) {
                    say(&format!("{} is taken, and nothing is ever overwritten: name a new file", path.display()));
                    continue;
                }
                if let Err(what) = preflight::check_folder_of(&path) {
                    say(&what);
                    continue;
                }
                plan.identities.push((path, generate_identity(clock::now())));
            }
            break;
        }
    }
    Ok(())
}
