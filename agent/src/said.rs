//! What others say, made fit for a person: child processes at their end, servers in their errors. It is bounded, and holds
//! nothing that a terminal or a mail program would obey; of what database programs say, no content of a row is left.

use std::io::Read;

use crate::entry::is_hidden;

/// How much of what a program says is kept, in bytes: its end.
const KEPT_BYTES: usize = 4000;
/// How much of that is told, in characters.
const TOLD: usize = 1000;
/// Lines of database programs that are told: the last of them say what is wrong.
const LINES: usize = 3;

/// Lines of database programs that quote rows or statements; what follows belongs to them.
const QUOTING: [&str; 8] =
    ["DETAIL:", "CONTEXT:", "STATEMENT:", "QUERY:", "Command was:", "LINE ", "Failing row", "detail:"];
/// How lines begin that are sentences of their own.
const SENTENCES: [&str; 16] = [
    "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "HINT:", "LOG:", "psql:", "pg_", "createdb", "mariadb", "mysql",
    "postgres", "initdb", "Error", "error",
];
/// What stands before a value in a sentence.
const BEFORE_VALUES: [&str; 9] =
    [": \"", ")=(", "\": 0x", "entry '", "value: '", "value '", "near '", "near \"", "VALUES ("];

/// Reads what a program says to its end, and keeps the last of it.
pub(crate) fn tail(mut output: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The same text with nothing in it that a terminal obeys or that turns its order around: written as in paths (`%1B`).
/// Lines stay lines.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push(c),
            '\t' | '\r' => plain.push(' '),
            c if is_hidden(c) => {
                let mut bytes = [0; 4];
                plain.extend(c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
            }
            c => plain.push(c),
        }
    }
    plain
}

/// The end of what was said, on one line.
pub(crate) fn one_line(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = plain(&lines.join(" | "));
    let from = joined.char_indices().rev().nth(TOLD - 1).map_or(0, |(at, _)| at);
    joined.get(from..).unwrap_or_default().to_owned()
}

/// The last sentences of a database program, on one line, without what they quote of rows and statements.
pub(crate) fn sentences(said: &str) -> String {
    let kept = without_values(said);
    one_line(&kept.get(kept.len().saturating_sub(LINES)..).unwrap_or_default().join("\n"))
}

/// The same, to be put behind a sentence.
pub(crate) fn last_words(said: &str) -> String {
    behind(&sentences(said))
}

/// What was said, to be put behind a sentence.
pub(crate) fn behind(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it said: {said}") }
}

fn without_values(said: &str) -> Vec<String> {
    let mut kept = Vec::new();
    // Within what a line quoted that was cut off or left out.
    let mut quoted = false;
    for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // `pg_restore: detail: …` and `psql:file:3: DETAIL: …` quote as well.
        let quoting = QUOTING.iter().any(|start| line.starts_with(start) || line.contains(&format!(": {start}")));
        let sentence = SENTENCES.iter().any(|start| line.starts_with(start));
        if quoting && !line.contains("ERROR:") || quoted && !sentence {
            quoted = true;
            continue;
        }
        let cut = BEFORE_VALUES
            .iter()
            .filter_map(|before| Some(line.find(before)? + before.trim_end_matches(['"', '\'', '(']).len()))
            .min();
        quoted = cut.is_some();
        kept.push(match cut.and_then(|at| line.get(..at)) {
            Some(start) => format!("{}…", start.trim_end_matches("=")),
            None => line.to_owned(),
        });
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_told_of() {
        let said = "pg_restore: error: could not execute query: ERROR:  insert or update on table \"pays\" violates foreign key \
                    constraint \"owner\"\nDETAIL:  Key (owner)=(Smith) is not present in table \"people\".\n\
                    Command was: ALTER TABLE ONLY pays\n    ADD CONSTRAINT owner CHECK (owner <> 'Smith');\n";
        let told = sentences(said);
        assert!(told.contains("violates foreign key constraint \"owner\"") && !told.contains("Smith"), "{told}");
        for (said, wanted) in [
            (
                "pg_restore: error: COPY failed for table \"people\": ERROR:  invalid input syntax for type integer: \"Smith\"\n\
              CONTEXT:  COPY people, line 1, column id: \"Smith\"",
                "invalid input syntax for type integer:",
            ),
            ("ERROR 1062 (23000) at line 5: Duplicate entry 'Smith' for key 'name'", "Duplicate entry"),
            (
                "ERROR 1366 (22007) at line 9: Incorrect integer value: 'Smith\nand Sons' for column `a`",
                "Incorrect integer",
            ),
            (
                "ERROR 1064 (42000) at line 1: You have an error in your SQL syntax; near 'Smith' at line 1",
                "SQL syntax",
            ),
            (
                "psql:dump:3: ERROR:  date/time field value out of range: \"Smith\"\nLINE 1: INSERT INTO people VALUES ('Smith')",
                "out of range",
            ),
            (
                "ERROR:  duplicate key value violates unique constraint \"k\"\nDETAIL:  Key (name)=(Smith\nSmith) already exists.",
                "unique constraint \"k\"",
            ),
        ] {
            let told = sentences(said);
            assert!(told.contains(wanted) && !told.contains("Smith"), "{told}");
        }
        let login = "psql: error: connection to server at \"db\" (::1), port 5432 failed: FATAL:  password authentication \
                     failed for user \"clerk\"";
        assert_eq!(sentences(login), login);
    }

    #[test]
    fn nothing_is_told_that_a_terminal_obeys() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\u{202e}d\te\n"), "a%1B[2Jb%C2%9Bc%E2%80%AEd e\n");
        assert_eq!(one_line("naïve\n\n  100 %\u{7}\n"), "naïve | 100 %%07");
        assert_eq!(last_words(""), "");
    }

    #[test]
    fn only_the_end_is_kept() {
        let said = tail(std::io::Cursor::new("x".repeat(1 << 20) + "\nend"));
        assert!(said.len() <= KEPT_BYTES && said.ends_with("\nend"));
        assert!(one_line(&said).chars().count() <= TOLD);
    }
}
