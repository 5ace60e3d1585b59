//! Requests to a WebDAV server: addresses, credentials, folders, and the steps that every operation is made of.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::classify::{refused, unanswered};
use super::login::Login;
use super::multistatus::{self, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{Policy, WebdavSettings};
use crate::store::ByteStream;
use crate::transport::{Expect, Patient, Transport};

/// A listing of one folder may be long.
const FOLDER: Expect = Expect { bytes_max: 64 << 20, ..Expect::MESSAGE };

/// A server, seen from one folder.
pub(super) struct Client {
    transport: Transport,
    login: Login,
    /// Scheme, host and port.
    origin: String,
    /// The folder's path, encoded, with a final `/`.
    root: String,
    /// Folders below the root that are known to be there.
    folders: Mutex<HashSet<String>>,
}

/// One request.
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    /// Below the root; folders end in `/`.
    pub(super) name: &'a str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    pub(super) expect: Expect,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: &'static str, name: &'a str) -> Self {
        Self { method, name, headers: Vec::new(), body: Bytes::new(), expect: Expect::MESSAGE }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Client {
    pub(super) fn new(settings: &WebdavSettings, policy: &Policy) -> Result<Self> {
        let url = &settings.url;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            let why = "the address must be http:// or https:// and end with its path";
            return Err(Error::new(ErrorKind::Config, "opening the store").because(why));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let why = "name and password do not belong into the address";
            return Err(Error::new(ErrorKind::Config, "opening the store").because(why));
        }
        Ok(Self {
            transport: Transport::new(settings.ca_file.as_deref(), policy)?,
            login: Login::new(settings.login.clone()),
            origin: url.origin().ascii_serialization(),
            root: format!("{}/", url.path().trim_end_matches('/')),
            folders: Mutex::default(),
        })
    }

    /// The whole address of `name`, as the `Destination` of a MOVE must give it.
    pub(super) fn address(&self, name: &str) -> String {
        format!("{}{}{name}", self.origin, self.root)
    }

    /// Sends a request with credentials, and once more if the server has a new challenge.
    pub(super) async fn send(&self, operation: &'static str, ask: &Ask<'_>) -> Result<Response<Patient>> {
        if self.login.lacks_challenge() {
            // A small question first: a body that is sent only to be refused costs its whole length.
            let hello = self.send_once(operation, &Ask::new("OPTIONS", "")).await?;
            self.login.take_challenge(hello.headers().get_all(header::WWW_AUTHENTICATE).iter());
        }
        let answer = self.send_once(operation, ask).await?;
        let offers = answer.headers().get_all(header::WWW_AUTHENTICATE).iter();
        if answer.status() == StatusCode::UNAUTHORIZED && self.login.take_challenge(offers) {
            return self.send_once(operation, ask).await;
        }
        Ok(answer)
    }

    async fn send_once(&self, operation: &'static str, ask: &Ask<'_>) -> Result<Response<Patient>> {
        // Names below the root do not begin with a `/`; paths above it do.
        let path = if ask.name.starts_with('/') { ask.name.to_owned() } else { format!("{}{}", self.root, ask.name) };
        let invalid = |cause: http::Error| Error::new(ErrorKind::Config, operation).because(cause);
        let method = Method::from_bytes(ask.method.as_bytes()).map_err(|cause| invalid(cause.into()))?;
        let mut request = Request::builder().uri(format!("{}{path}", self.origin));
        // Some servers tell the size of what they would compress.
        request = request.header(header::ACCEPT_ENCODING, "identity");
        if let Some(value) = self.login.header(&method, &path) {
            request = request.header(header::AUTHORIZATION, value);
        }
        if !ask.body.is_empty() || method == Method::PUT {
            request = request.header(header::CONTENT_LENGTH, ask.body.len());
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let request = request.method(method).body(reqwest::Body::from(ask.body.clone())).map_err(invalid)?;
        self.transport.send(request, ask.expect).await.map_err(|cause| unanswered(operation, &cause))
    }

    /// Sends a request whose answer is its status; one that is not among `hoped` is an error.
    pub(super) async fn tell(&self, operation: &'static str, ask: &Ask<'_>, hoped: &[u16]) -> Result<()> {
        let answer = self.send(operation, ask).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        // What is read to its end leaves a connection that can be used again; what it says we know already.
        let _ = collect(operation, answer.into_body()).await;
        if hoped.contains(&status.as_u16()) { Ok(()) } else { Err(refused(operation, status, &headers)) }
    }

    /// What the server says of `name`, and with `depth` 1 of everything directly in it.
    pub(super) async fn look(&self, operation: &'static str, name: &str, depth: u8) -> Result<Vec<Entry>> {
        let mut ask = Ask::new("PROPFIND", name)
            .header(HeaderName::from_static("depth"), u16::from(depth).into())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"));
        ask.body = Bytes::from_static(multistatus::ASKED.as_bytes());
        ask.expect = FOLDER;
        let answer = self.send(operation, &ask).await?;
        let status = answer.status();
        if status != StatusCode::MULTI_STATUS {
            let to_folder = format!("{}{}/", self.root, name.trim_end_matches('/'));
            let location = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            if status.is_redirection() && location.is_some_and(|to| to.ends_with(&to_folder)) {
                return Ok(vec![Entry { path: to_folder, is_folder: true, ..Entry::default() }]);
            }
            return Err(refused(operation, status, answer.headers()));
        }
        let xml = collect(operation, answer.into_body()).await?;
        multistatus::parse(&xml).map_err(|cause| Error::new(ErrorKind::Protocol, operation).because(cause))
    }

    /// The file `name`, if it is there; a folder is none.
    pub(super) async fn look_at_file(&self, operation: &'static str, name: &str) -> Result<Option<Entry>> {
        match self.look(operation, name, 0).await {
            Ok(entries) => Ok(entries.into_iter().next().filter(|entry| !entry.is_folder)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What lies directly in the folder `name`: names below the root, those of folders with a final `/`. An absent
    /// folder is empty; an absent root is an error.
    pub(super) async fn look_into(&self, operation: &'static str, name: &str) -> Result<Vec<(String, Entry)>> {
        let entries = match self.look(operation, name, 1).await {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let root = format!("{}{name}", self.root);
        let named = |(child, entry): (String, Entry)| {
            let end = if entry.is_folder { "/" } else { "" };
            (format!("{name}{child}{end}"), entry)
        };
        Ok(children(&root, entries).map(named).collect())
    }

    /// What lies directly in the folder at the absolute, encoded path `folder`, by its plain names.
    pub(super) async fn look_below(&self, operation: &'static str, folder: &str) -> Result<Vec<(String, Entry)>> {
        let entries = self.look(operation, folder, 1).await?;
        Ok(children(folder, entries).collect())
    }

    /// Makes the folder `name` (empty: the root) and what is missing above it.
    pub(super) async fn make_folders(&self, operation: &'static str, name: &str) -> Result<()> {
        // From the top of what is not known down, for a server may make a folder whose parent is missing, or not.
        let mut ends: Vec<_> = name.match_indices('/').map(|(at, _)| at + 1).collect();
        ends.insert(0, 0);
        for end in ends {
            let folder = name.get(..end).unwrap_or_default();
            if self.folders().contains(folder) {
                continue;
            }
            if folder.is_empty() {
                self.make_root(operation).await?;
            } else {
                self.make_folder(operation, folder).await?;
            }
            self.folders().insert(folder.to_owned());
        }
        Ok(())
    }

    /// Makes the root's own parents, as far as the server has none.
    async fn make_root(&self, operation: &'static str) -> Result<()> {
        let ends: Vec<_> = self.root.match_indices('/').map(|(at, _)| at + 1).skip(1).collect();
        // From below: what lies above the store may be closed to us.
        let mut missing = Vec::new();
        for end in ends.into_iter().rev() {
            let folder = self.root.get(..end).unwrap_or_default();
            match self.look(operation, folder, 0).await {
                Err(error) if error.kind == ErrorKind::NotFound => missing.push(folder),
                _ => break,
            }
        }
        for folder in missing.into_iter().rev() {
            self.make_folder(operation, folder).await?;
        }
        Ok(())
    }

    /// Forgets that folders were seen: someone has removed them.
    pub(super) fn forget_folders(&self) {
        self.folders().clear();
    }

    async fn make_folder(&self, operation: &'static str, name: &str) -> Result<()> {
        if self.look(operation, name, 0).await.is_ok_and(|found| found.first().is_some_and(|entry| entry.is_folder)) {
            return Ok(());
        }
        // 405: it is there already.
        match self.tell(operation, &Ask::new("MKCOL", name), &[200, 201, 204, 405]).await {
            Ok(()) => Ok(()),
            // Two who make one folder at the same moment are told all kinds of things.
            Err(error) => match self.look(operation, name, 0).await {
                Ok(found) if found.first().is_some_and(|entry| entry.is_folder) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn folders(&self) -> MutexGuard<'_, HashSet<String>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries that lie directly in the folder at the absolute, encoded path `folder`, with their names in it.
fn children(folder: &str, entries: Vec<Entry>) -> impl Iterator<Item = (String, Entry)> + use<> {
    let folder = percent_encoding::percent_decode_str(folder).decode_utf8_lossy().into_owned();
    entries.into_iter().filter_map(move |entry| {
        let child = entry.path.strip_prefix(&folder)?.trim_end_matches('/').to_owned();
        (!child.is_empty() && !child.contains('/')).then_some((child, entry))
    })
}

/// The pieces of a body.
pub(super) fn pieces(operation: &'static str, body: Patient) -> ByteStream {
    stream::unfold(body, move |mut body| async move {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await?;
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(piece)) => return Some((Ok(piece), body)),
                // Trailers tell us nothing.
                Ok(Err(_)) => {}
                Err(cause) => return Some((Err(unanswered(operation, &cause)), body)),
            }
        }
    })
    .boxed()
}

async fn collect(operation: &'static str, body: Patient) -> Result<Bytes> {
    let mut all = BytesMut::new();
    let mut pieces = pieces(operation, body);
    while let Some(piece) = pieces.try_next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}
