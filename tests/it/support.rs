//! The support itself: a test that stands on sand proves nothing.

use tests::servers::{apache, seaweedfs};
use tests::{World, http};

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
fn apache_asks_for_a_login() {
    let collection = apache().collection("support");
    let url = collection.urls.http.unwrap();
    let (port, path) = url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
    let (status, _) = http::get(port.parse().unwrap(), &format!("/{path}")).unwrap();
    assert_eq!(status, 401);
}
