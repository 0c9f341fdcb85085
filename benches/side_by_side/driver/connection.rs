//! One connection of the load: a request out, an answer in, again and again. It never blocks.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::time::Instant;

use super::Request;
use super::head::{self, LONGEST, Malformed};

/// How much of a body one call throws away at most.
const DISCARD: usize = 1 << 20;

/// How many calls one connection may make before it is the turn of the others.
const TURN: usize = 16;

/// An answer that was received in full and was the right one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completed {
    /// From the request to the first byte of the answer.
    pub(crate) first_byte: Duration,
    /// From the request to the last byte of the answer.
    pub(crate) total: Duration,
    /// The bytes of the body.
    pub(crate) bytes: u64,
}

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("Answered {got} instead of {wanted}")]
    Status { wanted: u16, got: u16 },
    #[error("Content-Length is {got:?} instead of {wanted}")]
    Length { wanted: u64, got: Option<u64> },
    #[error("More bytes than the answer has")]
    Surplus,
    #[error("The server closed the connection within an answer")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("The connection broke: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for Broken {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

#[derive(Debug)]
enum Awaited {
    /// The head, of which this much is in the buffer.
    Head { seen: usize },
    /// This much of the body.
    Body { left: u64 },
}

/// One connection with at most one request under way.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    stream: TcpStream,
    buffer: Box<[u8]>,
    request: &'a Request,
    awaited: Awaited,
    sent_at: Instant,
    first_byte: Duration,
}

impl<'a> Connection<'a> {
    /// Connects and sends the first request.
    pub(crate) fn open(address: SocketAddr, request: &'a Request) -> Result<Self, Broken> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut connection = Self {
            stream,
            buffer: vec![0; LONGEST].into(),
            request,
            awaited: Awaited::Head { seen: 0 },
            sent_at: Instant::now(),
            first_byte: Duration::ZERO,
        };
        connection.send(request)?;
        Ok(connection)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends the next request; the answer to the one before must be complete.
    pub(crate) fn send(&mut self, request: &'a Request) -> Result<(), Broken> {
        self.request = request;
        self.awaited = Awaited::Head { seen: 0 };
        self.sent_at = Instant::now();
        // A request is a few hundred bytes and the socket is idle: it fits, or something is badly wrong.
        let sent = send(&self.stream, request.bytes(), SendFlags::NOSIGNAL)?;
        if sent == request.bytes().len() { Ok(()) } else { Err(Errno::AGAIN.into()) }
    }

    /// Receives what has arrived. `None`: the answer is not complete.
    ///
    /// `scratch` is never written to: it tells the kernel how much it may throw away.
    pub(crate) fn receive(&mut self, scratch: &mut [u8]) -> Result<Option<Completed>, Broken> {
        for _ in 0..TURN {
            let received = match self.awaited {
                Awaited::Head { seen } => recv(&self.stream, &mut self.buffer[seen..], RecvFlags::empty()),
                Awaited::Body { left } => {
                    let most = usize::try_from(left).unwrap_or(DISCARD).min(scratch.len());
                    recv(&self.stream, &mut scratch[..most], RecvFlags::TRUNC)
                }
            };
            let received = match received {
                Ok((_, 0)) => return Err(Broken::Closed),
                Ok((_, received)) => received,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if let Some(bytes) = self.advance(received)? {
                let total = self.sent_at.elapsed();
                return Ok(Some(Completed { first_byte: self.first_byte.min(total), total, bytes }));
            }
        }
        Ok(None)
    }

    /// Takes note of `received` bytes; the length of the body once all of it is here.
    fn advance(&mut self, received: usize) -> Result<Option<u64>, Broken> {
        let left = match self.awaited {
            Awaited::Head { seen } => {
                if seen == 0 {
                    self.first_byte = self.sent_at.elapsed();
                }
                let seen = seen + received;
                let Some(head) = head::parse(&self.buffer[..seen])? else {
                    self.awaited = Awaited::Head { seen };
                    return Ok(None);
                };
                self.request.check(&head)?;
                self.request.body().checked_sub((seen - head.size) as u64).ok_or(Broken::Surplus)?
            }
            Awaited::Body { left } => left.checked_sub(received as u64).ok_or(Broken::Surplus)?,
        };
        self.awaited = Awaited::Body { left };
        Ok((left == 0).then(|| self.request.body()))
    }
}

/// What [`Connection::receive`] needs to throw bodies away.
pub(crate) fn scratch() -> Vec<u8> {
    vec![0; DISCARD]
}
