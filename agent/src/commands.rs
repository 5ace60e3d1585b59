//! What the program does with a command line: one module for each verb, and around them logging, output and exit code.

mod advice;
mod backup;
mod bars;
mod check;
mod daemon;
mod demo;
mod deposit;
mod drill;
mod evidence;
mod find;
mod hold;
mod holder;
mod init;
mod interrupt;
mod keeper;
mod key;
mod list;
mod medium;
mod output;
mod preflight;
mod probing;
mod prompt;
mod proof;
mod prune;
mod pulse;
mod recipients;
mod report;
mod restore;
mod sheet;
mod shell;
mod show;
mod slot;
mod space;
mod spec;
mod status;
mod stores;
mod verify;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Verb};
use crate::config::{Config, ConfigError, Loaded, Place};
use crate::demo::write_until_told;
use crate::failure::{Failure, Kind};

use output::Output;

/// The whole program: reads the command line, does what it says, tells of it, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    start_log(&cli);
    let output = Output::new(verb(&cli.verb), cli.json, cli.quiet);
    match run(&cli, output) {
        Ok(code) => code.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.kind().into()
        }
    }
}

/// Tells of a command line that is none, or shows the help that was asked for. Programs are told as they are of every
/// failure.
fn misunderstood(error: &clap::Error) -> ExitCode {
    // If nobody listens, the exit code is all that is left to say it with.
    error.print().ok();
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let said = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        Output::new("none", true, true).failure_document(&Failure::new(Kind::Usage, said.trim()));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Kind::Usage.code()))
}

/// How a verb ends: with the exit code that its result has, or with a failure.
type Ended = Result<u8, Failure>;

fn run(cli: &Cli, output: Output) -> Ended {
    let config = &cli.config;
    match &cli.verb {
        Verb::Init(arguments) => init::run(arguments, config, output).map(done),
        Verb::Key(verb) => key::run(verb, config, output).map(done),
        Verb::Check => check::run(config, output).map(done),
        Verb::Backup(arguments) => backup::run(arguments, config, cli.quiet, output),
        Verb::List(arguments) => list::run(arguments, config, output),
        Verb::Restore(arguments) => restore::run(arguments, config, cli.quiet, output),
        Verb::Verify(arguments) => verify::run(arguments, config, cli.quiet, output),
        Verb::Prune(arguments) => prune::run(arguments, config, output),
        Verb::Hold(arguments) => hold::run(arguments, true, config, output),
        Verb::Release(arguments) => hold::run(arguments, false, config, output),
        Verb::Slot(arguments) => slot::run(arguments, config, output),
        Verb::Status(arguments) => status::run(arguments, config, output),
        Verb::Daemon(arguments) => daemon::run(arguments, config, output).map(done),
        Verb::Report(arguments) => report::run(arguments, config, output),
        Verb::Keeper(arguments) => keeper::run(arguments, config, output),
        Verb::Drill(arguments) => drill::run(arguments, config, cli.quiet, output),
        Verb::Completions { shell } => shell::completions(*shell).map(done),
        Verb::Man => shell::man().map(done),
        Verb::Holder => holder::run().map(done),
        Verb::Tidings => report::tidings(config).map(done),
        Verb::Sweeper { folder } => drill::sweeper(folder).map(done),
        Verb::Demo(arguments) => demo::run(arguments, output).map(done),
        Verb::DemoWriter(arguments) => write_until_told(&arguments.database, arguments.mirror.as_deref())
            .map(done)
            .map_err(|error| Failure::new(Kind::Failed, error)),
    }
}

fn done((): ()) -> u8 {
    0
}

fn verb(verb: &Verb) -> &'static str {
    match verb {
        Verb::Init(_) => "init",
        Verb::Key(_) => "key",
        Verb::Check => "check",
        Verb::Backup(_) => "backup",
        Verb::List(_) => "list",
        Verb::Restore(_) => "restore",
        Verb::Verify(_) => "verify",
        Verb::Prune(_) => "prune",
        Verb::Hold(_) => "hold",
        Verb::Release(_) => "release",
        Verb::Slot(_) => "slot",
        Verb::Status(_) => "status",
        Verb::Daemon(_) => "daemon",
        Verb::Report(_) => "report",
        Verb::Keeper(_) => "keeper",
        Verb::Drill(_) => "drill",
        Verb::Completions { .. } => "completions",
        Verb::Man => "man",
        Verb::Demo(_) => "demo",
        Verb::DemoWriter(_) => "demo-writer",
        Verb::Holder => "holder",
        Verb::Tidings => "tidings",
        Verb::Sweeper { .. } => "sweeper",
    }
}

/// The log goes to standard error: warnings, or more if asked for; `OFFSITE_LOG` may say more exactly what.
fn start_log(cli: &Cli) {
    // What the daemon does is told to nobody but the log.
    let is_daemon = matches!(&cli.verb, Verb::Daemon(arguments) if arguments.tell.is_none());
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) if !is_daemon => LevelFilter::WARN,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("OFFSITE_LOG").from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| bars::LogWriter)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(cli.verbose > 1);
    // The first of the process; a second could only come from a test.
    log.try_init().ok();
}

fn load_config(path: &Path) -> Result<Config, Failure> {
    unwrap_loaded(Config::load(path))
}

fn load_place(path: &Path) -> Result<Place, Failure> {
    unwrap_loaded(Place::load(path))
}

fn unwrap_loaded<C>(loaded: Result<Loaded<C>, ConfigError>) -> Result<C, Failure> {
    loaded.map(|loaded| loaded.config).map_err(|error| {
        let missing = matches!(&error, ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound);
        let failure = Failure::new(Kind::Usage, error);
        if missing {
            failure.hint("`offsite init` writes one; `--config FILE` names another; `offsite demo` needs none")
        } else {
            failure
        }
    })
}
