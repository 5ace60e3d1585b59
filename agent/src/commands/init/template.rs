//! The configuration that `offsite init` writes: what was answered, and the rest as comments.

use std::path::Path;

use super::Plan;
use crate::commands::spec::{Spec, quote};

/// Nobody but the office knows its mail server.
const REPORTS: &str = "\
# Who is told of each run. Then try it: offsite report --test
#[smtp]
#host = \"smtp.example.org\"
#user = \"backup@example.org\"
#password = \"file:/etc/offsite/smtp-password\"
#from = \"backup@example.org\"
#
#[[mail]]
#name = \"office\"
#to = [\"office@example.org\"]
#when = \"every run\"

";

pub(super) fn render(plan: &Plan, signing_key: &Path) -> String {
    let signing_key = quote(&signing_key.to_string_lossy());
    let site = plan.site.as_ref().map(|site| format!("site = {}\n", quote(site.as_str()))).unwrap_or_default();
    let folder = |key: &str, path: &Option<std::path::PathBuf>, default: &str| match path {
        Some(path) => format!("{key} = {}\n", quote(&path.to_string_lossy())),
        None => format!("#{key} = {}\n", quote(default)),
    };
    let recipients: String = plan.recipients().iter().map(|key| format!("  {},\n", quote(key))).collect();
    let recipients = if recipients.is_empty() { String::new() } else { format!("recipients = [\n{recipients}]\n") };
    let staging = folder("staging", &plan.staging, "/var/lib/offsite/staging");
    let state = folder("state", &plan.state, "/var/lib/offsite/state");
    let sources = tables("source", &plan.sources);
    let stores = tables("store", &plan.stores);
    let drill = drill(plan);
    format!(
        "\
# offsite: what is copied, to whom it is sealed, and where it goes.
# Every setting there is stands in examples/full.toml. `offsite check` says what is wrong with this file.

# The office. Every store gets a folder of this name.
{site}
# Local generations. Needs room for one whole copy and what changes between copies.
{staging}
# Journal, catalog, and sealed packs on their way. Losing this folder costs one full upload; the keys are elsewhere.
{state}
[encryption]
# Public keys; each of their secret halves opens everything. Keep two, in two places, away from this machine.
{recipients}
[signing]
# Signs what is stored. It does not lie with the state, so that losing the state does not lose it; keep a copy of it.
key = {signing_key}

# What is copied, all at one instant.

{sources}# Where it goes. Passwords do not stand here, only where they are found:
# env:NAME (environment), file:/path (a private file), cred:NAME (systemd credential).

{stores}# What happens by itself once `offsite daemon` runs, by the clock of the office; see examples/full.toml.

[[job]]
name = \"nightly\"
run = [\"backup\"]
at = \"daily 23:30\"

# Removes what has expired by the rules (offsite prune --dry-run shows what that is), here and in every store.
[[job]]
name = \"prune\"
run = [\"prune\"]
at = \"daily 05:00\"

# Reads a tenth of what is stored again, another one each week.
[[job]]
name = \"verify\"
run = [\"verify\", \"--sample\", \"10\"]
at = \"Sun 03:00\"

# Looks each month whether stores and sources still are as they should be, and tries what the stores really do.
[[job]]
name = \"probe\"
run = [\"check\"]
at = \"monthly 1 12:00\"

{drill}
{REPORTS}# When a chain of generations is closed and a new one begins with a full.
#[chain]
#days = 7

# zstd level, 1 to 19.
#[seal]
#level = 3
"
    )
}

/// The rehearsals: by themselves where a secret key can be had, else as comments.
fn drill(plan: &Plan) -> String {
    let (mark, file) = match &plan.drill {
        Some((file, _)) => ("", quote(&file.to_string_lossy())),
        None => ("#", quote("/media/drill-key/office-key.txt")),
    };
    let passphrase = plan.drill.as_ref().and_then(|(_, place)| place.as_ref());
    let passphrase =
        passphrase.map(|place| format!("passphrase = {}\n", quote(&place.to_string()))).unwrap_or_default();
    let how = if plan.drill.is_some() {
        "# It takes a secret key, and whoever has that can read everything: connect the drive that it lies on for the drill only."
    } else {
        "# It takes a secret key: once a month, with the stick in hand, run: offsite drill --identity FILE\n\
         # Where a drive with a key can be connected for it, it is done each week: take these # away."
    };
    format!(
        "\
# Rehearses a restore from a store, opens every database of it, and judges.
{how}
{mark}[[job]]
{mark}name = \"drill\"
{mark}run = [\"drill\"]
{mark}at = \"Sat 12:00\"
{mark}
{mark}[drill]
{mark}identity = {file}
{passphrase}"
    )
}

fn tables(header: &str, specs: &[Spec]) -> String {
    specs.iter().map(|spec| spec.to_toml(header) + "\n").collect()
}
