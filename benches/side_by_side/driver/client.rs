//! A blocking client for one request at a time: cold transfers, herds, whole pulls, and passes that verify.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::time::Instant;
use weir::oci::{Algorithm, Digest, Hasher};

use super::Request;
use super::connection::Broken;
use super::head::{self, Head, LONGEST};

/// How long a body may pause before the transfer counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is received at once.
const BLOCK: usize = 256 << 10;

/// A right answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// From the start to the first byte of the body, or of the head where there is no body.
    pub(crate) first_byte: Duration,
    /// From the start to the last byte.
    pub(crate) total: Duration,
    /// The bytes of the body.
    pub(crate) bytes: u64,
}

/// What becomes of a body.
enum Sink<'a> {
    Discard,
    Hash(&'a mut Hasher),
}

/// A connection that is kept alive.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; BLOCK] })
    }

    /// Sends a request and throws the body away; times count from `started`.
    pub(crate) fn discard(&mut self, request: &Request, started: Instant) -> Result<Answer, Broken> {
        self.exchange(request, started, Sink::Discard)
    }

    /// Sends a request and hashes the body.
    pub(crate) fn hash(&mut self, request: &Request) -> Result<(Answer, Digest), Broken> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let answer = self.exchange(request, Instant::now(), Sink::Hash(&mut hasher))?;
        Ok((answer, hasher.finish()))
    }

    /// The status that `path` is answered with. The connection is of no use afterwards.
    pub(crate) fn status(mut self, path: &str) -> Result<u16, Broken> {
        self.stream.write_all(Request::get(path, 0).bytes())?;
        let mut seen = 0;
        Ok(self.head(&mut seen)?.status)
    }

    fn exchange(&mut self, request: &Request, started: Instant, mut sink: Sink<'_>) -> Result<Answer, Broken> {
        self.stream.write_all(request.bytes())?;
        let mut seen = 0;
        let head = self.head(&mut seen)?;
        let mut first_byte = started.elapsed();
        request.check(&head)?;
        let mut left = request.body().checked_sub((seen - head.size) as u64).ok_or(Broken::Surplus)?;
        sink.take(&self.buffer[head.size..seen]);
        let mut body_began = seen > head.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let received = match sink {
                Sink::Discard => self.throw_away(most)?,
                Sink::Hash(_) => self.receive(0, most)?,
            };
            if !body_began {
                first_byte = started.elapsed();
                body_began = true;
            }
            sink.take(&self.buffer[..received]);
            left -= received as u64;
        }
        Ok(Answer { first_byte, total: started.elapsed(), bytes: request.body() })
    }

    /// Receives a head, and perhaps some of the body: `seen` bytes in all.
    fn head(&mut self, seen: &mut usize) -> Result<Head, Broken> {
        loop {
            *seen += self.receive(*seen, LONGEST)?;
            if let Some(head) = head::parse(&self.buffer[..*seen])? {
                return Ok(head);
            }
        }
    }

    /// Receives into the buffer, between these places.
    fn receive(&mut self, from: usize, to: usize) -> Result<usize, Broken> {
        match recv(&self.stream, &mut self.buffer[from..to], RecvFlags::empty())? {
            (_, 0) => Err(Broken::Closed),
            (_, received) => Ok(received),
        }
    }

    /// Lets the kernel throw away what has arrived.
    fn throw_away(&mut self, most: usize) -> Result<usize, Broken> {
        match recv(&self.stream, &mut self.buffer[..most], RecvFlags::TRUNC)? {
            (_, 0) => Err(Broken::Closed),
            (_, received) => Ok(received),
        }
    }
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Discard => {}
            Self::Hash(hasher) => hasher.update(bytes),
        }
    }
}
