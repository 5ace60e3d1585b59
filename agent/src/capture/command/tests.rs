//! Commands as sources: good ones, and every way in which one fails.

use std::collections::BTreeMap;
use std::fs;

use super::*;

fn shell(script: &str) -> CommandSource {
    CommandSource {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        output: Output::Folder,
        env: BTreeMap::new(),
        timeout: Duration::from_secs(60),
        check: None,
        hold: None,
    }
}

#[test]
fn a_program_writes_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    run(&shell("echo one > {staging}/a; echo two > b"), folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"one\n");
    assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"two\n");
    let source = CommandSource { output: Output::Stdout("dump.sql".to_owned()), ..shell("echo three") };
    run(&source, folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("dump.sql")).unwrap(), b"three\n");
}

#[test]
fn what_failed_is_told_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let secret = EnvValue::Secret("tr0ub4dor".to_owned().into());
    let plain = EnvValue::Plain("clerk".to_owned());
    let env = BTreeMap::from([("PASSWORD".to_owned(), secret), ("ACCOUNT".to_owned(), plain)]);
    let source = CommandSource { env, ..shell("echo login $ACCOUNT with $PASSWORD >&2; exit 3") };
    let error = run(&source, folder.path()).unwrap_err();
    assert_eq!(error, "the command `sh` failed with exit status: 3; it said: login clerk with ***");
    assert!(!format!("{source:?}").contains("tr0ub4dor"));
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 & echo $! > child; echo started >&2; wait";
    let source = CommandSource { timeout: Duration::from_secs(3), ..shell(script) };
    let begin = Instant::now();
    let error = run(&source, folder.path()).unwrap_err();
    assert!(error.contains("took longer than") && error.contains("started"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60));
    let child = fs::read_to_string(folder.path().join("child")).unwrap();
    // It has been killed; the system takes a moment to act on it.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            break;
        }
        assert!(Instant::now() < deadline, "it still runs: {state}");
        thread::yield_now();
    }
}

#[test]
fn the_check_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let check = |script: &str| Some(["sh", "-c", script].map(str::to_owned).to_vec());
    let mut source = CommandSource { check: check("test -s {staging}/a"), ..shell("echo one > a") };
    run(&source, folder.path()).unwrap();
    source.check = check("echo it is empty >&2; false");
    assert_eq!(
        run(&source, folder.path()).unwrap_err(),
        "the check `sh` failed with exit status: 1; it said: it is empty"
    );
}

#[test]
fn our_own_environment_is_not_handed_on() {
    // Cargo sets this one for every test.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let folder = tempfile::tempdir().unwrap();
    run(&shell("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\""), folder.path()).unwrap();
}

#[test]
fn only_the_last_of_much_talk_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let error = run(&shell("yes x | head -c 300000 >&2; echo end >&2; exit 1"), folder.path()).unwrap_err();
    assert!(error.len() < 4000 && error.ends_with("| end"), "{error}");
}
