//! How many requests of one connection are being answered, to tell an idle connection from a busy one.
//!
//! Nothing is woken for a request: what happened is written down, and read when the time-out would be over.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The requests of one connection. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Requests(Arc<State>);

/// When the client last took bytes of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<State>);

#[derive(Debug)]
struct State {
    in_progress: AtomicUsize,
    any: AtomicBool,
    /// The end of the last request, or the last time that the client took bytes of an answer.
    last: Mutex<Instant>,
}

/// One request in progress; dropping it says that it is answered.
#[derive(Debug)]
pub(crate) struct InProgress(Arc<State>);

/// An answer's body, which keeps its request in progress until it ends or is dropped.
#[derive(Debug)]
pub(crate) struct BusyBody {
    inner: axum::body::Body,
    _request: InProgress,
}

impl Requests {
    pub(crate) fn new() -> Self {
        let last = Mutex::new(Instant::now());
        Self(Arc::new(State { in_progress: AtomicUsize::new(0), any: AtomicBool::new(false), last }))
    }

    /// A request has arrived.
    pub(crate) fn begin(&self) -> InProgress {
        self.0.in_progress.fetch_add(1, Ordering::AcqRel);
        self.0.any.store(true, Ordering::Release);
        InProgress(Arc::clone(&self.0))
    }

    /// Where the stream says that answers flow.
    pub(crate) fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.0))
    }

    /// Whether a request has ever arrived.
    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// Returns once no request has been in progress and no byte of an answer has flowed for `limit` on end, or for
    /// `first` if there was no request yet.
    pub(crate) async fn idle(&self, first: Duration, limit: Duration) {
        let mut from = Instant::now();
        loop {
            let limit = if self.any() { limit } else { first };
            sleep_until(from + limit).await;
            from = if self.0.in_progress.load(Ordering::Acquire) > 0 {
                // It ends after this moment, and the time-out runs from its end.
                Instant::now()
            } else {
                let last = *self.0.last.lock();
                if last <= from {
                    return;
                }
                last
            };
        }
    }
}

impl Progress {
    /// The client has taken bytes of an answer just now.
    pub(crate) fn made(&self) {
        *self.0.last.lock() = Instant::now();
    }
}

impl InProgress {
    /// Ties the request to the body of its answer.
    pub(crate) const fn until_end_of(self, inner: axum::body::Body) -> BusyBody {
        BusyBody { inner, _request: self }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        // The time before the count: who sees that nothing is in progress must see since when.
        *self.0.last.lock() = Instant::now();
        self.0.in_progress.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Body for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_time_starts_over_with_every_request_and_does_not_run_during_one() {
        const FIRST: Duration = Duration::from_secs(10);
        const LATER: Duration = Duration::from_secs(75);
        let requests = Requests::new();
        let started = Instant::now();
        let traffic = async {
            sleep(Duration::from_secs(5)).await;
            let request = requests.begin();
            sleep(Duration::from_secs(100)).await;
            drop(request);
        };
        tokio::join!(traffic, requests.idle(FIRST, LATER));
        assert!(requests.any());
        assert_eq!(started.elapsed().as_secs(), 5 + 100 + 75);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_flow_are_no_idle_time() {
        const LIMIT: Duration = Duration::from_secs(75);
        let requests = Requests::new();
        drop(requests.begin());
        let (started, progress) = (Instant::now(), requests.progress());
        let flow = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(50)).await;
                progress.made();
            }
        };
        tokio::join!(flow, requests.idle(LIMIT, LIMIT));
        assert_eq!(started.elapsed().as_secs(), 3 * 50 + 75);
    }
}
