//! The support itself: a test that stands on sand proves nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::servers::{MariaDb, Postgres, SeaweedFs, every_webdav, rclone_s3, seaweedfs};
use tests::tree::{Tree, assert_same};
use tests::{Rng, World, http, office, wait_until};

#[test]
fn the_program_runs_in_a_world() {
    let world = World::new();
    let outcome = world.offsite(["--version"]).run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
}

#[test]
fn seaweedfs_keeps_objects() {
    let server = seaweedfs();
    let bucket = server.bucket("support");
    bucket.write("site-a/one", b"1");
    assert_eq!(bucket.read("site-a/one"), b"1");
    assert_eq!(bucket.list().into_iter().collect::<Vec<_>>(), [("site-a/one".to_owned(), 1)]);
    bucket.delete("site-a/one");
    assert!(bucket.list().is_empty());
}

#[test]
fn seaweedfs_has_room_for_many_buckets() {
    for number in 0..40u8 {
        let bucket = seaweedfs().bucket("many");
        bucket.write("number", &[number]);
        assert_eq!(bucket.read("number"), [number]);
    }
}

#[test]
fn every_webdav_server_asks_for_a_login() {
    for server in every_webdav() {
        let collection = server.collection("support");
        for url in [collection.urls.http, collection.urls.http_digest].into_iter().flatten() {
            let (port, path) = url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
            let (status, _) = answer(port.parse().unwrap(), &format!("/{path}"));
            assert_eq!(status, 401, "{} at {url}", server.name);
        }
    }
}

/// What a server that runs answers, however long it takes.
fn answer(port: u16, path: &str) -> (u16, String) {
    let mut answer = None;
    wait_until(Duration::from_secs(60), "an answer", || {
        answer = http::get(port, path);
        answer.is_some()
    });
    answer.unwrap()
}

#[test]
fn rclone_s3_refuses_strangers() {
    let server = rclone_s3();
    let (port, bucket) = (server.url.rsplit(':').next().unwrap().parse().unwrap(), server.bucket("support"));
    assert_eq!(answer(port, &format!("/{bucket}")).0, 400);
}

#[test]
fn what_a_server_acknowledged_survives_its_death() {
    let s3 = SeaweedFs::start();
    let bucket = s3.bucket("support");
    bucket.write("kept", b"kept");
    s3.server.kill();
    s3.start_again();
    assert_eq!(bucket.read("kept"), b"kept");
}

#[test]
fn postgres_survives_its_death() {
    let postgres = Postgres::start();
    let database = postgres.database("support");
    postgres.sql(&database, "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1), (2)");
    postgres.server.kill();
    assert!(!postgres.psql("postgres", &database, "SELECT 1").output().unwrap().status.success());
    postgres.start_again();
    assert_eq!(postgres.sql(&database, "SELECT count(*), max(id) FROM kept"), "2|2");
}

#[test]
fn mariadb_survives_its_death() {
    let mariadb = MariaDb::start();
    let database = mariadb.database("support");
    mariadb.sql(&database, "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1), (2)");
    mariadb.server.kill();
    assert!(!mariadb.client("root", &database, "SELECT 1").output().unwrap().status.success());
    mariadb.start_again();
    assert_eq!(mariadb.sql(&database, "SELECT count(*), max(id) FROM kept"), "2\t2");
}

#[test]
fn a_killed_test_process_leaves_nothing_behind() {
    let world = World::new();
    let folder = world.make_folder("tmp");
    // So that servers that run as another user get through.
    office::set_mode(&world.path(""), 0o755);
    let mut inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::every_webdav_server_asks_for_a_login"])
        .env("TMPDIR", &folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = || running_in(&folder).iter().any(|command| command.contains("rclone"));
    wait_until(Duration::from_secs(120), "servers to start", began);
    inner.kill().unwrap();
    inner.wait().unwrap();
    wait_until(Duration::from_secs(120), "servers to end", || running_in(&folder).is_empty());
    wait_until(Duration::from_secs(120), "folders to go", || std::fs::read_dir(&folder).unwrap().next().is_none());
}

/// Command lines of all processes that name `folder`.
fn running_in(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok());
    let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(folder.to_str().unwrap())).collect()
}

#[test]
fn a_copy_by_tar_is_the_same_and_any_change_is_seen() {
    let world = World::new();
    let (original, copy) = (world.make_folder("original"), world.make_folder("copy"));
    office::deep(&original, 200);
    office::zoo(&original, &mut Rng::new(1));
    let script = "tar --sparse --format=pax -cf - -C \"$1\" . | tar -xpf - -C \"$2\"";
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(&original).arg(&copy).status().unwrap();
    assert!(status.success());
    std::fs::remove_file(copy.join("pipe")).unwrap();
    office::set_modified(&copy, (1_700_000_000, 123_456_789));
    assert_same(&original, &copy);

    let before = Tree::read(&copy);
    std::fs::write(copy.join("-rf"), "other").unwrap();
    office::set_mode(&copy.join("--"), 0o604);
    office::set_modified(&copy.join("links/to nothing"), (1, 2));
    std::fs::remove_file(copy.join("links/two")).unwrap();
    std::fs::copy(copy.join("links/one"), copy.join("links/two")).unwrap();
    std::fs::remove_file(copy.join("sizes/0.txt")).unwrap();
    let found = before.differences(&Tree::read(&copy)).join("\n");
    for name in ["-rf", "--", "links/to nothing", "links/two", "sizes/0.txt"] {
        assert!(found.contains(&format!("{name:?}")), "{name} is not among\n{found}");
    }
}

#[test]
fn a_seed_gives_the_same_office_and_the_same_days() {
    let world = World::new();
    let trees = ["one", "two"].map(|name| {
        let folder = world.make_folder(name);
        let mut rng = Rng::new(7);
        office::documents(&folder, &mut rng, 400, 2_000_000);
        let first = Tree::read(&folder);
        office::one_day(&folder, &mut rng);
        let second = Tree::read(&folder);
        assert!(first.differences(&second).len() > 20, "hardly anything was done");
        second.0.into_iter().map(|(path, node)| (path, node.kind)).collect::<Vec<_>>()
    });
    assert!(trees[0] == trees[1], "two offices of one seed differ");
}
