//! Numbers for Prometheus over HTTP, for programs of this machine: `GET /metrics`, one request to a connection (RFC 9112).

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::daemon::read_until;

/// A request is read, and its answer taken, within this time; the next one waits no longer.
const WITHIN: Duration = Duration::from_secs(5);
/// No request for numbers is so long.
const HEAD_MAX: usize = 16 << 10;

/// Answers at `address` with what `numbers` gives, until the process ends. An error of `numbers` is a sentence.
pub(super) fn listen(
    address: SocketAddr,
    numbers: impl Fn() -> Result<String, String> + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let serve = move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|stream| answer(stream, &numbers)) {
                tracing::debug!("somebody who asked for numbers got none: {error}");
            }
        }
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(serve).map(drop)
}

fn answer(mut stream: TcpStream, numbers: &impl Fn() -> Result<String, String>) -> io::Result<()> {
    let head = read_head(&stream)?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let plain = |text: &str| format!("{text}\n");
    let (status, body) = match (method, path.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/metrics") => match numbers() {
            Ok(numbers) => ("200 OK", numbers),
            Err(why) => ("500 Internal Server Error", plain(&why)),
        },
        ("GET" | "HEAD", _) => ("404 Not Found", plain("there is only /metrics")),
        _ => ("405 Method Not Allowed", plain("there is only GET")),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.set_write_timeout(Some(WITHIN))?;
    stream.write_all(head.as_bytes())?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(body.as_bytes()) }
}

/// A request up to its empty line.
fn read_head(stream: &TcpStream) -> io::Result<String> {
    let head = read_until(stream, WITHIN, HEAD_MAX, |head| head.windows(4).any(|end| end == b"\r\n\r\n"))?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}
