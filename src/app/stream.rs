//! The stream under a connection: a socket that gives up on a peer which takes nothing.
//!
//! hyper has no time-out for writing. Without one, a client that stops reading holds its connection, its place under
//! the cap and a block of its answer for ever. This type is also where a connection learns to send files: whatever
//! hyper writes passes through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::app::busy::Progress;

/// Writes up to this many bytes may be HTTP/2 talking by itself: pings, their answers, settings.
const SMALL_TALK: usize = 128;

/// A stream whose writes fail with [`io::ErrorKind::TimedOut`] once the peer has taken no byte for a while.
///
/// What counts is the time that a write has waited, not the time an answer takes: a slow peer is fine, and so is an
/// answer that waits for an upstream, because then nothing is being written.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    inner: S,
    limit: Duration,
    /// Made when a write first has to wait, and kept: most connections never need it.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    progress: Progress,
}

impl<S> ClientStream<S> {
    /// Wraps `inner`; a write may wait up to `limit`. What the peer takes of answers is told to `progress`.
    pub(crate) const fn new(inner: S, limit: Duration, progress: Progress) -> Self {
        Self { inner, limit, timer: None, waiting: false, progress }
    }

    /// The same as [`ClientStream::watch`] for a write, which may be progress of an answer.
    fn written(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(attempt, Poll::Ready(Ok(bytes)) if bytes > SMALL_TALK) {
            self.progress.made();
        }
        self.watch(context, attempt)
    }

    /// Passes the result of an attempt to write on, watching how long attempts have been in vain.
    fn watch<T>(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.waiting = false;
            return attempt;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        if !self.waiting {
            timer.as_mut().reset(Instant::now() + self.limit);
            self.waiting = true;
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "The client took no byte within the write time-out")))
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
        self.written(context, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write_vectored(context, bufs);
        self.written(context, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, attempt)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, attempt)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::advance;

    use super::*;
    use crate::app::busy::Requests;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_ends_the_write() {
        let (ours, _theirs) = duplex(4);
        let mut stream = ClientStream::new(ours, LIMIT, Requests::new().progress());
        let started = Instant::now();
        let error = stream.write_all(b"more than four bytes").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_waited_for_as_long_as_it_takes_something() {
        let (ours, mut theirs) = duplex(1);
        let mut stream = ClientStream::new(ours, LIMIT, Requests::new().progress());
        let started = Instant::now();
        let reader = tokio::spawn(async move {
            let mut taken = Vec::new();
            for _ in 0..5 {
                sleep(LIMIT * 9 / 10).await;
                taken.push(theirs.read_u8().await.unwrap());
            }
            taken
        });
        stream.write_all(b"abcde").await.unwrap();
        assert_eq!(reader.await.unwrap(), b"abcde");
        assert!(started.elapsed() > 3 * LIMIT, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_a_write_does_not_count() {
        let (ours, mut theirs) = duplex(1);
        let mut stream = ClientStream::new(ours, LIMIT, Requests::new().progress());
        stream.write_all(b"a").await.unwrap();
        let (written, taken) = tokio::join!(stream.write_all(b"b"), async {
            sleep(LIMIT / 2).await;
            theirs.read_u8().await
        });
        written.unwrap();
        taken.unwrap();
        advance(2 * LIMIT).await;
        theirs.read_u8().await.unwrap();
        stream.write_all(b"c").await.unwrap();
    }
}
