//! The process: everything is built here from the configuration, and ends here.
//!
//! The room wires; it decides nothing about pulls. It owns the accept loop and the connections, so that time-outs, the
//! cap and the drain hold for every answer, and it alone knows how the parts are put together.
//!
//! Reading order: [`start`], then `accept`, `tls` and `connection`, then `reload` with `watch`, then `shutdown`.

mod accept;
mod build;
mod busy;
mod connection;
mod descriptors;
mod offline;
mod places;
mod reload;
mod self_check;
mod served;
mod shutdown;
mod stream;
mod tls;
mod watch;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::IntGauge;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::admin::{Lifecycle, Phase};
use crate::config::{Config, LogConfig, LogFormat, SendFile};
use crate::store::disk::DiskFiles;
use crate::store::{self, Files, Initiative};
use crate::telemetry::logging;
use crate::telemetry::metrics::ConfigMetrics;

pub use connection::Limits;
pub use offline::Offline;
pub use reload::Origin;
pub use shutdown::Drained;
pub use tls::{TlsError, check as check_tls};

use accept::Security;
use build::{Parts, build};
use places::Places;
use reload::{Reloader, Status, follow};
use shutdown::{Drain, Signals};
use tls::Terminator;

/// Connections of probes and scrapers. Few, and apart from the registry's: they get through when those are used up.
const ADMIN_CONNECTIONS: usize = 64;
/// How long answers of the admin listener may go on once everything else has ended.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
/// How long a thread that has waited for the disk waits for more of that. They come by the dozen with a storm of pulls,
/// take some 60 KiB each, and have their turns one after the other: in the ten seconds of the default a few reads in each
/// of them keep them all.
const IDLE_THREAD: Duration = Duration::from_secs(1);

/// How long the disk may take to end what it was asked for.
const CLOSING: Duration = Duration::from_secs(5);

/// A server that listens.
///
/// Dropping it breaks everything off at once; [`Running::shutdown`] and [`Running::wait`] end it in good order.
#[derive(Debug)]
pub struct Running {
    registry_addr: SocketAddr,
    admin_addr: SocketAddr,
    lifecycle: Lifecycle,
    registry: Drain,
    admin: Drain,
    places: Places,
    limits: Sender<Limits>,
    metrics: ConfigMetrics,
    ended: JoinHandle<Drained>,
}

/// Builds everything from `config` and listens.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    start_with(config, Arc::new(DiskFiles)).await
}

/// The same over another file system, which is how tests make the store fail.
pub async fn start_with(config: Config, files: Arc<dyn Files>) -> anyhow::Result<Running> {
    start_reloadable(config, files, &Status::default()).await.map(|(running, _)| running)
}

/// The same, with the means to take over other configurations. How that goes is shown as `status`.
async fn start_reloadable(
    config: Config,
    files: Arc<dyn Files>,
    status: &Status,
) -> anyhow::Result<(Running, Reloader)> {
    let (parts, adjustable) = build(&config, files, status, Initiative::Own).await?;
    let connections = descriptors::affordable_connections(config.server.max_connections);
    let sendfile = sends_files(&config).await;
    let limits = Limits { connections, drain: config.server.drain_timeout, sendfile, ..Limits::default() };
    let registry = bind(config.server.listen, "server.listen").await?;
    let admin = bind(config.admin.listen, "admin.listen").await?;
    let running = serve(registry, admin, parts, limits)?;
    let reloader = Reloader::new(config, adjustable, running.places.clone(), running.limits.clone());
    Ok((running, reloader))
}

/// Runs the server until a signal ends it; `started` is called when it listens. Every other configuration that comes
/// from `origin` is taken over.
///
/// The first SIGTERM or SIGINT begins the drain, and the process ends with 0 when that is over, on time or not. A
/// second one ends it at once, with the code shells give to a process ended by that signal: 143 or 130.
pub fn run(config: Config, origin: Origin, started: impl FnOnce(&Running)) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_keep_alive(IDLE_THREAD).build().context("Cannot start threads")?;
    let code = runtime.block_on(async {
        let mut signals = Signals::listen().context("Cannot listen for signals")?;
        let hangups = signal(SignalKind::hangup()).context("Cannot listen for signals")?;
        let status = Status::default();
        let (running, reloader) = start_reloadable(config, Arc::new(DiskFiles), &status).await?;
        tokio::spawn(follow(origin, reloader, hangups, status, running.metrics.clone()));
        started(&running);
        let first = signals.next().await;
        tracing::info!(signal = first.as_str(), "Draining: no new connections, answers in progress are finished");
        running.shutdown();
        tokio::select! {
            drained = running.wait() => {
                tracing::info!(complete = drained == Drained::Complete, "Drained");
                Ok(ExitCode::SUCCESS)
            }
            second = signals.next() => {
                tracing::warn!(signal = second.as_str(), "Second signal, ending at once");
                Ok(ExitCode::from(second.exit_code()))
            }
        }
    });
    // A file operation that hangs on a dead disk must not keep the process.
    runtime.shutdown_background();
    code
}

/// Sets logging up as configured.
pub fn init_logging(config: &LogConfig) -> Result<logging::Output, logging::LoggingError> {
    logging::init(&config.level, form(config))
}

const fn form(config: &LogConfig) -> logging::Form {
    match config.format {
        LogFormat::Auto => logging::Form::Auto,
        LogFormat::Text => logging::Form::Text,
        LogFormat::Json => logging::Form::Json,
    }
}

fn serve(
    registry_listener: TcpListener,
    admin_listener: TcpListener,
    parts: Parts,
    limits: Limits,
) -> anyhow::Result<Running> {
    let admin_limits = Limits { connections: ADMIN_CONNECTIONS, ..limits };
    let (registry_addr, admin_addr) = (registry_listener.local_addr()?, admin_listener.local_addr()?);
    let (registry, admin) = (Drain::default(), Drain::default());
    let (places, admin_places) = (Places::new(limits.connections), Places::new(admin_limits.connections));
    let (limits, admin_limits, handshake) = (Sender::new(limits), Sender::new(admin_limits), limits.handshake);
    let uncounted = IntGauge::new("admin_connections", "Not exported")?;
    admin.spawn(accept::accept(
        admin_listener,
        Security::Plain,
        parts.admin,
        admin_limits.subscribe(),
        admin_places,
        admin.clone(),
        uncounted,
    ));
    let open = parts.metrics.http.connections.clone();
    let security = parts.certificates.map_or(Security::Plain, |certificates| {
        let (drain, follow) = (registry.clone(), Arc::clone(&certificates).follow());
        registry.spawn(async move {
            tokio::select! {
                () = follow => {}
                () = drain.begun() => {}
            }
        });
        Security::Tls(Arc::new(Terminator::new(certificates, handshake)))
    });
    for work in parts.beside {
        let drain = registry.clone();
        registry.spawn(async move {
            tokio::select! {
                () = work => {}
                () = drain.begun() => {}
            }
        });
    }
    registry.spawn(accept::accept(
        registry_listener,
        security,
        parts.registry,
        limits.subscribe(),
        places.clone(),
        registry.clone(),
        open,
    ));
    parts.lifecycle.enter(Phase::Serving);

    let ended = tokio::spawn({
        let (registry, admin, limits) = (registry.clone(), admin.clone(), limits.clone());
        async move {
            registry.begun().await;
            let limit = limits.borrow().drain;
            let drained = registry.finish_within(limit, &parts.background).await;
            // Last, so that probes see the drain to its end.
            admin.begin();
            admin.finish_within(ADMIN_DRAIN, &TaskTracker::new()).await;
            if timeout(CLOSING, parts.closing).await.is_err() {
                tracing::warn!("The disk hangs, and the store is left as it is");
            }
            drained
        }
    });
    let (lifecycle, metrics) = (parts.lifecycle, parts.metrics.config);
    Ok(Running { registry_addr, admin_addr, lifecycle, registry, admin, places, limits, metrics, ended })
}

/// Whether connections send files: as configured, and only if it works here.
async fn sends_files(config: &Config) -> bool {
    match config.server.sendfile {
        SendFile::Off => false,
        SendFile::Auto => match self_check::files_can_be_sent(&store::scratch(&config.store)).await {
            Ok(()) => true,
            Err(reason) => {
                tracing::warn!(reason, "Files cannot be sent by the system here; they are read and written instead");
                false
            }
        },
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("Cannot listen on {address} ({key})"))
}

impl Running {
    /// Where the registry is served.
    pub const fn registry_addr(&self) -> SocketAddr {
        self.registry_addr
    }

    /// Where metrics and probes are served.
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Begins the drain: readiness fails at once, the registry's listener closes, answers in progress go on.
    pub fn shutdown(&self) {
        self.lifecycle.enter(Phase::Draining);
        self.registry.begin();
    }

    /// Returns when the server has ended, which it does after [`Running::shutdown`].
    pub async fn wait(mut self) -> Drained {
        // The task neither panics nor is it aborted; if it did, nothing would be left to wait for.
        (&mut self.ended).await.unwrap_or(Drained::TimedOut)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.registry.abort();
        self.admin.abort();
    }
}

#[cfg(test)]
mod tests;
