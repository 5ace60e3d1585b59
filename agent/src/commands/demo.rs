//! `offsite demo`: the whole main job on a sample office, told as it happens.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::backup::{self, Report, What};
use super::key::{FileError, new_site_key, write_identity, write_new};
use super::output::{Output, say};
use super::spec::quote;
use super::{load_config, restore, verify};
use crate::cli::{DemoArgs, RestoreArgs, VerifyArgs, Which};
use crate::demo::{Findings, Office, Writers};
use crate::failure::{Failure, Kind};
use crate::generation::Class;
use crate::keys::generate_identity;
use crate::{clock, durable};

#[derive(Serialize)]
struct Shown {
    folder: PathBuf,
    generations: Vec<Report>,
    restored: Findings,
}

/// People work for so many entries between two generations.
const WORK: u64 = 60;
/// They need a second; a machine that is busy may take longer.
const WORK_MAX: Duration = Duration::from_secs(60);

/// The folders and files of a demo.
struct Layout {
    root: PathBuf,
    config: PathBuf,
    identity: PathBuf,
    store: PathBuf,
    restored: PathBuf,
}

pub(super) fn run(arguments: &DemoArgs, output: Output) -> Result<(), Failure> {
    let layout = Layout::new(arguments.folder.as_deref())?;
    let failed = |error| Failure::new(Kind::Failed, error);
    let office = Office::build(&layout.root.join("office")).map_err(failed)?;
    layout.prepare(&office)?;
    tell(
        "A sample office",
        &format!(
            "Three SQLite databases and a folder of documents, in {}.\n\
         Two programs of their own write to the databases all the time, as people at a counter would.",
            layout.root.join("office").display()
        ),
    );
    let program = std::env::current_exe().map_err(|error| Failure::new(Kind::Failed, error))?;
    let writers = Writers::start(&office, &program).map_err(failed)?;
    let first = generation(&layout, &office, "The first generation: everything, at one instant", &writers)?;
    let second = generation(&layout, &office, "The second generation: what has changed since", &writers)?;
    writers.stop().map_err(failed)?;
    say("   Nobody who wrote to a database saw an error.");

    let verified = verify::execute(&VerifyArgs { generation: None, sample: 100, from: None }, &layout.config, true)?;
    tell("What is stored is read again, without any key", verified.text().trim_end());
    if verified.exit_code() != 0 {
        verified.complain();
        return Err(Failure::new(Kind::Verification, "the demo's store is damaged"));
    }
    let findings = restore_and_judge(&layout, &office)?;
    let shown = Shown { folder: layout.root.clone(), generations: vec![first, second], restored: findings };
    output.result(&shown, || layout.ending())
}

impl Layout {
    fn new(folder: Option<&Path>) -> Result<Self, Failure> {
        let default = || std::env::temp_dir().join(format!("offsite-demo-{}", std::process::id()));
        let root = folder.map_or_else(default, Path::to_owned);
        let root = std::path::absolute(&root).map_err(|error| Failure::new(Kind::Usage, error))?;
        if root.exists() {
            return Err(Failure::new(Kind::Usage, format!("{} exists already", root.display()))
                .hint("name a new folder: `offsite demo FOLDER`"));
        }
        Ok(Self {
            config: root.join("offsite.toml"),
            identity: root.join("secret-key.txt"),
            store: root.join("store"),
            restored: root.join("restored"),
            root,
        })
    }

    /// Configuration, key and the folder that plays the part of another building.
    fn prepare(&self, office: &Office) -> Result<(), Failure> {
        let failed = |error| Failure::new(Kind::Failed, error);
        let state = self.root.join("state");
        for folder in [&self.store, &state] {
            let error = |error| failed(FileError::new("make the folder", folder, error));
            durable::create_folder(folder).map_err(error)?;
        }
        new_site_key(&self.root.join("site.key"))?;
        let identity = generate_identity(clock::now());
        write_identity(&identity, &self.identity, None)?;
        let path = |path: &Path| quote(&path.to_string_lossy());
        let mut text = format!(
            "# The configuration of the demo. A real one is written by `offsite init`.\nsite = \"demo\"\nstaging = {}\n\
             state = {}\n\n[encryption]\nrecipients = [{}]\n",
            path(&self.root.join("staging")),
            path(&state),
            quote(&identity.recipient)
        );
        for (name, database) in office.databases() {
            let _ = write!(text, "\n[[source]]\nname = \"{name}\"\ntype = \"sqlite\"\npath = {}\n", path(&database));
        }
        let _ = write!(
            text,
            "\n[[source]]\nname = \"documents\"\ntype = \"folder\"\npath = {}\n\
             \n[[store]]\nname = \"elsewhere\"\ntype = \"directory\"\npath = {}\n",
            path(&office.documents()),
            path(&self.store)
        );
        write_new(&self.config, text.as_bytes(), "write the configuration")
    }

    fn ending(&self) -> String {
        let (root, config) = (self.root.display(), self.config.display());
        // As it was called: it may not be in PATH yet.
        let program = std::env::args().next().unwrap_or_else(|| "offsite".to_owned());
        format!(
            "Everything worked. It all lies in {root}:\n\
             \x20 office/          the sample office\n\
             \x20 offsite.toml     the configuration\n\
             \x20 secret-key.txt   the only thing that opens what is stored; a real one does not stay on this machine\n\
             \x20 staging/         generations on this machine, as plain files\n\
             \x20 store/           generations off site, sealed; in store/demo/RESTORE.txt, how to open them by hand\n\
             \x20 restored/        what came back\n\n\
             Look around:\n\
             \x20 {program} --config {config} list\n\
             \x20 {program} --config {config} restore latest --to {root}/again --identity {root}/secret-key.txt\n\n\
             For a real office: {program} init\n"
        )
    }
}

/// Lets people work for a while, and then makes a generation while they go on.
fn generation(layout: &Layout, office: &Office, title: &str, _working: &Writers) -> Result<Report, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let began = Instant::now();
    let wanted = office.rows().map_err(failed)? + WORK;
    while office.rows().map_err(failed)? < wanted {
        if began.elapsed() > WORK_MAX {
            return Err(Failure::new(Kind::Failed, "the people of the sample office do not get to write"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let config = load_config(&layout.config)?;
    let report = backup::execute(
        &config,
        What { class: Class::Rolling, full: false, resume: false, label: None, lifetime: None, same_disk: false },
        true,
    )?;
    tell(title, report.text().trim_end());
    if report.exit_code() == 0 {
        return Ok(report);
    }
    report.complaints().iter().for_each(|line| say(line));
    Err(Failure::new(Kind::Incomplete, "the generation is not what it should be"))
}

fn restore_and_judge(layout: &Layout, office: &Office) -> Result<Findings, Failure> {
    let arguments = RestoreArgs {
        generation: Which::Latest,
        to: layout.restored.clone(),
        source: None,
        path: None,
        identities: vec![layout.identity.clone()],
        passphrase: None,
        from: None,
        as_of: None,
        overwrite: false,
        into: Vec::new(),
        replace_databases: false,
    };
    let restored = restore::execute(&arguments, &layout.config, true)?;
    tell("The office has burned down. With the secret key, everything comes back", restored.text().trim_end());
    if !restored.lost.is_empty() {
        return Err(Failure::new(Kind::Verification, "not everything came back"));
    }
    let found = office.judge(&layout.restored).map_err(|error| Failure::new(Kind::Verification, error))?;
    let billed = match found.payments - found.billed {
        0 => "and utility billing knows all of them".to_owned(),
        _ => {
            format!("and utility billing knows {}: the last was between its two bookings at that instant", found.billed)
        }
    };
    tell(
        "What came back is opened and compared",
        &format!(
            "The databases pass their integrity check. Cash receipting has {} payments, {billed}.\n\
         Payroll has {} payslips. All {} documents are equal to the originals.",
            found.payments, found.payslips, found.documents
        ),
    );
    Ok(found)
}

/// One step of the story.
fn tell(title: &str, text: &str) {
    say(&format!("\n== {title}"));
    for line in text.lines() {
        say(&format!("   {line}"));
    }
}
