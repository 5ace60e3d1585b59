//! `[local]`, `[rolling]`, `[[archival]]`, `[brake]`: what is kept, and when nothing may go.

use std::fmt;

use super::table::Section;
use crate::calendar::Age;
use crate::retention::{ArchivalRule, Limits, Rules};

/// What is kept, and when nothing may go.
#[derive(Clone, Debug)]
pub struct RetentionConfig {
    /// Of the generations on this machine.
    pub local: Rules,
    /// Of the rolling generations in every store.
    pub rolling: Rules,
    /// Archival generations that are made by the calendar.
    pub archival: Vec<ArchivalRule>,
    /// Where the brakes take hold.
    pub limits: Limits,
}

/// How long something is kept.
struct Lifetime(Option<Age>);

const LOCAL: Rules =
    Rules { last: 3, working_days: 10, daily: 0, weekly: 0, monthly: 0, min_age: None, max_age: None, floor: 3 };
const ROLLING: Rules =
    Rules { last: 7, working_days: 10, daily: 14, weekly: 8, monthly: 12, min_age: None, max_age: None, floor: 1 };
const LIMITS: Limits = Limits { newest_age: Age::days(3), shrink_percent: 50, grow_percent: 300, remove_percent: 50 };

/// So many generations, days, weeks or months a rule may keep.
const MOST: u32 = 10_000;

/// Reads the sections; what is wrong is reported.
pub(super) fn read(root: &Section<'_, '_>) -> RetentionConfig {
    let (rolling, limits) = far_of(root);
    RetentionConfig { local: local(root), rolling, archival: archival(root), limits }
}

/// Rules and brakes of what is off site.
pub(super) fn far_of(root: &Section<'_, '_>) -> (Rules, Limits) {
    far(root, &ROLLING, &LIMITS)
}

/// Rules and brakes of what is off site, with these where `parent` says nothing else.
pub(super) fn far(parent: &Section<'_, '_>, rules: &Rules, brake: &Limits) -> (Rules, Limits) {
    (rolling(parent, rules), limits(parent, brake))
}

fn local(root: &Section<'_, '_>) -> Rules {
    let section = root.section("local");
    let rules = common(&section, &LOCAL);
    section.finish();
    rules
}

fn rolling(parent: &Section<'_, '_>, default: &Rules) -> Rules {
    let section = parent.section("rolling");
    let count = |key, default| section.integer(key, 0..=MOST).unwrap_or(default);
    let rules = Rules {
        daily: count("daily", default.daily),
        weekly: count("weekly", default.weekly),
        monthly: count("monthly", default.monthly),
        ..common(&section, default)
    };
    section.finish();
    rules
}

fn common(section: &Section<'_, '_>, default: &Rules) -> Rules {
    let count = |key, least, default| section.integer(key, least..=MOST).unwrap_or(default);
    let min_age: Option<Age> = section.parsed("min_age").or(default.min_age);
    let max_age: Option<Age> = section.parsed("max_age").or(default.max_age);
    if let (Some(min), Some(max)) = (min_age, max_age)
        && min.least_days() > max.least_days()
    {
        section.report("max_age", "it is less than min_age: nothing could be both that young and that old");
    }
    Rules {
        last: count("last", 0, default.last),
        working_days: count("working_days", 0, default.working_days),
        min_age,
        max_age,
        floor: count("floor", 1, default.floor),
        ..*default
    }
}

fn archival(root: &Section<'_, '_>) -> Vec<ArchivalRule> {
    let mut rules = Vec::new();
    for section in root.sections("archival") {
        let every = section.required("every", "write every = \"month\", \"quarter\" or \"year\"");
        let lifetime = section.required("lifetime", "write how long, such as \"10 years\", or \"for ever\"");
        section.finish();
        if let (Some(every), Some(Lifetime(lifetime))) = (every, lifetime) {
            rules.push(ArchivalRule { every, lifetime });
        }
    }
    rules
}

fn limits(parent: &Section<'_, '_>, default: &Limits) -> Limits {
    let brake = parent.section("brake");
    let percent = |key, most, default| brake.integer(key, 1..=most).unwrap_or(default);
    let limits = Limits {
        newest_age: brake.parsed("newest_age").unwrap_or(default.newest_age),
        shrink_percent: percent("shrink_percent", 100, default.shrink_percent),
        grow_percent: percent("grow_percent", 1_000_000, default.grow_percent),
        remove_percent: percent("remove_percent", 100, default.remove_percent),
    };
    brake.finish();
    limits
}

impl std::str::FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        match text {
            "for ever" => Ok(Self(None)),
            age => age.parse().map(|age| Self(Some(age))).map_err(|_| LifetimeError(text.escape_debug().to_string())),
        }
    }
}

struct LifetimeError(String);

impl fmt::Display for LifetimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no lifetime; write for example `18 months`, `10 years` or `for ever`", self.0)
    }
}
