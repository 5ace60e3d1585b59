//! Golden timelines: histories in readable text files, and what becomes of each generation.
//!
//! A case begins with `#` and its title. Times are those of its `zone`. `gen` is one generation and `nights` one for each
//! night of a time, stored in the order of the file; `keep` says which stay, with every reason. All others expire.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::*;
use crate::calendar::{Calendar, weekday};
use crate::format::pruned::Ranges;
use crate::retention::{Evidence, Limits, brakes, judge};

const FILES: [(&str, &str); 6] = [
    ("rules", include_str!("timelines/rules.txt")),
    ("calendar", include_str!("timelines/calendar.txt")),
    ("ages", include_str!("timelines/ages.txt")),
    ("archival", include_str!("timelines/archival.txt")),
    ("trouble", include_str!("timelines/trouble.txt")),
    ("years", include_str!("timelines/years.txt")),
];

struct Case<'t> {
    title: &'t str,
    calendar: Calendar,
    rules: Rules,
    limits: Limits,
    now: Timestamp,
    ours: Timestamp,
    subjects: Vec<Subject>,
    /// By the time of each generation, as the file writes it.
    named: BTreeMap<GenerationId, String>,
    keep: BTreeMap<String, String>,
    brakes: Option<&'t str>,
    pruned: Ranges,
    heartbeat: Option<u64>,
}

const NONE: Rules =
    Rules { last: 0, working_days: 0, daily: 0, weekly: 0, monthly: 0, min_age: None, max_age: None, floor: 0 };

#[test]
fn what_becomes_of_every_generation_of_every_timeline() {
    let (mut cases, mut wrong) = (0, Vec::new());
    for (file, text) in FILES {
        for text in text.split("\n# ").skip(1) {
            let case = Case::read(text);
            cases += 1;
            let got = case.outcome();
            if got != case.expected() {
                wrong.push(format!("{file}: {}\n  is\n{got}  and should be\n{}", case.title, case.expected()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 40, "only {cases} cases were found");
}

impl<'t> Case<'t> {
    fn read(text: &'t str) -> Self {
        let (title, body) = text.split_once('\n').unwrap();
        let mut case = Self {
            title,
            calendar: Calendar::new(TimeZone::UTC),
            rules: NONE,
            limits: Limits { newest_age: Age::days(3), shrink_percent: 50, grow_percent: 300, remove_percent: 100 },
            now: Timestamp::UNIX_EPOCH,
            ours: Timestamp::UNIX_EPOCH,
            subjects: Vec::new(),
            named: BTreeMap::new(),
            keep: BTreeMap::new(),
            brakes: None,
            pruned: Ranges::default(),
            heartbeat: None,
        };
        for line in body.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//")) {
            case.line(line);
        }
        case
    }

    fn line(&mut self, line: &'t str) {
        let (word, rest) = line.split_once(' ').unwrap();
        let words: Vec<&str> = rest.split_whitespace().collect();
        match word {
            "zone" => self.calendar = Calendar::new(TimeZone::get(rest).unwrap()),
            "working" => {
                let days = words.iter().map(|day| weekday(day).unwrap());
                self.calendar = self.calendar.clone().with_working_days(days);
            }
            "holidays" => {
                let days = words.iter().map(|day| day.parse().unwrap());
                self.calendar = self.calendar.clone().with_holidays(days);
            }
            "rules" => words.iter().for_each(|word| self.rule(word)),
            "now" => (self.now, self.ours) = (self.time(rest), self.time(rest)),
            "ours" => self.ours = self.time(rest),
            "pruned" => words.iter().for_each(|number| self.pruned.insert(number.parse().unwrap())),
            "heartbeat" => self.heartbeat = Some(rest.parse().unwrap()),
            "gen" => self.generation(words[0].parse().unwrap(), words[1], &words[2..]),
            "nights" => {
                let (mut day, end): (Date, Date) = (words[0].parse().unwrap(), words[1].parse().unwrap());
                while day <= end {
                    self.generation(day, words[2], &words[3..]);
                    day = day.tomorrow().unwrap();
                }
            }
            "keep" => {
                let (time, reasons) = rest.split_once(": ").unwrap();
                assert!(self.keep.insert(time.to_owned(), reasons.to_owned()).is_none(), "{time} is named twice");
            }
            "brakes" => self.brakes = Some(rest),
            other => panic!("{}: what is {other}?", self.title),
        }
    }

    fn rule(&mut self, rule: &str) {
        let (name, value) = rule.split_once('=').unwrap();
        let number = || value.parse().unwrap();
        let age = || Some(value.replace('_', " ").parse().unwrap());
        match name {
            "last" => self.rules.last = number(),
            "working_days" => self.rules.working_days = number(),
            "daily" => self.rules.daily = number(),
            "weekly" => self.rules.weekly = number(),
            "monthly" => self.rules.monthly = number(),
            "floor" => self.rules.floor = number(),
            "min_age" => self.rules.min_age = age(),
            "max_age" => self.rules.max_age = age(),
            "share" => self.limits.remove_percent = number(),
            other => panic!("{}: what is {other}?", self.title),
        }
    }

    fn time(&self, text: &str) -> Timestamp {
        let (day, time) = text.split_once(' ').unwrap();
        self.at(day.parse().unwrap(), time)
    }

    /// `23:00`; with a `+` behind it the second of two times of that name.
    fn at(&self, day: Date, time: &str) -> Timestamp {
        let (clock, second) = time.strip_suffix('+').map_or((time, false), |time| (time, true));
        let time: Time = format!("{clock}:00").parse().unwrap();
        let ambiguous = self.calendar.zone().to_ambiguous_timestamp(DateTime::from_parts(day, time));
        if second { ambiguous.later().unwrap() } else { ambiguous.compatible().unwrap() }
    }

    fn generation(&mut self, day: Date, time: &str, options: &[&str]) {
        let at = self.at(day, time);
        // What the name says is meant to be of no account.
        let sequence = self.subjects.len() as u64 + 1;
        let id = GenerationId::new(Timestamp::UNIX_EPOCH + i64::try_from(sequence).unwrap().hours());
        let digest = |number: u64| Sha256::of(&number.to_le_bytes());
        let facts = Facts {
            sequence,
            committed: at,
            grade: Grade::Exact,
            stream_bytes: 1000,
            sources: None,
            lifetime: None,
            sha256: Some(digest(sequence)),
            previous: Some(digest(sequence - 1)).filter(|_| sequence > 1),
        };
        let mut subject = Subject {
            id: id.clone(),
            class: Class::Rolling,
            chain: id.clone(),
            at: Some(at),
            facts: Some(facts),
            unreadable: false,
            held: Vec::new(),
            needed: Vec::new(),
            open: false,
        };
        for option in options {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let text = value.replace('_', " ");
            match (name, subject.facts.as_mut()) {
                ("exact", Some(facts)) => facts.grade = Grade::Exact,
                ("sequential", Some(facts)) => facts.grade = Grade::Sequential,
                ("incomplete", Some(facts)) => facts.grade = Grade::Incomplete,
                ("bytes", Some(facts)) => facts.stream_bytes = value.parse().unwrap(),
                ("sources", Some(facts)) => facts.sources = Some(value.parse().unwrap()),
                ("committed", Some(facts)) => facts.committed = self.at(value.parse().unwrap(), time),
                ("lifetime", Some(facts)) => facts.lifetime = Some(text.parse().unwrap()),
                ("exchanged", Some(facts)) => facts.sha256 = Some(digest(0)),
                ("archival", _) => subject.class = Class::Archival,
                ("held", _) => subject.held.push(text),
                ("needed", _) => subject.needed.push(text),
                ("open", _) => subject.open = true,
                ("foreign", _) => subject.facts = None,
                ("notime", _) => subject.at = None,
                ("gone", _) => subject.needed.push("gone".to_owned()),
                other => panic!("{}: what is {other:?}?", self.title),
            }
        }
        self.named.insert(id, format!("{day} {time}"));
        self.subjects.push(subject);
    }

    fn outcome(&self) -> String {
        // Numbers are given in the order of the file before what is gone is taken away.
        let gone = |subject: &&Subject| !subject.needed.iter().any(|what| what == "gone");
        let subjects: Vec<Subject> = self.subjects.iter().filter(gone).cloned().collect();
        let verdicts = judge(&self.rules, &self.calendar, &subjects, self.now);
        let mut text = String::new();
        for verdict in verdicts.iter().filter(|verdict| !verdict.expires()) {
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            text.push_str(&format!("keep {}: {}\n", self.named[&verdict.id], reasons.join(", ")));
        }
        if self.brakes.is_some() {
            let evidence = Evidence {
                now: self.now,
                ours: self.ours,
                calendar: &self.calendar,
                subjects: &subjects,
                verdicts: &verdicts,
                pruned: &self.pruned,
                heartbeat: self.heartbeat,
                numbered: true,
                unsigned: &[],
                remembered: None,
            };
            let found = brakes(&evidence, &self.limits);
            let names: Vec<&str> = found.iter().map(Brake::name).collect();
            text.push_str(&format!("brakes {}\n", if names.is_empty() { "none".to_owned() } else { names.join(" ") }));
        }
        text
    }

    /// The same lines, in the order of the generations.
    fn expected(&self) -> String {
        let mut keep = self.keep.clone();
        let mut text = String::new();
        for subject in &self.subjects {
            let name = &self.named[&subject.id];
            if let Some(reasons) = keep.remove(name) {
                text.push_str(&format!("keep {name}: {reasons}\n"));
            }
        }
        assert!(keep.is_empty(), "{}: no generation of {keep:?}", self.title);
        if let Some(brakes) = self.brakes {
            text.push_str(&format!("brakes {brakes}\n"));
        }
        text
    }
}
