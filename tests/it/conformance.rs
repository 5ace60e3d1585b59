//! The contract of stores, checked over every provider on every real server.
//!
//! What a server is known not to do stands beside it, promise by promise; it has to keep all others, and to break
//! those: a server that got better is to be known, too.

use std::path::PathBuf;

use providers::conformance::{Known, PROMISES, Subject};
use providers::{
    Access, DirectorySettings, LockMode, Policy, S3Credentials, S3Settings, StoreSettings, WebdavLogin, WebdavSettings,
    open,
};
use tests::servers::{
    self, Keys, PASSWORD, USER, WebDav, apache, nextcloud_stand_in, nginx, rclone_s3, rclone_webdav, sabre, seaweedfs,
    wsgidav,
};
use tests::{World, tls};

/// A WebDAV server with its conditions honoured, as far as the WebDAV provider can build on them. Of creators in the very
/// same moment several may be told that they have won: Apache looks whether the name is free and moves a moment later.
const DAV: Known = Known { create_is_atomic: false, versions: false, locks: false, listed: 60 };

#[test]
fn a_directory() {
    let world = World::new();
    let path = world.make_folder("store");
    let known = Known { create_is_atomic: true, versions: false, locks: false, listed: 300 };
    check(&StoreSettings::Directory(DirectorySettings { path, mark: None }), known, &[]);
}

#[test]
fn seaweedfs_plain() {
    let server = seaweedfs();
    let bucket = server.bucket("conformance").name;
    let known = Known { create_is_atomic: true, versions: false, locks: false, listed: 1100 };
    check(&s3(&server.url(), &bucket, None), known, &[]);
}

#[test]
fn seaweedfs_with_locks_over_tls() {
    let server = seaweedfs();
    let bucket = server.locking_bucket("conformance").name;
    let known = Known { create_is_atomic: true, versions: true, locks: true, listed: 1100 };
    check(&s3(&server.https_url(), &bucket, Some(tls::authority().ca.clone())), known, &[]);
}

#[test]
fn rclone_as_s3() {
    let server = rclone_s3();
    let bucket = server.bucket("conformance");
    let known = Known { create_is_atomic: false, versions: false, locks: false, listed: 300 };
    // Its answer to the beginning of an upload in parts is none that the S3 client can read.
    let parts = [
        "parts become the object",
        "parts survive and are listed",
        "completing never replaces",
        "a lost reply to completing is resolved",
        "an upload given up is gone",
        "leftovers are swept",
    ];
    check(&s3(&server.url, &bucket, None), known, &parts);
}

#[test]
fn apache_with_basic_login() {
    webdav(apache(), |urls| urls.http, basic(), DAV);
}

#[test]
fn apache_with_digest_login_over_tls() {
    webdav(apache(), |urls| urls.https_digest, digest(), DAV);
}

#[test]
fn sabre_with_basic_login() {
    webdav(sabre(), |urls| urls.http, basic(), DAV);
}

#[test]
fn sabre_with_digest_login() {
    webdav(sabre(), |urls| urls.http_digest, digest(), DAV);
}

#[test]
fn what_stands_in_for_nextcloud() {
    webdav(nextcloud_stand_in(), |urls| urls.http, basic(), DAV);
}

#[test]
fn nginx_over_tls() {
    webdav(nginx(), |urls| urls.https, basic(), DAV);
}

#[test]
fn wsgidav_with_basic_login() {
    webdav(wsgidav(), |urls| urls.http, basic(), DAV);
}

#[test]
fn wsgidav_with_digest_login() {
    webdav(wsgidav(), |urls| urls.http_digest, digest(), DAV);
}

#[test]
fn seaweedfs_as_webdav() {
    let url = seaweedfs().webdav_url("conformance").parse().unwrap();
    check(&StoreSettings::Webdav(WebdavSettings { url, login: WebdavLogin::None, ca_file: None }), DAV, &[]);
}

#[test]
fn rclone_as_webdav() {
    webdav(rclone_webdav(), |urls| urls.http, basic(), DAV);
}

fn webdav(server: &WebDav, choose: impl Fn(servers::Urls) -> Option<String>, login: WebdavLogin, known: Known) {
    let url: providers::Url = choose(server.collection("conformance").urls).unwrap().parse().unwrap();
    let ca_file = (url.scheme() == "https").then(|| tls::authority().ca.clone());
    check(&StoreSettings::Webdav(WebdavSettings { url, login, ca_file }), known, &[]);
}

fn basic() -> WebdavLogin {
    WebdavLogin::Basic { user: USER.to_owned(), password: PASSWORD.into() }
}

fn digest() -> WebdavLogin {
    WebdavLogin::Digest { user: USER.to_owned(), password: PASSWORD.into() }
}

fn s3(url: &str, bucket: &str, ca_file: Option<PathBuf>) -> StoreSettings {
    StoreSettings::S3(S3Settings {
        endpoint: Some(url.parse().unwrap()),
        region: "us-east-1".to_owned(),
        bucket: bucket.to_owned(),
        prefix: "offices/site-a".parse().unwrap(),
        path_style: true,
        ca_file,
        credentials: S3Credentials::Static {
            access_key: Keys::ADMIN.id.to_owned(),
            secret_key: Keys::ADMIN.secret.into(),
            session_token: None,
        },
        lock_mode: LockMode::Governance,
    })
}

/// Opens the store as the agent and as the keeper do, and checks that exactly the promises `broken` are broken.
fn check(settings: &StoreSettings, known: Known, broken: &[&str]) {
    let policy = Policy::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let agent = open(settings, Access::Agent, &policy).unwrap();
        let keeper = open(settings, Access::Keeper, &policy).unwrap();
        let mut found = Vec::new();
        for (at, (name, promise)) in PROMISES.iter().enumerate() {
            let prefix = format!("promise-{at}").parse().unwrap();
            let subject = Subject { agent: agent.clone(), keeper: keeper.clone(), prefix, known };
            // It panics if the promise is broken, and says how.
            if tokio::spawn(promise(subject)).await.is_err() {
                found.push(*name);
            }
        }
        found
    });
    assert_eq!(found, broken, "left: broken promises; right: the expected ones; above: how they were broken");
}
