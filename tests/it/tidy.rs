//! Rules of the house that a compiler does not know, checked on the sources as they are tracked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest source file, without its tests. Longer ones hide a second purpose.
const LINES_MAX: usize = 500;

/// Modules without I/O, clock or async: what decides, decides on values.
const PURE: [&str; 12] = [
    "agent/src/format.rs",
    "agent/src/format/",
    "agent/src/generation.rs",
    "agent/src/entry.rs",
    "agent/src/retention.rs",
    "agent/src/retention/",
    "agent/src/calendar.rs",
    "agent/src/calendar/",
    "agent/src/schedule.rs",
    "agent/src/schedule/",
    "agent/src/report.rs",
    "agent/src/report/",
];

/// What a pure module must not name.
const IMPURE: [&str; 6] = ["tokio::", "std::fs", "std::net", "ObjectStore", "SystemTime", "Timestamp::now"];

#[test]
fn every_source_file_says_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} does not start with `//!`");
    }
}

#[test]
fn no_source_file_is_too_long() {
    for (name, text) in sources() {
        if name.starts_with("tests/it/") || name.ends_with("/tests.rs") {
            continue;
        }
        let lines = without_tests(&text).lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines without its tests; at most {LINES_MAX}");
    }
}

#[test]
fn pure_modules_do_no_io() {
    for (name, text) in sources() {
        if !PURE.iter().any(|pure| name == *pure || (pure.ends_with('/') && name.starts_with(pure))) {
            continue;
        }
        for word in IMPURE {
            assert!(!without_tests(&text).contains(word), "{name} is to be pure, but names {word}");
        }
    }
}

#[test]
fn providers_know_only_names_and_bytes() {
    for (name, text) in sources() {
        if name.starts_with("providers/") {
            assert!(!text.to_lowercase().contains("generation"), "{name} says what the objects mean");
        }
    }
}

#[test]
fn the_unmaintained_crate_is_used_in_one_module() {
    for (name, text) in sources() {
        if name != "providers/src/retry.rs" && name != "tests/it/tidy.rs" {
            assert!(!text.contains("backoff::"), "{name} uses `backoff`; only providers/src/retry.rs may");
        }
    }
}

#[test]
fn the_architecture_names_every_module_of_the_agent() {
    let Ok(architecture) = std::fs::read_to_string(root().join("agent/ARCHITECTURE.md")) else {
        return;
    };
    let modules: BTreeSet<String> = sources()
        .iter()
        .filter_map(|(name, _)| {
            let path = name.strip_prefix("agent/src/")?;
            let module = path.split('/').next()?;
            Some(module.strip_suffix(".rs").unwrap_or(module).to_owned())
        })
        .filter(|module| module != "lib" && module != "main")
        .collect();
    let missing: Vec<&String> =
        modules.iter().filter(|module| !architecture.contains(&format!("`{module}`"))).collect();
    assert!(missing.is_empty(), "agent/ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn no_tracked_file_names_a_place_of_the_machine_it_was_written_on() {
    // Put together here, so that this file does not name them either.
    let places = [["/wo", "rk/"].concat(), ["../sha", "red"].concat(), format!("{}/", root().display())];
    for (name, text) in tracked() {
        for place in &places {
            let named = text.match_indices(place.as_str()).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-".contains(c))
            });
            assert!(!named, "{name} names {place}");
        }
    }
}

/// The repository's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every text file that git tracks or would add, by its path below the repository.
fn tracked() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is needed");
    assert!(listed.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
    let mut files = Vec::new();
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8(name.to_vec()).unwrap();
        if let Ok(text) = std::fs::read_to_string(root().join(&name)) {
            files.push((name, text));
        }
    }
    assert!(files.len() > 10, "the sources were not found");
    files
}

/// Every tracked Rust source.
fn sources() -> Vec<(String, String)> {
    tracked().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

/// The part of a source before its own test module.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(code, _)| code)
}
