//! The chain of lines: how an entry is written, where the next one goes, and what shows that a log was changed. Pure.
//!
//! A line is the JSON of an [`Entry`] whose last member, `signature`, is a minisign signature of the line without that
//! member; so `jq -r .signature` and `sed` give what `minisign -V` checks. The digest of a line is that of its whole text.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EvidenceError, Record};
use crate::format::Sha256;
use crate::ids::SiteName;
use crate::sign::{SignError, SiteKey, SitePublicKey};

/// Version of an entry; a member that is added does not change it.
const VERSION: u32 = 1;
/// What stands between the signed part of a line and the text of its signature.
const SIGNATURE: &str = ",\"signature\":";

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of its form.
    pub version: u32,
    /// The office.
    pub site: String,
    /// Its place in the log, from 1.
    pub number: u64,
    /// When it was added, by this machine's clock.
    pub at: Timestamp,
    /// SHA-256 of the line before it; nothing for the first.
    pub previous: Option<Sha256>,
    /// What was put in order when it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended: Option<Mended>,
    /// What was done.
    pub record: Record,
}

/// What was found at the end of the log when an entry was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mended {
    /// So many bytes after the last entry were part of a line that a loss of power had cut off; they were removed.
    TornBytes(u64),
    /// The head was missing, not genuine, or not that of this log: entries may have been cut off before.
    NoHead,
}

/// How far a log goes: the number and the digest of its last line. Kept elsewhere, it proves later that nothing up to there
/// was removed or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The number of the entry.
    pub number: u64,
    /// SHA-256 of its line.
    pub sha256: Sha256,
}

/// A log as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Every entry that could be read, in the order of the file, with the digest of its line.
    pub entries: Vec<(Entry, Sha256)>,
    /// What shows that the log is not as it was written; empty if nothing does.
    pub findings: Vec<Finding>,
    /// How many entries are signed by the site's key; nothing if signatures were not checked.
    pub signed: Option<u64>,
    /// Entries without a signature, from one number to another: added while the site's key was away. They are chained like
    /// all others, so that what was signed after them vouches for them.
    pub unsigned: Vec<(u64, u64)>,
    /// Bytes after the last entry that are part of a line cut off by a loss of power. The next entry removes them.
    pub torn_bytes: u64,
}

/// Something that shows that a log was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The line of the file, from 1; 0 if it is about the head.
    pub line: usize,
    /// One sentence.
    pub what: String,
}

/// The signed text beside the log that says how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    at: Timestamp,
    last: Anchor,
}

/// Where the next entry goes.
#[derive(Debug)]
pub(super) struct End {
    last: Option<Anchor>,
    mended: Option<Mended>,
    /// What of the file is kept.
    pub(super) keep_bytes: u64,
    /// Whether what is kept ends in the middle of a line.
    pub(super) needs_line_break: bool,
}

impl History {
    /// How far the log goes.
    pub fn anchor(&self) -> Option<Anchor> {
        self.entries.last().map(|(entry, sha256)| Anchor { number: entry.number, sha256: *sha256 })
    }

    /// Whether the log still holds the entry that `anchor` names, as it was.
    pub fn holds(&self, anchor: &Anchor) -> bool {
        self.entries.iter().any(|(entry, sha256)| entry.number == anchor.number && *sha256 == anchor.sha256)
    }

    /// Whether it is whole and signed, in a clause that mails, `status` and the auditor's document have word for word.
    pub fn verdict(&self) -> String {
        if let Some(first) = self.findings.first() {
            let more = match self.findings.len() - 1 {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            return format!("NOT WHOLE: {}{more}", first.what);
        }
        let all = self.entries.len() as u64;
        let entries = if all == 1 { "entry" } else { "entries" };
        let unsigned = self.unsigned_clause().map(|clause| format!("; {clause}")).unwrap_or_default();
        let checked = match self.signed {
            None if all > 0 => "; signatures were not checked, since this machine does not know the site's public key",
            _ => "",
        };
        format!("whole, {all} {entries}{unsigned}{checked}")
    }

    /// Which entries nobody could sign, and why; nothing if all are signed.
    pub fn unsigned_clause(&self) -> Option<String> {
        let all = self.entries.len() as u64;
        let count: u64 = self.unsigned.iter().map(|(first, last)| last - first + 1).sum();
        let (first, last) = (self.unsigned.first()?.0, self.unsigned.last()?.1);
        Some(match count {
            count if count == all => "none of them is signed, since the site's key was not here".to_owned(),
            1 => format!("entry {first} is not signed, because the site's key was away when it was added"),
            count if self.unsigned.len() == 1 => {
                format!("entries {first} to {last} are not signed, because the site's key was away: {count} in all")
            }
            count => format!(
                "{count} entries from {first} to {last} are not signed, because the site's key was away when they were added"
            ),
        })
    }

    /// Whether the site's key is away now: it has signed entries, and not the newest.
    pub fn lacks_key_now(&self) -> bool {
        let newest = self.iter().next_back().map(|entry| entry.number);
        let last = self.unsigned.last().map(|(_, last)| *last);
        let all = self.unsigned.iter().map(|(first, last)| last - first + 1).sum::<u64>() == self.entries.len() as u64;
        newest.is_some() && newest == last && !all
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().map(|(entry, _)| entry)
    }
}

impl End {
    pub(super) fn next(&self, site: &SiteName, record: Record, now: Timestamp) -> Entry {
        Entry {
            version: VERSION,
            site: site.to_string(),
            number: self.last.map_or(1, |last| last.number + 1),
            at: now,
            previous: self.last.map(|last| last.sha256),
            mended: self.mended,
            record,
        }
    }
}

/// The line of an entry as it is written to the file, and what it is known by.
pub(super) fn encode(
    entry: &Entry,
    line_break_before: bool,
    key: Option<&SiteKey>,
) -> Result<(Vec<u8>, Anchor), EvidenceError> {
    let comment = format!("offsite site={} evidence={}", entry.site, entry.number);
    let line = signed(serde_json::to_string(entry)?, &comment, key)?;
    let anchor = Anchor { number: entry.number, sha256: Sha256::of(line.as_bytes()) };
    let before = if line_break_before { "\n" } else { "" };
    Ok((format!("{before}{line}\n").into_bytes(), anchor))
}

/// The head of a log that ends with `last`.
pub(super) fn encode_head(last: &Anchor, now: Timestamp, key: Option<&SiteKey>) -> Result<Vec<u8>, EvidenceError> {
    let head = serde_json::to_string(&Head { version: VERSION, at: now, last: *last })?;
    let comment = format!("offsite evidence head={}", last.number);
    Ok(format!("{}\n", signed(head, &comment, key)?).into_bytes())
}

/// Finds where the next entry goes. What no honest end of the program leaves stays as it is, for whoever reads the log.
pub(super) fn end(log: &[u8], head: Option<&[u8]>, key: Option<&SitePublicKey>) -> End {
    let read = read_lines(log, key);
    let whole = read.iter().rposition(|line| line.entry.is_some()).map_or(0, |at| at + 1);
    let whole = read.get(..whole).unwrap_or_default();
    let last = whole.last().and_then(|line| Some((line.entry.as_ref()?, line)));
    let (anchor, last_end) = match last {
        Some((entry, line)) => (Some(Anchor { number: entry.number, sha256: line.sha256 }), line.end),
        None => (None, 0),
    };
    let head = head.map(|head| decode_head(head, key, &read));
    let tail = (log.len() - last_end) as u64;
    let torn = End {
        last: anchor,
        mended: (tail > 0).then_some(Mended::TornBytes(tail)),
        keep_bytes: last_end as u64,
        needs_line_break: false,
    };
    let kept = |last, mended| End {
        last,
        mended,
        keep_bytes: log.len() as u64,
        needs_line_break: log.last().is_some_and(|byte| *byte != b'\n'),
    };
    match (head, anchor) {
        // Nothing was finished yet, or only the first entry without its head.
        (None, None) => torn,
        (None, Some(anchor)) if anchor.number == 1 => torn,
        (Some(Ok(head)), Some(anchor)) if head == anchor || goes_on(whole, &head) => torn,
        // Something is missing: the next entry leaves the gap where it is.
        (Some(Ok(head)), anchor) if anchor.is_none_or(|anchor| anchor.number <= head.number) => kept(Some(head), None),
        _ => kept(anchor, Some(Mended::NoHead)),
    }
}

/// Reads a log and finds what shows that it was changed.
pub(super) fn check(log: &[u8], head: Option<&[u8]>, key: Option<&SitePublicKey>) -> History {
    let mut lines = read_lines(log, key);
    let head = head.map(|head| decode_head(head, key, &lines));
    let mut history = History::default();
    // What comes after the entry that the head names, and is none, was being written when the power failed.
    let whole = lines.iter().rposition(|line| line.entry.is_some()).map_or(0, |at| at + 1);
    let acknowledged = matches!(&head, Some(Ok(head)) if goes_on(lines.get(..whole).unwrap_or_default(), head));
    if acknowledged || (lines.len() == whole + 1 && !log.ends_with(b"\n")) {
        let kept = whole.checked_sub(1).and_then(|last| lines.get(last)).map_or(0, |line| line.end);
        history.torn_bytes = (log.len() - kept) as u64;
        lines.truncate(whole);
    }
    let mut previous: Option<Anchor> = None;
    for (at, line) in lines.iter().enumerate() {
        history.findings.extend(line.findings(at + 1, previous.as_ref()));
        let number = line.entry.as_ref().map(|entry| entry.number);
        let expected = previous.map_or(1, |previous| previous.number + 1);
        previous = Some(Anchor { number: number.unwrap_or(expected), sha256: line.sha256 });
    }
    history.findings.extend(head_finding(head, &lines));
    if key.is_some() {
        history.signed = Some(lines.iter().filter(|line| matches!(line.signature, Signature::Good)).count() as u64);
    }
    history.findings.extend(signature_findings(&lines));
    history.unsigned = unsigned(&lines);
    history.findings.sort_by_key(|finding| if finding.line == 0 { usize::MAX } else { finding.line });
    history.entries = lines.into_iter().filter_map(|line| Some((line.entry?, line.sha256))).collect();
    history
}

/// One line of the file.
struct Line {
    entry: Option<Entry>,
    sha256: Sha256,
    signature: Signature,
    /// Where the next line begins.
    end: usize,
}

enum Signature {
    Good,
    Missing,
    NotChecked,
    Bad(SignError),
}

impl Line {
    fn follows(&self, before: &Anchor) -> bool {
        let follows = |entry: &Entry| entry.number == before.number + 1 && entry.previous == Some(before.sha256);
        self.entry.as_ref().is_some_and(follows)
    }

    /// The number of an entry whose signature is, or is not, there.
    fn number_if(&self, signed: bool) -> Option<u64> {
        let entry = self.entry.as_ref()?;
        (signed != matches!(self.signature, Signature::Missing)).then_some(entry.number)
    }

    /// What is wrong with it after the line that `previous` names.
    fn findings(&self, line: usize, previous: Option<&Anchor>) -> Vec<Finding> {
        let Some(entry) = &self.entry else {
            return vec![Finding { line, what: "this is no entry of the log: it was changed or damaged".to_owned() }];
        };
        let mut findings = Vec::new();
        let mut say = |what: String| findings.push(Finding { line, what });
        let expected = previous.map_or(1, |previous| previous.number + 1);
        let number = entry.number;
        if number > expected {
            say(format!("entry {number} stands where entry {expected} should: {} removed", missing(expected, number)));
        } else if number < expected {
            say(format!("entry {number} stands where entry {expected} should: it was moved, or added a second time"));
        }
        if number == expected && entry.previous != previous.map(|previous| previous.sha256) {
            say(format!("entry {number} does not go on from the one before it: one of the two was changed"));
        }
        if entry.mended == Some(Mended::NoHead) {
            say(format!(
                "when entry {number} was added, the signed head of the log was missing or not genuine: entries before it \
                 may have been removed"
            ));
        }
        findings
    }
}

/// Whether the log ends as the program leaves it with this head: with the entry that it names; then those that nobody could
/// sign, which have no head; then at most one whose head was not written any more.
fn goes_on(lines: &[Line], head: &Anchor) -> bool {
    let Some(at) = lines.iter().rposition(|line| line.sha256 == head.sha256 && line.entry.is_some()) else {
        return false;
    };
    let after = lines.get(at + 1..).unwrap_or_default();
    let mut before = *head;
    for (number, line) in (1..).zip(after) {
        let may_lack_head = number == after.len() || line.number_if(false).is_some();
        if !line.follows(&before) || !may_lack_head {
            return false;
        }
        before = Anchor { number: before.number + 1, sha256: line.sha256 };
    }
    true
}

fn missing(from: u64, to: u64) -> String {
    if from + 1 == to { format!("entry {from} was") } else { format!("entries {from} to {} were", to - 1) }
}

/// What the head says against the log.
fn head_finding(head: Option<Result<Anchor, ()>>, lines: &[Line]) -> Option<Finding> {
    let last = lines.last().and_then(|line| line.entry.as_ref());
    let number = last.map_or(0, |entry| entry.number);
    let what = match head {
        // The first entry may have been written without its head.
        None if number <= 1 => return None,
        None => "the signed head of the log is missing: entries may have been cut off".to_owned(),
        Some(Err(())) => "the head of the log is not genuine: entries may have been cut off".to_owned(),
        Some(Ok(head)) if goes_on(lines, &head) => return None,
        Some(Ok(head)) if number < head.number => {
            format!("the log ends with entry {number}, and its signed head says {}: the end was cut off", head.number)
        }
        Some(Ok(head)) if number == head.number => {
            format!("entry {number} is not the one that the signed head of the log names: it was changed")
        }
        Some(Ok(head)) => {
            format!(
                "the signed head of the log is an old one, of entry {}; the log ends with entry {number}",
                head.number
            )
        }
    };
    Some(Finding { line: 0, what })
}

/// What the signatures say, the same of many lines in one sentence.
fn signature_findings(lines: &[Line]) -> Vec<Finding> {
    struct Same {
        line: usize,
        first: u64,
        last: u64,
        last_line: usize,
        why: String,
    }
    let mut groups: Vec<Same> = Vec::new();
    for (line, (entry, signature)) in
        lines.iter().enumerate().map(|(at, line)| (at + 1, (&line.entry, &line.signature)))
    {
        let Some(entry) = entry else { continue };
        let why = match signature {
            // What was never signed is told apart from what was changed.
            Signature::Good | Signature::NotChecked | Signature::Missing => continue,
            Signature::Bad(SignError::OtherKey { found, .. }) => {
                format!("signed by another key ({found}); if this site's key was replaced, check with the old one")
            }
            Signature::Bad(_) => "not what was signed: changed".to_owned(),
        };
        match groups.last_mut() {
            Some(group) if group.last_line + 1 == line && group.why == why => {
                (group.last, group.last_line) = (entry.number, line);
            }
            _ => groups.push(Same { line, first: entry.number, last: entry.number, last_line: line, why }),
        }
    }
    let say = |group: Same| {
        let Same { line, first, last, why, .. } = group;
        let what = if first == last {
            format!("entry {first} is {why}")
        } else {
            format!("entries {first} to {last} are {why}")
        };
        Finding { line, what }
    };
    groups.into_iter().map(say).collect()
}

/// Which entries are not signed, those that follow each other together.
fn unsigned(lines: &[Line]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in lines.iter().filter_map(|line| line.number_if(false)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

fn read_lines(log: &[u8], key: Option<&SitePublicKey>) -> Vec<Line> {
    let mut end = 0;
    let pieces = log.split_inclusive(|byte| *byte == b'\n');
    pieces
        .map(|piece| {
            end += piece.len();
            let text = piece.strip_suffix(b"\n");
            let sha256 = Sha256::of(text.unwrap_or(piece));
            // A line without its end was not finished, even if it could be read.
            let decoded = text.and_then(|text| decode::<Entry>(std::str::from_utf8(text).ok()?, key));
            let (entry, signature) = match decoded {
                Some((entry, signature)) => (Some(entry), signature),
                None => (None, Signature::NotChecked),
            };
            Line { entry, sha256, signature, end }
        })
        .collect()
}

/// A head without a signature is genuine only where nothing up to it is signed: on a machine that never had the site's key.
fn decode_head(text: &[u8], key: Option<&SitePublicKey>, lines: &[Line]) -> Result<Anchor, ()> {
    let text = std::str::from_utf8(text).ok().and_then(|text| text.strip_suffix('\n')).ok_or(())?;
    let (Head { last, .. }, signature) = decode::<Head>(text, key).ok_or(())?;
    let signed_before = || lines.iter().any(|line| line.number_if(true).is_some_and(|number| number <= last.number));
    match signature {
        Signature::Good | Signature::NotChecked => Ok(last),
        Signature::Missing if !signed_before() => Ok(last),
        Signature::Missing | Signature::Bad(_) => Err(()),
    }
}

/// Whether a head carries a signature, good or not.
pub(super) fn is_signed(head: &[u8]) -> bool {
    String::from_utf8_lossy(head).contains(SIGNATURE)
}

/// `text`, the JSON of an object, with its signature as the last member.
fn signed(text: String, comment: &str, key: Option<&SiteKey>) -> Result<String, EvidenceError> {
    let (Some(key), Some(open)) = (key, text.strip_suffix('}')) else { return Ok(text) };
    let signature = serde_json::to_string(&key.sign(text.as_bytes(), comment)?)?;
    Ok(format!("{open}{SIGNATURE}{signature}}}"))
}

/// Takes apart what [`signed`] made; nothing if it is not of that form.
fn decode<T: serde::de::DeserializeOwned>(text: &str, key: Option<&SitePublicKey>) -> Option<(T, Signature)> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Tail {
        signature: String,
    }
    // Inside a text of JSON the quotes of the mark would have backslashes.
    let Some((open, _)) = text.rsplit_once(SIGNATURE) else {
        return Some((serde_json::from_str(text).ok()?, Signature::Missing));
    };
    let body = format!("{open}}}");
    let tail: Tail = serde_json::from_str(&format!("{{{}", text.get(open.len() + 1..)?)).ok()?;
    let signature = match key.map(|key| key.verify(body.as_bytes(), &tail.signature)) {
        None => Signature::NotChecked,
        Some(Ok(_)) => Signature::Good,
        Some(Err(error)) => Signature::Bad(error),
    };
    Some((serde_json::from_str(&body).ok()?, signature))
}
