//! A first real backup, and the next night's: a folder and databases in use, to three kinds of stores in one run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::clerks::{Book, Clerks, judge};
use tests::servers::{Keys, PASSWORD, USER, apache, seaweedfs};
use tests::tree::Tree;
use tests::{Rng, World, office, tls};

const CLERK: &str = env!("CARGO_BIN_EXE_clerk");
const STORES: [&str; 3] = ["cloud", "partner", "usb"];

/// Runs `offsite init` for a folder, two databases, and SeaweedFS (with a key that may not delete) and Apache, over TLS with
/// a private authority, and a
/// folder. Parts and packs are small, so that a pack is sent in parts.
fn init(world: &World) {
    let path = |name: &str| world.path(name).display().to_string();
    world.write("s3-secret", format!("{}\n", Keys::AGENT_A.secret));
    world.write("dav-password", format!("{PASSWORD}\n"));
    world.make_folder("usb");
    let ca = tls::authority().ca.display();
    let (bucket, endpoint) = (seaweedfs().bucket("night").name, seaweedfs().https_url());
    let url = apache().collection("night").urls.https_digest.unwrap();
    let (key, secret, password) = (Keys::AGENT_A.id, path("s3-secret"), path("dav-password"));
    let settings = [
        ("--site", "site-a".to_owned()),
        ("--source", format!("name=docs,type=folder,path={}", path("docs"))),
        ("--source", format!("name=cash,type=sqlite,path={}", path("cash.db"))),
        ("--source", format!("name=billing,type=sqlite,path={}", path("billing.db"))),
        (
            "--store",
            format!(
                "name=cloud,type=s3,bucket={bucket},endpoint={endpoint},ca_file={ca},access_key={key},\
                 secret_key=file:{secret},pack=8 MiB,part=5 MiB"
            ),
        ),
        (
            "--store",
            format!(
                "name=partner,type=webdav,url={url},login=digest,user={USER},password=file:{password},ca_file={ca},\
                 pack=1 MiB"
            ),
        ),
        ("--store", format!("name=usb,type=directory,path={}", path("usb"))),
        ("--new-identity", path("keys/office.txt")),
        ("--new-identity", path("keys/elsewhere.txt")),
        ("--staging", path("staging")),
        ("--state", path("state")),
    ];
    let arguments = settings.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
    world.offsite(["init".to_owned()].into_iter().chain(arguments)).expect(0);
}

/// Restores the newest generation from each store, and asserts that all is there.
fn restore_everywhere(world: &World, original: &Tree, books: &[Book], night: u32) {
    let mut copies = BTreeSet::new();
    for store in STORES {
        let to = format!("back-{store}-{night}");
        let arguments = ["restore", "latest", "--from", store, "--to", &to, "--identity", "keys/office.txt"];
        world.offsite(arguments).expect(0);
        original.assert_equals(&Tree::read(&world.path(&to).join("docs")));
        let database = |book: &Book| world.path(&to).join(book.name).join(format!("{}.db", book.name));
        copies.insert(books.iter().map(|book| std::fs::read(database(book)).unwrap()).collect::<Vec<_>>());
        let copy = |book: &Book| Book { name: book.name, path: database(book), database: None };
        let verdict = judge(&books.iter().map(copy).collect::<Vec<_>>());
        assert!(verdict.torn.is_empty() && verdict.without_cause == 0 && verdict.events > 20, "{verdict:?}");
    }
    assert_eq!(copies.len(), 1, "the stores do not give the same databases back");
}

#[test]
fn one_run_brings_everything_to_three_stores_and_each_gives_it_back() {
    let world = World::new();
    let docs = world.make_folder("docs");
    let mut rng = Rng::new(41);
    office::zoo(&docs, &mut rng);
    let book = |name, mode| Book::create(name, world.path(format!("{name}.db")), mode);
    let books = [book("cash", "wal"), book("billing", "delete")];
    init(&world);
    world.offsite(["check"]).expect(0);
    let clerks = Clerks::start(Path::new(CLERK), 2, 15, &books);
    clerks.work(20);
    let mut generations = Vec::new();
    for night in 0..2 {
        let original = Tree::read(&docs).without_special();
        let report = world.offsite(["--json", "backup"]).expect(0).json();
        assert_eq!(report["generation"]["grade"], "exact", "{report:#}");
        let stored = report["stores"].as_array().unwrap();
        assert!(stored.len() == 3 && stored.iter().all(|store| store["stored"] == true), "{report:#}");
        generations.push(report["generation"]["id"].as_str().unwrap().to_owned());
        let listed = world.offsite(["list"]).expect(0).stdout;
        let (beyond, nowhere) = ("whole and in no folder of this machine: ", "Nothing is anywhere else: ");
        assert!(listed.contains(beyond) && !listed.contains(nowhere), "{listed}");
        for store in STORES {
            let listed = world.offsite(["list", "--from", store]).expect(0).stdout;
            let json = world.offsite(["--json", "list", "--from", store]).expect(0).json();
            let here = json["generations"][0]["places"][0]["on_this_machine"] == true;
            assert!(listed.contains(nowhere) == here && (store == "usb" || !here), "{listed}");
            assert!(generations.iter().all(|generation| listed.contains(generation)), "{listed}");
            world.offsite(["verify", "--from", store]).expect(0);
        }
        restore_everywhere(&world, &original, &books, night);
        office::one_day(&docs, &mut rng);
        clerks.work(20);
    }
    assert_eq!(clerks.stop().errors, Vec::<String>::new());
    let incremental = stored(&world).iter().filter(|name| name.starts_with("01-")).count();
    assert!(incremental > 0, "the second night made no incremental");
}

/// Names of the packs in the folder that is a store.
fn stored(world: &World) -> Vec<String> {
    let files: Vec<PathBuf> = office::paths(&world.path("usb"));
    let packs = files.iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("packs")));
    packs.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}
