//! The bad line itself: each fault does what it says, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::proxy::{Fault, Proxy};
use tests::servers::{WebDav, apache};

const BODY_BYTES: usize = 200_000;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same where the line may go silent.
fn patience(fault: Option<Fault>) -> Duration {
    match fault {
        Some(Fault::StallRequest(_) | Fault::StallReply(_)) => Duration::from_secs(2),
        _ => PATIENCE,
    }
}

/// A client that says what happened: the status and body of the answer, or nothing if the connection broke.
fn send(port: u16, method: &str, path: &str, body: &[u8], limit: Duration) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.set_write_timeout(Some(limit)).unwrap();
    let login = "c2l0ZS1hOnNlY3JldC1h"; // site-a:secret-a
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Basic {login}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let body = answer[end + 4..].to_vec();
    let whole = length.is_none_or(|length| length.parse() == Ok(body.len()));
    whole.then_some((head.split(' ').nth(1)?.parse().ok()?, body))
}

/// Stores through the proxy with one fault; then tells what came back, and what lies on the server.
fn put(fault: Option<Fault>) -> (Option<u16>, Option<Vec<u8>>) {
    let (server, collection) = (apache(), apache().collection("proxy"));
    let (port, path) = address(server, &collection.urls.http.unwrap());
    let proxy = Proxy::to(port);
    proxy.script(move |_| fault);
    let answer = send(proxy.port(), "PUT", &format!("{path}x"), &body(), patience(fault));
    assert_eq!(proxy.seen().len(), 1);
    (answer.map(|(status, _)| status), std::fs::read(collection.folder.join("x")).ok())
}

/// Reads through the proxy with one fault.
fn get(fault: Fault) -> Option<(u16, Vec<u8>)> {
    let (server, collection) = (apache(), apache().collection("proxy"));
    let (port, path) = address(server, &collection.urls.http.unwrap());
    assert_eq!(send(port, "PUT", &format!("{path}x"), &body(), PATIENCE).unwrap().0, 201);
    let proxy = Proxy::to(port);
    proxy.script(move |_| Some(fault));
    send(proxy.port(), "GET", &format!("{path}x"), b"", patience(Some(fault)))
}

fn address(server: &WebDav, url: &str) -> (u16, String) {
    assert_eq!(server.name, "Apache mod_dav");
    let (port, path) = url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
    (port.parse().unwrap(), format!("/{path}"))
}

fn body() -> Vec<u8> {
    (0..BODY_BYTES).map(|at| (at % 251) as u8).collect()
}

fn flipped(at: usize) -> Vec<u8> {
    let mut body = body();
    body[at] ^= 1;
    body
}

#[test]
fn without_faults_it_changes_nothing() {
    assert_eq!(put(None), (Some(201), Some(body())));
}

#[test]
fn faults_of_requests() {
    assert_eq!(put(Some(Fault::Refuse)), (None, None));
    assert_eq!(put(Some(Fault::CutRequest(100_000))), (None, None));
    assert_eq!(put(Some(Fault::StallRequest(100_000))), (None, None));
    assert_eq!(put(Some(Fault::FlipRequest(150_000))), (Some(201), Some(flipped(150_000))));
    assert_eq!(put(Some(Fault::Answer { status: 503, retry_after: Some(1) })), (Some(503), None));
}

#[test]
fn faults_of_replies() {
    assert_eq!(put(Some(Fault::LoseReply)), (None, Some(body())));
    assert_eq!(get(Fault::CutReply(100_000)), None);
    assert_eq!(get(Fault::StallReply(100_000)), None);
    assert_eq!(get(Fault::FlipReply(150_000)), Some((200, flipped(150_000))));
}

#[test]
fn a_slow_line_is_slow_and_a_weak_one_breaks() {
    let (server, collection) = (apache(), apache().collection("proxy"));
    let (port, path) = address(server, &collection.urls.http.unwrap());
    let proxy = Proxy::to(port);
    proxy.slow(BODY_BYTES as u64);
    let began = Instant::now();
    assert!(send(proxy.port(), "PUT", &format!("{path}slow"), &body(), PATIENCE).is_some());
    assert!(began.elapsed() > Duration::from_millis(900), "it took only {:?}", began.elapsed());
    proxy.slow(u64::MAX);
    proxy.connections_break_after(1000);
    assert_eq!(send(proxy.port(), "PUT", &format!("{path}weak"), &body(), PATIENCE), None);
    assert!(!collection.folder.join("weak").exists());
    assert!(proxy.bytes_up() >= BODY_BYTES as u64 + 1000);
}

#[test]
fn a_seed_gives_the_same_faults() {
    let (port, path) = address(apache(), &apache().collection("proxy").urls.http.unwrap());
    let [one, two] = [(), ()].map(|()| {
        let proxy = Proxy::to(port);
        proxy.randomly(5, 50, vec![Fault::Refuse, Fault::Answer { status: 503, retry_after: None }]);
        for _ in 0..20 {
            send(proxy.port(), "GET", &path, b"", PATIENCE);
        }
        proxy.seen().into_iter().map(|(_, fault)| fault).collect::<Vec<_>>()
    });
    assert_eq!(one, two);
    assert!(one.contains(&None) && one.contains(&Some(Fault::Refuse)));
}
