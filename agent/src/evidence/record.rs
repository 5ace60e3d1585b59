//! What an entry of the evidence log tells. Pure.
//!
//! Logs are kept for years: fields are added and never renamed, new ones have a default, and names are texts here, so that
//! what once was a name can always be read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::Sha256;
use crate::generation::{Class, CutMethod, Document, Grade};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A run: a generation was made and brought into stores, or could not be.
    Run(Run),
    /// A restore was rehearsed.
    Drill(Drill),
    /// Generations were removed because retention said so.
    Prune(Prune),
    /// What is stored was read again and hashed.
    Verify(Verify),
    /// What a store really does was tried.
    Probe(Probe),
    /// Somebody proved what an identity opens.
    KeyProof(KeyProof),
    /// A report never reached whom it was for.
    Undelivered(Undelivered),
    /// Something that a newer program wrote.
    #[serde(other)]
    Unknown,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it began; it ended when the entry was added.
    pub began: Option<Timestamp>,
    /// The exit code it ended with.
    pub exit_code: u8,
    /// The new generation, if one was captured.
    pub generation: Option<RunGeneration>,
    /// What became of it in each store, and of what earlier runs had left unfinished.
    pub stores: Vec<RunStore>,
    /// Why there was no run, or none to its end.
    pub messages: Vec<String>,
    /// What to do about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// The generation that a run captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunGeneration {
    /// Its name.
    pub id: String,
    /// Rolling or archival.
    pub class: Class,
    /// How far it is of one instant and whole.
    pub grade: Grade,
    /// What the operator called it.
    pub label: Option<String>,
    /// The instant is not earlier than this.
    pub cut_not_before: Timestamp,
    /// The instant is not later than this.
    pub cut_not_after: Timestamp,
    /// How the instant was had.
    pub cut_method: CutMethod,
    /// Longest time that any writer was held, in microseconds.
    pub held_us_max: u64,
    /// What was copied.
    pub sources: Vec<RunSource>,
    /// What is missing or not as asked for.
    pub problems: Vec<RunProblem>,
}

impl RunGeneration {
    /// What is kept of a generation: of what is the same of several files, how many they are.
    pub fn of(document: &Document) -> Self {
        let source = |source: &crate::generation::SourceRecord| RunSource {
            name: source.name.to_string(),
            source: source.kind.clone(),
            entries: source.entries,
            bytes: source.bytes,
        };
        let mut problems: Vec<RunProblem> = Vec::new();
        for problem in &document.problems {
            let (source, files) = (problem.source.to_string(), problem.path.as_ref().map(|_| 1));
            let same = problems.iter_mut().find(|known| {
                known.source == source
                    && known.what == problem.what
                    && known.missing == problem.missing
                    && known.files.is_some() == files.is_some()
            });
            match same {
                Some(known) => known.files = known.files.map(|count| count + 1),
                None => {
                    problems.push(RunProblem { source, what: problem.what.clone(), missing: problem.missing, files })
                }
            }
        }
        Self {
            id: document.generation.to_string(),
            class: document.class,
            grade: document.grade,
            label: document.label.clone(),
            cut_not_before: document.cut.not_before,
            cut_not_after: document.cut.not_after,
            cut_method: document.cut.method,
            held_us_max: document.cut.held_us_max,
            sources: document.sources.iter().map(source).collect(),
            problems,
        }
    }

    /// Whether the source of this name is a folder that held nothing.
    pub fn is_empty_folder(&self, name: &str) -> bool {
        // A folder is an entry itself.
        self.sources.iter().any(|source| source.name == name && source.source == "folder" && source.entries == 1)
    }

    /// What is not in it that should be, each source once: a clause such as `` `ledger` is missing `` or `` 3 files of
    /// `documents` could not be copied ``, and the first reason.
    pub fn shortfalls(&self) -> Vec<(String, &str)> {
        let mut sources: Vec<&str> = Vec::new();
        let missing = || self.problems.iter().filter(|problem| problem.missing);
        for problem in missing() {
            if !sources.contains(&problem.source.as_str()) {
                sources.push(&problem.source);
            }
        }
        let shortfall = |name: &str| {
            let of = || missing().filter(|problem| problem.source == name);
            let entries = self.sources.iter().find(|source| source.name == name).map_or(0, |source| source.entries);
            let files: u64 = of().filter_map(|problem| problem.files).sum();
            let whole = of().find(|problem| problem.files.is_none());
            let clause = match (whole, files) {
                (Some(_), _) if entries == 0 => format!("`{name}` is missing"),
                (Some(_), _) if self.is_empty_folder(name) => format!("`{name}` is empty"),
                (Some(_), _) => format!("something of `{name}` could not be copied"),
                (None, 1) => format!("1 file of `{name}` could not be copied"),
                (None, files) => format!("{files} files of `{name}` could not be copied"),
            };
            (clause, whole.or_else(|| of().next()).map_or("", |problem| problem.what.as_str()))
        };
        sources.into_iter().map(shortfall).collect()
    }
}

/// One source of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSource {
    /// Its name.
    pub name: String,
    /// Its type in the configuration, such as `sqlite`.
    pub source: String,
    /// Files and folders in it.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Something that is missing from a generation or not as asked for. Files are counted, not named: names of files stay in
/// the copy itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProblem {
    /// The source.
    pub source: String,
    /// One sentence.
    pub what: String,
    /// Whether the generation is incomplete because of it.
    pub missing: bool,
    /// Of how many files and folders it is true; nothing if it is about the whole source.
    pub files: Option<u64>,
}

/// What became of one generation in one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStore {
    /// The store.
    pub store: String,
    /// Which disk, if it is one of a rotation; nothing if none of them was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Which disk of the rotation comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bring: Option<String>,
    /// The generation.
    pub generation: String,
    /// Whether an earlier run had begun it.
    pub resumed: bool,
    /// Whether the store has it.
    pub stored: bool,
    /// Whether it is a full one.
    pub full: Option<bool>,
    /// Bytes of its content.
    pub content_bytes: Option<u64>,
    /// Bytes that were sent for it.
    pub sent_bytes: Option<u64>,
    /// The exit code that this store alone would have given the run.
    pub exit_code: u8,
    /// What went wrong, with its causes.
    pub messages: Vec<String>,
    /// What somebody has to look into although the store has the generation, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A rehearsed restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// The generation that was restored.
    pub generation: String,
    /// Where it was taken from.
    pub store: String,
    /// Whether everything that was looked at is good.
    pub passed: bool,
    /// Files that were restored and compared with their SHA-256.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How long it may take, in milliseconds, if that is set.
    pub target_ms: Option<u64>,
    /// The databases, each with what was found.
    pub databases: Vec<DrilledDatabase>,
    /// Everything that is not good, a sentence each.
    pub findings: Vec<String>,
    /// What was not looked at, and why.
    pub not_done: Vec<String>,
    /// Where a generation was looked for, if none was chosen before the stores were out of reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// Why it could not even be tried: a key or a folder of this machine was missing, or the stores out of reach, which are named
    /// then. It says nothing of the copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tried: Option<String>,
}

/// One database in a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledDatabase {
    /// Its name: the source, and the database in it if there are several.
    pub name: String,
    /// The engine that opened it.
    pub engine: String,
    /// Whether it was opened and is sound; nothing if it was not opened.
    pub sound: Option<bool>,
}

/// Generations that were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// The store, or `local`.
    pub store: String,
    /// What was removed.
    pub removed: Vec<String>,
    /// How many generations are kept.
    pub kept: u64,
    /// Bytes that became free, as far as is known.
    pub freed_bytes: u64,
    /// Why nothing, or not all of the plan, was removed.
    pub refused: Vec<String>,
}

/// What is stored was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// The store.
    pub store: String,
    /// Generations that were looked at.
    pub generations: u64,
    /// Packs that were read and are whole.
    pub packs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Packs that were there and not read this time.
    pub packs_not_read: u64,
    /// What is not as it should be, and why the store could not be read.
    pub findings: Vec<String>,
    /// Packs that are missing or have other bytes than were stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad: Vec<Sha256>,
    /// Packs that an earlier verification found bad, and that are whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mended: Vec<Sha256>,
}

impl Verify {
    /// Whether nothing was read at all, so that what is stored may well be whole.
    pub fn read_nothing(&self) -> bool {
        self.generations == 0 && self.packs == 0 && !self.findings.is_empty()
    }

    /// The packs that are bad after `all` of these verifications, the oldest first.
    pub fn bad_packs<'a>(all: impl Iterator<Item = &'a Self>) -> BTreeSet<Sha256> {
        let mut bad = BTreeSet::new();
        for verify in all {
            bad.retain(|sha256| !verify.mended.contains(sha256));
            bad.extend(&verify.bad);
        }
        bad
    }
}

/// What a store really does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The store.
    pub store: String,
    /// Whether it does all that is relied on.
    pub passed: bool,
    /// What was found, a line each.
    pub findings: Vec<String>,
}

/// A proof of what an identity opens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyProof {
    /// Who proved it: the account and the machine.
    pub who: String,
    /// The recipients whose secret half was at hand.
    pub opens: Vec<String>,
    /// The other recipients of the configuration.
    pub not_proved: Vec<String>,
    /// Generations whose manifests were opened.
    pub generations: Vec<String>,
    /// Generations that could not be opened.
    pub not_opened: Vec<String>,
}

/// A report that was tried for days and given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Whom it was for, as the configuration calls it.
    pub to: String,
    /// What it was about.
    pub subject: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last try failed.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_bad_until_a_later_verification_finds_it_whole() {
        let [one, other] = [b"1", b"2"].map(|content| Sha256::of(content));
        let found = Verify { bad: vec![one, other], ..Verify::default() };
        let pack = format!("`townhall/rolling/20261122T233004Z-7f3a/packs/01-0002-{one}.age`: it cannot be read");
        let unplugged = Verify { findings: vec![pack], ..Verify::default() };
        let mended = Verify { mended: vec![other], ..Verify::default() };
        assert_eq!(Verify::bad_packs([&unplugged].into_iter()), BTreeSet::new());
        assert_eq!(Verify::bad_packs([&found, &unplugged, &mended].into_iter()), [one].into());
        assert_eq!(Verify::bad_packs([&mended, &found].into_iter()), [one, other].into());
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Verify>(&text).unwrap(), found);
    }
}
