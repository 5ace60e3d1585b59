//! What was planned and done, for people and for programs.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Size;
use crate::evidence;
use crate::failure::Kind;
use crate::generation::{Class, Grade};
use crate::prune::local::LocalPlan;
use crate::prune::{Freed, Hidden, Judged, Plan};
use crate::retention::{Brake, End, Reason};

use super::show;

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) site: String,
    pub(super) dry_run: bool,
    pub(super) places: Vec<PlaceReport>,
}

/// One place.
#[derive(Serialize)]
pub(super) struct PlaceReport {
    place: String,
    generations: Vec<Generation>,
    /// Objects that go, in the order in which they go; nothing for this machine, whose generations are folders.
    removals: Vec<Object>,
    removed_bytes: u64,
    untouched: Vec<String>,
    brakes: Vec<BrakeReport>,
    /// What becomes of what is removed, if the place keeps versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Hidden>,
    /// What lifts the brakes of this plan.
    hash: String,
    #[serde(flatten)]
    ending: Ending,
}

#[derive(Serialize)]
struct Generation {
    id: String,
    class: Class,
    stored: Option<Timestamp>,
    grade: Option<Grade>,
    expires: bool,
    reasons: Vec<Reason>,
    end: End,
}

#[derive(Serialize)]
struct Object {
    key: String,
    bytes: u64,
}

#[derive(Serialize)]
struct BrakeReport {
    name: &'static str,
    message: String,
    #[serde(flatten)]
    brake: Brake,
}

/// How it ended in one place.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "ended")]
pub(super) enum Ending {
    /// Only looked.
    Planned,
    /// Done, or nothing was to be done.
    Pruned {
        /// How much.
        removed: Freed,
    },
    /// Something speaks against it.
    Braked,
    /// The configuration leaves it to the keeper.
    LeftToKeeper,
    /// It could not be looked at, or not done.
    Failed {
        /// Why.
        messages: Vec<String>,
        #[serde(skip)]
        kind: Kind,
    },
}

impl PlaceReport {
    /// What was removed, and what should have been, as the evidence log keeps it: nothing of what was only looked at.
    pub(super) fn record(&self) -> Option<evidence::Prune> {
        let expiring = self.generations.iter().filter(|generation| generation.expires);
        let expiring: Vec<String> = expiring.map(|generation| generation.id.clone()).collect();
        let kept = (self.generations.len() - expiring.len()) as u64;
        let none = evidence::Prune { store: self.place.clone(), kept, ..evidence::Prune::default() };
        match &self.ending {
            // A night on which nothing had to go is no evidence of anything.
            Ending::Pruned { .. } if expiring.is_empty() => None,
            Ending::Pruned { removed } => {
                Some(evidence::Prune { removed: expiring, freed_bytes: removed.bytes, ..none })
            }
            Ending::Braked => {
                let refused = self.brakes.iter().map(|brake| brake.message.clone()).collect();
                Some(evidence::Prune { kept: self.generations.len() as u64, refused, ..none })
            }
            Ending::Failed { messages, .. } => {
                Some(evidence::Prune { kept: self.generations.len() as u64, refused: messages.clone(), ..none })
            }
            Ending::Planned | Ending::LeftToKeeper => None,
        }
    }

    pub(super) fn of_store(name: &str, plan: &Plan, versions: Option<Hidden>, ending: Ending) -> Self {
        let removals: Vec<Object> =
            plan.removals.iter().map(|removal| Object { key: removal.key.to_string(), bytes: removal.bytes }).collect();
        Self {
            place: name.to_owned(),
            generations: plan.generations.iter().map(generation).collect(),
            removed_bytes: removals.iter().map(|object| object.bytes).sum(),
            removals,
            untouched: plan.untouched.clone(),
            brakes: plan.brakes.iter().map(brake).collect(),
            versions,
            hash: plan.hash.clone(),
            ending,
        }
    }

    pub(super) fn of_local(plan: &LocalPlan, ending: Ending) -> Self {
        Self {
            place: "local".to_owned(),
            generations: plan.generations.iter().map(generation).collect(),
            removals: Vec::new(),
            removed_bytes: 0,
            untouched: Vec::new(),
            brakes: plan.brakes.iter().map(brake).collect(),
            versions: None,
            hash: plan.hash.clone(),
            ending,
        }
    }

    pub(super) fn failed(name: &str, kind: Kind, messages: Vec<String>) -> Self {
        Self {
            place: name.to_owned(),
            generations: Vec::new(),
            removals: Vec::new(),
            removed_bytes: 0,
            untouched: Vec::new(),
            brakes: Vec::new(),
            versions: None,
            hash: String::new(),
            ending: Ending::Failed { messages, kind },
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.place);
        for generation in &self.generations {
            text.push_str(&generation.text());
        }
        for why in &self.untouched {
            text.push_str(&format!("  left as it is: {why}\n"));
        }
        let expiring = self.generations.iter().filter(|generation| generation.expires).count() as u64;
        let objects = if self.place == "local" {
            String::new()
        } else {
            format!(", {} of {}", show::counted(self.removals.len() as u64, "object"), Size(self.removed_bytes))
        };
        let what = format!("{}{objects}", show::counted(expiring, "generation"));
        text.push_str(&match &self.ending {
            Ending::Planned if self.brakes.is_empty() => format!("  would be removed: {what}\n"),
            Ending::Planned => format!("  would be removed if nothing spoke against it: {what} (plan {})\n", self.hash),
            Ending::Pruned { .. } => format!("  removed: {what}\n"),
            Ending::Braked => format!("  NOT removed: {what} (plan {})\n", self.hash),
            Ending::LeftToKeeper => format!("  left to the keeper: {what}\n"),
            Ending::Failed { .. } => "  FAILED\n".to_owned(),
        });
        if let Some(versions) = &self.versions {
            text.push_str(&format!("  note: {versions}\n"));
        }
        for brake in &self.brakes {
            text.push_str(&format!("  BRAKE {}\n", brake.message));
        }
        text
    }
}

impl Generation {
    fn text(&self) -> String {
        let word = if self.expires { "expire" } else { "keep" };
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        let end = match self.end {
            End::NotBefore(at) => format!("; goes on {} at the earliest", show::day(at)),
            End::Now | End::Never => String::new(),
        };
        format!("  {word:6}  {}  {}{end}\n", self.id, reasons.join(", "))
    }
}

impl Report {
    pub(super) fn exit_code(&self) -> u8 {
        let codes = self.places.iter().map(|place| match &place.ending {
            Ending::Failed { kind, .. } => kind.code(),
            Ending::Braked => Kind::Failed.code(),
            Ending::Planned if !place.brakes.is_empty() => Kind::Failed.code(),
            Ending::Planned | Ending::Pruned { .. } | Ending::LeftToKeeper => 0,
        });
        codes.max().unwrap_or(0)
    }

    pub(super) fn text(&self) -> String {
        if self.places.is_empty() {
            return format!("There is no generation of {} yet.\n", self.site);
        }
        self.places.iter().map(PlaceReport::text).collect::<Vec<_>>().join("\n")
    }

    /// What went wrong, for standard error.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for place in &self.places {
            match &place.ending {
                Ending::Failed { messages, .. } => {
                    lines.push(format!("error: {}\n  because: {}", place.place, messages.join("\n  because: ")));
                }
                Ending::Braked => {
                    let names: Vec<&str> = place.brakes.iter().map(|brake| brake.name).collect();
                    lines.push(format!(
                        "error: nothing was removed from {}: {}\n  what to do: look at what is said above. If this plan is \
                         right all the same, `offsite prune --lift {}` does it, and this plan only",
                        place.place,
                        names.join(", "),
                        place.hash
                    ));
                }
                Ending::Planned | Ending::Pruned { .. } | Ending::LeftToKeeper => {}
            }
        }
        lines
    }
}

fn generation(judged: &Judged) -> Generation {
    let Judged { subject, verdict, end } = judged;
    Generation {
        id: subject.id.to_string(),
        class: subject.class,
        stored: subject.at,
        grade: subject.facts.as_ref().map(|facts| facts.grade),
        expires: verdict.expires(),
        reasons: verdict.reasons.clone(),
        end: *end,
    }
}

fn brake(brake: &Brake) -> BrakeReport {
    BrakeReport { name: brake.name(), message: brake.to_string(), brake: brake.clone() }
}
