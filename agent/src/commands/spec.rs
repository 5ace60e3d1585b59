//! A source or store as it is given on the command line of `offsite init`, and as it is written into the configuration.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Settings in the order in which they were given, each with all its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec(Vec<(String, Vec<String>)>);

/// Settings that are lists even with one value.
const LISTS: [&str; 7] = ["include", "exclude", "command", "check", "hold", "release", "databases"];
/// Settings that are neither texts nor lists.
const BARE: [&str; 2] = ["path_style", "port"];

impl Spec {
    /// `key=value,key=value`, with `\,` for a comma; or, by itself, a folder or an SQLite file.
    pub(super) fn source(text: &str) -> Result<Self, String> {
        if let Some(spec) = Self::pairs(text) {
            return spec;
        }
        let path = std::path::absolute(text).map_err(|error| format!("`{text}` is no path: {error}"))?;
        let kind = if path.is_dir() {
            "folder"
        } else if is_sqlite(&path) {
            "sqlite"
        } else {
            return Err(format!("{} is neither a folder nor an SQLite database", path.display()));
        };
        let name = path.file_stem().map(|stem| slug(&stem.to_string_lossy())).unwrap_or_default();
        let name = if name.is_empty() { "files".to_owned() } else { name };
        Ok(Self::of([("name", &name), ("type", kind), ("path", &path.to_string_lossy())]))
    }

    /// `key=value,key=value`; or, by itself, a folder, `s3://BUCKET/PREFIX` or a WebDAV address.
    pub(super) fn store(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let mut spec = Self::of([("name", slug(bucket).as_str()), ("type", "s3"), ("bucket", bucket)]);
            if !prefix.is_empty() {
                spec.push("prefix", prefix);
            }
            return Ok(spec);
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            let host = text.split('/').nth(2).unwrap_or_default();
            return Ok(Self::of([("name", slug(host).as_str()), ("type", "webdav"), ("url", text)]));
        }
        if let Some(spec) = Self::pairs(text) {
            return spec;
        }
        let path = std::path::absolute(text).map_err(|error| format!("`{text}` is no path: {error}"))?;
        let name = path.file_name().map(|name| slug(&name.to_string_lossy())).unwrap_or_default();
        let name = if name.is_empty() { "folder".to_owned() } else { name };
        Ok(Self::of([("name", &name), ("type", "directory"), ("path", &path.to_string_lossy())]))
    }

    /// Adds a setting.
    pub(super) fn push(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, values)) => values.push(value.to_owned()),
            None => self.0.push((key.to_owned(), vec![value.to_owned()])),
        }
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key)?.1.first().map(String::as_str)
    }

    /// The settings there are.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Changes the name, which others have already.
    pub(super) fn rename(&mut self, name: String) {
        if let Some((_, values)) = self.0.iter_mut().find(|(key, _)| key == "name") {
            *values = vec![name];
        }
    }

    /// The table `[[header]]` of a configuration.
    pub(super) fn to_toml(&self, header: &str) -> String {
        let mut text = format!("[[{header}]]\n");
        for (key, values) in &self.0 {
            let quoted: Vec<String> = values.iter().map(|value| quote(value)).collect();
            let value = match values.as_slice() {
                [value] if BARE.contains(&key.as_str()) => value.clone(),
                [_] if !LISTS.contains(&key.as_str()) => quoted.concat(),
                _ => format!("[{}]", quoted.join(", ")),
            };
            text.push_str(&format!("{key} = {value}\n"));
        }
        text
    }

    fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).collect())
    }

    /// `None` if the text does not begin like `key=`.
    fn pairs(text: &str) -> Option<Result<Self, String>> {
        let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        text.split_once('=').filter(|(key, _)| is_key(key))?;
        let mut spec = Self(Vec::new());
        for piece in split_at_commas(text) {
            match piece.split_once('=') {
                Some((key, value)) if is_key(key) => spec.push(key, value),
                _ => {
                    return Some(Err(format!(
                        "`{piece}` is not of the form key=value; a comma in a value is written `\\,`"
                    )));
                }
            }
        }
        Some(Ok(spec))
    }
}

/// A text as TOML writes it.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What of `text` can stand in a name: lower case, and `-` for everything else.
pub(super) fn slug(text: &str) -> String {
    let mapped: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' })
        .take(64)
        .collect();
    mapped.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn split_at_commas(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.peek() == Some(&',') => {
                characters.next();
                pieces.last_mut().map(|piece| piece.push(',')).unwrap_or_default();
            }
            ',' => pieces.push(String::new()),
            c => pieces.last_mut().map(|piece| piece.push(c)).unwrap_or_default(),
        }
    }
    pieces
}

fn is_sqlite(path: &Path) -> bool {
    let mut head = [0; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && &head == b"SQLite format 3\0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_a_table() {
        let spec = Spec::store(r"name=cloud,type=s3,bucket=a\,b,path_style=true").unwrap();
        assert_eq!(
            spec.to_toml("store"),
            "[[store]]\nname = \"cloud\"\ntype = \"s3\"\nbucket = \"a,b\"\npath_style = true\n"
        );
        let spec = Spec::source("name=docs,type=folder,path=/srv,exclude=*.tmp,exclude=~*").unwrap();
        assert!(spec.to_toml("source").ends_with("exclude = [\"*.tmp\", \"~*\"]\n"));
        assert!(Spec::store("name=cloud,typo").is_err());
    }

    #[test]
    fn a_place_by_itself_is_recognized() {
        let folder = tempfile::tempdir().unwrap();
        let spec = Spec::source(&folder.path().to_string_lossy()).unwrap();
        assert_eq!(spec.get("type"), Some("folder"));
        assert!(Spec::source("/no/such/path").is_err());
        assert_eq!(Spec::store("s3://bucket/a/b").unwrap().get("prefix"), Some("a/b"));
        assert_eq!(Spec::store("https://dav.example.org/x/").unwrap().get("name"), Some("dav.example.org"));
        assert_eq!(Spec::store("/mnt/Backup Disk").unwrap().get("name"), Some("backup-disk"));
    }
}
