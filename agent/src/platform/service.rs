//! The manager of services that started this process, if it wants to hear from it: systemd's notification protocol,
//! sd_notify(3).

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Whoever watches over this process.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says. Without a manager, nobody is told anything.
    pub(crate) fn of_this_process() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| for_us).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// Tells it something: `READY=1`. Several things are lines.
    pub(crate) fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not listen is no reason to stop; its watchdog would end this process.
            socket.send_to_addr(state.as_bytes(), address).ok();
        }
    }

    /// It wants to hear `WATCHDOG=1` at least so often.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }
}

/// A path, or with an `@` before it a name in the abstract space.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(name).ok(),
    }
}
