//! Nothing in clear leaves the machine or stays where it need not be: not a name, not a word, not a password.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tests::servers::{Keys, PASSWORD as DAV_PASSWORD, USER, apache, seaweedfs};
use tests::{Outcome, World};

const NAME: &str = "mark-of-a-name-7c1e";
const FOLDER: &str = "mark-of-a-folder-7c1e";
const CONTENT: &str = "mark of a content 7c1e";
const ROW: &str = "mark of a row 7c1e";
const LINK: &str = "mark-of-a-link-7c1e";
const PASSWORD: &str = "mark-of-a-password-7c1e";
/// The login at the WebDAV server as its header has it: the base64 of name and password.
const DAV_LOGIN: &str = "c2l0ZS1hOnNlY3JldC1h";
const MARKS: [&str; 9] = [NAME, FOLDER, CONTENT, ROW, LINK, PASSWORD, Keys::AGENT_A.secret, DAV_PASSWORD, DAV_LOGIN];

/// Objects that are meant to be read without a key.
const PLAIN: [&str; 5] = [".json", ".minisig", ".packs", "RESTORE.txt", "restore.sh"];

/// An office full of marks: in names, in contents, in a database, in passwords that a command and stores need. With
/// `servers`, it also stores on SeaweedFS and Apache, whose clients are the ones that tell most.
fn office(servers: bool) -> World {
    let world = World::new();
    for number in 0..20 {
        world.write(format!("docs/{FOLDER}/{NAME}-{number}.txt"), format!("{CONTENT} {number}\n").repeat(300));
    }
    world.write(format!("docs/{NAME}-empty"), "");
    std::os::unix::fs::symlink(LINK, world.path(format!("docs/{NAME}-link"))).unwrap();
    let database = rusqlite::Connection::open(world.path("ledger.db")).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE entry (text TEXT)").unwrap();
    for _ in 0..100 {
        database.execute("INSERT INTO entry VALUES (?1)", [ROW]).unwrap();
    }
    world.write("password", PASSWORD);
    world.make_folder("usb");
    let path = |name: &str| world.path(name).display().to_string();
    let sources = ["docs", "ledger.db"].map(path);
    let (usb, staging, state) = (path("usb"), path("staging"), path("state"));
    let (key, second) = (path("keys/office.txt"), path("keys/second.txt"));
    let mut init = vec!["init", "--site", "site-a", "--store", &usb, "--staging", &staging, "--state", &state];
    init.extend(sources.iter().flat_map(|source| ["--source", source]));
    init.extend(["--new-identity", &key, "--new-identity", &second]);
    let stores = if servers { remote_stores(&world) } else { Vec::new() };
    init.extend(stores.iter().flat_map(|store| ["--store", store]));
    world.offsite(init).expect(0);
    let config = std::fs::read_to_string(world.path("offsite.toml")).unwrap();
    let dump = format!(
        "[[source]]\nname = \"dump\"\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"echo {CONTENT}; echo $SECRET\"]\n\
         stdout = \"{NAME}.sql\"\nsecret_env = {{ SECRET = \"file:{}\" }}\n",
        path("password")
    );
    world.configure(&(config + &dump));
    world
}

fn remote_stores(world: &World) -> Vec<String> {
    let place = |name: &str, secret: &str| world.write(name, secret).display().to_string();
    let (secret, password) = (place("s3-secret", Keys::AGENT_A.secret), place("dav-password", DAV_PASSWORD));
    let (bucket, endpoint, key) = (seaweedfs().bucket("privacy").name, seaweedfs().url(), Keys::AGENT_A.id);
    let url = apache().collection("privacy").urls.http.unwrap();
    vec![
        format!("name=cloud,type=s3,bucket={bucket},endpoint={endpoint},access_key={key},secret_key=file:{secret}"),
        format!("name=partner,type=webdav,url={url},login=basic,user={USER},password=file:{password}"),
    ]
}

/// The program, telling all it ever tells.
fn loud(world: &World, arguments: &[&str], code: i32) -> Outcome {
    let arguments = [&["--verbose", "--verbose"][..], arguments].concat();
    world.offsite(arguments).env("OFFSITE_LOG", "trace").env("RUST_LOG", "trace").expect(code)
}

fn holds(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// Everything below `folder`, the folder itself included.
fn everything(folder: &Path) -> Vec<PathBuf> {
    [vec![folder.to_owned()], tests::office::paths(folder)].concat()
}

/// Asserts that no mark is in a name or file below `folder`, and that what is not meant to be plain is sealed.
#[track_caller]
fn assert_sealed(folder: &Path, sealed: bool) -> usize {
    let files: Vec<PathBuf> = everything(folder).into_iter().filter(|path| path.is_file()).collect();
    for path in &files {
        let (name, bytes) = (path.to_str().unwrap(), std::fs::read(path).unwrap());
        for mark in MARKS {
            assert!(!holds(name.as_bytes(), mark) && !holds(&bytes, mark), "`{mark}` is in {name}");
        }
        // A file that was just begun may have nothing in it yet.
        let plain = bytes.is_empty() || PLAIN.iter().any(|ending| name.ends_with(ending));
        assert!(!sealed || plain || bytes.starts_with(b"age-encryption.org/v1\n"), "{name} is not sealed");
    }
    files.len()
}

/// Asserts that nothing below `folder` is anybody else's to read; staged copies are not even for us to write.
#[track_caller]
fn assert_private(folder: &Path) {
    let exact = !folder.ends_with("staging");
    for path in everything(folder) {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        let usual = if metadata.is_dir() { 0o700 } else { 0o600 };
        let private = mode & 0o077 == 0 && (!exact || mode == usual);
        assert!(private || metadata.is_symlink(), "{} has mode {mode:o}", path.display());
    }
}

#[track_caller]
fn assert_silent(outcome: &Outcome) {
    for mark in MARKS {
        assert!(!holds(outcome.stderr.as_bytes(), mark), "`{mark}` was told\n{outcome}");
        assert!(!holds(outcome.stdout.as_bytes(), mark), "`{mark}` was told\n{outcome}");
    }
}

#[test]
fn nothing_in_clear_is_stored_logged_or_left_behind() {
    let world = office(true);
    for _ in 0..2 {
        let outcome = loud(&world, &["backup"], 0);
        assert!(outcome.stderr.contains("TRACE") && outcome.stderr.contains("DEBUG"), "it is not loud\n{outcome}");
        assert_silent(&outcome);
        world.write(format!("docs/{NAME}-later"), CONTENT.repeat(1000));
    }
    assert_silent(&loud(&world, &["backup", "--archive"], 0));
    assert_silent(&loud(&world, &["list"], 0));
    assert_silent(&loud(&world, &["verify"], 0));
    assert!(assert_sealed(&world.path("usb"), true) > 15);
    assert!(assert_sealed(&world.path("state"), false) > 1);
    for folder in ["state", "staging", "keys"] {
        assert_private(&world.path(folder));
    }
    assert!(everything(&world.path("tmp")).len() == 1 && everything(&world.path("home")).len() == 1);
    // The marks are where they belong, or nothing was proved.
    let arguments = ["restore", "latest", "--to", "back", "--identity", "keys/office.txt"];
    assert_silent(&loud(&world, &arguments, 0));
    let dump = std::fs::read(world.path(format!("back/dump/{NAME}.sql"))).unwrap();
    assert!(holds(&dump, CONTENT) && holds(&dump, PASSWORD));
    assert!(holds(&std::fs::read(world.path("back/ledger/ledger.db")).unwrap(), ROW));
}

#[test]
fn what_a_run_leaves_that_dies_is_sealed_and_private() {
    let world = office(false);
    let mut waited = 0;
    for moment in 1.. {
        let outcome = world.offsite(["backup"]).env("OFFSITE_DIE_AT", moment.to_string()).run();
        assert_silent(&outcome);
        let spool = world.path("state/spool");
        waited += if spool.exists() { assert_sealed(&spool, true) } else { 0 };
        assert_sealed(&world.path("state"), false);
        for folder in ["state", "staging"] {
            assert_private(&world.path(folder));
        }
        if outcome.code == Some(0) {
            break;
        }
    }
    assert!(waited > 4, "nothing ever waited in the spool");
}
