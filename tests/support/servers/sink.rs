//! A mail server and a web server that write down what they get: what reports arrive at.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::write_settings;
use crate::process::{Recipe, Server, free_ports, program};
use crate::{guard, http, tls};

/// Who logs in at the mail server.
pub const MAIL_USER: &str = "reports";
/// The password of [`MAIL_USER`].
pub const MAIL_PASSWORD: &str = "sink-password-5d2c";

/// Both servers; each test starts its own.
#[derive(Debug)]
pub struct Sink {
    /// Demands STARTTLS and a login.
    pub starttls: u16,
    /// TLS from the start, and a login.
    pub tls: u16,
    /// Neither.
    pub plain: u16,
    /// Takes web requests.
    pub http: u16,
    /// The process, to be killed and started again.
    pub server: Server,
    folder: PathBuf,
}

impl Sink {
    /// Starts both.
    pub fn start() -> Self {
        let folder = guard::server_folder("sink");
        let script = write_settings(&folder, "sink.py", include_str!("sink.py"));
        let [starttls, tls, plain, http] = free_ports();
        let authority = tls::authority();
        let server = Recipe::new("sink", &folder, program("python3").to_str().unwrap())
            .args([&script, &folder, &authority.certificate, &authority.key])
            .args([starttls, tls, plain, http].map(|port| port.to_string()))
            // The tools may lie in a home that nobody else can read.
            .privileged()
            .start(|| http::get(http, "/ready").is_some());
        Self { starttls, tls, plain, http, server, folder }
    }

    /// Starts both anew after they were killed.
    pub fn start_again(&self) {
        self.server.start_again(|| http::get(self.http, "/ready").is_some());
    }

    /// Every mail so far.
    pub fn mails(&self) -> Vec<Value> {
        lines(&self.folder.join("mails.jsonl"))
    }

    /// Every web request so far.
    pub fn requests(&self) -> Vec<Value> {
        lines(&self.folder.join("requests.jsonl"))
    }

    /// From now on every recipient of a mail gets this answer; none: mails are taken again.
    pub fn refuse_mails(&self, answer: Option<&str>) {
        switch(&self.folder.join("refuse"), answer);
    }

    /// From now on web requests are refused, or taken again.
    pub fn refuse_requests(&self, refuse: bool) {
        switch(&self.folder.join("refuse-http"), refuse.then_some(""));
    }
}

/// In one step: the server never sees half of the content.
fn switch(file: &Path, content: Option<&str>) {
    match content {
        Some(content) => {
            let draft = file.with_extension("draft");
            std::fs::write(&draft, content).unwrap();
            std::fs::rename(draft, file).unwrap();
        }
        None => std::fs::remove_file(file).unwrap(),
    }
}

/// The lines that are whole; the server may be writing the next one.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
