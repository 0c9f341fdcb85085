//! How many requests of one connection are being answered, to tell an idle connection from a busy one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Requests {
    state: watch::Sender<State>,
    progress: Progress,
}

/// When the client last took bytes of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    in_progress: usize,
    any: bool,
}

/// One request in progress; dropping it says that it is answered.
#[derive(Debug)]
pub(crate) struct InProgress(watch::Sender<State>);

/// Watches the requests of one connection.
#[derive(Debug)]
pub(crate) struct Watcher {
    state: watch::Receiver<State>,
    progress: Progress,
}

/// An answer's body, which keeps its request in progress until it ends or is dropped.
#[derive(Debug)]
pub(crate) struct BusyBody {
    inner: axum::body::Body,
    _request: InProgress,
}

impl Requests {
    pub(crate) fn new() -> Self {
        let progress = Progress(Arc::new(Mutex::new(Instant::now())));
        Self { state: watch::Sender::new(State::default()), progress }
    }

    /// A request has arrived.
    pub(crate) fn begin(&self) -> InProgress {
        self.state.send_modify(|state| *state = State { in_progress: state.in_progress + 1, any: true });
        InProgress(self.state.clone())
    }

    pub(crate) fn watcher(&self) -> Watcher {
        Watcher { state: self.state.subscribe(), progress: self.progress.clone() }
    }

    /// Where the stream says that answers flow.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Progress {
    /// The client has taken bytes of an answer just now.
    pub(crate) fn made(&self) {
        *self.0.lock() = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock()
    }

    /// Returns when there has been none for `limit`, counted from now on.
    async fn none_for(&self, limit: Duration) {
        let mut since = Instant::now();
        loop {
            sleep_until(since + limit).await;
            let last = self.last();
            if last <= since {
                return;
            }
            since = last;
        }
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
        self.0.send_modify(|state| state.in_progress -= 1);
    }
}

impl Watcher {
    /// Whether a request has ever arrived.
    pub(crate) fn any(&self) -> bool {
        self.state.borrow().any
    }

    /// Returns once no request has been in progress and no byte of an answer has flowed for `limit` on end, or for
    /// `first` if there was no request yet.
    pub(crate) async fn idle(&mut self, first: Duration, limit: Duration) {
        loop {
            if self.state.wait_for(|state| state.in_progress == 0).await.is_err() {
                // The connection is gone, and whoever waits here with it.
                return std::future::pending().await;
            }
            let limit = if self.any() { limit } else { first };
            tokio::select! {
                () = self.progress.none_for(limit) => return,
                _ = self.state.changed() => {}
            }
        }
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
        let mut watcher = requests.watcher();
        let started = Instant::now();
        let traffic = async {
            sleep(Duration::from_secs(5)).await;
            let request = requests.begin();
            sleep(Duration::from_secs(100)).await;
            drop(request);
        };
        tokio::join!(traffic, watcher.idle(FIRST, LATER));
        assert!(watcher.any());
        assert_eq!(started.elapsed().as_secs(), 5 + 100 + 75);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_flow_are_no_idle_time() {
        const LIMIT: Duration = Duration::from_secs(75);
        let requests = Requests::new();
        let mut watcher = requests.watcher();
        drop(requests.begin());
        let (started, progress) = (Instant::now(), requests.progress());
        let flow = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(50)).await;
                progress.made();
            }
        };
        tokio::join!(flow, watcher.idle(LIMIT, LIMIT));
        assert_eq!(started.elapsed().as_secs(), 3 * 50 + 75);
    }
}
