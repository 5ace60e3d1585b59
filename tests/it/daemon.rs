//! The daemon on the real clock: runs begin by themselves, once, and it can be told, watched, stopped and started again.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use agent::staging::FolderLock;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;
use tests::machine::Machine;
use tests::process::free_ports;
use tests::servers::Sink;
use tests::{Running, http, wait_until};

use crate::reports::{mail, smtp};
use crate::signals::blocking_source;

/// The longest that anything may take on the slowest of machines.
const LONG: Duration = Duration::from_secs(120);

const NEVER: &str = "at = \"0 0 29 2 *\"\njitter = \"0 s\"";

fn job(name: &str, run: &str, rest: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\nrun = [\"{run}\"]\n{rest}\n")
}

fn machine(jobs: &str) -> Machine {
    let machine = Machine::new();
    std::fs::write(machine.source().join("document"), "of the day").unwrap();
    machine.configure(100, jobs);
    machine
}

fn daemon(machine: &Machine) -> Running {
    let running = machine.world.offsite(["daemon"]).start();
    wait_until(LONG, "the daemon to answer", || status(machine)["schedule"]["daemon"] == running.pid());
    running
}

fn status(machine: &Machine) -> Value {
    machine.world.offsite(["--json", "status"]).expect(0).json()
}

/// What is known of a job.
fn known(machine: &Machine, job: &str) -> Value {
    let status = status(machine);
    let jobs = status["schedule"]["jobs"].as_array().unwrap();
    jobs.iter().find(|known| known["name"] == job).unwrap().clone()
}

#[track_caller]
fn stop(running: Running) {
    running.signal(Signal::TERM);
    let outcome = running.wait();
    assert_eq!(outcome.code, Some(0), "{outcome}");
}

#[test]
fn three_jobs_run_by_themselves() {
    let jobs = [
        job("copy", "backup", "at = \"*/2 * * * * *\""),
        job("look", "check", "at = \"* * * * * *\""),
        job("read", "verify", NEVER),
    ];
    let machine = machine(&jobs.concat());
    let running = daemon(&machine);
    for name in ["copy", "look"] {
        wait_until(LONG, "a run to end well", || known(&machine, name)["last_good"].is_string());
    }
    wait_until(LONG, "a second generation", || machine.list().len() >= 2);
    machine.world.offsite(["daemon", "pause", "--for", "2 h"]).expect(0);
    let idle = || status(&machine)["schedule"]["jobs"].as_array().unwrap().iter().all(|job| job["running"].is_null());
    wait_until(LONG, "the runs under way to end", idle);
    let paused = machine.list().len();
    // The pause holds back what is scheduled, not what somebody asks for.
    machine.world.offsite(["daemon", "run", "read"]).expect(0);
    wait_until(LONG, "the run that was asked for", || known(&machine, "read")["last"]["exit_code"] == 0);
    assert_eq!(known(&machine, "read")["last"]["why"], "asked");
    assert_eq!(machine.list().len(), paused, "the pause was not kept");
    let shown = machine.world.offsite(["status"]).expect(0).stdout;
    assert!(shown.contains("NEEDS ATTENTION") && shown.contains("paused until"), "{shown}");
    machine.world.offsite(["daemon", "resume"]).expect(0);
    wait_until(LONG, "another generation", || machine.list().len() > paused);
    let refused = machine.world.offsite(["daemon", "run", "dance"]).expect(2);
    assert!(refused.stderr.contains("copy, look, read"), "{refused}");
    let second = machine.world.offsite(["daemon"]).expect(6);
    assert!(second.stderr.contains(&running.pid().to_string()), "{second}");
    stop(running);
    machine.verify();
    let without = machine.world.offsite(["daemon", "resume"]).expect(1);
    assert!(without.stderr.contains("systemctl"), "{without}");
}

#[test]
fn a_night_whose_configuration_was_spoiled_is_told_by_the_daemon_that_read_a_good_one() {
    let sink = Sink::start();
    let machine = crate::reports::machine(&sink, &(mail("boss", "failures") + &job("copy", "backup", NEVER)));
    machine.backup(&[]).expect(0);
    let running = daemon(&machine);
    let good = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    std::fs::write(machine.world.path("offsite.toml"), format!("stagging = 1\n{good}")).unwrap();
    let socket = UnixStream::connect(machine.world.path("state/daemon/socket")).unwrap();
    (&socket).write_all(b"{\"ask\":\"run\",\"job\":\"copy\"}\n").unwrap();
    wait_until(LONG, "the mail of the daemon", || !sink.mails().is_empty());
    std::fs::write(machine.world.path("offsite.toml"), &good).unwrap();
    let mails = sink.mails();
    let told = crate::reports::text(&mails[0], "text").replace('\n', " ");
    assert!(told.contains("stagging") && told.contains("offsite check"), "{told}");
    let status = status(&machine);
    assert!(status["attention"].to_string().contains("the last backup FAILED"), "{status}");
    assert!(status["last_run"]["messages"].to_string().contains("stagging"), "{status}");
    machine.backup(&[]).expect(0);
    assert!(!self::status(&machine)["attention"].to_string().contains("FAILED"));
    assert_eq!(sink.mails().len(), 1, "the night was told of more than once");
    stop(running);
}

#[test]
fn whoever_says_nonsense_to_the_daemon_keeps_nobody_else_from_asking() {
    let machine = machine(&job("copy", "backup", NEVER));
    let running = daemon(&machine);
    let connect = || UnixStream::connect(machine.world.path("state/daemon/socket")).unwrap();
    let silent: Vec<UnixStream> = (0..5).map(|_| connect()).collect();
    for nonsense in [&b"\n"[..], b"{\"ask\":\"dance\"}\n", b"\xff\xfe\n", &vec![b'['; 2 << 20]] {
        // It may hang up before it has heard all of it.
        connect().write_all(nonsense).ok();
    }
    assert_eq!(status(&machine)["schedule"]["daemon"], running.pid());
    machine.world.offsite(["daemon", "pause"]).expect(0);
    drop(silent);
    stop(running);
}

#[test]
fn a_run_that_the_daemon_had_to_stop_is_made_again_by_the_next_daemon() {
    let machine = machine("");
    let (waits, goes_on) = blocking_source(&machine);
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    machine.world.configure(&(config + &job("copy", "backup", NEVER)));
    let running = daemon(&machine);
    machine.world.offsite(["daemon", "run", "copy"]).expect(0);
    wait_until(LONG, "the copy to be under way", || waits.exists());
    assert!(known(&machine, "copy")["running"].is_object());
    stop(running);
    assert_eq!(machine.local().len(), 0);
    std::fs::write(goes_on, "").unwrap();
    let running = daemon(&machine);
    let stopped = known(&machine, "copy");
    assert_eq!(stopped["last"]["exit_code"], 130, "{stopped}");
    let record = std::fs::read(machine.world.path("state/daemon/schedule.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["jobs"]["copy"]["waiting"]["why"], "interrupted", "{record}");
    machine.world.offsite(["daemon", "run", "copy"]).expect(0);
    wait_until(LONG, "the run to be made again", || known(&machine, "copy")["last"]["exit_code"] == 0);
    // A daemon that is killed leaves nothing that would be in the way of the next.
    running.kill();
    let running = daemon(&machine);
    assert_eq!(known(&machine, "copy")["last"]["exit_code"], 0);
    stop(running);
}

#[test]
fn whoever_watches_over_services_hears_that_all_is_well() {
    let machine = machine(&job("copy", "backup", NEVER));
    let path = machine.world.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let hear = |wanted: &str| loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted} was not heard: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == wanted) {
            break;
        }
    };
    let daemon = machine.world.offsite(["daemon"]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let running = daemon.start();
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    running.signal(Signal::TERM);
    hear("STOPPING=1");
    assert_eq!(running.wait().code, Some(0));
}

#[test]
fn what_is_overdue_is_told_here_and_by_the_store() {
    let machine =
        machine(&("[schedule]\noverdue_after = \"1 s\"\n".to_owned() + &job("copy", "backup", "at = \"every 1 s\"")));
    let running = daemon(&machine);
    wait_until(LONG, "a generation", || known(&machine, "copy")["last_good"].is_string());
    stop(running);
    wait_until(LONG, "it to be overdue here", || known(&machine, "copy")["overdue"].is_string());
    let shown = machine.world.offsite(["status"]).expect(0).stdout;
    assert!(shown.contains("copy is OVERDUE") && shown.contains("the daemon does not run"), "{shown}");
    let far = || machine.world.offsite(["--json", "status", "--from", "far"]).expect(0).json();
    wait_until(LONG, "it to be overdue in the store", || far()["overdue"] == true);
    let shown = machine.world.offsite(["status", "--from", "far"]).expect(0).stdout;
    assert!(shown.contains("OVERDUE") && shown.contains("has not been heard of"), "{shown}");
    // A run by hand is a sign of life: the next is due when the schedule says.
    machine.configure(100, &job("copy", "backup", NEVER));
    machine.backup(&[]).expect(0);
    let shown = machine.world.offsite(["status", "--from", "far"]).expect(0).stdout;
    assert!(shown.contains("all is well") && shown.contains("-02-29"), "{shown}");
}

#[test]
fn what_is_overdue_is_reported_once() {
    let sink = Sink::start();
    let machine = machine("");
    let mails = smtp(&machine.world, &sink) + &mail("provider", "failures");
    let schedule = "[schedule]\noverdue_after = \"1 s\"\n";
    machine.configure(100, &[schedule, &mails, &job("look", "check", "at = \"every 1 s\"")].concat());
    let running = daemon(&machine);
    wait_until(LONG, "a run", || known(&machine, "look")["last_good"].is_string());
    machine.world.offsite(["daemon", "pause"]).expect(0);
    wait_until(LONG, "it to be overdue", || known(&machine, "look")["overdue"].is_string());
    for _ in 0..2 {
        machine.world.offsite(["tidings"]).expect(0);
    }
    let mails = sink.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(mails[0]["subject"], "townhall: look is OVERDUE");
    assert!(mails[0]["text"].as_str().unwrap().starts_with("`look` is OVERDUE: it should have run at "), "{mails:?}");
    stop(running);
}

/// Some of the sources more often: another configuration, whose generations are not taken for those of the whole office.
#[test]
fn a_job_with_sources_of_its_own_is_a_site_of_its_own() {
    let machine = machine("");
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let path = |name: &str| machine.world.path(name).display().to_string();
    machine.world.write("ledger/book", "of the hour");
    let hourly = config
        .replace("\"townhall\"", "\"townhall-hourly\"")
        .replace(&path("staging"), &path("hourly/staging"))
        .replace(&path("state"), &path("hourly/state"))
        .replace(&path("source"), &path("ledger"));
    let other = machine.world.write("hourly.toml", hourly);
    let jobs = job("nightly", "backup", NEVER) + &job("hourly", "backup", NEVER);
    machine.world.configure(&format!("{config}{jobs}config = \"{}\"\n", other.display()));
    machine.world.offsite(["check"]).expect(0);
    let running = daemon(&machine);
    for name in ["nightly", "hourly", "hourly"] {
        let before = known(&machine, name)["last"]["ended"].clone();
        machine.world.offsite(["daemon", "run", name]).expect(0);
        wait_until(LONG, "a run", || known(&machine, name)["last"]["ended"] != before);
        assert_eq!(known(&machine, name)["last"]["exit_code"], 0);
    }
    stop(running);
    assert_eq!(machine.list().len(), 1);
    let theirs =
        |verb: &str| machine.world.offsite(["--config", other.to_str().unwrap(), "--json", verb]).expect(0).json();
    assert_eq!(theirs("list")["generations"].as_array().unwrap().len(), 2);
    machine.world.offsite(["prune"]).expect(0);
    assert_eq!(machine.world.offsite(["--json", "status"]).expect(0).json()["last_run"]["exit_code"], 0);
    std::fs::write(&other, "site = \"x\"\n").unwrap();
    for arguments in [["check"], ["daemon"]] {
        let refused = machine.world.offsite(arguments).expect(2);
        assert!(refused.stderr.contains("hourly.toml"), "{refused}");
    }
}

#[test]
fn numbers_are_given_to_programs_of_this_machine() {
    let [port] = free_ports();
    let machine = machine(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n{}", job("copy", "backup", NEVER)));
    machine.backup(&[]).expect(0);
    let running = daemon(&machine);
    let numbers = || http::get(port, "/metrics");
    let mut answer = None;
    wait_until(LONG, "the numbers", || {
        answer = numbers();
        answer.is_some()
    });
    let (status, body) = answer.unwrap();
    assert!(status == 200 && body.contains("offsite_last_run_exit_code{site=\"townhall\"} 0"), "{body}");
    assert!(body.contains("offsite_jobs_overdue{site=\"townhall\"} 0"), "{body}");
    wait_until(LONG, "that there is nothing else", || http::get(port, "/").is_some_and(|(status, _)| status == 404));
    // Whoever says nothing, or no end of it, keeps nobody else out.
    let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut endless = TcpStream::connect(("127.0.0.1", port)).unwrap();
    endless.write_all(&[b'x'; 1000]).unwrap();
    wait_until(LONG, "the numbers again", || numbers().is_some_and(|(status, _)| status == 200));
    drop((silent, endless));
    stop(running);
    machine.configure(100, &format!("[metrics]\nlisten = \"0.0.0.0:{port}\"\n"));
    assert!(machine.world.offsite(["status"]).expect(2).stderr.contains("it answers this machine only"));
}

#[test]
fn a_schedule_that_cannot_be_is_refused() {
    let machine = machine("");
    let outcome = machine.world.offsite(["daemon"]).expect(2);
    assert!(outcome.stderr.contains("[[job]]"), "{outcome}");
    let jobs = [
        job("a", "restore", "at = \"daily 02:00\""),
        job("b", "backup", "at = \"sometimes\""),
        job("c", "backup", "at = \"every 1 min\"\njitter = \"2 min\"\nlate = \"stop\""),
        job("a", "backup", "at = [\"hourly\", \"0 25 * * *\"]\ndone_by = \"7\""),
        "[[job]]\nname = \"d\"\n".to_owned(),
    ];
    machine.configure(100, &jobs.concat());
    let problems = machine.world.offsite(["--json", "daemon"]).expect(2).json()["error"]["problems"].clone();
    let mut keys: Vec<&str> = problems.as_array().unwrap().iter().map(|found| found["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    let expected = [
        "job[1].run",
        "job[2].at",
        "job[3].jitter",
        "job[3].late",
        "job[4].at",
        "job[4].done_by",
        "job[5].at",
        "job[5].run",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn what_is_in_the_way_and_a_configuration_that_nobody_has_read_are_said() {
    const HOURLY: &str = "at = \"0 * * * *\"\njitter = \"0 s\"";
    let machine = machine(&(job("copy", "backup", NEVER) + &job("late", "verify", NEVER)));
    machine.backup(&[]).expect(0);
    let running = daemon(&machine);
    machine.world.offsite(["daemon", "run", "late"]).expect(0);
    wait_until(LONG, "a run to end", || known(&machine, "late")["last_good"].is_string());
    let lock = FolderLock::take(&machine.world.path("staging"), Timestamp::now()).unwrap();
    let told = machine.world.offsite(["daemon", "run", "copy"]).expect(0).stdout;
    assert!(told.contains(&format!("copy has to WAIT: another run (process {}", std::process::id())), "{told}");
    wait_until(LONG, "the run to find the site locked", || known(&machine, "copy")["waiting"]["why"] == "locked");
    // `copy` and `early` have other times now, `early` is new, and `late` is gone.
    let changed = job("copy", "backup", HOURLY) + &job("early", "verify", HOURLY);
    machine.configure(100, &changed);
    let shown = machine.world.offsite(["status"]).expect(0).stdout;
    let anew = format!("`systemctl restart offsite`, or without systemd `kill {}`", running.pid());
    assert!(shown.contains("WAITS for another run") && shown.contains(&anew), "{shown}");
    assert!(machine.world.offsite(["daemon"]).expect(6).stderr.contains(&anew));
    drop(lock);
    // What is shown is what the daemon will do, not what the configuration says.
    let plan = |job: &str| {
        let known = known(&machine, job);
        (
            known["configured"] == true,
            known["planned"] == true,
            known["next_run"].as_str().map(|at| at[4..16].to_owned()),
        )
    };
    let leap_day = Some("-02-29T00:00".to_owned());
    assert_eq!(plan("early"), (true, false, None));
    assert_eq!(plan("late"), (false, true, leap_day.clone()));
    let shown = machine.world.offsite(["status"]).expect(0).stdout;
    for part in ["not before the daemon reads the configuration", "although it is NOT in the configuration any more"] {
        assert!(shown.contains(part), "`{part}` is not in {shown}");
    }
    assert!(known(&machine, "late")["last_good"].is_string(), "{}", known(&machine, "late"));
    // A time of the past, by the configuration that the daemon has not read, is none that it missed; and what it does is
    // shown also if there is no job in the configuration any more.
    let often = "[schedule]\noverdue_after = \"1 s\"\n".to_owned();
    machine.configure(100, &(often + &job("late", "verify", "at = \"every 1 s\"")));
    wait_until(LONG, "a time to pass", || known(&machine, "late")["configured"] == true);
    assert!(known(&machine, "late")["overdue"].is_null(), "{}", known(&machine, "late"));
    machine.configure(100, "");
    assert_eq!(plan("late"), (false, true, leap_day));
    stop(running);
}
