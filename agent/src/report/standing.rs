//! How long ago somebody proved that the copies can come back. Pure.

use jiff::Timestamp;

use super::Limits;
use crate::calendar::{Age, Calendar};
use crate::evidence::{History, Record};

/// What the evidence log says of drills and keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When the log began: nobody is reminded of what a new office had no time for.
    pub began: Option<Timestamp>,
    /// The last drill, and whether it passed.
    pub drill: Option<(Timestamp, bool)>,
    /// The last drill that passed.
    pub passed: Option<Timestamp>,
    /// The last proof that an identity opens what is stored.
    pub key_proof: Option<Timestamp>,
}

/// Something that nobody has done for too long.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Nag {
    /// What was not done.
    pub what: String,
    /// How it is done.
    pub remedy: String,
}

/// What is wrong with the evidence log itself.
pub fn log_nags(history: &History) -> Vec<Nag> {
    if !history.findings.is_empty() {
        let remedy = "find out who was at the state folder; `offsite report --from DAY` names each place, and mails that were \
                      kept show how far the log went";
        return vec![Nag { what: format!("the evidence log is {}", history.verdict()), remedy: remedy.to_owned() }];
    }
    let clause = history.unsigned_clause().filter(|_| history.lacks_key_now());
    let remedy = "put the site's signing key back; `offsite check` says where it belongs";
    clause
        .map(|what| Nag { what: format!("of the evidence log, {what}"), remedy: remedy.to_owned() })
        .into_iter()
        .collect()
}

impl Standing {
    /// Looks through the log.
    pub fn of(history: &History) -> Self {
        let mut standing = Self::default();
        for entry in history.iter() {
            standing.began.get_or_insert(entry.at);
            match &entry.record {
                Record::Drill(drill) if drill.not_tried.is_none() => {
                    standing.drill = Some((entry.at, drill.passed));
                    if drill.passed {
                        standing.passed = Some(entry.at);
                    }
                }
                Record::KeyProof(proof) if !proof.opens.is_empty() => standing.key_proof = Some(entry.at),
                _ => {}
            }
        }
        standing
    }

    /// What somebody has to be reminded of.
    pub fn nags(&self, limits: Limits, calendar: &Calendar, now: Timestamp) -> Vec<Nag> {
        let Some(began) = self.began else { return Vec::new() };
        let is_over = |since: Option<Timestamp>, limit: Age| calendar.after(since.unwrap_or(began), limit) <= now;
        let since = |at: Option<Timestamp>| match at {
            Some(at) => format!("for {} days", now.duration_since(at).as_hours() / 24),
            None => format!("in the {} days of this log", now.duration_since(began).as_hours() / 24),
        };
        let mut nags = Vec::new();
        if is_over(self.passed, limits.drill) {
            nags.push(Nag {
                what: format!("no rehearsed restore has passed {} (the limit is {})", since(self.passed), limits.drill),
                remedy: "rehearse one with a secret key at hand: `offsite drill --identity FILE`".to_owned(),
            });
        }
        if is_over(self.key_proof, limits.key_proof) {
            nags.push(Nag {
                what: format!(
                    "nobody has proved {} that the secret keys open the copies (the limit is {})",
                    since(self.key_proof),
                    limits.key_proof
                ),
                remedy: "fetch each key from where it is kept and run `offsite key check --identity FILE`".to_owned(),
            });
        }
        nags
    }
}
