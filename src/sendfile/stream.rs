//! The stream of a connection, which sends regions of files where it is given their placeholders.

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::page::place_of;
use super::region::{Region, Regions};

/// A stream that takes bytes out of a file.
pub trait FileSink: AsyncRead + AsyncWrite + Unpin {
    /// Sends up to `length` bytes of `file` from `offset` on. 0 means that the file ends there.
    fn poll_send_file(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        file: &File,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>>;

    /// Writes bytes that file regions follow: they need not go out before those do.
    fn poll_write_ahead(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

/// A stream that sends the announced regions in place of their placeholders.
#[derive(Debug)]
pub struct SendFileStream<S> {
    inner: S,
    regions: Regions,
}

impl<S> SendFileStream<S> {
    /// Wraps `inner`; bodies announce in [`SendFileStream::regions`].
    pub fn new(inner: S) -> Self {
        Self { inner, regions: Regions::default() }
    }

    /// Where the bodies of this connection announce regions.
    pub fn regions(&self) -> Regions {
        self.regions.clone()
    }
}

impl<S: FileSink> SendFileStream<S> {
    /// Sends what the slice at the front stands for.
    fn poll_send_region(&mut self, context: &mut Context<'_>, slice: &[u8]) -> Poll<io::Result<usize>> {
        let Region { file, offset, length } = self.expect(slice)?;
        let sent = ready!(Pin::new(&mut self.inner).poll_send_file(context, &file, offset, length))?;
        if sent == 0 {
            // Somebody cut it. Nothing can be sent in place of the bytes that were announced.
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "A file ends before its region")));
        }
        self.regions.sent(sent);
        Poll::Ready(Ok(sent))
    }

    /// The region that a slice of the page stands for, which has to be the next one.
    fn expect(&self, slice: &[u8]) -> io::Result<Region> {
        let place = place_of(slice).ok_or_else(|| io::Error::other("A slice is not of the placeholder page"))?;
        self.regions.next(place, slice.len())
    }

    /// Plain bytes that no placeholder follows may only be written while nothing is announced. Else a placeholder was
    /// copied on its way here, and these may be its bytes.
    fn check_plain(&self) -> io::Result<()> {
        if self.regions.is_empty() {
            return Ok(());
        }
        Err(io::Error::other("A file region was announced, and its placeholder has not arrived"))
    }
}

impl<S: FileSink> AsyncWrite for SendFileStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if place_of(bytes).is_some() {
            return self.poll_send_region(context, bytes);
        }
        self.check_plain()?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // An empty slice says nothing, and the page's own neighbour must not be mistaken for it.
        let Some(first) = slices.iter().position(|slice| !slice.is_empty()) else { return Poll::Ready(Ok(0)) };
        let slices = &slices[first..];
        match slices.iter().position(|slice| place_of(slice).is_some()) {
            Some(0) => self.poll_send_region(context, &slices[0]),
            Some(ahead) => {
                // What goes ahead of a placeholder must not hold a copy of another: the region that is next has to be
                // the one that this placeholder stands for.
                self.expect(&slices[ahead])?;
                match ahead {
                    // The head of an answer and the first bytes of its file leave together.
                    1 => Pin::new(&mut self.inner).poll_write_ahead(context, &slices[0]),
                    _ => Pin::new(&mut self.inner).poll_write_vectored(context, &slices[..ahead]),
                }
            }
            None => {
                self.check_plain()?;
                Pin::new(&mut self.inner).poll_write_vectored(context, slices)
            }
        }
    }

    /// Always: a writer that copied slices together would copy placeholders.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SendFileStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buf)
    }
}

impl FileSink for TcpStream {
    fn poll_send_file(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        file: &File,
        offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        poll_socket(&self, context, || {
            let mut offset = offset;
            Ok(rustix::fs::sendfile(&*self, file, Some(&mut offset), length)?)
        })
    }

    fn poll_write_ahead(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_socket(&self, context, || Ok(send(&*self, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?))
    }
}

/// Tries `operation` when the socket takes bytes, and waits for that where it does not.
fn poll_socket(
    socket: &TcpStream,
    context: &mut Context<'_>,
    mut operation: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(context))?;
        match socket.try_io(Interest::WRITABLE, &mut operation) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return Poll::Ready(done),
        }
    }
}
