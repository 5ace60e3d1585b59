//! A day or a week in one mail. Pure.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};

use super::compose::standing_table;
use super::{Context, Kind, Report, Row, Table, compose, counted};
use crate::evidence::Record;

/// How often somebody wants a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Each day.
    Daily,
    /// Each week, on Mondays.
    Weekly,
}

impl Period {
    /// Whether a summary is due at `now` if the last one was made at `last`: as soon as another day or week has begun.
    pub fn is_due(self, last: Timestamp, context: &Context<'_>) -> bool {
        self.start(context.calendar.date_of(last)) < self.start(context.calendar.date_of(context.now))
    }

    /// The first day of the period that `day` is in.
    fn start(self, day: Date) -> Date {
        match self {
            Self::Daily => day,
            Self::Weekly => {
                let monday = day.checked_sub(i64::from(day.weekday().to_monday_zero_offset()).days());
                monday.unwrap_or(day)
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Daily => "day",
            Self::Weekly => "week",
        }
    }
}

impl FromStr for Period {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "daily" => Ok(Self::Daily),
            "weekly" => Ok(Self::Weekly),
            _ => Err("write daily or weekly"),
        }
    }
}

/// Everything since `since`, a line each.
pub fn digest(period: Period, since: Timestamp, context: &Context<'_>) -> Report {
    let entries: Vec<_> = context.history.iter().filter(|entry| entry.at > since && entry.at <= context.now).collect();
    let mut rows = Vec::new();
    let (mut runs, mut good, mut others, mut todo) = (0, 0, 0, Vec::new());
    for entry in &entries {
        let Some(report) = compose(entry, context) else { continue };
        let is_run = matches!(entry.record, Record::Run(_));
        let bad = report.kind.is_bad();
        runs += u64::from(is_run);
        good += u64::from(is_run && report.kind == Kind::Success);
        others += u64::from(!is_run && bad);
        rows.push(Row::new(bad, [context.minute(entry.at), report.verdict]));
        if bad {
            todo = report.todo;
        }
    }
    let word = period.word();
    let verdict = match (runs, good) {
        (0, _) => format!("In the last {word} there was NO BACKUP at all."),
        (1, 1) => format!("In the last {word} there was one backup, and it is complete."),
        (runs, good) if runs == good => format!("In the last {word} all {runs} backups were complete."),
        (runs, good) => format!("In the last {word} {good} of {} were complete.", counted(runs, "backup")),
    };
    let others = match others {
        0 => String::new(),
        1 => "1 thing is NOT as it should be".to_owned(),
        more => format!("{more} things are NOT as they should be"),
    };
    let (verdict, others) = if others.is_empty() {
        (verdict, others)
    } else {
        (format!("{verdict} But {others}: see below."), format!(", and {others}"))
    };
    let tables = vec![Table::new("What happened", &["When", "What"], rows), standing_table(context)];
    let subject = format!("{}: the last {word}: {good} of {runs} backups complete{others}", context.site);
    Report {
        kind: Kind::Digest,
        site: context.site.to_owned(),
        at: context.now,
        subject,
        verdict,
        tables,
        todo,
        evidence: context.history.anchor(),
    }
}
