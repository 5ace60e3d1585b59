//! What is told of a run.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Zoned};

use super::{build, fact, innermost, joined, nags, newest, sentence, standing_table};
use crate::config::{Size, Span};
use crate::evidence::{Run, RunGeneration, RunProblem, RunStore};
use crate::failure;
use crate::generation::{CutMethod, Grade};
use crate::report::{Context, Kind, Report, Row, Standing, Table, counted, disk};

/// What is older has a date.
const RECENT: SignedDuration = SignedDuration::from_hours(18);
/// From this hour on it is night.
const EVENING: i8 = 20;
/// Until this hour.
const MORNING: i8 = 6;

pub(super) fn report(run: &Run, ended: Timestamp, context: &Context<'_>) -> Report {
    let Some(generation) = &run.generation else {
        return if run.exit_code == 0 { finished(run, context) } else { failed(run, ended, context) };
    };
    let stores: Vec<&RunStore> = run.stores.iter().filter(|store| !store.resumed).collect();
    let lacking: Vec<&str> = stores.iter().filter(|store| !store.stored).map(|store| store.store.as_str()).collect();
    let stored = stores.len() - lacking.len();
    let name = name(generation.cut_not_after, context);
    let contents = contents(generation);
    let at = context.clock(generation.cut_not_after);
    let place = |count: usize| counted(count as u64, "place");
    let (kind, subject, verdict) = if stored == 0 {
        let why = sentence(stores.first().map_or("", |store| innermost(&store.messages)));
        let verdict = format!("{name} is in NO store. {why}{}", fallback(ended, context));
        (Kind::Failure, "backup FAILED", verdict)
    } else if generation.grade == Grade::Incomplete {
        let verdict =
            format!("{name} is INCOMPLETE: {}; the rest is stored in {}.", missing(generation), place(stored));
        (Kind::Warning, "backup INCOMPLETE", verdict)
    } else if !lacking.is_empty() {
        let verdict = format!(
            "{name} is stored in only {stored} of {}: `{}` has not got it ({contents} as of {at}).",
            place(stores.len()),
            lacking.join("`, `")
        );
        (Kind::Warning, "backup not stored everywhere", verdict)
    } else if generation.grade == Grade::Sequential {
        let verdict = format!(
            "{name} is whole, but NOT OF ONE INSTANT: {contents} were copied one after another until {at}, so that what one \
             program knows may be missing from another; it is stored in {}.",
            place(stored)
        );
        (Kind::Unsynchronized, "backup NOT OF ONE INSTANT", verdict)
    } else if run.exit_code != 0 || notes(run).next().is_some() {
        let trouble = run.stores.iter().find(|store| !store.messages.is_empty());
        let trouble = trouble.map(|store| innermost(&store.messages)).or_else(|| notes(run).next());
        let trouble = trouble.map(sentence).unwrap_or_default();
        let verdict = format!("{name} is complete, but not all went well. {trouble}");
        (Kind::Warning, "backup complete, with a warning", verdict)
    } else {
        let sent = Size(run.stores.iter().filter_map(|store| store.sent_bytes).sum());
        let verdict = format!(
            "{name} is complete: {contents} as of {at}, stored in {}, {sent} sent{}.",
            place(stored),
            last_drill(ended, context)
        );
        (Kind::Success, "backup complete", verdict)
    };
    let tables =
        vec![overview(run, generation, ended, context), sources(generation), places(run), standing_table(context)];
    build(context, kind, subject, verdict, tables, todo(run, generation, context))
}

/// Nothing new was copied: what an earlier run had left is stored.
fn finished(run: &Run, context: &Context<'_>) -> Report {
    let whole: Vec<String> =
        run.stores.iter().map(|store| format!("{} in `{}`", store.generation, store.store)).collect();
    let verdict = format!("What an earlier run had left is finished: {} is whole.", whole.join(", "));
    let todo: Vec<String> = notes(run).map(sentence).collect();
    let kind = if todo.is_empty() { Kind::Success } else { Kind::Warning };
    build(context, kind, "backup finished", verdict, vec![places(run), standing_table(context)], todo)
}

/// There was no run, or none to its end.
fn failed(run: &Run, ended: Timestamp, context: &Context<'_>) -> Report {
    let name = name(run.began.unwrap_or(ended), context);
    let verdict = if run.exit_code == failure::Kind::Interrupted.code() {
        format!("{name} was STOPPED before its end; the next one goes on from there.{}", fallback(ended, context))
    } else {
        let first = run.messages.first().map_or("it did not run", |message| message.trim_end_matches('.'));
        let why =
            if run.messages.len() > 1 && !is_past(ended, context) { "; what is in the way is named below" } else { "" };
        format!("{name} FAILED: {first}{why}.{}", fallback(ended, context))
    };
    let messages = run
        .messages
        .iter()
        .enumerate()
        .map(|(at, message)| fact(if at == 0 { "What failed" } else { "Because, or in detail" }, message.clone()));
    let facts = vec![fact("Ended", context.minute(ended)), fact("Exit code", run.exit_code.to_string())];
    let mut todo: Vec<String> = run.hints.iter().map(|hint| sentence(hint)).collect();
    todo.push(
        "On the server, `offsite check` names everything that is in the way; `offsite backup` tries again.".to_owned(),
    );
    todo.extend(nags(context));
    let tables = vec![Table::new("The run", &[], facts.into_iter().chain(messages).collect()), standing_table(context)];
    build(context, Kind::Failure, "backup FAILED", verdict, tables, todo)
}

/// `Tonight's backup`, said in the same night; `Last night's backup`, said the day after; `The backup of 12:00`; or, when that
/// is long ago, `The backup of 2026-11-20 23:30`.
fn name(at: Timestamp, context: &Context<'_>) -> String {
    if context.now.duration_since(at) > RECENT {
        return format!("The backup of {}", context.minute(at));
    }
    let zone = context.calendar.zone();
    let (at, now) = (at.to_zoned(zone.clone()), context.now.to_zoned(zone.clone()));
    // The night that a time is in, if it is in one, by the day on which it began.
    let night = |time: &Zoned| match time.hour() {
        EVENING.. => Some(time.date()),
        ..MORNING => time.date().yesterday().ok(),
        _ => None,
    };
    match night(&at) {
        Some(one) if night(&now) == Some(one) => "Tonight's backup".to_owned(),
        Some(_) => "Last night's backup".to_owned(),
        None if at.date() < now.date() => format!("Yesterday's backup ({})", at.strftime("%H:%M")),
        None => format!("The backup of {}", at.strftime("%H:%M")),
    }
}

/// `6 databases, 2 folders`.
fn contents(generation: &RunGeneration) -> String {
    let of =
        |kinds: &[&str]| generation.sources.iter().filter(|source| kinds.contains(&source.source.as_str())).count();
    let (folders, exports) = (of(&["folder"]), of(&["command"]));
    let databases = generation.sources.len() - folders - exports;
    let parts = [(databases, "database"), (folders, "folder"), (exports, "export")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| counted(count as u64, what));
    let parts: Vec<String> = parts.collect();
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// ``3 files of `documents` could not be copied``.
fn missing(generation: &RunGeneration) -> String {
    let clauses: Vec<String> = generation.shortfalls().into_iter().map(|(clause, _)| clause).collect();
    match clauses.as_slice() {
        [] => "not everything is in it".to_owned(),
        [first, second, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, and something is missing of {}", counted(rest.len() as u64, "more source"))
        }
        few => few.join(", and "),
    }
}

/// How the last drill ended; nothing in a summary of days, where it would be another one.
fn last_drill(ended: Timestamp, context: &Context<'_>) -> String {
    if is_past(ended, context) {
        return String::new();
    }
    match Standing::of(context.history).drill {
        Some((at, true)) => format!(", last drill {}: passed", context.ago(at)),
        Some((at, false)) => format!(", last drill {}: FAILED", context.ago(at)),
        None => ", no drill yet".to_owned(),
    }
}

/// What there is to fall back on, behind a blank; nothing in a summary of days.
fn fallback(ended: Timestamp, context: &Context<'_>) -> String {
    if is_past(ended, context) { String::new() } else { format!(" {}", newest(context)) }
}

/// Whether a run is told of long after it.
fn is_past(ended: Timestamp, context: &Context<'_>) -> bool {
    context.now.duration_since(ended) > SignedDuration::from_hours(1)
}

fn overview(run: &Run, generation: &RunGeneration, ended: Timestamp, context: &Context<'_>) -> Table {
    let label = generation.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
    let date = context.minute(generation.cut_not_after);
    let day = date.get(..10).unwrap_or_default();
    let instant = match generation.cut_method {
        CutMethod::None => "no: copied one after another".to_owned(),
        _ if generation.held_us_max == 0 => "yes; nobody had to wait".to_owned(),
        _ => format!("yes; whoever saved something waited {:.1} ms at most", generation.held_us_max as f64 / 1000.0),
    };
    let mut rows = vec![
        fact("Name", format!("{}{label}", generation.id)),
        fact("As of", format!("{day} {}", context.clock(generation.cut_not_after))),
        Row::new(generation.cut_method == CutMethod::None, ["Of one instant".to_owned(), instant]),
    ];
    if let Some(began) = run.began {
        let took = u64::try_from(ended.duration_since(began).as_millis()).unwrap_or_default();
        rows.push(fact("Took", Span(Duration::from_millis(took)).to_string()));
    }
    Table::new("The copy", &[], rows)
}

fn sources(generation: &RunGeneration) -> Table {
    let rows = generation.sources.iter().map(|source| {
        let problems: Vec<&RunProblem> =
            generation.problems.iter().filter(|problem| problem.source == source.name).collect();
        let bad = problems.iter().any(|problem| problem.missing);
        let state = match problems.as_slice() {
            [] => "complete".to_owned(),
            some => some.iter().map(|problem| described(problem)).collect::<Vec<_>>().join("; "),
        };
        Row::new(bad, [source.name.clone(), source.source.clone(), Size(source.bytes).to_string(), state])
    });
    Table::new("What is in it", &["Source", "Kind", "Size", "State"], rows.collect())
}

fn described(problem: &RunProblem) -> String {
    let word = if problem.missing { "MISSING" } else { "left out" };
    match problem.files {
        Some(files) => format!("{word}: {}: {}", counted(files, "file"), problem.what),
        None => format!("{word}: {}", problem.what),
    }
}

fn places(run: &Run) -> Table {
    let rows = run.stores.iter().map(|store| {
        let state = match (store.stored, store.full, store.resumed) {
            (false, ..) => "NOT STORED".to_owned(),
            (true, _, true) => format!("stored: {}, left by an earlier run", store.generation),
            (true, Some(true), _) => "stored, in full".to_owned(),
            (true, ..) => "stored, what changed".to_owned(),
        };
        let said = [store.messages.as_slice(), &store.notes].concat();
        let why = if said.is_empty() { String::new() } else { format!(": {}", joined(&said)) };
        let sent = store.sent_bytes.map_or("–".to_owned(), |bytes| Size(bytes).to_string());
        let name = store.slot.as_ref().map_or_else(|| store.store.clone(), |slot| disk(&store.store, slot));
        Row::new(!said.is_empty(), [name, format!("{state}{why}"), sent])
    });
    Table::new("Where it is", &["Store", "State", "Sent"], rows.collect())
}

/// What was found in stores that have the generation all the same.
fn notes(run: &Run) -> impl Iterator<Item = &str> {
    run.stores.iter().flat_map(|store| store.notes.iter().map(String::as_str))
}

/// Everything that somebody has to do something about, with what that is.
fn todo(run: &Run, generation: &RunGeneration, context: &Context<'_>) -> Vec<String> {
    let mut todo = Vec::new();
    for store in run.stores.iter().filter(|store| !store.messages.is_empty()) {
        let why = sentence(innermost(&store.messages));
        todo.push(match store.stored {
            true => format!("`{}` has the copy, but not all went well. {why} The next run sees to it.", store.store),
            false => format!(
                "`{}` has not got it. {why} The next run tries again by itself; if this stays, `offsite check` on the server \
                 says what is in the way.",
                store.store
            ),
        });
    }
    todo.extend(notes(run).map(sentence));
    for store in run.stores.iter().filter(|store| !store.resumed) {
        if let (Some(slot), Some(bring)) = (&store.slot, &store.bring) {
            todo.push(format!("Take the disk {slot} of `{}` away, and bring {bring} for the next run.", store.store));
        }
    }
    let missing = || generation.problems.iter().filter(|problem| problem.missing);
    for problem in missing().filter(|problem| problem.files.is_none()) {
        let (source, what) = (&problem.source, sentence(&problem.what));
        todo.push(match generation.is_empty_folder(source) {
            true => format!(
                "Nothing of `{source}` is in the copy, since its folder is empty on the server, as when a network drive is not \
                 connected; an earlier copy still has what was in it. {what} Then `offsite backup` makes up for it."
            ),
            false => format!(
                "`{source}` is missing: {what} When `offsite check` on the server finds nothing any more, `offsite backup` makes \
                 up for it; until then only an earlier copy has it."
            ),
        });
    }
    if missing().any(|problem| problem.files.is_some()) {
        todo.push(
            "Files that should be copied were not. `offsite backup` on the server names each file: let the account of \
             `offsite` read it, or exclude it in the configuration."
                .to_owned(),
        );
    }
    if generation.grade == Grade::Sequential {
        todo.push(
            "The copy was not of one instant: after a restore, compare the last minutes of work in all programs. `offsite \
             check` says what a database server has to allow; a longer `hold_limit` may help when it is very busy."
                .to_owned(),
        );
    }
    todo.extend(nags(context));
    todo
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{Age, Calendar};
    use crate::evidence::History;
    use crate::report::Limits;

    #[test]
    fn a_run_is_called_by_when_it_was() {
        let calendar = Calendar::new(jiff::tz::TimeZone::get("Europe/Berlin").unwrap());
        let (history, limits) = (History::default(), Limits { drill: Age::days(35), key_proof: Age::days(190) });
        let called = |at: &str, now: &str| {
            let context =
                Context { site: "townhall", calendar: &calendar, history: &history, limits, now: now.parse().unwrap() };
            name(at.parse().unwrap(), &context)
        };
        // The clocks of the office are an hour ahead.
        assert_eq!(called("2026-11-22T22:30:00Z", "2026-11-22T22:31:00Z"), "Tonight's backup");
        assert_eq!(called("2026-11-22T22:30:00Z", "2026-11-23T02:00:00Z"), "Tonight's backup");
        assert_eq!(called("2026-11-23T01:30:00Z", "2026-11-23T01:31:00Z"), "Tonight's backup");
        assert_eq!(called("2026-11-22T22:30:00Z", "2026-11-23T06:00:00Z"), "Last night's backup");
        assert_eq!(called("2026-11-22T13:05:00Z", "2026-11-22T13:06:00Z"), "The backup of 14:05");
        assert_eq!(called("2026-11-22T17:05:00Z", "2026-11-22T17:06:00Z"), "The backup of 18:05");
        assert_eq!(called("2026-11-22T17:05:00Z", "2026-11-23T06:00:00Z"), "Yesterday's backup (18:05)");
        assert_eq!(called("2026-11-20T22:30:00Z", "2026-11-22T22:30:00Z"), "The backup of 2026-11-20 23:30");
    }
}
