//! After the building has burned down: with the printed recovery sheet and a login of the bucket, or with a passphrase and a
//! login, everything comes back, where nothing is installed but `age`, `zstd`, `tar` and what POSIX and coreutils have.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::bare::BareMachine;
use tests::servers::{Bucket, Keys, SeaweedFs, seaweedfs};
use tests::{Rng, World, office, process};

/// An office whose copies lie in a bucket, and nowhere else any more.
struct Office {
    world: World,
    bucket: Bucket,
}

impl Office {
    /// With the keys that `recipients` are the public halves of.
    fn new(recipient: &dyn Fn(&World) -> String) -> Self {
        let world = World::new();
        let server: &SeaweedFs = seaweedfs();
        let bucket = server.bucket("recovery");
        office::documents(&world.make_folder("documents"), &mut Rng::new(5), 40, 400_000);
        let ledger = rusqlite::Connection::open(world.path("ledger.db")).unwrap();
        ledger.execute_batch("CREATE TABLE entry (id INTEGER PRIMARY KEY); INSERT INTO entry VALUES (1), (2)").unwrap();
        let path = |name: &str| world.path(name).display().to_string();
        let secret = world.write("s3-secret", Keys::ADMIN.secret);
        let recipient = recipient(&world);
        world.configure(&format!(
            "site = \"townhall\"\nstaging = \"{}\"\nstate = \"{}\"\n[encryption]\nrecipients = [\"{recipient}\"]\n\
             [[source]]\nname = \"documents\"\ntype = \"folder\"\npath = \"{}\"\n\
             [[source]]\nname = \"ledger\"\ntype = \"sqlite\"\npath = \"{}\"\n\
             [[store]]\nname = \"cloud\"\ntype = \"s3\"\nendpoint = \"{}\"\nbucket = \"{}\"\nprefix = \"offices\"\n\
             access_key = \"{}\"\nsecret_key = \"file:{}\"\n",
            path("staging"),
            path("state"),
            path("documents"),
            path("ledger.db"),
            server.url(),
            bucket.name,
            Keys::ADMIN.id,
            secret.display(),
        ));
        world.offsite(["backup"]).expect(0);
        // The second copy is an incremental one, which needs the first.
        world.write("documents/letter.txt", "Dear customer,\n");
        world.offsite(["backup"]).expect(0);
        Self { world, bucket }
    }

    /// What a browser and a login would fetch of the bucket: all below `prefix`, into a new folder.
    fn fetch(&self, prefix: &str) -> Person {
        let folder = self.world.make_folder("person");
        for (key, _) in self.bucket.list() {
            if let Some(path) = key.strip_prefix(prefix) {
                let path = folder.join(path.trim_start_matches('/'));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, self.bucket.read(&key)).unwrap();
            }
        }
        // `script` gives a program a terminal, which `age` asks for a passphrase.
        Person { folder, machine: BareMachine::new(self.world.make_folder("tools"), &["script"]) }
    }

    /// Everything that was copied is in `folder`.
    #[track_caller]
    fn assert_restored(&self, folder: &Path) {
        let original = contents(&self.world.path("documents"));
        assert!(original.len() > 40 && original == contents(&folder.join("documents")), "documents differ");
        let ledger = rusqlite::Connection::open(folder.join("ledger/ledger.db")).unwrap();
        let entries: i64 = ledger.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
        assert_eq!(entries, 2);
    }
}

/// Files by path.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = office::paths(folder).into_iter().filter(|path| path.is_file());
    files.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

/// Somebody with a new machine, in a folder with what was fetched.
struct Person {
    folder: PathBuf,
    machine: BareMachine,
}

impl Person {
    #[track_caller]
    fn must(&self, command: &str, input: &str) -> String {
        let mut shell = self.machine.shell(command, &self.folder);
        let output = run(shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()), input.as_bytes());
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command}\nfailed: {said}");
        said
    }

    /// The chain, as a path from here, and its newest generation.
    fn newest(&self) -> (String, String) {
        let chain = std::fs::read_dir(self.folder.join("rolling")).unwrap().next().unwrap().unwrap().file_name();
        let chain = format!("rolling/{}", chain.to_str().unwrap());
        let names = std::fs::read_dir(self.folder.join(&chain)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let generations = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
        (chain, generations.max().unwrap())
    }
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    // A program that ends without reading all of it is judged by its end.
    child.stdin.take().unwrap().write_all(input).ok();
    child.wait_with_output().unwrap()
}

/// What a program reads in the codes of a page, by what is written below each.
fn codes(page: &str) -> BTreeMap<String, String> {
    /// Points to a module: what a printer and a camera make of it.
    const SCALE: usize = 3;
    // One row in some hundred codes looks like a code of bars to whoever looks for these as well.
    let reader = "import sys, zxingcpp\n\
                  side = int(sys.argv[1])\n\
                  image = memoryview(sys.stdin.buffer.read()).cast('B', (side, side))\n\
                  [code] = zxingcpp.read_barcodes(image, formats=zxingcpp.BarcodeFormat.QRCode)\n\
                  sys.stdout.write(code.text)\n";
    let mut found = BTreeMap::new();
    for figure in page.split("<figure>").skip(1) {
        let after = |text: &str| figure.split_once(text).unwrap().1.to_owned();
        let modules: usize = after("viewBox=\"0 0 ").split(' ').next().unwrap().parse().unwrap();
        let side = modules * SCALE;
        let mut image = vec![255_u8; side * side];
        let path = after("<path d=\"");
        for square in path.split('"').next().unwrap().split('M').skip(1) {
            let (x, rest) = square.split_once(' ').unwrap();
            let (x, y): (usize, usize) = (x.parse().unwrap(), rest.split('h').next().unwrap().parse().unwrap());
            for row in y * SCALE..(y + 1) * SCALE {
                image[row * side + x * SCALE..row * side + (x + 1) * SCALE].fill(0);
            }
        }
        let mut python = Command::new(process::program("python3"));
        python.args(["-c", reader, &side.to_string()]);
        let output = run(python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()), &image);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let title = after("<br>").split("</figure>").next().unwrap().to_owned();
        found.insert(title, String::from_utf8(output.stdout).unwrap());
    }
    found
}

#[test]
fn the_printed_sheet_and_a_login_get_the_whole_office_back() {
    let office = Office::new(&|world| world.offsite(["key", "new", "office.txt"]).expect(0).stdout.trim().to_owned());
    office.world.offsite(["key", "sheet", "--identity", "office.txt", "--output", "sheet.html"]).expect(0);
    let page = std::fs::read_to_string(office.world.path("sheet.html")).unwrap();
    assert!(!page.contains("src=") && !page.contains("href="), "it has to be whole without a network");
    let codes = codes(&page);
    let configuration: toml::Table = codes["site and store cloud: offsite.toml"].parse().unwrap();
    let text = |table: &toml::Table, key: &str| table[key].as_str().unwrap().to_owned();
    let store = configuration["store"].as_array().unwrap()[0].as_table().unwrap();
    assert_eq!((text(store, "bucket"), text(store, "access_key")), (office.bucket.name.clone(), Keys::ADMIN.id.into()));

    let person = office.fetch(&format!("{}/{}/", text(store, "prefix"), text(&configuration, "site")));
    std::fs::write(person.folder.join("key.txt"), &codes["SECRET KEY: key.txt"]).unwrap();
    let (chain, newest) = person.newest();
    // The commands as they stand on the sheet; the very first installs what this machine has.
    let (_, by_hand) = page.split_once("<h2>3. By hand").unwrap();
    let commands: Vec<&str> = by_hand.split("<pre>").skip(1).map(|rest| rest.split_once("</pre>").unwrap().0).collect();
    let filled = |commands: &str, out: &str| {
        let text = commands.replace("&quot;", "\"").replace("&gt;", ">").replace("CHAIN", &chain).replace("OUT", out);
        text.replace("GENERATION", &newest)
    };
    let (install, script) = commands[0].split_once('\n').unwrap();
    assert!(install.starts_with("sudo apt install"), "{install}");
    person.must(&filled(script, "newest"), "");
    person.must("cd newest && sha256sum -c --quiet SHA256SUMS", "");
    office.assert_restored(&person.folder.join("newest"));
    person.must(&filled(commands[1], "first"), "");
    person.must("cd first && sha256sum -c --quiet SHA256SUMS", "");
}

#[test]
fn a_passphrase_and_a_login_get_the_whole_office_back() {
    const PASSPHRASE: &str = "candle orbit walnut harbor tunnel mosaic";
    let office = Office::new(&|world| {
        let place = format!("file:{}", world.write("passphrase", PASSPHRASE).display());
        world.offsite(["key", "new", "office.age", "--passphrase", &place]).expect(0).stdout.trim().to_owned()
    });
    let place = format!("file:{}", office.world.path("passphrase").display());
    let deposit = ["key", "deposit", "office.age", "--name", "office", "--passphrase", &place];
    office.world.offsite(deposit).expect(0);
    // Once more is no harm.
    office.world.offsite(deposit).expect(0);

    let person = office.fetch("offices/townhall/");
    assert!(
        std::fs::read_to_string(person.folder.join("RESTORE.txt")).unwrap().contains("age -d -o key.txt keys/NAME.age")
    );
    let asked = person.must("script -qec 'age -d -o key.txt keys/office.age' /dev/null", &format!("{PASSPHRASE}\n"));
    assert!(asked.contains("passphrase"), "{asked}");
    let (chain, newest) = person.newest();
    person.must(&format!("sh restore.sh key.txt {chain} {newest} back"), "");
    person.must("cd back && sha256sum -c --quiet SHA256SUMS", "");
    office.assert_restored(&person.folder.join("back"));
}

#[test]
fn only_a_key_under_a_good_passphrase_goes_into_a_store() {
    let world = World::new();
    world.make_folder("usb");
    world.write("documents/letter.txt", "Dear customer,\n");
    let path = |name: &str| world.path(name).display().to_string();
    let place = format!("file:{}", world.write("passphrase", "too short").display());
    let new =
        |arguments: &[&str]| world.offsite([&["key", "new"], arguments].concat()).expect(0).stdout.trim().to_owned();
    let (weak, plain) = (new(&["weak.age", "--passphrase", &place]), new(&["plain.txt"]));
    let configure = |recipients: &[&str]| {
        world.configure(&format!(
            "site = \"office\"\nstaging = \"{}\"\nstate = \"{}\"\n[encryption]\nrecipients = {recipients:?}\n\
             [[source]]\nname = \"documents\"\ntype = \"folder\"\npath = \"{}\"\n\
             [[store]]\nname = \"usb\"\ntype = \"directory\"\npath = \"{}\"\n",
            path("staging"),
            path("state"),
            path("documents"),
            path("usb"),
        ))
    };
    configure(&[&weak]);
    let refused = world.offsite(["key", "deposit", "plain.txt", "--name", "office"]).expect(2);
    assert!(refused.stderr.contains("is not a secret key under a passphrase"), "{refused}");
    let refused = world.offsite(["key", "deposit", "weak.age", "--name", "office", "--passphrase", &place]).expect(2);
    assert!(refused.stderr.contains("it has to have 16 or more"), "{refused}");
    assert!(!world.path("usb/office").exists());

    // A key that comes later opens what comes later, which therefore begins with a full; and the proof says which is which.
    let first = world.offsite(["--json", "backup"]).expect(0).json();
    configure(&[&weak, &plain]);
    let checked = world.offsite(["check"]).expect(0);
    assert!(checked.stdout.contains(&format!("a new key can open the backups: {plain}")), "{checked}");
    // Finishing what is not there makes nothing that the new key opens.
    world.offsite(["backup", "--resume"]).expect(0);
    let second = world.offsite(["--json", "backup"]).expect(0);
    assert!(second.stderr.contains("and nothing that is older"), "{second}");
    let second = second.json();
    assert_eq!(second["stores"][0]["full"], true, "{second:#}");
    let third = world.offsite(["--json", "backup"]).expect(0);
    assert!(!third.stderr.contains("a new key") && third.json()["stores"][0]["full"] == false, "{third}");
    let proof = world.offsite(["--json", "key", "check", "--identity", "plain.txt"]).expect(0).json();
    assert_eq!(
        (&proof["opens"], &proof["cannot_open"]),
        (&vec![plain.clone()].into(), &vec![weak.clone()].into()),
        "{proof:#}"
    );
    let store = &proof["stores"][0];
    assert_eq!(store["not_opened"], serde_json::json!([first["generation"]["id"]]), "{proof:#}");
    assert_eq!(store["opened"].as_array().unwrap().len(), 2, "{proof:#}");
    assert_eq!(store["opened"][0], second["generation"]["id"]);
    let log = std::fs::read_to_string(world.path("state/evidence.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["record"]["kind"], last["record"]["generations"].as_array().unwrap().len()),
        (&"key_proof".into(), 2)
    );

    // What builds on something that a key does not open is not opened by it, though its own manifest is.
    let remembered = std::fs::read(world.path("state/recipients.json")).unwrap();
    configure(&[&weak]);
    world.offsite(["backup", "--full"]).expect(0);
    configure(&[&weak, &plain]);
    world.write("state/recipients.json", remembered);
    let built_on = world.offsite(["--json", "backup"]).expect(0).json();
    assert_eq!(built_on["stores"][0]["full"], false, "{built_on:#}");
    let proof = world.offsite(["--json", "key", "check", "--identity", "plain.txt"]).expect(0).json();
    assert_eq!(proof["stores"][0]["opened"], store["opened"], "{proof:#}");
    // Who cannot know what the keys were begins anew.
    world.write("state/recipients.json", "{");
    let anew = world.offsite(["--json", "backup"]).expect(0);
    assert!(anew.stderr.contains("it is not known who could open"), "{anew}");
    assert_eq!(anew.json()["stores"][0]["full"], true, "{anew}");
}
