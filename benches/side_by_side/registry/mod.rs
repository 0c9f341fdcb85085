//! The upstream: an imitation of a registry that counts what it is asked for and can be as slow as a distant one.
//!
//! A thread per connection, bodies by `sendfile`: it takes next to nothing from the processors that the measured
//! servers share with it. It pulls no tricks: no authentication, no redirects, no faults (the tests of Weir have an
//! upstream for these). It lives as long as the process.

mod answer;
mod counts;
mod pace;

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::content::Library;
use answer::Question;
use counts::Counters;
pub(crate) use counts::Counts;
pub(crate) use pace::Shape;

const LONGEST_HEAD: usize = 8 << 10;

/// The running registry.
#[derive(Debug)]
pub(crate) struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    library: Library,
    counters: Counters,
    shaped: AtomicBool,
}

impl Registry {
    /// Serves this library on a free port of the loopback interface.
    pub(crate) fn start(library: Library) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("The upstream cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { library, counters: Counters::default(), shaped: AtomicBool::new(false) });
        let registry = Self { address, shared: Arc::clone(&shared) };
        thread::Builder::new().name("upstream".to_owned()).spawn(move || accept(&listener, &shared))?;
        Ok(registry)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How requests are answered from now on.
    pub(crate) fn shape(&self, shape: Shape) {
        self.shared.shaped.store(shape == Shape::Shaped, Ordering::Relaxed);
    }

    /// What it was asked for since it started.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.counters.read()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that hangs up is no concern of a registry; one that could not be served finds its connection closed.
        let _ = thread::Builder::new().name("upstream".to_owned()).spawn(move || serve(stream, &shared));
    }
}

/// Answers the requests of one connection until the client has had enough.
fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; LONGEST_HEAD];
    let mut seen = 0;
    loop {
        let length = loop {
            if let Some(at) = buffer[..seen].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer[seen..])? {
                0 => return Ok(()),
                received => seen += received,
            }
        };
        let question = Question::parse(&buffer[..length]).ok_or(io::ErrorKind::InvalidData)?;
        let shape = if shared.shaped.load(Ordering::Relaxed) { Shape::Shaped } else { Shape::Plain };
        answer::answer(&stream, &question, &shared.library, &shared.counters, shape)?;
        buffer.copy_within(length..seen, 0);
        seen -= length;
    }
}
