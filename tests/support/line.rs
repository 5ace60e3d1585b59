//! A line between two ends on the loopback interface that can be made to swallow everything, as a network does whose plug
//! was pulled: nobody is told, and nothing arrives.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A line to a server. Once made, it is there until the process ends.
#[derive(Clone, Debug)]
pub struct Line {
    port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing gets through.
    dead: bool,
    /// Bytes until it dies by itself.
    left: Option<usize>,
    /// Both ends of all connections.
    ends: Vec<TcpStream>,
}

impl Line {
    /// A line to this port.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let line = Self { port: listener.local_addr().unwrap().port(), shared: Arc::default() };
        let shared = Arc::clone(&line.shared);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                shared.0.lock().unwrap().ends.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                    let (from, to, shared) = (from.unwrap(), to.unwrap(), Arc::clone(&shared));
                    std::thread::spawn(move || carry(from, to, &shared));
                }
            }
        });
        line
    }

    /// The port of the near end.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing gets through, and no connection ends.
    pub fn die(&self) {
        self.shared.0.lock().unwrap().dead = true;
    }

    /// From now on so many bytes get through, and then nothing.
    pub fn die_after(&self, bytes: usize) {
        self.shared.0.lock().unwrap().left = Some(bytes);
    }

    /// Whether nothing gets through.
    pub fn is_dead(&self) -> bool {
        self.shared.0.lock().unwrap().dead
    }

    /// New connections get through again; those from before are broken off at both ends.
    pub fn mend(&self) {
        let mut state = self.shared.0.lock().unwrap();
        for end in state.ends.drain(..) {
            // It may be gone already.
            end.shutdown(Shutdown::Both).ok();
        }
        state.dead = false;
        self.shared.1.notify_all();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, (state, mended): &(Mutex<State>, Condvar)) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer);
        let mut now = state.lock().unwrap();
        if let Some(left) = now.left {
            now.left = left.checked_sub(*read.as_ref().unwrap_or(&0));
            now.dead |= now.left.is_none();
        }
        while now.dead {
            now = mended.wait(now).unwrap();
        }
        drop(now);
        match read {
            Ok(bytes @ 1..) if to.write_all(&buffer[..bytes]).is_ok() => {}
            _ => break,
        }
    }
    // The other end is told that there is no more to come; it may be gone itself.
    to.shutdown(Shutdown::Write).ok();
}
