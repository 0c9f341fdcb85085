//! The accept loop under the tests' own HTTP servers.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A body that may break.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A server. When it is dropped, the listener and all connections end soon.
#[derive(Debug)]
pub(crate) struct Serving {
    guard: DropGuard,
    tasks: TaskTracker,
}

impl Serving {
    /// Ends the listener and all connections, and returns when they are gone: nothing is answered after that.
    pub(crate) async fn end(self) {
        drop(self.guard);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Answers requests by `answer`.
pub(crate) fn serve<A, F>(listener: TcpListener, answer: A) -> Serving
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let token = CancellationToken::new();
    let stop = token.clone();
    let answer = Arc::new(answer);
    let tasks = TaskTracker::new();
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            // A paused clock does not wait for what the system holds back to send it with more.
            let _ = stream.set_nodelay(true);
            let (stop, answer) = (stop.clone(), Arc::clone(&answer));
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                tokio::select! {
                    () = stop.cancelled() => {}
                    // A broken connection is what tests are for.
                    _ = server.serve_connection(TokioIo::new(stream), service) => {}
                }
            });
        }
    });
    Serving { guard: token.drop_guard(), tasks }
}
