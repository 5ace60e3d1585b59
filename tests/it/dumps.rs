//! Dumps are sent as what they hold, and not as often as they are made.

use tests::World;
use tests::captures::{MARIADB_RIGHTS, mariadb_account, postgres_account};
use tests::servers::{mariadb, postgres};

#[test]
fn of_an_unchanged_server_next_to_nothing_is_sent_and_of_a_changed_one_what_changed() {
    let world = World::new();
    world.make_folder("usb");
    let path = |name: &str| world.path(name).display().to_string();
    let (pg, my) = (postgres(), mariadb());
    let (pg_database, my_database) = (pg.database("bulk"), my.database("bulk"));
    let text = "CONCAT('account ', i, ' ', MD5(CONCAT(i, 'a')), ' paid ', MD5(CONCAT(i, 'b')), MD5(CONCAT(i, 'c')))";
    let table = "CREATE TABLE bulk (i INTEGER PRIMARY KEY, content TEXT); INSERT INTO bulk SELECT i,";
    pg.sql(&pg_database, &format!("{table} {text} FROM generate_series(1, 60000) i"));
    my.sql(&my_database, &format!("{table} {text} FROM (SELECT seq AS i FROM seq_1_to_60000) numbers"));
    let arguments = [
        "--site=office".to_owned(),
        "--one-key-is-enough".to_owned(),
        format!(
            "--source=name=server,type=postgres,host={},port={},user={},databases=postgres,databases={pg_database}",
            pg.socket.display(),
            pg.port,
            postgres_account(pg)
        ),
        format!(
            "--source=name=shop,type=mariadb,host={},user={},databases={my_database},databases={}",
            my.socket.display(),
            mariadb_account(my, MARIADB_RIGHTS),
            my.database("empty")
        ),
        format!("--store=name=usb,type=directory,path={}", path("usb")),
        format!("--new-identity={}", path("keys/office.txt")),
        format!("--staging={}", path("staging")),
        format!("--state={}", path("state")),
    ];
    world.offsite(["init".to_owned()].into_iter().chain(arguments)).expect(0);
    let backup = || {
        let report = world.offsite(["--json", "backup"]).expect(0).json();
        report["stores"][0]["sent_bytes"].as_u64().unwrap() as f64
    };
    let (full, unchanged) = (backup(), backup());
    let change = "UPDATE bulk SET content = CONCAT(content, ' today') WHERE MOD(i * 7919, 100) = 0";
    pg.sql(&pg_database, change);
    my.sql(&my_database, change);
    let changed = backup();
    let percent = |part: f64| 100.0 * part / full;
    eprintln!("of {full} bytes: unchanged {:.2} %, 1 % of rows changed {:.2} %", percent(unchanged), percent(changed));
    assert!(percent(unchanged) < 1.0 && percent(changed) < 10.0, "{full} {unchanged} {changed}");
}
