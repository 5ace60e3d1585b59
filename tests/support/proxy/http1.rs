//! As much of HTTP/1.1 (RFC 9112) as a proxy must know to tell where a message ends.

use std::io::{BufRead, Read as _};

use super::End;

/// The first line and the headers of a message.
pub(super) struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

/// How a message's body ends.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// There are so many bytes.
    Bytes(u64),
    /// In chunks, the last of which is empty.
    Chunked,
    /// With the connection.
    UntilClosed,
}

impl Head {
    /// Reads a head; nothing if the connection ends, or what comes is no HTTP.
    pub(super) fn read(from: &mut impl BufRead) -> Option<Self> {
        let first = line(from)?;
        let mut headers = Vec::new();
        loop {
            let line = line(from)?;
            if line.is_empty() {
                return Some(Self { first, headers });
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{headers}\r\n", self.first).into_bytes()
    }

    pub(super) fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub(super) fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    fn status(&self) -> u16 {
        self.target().parse().unwrap_or(0)
    }

    /// Whether a reply announces another one to the same request.
    pub(super) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status())
    }

    /// Whether the sender closes the connection after this exchange.
    pub(super) fn closes(&self) -> bool {
        let said = self.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        said || self.first.contains("HTTP/1.0")
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Removes a header.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.headers.iter().position(|(is, _)| is.eq_ignore_ascii_case(name))?;
        Some(self.headers.remove(at).1)
    }

    /// Replaces a text in a header.
    pub(super) fn replace(&mut self, name: &str, from: &str, to: &str) {
        for (_, value) in self.headers.iter_mut().filter(|(is, _)| is.eq_ignore_ascii_case(name)) {
            *value = value.replacen(from, to, 1);
        }
    }

    fn body(&self) -> Option<Body> {
        if self.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Some(Body::Chunked);
        }
        Some(Body::Bytes(self.get("content-length")?.parse().ok()?))
    }

    pub(super) fn request_body(&self) -> Body {
        self.body().unwrap_or(Body::Bytes(0))
    }

    pub(super) fn reply_body(&self, method: &str) -> Body {
        if method == "HEAD" || matches!(self.status(), 204 | 304) {
            return Body::Bytes(0);
        }
        self.body().unwrap_or(Body::UntilClosed)
    }
}

impl Body {
    /// Reads the body to its end, and hands it on as it is, in pieces.
    pub(super) fn pass(
        self,
        from: &mut impl BufRead,
        mut sink: impl FnMut(&[u8]) -> Result<(), End>,
    ) -> Result<(), End> {
        match self {
            Self::Bytes(bytes) => pass_bytes(from, bytes, &mut sink),
            Self::UntilClosed => {
                // An end is the end, however it comes.
                match pass_bytes(from, u64::MAX, &mut sink) {
                    Err(End::Gone) => Ok(()),
                    other => other,
                }
            }
            Self::Chunked => loop {
                let size = line(from).ok_or(End::Gone)?;
                sink(format!("{size}\r\n").as_bytes())?;
                let bytes = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
                let bytes = bytes.map_err(|_| End::Gone)?;
                if bytes > 0 {
                    pass_bytes(from, bytes + 2, &mut sink)?;
                    continue;
                }
                loop {
                    let trailer = line(from).ok_or(End::Gone)?;
                    sink(format!("{trailer}\r\n").as_bytes())?;
                    if trailer.is_empty() {
                        return Ok(());
                    }
                }
            },
        }
    }
}

/// A reply of the proxy's own, in the form that S3 servers use.
pub(super) fn answer(status: u16, retry_after: Option<u64>) -> Vec<u8> {
    let code = match status {
        403 => "AccessDenied",
        405 => "MethodNotAllowed",
        501 => "NotImplemented",
        _ => "SlowDown",
    };
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As told.</Message></Error>");
    let retry = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    let length = body.len();
    format!(
        "HTTP/1.1 {status} As Told\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n{retry}\r\n{body}"
    )
    .into_bytes()
}

fn pass_bytes(
    from: &mut impl BufRead,
    mut bytes: u64,
    sink: &mut impl FnMut(&[u8]) -> Result<(), End>,
) -> Result<(), End> {
    while bytes > 0 {
        let held = from.fill_buf().map_err(|_| End::Gone)?;
        if held.is_empty() {
            return Err(End::Gone);
        }
        let taken = held.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        sink(&held[..taken])?;
        from.consume(taken);
        bytes -= taken as u64;
    }
    Ok(())
}

/// A line without its end; nothing if the connection ends before it does.
fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    from.take(64 << 10).read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\n")?;
    String::from_utf8(line.strip_suffix(b"\r").unwrap_or(line).to_vec()).ok()
}
