//! Drills: a copy comes back from its store into scratch, on real databases; and every way in which it can be no good is
//! noticed and said in a sentence of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::machine::Machine;
use tests::proxy::{Fault, Proxy};
use tests::servers::{mariadb, postgres, seaweedfs};
use tests::{Outcome, World, office, wait_until};

/// An office with documents, a ledger in SQLite and, if asked for, databases at the servers of all tests.
struct Office {
    world: World,
    /// Its database at the PostgreSQL server.
    books: Option<String>,
    /// Its database at the MariaDB server.
    shop: Option<String>,
}

const BOOKS: &str = "CREATE TABLE account (id INTEGER PRIMARY KEY);
                     CREATE TABLE payment (account INTEGER REFERENCES account (id), cents INTEGER);
                     INSERT INTO account VALUES (1), (2);
                     INSERT INTO payment VALUES (1, 500), (2, 250), (2, 250);";

impl Office {
    fn new(servers: &[&str]) -> Self {
        let world = World::new();
        // So that a server that runs as another user gets through.
        office::set_mode(&world.path(""), 0o755);
        for number in 0..30 {
            world.write(format!("documents/letter-{number}.txt"), format!("Dear customer {number}\n").repeat(300));
        }
        rusqlite::Connection::open(world.path("ledger.db")).unwrap().execute_batch(BOOKS).unwrap();
        world.make_folder("usb");
        for key in ["office.txt", "stranger.txt"] {
            world.offsite(["key", "new", key]).expect(0);
        }
        let books = servers.contains(&"postgres").then(|| postgres().database("books"));
        books.iter().for_each(|books| drop(postgres().sql(books, BOOKS)));
        let shop = servers.contains(&"mariadb").then(|| mariadb().database("shop"));
        shop.iter().for_each(|shop| drop(mariadb().sql(shop, BOOKS)));
        let office = Self { world, books, shop };
        office.configure("");
        office
    }

    /// Writes the configuration, with `drill` as what stands in `[drill]`.
    fn configure(&self, drill: &str) {
        let path = |name: &str| self.world.path(name).display().to_string();
        let recipient = self.world.offsite(["key", "show", "office.txt"]).expect(0).stdout;
        let books = self.books.iter().map(|books| {
            format!(
                "[[source]]\nname = \"server\"\ntype = \"postgres\"\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\n\
                 databases = [\"{books}\"]\n",
                postgres().socket.display(),
                postgres().port,
            )
        });
        let shop = self.shop.iter().map(|shop| {
            let socket = mariadb().socket.display();
            format!(
                "[[source]]\nname = \"shop\"\ntype = \"mariadb\"\nhost = \"{socket}\"\nuser = \"root\"\n\
                 databases = [\"{shop}\"]\n"
            )
        });
        let server: String = books.chain(shop).collect();
        self.world.configure(&format!(
            "site = \"office\"\nstaging = \"{}\"\nstate = \"{}\"\n[encryption]\nrecipients = [\"{}\"]\n\
             [[source]]\nname = \"documents\"\ntype = \"folder\"\npath = \"{}\"\n\
             [[source]]\nname = \"ledger\"\ntype = \"sqlite\"\npath = \"{}\"\n{server}\
             [[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"{}\"\n\
             [drill]\nidentity = \"{}\"\nscratch = \"{}\"\n{drill}",
            path("staging"),
            path("state"),
            recipient.trim(),
            path("documents"),
            path("ledger.db"),
            path("usb"),
            path("office.txt"),
            path("scratch"),
        ));
    }

    #[track_caller]
    fn backup(&self) -> Value {
        self.world.offsite(["--json", "backup"]).expect(0).json()
    }

    /// A drill that ends with `code`; nothing of it may be left.
    #[track_caller]
    fn drill(&self, code: i32, arguments: &[&str]) -> Value {
        let outcome = self.world.offsite([&["--json", "drill"], arguments].concat()).expect(code);
        assert_eq!(left(&self.world.path("scratch")), Vec::<PathBuf>::new(), "{outcome}");
        outcome.json()
    }

    /// A search path that has a program of ours first, called `name`.
    fn program(&self, name: &str, script: &str) -> String {
        let folder = self.world.make_folder(format!("programs-{name}"));
        let path = self.world.write(format!("programs-{name}/{name}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        office::set_mode(&folder, 0o755);
        format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
    }

    /// What fails a drill of a copy that is made now.
    #[track_caller]
    fn after_a_backup(&self, about: &str) -> String {
        self.backup();
        self.fails(&[], about)
    }

    /// A drill that fails because of one thing, which is said in one sentence.
    #[track_caller]
    fn fails(&self, arguments: &[&str], about: &str) -> String {
        let verdict = self.drill(5, arguments);
        assert_eq!(verdict["outcome"], "failed");
        let findings = verdict["findings"].as_array().unwrap();
        assert!(findings.len() == 1 && findings[0]["about"] == about, "{verdict:#}");
        findings[0]["what"].as_str().unwrap().to_owned()
    }
}

/// What lies in a folder, if it is there.
fn left(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_good_copy_passes_on_real_databases_and_nothing_is_left() {
    let office = Office::new(&["postgres", "mariadb"]);
    office.configure(
        "restore_within = \"4 h\"\n\
         [[drill.check]]\nsource = \"ledger\"\nsql = \"SELECT sum(cents) FROM payment\"\nexpect = \"1000\"\n\
         [[drill.check]]\nsource = \"server\"\nsql = \"SELECT account, sum(cents) FROM payment GROUP BY 1 ORDER BY 1\"\n\
         expect = \"\"\"1|500\n2|500\"\"\"\n\
         [[drill.check]]\nsource = \"shop\"\nsql = \"SELECT count(*), max(cents) FROM payment\"\nexpect = \"3|500\"\n\
         [[drill.check]]\nsource = \"documents\"\ncommand = [\"/bin/grep\", \"customer 7\", \"{restored}/letter-7.txt\"]\n",
    );
    office.backup();
    // Staging plays no part in it.
    std::fs::rename(office.world.path("staging"), office.world.path("away")).unwrap();
    let verdict = office.drill(0, &[]);
    assert_eq!((&verdict["outcome"], &verdict["checks"]), (&"passed".into(), &4.into()), "{verdict:#}");
    let databases = verdict["databases"].as_array().unwrap();
    for (database, engine) in databases.iter().zip(["SQLite", "PostgreSQL", "MariaDB"]) {
        assert!(database["sound"] == true && database["tables"] == 2 && database["rows"] == 5, "{verdict:#}");
        assert!(database["engine"].as_str().unwrap().contains(engine), "{verdict:#}");
    }
    assert_eq!((databases.len(), &verdict["compared_live"]), (3, &30.into()), "{verdict:#}");
    let status = office.world.offsite(["status"]).expect(0).stdout;
    assert!(status.contains("Last drill") && status.contains("passed: ") && status.contains("3 databases"), "{status}");
    let log = std::fs::read_to_string(office.world.path("state/evidence.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let record = &last["record"];
    assert_eq!((&record["kind"], &record["passed"]), (&"drill".into(), &true.into()), "{record:#}");
    let said = office.world.offsite(["drill", "latest", "--from", "usb", "--identity", "office.txt"]).expect(0);
    assert!(said.stdout.starts_with("PASSED: ") && said.stdout.contains("of 4 h 00 min at most"), "{said}");
}

#[test]
fn what_is_wrong_with_a_drill_itself_is_said() {
    let office = Office::new(&["postgres"]);
    office.backup();
    let what = office.fails(&["--identity", "stranger.txt"], "identity");
    assert!(what.contains("was sealed to others") && what.contains("offsite key check"), "{what}");
    let status = office.world.offsite(["status"]).expect(0).stdout;
    assert!(
        status.contains("Last drill") && status.contains("FAILED") && status.contains("sealed to others"),
        "{status}"
    );
    office.configure("scratch_limit = \"1 KiB\"\n");
    let what = office.fails(&[], "scratch");
    assert!(what.contains("may hold 1 KiB") && what.contains("raise `[drill] scratch_limit`"), "{what}");
    office.configure("scratch_limit = \"64 MiB\"\n");
    let what = office.fails(&[], "scratch");
    assert!(what.contains("a server for server needs"), "{what}");
    office.configure("restore_within = \"1 ms\"\n");
    let what = office.fails(&[], "time");
    assert!(what.contains("needs it within 1 ms"), "{what}");
    office.configure("[[drill.check]]\nsource = \"server\"\nsql = \"SELECT count(*) FROM account\"\nexpect = \"3\"\n");
    let what = office.fails(&[], "check");
    assert!(what.contains("`SELECT count(*) FROM account` gives `2`, and `3` was expected"), "{what}");
    office.configure("[[drill.check]]\nsource = \"documents\"\ncommand = [\"/bin/ls\", \"/no/such/file\"]\n");
    let what = office.fails(&[], "check");
    assert!(what.contains("is not content: `ls` failed"), "{what}");
}

#[test]
fn a_drill_that_cannot_be_tried_is_no_failed_one() {
    let office = Office::new(&[]);
    office.backup();
    let scratch = office.world.make_folder("scratch");
    office::set_mode(&scratch, 0o777);
    let others = office.world.offsite(["drill"]).expect(2);
    assert!(others.stderr.contains("or others may write to it"), "{others}");
    assert!(others.stderr.contains("what to do: let `[drill] scratch` name a folder"), "{others}");
    std::fs::remove_dir(&scratch).unwrap();
    office.world.write("scratch", "a file");
    let file = office.world.offsite(["drill"]).expect(2);
    assert!(file.stderr.contains("scratch cannot be used"), "{file}");
    let status = office.world.offsite(["status"]).expect(0).stdout;
    assert!(status.contains("Last drill: none yet") && !status.contains("FAILED"), "{status}");
    let log = std::fs::read_to_string(office.world.path("state/evidence.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert!(last["record"]["not_tried"].as_str().unwrap().contains("cannot be used"), "{last:#}");
}

#[test]
fn a_store_that_is_away_makes_no_failed_drill_and_hides_none() {
    let office = Office::new(&[]);
    office.backup();
    assert_eq!(office.drill(0, &[])["outcome"], "passed");
    let (usb, away) = (office.world.path("usb"), office.world.path("usb.away"));
    std::fs::rename(&usb, &away).unwrap();
    let outcome = office.world.offsite(["drill"]).expect(4);
    assert!(outcome.stderr.contains("nothing is known of the copies, neither good nor bad"), "{outcome}");
    let status = || office.world.offsite(["status"]).expect(0).stdout;
    let told = status();
    for part in ["NEEDS ATTENTION", "could NOT BE TRIED: ", "Last drill just now", "passed: "] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    assert!(!told.contains("FAILED"), "{told}");
    std::fs::rename(&away, &usb).unwrap();
    // A store that is there and does not give what it has is another matter.
    let is_pack = |path: &PathBuf| path.is_file() && path.parent().unwrap().ends_with("packs");
    let pack = office::paths(&usb).into_iter().find(is_pack).unwrap();
    std::fs::rename(&pack, usb.join("aside")).unwrap();
    std::os::unix::fs::symlink(&pack, &pack).unwrap();
    assert!(office.fails(&[], "pack").contains("cannot be had"), "{}", status());
    std::fs::remove_file(&pack).unwrap();
    std::fs::rename(usb.join("aside"), &pack).unwrap();
    // The failed one is not forgotten because the next could not be tried.
    std::fs::rename(&usb, &away).unwrap();
    office.drill(4, &[]);
    let told = status();
    assert!(told.contains("the last drill FAILED") && told.contains("could NOT BE TRIED"), "{told}");
    std::fs::rename(&away, &usb).unwrap();
    assert_eq!(office.drill(0, &[])["outcome"], "passed");
    assert!(status().contains("all is well"), "{}", status());
}

#[test]
fn a_store_that_goes_away_while_a_drill_reads_makes_no_failed_drill() {
    let server = seaweedfs();
    let proxy = Proxy::to(server.port());
    let machine = Machine::with_bucket(&proxy.url(), &server.bucket("drilled").name);
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    let path = |name: &str| machine.world.path(name).display().to_string();
    machine.configure(
        100,
        &format!("[drill]\nidentity = \"{}\"\nscratch = \"{}\"\n", path("identity.txt"), path("scratch")),
    );
    machine.backup(&[]).expect(0);
    let mut reads = false;
    proxy.script(move |request| {
        reads |= request.target.contains("/packs/00-");
        reads.then_some(Fault::Answer { status: 403, retry_after: None })
    });
    let outcome = machine.world.offsite(["drill"]).expect(4);
    assert!(outcome.stdout.starts_with("NOT TRIED: ") && outcome.stdout.contains("neither good nor bad"), "{outcome}");
    let told = machine.world.offsite(["status"]).expect(0).stdout;
    assert!(told.contains("could NOT BE TRIED: ") && !told.contains("FAILED"), "{told}");
    assert_eq!(left(&machine.world.path("scratch")), Vec::<PathBuf>::new());
}

#[test]
fn a_server_that_does_not_start_is_no_passed_drill() {
    let office = Office::new(&["postgres"]);
    office.backup();
    let path = std::env::var("PATH").unwrap();
    let fake = office.world.make_folder("fake");
    let with_fake = || {
        let verdict = office.world.offsite(["--json", "drill"]).env("PATH", format!("{}:{path}", fake.display()));
        verdict.run()
    };
    let write = |name: &str, script: &str| {
        let path = office.world.write(format!("fake/{name}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    office::set_mode(&fake, 0o755);
    write("postgres", "echo 'postgres (PostgreSQL) 99.1'");
    write("initdb", "echo 'initdb: error: no space for a cluster' >&2; exit 1");
    let outcome: Outcome = with_fake();
    assert_eq!(outcome.code, Some(5), "{outcome}");
    let verdict = outcome.json();
    assert_eq!(verdict["findings"][0]["about"], "server", "{verdict:#}");
    let what = verdict["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("does not start") && what.contains("no space for a cluster"), "{what}");
}

#[test]
fn a_mariadb_server_that_does_not_start_is_no_passed_drill() {
    let office = Office::new(&["mariadb"]);
    office.backup();
    let install = office.program("mariadb-install-db", "echo 'FATAL ERROR: no space for a server' >&2; exit 1");
    let outcome = office.world.offsite(["--json", "drill"]).env("PATH", install).expect(5);
    let verdict = outcome.json();
    assert_eq!(verdict["findings"][0]["about"], "server", "{verdict:#}");
    let what = verdict["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("the MariaDB server that was to open the databases of shop does not start"), "{what}");
    assert!(what.contains("no space for a server"), "{what}");
}

/// What the server lets be and the bytes of the copy show faithfully.
#[test]
fn rows_that_refer_to_nothing_fail_the_drill_whatever_the_engine() {
    let office = Office::new(&["postgres", "mariadb"]);
    let (books, shop) = (office.books.clone().unwrap(), office.shop.clone().unwrap());
    postgres().sql(&books, "SET session_replication_role = replica; DELETE FROM account WHERE id = 2");
    let what = office.after_a_backup("database");
    assert!(what.contains("could not be restored") && what.contains("payment_account_fkey"), "{what}");
    postgres().sql(&books, "INSERT INTO account VALUES (2)");
    mariadb().sql(&shop, "SET foreign_key_checks = 0; DELETE FROM account WHERE id = 2");
    let what = office.after_a_backup("database");
    assert!(
        what.contains("finds damage in shop/")
            && what.contains("2 of the rows of payment refer to rows of account that are not there"),
        "{what}"
    );
}

/// A tool that leaves rows out says nothing; the numbers that were counted beside it do.
#[test]
fn rows_that_a_dump_leaves_out_fail_the_drill() {
    let office = Office::new(&["postgres", "mariadb"]);
    let (books, shop) = (office.books.clone().unwrap(), office.shop.clone().unwrap());
    for (name, option, table, held) in [
        ("pg_dump", "--exclude-table-data=payment", format!("public.payment of server/{books}.dump has 0 rows"), 3),
        ("mariadb-dump", "'--where=1 LIMIT 2'", format!("payment of shop/{shop}.sql has 2 rows"), 3),
    ] {
        let script = format!("PATH=${{PATH#*:}} first=$1; shift; exec {name} \"$first\" {option} \"$@\"");
        let path = office.program(name, &script);
        office.world.offsite(["backup"]).env("PATH", path).expect(0);
        let what = office.fails(&[], "rows");
        assert_eq!(what, format!("the table {table}, and had {held} when it was copied: rows are missing"));
    }
}

#[test]
fn a_check_that_disagrees_fails_the_drill_whatever_the_engine() {
    let office = Office::new(&["mariadb"]);
    office.backup();
    for source in ["ledger", "shop"] {
        office.configure(&format!(
            "[[drill.check]]\nsource = \"{source}\"\nsql = \"SELECT sum(cents) FROM payment\"\nexpect = \"1001\"\n"
        ));
        let what = office.fails(&[], "check");
        let said = format!("a check of {source} disagrees: `SELECT sum(cents) FROM payment` gives `1000`");
        assert!(what.contains(&said), "{what}");
    }
}

#[test]
fn a_bad_pack_fails_the_drill_and_names_itself() {
    let office = Office::new(&[]);
    office.backup();
    let folder = left(&office.world.path("usb/office/rolling")).remove(0).join("packs");
    let pack = left(&folder).remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let verdict = office.drill(5, &[]);
    let first = &verdict["findings"][0];
    assert_eq!(first["about"], "pack", "{verdict:#}");
    assert!(first["what"].as_str().unwrap().contains(pack.file_name().unwrap().to_str().unwrap()), "{verdict:#}");
}

#[test]
fn a_database_that_was_damaged_before_it_was_copied_fails_the_drill() {
    let office = Office::new(&[]);
    let ledger = rusqlite::Connection::open(office.world.path("ledger.db")).unwrap();
    ledger.execute_batch("PRAGMA foreign_keys = off; DELETE FROM account WHERE id = 2").unwrap();
    drop(ledger);
    office.backup();
    let what = office.fails(&[], "database");
    assert!(what.contains("ledger/ledger.db is inconsistent: 2 of its rows"), "{what}");
    // What is not asked for is not looked at: an old copy is good.
    let verdict = office.drill(5, &[]);
    assert_eq!(verdict["databases"][0]["sound"], false);
}

#[test]
fn rows_that_are_missing_fail_the_drill() {
    let office = Office::new(&[]);
    let id = office.backup()["generation"]["id"].as_str().unwrap().to_owned();
    let path = office.world.path("staging").join(id).join("generation.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let rows = &mut document["sources"][1]["rows"]["ledger.db"]["payment"];
    assert_eq!(*rows, 3);
    *rows = 4.into();
    std::fs::write(&path, document.to_string()).unwrap();
    // A database that nobody has changed is not copied again: the next generation takes its copy over, with what was counted.
    office.backup();
    let what = office.fails(&[], "rows");
    assert_eq!(
        what,
        "the table payment of ledger/ledger.db has 3 rows, and had 4 when it was copied: rows are missing"
    );
}

#[test]
fn what_could_not_be_opened_is_not_called_passed() {
    let office = Office::new(&[]);
    let config = std::fs::read_to_string(office.world.path("offsite.toml")).unwrap();
    let dump =
        "[[source]]\nname = \"mail\"\ntype = \"command\"\ncommand = [\"/bin/echo\", \"mail\"]\nstdout = \"mail\"\n";
    office.world.configure(&format!("{config}{dump}"));
    office.backup();
    let verdict = office.drill(0, &[]);
    assert_eq!(verdict["outcome"], "passed_except", "{verdict:#}");
    let what = verdict["not_done"][0].as_str().unwrap();
    assert!(what.contains("mail") && what.contains("was not opened"), "{what}");
    office.world.configure(&format!(
        "{config}identity_for = \"1 ms\"\n[[drill.check]]\nsource = \"mail\"\ncommand = [\"/bin/test\", \"-s\", \"{{restored}}/mail\"]\n{dump}"
    ));
    let verdict = office.drill(0, &[]);
    assert_eq!(verdict["not_done"].as_array().unwrap().len(), 1, "{verdict:#}");
    let what = verdict["not_done"][0].as_str().unwrap();
    assert!(what.contains("lies on this machine since") && what.contains("take it away"), "{what}");
    let status = office.world.offsite(["status"]).expect(0).stdout;
    assert!(status.contains("NEEDS ATTENTION") && status.contains("! the secret key"), "{status}");
}

#[test]
fn a_drill_that_is_killed_leaves_neither_files_nor_servers() {
    let office = Office::new(&["postgres"]);
    office.configure("[[drill.check]]\nsource = \"server\"\nsql = \"SELECT pg_sleep(900)\"\nexpect = \"\"\n");
    office.backup();
    let scratch = office.world.path("scratch");
    let drill = office.world.offsite(["drill"]).start();
    let asked = || processes_in(&scratch).iter().any(|command| command.contains("pg_sleep"));
    wait_until(Duration::from_secs(120), "the check that never ends", asked);
    assert!(processes_in(&scratch).len() > 3, "there is no server");
    drill.kill();
    wait_until(Duration::from_secs(60), "everything to be gone", || {
        left(&scratch).is_empty() && processes_in(&scratch).is_empty()
    });
}

/// Command lines of all processes that work in `folder` or below.
fn processes_in(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    let there = processes.filter(|path| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)));
    there
        .map(|path| String::from_utf8_lossy(&std::fs::read(path.join("cmdline")).unwrap_or_default()).into_owned())
        .collect()
}
