//! The judge of copies: reads nothing but the copies, and finds whatever cannot have been so at any instant.

use std::collections::{BTreeMap, BTreeSet};

use crate::clerks::Book;

/// What is wrong with a set of copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Effects whose cause is missing.
    pub without_cause: usize,
    /// Steps that are missing although the same clerk made a later one that is there.
    pub lost: usize,
    /// Databases whose sums do not agree in themselves, or that SQLite finds damaged.
    pub torn: Vec<String>,
    /// Events in the copies.
    pub events: usize,
}

impl Verdict {
    /// Panics if there is anything wrong, or if fewer than `events` events were judged: then it says nothing.
    #[track_caller]
    pub fn assert_of_one_instant(&self, events: usize) {
        assert!(self.events >= events, "there is nothing to judge: {self:?}");
        assert!(self.without_cause == 0 && self.lost == 0 && self.torn.is_empty(), "{self:?}");
    }
}

/// Judges copies of the books, each under the name of its book.
pub fn judge(copies: &[Book]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut events: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut effects = Vec::new();
    for copy in copies {
        let (torn, rows) = look(copy);
        verdict.torn.extend(torn.then(|| copy.name.to_owned()));
        for row in rows {
            let (id, cause) = row.split_once('|').unwrap();
            verdict.events += 1;
            effects.extend((!cause.is_empty()).then(|| (cause.to_owned(), id.to_owned())));
            events.entry(copy.name).or_default().insert(id.to_owned());
        }
    }
    let caused = |(cause, id): &&(String, String)| events.get(cause.as_str()).is_some_and(|ids| ids.contains(id));
    verdict.without_cause = effects.len() - effects.iter().filter(caused).count();
    verdict.lost = lost(events.values().flatten());
    verdict
}

/// Whether its sums do not agree, and its events, each with its cause.
fn look(copy: &Book) -> (bool, Vec<String>) {
    if let Some(papers) = copy.papers() {
        let whole = |paper: &String| paper.is_empty() || paper.ends_with('\n');
        let rows = papers.iter().flat_map(|paper| paper.lines()).filter(|line| line.contains('|')).map(str::to_owned);
        return (!papers.iter().all(whole), rows.collect());
    }
    let sums =
        "SELECT (SELECT sum(balance) FROM account) || ' ' || ((SELECT n FROM tally) - (SELECT count(*) FROM event))";
    let (sound, sums) = copy.read(sums);
    let (_, rows) = copy.read("SELECT id || '|' || coalesce(cause, '') FROM event");
    (!sound || sums != ["0 0"], rows)
}

/// A clerk makes one step after another, two for each piece of business, which all have a number. Whatever is there of one
/// number, both steps of every smaller number have to be.
fn lost<'a>(ids: impl Iterator<Item = &'a String>) -> usize {
    let mut steps: BTreeMap<&str, BTreeMap<u64, usize>> = BTreeMap::new();
    for id in ids {
        let (clerk, number) = id.split_once('-').unwrap();
        *steps.entry(clerk).or_default().entry(number.parse().unwrap()).or_default() += 1;
    }
    let missing = |business: &BTreeMap<u64, usize>| {
        let last = *business.keys().next_back().unwrap();
        (0..last).map(|number| 2 - business.get(&number).copied().unwrap_or(0).min(2)).sum::<usize>()
    };
    steps.values().map(missing).sum()
}
