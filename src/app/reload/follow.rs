//! Notices that there is another configuration: a file has changed, or SIGHUP says so.

use std::fmt;
use std::path::PathBuf;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;

use super::{ReloadError, Reloader, Status};
use crate::app::watch::Watch;
use crate::config::{FilesRead, LoadOptions, Loaded};
use crate::telemetry::logging;
use crate::telemetry::metrics::ConfigMetrics;

/// Where the configuration at start came from, so that it can be read again.
#[derive(Debug)]
pub struct Origin {
    /// Which files and which environment.
    pub options: LoadOptions,
    /// What was read.
    pub files: FilesRead,
    /// The hash of the configuration.
    pub hash: String,
    /// The log, which follows the configuration.
    pub log: logging::Output,
}

/// Why the configuration is read again.
#[derive(Debug)]
enum Reason {
    Changed(Vec<PathBuf>),
    Signal,
}

/// Takes over every valid configuration that comes from `origin`, for as long as the process lives.
///
/// The files that the configuration names are watched like those it stands in: a password or a certificate that is
/// replaced takes effect. The files are those of the start, and the environment is that of the start.
pub(in crate::app) fn follow(
    origin: Origin,
    reloader: Reloader,
    hangups: Signal,
    status: Status,
    metrics: ConfigMetrics,
) -> impl Future<Output = ()> + Send {
    // At once, so that the metrics tell of the configuration before anybody can ask.
    status.taken(Vec::new(), &origin.hash, &metrics);
    follow_from(origin, reloader, hangups, status, metrics)
}

async fn follow_from(origin: Origin, reloader: Reloader, mut hangups: Signal, status: Status, metrics: ConfigMetrics) {
    let Origin { options, files, hash: _, log } = origin;
    let mut reloader = reloader.with_log(log);
    let mut watch = Watch::since(files);
    loop {
        let reason = tokio::select! {
            changed = watch.changed() => Reason::Changed(changed),
            Some(()) = hangups.recv() => Reason::Signal,
        };
        tracing::info!(reason = %reason, "Reading the configuration again");
        let again = options.clone();
        let Ok(Loaded { config, files, hash }) = spawn_blocking(move || again.load_again()).await else {
            // The process is ending.
            return;
        };
        watch.renew(files);
        let taken = match config {
            Ok(config) => {
                let warnings = config.warnings.clone();
                reloader.take_over(config).await.map(|held| (held, warnings))
            }
            Err(error) => Err(ReloadError::from(error)),
        };
        let outcome = match taken {
            Ok((held, warnings)) => {
                tracing::info!(hash, "The configuration is in force");
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                if !held.is_empty() {
                    tracing::warn!(keys = held.join(", "), "These keys keep their values until weir is started anew");
                }
                status.taken(held, &hash, &metrics);
                "ok"
            }
            Err(error) => {
                tracing::error!(%error, "The configuration is refused, the previous one stays in force");
                status.refused(error.to_string());
                "error"
            }
        };
        // Last, so that whoever has seen the count finds everything else as it says.
        metrics.reloads.with_label_values(&[outcome]).inc();
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(files) => {
                let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                write!(f, "{} changed", files.join(", "))
            }
            Self::Signal => f.write_str("SIGHUP"),
        }
    }
}
