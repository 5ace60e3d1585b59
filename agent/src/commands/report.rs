//! `offsite report`, and what is told after everything that goes into the evidence log.

mod audit;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::output::{Output, say};
use super::{Ended, daemon, evidence, load_place, preflight, show};
use crate::cli::ReportArgs;
use crate::config::{Place, Wish};
use crate::evidence::{Entry, EvidenceError, History, Log, Record, Undelivered};
use crate::failure::{self, Failure, Kind};
use crate::ids::JobName;
use crate::notify::{self, Delivery, Message, Outbox, OutboxError};
use crate::report::{self, Context, Report, Standing};
use crate::{clock, durable, platform};

/// Version of the file; a field that is added does not change it.
const VERSION: u32 = 1;
const FILE: &str = "reports.json";
/// So many reports that wait are named one by one.
const NAMED_MAX: usize = 3;
/// Somebody who does not do what he is reminded of is reminded again after so many days.
const REMINDED_AGAIN_AFTER_DAYS: i64 = 7;

/// When what was sent last.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Memory {
    version: u32,
    /// The last summary of each mail that wants some.
    summaries: BTreeMap<String, Timestamp>,
    /// The last reminder.
    reminded: Option<Timestamp>,
    /// For each job that was called overdue, the time it missed.
    #[serde(default)]
    overdue: BTreeMap<JobName, Timestamp>,
}

/// Why something could not be told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error("a report has no text form")]
    Json(#[from] serde_json::Error),
    #[error("the file {} cannot be written", path.display())]
    Write { path: std::path::PathBuf, source: std::io::Error },
}

/// Says to the ping services that a run begins.
pub(super) fn begins(place: &Place) {
    for (name, error) in notify::start(&place.reports) {
        tracing::warn!("the ping `{name}` was not told that the run begins: {}", failure::one_line(&error));
    }
}

/// Tells everybody who wants to know of `entry`, which has just been added to the evidence log. What cannot be delivered
/// waits; nothing that goes wrong here spoils what was done.
pub(super) fn tell(place: &Place, entry: &Entry) {
    if place.reports.is_silent() {
        return;
    }
    let told = || -> Result<(), TellError> {
        let (history, now) = (evidence::history(place)?, clock::now());
        let context = context(place, &history, now);
        if let Some(report) = report::compose(entry, &context) {
            let outbox = Outbox::new(&place.state);
            let pings = matches!(entry.record, Record::Run(_)).then(|| notify::pings(&report, &place.reports));
            for message in pings.into_iter().flatten().chain(notify::messages(&report, &place.reports)?) {
                outbox.put(&message)?;
            }
        }
        work(place, &context, true)
    };
    warn(told());
}

/// What nobody's run tells of: what is overdue, what is due by itself, and what could not be delivered when it was written.
pub(super) fn tidings(path: &Path) -> Result<(), Failure> {
    let place = load_place(path)?;
    // The log of another site is not this one's to tell of.
    if place.reports.is_silent() || preflight::other_site(&place).is_some() {
        return Ok(());
    }
    let failed = |error: TellError| Failure::new(Kind::Failed, error);
    let (history, now) = (evidence::history(&place).map_err(|error| failed(error.into()))?, clock::now());
    work(&place, &context(&place, &history, now), false).map_err(failed)
}

/// Writes what is due by itself, summaries and reminders, and delivers what waits. One program at a time: what another one
/// is at is left to it.
fn work(place: &Place, context: &Context<'_>, at_once: bool) -> Result<(), TellError> {
    let outbox = Outbox::new(&place.state);
    let Some(lock) = outbox.lock(context.now)? else { return Ok(()) };
    let path = place.state.join(FILE);
    let mut memory: Memory =
        fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    memory.version = VERSION;
    let overdue = if at_once { Vec::new() } else { overdue(place, context, &mut memory)? };
    for message in overdue.into_iter().chain(due(place, context, &mut memory)?) {
        outbox.put(&message)?;
    }
    let text = serde_json::to_vec(&memory)?;
    durable::write(&path, &text).map_err(|source| TellError::Write { path, source })?;
    let delivery = notify::deliver(&outbox, &lock, &place.reports, at_once, context.now)?;
    let failed: Vec<&Message> = delivery.waiting.iter().filter(|message| message.tried == Some(context.now)).collect();
    for line in waiting(&failed, "it is kept and tried again") {
        say(&format!("warning: {line}"));
    }
    for message in delivery.given_up {
        say(&format!("warning: {}; it is given up", not_delivered(&message)));
        let Message { name: to, subject, attempts, why, .. } = message;
        let undelivered = Undelivered { to, subject, attempts, why: why.unwrap_or_default() };
        let key = crate::sign::SiteKey::load(&place.signing_key).ok();
        let record = Record::Undelivered(undelivered);
        Log::new(&place.state).append(&place.site, record, key.as_ref(), context.now)?;
    }
    if let Some(path) = &place.reports.metrics.file {
        let overdue = daemon::overdue(place, context.now).len();
        let text = report::metrics(context, delivery.waiting.len() as u64, overdue as u64);
        let written = durable::write_for_others(path, text.as_bytes());
        written.map_err(|source| TellError::Write { path: path.clone(), source })?;
    }
    Ok(())
}

/// The numbers of now, for Prometheus. The error is one sentence.
pub(super) fn numbers(place: &Place) -> Result<String, String> {
    let numbers = || -> Result<String, TellError> {
        let (history, now) = (evidence::history(place)?, clock::now());
        let waiting = Outbox::new(&place.state).messages()?.len();
        let overdue = daemon::overdue(place, now).len();
        Ok(report::metrics(&context(place, &history, now), waiting as u64, overdue as u64))
    };
    numbers().map_err(|error| failure::one_line(&error))
}

/// What is overdue and was not called so yet.
fn overdue(place: &Place, context: &Context<'_>, memory: &mut Memory) -> Result<Vec<Message>, TellError> {
    let mut messages = Vec::new();
    let overdue = daemon::overdue(place, context.now);
    for (job, due) in &overdue {
        if memory.overdue.get(job) != Some(due) {
            let report = report::overdue(job.as_str(), *due, context);
            messages.extend(notify::messages(&report, &place.reports)?);
        }
    }
    memory.overdue = overdue;
    Ok(messages)
}

/// Summaries and reminders that are due.
fn due(place: &Place, context: &Context<'_>, memory: &mut Memory) -> Result<Vec<Message>, TellError> {
    let mut messages = Vec::new();
    for mail in &place.reports.mails {
        let Wish::Summary(period) = mail.when else { continue };
        // The first one comes when the first whole day or week is over.
        let last = *memory.summaries.entry(mail.name.clone()).or_insert(context.now);
        if period.is_due(last, context) {
            messages.extend(notify::mails(&report::digest(period, last, context), mail));
            memory.summaries.insert(mail.name.clone(), context.now);
        }
    }
    let nags = Standing::of(context.history).nags(context.limits, context.calendar, context.now);
    let again = |reminded: Timestamp| context.now.duration_since(reminded).as_hours() >= REMINDED_AGAIN_AFTER_DAYS * 24;
    if !nags.is_empty() && memory.reminded.is_none_or(again) {
        messages.extend(notify::messages(&report::reminder(&nags, context), &place.reports)?);
        memory.reminded = Some(context.now);
    }
    Ok(messages)
}

pub(super) fn context<'a>(place: &'a Place, history: &'a History, now: Timestamp) -> Context<'a> {
    let limits = place.reports.limits;
    Context { site: place.site.as_str(), calendar: &place.calendar, history, limits, now }
}

/// What could not be delivered: the newest of it one by one, each with what becomes of it, and the others counted.
pub(super) fn waiting(messages: &[&Message], what_now: &str) -> Vec<String> {
    let (others, newest) = messages.split_at(messages.len().saturating_sub(NAMED_MAX));
    let mut lines: Vec<String> =
        newest.iter().map(|message| format!("{}; {what_now}", not_delivered(message))).collect();
    if let Some(oldest) = others.first() {
        let count = show::counted(others.len() as u64, "older report");
        lines.push(format!("{count} could not be delivered either, since {}", show::minute(oldest.created)));
    }
    lines
}

/// `the report to office (main-street: backup complete) was not delivered: …`.
pub(super) fn not_delivered(message: &Message) -> String {
    let why = message.why.as_deref().unwrap_or("it was not tried yet");
    format!("the report to `{}` ({}) was not delivered: {why}", message.name, message.subject)
}

fn warn(told: Result<(), TellError>) {
    if let Err(error) = told {
        say(&format!("warning: reports could not be sent: {}", failure::one_line(&error)));
    }
}

pub(super) fn run(arguments: &ReportArgs, path: &Path, output: Output) -> Ended {
    match arguments.from {
        Some(from) => audit::run(from, arguments.to, arguments.output.as_deref(), path, output).map(|()| 0),
        None => test(path, output),
    }
}

/// `offsite report --test`.
fn test(path: &Path, output: Output) -> Ended {
    #[derive(Serialize)]
    struct Tested {
        delivered: Vec<String>,
        not_delivered: Vec<String>,
    }
    let place = load_place(path)?;
    if place.reports.is_silent() {
        return Err(Failure::new(Kind::Usage, "the configuration tells nobody anything")
            .hint("add a [[mail]], [[webhook]] or [[ping]]; examples/full.toml shows how"));
    }
    let failed = |error| Failure::new(Kind::Failed, error);
    let now = clock::now();
    let history = evidence::history(&place).map_err(failed)?;
    let context = context(&place, &history, now);
    let report = report::test(&platform::host_name(), &context);
    let Delivery { delivered, waiting, given_up } = everybody(&place, &report, now)?;
    let tested = Tested {
        delivered: delivered.iter().map(|message| message.name.clone()).collect(),
        not_delivered: waiting.iter().chain(&given_up).map(not_delivered).collect(),
    };
    let code = if tested.not_delivered.is_empty() { 0 } else { Kind::Failed.code() };
    output.result_with(code, &tested, || {
        let delivered = show::counted(tested.delivered.len() as u64, "message");
        match tested.delivered.as_slice() {
            [] => "No message was delivered.\n".to_owned(),
            names => format!("{delivered} delivered: {}\n", names.join(", ")),
        }
    })?;
    for what in &tested.not_delivered {
        say(&format!("error: {what}"));
    }
    Ok(code)
}

/// Sends `report` to everybody, whatever they usually want, and keeps nothing that cannot be delivered.
fn everybody(place: &Place, report: &Report, now: Timestamp) -> Result<Delivery, Failure> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Kind::Failed, error);
    let folder = tempfile::tempdir().map_err(|error| failed(error.into()))?;
    let outbox = Outbox::new(folder.path());
    let mails = place.reports.mails.iter().flat_map(|mail| notify::mails(report, mail));
    let others = notify::messages(report, &place.reports).map_err(|error| failed(error.into()))?;
    let others = others.into_iter().filter(|message| !matches!(message.payload, notify::Payload::Mail { .. }));
    for message in mails.chain(others).chain(notify::pings(report, &place.reports)) {
        outbox.put(&message).map_err(|error| failed(error.into()))?;
    }
    let lock = outbox.lock(now).map_err(|error| failed(error.into()))?;
    let lock = lock.ok_or_else(|| failed("a folder that was just made is locked".into()))?;
    notify::deliver(&outbox, &lock, &place.reports, true, now).map_err(|error| failed(error.into()))
}
