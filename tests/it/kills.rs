//! The agent dies again and again at random moments, every other time with the server: the runs that follow finish what was
//! begun, little is sent twice, and nothing is left over.
//!
//! By hand, `OFFSITE_KILLS=50` and `OFFSITE_KILL_MIB=1024` make more of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::machine::Machine;
use tests::proxy::Proxy;
use tests::servers::{SeaweedFs, WebDav, own_apache, own_nextcloud_stand_in};
use tests::tree::Tree;
use tests::{Rng, wait_until};

const MIB: u64 = 1 << 20;
/// As many requests as there are at once by default.
const IN_FLIGHT: u64 = 4;

/// A machine, the line to its store, and what is sent again at most of each request that dies.
struct Office {
    machine: Machine,
    proxy: Proxy,
    piece: u64,
}

#[test]
fn seaweedfs_in_parts() {
    let server = SeaweedFs::start();
    let bucket = server.bucket("kills");
    let proxy = Proxy::to(server.port());
    let machine = Machine::with_bucket(&proxy.url(), &bucket.name);
    let office = Office { machine, proxy, piece: 5 * MIB };
    office.survives(12, 60, &|| {
        server.server.kill();
        server.start_again();
    });
    assert_eq!(bucket.unfinished(), []);
}

/// A pack is sent whole, under a temporary name.
#[test]
fn apache_in_packs() {
    const PACK: u64 = 4 * MIB;
    let server = own_apache();
    let (proxy, machine) = webdav(&server);
    let store = std::fs::read_to_string(machine.world.path("store.toml")).unwrap();
    machine.world.write("store.toml", store.replace("24 MiB", "4 MiB"));
    machine.configure(100, "");
    // Its seal adds a little.
    let office = Office { machine, proxy, piece: PACK + PACK / 8 };
    office.survives(8, 48, &|| restart(&server));
    assert_eq!(temporary_files(&server.folder), Vec::<PathBuf>::new());
}

/// Parts have the size that they have by default.
#[test]
fn the_stand_in_for_nextcloud_in_parts() {
    let server = own_nextcloud_stand_in();
    let (proxy, machine) = webdav(&server);
    let office = Office { machine, proxy, piece: 8 * MIB };
    office.survives(8, 60, &|| restart(&server));
    assert_eq!(temporary_files(&server.folder), Vec::<PathBuf>::new());
    let uploads = server.folder.parent().unwrap().parent().unwrap().join("uploads").join(tests::servers::USER);
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0, "uploads that nobody will finish");
}

fn webdav(server: &WebDav) -> (Proxy, Machine) {
    let url: providers::Url = server.collection("office").urls.http.unwrap().parse().unwrap();
    let proxy = Proxy::to(server.port());
    let machine = Machine::with_webdav(&format!("{}{}", proxy.url(), url.path()));
    (proxy, machine)
}

fn restart(server: &WebDav) {
    server.server.kill();
    server.start_again();
}

/// What half-finished writes have left in a folder and below.
fn temporary_files(folder: &Path) -> Vec<PathBuf> {
    let files = tests::office::paths(folder);
    files.into_iter().filter(|path| path.file_name().unwrap().to_str().unwrap().contains('~')).collect()
}

impl Office {
    /// So many kills while so many MiB are sent, if nobody asks for more; `restart` is the server's death.
    #[track_caller]
    fn survives(&self, kills: u64, mib: u64, restart: &dyn Fn()) {
        let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let kills = setting("OFFSITE_KILLS").unwrap_or(kills);
        let large = setting("OFFSITE_KILL_MIB").unwrap_or(mib) * MIB;
        let Self { machine, proxy, piece } = self;
        std::fs::write(machine.source().join("large"), Rng::new(1).bytes(usize::try_from(large).unwrap())).unwrap();
        let mut rng = Rng::new(11);
        proxy.slow(24 * MIB);
        for kill in 0..kills {
            let goal = proxy.bytes_up() + rng.below(large / kills * 2);
            let mut running = machine.backup(&[]).start();
            wait_until(Duration::from_secs(240), "the next kill", || !running.runs() || proxy.bytes_up() >= goal);
            running.kill();
            let again = machine.packs_to_seal_again();
            assert!(again.len() <= 1, "more than the pack that was being sealed: {again:?}");
            if kill % 2 == 1 {
                restart();
            }
        }
        machine.backup(&[]).expect(0);
        let (sent, bound) = (proxy.bytes_up(), large * 5 / 4 + kills * IN_FLIGHT * piece);
        eprintln!("{sent} bytes were sent for {large} over {kills} kills; at most {bound}");
        assert!(sent < bound, "{sent} bytes were sent; at most {bound}");
        // An upload whose beginning was not heard of any more is left to the sweep, which gives it some days' grace.
        let later = agent::clock::now() + jiff::SignedDuration::from_hours(1);
        let everything = providers::KeyPrefix::default();
        let sweep = machine.store.sweep(&everything, later);
        tokio::runtime::Runtime::new().unwrap().block_on(sweep).unwrap();
        for stored in machine.list() {
            Tree::read(&machine.source()).assert_equals(&machine.restored(&stored.generation));
        }
        machine.verify();
        // Packs that were sealed again would be packs of no generation.
        machine.assert_at_rest(false);
    }
}
