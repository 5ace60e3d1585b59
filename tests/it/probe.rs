//! What stores really do: found out on each real server, written down in a table, kept, and acted upon.

use std::collections::BTreeMap;

use providers::{Finding, Policy, StoreSettings, WebdavLogin, WebdavSettings};
use serde_json::Value;
use tests::Rng;
use tests::machine::{Machine, bucket_settings};
use tests::proxy::Proxy;
use tests::servers::{
    Keys, PASSWORD, USER, WebDav, apache, nextcloud_stand_in, nginx, rclone_s3, rclone_webdav, sabre, seaweedfs,
    wsgidav,
};
use tests::tree::Tree;

/// The servers of the table, each with the test below that probes it.
const SERVERS: [&str; 12] = [
    "directory",
    "SeaweedFS",
    "SeaweedFS, bucket with locks, key of least rights",
    "rclone `serve s3`",
    "Apache mod_dav",
    "Apache behind a gateway that drops `Overwrite`",
    "nginx with dav-ext",
    "sabre/dav",
    "stand-in for Nextcloud",
    "WsgiDAV",
    "rclone `serve webdav`",
    "SeaweedFS WebDAV",
];

/// The table of verdicts in the documentation of stores: by server, what is found by name.
fn table() -> BTreeMap<String, BTreeMap<String, String>> {
    let text = include_str!("../../providers/README.md");
    let (_, table) = text.split_once("\n| probe of | ").expect("there is no table of verdicts");
    let cells =
        |line: &str| line.trim_matches(['|', ' ']).split(" | ").map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let mut lines = table.lines();
    let names = cells(lines.next().unwrap());
    let rows = lines.skip(1).take_while(|line| line.starts_with('|')).map(|line| {
        let mut row = cells(line);
        let server = row.remove(0);
        assert_eq!(row.len(), names.len(), "{server}");
        (server, names.iter().cloned().zip(row).collect())
    });
    rows.collect()
}

#[test]
fn every_row_of_the_table_has_a_test() {
    let mut servers: Vec<_> = SERVERS.map(str::to_owned).to_vec();
    servers.sort();
    assert_eq!(table().into_keys().collect::<Vec<_>>(), servers);
}

/// Probes a place, and compares what is found with the row of `server`; a dash is what nobody can rely on.
#[track_caller]
fn check(server: &str, settings: &StoreSettings) {
    assert!(SERVERS.contains(&server));
    let row = table().remove(server).unwrap();
    let policy = Policy { attempts: 3, ..Policy::default() };
    let site = "townhall".parse().unwrap();
    let probe = providers::probe(settings, &policy, &site, "n1", agent::clock::now(), true);
    let verdict = tokio::runtime::Runtime::new().unwrap().block_on(probe).unwrap();
    assert_eq!(row.len(), verdict.findings().len());
    for (name, finding) in verdict.findings() {
        let found = match finding {
            Finding::Yes => "yes",
            Finding::No(_) => "no",
            Finding::Unknown(_) => "not known",
        };
        let wanted = &row[name];
        assert!(wanted == "–" || wanted == found, "{server}, {name}: {finding}; the table says {wanted}");
    }
    assert!(verdict.is_usable() && verdict.clock_ahead_s.abs() < 300, "{verdict:?}");
}

fn webdav(url: &str) -> StoreSettings {
    let login = WebdavLogin::Basic { user: USER.to_owned(), password: PASSWORD.into() };
    StoreSettings::Webdav(WebdavSettings { url: url.parse().unwrap(), login, ca_file: None })
}

#[track_caller]
fn check_webdav(name: &str, server: &WebDav) {
    check(name, &webdav(&server.collection("probe").urls.http.unwrap()));
}

#[test]
fn a_directory() {
    let world = tests::World::new();
    let path = world.make_folder("store");
    check("directory", &StoreSettings::Directory(providers::DirectorySettings { path, mark: None }));
}

#[test]
fn seaweedfs_plain() {
    let bucket = seaweedfs().bucket("probe").name;
    check("SeaweedFS", &StoreSettings::S3(bucket_settings(&seaweedfs().url(), &bucket, "site-a")));
}

#[test]
fn seaweedfs_with_locks() {
    let bucket = seaweedfs().locking_bucket("probe").name;
    let mut settings = bucket_settings(&seaweedfs().url(), &bucket, "site-a");
    settings.credentials = providers::S3Credentials::Static {
        access_key: Keys::AGENT_A.id.to_owned(),
        secret_key: Keys::AGENT_A.secret.into(),
        session_token: None,
    };
    check("SeaweedFS, bucket with locks, key of least rights", &StoreSettings::S3(settings));
}

#[test]
fn rclone_as_s3() {
    let server = rclone_s3();
    check("rclone `serve s3`", &StoreSettings::S3(bucket_settings(&server.url, &server.bucket("probe"), "site-a")));
}

#[test]
fn apache_plain() {
    check_webdav("Apache mod_dav", apache());
}

#[test]
fn apache_behind_a_gateway() {
    let url: providers::Url = apache().collection("probe").urls.http.unwrap().parse().unwrap();
    let proxy = Proxy::to(url.port().unwrap());
    proxy.drop_header("overwrite");
    check("Apache behind a gateway that drops `Overwrite`", &webdav(&format!("{}{}", proxy.url(), url.path())));
}

#[test]
fn nginx_plain() {
    check_webdav("nginx with dav-ext", nginx());
}

#[test]
fn sabre_plain() {
    check_webdav("sabre/dav", sabre());
}

#[test]
fn what_stands_in_for_nextcloud() {
    check_webdav("stand-in for Nextcloud", nextcloud_stand_in());
}

#[test]
fn wsgidav_plain() {
    check_webdav("WsgiDAV", wsgidav());
}

#[test]
fn rclone_as_webdav() {
    check_webdav("rclone `serve webdav`", rclone_webdav());
}

#[test]
fn seaweedfs_as_webdav() {
    let settings = WebdavSettings {
        url: seaweedfs().webdav_url("probe").parse().unwrap(),
        login: WebdavLogin::None,
        ca_file: None,
    };
    check("SeaweedFS WebDAV", &StoreSettings::Webdav(settings));
}

/// A machine with `mib` MiB to copy to a bucket of rclone's.
fn with_rclone(mib: usize) -> (Machine, std::path::PathBuf) {
    let server = rclone_s3();
    let bucket = server.bucket("office");
    let machine = Machine::with_bucket(&server.url, &bucket);
    std::fs::write(machine.source().join("large"), Rng::new(1).bytes(mib << 20)).unwrap();
    (machine, server.folder.join(bucket).join("site-a/townhall"))
}

/// What it claims and does not do is seen, and the packs are sent as it can take them: what comes back is right.
#[test]
fn a_backup_to_rclone_is_right_once_it_was_probed() {
    let (machine, folder) = with_rclone(30);
    // Nobody knows yet that its uploads in parts cannot be used: refused, and nothing is called good.
    let refused = machine.backup(&[]).expect(4);
    assert!(refused.stderr.contains("`offsite check`"), "{refused}");
    assert_eq!(machine.list().len(), 0);

    let checked = machine.world.offsite(["--json", "check"]).expect(0).json();
    let verdict = &checked["stores"][0]["verdict"];
    for missing in ["one_creator", "refuses_taken", "checks_content", "parts"] {
        assert!(verdict[missing]["no"].is_string(), "{missing}: {verdict:#}");
    }
    let status = machine.world.offsite(["status"]).expect(0).stdout;
    assert!(status.contains("does not: one creator, refuses taken names, checks content, parts"), "{status}");

    machine.backup(&[]).expect(0);
    for stored in machine.list() {
        Tree::read(&machine.source()).assert_equals(&machine.restored(&stored.generation));
    }
    machine.verify();
    let packs = machine.objects().into_iter().filter(|key| key.contains("/packs/")).count();
    assert!(packs >= 2, "{packs} packs in {}", folder.display());
}

#[test]
fn a_lock_that_rclone_only_echoes_is_refused() {
    let (machine, folder) = with_rclone(1);
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store + "\nlock = { mode = \"governance\", rolling = \"8 days\" }\n");
    machine.configure(100, "");
    let checked = machine.world.offsite(["--json", "check"]).expect(4).json();
    assert_eq!(checked["error"]["problems"][0]["key"], "store[1].lock", "{checked:#}");
    for _probed in [false, true] {
        machine.backup(&[]).expect(4);
        assert_eq!(machine.list().len(), 0);
        assert!(!folder.join("rolling").exists(), "something was sent");
    }
}

/// Changes what the last probe is remembered to have found.
fn remember(machine: &Machine, finding: &str, value: Value) {
    let path = machine.world.path("state/probe-far.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    kept["verdict"][finding] = value;
    std::fs::write(path, serde_json::to_vec(&kept).unwrap()).unwrap();
}

#[test]
fn a_store_that_does_less_than_it_did_is_reported_once() {
    let machine = Machine::new();
    let check = |code| machine.world.offsite(["check"]).expect(code);
    let checked = check(0);
    assert!(checked.stdout.contains("parts: no: this kind of store has none"), "{checked}");
    remember(&machine, "parts", "yes".into());
    let worse = check(4);
    assert!(worse.stderr.contains("it used to do `parts` and does it no more"), "{worse}");
    let log = std::fs::read_to_string(machine.world.path("state/evidence.jsonl")).unwrap();
    let told = log.lines().filter(|line| line.contains("it used to do `parts`")).count();
    assert_eq!(told, 1, "{log}");
    check(0);
}

#[test]
fn nothing_is_sent_to_a_store_that_was_seen_to_be_unfit() {
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.world.offsite(["check"]).expect(0);
    remember(&machine, "read_back", serde_json::json!({ "no": "other bytes came back" }));
    let before = machine.objects();
    let refused = machine.backup(&[]).expect(4);
    assert!(refused.stderr.contains("not to be fit") && refused.stderr.contains("other bytes came back"), "{refused}");
    assert_eq!(machine.objects(), before);
    let status = machine.world.offsite(["status"]).expect(0).stdout;
    assert!(status.contains("nothing is sent to far"), "{status}");
    // As it says.
    machine.world.offsite(["check"]).expect(0);
    machine.backup(&[]).expect(0);
    machine.verify();
}

/// What the server refuses by itself is not asked for before: a verdict saves requests.
#[test]
fn a_server_that_refuses_taken_names_is_not_asked_before() {
    let bucket = seaweedfs().bucket("asked");
    let proxy = Proxy::to(seaweedfs().port());
    let machine = Machine::with_bucket(&proxy.url(), &bucket.name);
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    let mut looks = Vec::new();
    for _ in 0..2 {
        let before = proxy.seen().len();
        machine.backup(&[]).expect(0);
        looks.push(proxy.seen()[before..].iter().filter(|(request, _)| request.method == "HEAD").count());
        machine.world.offsite(["check"]).expect(0);
    }
    assert!(looks[1] + 4 <= looks[0], "looked {looks:?} times");
    machine.verify();
}
