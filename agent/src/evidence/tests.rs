//! Logs as power failures and people leave them.

use std::collections::BTreeSet;

use super::*;
use crate::platform;

struct Office {
    folder: tempfile::TempDir,
    key: SiteKey,
}

impl Office {
    /// A log with `entries` entries.
    fn new(entries: u64) -> Self {
        let office = Self { folder: tempfile::tempdir().unwrap(), key: SiteKey::generate().unwrap() };
        (0..entries).for_each(|_| drop(office.append()));
        office
    }

    fn log(&self) -> Log {
        Log::new(self.folder.path())
    }

    fn append(&self) -> Entry {
        let proof = KeyProof { who: "clerk,\"signature\":\"at desk\"\n".to_owned(), ..KeyProof::default() };
        let now = "2026-11-22T23:30:04Z".parse().unwrap();
        self.log().append(&"office".parse().unwrap(), Record::KeyProof(proof), Some(&self.key), now).unwrap()
    }

    fn append_without_key(&self) {
        let proof = KeyProof { who: "clerk".to_owned(), ..KeyProof::default() };
        let site = "office".parse().unwrap();
        self.log().append(&site, Record::KeyProof(proof), None, Timestamp::UNIX_EPOCH).unwrap();
    }

    fn read(&self) -> History {
        self.log().read(Some(self.key.public())).unwrap()
    }

    /// Every sentence that says that the log was changed.
    fn findings(&self) -> String {
        self.read().findings.iter().map(|finding| format!("{}\n", finding.what)).collect()
    }

    fn text(&self) -> Vec<u8> {
        fs::read(self.log().path()).unwrap()
    }

    fn write(&self, log: impl AsRef<[u8]>) {
        fs::write(self.log().path(), log).unwrap();
    }

    fn head(&self) -> PathBuf {
        self.folder.path().join(HEAD)
    }

    /// Changes the lines of the log.
    fn change(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut lines: Vec<String> =
            String::from_utf8(self.text()).unwrap().split_inclusive('\n').map(str::to_owned).collect();
        change(&mut lines);
        self.write(lines.concat());
    }
}

#[test]
fn what_was_added_is_read_again_signed_and_private() {
    let office = Office::new(3);
    let history = office.read();
    assert_eq!((history.entries.len(), history.signed, history.torn_bytes), (3, Some(3), 0));
    assert_eq!(history.findings, []);
    let numbers: Vec<u64> = history.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(matches!(&history.entries[2].0.record, Record::KeyProof(proof) if proof.who.starts_with("clerk")));
    for file in [office.log().path(), office.head()] {
        assert_eq!(platform::mode(&fs::metadata(file).unwrap()), 0o600);
    }
    assert_eq!(Office::new(0).read(), History { signed: Some(0), ..History::default() });
}

#[test]
fn a_signature_is_one_of_minisign_over_the_line_without_it() {
    let office = Office::new(1);
    let line = String::from_utf8(office.text()).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&line).unwrap();
    let body = format!("{}}}", line.rsplit_once(",\"signature\":").unwrap().0);
    let comment = office.key.public().verify(body.as_bytes(), whole["signature"].as_str().unwrap()).unwrap();
    assert_eq!(comment, "offsite site=office evidence=1");
}

#[test]
fn a_line_torn_anywhere_is_healed_and_nothing_else_is_lost() {
    let office = Office::new(2);
    let (before, head) = (office.text(), fs::read(office.head()).unwrap());
    office.append();
    let after = office.text();
    for length in (before.len()..after.len()).step_by(17).chain([after.len() - 1]) {
        // As the power left it: part of the line, the old head.
        office.write(&after[..length]);
        fs::write(office.head(), &head).unwrap();
        let torn = office.read();
        assert_eq!((torn.findings.len(), torn.torn_bytes), (0, (length - before.len()) as u64), "{length}");
        let added = office.append();
        let history = office.read();
        assert_eq!((history.entries.len(), history.findings.len(), history.torn_bytes), (3, 0, 0), "{length}");
        let wanted = (length > before.len()).then(|| Mended::TornBytes((length - before.len()) as u64));
        assert_eq!((added.number, added.mended), (3, wanted));
    }
    // Blocks that never reached the disk are zeros, with the end of the line or without it.
    for tail in [&[0; 700][..], b"\0\0\0\0\n"] {
        office.write([&before, tail].concat());
        fs::write(office.head(), &head).unwrap();
        assert_eq!((office.findings().as_str(), office.read().torn_bytes), ("", tail.len() as u64));
        assert_eq!(office.append().mended, Some(Mended::TornBytes(tail.len() as u64)));
        assert_eq!(office.findings(), "");
    }
}

#[test]
fn a_line_whose_head_was_not_written_any_more_is_kept() {
    for entries in [0, 1, 2] {
        let office = Office::new(entries);
        let head = fs::read(office.head()).ok();
        office.append();
        match head {
            Some(head) => fs::write(office.head(), head).unwrap(),
            None => fs::remove_file(office.head()).unwrap(),
        }
        assert_eq!(office.findings(), "");
        let added = office.append();
        assert_eq!((added.number, added.mended), (entries + 2, None));
        assert_eq!(office.findings(), "");
    }
}

#[test]
fn the_first_line_may_be_torn_too() {
    let office = Office::new(1);
    let whole = office.text();
    for length in (0..whole.len()).step_by(23).chain([whole.len() - 1]) {
        office.write(&whole[..length]);
        fs::remove_file(office.head()).ok();
        assert_eq!(office.findings(), "");
        assert_eq!(office.append().number, 1);
        assert_eq!(office.findings(), "");
    }
}

#[test]
fn any_changed_byte_shows() {
    let office = Office::new(3);
    let whole = office.text();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let third = second + whole[second..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for at in second..third {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        office.write(&changed);
        let findings = office.findings();
        assert!(!findings.is_empty(), "byte {at} was changed, and nothing shows it");
    }
}

#[test]
fn a_changed_removed_moved_or_repeated_entry_is_named() {
    type Change = fn(&mut Vec<String>);
    let cases: [(Change, &[&str]); 6] = [
        (
            |lines| lines[2] = lines[2].replace("clerk", "boss"),
            &["entry 3 is not what was signed", "entry 4 does not go on"],
        ),
        (|lines| drop(lines.remove(1)), &["entry 3 stands where entry 2 should: entry 2 was removed"]),
        (|lines| drop(lines.drain(0..3)), &["entry 4 stands where entry 1 should: entries 1 to 3 were removed"]),
        (
            |lines| lines.swap(1, 2),
            &["entry 3 stands where entry 2 should", "entry 2 stands where entry 4 should: it was moved"],
        ),
        (|lines| lines.insert(2, lines[1].clone()), &["entry 2 stands where entry 3 should: it was moved, or added"]),
        (|lines| lines[1] = "{}\n".to_owned(), &["this is no entry"]),
    ];
    for (change, wanted) in cases {
        let office = Office::new(5);
        office.change(change);
        let findings = office.findings();
        for sentence in wanted {
            assert!(findings.contains(sentence), "`{sentence}` is not among\n{findings}");
        }
        // The next entry hides nothing of it.
        office.append();
        let later = office.findings();
        assert!(wanted.iter().all(|sentence| later.contains(sentence)), "{later}");
    }
}

#[test]
fn an_end_that_was_cut_off_shows_now_and_after_the_next_entry() {
    for kept in [0, 1, 3] {
        let office = Office::new(5);
        office.change(|lines| lines.truncate(kept));
        let findings = office.findings();
        assert!(findings.contains("its signed head says 5: the end was cut off"), "{findings}");
        assert_eq!(office.append().number, 6);
        let findings = office.findings();
        assert!(findings.contains(&format!("entry 6 stands where entry {} should", kept + 1)), "{findings}");
    }
    let office = Office::new(3);
    fs::remove_file(office.log().path()).unwrap();
    assert!(office.findings().contains("the end was cut off"));
}

#[test]
fn a_head_that_is_gone_or_forged_shows_now_and_after_the_next_entry() {
    let stranger = Office::new(3);
    for forged in [None, Some(fs::read(stranger.head()).unwrap()), Some(b"{}".to_vec())] {
        let office = Office::new(5);
        office.change(|lines| lines.truncate(3));
        match forged {
            Some(head) => fs::write(office.head(), head).unwrap(),
            None => fs::remove_file(office.head()).unwrap(),
        }
        let now = office.findings();
        assert!(now.contains("head of the log is missing") || now.contains("head of the log is not genuine"), "{now}");
        assert_eq!(office.append().mended, Some(Mended::NoHead));
        assert!(office.findings().contains("when entry 4 was added, the signed head"), "{}", office.findings());
    }
}

#[test]
fn an_old_log_with_its_old_head_is_told_by_a_copy_of_the_head_elsewhere() {
    let office = Office::new(2);
    let old = (office.text(), fs::read(office.head()).unwrap());
    office.append();
    let elsewhere = office.read().anchor().unwrap();
    assert!(office.read().holds(&elsewhere));
    office.write(old.0);
    fs::write(office.head(), old.1).unwrap();
    assert_eq!(office.findings(), "");
    assert!(!office.read().holds(&elsewhere));
    // Going on from there does not bring it back.
    let other = KeyProof { who: "somebody else".to_owned(), ..KeyProof::default() };
    let site = "office".parse().unwrap();
    office.log().append(&site, Record::KeyProof(other), Some(&office.key), Timestamp::UNIX_EPOCH).unwrap();
    assert!(!office.read().holds(&elsewhere));
}

#[test]
fn another_key_and_none_are_told() {
    let office = Office::new(2);
    let (site, other) = ("office".parse().unwrap(), SiteKey::generate().unwrap());
    for _ in 0..2 {
        let record = Record::KeyProof(KeyProof::default());
        office.log().append(&site, record, Some(&other), Timestamp::UNIX_EPOCH).unwrap();
    }
    let findings = office.findings();
    let wanted = format!("entries 3 to 4 are signed by another key ({})", other.public().fingerprint());
    assert!(findings.contains(&wanted), "{findings}");
    // Without a key, the chain alone is looked at.
    let history = office.log().read(None).unwrap();
    assert_eq!((history.entries.len(), history.signed), (4, None));
    assert!(history.findings.iter().all(|finding| finding.what.contains("head of the log")), "{history:?}");
}

#[test]
fn what_was_added_while_the_key_was_away_is_not_signed_and_not_called_changed() {
    let office = Office::new(2);
    office.append_without_key();
    office.append_without_key();
    for key in [None, Some(office.key.public())] {
        let history = office.log().read(key).unwrap();
        assert_eq!((history.findings.as_slice(), history.unsigned.as_slice()), (&[][..], &[(3, 4)][..]));
        let verdict = history.verdict();
        assert!(
            verdict.starts_with("whole, 4 entries; entries 3 to 4 are not signed, because the site's key"),
            "{verdict}"
        );
        assert!(history.lacks_key_now());
    }
    // What a loss of power leaves is healed then as well.
    let whole = office.text();
    office.write([&whole[..], b"{\"version\""].concat());
    assert_eq!((office.findings().as_str(), office.read().torn_bytes), ("", 10));
    // The key is back.
    let added = office.append();
    assert_eq!((added.number, added.mended), (5, Some(Mended::TornBytes(10))));
    let history = office.read();
    assert_eq!((office.findings().as_str(), history.unsigned.as_slice()), ("", &[(3, 4)][..]));
    assert_eq!((history.signed, history.lacks_key_now()), (Some(3), false));

    // Nothing can hide behind it.
    let (text, head) = (office.text(), fs::read(office.head()).unwrap());
    office.change(|lines| lines[2] = lines[2].replace("clerk", "boss"));
    assert!(office.findings().contains("entry 4 does not go on"), "{}", office.findings());
    office.write(&whole);
    assert!(
        office.findings().contains("the log ends with entry 4, and its signed head says 5"),
        "{}",
        office.findings()
    );
    office.write(&text);
    let unsigned = String::from_utf8(head).unwrap().split_once(",\"signature\":").unwrap().0.to_owned() + "}\n";
    fs::write(office.head(), unsigned).unwrap();
    for key in [None, Some(office.key.public())] {
        let findings = office.log().read(key).unwrap().findings;
        assert!(findings.iter().any(|finding| finding.what.contains("is not genuine")), "{findings:?}");
    }
}

#[test]
fn a_machine_that_never_had_the_key_keeps_a_log_too() {
    let office = Office::new(0);
    (0..3).for_each(|_| office.append_without_key());
    for key in [None, Some(office.key.public())] {
        let history = office.log().read(key).unwrap();
        assert_eq!((history.findings.as_slice(), history.unsigned.as_slice()), (&[][..], &[(1, 3)][..]));
        assert!(history.verdict().contains("none of them is signed") && !history.lacks_key_now());
    }
    assert_eq!(office.append().mended, None);
    assert_eq!(office.findings(), "");
}

#[test]
fn programs_that_add_at_the_same_time_wait_for_each_other() {
    let office = Office::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10).for_each(|_| drop(office.append())));
        }
    });
    let history = office.read();
    assert_eq!(history.findings, []);
    let numbers: BTreeSet<u64> = history.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=40).collect());
}

#[test]
fn what_a_newer_program_wrote_is_no_tampering() {
    let office = Office::new(0);
    let text = r#"{"kind":"teleport","distance":7}"#;
    assert_eq!(serde_json::from_str::<Record>(text).unwrap(), Record::Unknown);
    assert_eq!(office.read().findings, []);
}
