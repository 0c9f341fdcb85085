//! The way out: begin to drain, finish what is in progress, and no later than the time-out break off the rest.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The drain of one listener and its connections. Clones share one state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    begun: CancellationToken,
    aborted: CancellationToken,
    /// The accept loop and a task for each connection.
    tasks: TaskTracker,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything in progress was finished.
    Complete,
    /// The time was up; the rest was broken off.
    TimedOut,
}

impl Drain {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// No new connections from now on; those that are open close after the answers in progress.
    pub(crate) fn begin(&self) {
        self.begun.cancel();
    }

    /// Breaks off whatever is left.
    pub(crate) fn abort(&self) {
        self.begun.cancel();
        self.aborted.cancel();
    }

    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Cancelled when what is left is broken off.
    pub(crate) const fn cutoff(&self) -> &CancellationToken {
        &self.aborted
    }

    pub(crate) async fn aborted(&self) {
        self.aborted.cancelled().await;
    }

    /// Returns when the listener is closed and the last connection is gone.
    pub(crate) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits for the connections and for `background` (the downloads that outlive their clients), together no longer
    /// than `limit`; then breaks the connections off.
    pub(crate) async fn finish_within(&self, limit: Duration, background: &TaskTracker) -> Drained {
        background.close();
        let everything = async {
            self.finished().await;
            background.wait().await;
        };
        if timeout(limit, everything).await.is_ok() {
            return Drained::Complete;
        }
        tracing::warn!(
            connections = self.tasks.len(),
            downloads = background.len(),
            "The drain time-out is up, breaking off what is left"
        );
        self.abort();
        self.finished().await;
        Drained::TimedOut
    }
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    Terminate,
    Interrupt,
}

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(crate) async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.terminate.recv() => StopSignal::Terminate,
            _ = self.interrupt.recv() => StopSignal::Interrupt,
        }
    }
}

impl StopSignal {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// The exit code that shells give a process ended by this signal.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 128 + 15,
            Self::Interrupt => 128 + 2,
        }
    }
}
