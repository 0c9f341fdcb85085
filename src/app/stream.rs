//! The stream under a connection, which tells when a client has taken bytes of an answer.
//!
//! hyper has no time-out for writing, and none is needed here: the kernel breaks off a connection whose peer takes no
//! byte for a while (`TCP_USER_TIMEOUT`, set when the connection is accepted). It alone sees what the peer takes of the
//! megabytes that a socket may hold.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::app::busy::Progress;

/// Writes up to this many bytes may be HTTP/2 talking by itself: pings, their answers, settings.
const SMALL_TALK: usize = 128;

/// A stream that tells of the progress of answers.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    inner: S,
    progress: Progress,
}

impl<S> ClientStream<S> {
    /// Wraps `inner`; what the peer takes of answers is told to `progress`.
    pub(crate) const fn new(inner: S, progress: Progress) -> Self {
        Self { inner, progress }
    }

    fn written(&self, attempt: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(attempt, Poll::Ready(Ok(bytes)) if bytes > SMALL_TALK) {
            self.progress.made();
        }
        attempt
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write(context, buf);
        self.written(attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write_vectored(context, bufs);
        self.written(attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
