//! The benchmark: what the program costs on an office's data, beside what everyday programs cost, in one run.
//!
//! Nothing here decides whether a test passes: machines differ, and so ratios count. `tests/bench` builds and runs it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark: a panic says where it failed, and printing is its work"
)]

mod ballast;
mod database;
mod measure;
mod office;
mod peers;
mod report;
mod scale;
mod site;
mod yardstick;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use office::Office;
use peers::Peer;
use report::Report;
use site::{Site, Store};
use tests::servers::SeaweedFs;
use yardstick::{Limit, Yardstick};

/// Measures the program beside `zstd -3 | age`, on an office made up from a seed.
#[derive(Debug, Parser)]
#[command(name = "tests/bench")]
struct Arguments {
    /// MiB of database; a dump and documents of half as much are added
    #[arg(long, default_value_t = 2048)]
    size: u64,
    /// Other numbers make other offices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often everything is measured; medians are shown
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Go on to a week of days in one chain
    #[arg(long)]
    week: bool,
    /// Measure with an S3 server on this machine as well; other tools are then measured with that
    #[arg(long)]
    s3: bool,
    /// Measure restic and rustic as well, if they are installed
    #[arg(long)]
    peers: bool,
    /// Measure instead how state and memory grow: an index of up to 1 TiB, and a file of 100 GiB that is mostly holes
    #[arg(long)]
    scale: bool,
    /// Where everything lies meanwhile: about ten times the size; the office is kept there for the next time
    #[arg(long)]
    folder: PathBuf,
    /// Write the result as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

struct Bench<'a> {
    arguments: &'a Arguments,
    yardstick: Yardstick<'a>,
    /// As it was made.
    made: Office,
    report: Report,
}

fn main() {
    let arguments = Arguments::parse();
    let folder = std::path::absolute(&arguments.folder).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let log = folder.join("log");
    let (identity, recipient) = keys(&folder);
    if arguments.scale {
        let yardstick = Yardstick { root: &folder, recipient: &recipient, identity: &identity, log: &log };
        scale::index(&folder);
        let mut report = Report::default();
        for gib in [10, 100] {
            scale::holes(&yardstick, gib << 30, &mut report);
        }
        return;
    }
    let made = folder.join(format!("office-{}-{}", arguments.size, arguments.seed));
    eprintln!("the office: {}", made.display());
    let made = Office::make(&made, arguments.seed, arguments.size << 20);
    let bytes = made.bytes();
    eprintln!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let _held = ballast::hold(6 * bytes);
    let yardstick = Yardstick { root: &folder, recipient: &recipient, identity: &identity, log: &log };
    yardstick.tar(&made);
    let mut bench = Bench { arguments: &arguments, yardstick, made, report: Report::default() };
    for _ in 0..arguments.runs {
        bench.run();
    }
    let server = arguments.s3.then(tests::servers::seaweedfs);
    for _ in 0..arguments.runs {
        if let Some(server) = server {
            bench.s3(server);
        }
    }
    let peers = if arguments.peers { peers::installed() } else { Vec::new() };
    for name in peers.into_iter().flat_map(|name| (0..arguments.runs).map(move |_| name)) {
        let bucket = server.map(|server| (server, server.bucket("bench")));
        bench.peer(name, bucket.as_ref().map_or(Store::Directory, |(server, bucket)| Store::S3 { server, bucket }));
    }
    std::fs::remove_file(folder.join("office.tar")).unwrap();
    std::fs::remove_file(folder.join("office.tar.zst.age")).unwrap();
    println!("\n{}", bench.report.table(bytes));
    if let Some(path) = &arguments.json {
        std::fs::write(path, bench.report.json(bytes)).unwrap();
    }
}

impl Bench<'_> {
    fn run(&mut self) {
        let Yardstick { root, recipient, identity, log } = self.yardstick;
        let (cost, bytes) = self.yardstick.full();
        self.report.add("zstd -3 | age", cost, Some(bytes), Some(1));

        let office = self.made.copy(&root.join("now"), log);
        settle();
        let site = Site::new(&root.join("site"), &office, recipient, Store::Directory, log);
        let full = self.backup(&site, "full");
        office.touch(log);
        settle();
        self.backup(&site, "unchanged");
        let changed = office.one_day(2);
        let limit = Limit::of(&self.made, &office, &changed);
        self.report.limit("day 2: limit", limit.bytes());
        self.report.limit("day 2: limit, database", limit.database);
        self.report.limit("day 2: limit, dump", limit.dump);
        self.report.limit("day 2: limit, documents", limit.documents);
        settle();
        let mut last = self.backup(&site, "day 2");
        if self.arguments.week {
            let mut sent = last.sent.bytes;
            for day in 3..=7 {
                office.one_day(day);
                settle();
                last = self.backup(&site, &format!("day {day}"));
                sent += last.sent.bytes;
            }
            self.report.limit("week: sent", sent);
        }

        // What the machine still has is not asked, and its memory would be missing where restored files go.
        remove_all(&root.join("site/staging"));
        self.report.add("age -d | zstd -d, SHA-256", self.yardstick.restore(), None, None);
        let (cost, to) = site.restore(&full.generation, identity);
        self.report.add("restore", cost, None, None);
        assert!(yardstick::same(&to.join("dump/ledger.sql"), &self.made.dump()), "the first day was not restored");
        let (cost, to) = site.restore(&last.generation, identity);
        self.report.add("restore of the last day", cost, None, None);
        assert!(yardstick::same(&to.join("dump/ledger.sql"), &office.dump()), "the last day was not restored");
        std::fs::remove_dir_all(to).unwrap();
        remove_all(&root.join("site"));
    }

    fn backup(&mut self, site: &Site, name: &str) -> site::Run {
        let run = site.backup();
        self.report.add(name, run.cost, Some(run.sent.bytes), Some(run.sent.objects));
        run
    }

    /// The same into a bucket, as far as the store makes a difference.
    fn s3(&mut self, server: &SeaweedFs) {
        let Yardstick { root, recipient, identity, log } = self.yardstick;
        let office = self.made.copy(&root.join("now"), log);
        let bucket = server.bucket("bench");
        let site = Site::new(&root.join("site"), &office, recipient, Store::S3 { server, bucket: &bucket }, log);
        settle();
        let full = self.backup(&site, "S3: full");
        office.touch(log);
        settle();
        self.backup(&site, "S3: unchanged");
        office.one_day(2);
        settle();
        self.backup(&site, "S3: day 2");
        remove_all(&root.join("site/staging"));
        let (cost, _) = site.restore(&full.generation, identity);
        self.report.add("S3: restore", cost, None, None);
        remove_all(&root.join("site"));
    }

    fn peer(&mut self, name: &'static str, store: Store<'_>) {
        let Yardstick { root, log, .. } = self.yardstick;
        let office = self.made.copy(&root.join("now"), log);
        let peer = Peer::begin(name, store, root, log);
        settle();
        peer.backup("full", &office, &mut self.report);
        peer.restore(&mut self.report);
        office.touch(log);
        settle();
        peer.backup("unchanged", &office, &mut self.report);
        for day in 2..=if self.arguments.week { 7 } else { 2 } {
            office.one_day(day);
            settle();
            peer.backup(&format!("day {day}"), &office, &mut self.report);
        }
        peer.end();
    }
}

/// What was written before is on disk, so that nobody waits for it who has not written it.
fn settle() {
    rustix::fs::sync();
}

/// Staged copies are read-only, also for those who clean up.
fn remove_all(folder: &Path) {
    let line = format!("chmod -R u+w '{0}'; rm -rf '{0}'", folder.display());
    assert!(measure::shell(&line).status().unwrap().success());
}

/// A key pair of age's own making.
fn keys(folder: &Path) -> (PathBuf, String) {
    let identity = folder.join("identity.txt");
    if !identity.exists() {
        let made = Command::new("age-keygen").arg("-o").arg(&identity).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let text = std::fs::read_to_string(&identity).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    (identity, recipient)
}
