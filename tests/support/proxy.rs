//! A bad line: an HTTP/1.1 proxy on the loopback interface that damages, delays and loses what it is told to.
//!
//! It knows requests, not only bytes, so that a test can say "the reply to the third PUT is lost" and mean it. Faults
//! are scripted by a function of the request, or drawn from a seed. It cannot look into TLS: put it before http.

mod http1;

use std::io::{BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use self::http1::{Body, Head};
use crate::{Rng, wait_until};

/// The largest piece that a slow line carries at once.
const PIECE_BYTES: usize = 16 << 10;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset before the server hears of the request.
    Refuse,
    /// The connection is reset after so many bytes of the request's body, or after all of it.
    CutRequest(u64),
    /// The connection goes silent, and stays open, after so many bytes of the request's body.
    StallRequest(u64),
    /// One bit of this byte of the request's body is another at the server.
    FlipRequest(u64),
    /// The server does not hear of the request; the client gets this status.
    Answer {
        /// 503, or another.
        status: u16,
        /// Seconds in a `Retry-After`.
        retry_after: Option<u64>,
    },
    /// The server does what was asked; the connection is reset instead of passing on the reply.
    LoseReply,
    /// The connection is reset after so many bytes of the reply's body, or after all of it.
    CutReply(u64),
    /// The connection goes silent, and stays open, after so many bytes of the reply's body.
    StallReply(u64),
    /// One bit of this byte of the reply's body is another at the client.
    FlipReply(u64),
}

/// A request that a client makes through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// From 0, over all connections, in the order in which the requests arrive.
    pub number: u64,
    /// `PUT` and its like.
    pub method: String,
    /// Path and query.
    pub target: String,
}

/// A bad line to one server. Dropped, it is closed.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

/// Decides what goes wrong with a request.
type Script = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// What all connections of a proxy share.
struct Line {
    port: u16,
    server: u16,
    script: Mutex<Script>,
    seen: Mutex<Vec<(Request, Option<Fault>)>>,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    bytes_per_second: AtomicU64,
    connection_bytes_max: AtomicU64,
    dropped: Mutex<Option<&'static str>>,
    drop_bytes: AtomicU64,
    until_drop: AtomicU64,
    free_at: Mutex<Option<Instant>>,
    open: Mutex<Vec<TcpStream>>,
    carrying: AtomicUsize,
    closed: Mutex<bool>,
    closing: Condvar,
}

/// Why a connection ends.
enum End {
    /// One of the sides went away.
    Gone,
    /// It is to be reset.
    Cut,
    /// It is to go silent.
    Stall,
}

impl Proxy {
    /// A line to the server at `server` on 127.0.0.1, in order for the time being.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::new(Line {
            port,
            server,
            script: Mutex::new(Box::new(|_| None)),
            seen: Mutex::default(),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(u64::MAX),
            connection_bytes_max: AtomicU64::new(u64::MAX),
            dropped: Mutex::default(),
            drop_bytes: AtomicU64::new(u64::MAX),
            until_drop: AtomicU64::new(u64::MAX),
            free_at: Mutex::default(),
            open: Mutex::default(),
            carrying: AtomicUsize::new(0),
            closed: Mutex::new(false),
            closing: Condvar::new(),
        });
        let accepting = Arc::clone(&line);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if *accepting.closed.lock().unwrap() {
                    break;
                }
                let line = Arc::clone(&accepting);
                // Counted before its thread runs, so that whoever waits for the line to be empty waits for it as well.
                line.carrying.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || line.carry(&client));
            }
        });
        Self { port, line }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on `script` decides what goes wrong.
    pub fn script(&self, script: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        *self.line.script.lock().unwrap() = Box::new(script);
    }

    /// From now on, with `percent` of the requests one of `faults` goes wrong, as `seed` has it.
    pub fn randomly(&self, seed: u64, percent: u64, faults: Vec<Fault>) {
        let mut rng = Rng::new(seed);
        self.script(move |_| rng.chance(percent).then(|| *rng.pick(&faults)));
    }

    /// From now on all connections together carry so many bytes a second, each way counted.
    pub fn slow(&self, bytes_per_second: u64) {
        self.line.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// From now on every connection is reset when it has carried so many bytes of bodies.
    pub fn connections_break_after(&self, bytes: u64) {
        self.line.connection_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// From now on every connection breaks whenever all of them together have carried so many more bytes of bodies: a line
    /// that drops every few seconds, but without a clock.
    pub fn drops_every(&self, bytes: u64) {
        self.line.until_drop.store(bytes, Ordering::SeqCst);
        self.line.drop_bytes.store(bytes, Ordering::SeqCst);
    }

    /// From now on every connection breaks each time that so much time has passed.
    pub fn drops_each(&self, time: Duration) {
        let line = Arc::clone(&self.line);
        std::thread::spawn(move || {
            while !*line.closed.lock().unwrap() {
                std::thread::sleep(time);
                line.break_all();
            }
        });
    }

    /// From now on the server does not hear of this header.
    pub fn drop_header(&self, name: &'static str) {
        *self.line.dropped.lock().unwrap() = Some(name);
    }

    /// Every connection that is open breaks.
    pub fn break_all(&self) {
        self.line.break_all();
    }

    /// Waits until all clients have gone and what was on its way from them has been counted.
    pub fn settle(&self) {
        // Whoever came before this one, which says nothing, has been accepted when it is told that there is nothing to come.
        let mut last = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        last.read_to_end(&mut Vec::new()).unwrap();
        let gone = || self.line.carrying.load(Ordering::SeqCst) == 0;
        wait_until(Duration::from_secs(60), "the line to be empty", gone);
    }

    /// Every request so far, and what went wrong with it.
    pub fn seen(&self) -> Vec<(Request, Option<Fault>)> {
        self.line.seen.lock().unwrap().clone()
    }

    /// Bytes of request bodies that reached the server.
    pub fn bytes_up(&self) -> u64 {
        self.line.bytes_up.load(Ordering::Relaxed)
    }

    /// Bytes of reply bodies that reached clients.
    pub fn bytes_down(&self) -> u64 {
        self.line.bytes_down.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.line.closed.lock().unwrap() = true;
        self.line.closing.notify_all();
        self.break_all();
        // Wakes the thread that accepts, which sees that it is over.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

impl Line {
    /// Carries one client's requests until something ends it.
    fn carry(&self, client: &TcpStream) {
        self.open.lock().unwrap().push(client.try_clone().unwrap());
        // Heads and bodies go in pieces, and none of them waits for the other side to say that it has the one before.
        client.set_nodelay(true).ok();
        let end = self.requests(client);
        self.carrying.fetch_sub(1, Ordering::SeqCst);
        match end {
            End::Gone => {
                client.shutdown(Shutdown::Both).ok();
            }
            End::Cut => reset(client),
            End::Stall => {
                let closed = self.closed.lock().unwrap();
                drop(self.closing.wait_while(closed, |closed| !*closed).unwrap());
            }
        }
    }

    fn requests(&self, client: &TcpStream) -> End {
        let mut from_client = BufReader::new(client);
        let mut server: Option<BufReader<TcpStream>> = None;
        let mut carried = 0;
        loop {
            let Some(mut head) = Head::read(&mut from_client) else { return End::Gone };
            let fault = self.judge(&head);
            if fault == Some(Fault::Refuse) {
                return End::Cut;
            }
            // A client that waits for leave gets it at once: the server may never be asked.
            if head.take("expect").is_some() && (&*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
                return End::Gone;
            }
            let body = head.request_body();
            if let Some(Fault::Answer { status, retry_after }) = fault {
                let answer = http1::answer(status, retry_after);
                if body.pass(&mut from_client, |_| Ok(())).is_err() || (&*client).write_all(&answer).is_err() {
                    return End::Gone;
                }
                if head.closes() {
                    return End::Gone;
                }
                continue;
            }
            if let Some(name) = *self.dropped.lock().unwrap() {
                head.take(name);
            }
            // Servers compare a destination with their own address.
            head.replace("destination", &format!(":{}/", self.port), &format!(":{}/", self.server));
            if !server.as_ref().is_some_and(|server| is_open(server.get_ref())) {
                let Ok(stream) = TcpStream::connect(("127.0.0.1", self.server)) else { return End::Cut };
                stream.set_nodelay(true).ok();
                server = Some(BufReader::new(stream));
            }
            let Some(to_server) = server.as_mut() else { return End::Gone };
            match self.exchange(client, &mut from_client, to_server, &head, body, fault, &mut carried) {
                Ok(true) => {}
                Ok(false) => return End::Gone,
                Err(end) => return end,
            }
        }
    }

    /// Carries one request and its reply; says whether the connection goes on.
    #[expect(clippy::too_many_arguments, reason = "both ends of the line, and what is on it")]
    fn exchange(
        &self,
        client: &TcpStream,
        from_client: &mut BufReader<&TcpStream>,
        server: &mut BufReader<TcpStream>,
        head: &Head,
        body: Body,
        fault: Option<Fault>,
        carried: &mut u64,
    ) -> Result<bool, End> {
        let mut to_server = server.get_ref().try_clone().map_err(|_| End::Gone)?;
        to_server.write_all(&head.bytes()).map_err(|_| End::Cut)?;
        let mut passage = Passage::new(self, &to_server, carried, &self.bytes_up);
        (passage.cut, passage.stall, passage.flip) = match fault {
            Some(Fault::CutRequest(bytes)) => (Some(bytes), None, None),
            Some(Fault::StallRequest(bytes)) => (None, Some(bytes), None),
            Some(Fault::FlipRequest(byte)) => (None, None, Some(byte)),
            _ => (None, None, None),
        };
        match body.pass(from_client, |bytes| passage.pass(bytes)) {
            Ok(()) => passage.finish()?,
            // A server that has heard enough answers and closes: its answer counts. One whose client has gone hears of it.
            Err(End::Gone) => {
                passage.finish()?;
                server.get_ref().shutdown(Shutdown::Write).ok();
            }
            Err(end) => return Err(end),
        }
        let reply = loop {
            let reply = Head::read(server).ok_or(End::Cut)?;
            if !reply.is_interim() {
                break reply;
            }
        };
        let body = reply.reply_body(head.method());
        let lasts = !reply.closes() && !head.closes() && !matches!(body, Body::UntilClosed);
        if fault == Some(Fault::LoseReply) {
            body.pass(server, |_| Ok(()))?;
            return Err(End::Cut);
        }
        let mut to_client = client;
        to_client.write_all(&reply.bytes()).map_err(|_| End::Gone)?;
        let mut passage = Passage::new(self, client, carried, &self.bytes_down);
        (passage.cut, passage.stall, passage.flip) = match fault {
            Some(Fault::CutReply(bytes)) => (Some(bytes), None, None),
            Some(Fault::StallReply(bytes)) => (None, Some(bytes), None),
            Some(Fault::FlipReply(byte)) => (None, None, Some(byte)),
            _ => (None, None, None),
        };
        body.pass(server, |bytes| passage.pass(bytes))?;
        passage.finish()?;
        Ok(lasts)
    }

    fn judge(&self, head: &Head) -> Option<Fault> {
        let mut seen = self.seen.lock().unwrap();
        let number = seen.len() as u64;
        let request = Request { number, method: head.method().to_owned(), target: head.target().to_owned() };
        let fault = (self.script.lock().unwrap())(&request);
        seen.push((request, fault));
        fault
    }

    fn break_all(&self) {
        for client in self.open.lock().unwrap().drain(..) {
            reset(&client);
        }
    }

    /// Breaks everything if it is time to.
    fn drop_after(&self, bytes: u64) {
        let every = self.drop_bytes.load(Ordering::SeqCst);
        if every == u64::MAX {
            return;
        }
        let left = self.until_drop.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            Some(if left > bytes { left - bytes } else { every })
        });
        if left.is_ok_and(|left| left <= bytes) {
            self.break_all();
        }
    }

    /// Waits until a slow line has room for `bytes`.
    fn pace(&self, bytes: usize) {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == u64::MAX {
            return;
        }
        let until = {
            let mut free_at = self.free_at.lock().unwrap();
            let now = Instant::now();
            let until = free_at.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at = Some(until);
            until
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// One body on its way to one side, and what goes wrong with it.
struct Passage<'l> {
    line: &'l Line,
    to: &'l TcpStream,
    carried: &'l mut u64,
    counter: &'l AtomicU64,
    passed: u64,
    cut: Option<u64>,
    stall: Option<u64>,
    flip: Option<u64>,
}

impl<'l> Passage<'l> {
    fn new(line: &'l Line, to: &'l TcpStream, carried: &'l mut u64, counter: &'l AtomicU64) -> Self {
        Self { line, to, carried, counter, passed: 0, cut: None, stall: None, flip: None }
    }

    fn pass(&mut self, bytes: &[u8]) -> Result<(), End> {
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| self.pass_piece(piece))
    }

    fn pass_piece(&mut self, piece: &[u8]) -> Result<(), End> {
        let limit = self.cut.or(self.stall).unwrap_or(u64::MAX) - self.passed;
        let lifetime = self.line.connection_bytes_max.load(Ordering::Relaxed).saturating_sub(*self.carried);
        let allowed = limit.min(lifetime);
        let mut piece = piece[..piece.len().min(usize::try_from(allowed).unwrap_or(usize::MAX))].to_vec();
        let flip = self.flip.and_then(|byte| usize::try_from(byte.checked_sub(self.passed)?).ok());
        if let Some(byte) = flip.and_then(|at| piece.get_mut(at)) {
            *byte ^= 1;
        }
        self.line.pace(piece.len());
        self.to.write_all(&piece).map_err(|_| End::Gone)?;
        let bytes = piece.len() as u64;
        self.passed += bytes;
        *self.carried += bytes;
        self.counter.fetch_add(bytes, Ordering::Relaxed);
        self.line.drop_after(bytes);
        if bytes < allowed {
            return Ok(());
        }
        Err(if lifetime > limit && self.stall.is_some() { End::Stall } else { End::Cut })
    }

    /// A body that was shorter than the fault's place ends there.
    fn finish(&self) -> Result<(), End> {
        match (self.cut, self.stall) {
            (Some(_), _) => Err(End::Cut),
            (_, Some(_)) => Err(End::Stall),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Line({} -> {})", self.port, self.server)
    }
}

/// Whether the server has not closed a connection on which nothing is under way, as servers do that are asked nothing for some
/// seconds.
fn is_open(server: &TcpStream) -> bool {
    let looked = server.set_nonblocking(true).and_then(|()| server.peek(&mut [0]));
    server.set_nonblocking(false).is_ok() && looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Ends a connection so that the other side sees a reset, not an orderly end.
fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).ok();
    stream.shutdown(Shutdown::Both).ok();
}
