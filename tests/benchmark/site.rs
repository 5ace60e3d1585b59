//! The program under measure: one site, with a store in a folder or in an S3 server.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::servers::Keys;

use crate::measure::{self, Cost};
use crate::office::Office;

/// A site that backs one office up into one store.
pub(crate) struct Site {
    root: PathBuf,
    program: PathBuf,
    log: PathBuf,
}

/// Where to.
pub(crate) enum Store<'a> {
    /// A folder of the site's own.
    Directory,
    /// A bucket at an endpoint.
    S3 { endpoint: &'a str, bucket: &'a str },
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

impl Site {
    /// A new site in an empty folder, which seals to the recipient of `identity`.
    pub(crate) fn new(root: &Path, office: &Office, recipient: &str, store: &Store<'_>, log: &Path) -> Self {
        std::fs::remove_dir_all(root).ok();
        std::fs::create_dir_all(root.join("store")).unwrap();
        let store = match store {
            Store::Directory => format!("type = \"directory\"\npath = \"{}\"", root.join("store").display()),
            Store::S3 { endpoint, bucket } => format!(
                "type = \"s3\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\nbucket = \"{bucket}\"\n\
                 access_key = \"{}\"\nsecret_key = \"env:S3_SECRET\"",
                Keys::ADMIN.id
            ),
        };
        let config = format!(
            "site = \"bench\"\nstaging = \"{root}/staging\"\nstate = \"{root}/state\"\n\
             [encryption]\nrecipients = [\"{recipient}\"]\n\
             [[source]]\nname = \"ledger\"\ntype = \"sqlite\"\npath = \"{database}\"\n\
             [[source]]\nname = \"dump\"\ntype = \"folder\"\npath = \"{dump}\"\n\
             [[source]]\nname = \"documents\"\ntype = \"folder\"\npath = \"{documents}\"\n\
             [[store]]\nname = \"store\"\n{store}\n",
            root = root.display(),
            database = office.database().display(),
            dump = office.dump().parent().unwrap().display(),
            documents = office.documents().display(),
        );
        std::fs::write(root.join("offsite.toml"), config).unwrap();
        let program = std::env::current_exe().unwrap().with_file_name("offsite");
        Self { root: root.to_owned(), program, log: log.to_owned() }
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
        let number = |name| find(&result, name).and_then(serde_json::Value::as_u64).unwrap();
        let after = self.stored();
        let sent = match after.objects {
            // Not in a folder: what the program says it sent, which is its packs.
            0 => Sent { bytes: number("sent_bytes"), objects: number("sent_packs") },
            _ => Sent { bytes: after.bytes - before.bytes, objects: after.objects - before.objects },
        };
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
        let files = tests::office::paths(&self.root.join("store"));
        let files = files.iter().map(|path| path.metadata().unwrap()).filter(std::fs::Metadata::is_file);
        files.fold(Sent::default(), |sent, file| Sent { bytes: sent.bytes + file.len(), objects: sent.objects + 1 })
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
