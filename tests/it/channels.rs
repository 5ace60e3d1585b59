//! What reports go over beside the mails of runs: webhooks, pings, numbers and tests; protected, or not at all.

use serde_json::Value;
use tests::machine::{Machine, Refusing};
use tests::servers::Sink;
use tests::tls;

use crate::reports::{machine, mail, text};

#[test]
fn programs_are_told_signed_and_pings_hear_of_start_and_end() {
    let sink = Sink::start();
    let machine = Machine::new();
    std::fs::write(machine.source().join("one"), "1").unwrap();
    let secret = machine.world.write("hook-secret", "hook-secret-81f2");
    let ping = machine.world.write("ping-url", format!("http://localhost:{}/ping/8d1f-secret\n", sink.http));
    let metrics = machine.world.make_folder("textfile").join("offsite.prom");
    machine.configure(
        100,
        &format!(
            "[[webhook]]\nname = \"tickets\"\nurl = \"http://localhost:{}/hook/5c1d-secret\"\nsecret = \"file:{}\"\n\
             [[ping]]\nname = \"watchdog\"\nurl = \"file:{}\"\n[metrics]\nfile = \"{}\"\n",
            sink.http,
            secret.display(),
            ping.display(),
            metrics.display()
        ),
    );
    machine.backup(&[]).expect(0);
    let requests = sink.requests();
    let seen: Vec<String> =
        requests.iter().map(|request| format!("{} {}", text(request, "method"), text(request, "path"))).collect();
    assert_eq!(seen, ["GET /ping/8d1f-secret/start", "GET /ping/8d1f-secret", "POST /hook/5c1d-secret"]);
    let hook = &requests[2];
    let script = "printf %s \"$1\" | openssl dgst -sha256 -hmac hook-secret-81f2 -r | cut -d' ' -f1";
    let digest =
        std::process::Command::new("sh").args(["-c", script, "sh", text(hook, "body")]).output().unwrap().stdout;
    let wanted = format!("sha256={}", String::from_utf8(digest).unwrap().trim());
    assert_eq!(hook["headers"]["x-offsite-signature-256"], wanted.as_str());
    let body: Value = serde_json::from_str(text(hook, "body")).unwrap();
    assert_eq!((&body["version"], &body["report"]["kind"]), (&1.into(), &"success".into()));
    let numbers = std::fs::read_to_string(&metrics).unwrap();
    for line in ["offsite_last_run_exit_code{site=\"townhall\"} 0", "offsite_reports_waiting{site=\"townhall\"} 0"] {
        assert!(numbers.contains(line), "{numbers}");
    }
    assert!(numbers.contains("offsite_store_last_sent_bytes{site=\"townhall\",store=\"far\"} "), "{numbers}");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&metrics).unwrap().permissions()) & 0o777,
        0o644
    );

    // Refused for two runs, the second of which fails: every report waits, of the pings only the newest.
    sink.refuse_requests(true);
    let outcome = machine.backup(&[]).expect(0);
    assert!(outcome.stderr.contains("localhost answered 503"), "{outcome}");
    let _refusing = Refusing::new(&machine.world.path("store"));
    let outcome = machine.world.offsite(["--verbose", "--verbose", "backup"]).expect(4);
    assert!(!outcome.to_string().contains("-secret"), "{outcome}");
    sink.refuse_requests(false);
    let before = sink.requests().len();
    machine.backup(&[]).expect(4);
    let seen: Vec<String> = sink.requests()[before..].iter().map(|request| text(request, "path").to_owned()).collect();
    let (hook, ping) = ("/hook/5c1d-secret", "/ping/8d1f-secret");
    let count = |path: &str| seen.iter().filter(|seen| *seen == path).count();
    assert_eq!((count(hook), count(ping), count(&format!("{ping}/fail"))), (3, 0, 1), "{seen:?}");
}

#[test]
fn a_test_goes_to_everybody_by_every_protection_and_says_who_did_not_get_it() {
    let sink = Sink::start();
    let machine = machine(&sink, &(mail("owner", "weekly") + &mail("provider", "failures")));
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let tested = machine.world.offsite(["report", "--test"]).expect(0);
    assert!(tested.stdout.contains("2 messages delivered"), "{tested}");
    let own = |port: u16, security: &str| {
        config.replace(&format!("port = {}", sink.starttls), &format!("port = {port}\nsecurity = \"{security}\""))
    };
    machine.world.configure(&own(sink.tls, "tls"));
    machine.world.offsite(["report", "--test"]).expect(0);
    let mails = sink.mails();
    assert!(mails.len() == 4 && mails.iter().all(|mail| mail["tls"] == true && mail["login"] == true), "{mails:?}");
    let login = |config: String| -> String {
        config
            .lines()
            .filter(|line| !line.starts_with("user") && !line.starts_with("password"))
            .fold(String::new(), |text, line| text + line + "\n")
    };
    machine.world.configure(&login(own(sink.plain, "none")));
    machine.world.offsite(["report", "--test"]).expect(0);
    assert_eq!(sink.mails().len(), 6);

    // A server that offers no TLS gets nothing, a stranger's certificate is not believed, and a wrong password not repeated.
    machine.world.configure(&own(sink.plain, "starttls"));
    let clear = machine.world.offsite(["--json", "report", "--test"]).expect(1).json();
    assert_eq!(clear["not_delivered"].as_array().unwrap().len(), 2, "{clear}");
    let stranger = tls::stranger().ca.display().to_string();
    machine.world.configure(&config.replace(&tls::authority().ca.display().to_string(), &stranger));
    let refused = machine.world.offsite(["report", "--test"]).expect(1);
    assert!(refused.stderr.contains("certificate"), "{refused}");
    machine.world.configure(&config);
    machine.world.write("smtp-password", "wrong-password-77aa");
    let wrong = machine.world.offsite(["--verbose", "--verbose", "report", "--test"]).expect(1);
    assert!(wrong.stderr.contains("535") && !wrong.to_string().contains("wrong-password"), "{wrong}");
    assert_eq!(sink.mails().len(), 6);
    assert!(!machine.world.path("state").exists(), "a test is remembered");
}

#[test]
fn mails_leave_this_machine_protected_or_not_at_all() {
    let sink = Sink::start();
    let machine = machine(&sink, &mail("boss", "hourly"));
    let config = std::fs::read_to_string(machine.world.path("offsite.toml")).unwrap();
    let config = config.replace("host = \"localhost\"", "host = \"smtp.example.org\"\nsecurity = \"none\"");
    machine.world.configure(
        &(config + "[[mail]]\nname = \"boss\"\nto = [\"nobody\"]\n[[webhook]]\nname = \"x\"\nurl = \"ftp://x\"\n"),
    );
    let document = machine.world.offsite(["--json", "check"]).expect(2).json();
    let problems = document["error"]["problems"].as_array().unwrap();
    let keys: Vec<&str> = problems.iter().map(|problem| text(problem, "key")).collect();
    assert_eq!(keys, ["smtp.security", "mail[1].when", "mail[2].to", "webhook[1].url", "mail.name"]);
}
