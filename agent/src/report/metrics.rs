//! The newest of the evidence log as numbers, in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), for node_exporter's textfile collector or to be asked for. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Context, Standing};
use crate::evidence::{Record, RunStore};

/// All of them. `waiting` reports have not been delivered yet, and `overdue` jobs have not begun.
pub fn metrics(context: &Context<'_>, waiting: u64, overdue: u64) -> String {
    let site = label(context.site);
    let mut text = String::new();
    let mut one = |name: &str, help: &str, more: &str, value: f64| {
        let _ = writeln!(text, "# HELP offsite_{name} {help}\n# TYPE offsite_{name} gauge");
        let _ = writeln!(text, "offsite_{name}{{site=\"{site}\"{more}}} {value}");
    };
    let runs = context.history.iter().rev().filter_map(|entry| match &entry.record {
        Record::Run(run) => Some((entry.at, run)),
        _ => None,
    });
    let mut runs = runs.peekable();
    if let Some((at, run)) = runs.peek() {
        one("last_run_timestamp_seconds", "When the last run ended.", "", seconds(*at));
        one("last_run_exit_code", "The exit code of the last run; 0 if all went well.", "", run.exit_code.into());
        if let Some(began) = run.began {
            let took = at.duration_since(began).as_secs_f64();
            one("last_run_duration_seconds", "How long the last run took.", "", took);
        }
    }
    let mut stores: BTreeMap<&str, (Timestamp, &RunStore)> = BTreeMap::new();
    let mut complete = None;
    for (at, run) in runs {
        let cut = run.generation.as_ref().map(|generation| generation.cut_not_after);
        if run.exit_code == 0 && complete.is_none() {
            complete = cut;
        }
        for store in run.stores.iter().filter(|store| store.stored) {
            stores.entry(&store.store).or_insert((at, store));
        }
    }
    if let Some(cut) = complete {
        one(
            "last_complete_timestamp_seconds",
            "The instant of the newest complete copy in every store.",
            "",
            seconds(cut),
        );
    }
    let standing = Standing::of(context.history);
    if let Some((at, passed)) = standing.drill {
        one("last_drill_timestamp_seconds", "When a restore was last rehearsed.", "", seconds(at));
        one("last_drill_passed", "Whether the last rehearsed restore passed.", "", u8::from(passed).into());
    }
    if let Some(at) = standing.key_proof {
        one("last_key_proof_timestamp_seconds", "When keys were last proved to open the copies.", "", seconds(at));
    }
    let findings = context.history.findings.len() as f64;
    one("evidence_findings", "What shows that the evidence log was changed; 0 if nothing does.", "", findings);
    one("reports_waiting", "Reports that could not be delivered yet.", "", waiting as f64);
    one("jobs_overdue", "Jobs that should have begun, by a daemon that runs, and have not.", "", overdue as f64);
    let mut each = |name: &str, help: &str, value: &dyn Fn(&(Timestamp, &RunStore)) -> f64| {
        if stores.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP offsite_{name} {help}\n# TYPE offsite_{name} gauge");
        for (store, found) in &stores {
            let _ = writeln!(text, "offsite_{name}{{site=\"{site}\",store=\"{}\"}} {}", label(store), value(found));
        }
    };
    each("store_last_stored_timestamp_seconds", "When a store last got a generation.", &|(at, _)| seconds(*at));
    each("store_last_sent_bytes", "What was sent for it.", &|(_, store)| store.sent_bytes.unwrap_or(0) as f64);
    each("store_last_content_bytes", "What it holds.", &|(_, store)| store.content_bytes.unwrap_or(0) as f64);
    text
}

fn seconds(at: Timestamp) -> f64 {
    at.as_second() as f64
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
