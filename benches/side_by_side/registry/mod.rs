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
pub(crate) use counts::Counts;
use counts::{Counters, Door};
pub(crate) use pace::Shape;

/// The addresses it has. To a client that does not know better they are registries with the same content.
pub(crate) const ADDRESSES: usize = 3;

const LONGEST_HEAD: usize = 8 << 10;

/// The running registry.
#[derive(Debug)]
pub(crate) struct Registry {
    addresses: [SocketAddr; ADDRESSES],
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    library: Library,
    counters: Counters,
    shaped: AtomicBool,
}

impl Registry {
    /// Serves this library on free ports of the loopback interface.
    pub(crate) fn start(library: Library) -> Result<Self> {
        let shared = Arc::new(Shared { library, counters: Counters::default(), shaped: AtomicBool::new(false) });
        let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); ADDRESSES];
        for (address, door) in addresses.iter_mut().zip([Door::First, Door::Further, Door::Further]) {
            let listener = TcpListener::bind(*address).context("The upstream cannot listen")?;
            *address = listener.local_addr()?;
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("upstream".to_owned()).spawn(move || accept(&listener, door, &shared))?;
        }
        Ok(Self { addresses, shared })
    }

    /// Where it is found.
    pub(crate) fn addresses(&self) -> [SocketAddr; ADDRESSES] {
        self.addresses
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

fn accept(listener: &TcpListener, door: Door, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that hangs up is no concern of a registry; one that could not be served finds its connection closed.
        let _ = thread::Builder::new().name("upstream".to_owned()).spawn(move || serve(stream, door, &shared));
    }
}

/// Answers the requests of one connection until the client has had enough.
fn serve(mut stream: TcpStream, door: Door, shared: &Shared) -> io::Result<()> {
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
        answer::answer(&stream, door, &question, &shared.library, &shared.counters, shape)?;
        buffer.copy_within(length..seen, 0);
        seen -= length;
    }
}
