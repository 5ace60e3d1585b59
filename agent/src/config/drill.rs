//! `[drill]`: where restores are rehearsed, and what has to be found.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secret::SecretRef;
use super::table::Section;
use super::units::{Size, Span};
use crate::drill::{Ask, Check, DrillSettings};
use crate::platform;

/// What a drill needs, and whether it can be made without anybody there.
#[derive(Clone, Debug)]
pub struct DrillConfig {
    /// Where, how fast, and what has to be found.
    pub settings: DrillSettings,
    /// The file of a secret key that is there when a drill is made.
    pub identity: Option<PathBuf>,
    /// Where its passphrase is found.
    pub passphrase: Option<SecretRef>,
    /// The secret key may lie there for so long.
    pub identity_for: Option<Duration>,
}

/// A folder that every account can get to: a database server does not run as root, and has to reach its data. One for each
/// account, so that a drill of the service and one by hand are not in each other's way.
fn scratch_of_this_account() -> PathBuf {
    PathBuf::from(format!("/var/tmp/offsite-drill-{}", platform::account_number()))
}

pub(super) fn read(root: &Section<'_, '_>) -> DrillConfig {
    let drill = root.section("drill");
    let scratch = drill.path("scratch").unwrap_or_else(scratch_of_this_account);
    let scratch_limit = drill.parsed("scratch_limit").map(|Size(bytes)| bytes);
    let restore_within = drill.parsed("restore_within").map(|Span(within)| within);
    let identity = drill.path("identity");
    let passphrase = drill.parsed("passphrase");
    let identity_for = drill.parsed("identity_for").map(|Span(limit)| limit);
    for (key, set) in [("passphrase", passphrase.is_some()), ("identity_for", identity_for.is_some())] {
        if set && identity.is_none() {
            drill.report(key, "it is about the secret key of `identity`, which is not set");
        }
    }
    let checks = drill.sections("check").into_iter().filter_map(read_check).collect();
    drill.finish();
    let settings = DrillSettings { scratch, scratch_limit, restore_within, checks };
    DrillConfig { settings, identity, passphrase, identity_for }
}

fn read_check(section: Section<'_, '_>) -> Option<Check> {
    let source = section.required("source", "name the source that is asked");
    let database = section.string("database").map(str::to_owned);
    let sql = section.string("sql").map(str::to_owned);
    let expect = section.string("expect").map(str::to_owned);
    let command = section.strings("command");
    let ask = match (sql, expect, command) {
        (Some(sql), Some(expect), None) => Some(Ask::Sql { database, sql, expect }),
        (None, None, Some(command)) if database.is_none() => {
            let program = command.first().map_or("", String::as_str);
            if !Path::new(program).is_absolute() {
                let what = "its first text has to be the absolute path of a program; there is no shell in between";
                section.report("command", what);
            }
            Some(Ask::Command(command))
        }
        (Some(_), None, None) => {
            section.report("expect", "it is missing; write the answer that `sql` has to give");
            None
        }
        _ => {
            section.report("sql", "a check has either `sql` and `expect`, or a `command`");
            None
        }
    };
    section.finish();
    Some(Check { source: source?, ask: ask? })
}
