//! `offsite completions` and `offsite man`, both made of the command line's own definition.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::print;
use crate::cli::Cli;
use crate::failure::{Failure, Kind};

pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "offsite", &mut script);
    print(&script)
}

/// One page with every verb.
pub(super) fn man() -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render(&mut page).map_err(|error| Failure::new(Kind::Failed, error))?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        render_verb(verb, &mut page).map_err(|error| Failure::new(Kind::Failed, error))?;
    }
    print(&page)
}

fn render_verb(verb: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write as _;

    let name = verb.get_bin_name().unwrap_or_else(|| verb.get_name()).to_uppercase();
    writeln!(page, ".SH \"{name}\"")?;
    // What every verb takes stands at the top of the page.
    let own = verb.clone().mut_args(|argument| {
        let everywhere = argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str());
        if everywhere { argument.hide(true) } else { argument }
    });
    let man = clap_mangen::Man::new(own);
    let mut sections = Vec::new();
    man.render_description_section(&mut sections)?;
    man.render_options_section(&mut sections)?;
    // Sections of the page's own verb would stand between those of the program.
    page.extend(String::from_utf8_lossy(&sections).replace(".SH ", ".SS ").into_bytes());
    for below in verb.get_subcommands().filter(|below| below.get_name() != "help") {
        render_verb(below, page)?;
    }
    Ok(())
}
