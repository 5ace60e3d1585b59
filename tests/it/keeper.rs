//! The keeper: many sites in one bucket, faults in some of them, and a site whose agent cannot delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use agent::format::Sha256;
use agent::format::commit::{Commit, Heartbeat};
use agent::sign::SiteKey;
use futures_util::{StreamExt as _, stream};
use providers::faulty::{Fault, Faulty};
use providers::{Access, Body, Policy, PutOptions, StoreSettings};
use tests::World;
use tests::machine::{Machine, bucket_settings};
use tests::servers::{Keys, seaweedfs};

const SITES: usize = 200;

/// The configuration of a keeper of a bucket's folder, with the keys of its sites in `sites/`.
fn configure(world: &World, url: &str, bucket: &str, prefix: &str, keys: Keys, more: &str) {
    let secret = world.write("keeper-secret", keys.secret);
    let path = |name: &str| world.path(name).display().to_string();
    world.configure(&format!(
        "state = \"{}\"\n[keeper]\nkey = \"{}\"\nsites = \"{}\"\n{more}\n[[store]]\nname = \"far\"\ntype = \"s3\"\n\
         endpoint = \"{url}\"\nbucket = \"{bucket}\"\nprefix = \"{prefix}\"\naccess_key = \"{}\"\n\
         secret_key = \"file:{}\"\n",
        path("keeper-state"),
        path("keeper.key"),
        path("sites"),
        keys.id,
        secret.display(),
    ));
}

/// What one backup stored, as the objects of another site: another name in its documents, signed by another key.
struct Original {
    objects: Vec<(String, Vec<u8>)>,
}

impl Original {
    fn of(machine: &Machine) -> Self {
        let objects = machine.contents();
        Self { objects }
    }

    fn of_site(&self, site: &str, key: &SiteKey) -> Vec<(String, Vec<u8>)> {
        let (mut named, mut documents) = (Vec::new(), Vec::new());
        for (path, bytes) in &self.objects {
            if path.ends_with(".minisig") || path == "heartbeat.json" {
                continue;
            }
            if !path.ends_with(".json") {
                named.push((format!("{site}/{path}"), bytes.clone()));
                continue;
            }
            let mut commit = Commit::decode(bytes).unwrap();
            commit.site = site.parse().unwrap();
            let text = commit.encode().unwrap();
            let beat = Heartbeat {
                version: 1,
                site: commit.site.clone(),
                written: commit.committed,
                generation: commit.generation.clone(),
                sequence: commit.sequence,
                sha256: Sha256::of(&text),
                grade: commit.grade,
                promise: None,
            };
            documents.push((format!("{site}/{path}"), commit.trusted_comment(), text));
            let comment = format!("offsite heartbeat site={site} sequence={}", beat.sequence);
            documents.push((format!("{site}/heartbeat.json"), comment, serde_json::to_vec(&beat).unwrap()));
        }
        for (name, comment, text) in documents {
            named.push((format!("{name}.minisig"), key.sign(&text, &comment).unwrap().into_bytes()));
            named.push((name, text));
        }
        named
    }
}

/// What the sites store, with faults in some of them; their public keys are written to the world, but for one.
fn fleet(world: &World, original: &Original) -> Vec<(String, Vec<u8>)> {
    let mut objects = Vec::new();
    for number in 0..SITES {
        let (site, key) = (format!("site-{number:03}"), SiteKey::generate().unwrap());
        let known = if number == 42 { SiteKey::generate().unwrap() } else { key };
        if number != 100 {
            world.write(format!("sites/{site}.pub"), format!("{}\n", known.public()));
        }
        let signer = if number == 42 { SiteKey::generate().unwrap() } else { known };
        for (name, mut bytes) in original.of_site(&site, &signer) {
            match number {
                7 if name.contains("/packs/") => bytes[200] ^= 1,
                13 if name.contains("/packs/") => continue,
                180 if name.ends_with(".packs") => bytes.truncate(10),
                _ => {}
            }
            objects.push((name, bytes));
        }
    }
    objects
}

#[test]
fn two_hundred_sites_are_looked_after_in_one_pass() {
    let machine = Machine::new();
    machine.world.write("source/letter.txt", "Dear Sir or Madam");
    machine.backup(&[]).expect(0);
    let (server, world) = (seaweedfs(), World::new());
    let bucket = server.bucket("fleet");
    let settings = StoreSettings::S3(bucket_settings(&server.url(), &bucket.name, "offices"));
    let store = providers::open(&settings, Access::Keeper, &Policy { requests_max: 16, ..Policy::default() }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();

    let objects = fleet(&world, &Original::of(&machine));
    world.write("sites/site-999.pub", format!("{}\n", SiteKey::generate().unwrap().public()));
    let count = objects.len();
    runtime.block_on(async {
        let puts =
            objects.into_iter().map(|(name, bytes)| {
                let store = Arc::clone(&store);
                async move {
                    store.put(&name.parse().unwrap(), &Body::from_bytes(bytes), &PutOptions::OVERWRITE).await.unwrap()
                }
            });
        stream::iter(puts).buffer_unordered(16).for_each(async |_| ()).await;
    });

    configure(&world, &server.url(), &bucket.name, "offices", Keys::ADMIN, "round_days = 1");
    let began = Instant::now();
    let outcome = world.offsite(["--json", "keeper"]).expect(5);
    let report = outcome.json();
    println!(
        "{count} objects of {SITES} sites in {:.1} s, {} MiB at most, {} bytes read",
        began.elapsed().as_secs_f32(),
        outcome.peak_kib / 1024,
        report["stores"][0]["read_bytes"]
    );
    let sites = report["stores"][0]["sites"].as_array().unwrap();
    assert_eq!(sites.len(), SITES + 1, "a report for each, and for the one that stores nothing");
    let mut faulty = Vec::new();
    for site in sites {
        let (name, findings) = (site["site"].as_str().unwrap(), site["findings"].as_array().unwrap());
        if !findings.is_empty() || !site["error"].as_array().unwrap().is_empty() {
            faulty.push(name);
            continue;
        }
        assert_eq!(site["countersigned"].as_array().unwrap().len(), 1, "{site}");
        assert_eq!(site["read_bytes"], site["bytes"], "{site}");
    }
    assert_eq!(faulty, ["site-007", "site-013", "site-042", "site-100", "site-180", "site-999"]);
    assert!(outcome.peak_kib < 200 << 10, "{} KiB", outcome.peak_kib);

    // Counted from inside: looking at a site takes no other listing than the one of everything.
    let lists = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lists);
    let whole = Faulty::new(store, move |call| {
        counted.fetch_add(u64::from(call.method == "list"), Ordering::Relaxed);
        assert!(call.method != "put" && call.method != "delete", "{call:?}");
        Fault::None
    });
    let again = machine.keep(&world, "site-001", &whole);
    assert!(again.iter().all(|site| site.is_good() == (site.site != "site-100")), "{again:?}");
    assert_eq!(lists.load(Ordering::Relaxed), 1, "listings");
}

#[test]
fn a_site_whose_agent_cannot_delete_is_pruned_and_vouched_for() {
    let server = seaweedfs();
    let bucket = server.bucket("kept");
    let machine = Machine::with_agents_key(&server.url(), &bucket.name, "prune = \"keeper\"");
    machine.configure(1, "");
    let mut ids = Vec::new();
    for day in 0..5 {
        machine.world.write("source/letter.txt", format!("day {day}"));
        ids.push(machine.backup(&[]).expect(0).json()["generation"]["id"].as_str().unwrap().to_owned());
    }
    let keeper = World::new();
    let public = SiteKey::load(&machine.world.path("site.key")).unwrap().public().to_string();
    keeper.write("sites/townhall.pub", &public);
    // By rules of its own: by those of all others nothing would go yet.
    let rules = "round_days = 1\n[[rules]]\nsites = [\"town*\"]\n[rules.rolling]\nlast = 3\nworking_days = 0\ndaily = 0\n\
                 weekly = 0\nmonthly = 0\n[rules.brake]\nremove_percent = 60";
    configure(&keeper, &server.url(), &bucket.name, "site-a", Keys::KEEPER_A, rules);

    let before = machine.objects();
    let dry = keeper.offsite(["--json", "keeper", "--dry-run"]).expect(0).json();
    assert_eq!(dry["stores"][0]["sites"][0]["expired"], serde_json::json!(ids[..2]), "{dry}");
    assert_eq!(machine.objects(), before, "a dry run changed something");
    let done = keeper.offsite(["--json", "keeper"]).expect(0).json();
    let site = &done["stores"][0]["sites"][0];
    assert_eq!((&site["freed"]["generations"], &site["read_bytes"]), (&2.into(), &site["bytes"]), "{done}");
    let left: Vec<_> = machine.list().into_iter().map(|stored| stored.generation.to_string()).collect();
    assert_eq!(left, ids[2..]);
    machine.verify();
    let third = machine.list().remove(0).generation;
    machine.restored(&third);

    // A machine that knows its keeper does not miss what that removed.
    let key = done["key"].as_str().unwrap();
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    machine.world.configure(&config.replace("[signing]\n", &format!("[signing]\nkeepers = [\"{key}\"]\n")));
    machine.world.offsite(["verify"]).expect(0);

    // Its word, checked with the tool that everybody has.
    let objects = machine.objects();
    let word = objects.iter().find(|key| key.contains("/verified/") && key.contains(&ids[3]) && key.ends_with(".json"));
    let name = word.unwrap().strip_prefix("townhall/").unwrap();
    let (text, signature) = (machine.content(name), machine.content(&format!("{name}.minisig")));
    let file = keeper.write("word.json", &text);
    keeper.write("word.json.minisig", signature);
    let check = std::process::Command::new("minisign").args(["-V", "-P", key, "-m"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let word: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(word["generation"], ids[3].as_str());

    // Whoever hides the newest generation, and the heartbeat that names it, does not fool a keeper that has seen it.
    let newest: Vec<String> = machine.objects().into_iter().filter(|key| key.contains(&ids[4])).collect();
    let hidden: Vec<String> = newest.iter().filter(|key| key.contains(".json")).cloned().collect();
    let beat = ["townhall/heartbeat.json", "townhall/heartbeat.json.minisig"].map(str::to_owned);
    let taken: Vec<(String, Vec<u8>)> =
        hidden.iter().chain(&beat).map(|key| (key.clone(), bucket.read(&format!("site-a/{key}")))).collect();
    taken.iter().for_each(|(key, _)| bucket.delete(&format!("site-a/{key}")));
    let rules = std::fs::read_to_string(keeper.path("offsite.toml")).unwrap();
    keeper.configure(&rules.replace("last = 3", "last = 1"));
    let fooled = keeper.offsite(["--json", "keeper"]).run().json();
    let site = &fooled["stores"][0]["sites"][0];
    assert_eq!((&site["freed"]["objects"], &site["brakes"][0]["brake"]), (&0.into(), &"gap".into()), "{fooled}");
    keeper.configure(&rules);
    taken.iter().for_each(|(key, bytes)| bucket.write(&format!("site-a/{key}"), bytes));

    // Damage is found the day after it happened, and said to harm what it harms.
    let pack = machine.objects().into_iter().find(|key| key.contains(&ids[3]) && key.contains("/packs/")).unwrap();
    bucket.write(&format!("site-a/{pack}"), b"something else");
    std::fs::remove_dir_all(keeper.path("keeper-state")).unwrap();
    let found = keeper.offsite(["--json", "keeper"]).expect(5).json();
    let finding = &found["stores"][0]["sites"][0]["findings"][0];
    // What was said of generations that are gone has gone as well.
    let words: Vec<_> = machine.objects().into_iter().filter(|key| key.contains("/verified/")).collect();
    assert!(words.len() == 6 && !words.iter().any(|key| key.contains(&ids[0])), "{words:?}");
    assert_eq!((&finding["object"], &finding["harms"][0]), (&pack.into(), &ids[3].as_str().into()), "{found}");
}
