//! `offsite init`: a commented configuration, the keys and the recovery sheet; everything is new, or nothing is written.

mod ask;
mod template;

use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use serde::Serialize;

use super::key::{FileError, new_site_key, write_identity, write_new};
use super::output::{Output, Problems, can_ask, say};
use super::prompt;
use super::sheet::Sheet;
use super::spec::Spec;
use crate::cli::{InitArgs, PassphraseSource};
use crate::config::{Config, DEFAULT_PATH, Problem, SecretRef};
use crate::failure::{Failure, Kind};
use crate::ids::SiteName;
use crate::keys::{NewIdentity, generate_identity};
use crate::sign::{SignError, SiteKey};
use crate::{clock, durable, platform};

/// What is known before anything is written.
struct Plan {
    site: Option<SiteName>,
    sources: Vec<Spec>,
    stores: Vec<Spec>,
    recipients: Vec<String>,
    identities: Vec<(PathBuf, NewIdentity)>,
    passphrase: Option<SecretString>,
    /// What opens drills, and where its passphrase is found.
    drill: Option<(PathBuf, Option<SecretRef>)>,
    staging: Option<PathBuf>,
    state: Option<PathBuf>,
    sheet: PathBuf,
}

#[derive(Serialize)]
struct Written {
    config: PathBuf,
    signing_key: PathBuf,
    /// It was there already.
    signing_key_kept: bool,
    sheet: PathBuf,
    identities: Vec<PathBuf>,
    recipients: Vec<String>,
    site_key: String,
    /// The secret key that opens scheduled drills.
    drill: Option<PathBuf>,
}

/// Brought by the package.
const UNIT: &str = "/usr/lib/systemd/system/offsite.service";

/// What a person has to say to do with a single key.
const ONE_KEY: &str = "one key is enough";

pub(super) fn run(arguments: &InitArgs, config: &Path, output: Output) -> Result<(), Failure> {
    let config = &absolute(config)?;
    let mut plan = plan(arguments, config)?;
    if can_ask() && plan.is_incomplete() && !output.is_json() {
        ask::complete(&mut plan)?;
    }
    plan.check_keys(arguments.one_key_is_enough)?;
    let text = template::render(&plan, &config.with_file_name("site.key"));
    let folder = config.parent().unwrap_or(Path::new("/"));
    let parsed = Config::parse(&text, folder).map_err(|problems| wrong(config, problems, &text))?.config;
    plan.check_new(config)?;
    // A key that is there is the site's: what it has signed goes on to count.
    let site_key = existing_key(&parsed.place.signing_key)?;
    let written = plan.write(config, &text, &parsed, site_key)?;
    output.result(&written, || next_steps(&written))
}

fn plan(arguments: &InitArgs, config: &Path) -> Result<Plan, Failure> {
    let mut problems = Vec::new();
    let mut specs = |texts: &[String], key: &str, parse: fn(&str) -> Result<Spec, String>| {
        let mut specs: Vec<Spec> = Vec::new();
        for text in texts {
            match parse(text) {
                Ok(spec) => specs.push(spec),
                Err(what) => problems.push(Problem { key: format!("--{key}"), line: None, what }),
            }
        }
        make_names_differ(&mut specs);
        specs
    };
    let sources = specs(&arguments.sources, "source", Spec::source);
    let stores = specs(&arguments.stores, "store", Spec::store);
    if !problems.is_empty() {
        return Err(usage("the command line has problems; nothing was written", problems));
    }
    let mut identities = Vec::new();
    for path in &arguments.identities {
        identities.push((absolute(path)?, generate_identity(clock::now())));
    }
    let passphrase = match &arguments.passphrase {
        Some(source) if !identities.is_empty() => Some(prompt::new_passphrase(source)?),
        _ => None,
    };
    let drill = arguments.drill_identity.as_deref().map(|file| drill(file, arguments, &identities)).transpose()?;
    let sheet = arguments.sheet.clone().unwrap_or_else(|| config.with_file_name("recovery-sheet.html"));
    Ok(Plan {
        site: arguments.site.clone(),
        sources,
        stores,
        recipients: arguments.recipients.clone(),
        identities,
        passphrase,
        drill,
        staging: arguments.staging.as_deref().map(absolute).transpose()?,
        state: arguments.state.as_deref().map(absolute).transpose()?,
        sheet: absolute(&sheet)?,
    })
}

/// The secret key that opens drills: one that is there, or is about to be made.
fn drill(
    file: &Path,
    arguments: &InitArgs,
    new: &[(PathBuf, NewIdentity)],
) -> Result<(PathBuf, Option<SecretRef>), Failure> {
    let file = absolute(file)?;
    let is_new = new.iter().any(|(path, _)| *path == file);
    if !is_new && !file.is_file() {
        let what = format!("--drill-identity: there is no file {}, and none is to be made there", file.display());
        return Err(Failure::new(Kind::Usage, what)
            .hint("name the file of a secret key that is there now, or one that `--new-identity` makes"));
    }
    match &arguments.passphrase {
        Some(PassphraseSource::Ask) if is_new => Err(Failure::new(
            Kind::Usage,
            "--drill-identity: nobody is there to be asked for the passphrase of that key",
        )
        .hint("say where it is found: `--passphrase file:PATH`; or name a key that has none")),
        Some(PassphraseSource::Reference(place)) if is_new => Ok((file, Some(place.clone()))),
        _ => Ok((file, None)),
    }
}

impl Plan {
    fn is_incomplete(&self) -> bool {
        self.site.is_none()
            || self.sources.is_empty()
            || self.stores.is_empty()
            || self.recipients.len() + self.identities.len() == 0
    }

    fn recipients(&self) -> Vec<String> {
        let new = self.identities.iter().map(|(_, identity)| identity.recipient.clone());
        let mut all: Vec<String> = Vec::new();
        for recipient in self.recipients.iter().map(|recipient| recipient.trim().to_owned()).chain(new) {
            // Twice the same key is one key.
            if !all.contains(&recipient) {
                all.push(recipient);
            }
        }
        all
    }

    /// With one key, losing it is losing everything: it takes more than an oversight.
    fn check_keys(&self, enough: bool) -> Result<(), Failure> {
        let recipients = self.recipients();
        if recipients.len() != 1 || enough {
            return Ok(());
        }
        if can_ask() {
            say("There is only one key. If it is lost, every backup is lost, and nobody can help.");
            let answer = prompt::line(&format!("To go on with it, write `{ONE_KEY}`"), "")?;
            if answer == ONE_KEY {
                return Ok(());
            }
        }
        Err(Failure::new(Kind::Usage, "there is only one key; if it is lost, every backup is lost")
            .hint("add a second one that is kept elsewhere: `--new-identity FILE` or `--recipient KEY`")
            .hint("`--one-key-is-enough` does without"))
    }

    /// Nothing that exists is touched.
    fn check_new(&self, config: &Path) -> Result<(), Failure> {
        let identities = self.identities.iter().map(|(path, _)| ("--new-identity", path.as_path()));
        let others = [("--config", config), ("--sheet", &self.sheet)];
        let problems: Vec<Problem> = identities
            .chain(others)
            .filter(|(_, path)| path.symlink_metadata().is_ok())
            .map(|(key, path)| Problem {
                key: key.to_owned(),
                line: None,
                what: format!("{} exists already, and nothing is ever overwritten; move it away first", path.display()),
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(usage("nothing was written", problems)) }
    }

    /// Keys first, the configuration last: a configuration that is there has its keys.
    fn write(&self, config: &Path, text: &str, parsed: &Config, site_key: Option<SiteKey>) -> Result<Written, Failure> {
        let place = &parsed.place;
        let folders = [config, &self.sheet, &place.signing_key].into_iter().filter_map(Path::parent);
        let identity_folders = self.identities.iter().filter_map(|(path, _)| path.parent());
        for folder in folders.chain(identity_folders).chain([place.staging.as_path(), place.state.as_path()]) {
            let failed = |error| Failure::new(Kind::Failed, FileError::new("make the folder", folder, error));
            durable::create_folder(folder).map_err(failed)?;
        }
        for (path, identity) in &self.identities {
            write_identity(identity, path, self.passphrase.as_ref())?;
        }
        let signing_key_kept = site_key.is_some();
        let site_key = match site_key {
            Some(key) => key,
            None => new_site_key(&place.signing_key)?,
        };
        let sheet = Sheet {
            site: &place.site,
            stores: &place.stores,
            recipients: self.recipients(),
            public_key: Some((site_key.public().to_string(), site_key.public().fingerprint())),
            secret: None,
            printed: clock::now(),
        };
        let sheet = if Sheet::is_page(&self.sheet) { sheet.html() } else { sheet.text() };
        write_new(&self.sheet, sheet.as_bytes(), "write the recovery sheet")?;
        write_new(config, text.as_bytes(), "write the configuration")?;
        // The service has an account of its own, and an administrator sets it up.
        for path in [config, &self.sheet, &place.signing_key, &place.staging, &place.state] {
            let failed = |error| Failure::new(Kind::Failed, FileError::new("give away", path, error));
            platform::give_to_owner_of_folder(path).map_err(failed)?;
        }
        Ok(Written {
            config: config.to_owned(),
            signing_key: place.signing_key.clone(),
            signing_key_kept,
            sheet: self.sheet.clone(),
            identities: self.identities.iter().map(|(path, _)| path.clone()).collect(),
            recipients: self.recipients(),
            site_key: site_key.public().to_string(),
            drill: self.drill.as_ref().map(|(file, _)| file.clone()),
        })
    }
}

fn next_steps(written: &Written) -> String {
    let secrets = written.identities.iter().map(|path| ("secret key", path));
    let signing_key = if written.signing_key_kept { "signing key *" } else { "signing key" };
    let others =
        [("configuration", &written.config), ("recovery sheet", &written.sheet), (signing_key, &written.signing_key)];
    let mut text = "Written:\n".to_owned();
    for (what, path) in secrets.chain(others) {
        text.push_str(&format!("  {what:14}  {}\n", path.display()));
    }
    if written.signing_key_kept {
        text.push_str("  * was there already, and goes on to sign what this site stores\n");
    }
    let config = match &written.config {
        path if path == Path::new(DEFAULT_PATH) => String::new(),
        path => format!(" --config {}", path.display()),
    };
    let mut steps = Vec::new();
    if !written.identities.is_empty() {
        steps.push(
            "Take every secret key off this machine, to two places outside the building. This machine does not\n     \
             need them to back up, and must not lose them with the office."
                .to_owned(),
        );
    }
    steps.push(format!("Print {} and keep it with a key.", written.sheet.display()));
    steps.push(format!("offsite{config} check\n     finds everything that would make a run fail"));
    steps.push(format!("offsite{config} backup\n     makes the first generation"));
    let (file, by_itself) = match &written.drill {
        Some(file) => (file.display().to_string(), "the schedule does it each week, with that key connected"),
        None => ("FILE".to_owned(), "do it each month; FILE is a secret key on its stick"),
    };
    steps.push(format!("offsite{config} drill --identity {file}\n     proves that it comes back; {by_itself}"));
    steps.push(format!(
        "Write into the configuration who is to be told of each run ([smtp] and [[mail]]), and try it:\n     \
         offsite{config} report --test"
    ));
    // The unit knows one configuration.
    let start = if config.is_empty() && Path::new(UNIT).exists() {
        "systemctl enable --now offsite".to_owned()
    } else {
        format!("offsite{config} daemon")
    };
    steps.push(format!("{start}\n     does what the configuration says under [[job]], from now on by itself"));
    steps.push(format!("offsite{config} status\n     says how things are, and what needs attention"));
    text.push_str("\nWhat to do next:\n");
    for (at, step) in steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", at + 1));
    }
    text
}

/// The signing key that is there already.
fn existing_key(path: &Path) -> Result<Option<SiteKey>, Failure> {
    match SiteKey::load(path) {
        Ok(key) => Ok(Some(key)),
        Err(SignError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::new(Kind::Usage, error).hint("nothing was written; name another place for the configuration"))
        }
    }
}

/// Two folders of one name are two sources.
fn make_names_differ(specs: &mut [Spec]) {
    let mut seen: Vec<String> = Vec::new();
    for spec in specs {
        let Some(name) = spec.get("name").map(str::to_owned) else { continue };
        let mut free = name.clone();
        let mut number = 2;
        while seen.contains(&free) {
            free = format!("{name}-{number}");
            number += 1;
        }
        if free != name {
            spec.rename(free.clone());
        }
        seen.push(free);
    }
}

/// The problems name settings; their lines are those of a text that nobody has seen.
fn wrong(config: &Path, problems: Vec<Problem>, text: &str) -> Failure {
    tracing::debug!(text, "the configuration as it would be written");
    let problems = problems.into_iter().map(|problem| Problem { line: None, ..problem }).collect();
    usage(&format!("{} would not be usable, so nothing was written", config.display()), problems)
        .hint("give what is missing as options (`offsite init --help`), or run it at a terminal, where it asks")
}

fn usage(what: &str, problems: Vec<Problem>) -> Failure {
    Failure::new(Kind::Usage, Problems { what: what.to_owned(), problems })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::new(Kind::Usage, FileError::new("use the path", path, error));
    std::path::absolute(path).map_err(failed)
}
