//! The program under measure: one site, with a store in a folder or in an S3 server.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::servers::{Bucket, Keys, SeaweedFs};

use crate::measure::{self, Cost};
use crate::office::Office;

/// A site that backs one office up into one store.
pub(crate) struct Site<'a> {
    store: Store<'a>,
    root: PathBuf,
    program: PathBuf,
    log: PathBuf,
}

/// Where to.
#[derive(Clone, Copy)]
pub(crate) enum Store<'a> {
    /// A folder of its own.
    Directory,
    /// A bucket.
    S3 { server: &'a SeaweedFs, bucket: &'a Bucket },
}

/// What a run brought into the store.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What it cost.
    pub(crate) cost: Cost,
    /// Bytes and objects that were sent.
    pub(crate) sent: Sent,
    /// The generation.
    pub(crate) generation: String,
}

/// What a store was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// Bytes of all objects.
    pub(crate) bytes: u64,
    /// How many.
    pub(crate) objects: u64,
}

impl<'a> Site<'a> {
    /// A new site in an empty folder, which copies an office and seals to the recipient of `identity`.
    pub(crate) fn new(root: &Path, office: &Office, recipient: &str, store: Store<'a>, log: &Path) -> Self {
        let sources = format!(
            "[[source]]\nname = \"ledger\"\ntype = \"sqlite\"\npath = \"{database}\"\n\
             [[source]]\nname = \"dump\"\ntype = \"folder\"\npath = \"{dump}\"\n\
             [[source]]\nname = \"documents\"\ntype = \"folder\"\npath = \"{documents}\"\n",
            database = office.database().display(),
            dump = office.dump().parent().unwrap().display(),
            documents = office.documents().display(),
        );
        Self::of(root, &sources, recipient, store, log)
    }

    /// The same with other sources, as the configuration names them.
    pub(crate) fn of(root: &Path, sources: &str, recipient: &str, store: Store<'a>, log: &Path) -> Self {
        std::fs::remove_dir_all(root).ok();
        std::fs::create_dir_all(root.join("store")).unwrap();
        let place = match store {
            Store::Directory => format!("type = \"directory\"\npath = \"{}\"", root.join("store").display()),
            Store::S3 { server, bucket } => format!(
                "type = \"s3\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\nbucket = \"{}\"\n\
                 access_key = \"{}\"\nsecret_key = \"env:S3_SECRET\"",
                server.url(),
                bucket.name,
                Keys::ADMIN.id
            ),
        };
        let config = format!(
            "site = \"bench\"\nstaging = \"{root}/staging\"\nstate = \"{root}/state\"\n\
             [encryption]\nrecipients = [\"{recipient}\"]\n{sources}[[store]]\nname = \"store\"\n{place}\n",
            root = root.display(),
        );
        std::fs::write(root.join("offsite.toml"), config).unwrap();
        let program = std::env::current_exe().unwrap().with_file_name("offsite");
        Self { store, root: root.to_owned(), program, log: log.to_owned() }
    }

    /// One generation.
    pub(crate) fn backup(&self) -> Run {
        let before = self.stored();
        let output = self.root.join("result.json");
        std::fs::remove_file(&output).ok();
        let cost = measure::run(self.offsite().args(["--json", "backup"]), &output);
        let text = std::fs::read_to_string(&output).unwrap();
        let start = text.find('{').unwrap();
        let result = serde_json::Deserializer::from_str(&text[start..]).into_iter::<serde_json::Value>().next();
        let result = result.unwrap().unwrap();
        let generation = find(&result, "id").and_then(|id| id.as_str()).unwrap().to_owned();
        let after = self.stored();
        let sent = Sent { bytes: after.bytes - before.bytes, objects: after.objects - before.objects };
        Run { cost, sent, generation }
    }

    /// Restores a generation into a new folder, which is returned and to be removed.
    pub(crate) fn restore(&self, generation: &str, identity: &Path) -> (Cost, PathBuf) {
        let to = self.root.join("restored");
        std::fs::remove_dir_all(&to).ok();
        let mut command = self.offsite();
        command
            .args(["restore", generation, "--to"])
            .arg(&to)
            .arg("--identity")
            .arg(identity)
            .args(["--from", "store"]);
        (measure::run(&mut command, &self.log), to)
    }

    fn offsite(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("OFFSITE_CONFIG", self.root.join("offsite.toml")).env("S3_SECRET", Keys::ADMIN.secret);
        command
    }

    fn stored(&self) -> Sent {
        self.store.holds(&self.root.join("store"))
    }
}

impl Store<'_> {
    /// What it holds; a folder's own is `folder`.
    pub(crate) fn holds(&self, folder: &Path) -> Sent {
        let sum = |sent: Sent, bytes| Sent { bytes: sent.bytes + bytes, objects: sent.objects + 1 };
        match self {
            Self::S3 { bucket, .. } => bucket.list().into_values().fold(Sent::default(), sum),
            Self::Directory => {
                let files = tests::office::paths(folder);
                let files = files.iter().map(|path| path.metadata().unwrap()).filter(std::fs::Metadata::is_file);
                files.map(|file| file.len()).fold(Sent::default(), sum)
            }
        }
    }
}

/// The first value of this name, however deep.
fn find<'v>(value: &'v serde_json::Value, name: &str) -> Option<&'v serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => {
            map.get(name).filter(|value| !value.is_null()).or_else(|| map.values().find_map(|value| find(value, name)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}
