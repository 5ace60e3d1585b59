//! From one entry of the evidence log to what a person is told of it. Pure.

use jiff::Timestamp;

use super::{Context, Kind, Nag, Report, Row, Standing, Table, counted, log_nags};
use crate::config::{Size, Span};
use crate::evidence::{Drill, Entry, Probe, Prune, Record, Run, Verify};

mod run;

/// A longer name is not read in the first sentence of a mail.
const NAME_MAX: usize = 40;

/// The report of what `entry` tells; nothing if nobody waits to hear of it.
pub fn compose(entry: &Entry, context: &Context<'_>) -> Option<Report> {
    match &entry.record {
        Record::Run(run) => Some(run::report(run, entry.at, context)),
        Record::Drill(Drill { not_tried: Some(why), store, asked, .. }) => {
            let stores: Vec<&str> =
                asked.iter().map(String::as_str).chain(Some(store.as_str()).filter(|name| !name.is_empty())).collect();
            Some(not_tried(why, &stores, context))
        }
        Record::Drill(drill) => Some(drilled(drill, context)),
        Record::Verify(verify) if verify.read_nothing() => Some(not_read(verify, context)),
        Record::Verify(verify) => Some(verified(verify, context)),
        Record::Prune(prune) if !prune.refused.is_empty() => Some(pruned(prune, context)),
        Record::Probe(probe) if !probe.passed => Some(probed(probe, context)),
        Record::Prune(_) | Record::Probe(_) | Record::KeyProof(_) | Record::Undelivered(_) | Record::Unknown => None,
    }
}

/// That the run `job` should have begun at `due`, and did not.
pub fn overdue(job: &str, due: Timestamp, context: &Context<'_>) -> Report {
    let verdict = format!(
        "`{job}` is OVERDUE: it should have run at {}, {}, and has not. {}",
        context.minute(due),
        context.ago(due),
        newest(context)
    );
    let todo = vec![
        "On the server, `offsite status` says what is in the way, and whether somebody has paused the schedule."
            .to_owned(),
        format!("Then `offsite daemon run {job}` makes up for it at once."),
    ];
    build(context, Kind::Overdue, &format!("{job} is OVERDUE"), verdict, vec![standing_table(context)], todo)
}

/// That nobody has proved for too long that the copies can come back.
pub fn reminder(nags: &[Nag], context: &Context<'_>) -> Report {
    let whats: Vec<&str> = nags.iter().map(|nag| nag.what.as_str()).collect();
    let verdict = format!("Please prove that the copies can come back: {}.", whats.join("; "));
    let todo = nags.iter().map(|nag| format!("{}.", capital(&nag.remedy))).collect();
    build(
        context,
        Kind::Reminder,
        "please prove that the copies can come back",
        verdict,
        vec![standing_table(context)],
        todo,
    )
}

/// A report that says nothing but that reports arrive.
pub fn test(host: &str, context: &Context<'_>) -> Report {
    let verdict = format!("This is a test: reports of {} reach you from {host}.", context.site);
    build(context, Kind::Success, "a test", verdict, vec![standing_table(context)], Vec::new())
}

fn drilled(drill: &Drill, context: &Context<'_>) -> Report {
    let took = Span(std::time::Duration::from_millis(drill.took_ms));
    let sound = drill.databases.iter().filter(|database| database.sound == Some(true)).count() as u64;
    let databases = drill.databases.iter().map(|database| {
        let state = match database.sound {
            Some(true) => "opened, and sound",
            Some(false) => "NOT SOUND",
            None => "not opened",
        };
        Row::new(database.sound == Some(false), [database.name.clone(), database.engine.clone(), state.to_owned()])
    });
    let copy = match (drill.generation.as_str(), drill.store.as_str()) {
        ("", "") => "none could be had".to_owned(),
        ("", store) => format!("none could be had from `{store}`"),
        (generation, store) => format!("{generation} from `{store}`"),
    };
    let mut facts =
        vec![fact("Copy", copy), fact("Came back", format!("{}, {}", counted(drill.files, "file"), Size(drill.bytes)))];
    let within = drill.target_ms.map(|target| Span(std::time::Duration::from_millis(target)));
    facts.push(fact("Took", within.map_or(took.to_string(), |target| format!("{took} (the target is {target})"))));
    facts.extend(drill.not_done.iter().map(|what| fact("Not looked at", what.clone())));
    let mut tables = vec![Table::new("The rehearsal", &[], facts)];
    let databases: Vec<Row> = databases.collect();
    if !databases.is_empty() {
        tables.push(Table::new("Databases", &["Database", "Engine", "State"], databases));
    }
    if drill.passed {
        let verdict = format!(
            "The rehearsed restore passed: {} and {} of the copy {} came back from `{}` in {took}.",
            counted(drill.files, "file"),
            counted(sound, "database"),
            drill.generation,
            drill.store
        );
        return build(context, Kind::Success, "rehearsed restore passed", verdict, tables, nags(context));
    }
    let first = drill.findings.first().map_or("see below".to_owned(), |finding| brief(finding));
    let verdict = format!("THE REHEARSED RESTORE FAILED: {first}.");
    let mut todo: Vec<String> = drill.findings.iter().map(|finding| sentence(finding)).collect();
    todo.push(
        match drill.generation.as_str() {
            "" => {
                "See that the store can be reached: `offsite check` on the server says what is in the way. Then rehearse again: \
                 `offsite drill --identity FILE`."
            }
            _ => {
                "Until a rehearsal passes, do not rely on this copy. If it is the copy that is damaged, make a new full one, \
                 `offsite backup --full`. Then rehearse again: `offsite drill --identity FILE`."
            }
        }
        .to_owned(),
    );
    build(context, Kind::DrillFailed, "REHEARSED RESTORE FAILED", verdict, tables, todo)
}

/// Nothing was rehearsed, which says nothing of the copies; but whoever relies on rehearsals has to know.
fn not_tried(why: &str, stores: &[&str], context: &Context<'_>) -> Report {
    let verdict = format!("The rehearsed restore could NOT BE TRIED: {}.", why.trim_end_matches('.'));
    let from = match stores {
        [] => None,
        [store] => Some(format!("could not be had from `{store}`, so nothing is known of the copies in it")),
        all => {
            Some(format!("could be had from none of `{}`, so nothing is known of the copies in them", all.join("`, `")))
        }
    };
    let mut todo = vec![match from {
        None => {
            "It is something of this machine, not of the copies. When it is mended, rehearse again: `offsite drill`, with \
             `--identity FILE` if the key is not where the configuration says."
                .to_owned()
        }
        Some(from) => format!(
            "What was to be rehearsed {from}, neither good nor bad. `offsite check` on the server says what is in the \
             way; when that is mended, rehearse again: `offsite drill`."
        ),
    }];
    todo.extend(nags(context));
    let tables = vec![standing_table(context)];
    build(context, Kind::Warning, "rehearsed restore could NOT BE TRIED", verdict, tables, todo)
}

fn not_read(verify: &Verify, context: &Context<'_>) -> Report {
    let verdict =
        format!("What is stored in `{}` could NOT BE READ again: {}.", verify.store, joined(&verify.findings));
    let mut todo = vec![
        "`offsite check` on the server says what is in the way; then `offsite verify` makes up for it. Whether what is stored \
         is whole is not known."
            .to_owned(),
    ];
    todo.extend(nags(context));
    build(context, Kind::Warning, "what is stored could NOT BE READ", verdict, vec![standing_table(context)], todo)
}

fn verified(verify: &Verify, context: &Context<'_>) -> Report {
    let read = format!("{} in {}", Size(verify.bytes), counted(verify.packs, "pack"));
    let mut facts = vec![
        fact("Store", verify.store.clone()),
        fact("Generations", verify.generations.to_string()),
        fact("Read and whole", read.clone()),
    ];
    if verify.packs_not_read > 0 {
        facts.push(fact("There, not read this time", counted(verify.packs_not_read, "pack")));
    }
    let tables = vec![Table::new("What was read again", &[], facts)];
    if verify.findings.is_empty() {
        let verdict = format!("What is stored in `{}` is whole: {read} were read again.", verify.store);
        return build(context, Kind::Success, "what is stored is whole", verdict, tables, nags(context));
    }
    let verdict = format!(
        "What is stored in `{}` is NOT WHOLE: {} not as it should be.",
        verify.store,
        if verify.findings.len() == 1 {
            "one thing is".to_owned()
        } else {
            format!("{} things are", verify.findings.len())
        }
    );
    let mut todo: Vec<String> = verify.findings.iter().take(10).map(|finding| sentence(finding)).collect();
    todo.push(
        "See whether the store's disks are sound, and make a copy that needs nothing of what is stored: \
         `offsite backup --full`."
            .to_owned(),
    );
    build(context, Kind::Failure, "what is stored is NOT WHOLE", verdict, tables, todo)
}

fn pruned(prune: &Prune, context: &Context<'_>) -> Report {
    let verdict = format!("Nothing more is removed from `{}` for now: {}.", prune.store, joined(&prune.refused));
    let facts = vec![fact("Removed", prune.removed.len().to_string()), fact("Kept", prune.kept.to_string())];
    let todo = vec!["See what stopped it: `offsite prune --dry-run`. Until then the store only grows.".to_owned()];
    let tables = vec![Table::new("Retention", &[], facts)];
    build(context, Kind::Warning, "retention has stopped", verdict, tables, todo)
}

fn probed(probe: &Probe, context: &Context<'_>) -> Report {
    let verdict =
        format!("The store `{}` does not do all that is relied on: {}.", probe.store, joined(&probe.findings));
    let todo =
        vec![format!("Correct its settings, then ask it again: `offsite check`. Copies go on being stored there.")];
    build(context, Kind::Warning, "a store does not do what is relied on", verdict, Vec::new(), todo)
}

fn build(
    context: &Context<'_>,
    kind: Kind,
    subject: &str,
    verdict: String,
    tables: Vec<Table>,
    todo: Vec<String>,
) -> Report {
    Report {
        kind,
        site: context.site.to_owned(),
        at: context.now,
        subject: format!("{}: {subject}", context.site),
        verdict,
        tables,
        todo,
        evidence: context.history.anchor(),
    }
}

fn nags(context: &Context<'_>) -> Vec<String> {
    let nags = Standing::of(context.history).nags(context.limits, context.calendar, context.now);
    nags.into_iter()
        .chain(log_nags(context.history))
        .map(|nag| format!("{}. {}.", capital(&nag.what), capital(&nag.remedy)))
        .collect()
}

/// How sure it is that copies can come back.
pub(super) fn standing_table(context: &Context<'_>) -> Table {
    let standing = Standing::of(context.history);
    let drill = match standing.drill {
        Some((at, passed)) => {
            let result = if passed { "passed" } else { "FAILED" };
            Row::new(!passed, ["Last rehearsed restore".to_owned(), format!("{}: {result}", when(at, context))])
        }
        None => fact("Last rehearsed restore", "none yet".to_owned()),
    };
    let proof = standing.key_proof.map_or("none yet".to_owned(), |at| when(at, context));
    let history = context.history;
    let troubled = !history.findings.is_empty() || history.lacks_key_now();
    let rows = vec![
        drill,
        fact("Last proof that the keys open the copies", proof),
        Row::new(troubled, ["Evidence log".to_owned(), history.verdict()]),
    ];
    Table::new("How sure it is that it comes back", &[], rows)
}

/// What there is to fall back on.
fn newest(context: &Context<'_>) -> String {
    let stored = context.history.iter().rev().find_map(|entry| match &entry.record {
        Record::Run(Run { generation: Some(generation), stores, .. })
            if stores.iter().any(|store| store.stored && store.generation == generation.id) =>
        {
            Some(generation.cut_not_after)
        }
        _ => None,
    });
    match stored {
        Some(at) => format!("The newest copy in a store is as of {}, {}.", context.minute(at), context.ago(at)),
        None => "There is no copy in a store yet.".to_owned(),
    }
}

fn when(at: Timestamp, context: &Context<'_>) -> String {
    format!("{} ({})", context.ago(at), context.minute(at))
}

fn fact(name: &str, value: String) -> Row {
    Row::new(false, [name.to_owned(), value])
}

fn joined(messages: &[String]) -> String {
    let messages: Vec<&str> = messages.iter().map(|message| message.trim_end_matches('.')).collect();
    messages.join(": ")
}

/// The last of a chain of causes: the one that somebody can do something about.
fn innermost(messages: &[String]) -> &str {
    messages.last().map_or("", |message| message.trim_end_matches('.'))
}

/// With a capital at its start and a full stop at its end, if it ends with nothing else.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{}{end}", capital(text))
}

/// A finding without what to do about it, and with long names cut in their middle.
fn brief(finding: &str) -> String {
    let what = finding.split("; ").next().unwrap_or_default().trim_end_matches('.');
    let pieces = what.split('`').enumerate().map(|(at, piece)| {
        let name: Vec<char> = piece.rsplit('/').next().unwrap_or_default().chars().collect();
        match at % 2 {
            1 if name.len() > NAME_MAX => {
                let (start, end) = (name.iter().take(16), name.iter().skip(name.len() - 8));
                format!("`{}…{}`", start.collect::<String>(), end.collect::<String>())
            }
            1 => format!("`{piece}`"),
            _ => piece.to_owned(),
        }
    });
    pieces.collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
