//! Reads the tables of a configuration key by key, and remembers everything that is wrong with them.
//!
//! A derived deserializer stops at its first error and forgets where it was; whoever repairs a configuration wants all
//! of them, each with its line.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::civil::Date;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The setting, as a path: `store[2].bucket`.
    pub key: String,
    /// The line it stands in, from 1; `None` if it is missing.
    pub line: Option<usize>,
    /// What is wrong and what to do, in one or two sentences.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// The text of a configuration, and what was found out about it.
pub(super) struct Reader<'t> {
    text: &'t str,
    folder: &'t Path,
    problems: RefCell<Vec<Problem>>,
    unset: RefCell<BTreeSet<String>>,
}

/// One table of it. Keys are asked for one by one; [`Section::finish`] reports those nobody asked for.
pub(super) struct Section<'r, 't> {
    reader: &'r Reader<'t>,
    /// With a dot at its end, or empty.
    path: String,
    /// As `path`, with the type instead of the number: what [`Reader::unset`] lists.
    pattern: RefCell<String>,
    table: Option<&'r DeTable<'t>>,
    line: Option<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, folder: &'t Path) -> Self {
        Self { text, folder, problems: RefCell::default(), unset: RefCell::default() }
    }

    /// The folder in which the text lies.
    pub(super) fn folder(&self) -> &Path {
        self.folder
    }

    /// The line in which the byte `at` stands.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
    }

    pub(super) fn report(&self, key: impl Into<String>, line: Option<usize>, what: impl fmt::Display) {
        self.problems.borrow_mut().push(Problem { key: key.into(), line, what: what.to_string() });
    }

    /// What was wrong, from the top of the file to its end; what is missing comes last.
    pub(super) fn into_findings(self) -> (Vec<Problem>, BTreeSet<String>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        (problems, self.unset.into_inner())
    }

    /// The whole document as a section.
    pub(super) fn root<'r>(&'r self, table: &'r DeTable<'t>) -> Section<'r, 't> {
        Section {
            reader: self,
            path: String::new(),
            pattern: RefCell::default(),
            table: Some(table),
            line: None,
            asked: RefCell::default(),
        }
    }
}

impl<'r, 't> Section<'r, 't> {
    /// The value of `key` as text.
    pub(super) fn string(&self, key: &'static str) -> Option<&'r str> {
        match self.value(key)? {
            (_, DeValue::String(text)) => Some(text),
            (span, other) => self.wrong_type(key, &span, other, "text in quotes"),
        }
    }

    /// The text of `key`, taken for a `T`.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        self.string(key)?.parse().map_err(|error| self.report(key, error)).ok()
    }

    /// As [`Section::parsed`]; it is a problem if the key is missing.
    pub(super) fn required<T: FromStr<Err: fmt::Display>>(&self, key: &'static str, remedy: &str) -> Option<T> {
        self.must_have(key, remedy);
        self.parsed(key)
    }

    /// Reports `key` if it is missing.
    pub(super) fn must_have(&self, key: &'static str, remedy: &str) {
        if self.table.is_none_or(|table| table.get(key).is_none()) {
            self.report(key, format_args!("it is missing; {remedy}"));
        }
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        let text = self.string(key)?;
        let path = Path::new(text);
        if path.is_absolute() {
            return Some(path.components().collect());
        }
        self.report(key, format_args!("`{text}` is no absolute path; write it from the root, such as /srv/office"));
        None
    }

    /// As [`Section::path`]; it is a problem if the key is missing.
    pub(super) fn required_path(&self, key: &'static str, remedy: &str) -> Option<PathBuf> {
        self.must_have(key, remedy);
        self.path(key)
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let (span, value) = self.value(key)?;
        let DeValue::Integer(number) = value else {
            return self.wrong_type(key, &span, value, "a whole number");
        };
        let found = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|found| range.contains(found));
        if found.is_none() {
            self.report(key, format_args!("it has to be from {} to {}", range.start(), range.end()));
        }
        found
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            (_, DeValue::Boolean(value)) => Some(*value),
            (span, other) => self.wrong_type(key, &span, other, "true or false"),
        }
    }

    /// A list of texts.
    pub(super) fn strings(&self, key: &'static str) -> Option<Vec<String>> {
        let (span, value) = self.value(key)?;
        let DeValue::Array(items) = value else {
            return self.wrong_type(key, &span, value, "a list of texts in brackets");
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(text.to_string()),
                other => return self.wrong_type(key, &item.span(), other, "a list of texts in brackets"),
            }
        }
        Some(texts)
    }

    /// A text, or a list of texts.
    pub(super) fn one_or_more(&self, key: &'static str) -> Option<Vec<String>> {
        match self.value(key)? {
            (_, DeValue::String(text)) => Some(vec![text.to_string()]),
            _ => self.strings(key),
        }
    }

    /// A table of names and texts, such as environment variables.
    pub(super) fn pairs(&self, key: &'static str) -> Option<Vec<(String, &'r str)>> {
        let (span, value) = self.value(key)?;
        let DeValue::Table(table) = value else {
            return self.wrong_type(key, &span, value, "a table: { NAME = \"value\" }");
        };
        let mut pairs = Vec::new();
        for (name, value) in table.iter() {
            match value.get_ref() {
                DeValue::String(text) => pairs.push((name.get_ref().to_string(), text.as_ref())),
                other => return self.wrong_type(key, &value.span(), other, "a table: { NAME = \"value\" }"),
            }
        }
        Some(pairs)
    }

    /// A day, written without quotes.
    pub(super) fn date(&self, key: &'static str) -> Option<Date> {
        let (span, value) = self.value(key)?;
        let date = match value {
            DeValue::Datetime(found) if found.time.is_none() => found.date,
            _ => return self.wrong_type(key, &span, value, "a day without quotes: 2026-01-15"),
        };
        date.and_then(|date| {
            let (year, month) = (i16::try_from(date.year).ok()?, i8::try_from(date.month).ok()?);
            Date::new(year, month, i8::try_from(date.day).ok()?).ok()
        })
    }

    /// The table that is the value of `key`, such as `{ with = "somebody" }`.
    pub(super) fn inline(&self, key: &'static str) -> Option<Section<'r, 't>> {
        match self.value(key)? {
            (span, DeValue::Table(table)) => {
                let (path, line) = (format!("{}{key}.", self.path), self.reader.line(span.start));
                Some(self.below(path, format!("{key}."), Some(table), Some(line)))
            }
            (span, other) => self.wrong_type(key, &span, other, "a table: { NAME = \"value\" }"),
        }
    }

    /// The table `key`; an empty one if it is missing.
    pub(super) fn section(&self, key: &'static str) -> Section<'r, 't> {
        let (table, line) = match self.seek(key) {
            None => (None, None),
            Some((span, DeValue::Table(table))) => (Some(table), Some(self.reader.line(span.start))),
            Some((span, other)) => {
                self.wrong_type::<()>(key, &span, other, &format!("a table: [{key}]"));
                (None, None)
            }
        };
        self.below(format!("{}{key}.", self.path), format!("{key}."), table, line)
    }

    /// Every table of the list `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'r, 't>> {
        let items: &[_] = match self.seek(key) {
            None => return Vec::new(),
            Some((_, DeValue::Array(items))) => items,
            Some((span, other)) => {
                self.wrong_type::<()>(key, &span, other, &format!("a list of tables: [[{key}]]"));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let path = format!("{}{key}[{}].", self.path, at + 1);
                    let line = Some(self.reader.line(item.span().start));
                    sections.push(self.below(path, format!("{key}."), Some(table), line));
                }
                other => drop(self.wrong_type::<()>(key, &item.span(), other, &format!("a list of tables: [[{key}]]"))),
            }
        }
        sections
    }

    /// From here on, keys of this section count as those of its `kind`.
    pub(super) fn is_of_kind(&self, kind: &str) {
        let mut pattern = self.pattern.borrow_mut();
        *pattern = format!("{}({kind}).", pattern.trim_end_matches('.'));
    }

    /// Whether `key` is there, whatever its value.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// The whole path of `key`: `store[2].bucket`.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Reports something about `key`.
    pub(super) fn report(&self, key: &str, what: impl fmt::Display) {
        let line =
            self.table.and_then(|table| table.get_key_value(key)).map(|(name, _)| self.reader.line(name.span().start));
        self.reader.report(format!("{}{key}", self.path), line.or(self.line), what);
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.table.into_iter().flat_map(|table| table.keys()).map(Spanned::get_ref) {
            if asked.contains(key.as_ref()) {
                continue;
            }
            match asked.iter().find(|known| is_near(known, key)) {
                Some(near) => self.report(key, format_args!("there is no such setting; did you mean `{near}`?")),
                None => {
                    let known = asked.iter().copied().collect::<Vec<_>>().join(", ");
                    self.report(key, format_args!("there is no such setting here; there are: {known}"));
                }
            }
        }
    }

    fn below(
        &self,
        path: String,
        pattern: String,
        table: Option<&'r DeTable<'t>>,
        line: Option<usize>,
    ) -> Section<'r, 't> {
        let pattern = RefCell::new(format!("{}{pattern}", self.pattern.borrow()));
        Section { reader: self.reader, path, pattern, table, line, asked: RefCell::default() }
    }

    /// A key that holds a single value: noted as unset if it is missing.
    fn value(&self, key: &'static str) -> Option<(Range<usize>, &'r DeValue<'t>)> {
        let found = self.seek(key);
        if found.is_none() {
            self.reader.unset.borrow_mut().insert(format!("{}{key}", self.pattern.borrow()));
        }
        found
    }

    fn seek(&self, key: &'static str) -> Option<(Range<usize>, &'r DeValue<'t>)> {
        self.asked.borrow_mut().insert(key);
        let value = self.table?.get(key)?;
        Some((value.span(), value.get_ref()))
    }

    fn wrong_type<T>(&self, key: &str, span: &Range<usize>, found: &DeValue<'_>, wanted: &str) -> Option<T> {
        let what = format!("it has to be {wanted}, not {}", name_of(found));
        self.reader.report(format!("{}{key}", self.path), Some(self.reader.line(span.start)), what);
        None
    }
}

fn name_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether one is the other with one letter wrong, missing, added, or two neighbours exchanged.
fn is_near(known: &str, found: &str) -> bool {
    let (known, found) = (known.as_bytes(), found.as_bytes());
    let head = known.iter().zip(found).take_while(|(a, b)| a == b).count();
    let tail = known.iter().rev().zip(found.iter().rev()).take_while(|(a, b)| a == b).count();
    let (short, long) = (known.len().min(found.len()), known.len().max(found.len()));
    let same = (head + tail).min(short);
    let exchanged = known.len() == found.len()
        && same + 2 == long
        && known.get(head) == found.get(head + 1)
        && known.get(head + 1) == found.get(head);
    (long - short <= 1 && same + 1 >= long) || exchanged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognized() {
        for (known, found) in [("bucket", "buckets"), ("bucket", "buket"), ("bucket", "bukcet"), ("site", "sita")] {
            assert!(is_near(known, found), "{found}");
        }
        for (known, found) in [("bucket", "prefix"), ("site", "stie2"), ("path", "pack_size")] {
            assert!(!is_near(known, found), "{found}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_reported_with_its_line() {
        let text = "site = 3\nsitte = 1\n[seal]\nlevel = 99\n[[store]]\nname = \"a\"\npath = \"here\"\n";
        let document = DeTable::parse(text).unwrap();
        let reader = Reader::new(text, Path::new("/"));
        let root = reader.root(document.get_ref());
        root.string("site");
        let seal = root.section("seal");
        seal.integer("level", 1..=19);
        seal.finish();
        for store in root.sections("store") {
            store.is_of_kind("directory");
            store.parsed::<String>("name");
            store.path("path");
            store.boolean("fast");
            store.finish();
        }
        root.finish();
        let (problems, unset) = reader.into_findings();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 1: site: it has to be text in quotes, not a whole number",
                "line 2: sitte: there is no such setting; did you mean `site`?",
                "line 4: seal.level: it has to be from 1 to 19",
                "line 7: store[1].path: `here` is no absolute path; write it from the root, such as /srv/office",
            ]
        );
        assert_eq!(unset.into_iter().collect::<Vec<_>>(), ["store(directory).fast"]);
    }
}
