//! What rules ask for, and what the evidence shows of it. Pure.

use super::copies::Copies;
use super::{AuditStore, Found, Medium, Surroundings, runs_of};
use crate::evidence::{Entry, Record};
use crate::generation::Class;
use crate::report::{Context, Row, Standing, Table, counted};

/// Three copies, two kinds of storage, one off site, one that nobody can change, no errors.
pub(super) fn three_two_one(around: &Surroundings, entries: &[&Entry]) -> Table {
    let copies = Copies::of(around);
    let (kinds, kinds_shown) = copies.kinds(around);
    let holding: Vec<_> = around
        .stores
        .iter()
        .filter(|store| store.found.as_ref().is_ok_and(|found| found.rolling + found.archival > 0))
        .collect();
    let away: Vec<&str> = holding
        .iter()
        .filter(|store| matches!(store.medium, Medium::Service { .. }))
        .map(|store| store.name.as_str())
        .collect();
    let holds = |store: &AuditStore, class: Class| {
        let count = |found: &Found| match class {
            Class::Rolling => found.rolling,
            Class::Archival => found.archival,
        };
        store.found.as_ref().is_ok_and(|found| count(found) > 0)
    };
    let locks = |store: &&&AuditStore| store.locks.iter().any(|class| holds(store, *class));
    let locked: Vec<&str> = holding.iter().filter(locks).map(|store| store.name.as_str()).collect();
    let proved = entries.iter().rev().find_map(|entry| match &entry.record {
        Record::Drill(drill) if drill.not_tried.is_none() => Some(drill.passed),
        _ => None,
    });
    let read = entries.iter().rev().find_map(|entry| match &entry.record {
        Record::Verify(verify) if !verify.read_nothing() => Some(verify.findings.is_empty()),
        _ => None,
    });
    let errors = match (proved, read) {
        (Some(false), _) => "the last rehearsed restore FAILED",
        (_, Some(false)) => "what is stored was NOT WHOLE when it was last read",
        (Some(true), _) => "none in the last rehearsed restore",
        (None, Some(true)) => "none when it was last read; no restore was rehearsed",
        (None, None) => "not shown: nothing was read again or restored in this period",
    };
    let rule = |number: &str, what: &str, met: bool, found: String| {
        let word = if met { "yes" } else { "NO" };
        Row::new(!met, [number.to_owned(), what.to_owned(), word.to_owned(), found])
    };
    let listed = |names: &[&str], none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    let rows = vec![
        rule("3", "copies", copies.count() >= 3, copies.text()),
        rule("2", "kinds of storage", kinds >= 2, kinds_shown),
        rule("1", "off site", !away.is_empty(), listed(&away, not_away(&holding))),
        rule("1", "that nobody can change", !locked.is_empty(), listed(&locked, "no store has locked what it holds")),
        rule(
            "0",
            "errors",
            matches!((proved, read), (Some(true), _) | (None, Some(true))) && read != Some(false),
            errors.to_owned(),
        ),
    ];
    Table::new("3-2-1-1-0", &["", "What is asked for", "Met", "As found"], rows)
}

/// Why none of these stores counts as off site.
fn not_away(holding: &[&AuditStore]) -> &'static str {
    match holding {
        [] => "no store holds anything",
        some if some.iter().all(|store| store.medium.is_here()) => "folders on the office's own machine only",
        _ => "folders only: they count if they lie in another building",
    }
}

/// 45 CFR 164.308(a)(7), the contingency plan, and what other paragraphs ask of backups.
pub(super) fn hipaa(around: &Surroundings, entries: &[&Entry], context: &Context<'_>) -> Table {
    let runs = runs_of(entries);
    let complete = runs.iter().filter(|(_, run)| run.exit_code == 0).count();
    let standing = Standing::of(context.history);
    let drill = match standing.drill {
        Some((at, true)) => format!("last rehearsed restore {}: passed", context.minute(at)),
        Some((at, false)) => format!("last rehearsed restore {}: FAILED", context.minute(at)),
        None => "no restore was rehearsed yet".to_owned(),
    };
    let sources: Vec<String> = around.sources.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
    let agreed = around.stores.iter().filter(|store| store.agreement.is_some()).count() as u64;
    let row =
        |paragraph: &str, name: &str, shown: String| Row::new(false, [paragraph.to_owned(), name.to_owned(), shown]);
    let rows = vec![
        row(
            "164.308(a)(7)(ii)(A)",
            "Data backup plan (required)",
            format!(
                "exact copies of {}: {complete} of {} complete in this period",
                counted(around.sources.len() as u64, "source"),
                counted(runs.len() as u64, "run")
            ),
        ),
        row(
            "164.308(a)(7)(ii)(B)",
            "Disaster recovery plan (required)",
            format!("instructions to restore by hand lie in every store and on the recovery sheet; {drill}"),
        ),
        row(
            "164.308(a)(7)(ii)(C)",
            "Emergency mode operation plan (required)",
            "a plan of people: not shown by this program".to_owned(),
        ),
        row("164.308(a)(7)(ii)(D)", "Testing and revision procedures (addressable)", format!("{drill}; see below")),
        row(
            "164.308(a)(7)(ii)(E)",
            "Applications and data criticality analysis (addressable)",
            format!("copied: {}", sources.join(", ")),
        ),
        row(
            "164.308(b)(1)",
            "Business associate agreements",
            format!("recorded for {agreed} of {}; see below", counted(around.stores.len() as u64, "store")),
        ),
        row(
            "164.312(a)(2)(iv)",
            "Encryption (addressable)",
            format!(
                "everything is sealed with age (ChaCha20-Poly1305) to {} before it leaves the office",
                counted(around.recipients, "key")
            ),
        ),
        row(
            "164.316(b)(2)(i)",
            "Six years of documentation",
            "nothing is ever removed from the evidence log".to_owned(),
        ),
    ];
    Table::new("HIPAA Security Rule", &["Paragraph", "Item", "What the evidence shows"], rows)
}
