//! The identity in use, and how it is replaced while connections are open.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use url::Url;

use super::error::TlsError;
use super::identity::Identity;
use crate::app::watch::Watch;
use crate::config::{self, TlsConfig};
use crate::telemetry::metrics::TlsMetrics;

/// The label of the server's own certificate.
const SERVER: &str = "server";
/// How long the files must stand still before they are read: certificate and key are rarely replaced at once, and the
/// one does not belong to the other in between.
const SETTLED: Duration = Duration::from_secs(1);

/// What new connections are encrypted with. Connections that are open keep what they began with.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: TlsConfig,
    external_url: Option<Url>,
    current: RwLock<Arc<Identity>>,
    /// Why the last attempt to replace it was in vain.
    trouble: RwLock<Option<String>>,
    metrics: TlsMetrics,
}

/// What reading the files again came to.
#[derive(Debug)]
pub(crate) enum Reload {
    /// They hold what they held.
    Unchanged,
    /// New connections get what is in them now.
    Replaced,
    /// What is in them cannot be used; everything stays as it was.
    Kept(TlsError),
}

impl Certificates {
    /// Reads the files of `server.tls`. `None` if there is no such key.
    pub(crate) fn load(config: &config::ServerConfig, metrics: TlsMetrics) -> Result<Option<Self>, TlsError> {
        let Some(files) = config.tls.clone() else { return Ok(None) };
        let identity = Identity::load(&files)?;
        let external_url = config.external_url.clone();
        let current = RwLock::new(Arc::new(identity));
        let certificates = Self { files, external_url, current, trouble: RwLock::new(None), metrics };
        certificates.announce();
        Ok(Some(certificates))
    }

    /// Reads the files again whenever they change, for as long as it is polled.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut watch = Watch::since(self.identity().digests(&self.files));
        loop {
            watch.changed().await;
            while timeout(SETTLED, watch.changed()).await.is_ok() {}
            let certificates = Arc::clone(&self);
            if let Err(error) = spawn_blocking(move || certificates.reload()).await {
                tracing::error!(%error, "The certificate could not be read again");
            }
        }
    }

    /// Reads the files again. It reads from disk, so it belongs on a thread that may wait.
    pub(crate) fn reload(&self) -> Reload {
        let outcome = match self.identity().load_if_changed(&self.files) {
            Ok(None) => Reload::Unchanged,
            Ok(Some(identity)) => {
                *self.current.write() = Arc::new(identity);
                Reload::Replaced
            }
            Err(error) => Reload::Kept(error),
        };
        let count = |outcome: &str| self.metrics.certificate_reloads.with_label_values(&[outcome]).inc();
        *self.trouble.write() = match &outcome {
            Reload::Unchanged => None,
            Reload::Replaced => {
                count("ok");
                tracing::info!(expires = self.identity().expires, "New connections get the new certificate");
                self.announce();
                None
            }
            Reload::Kept(error) => {
                count("error");
                tracing::error!(%error, "The new certificate cannot be used, going on with the one in use");
                Some(format!("the new certificate cannot be used: {error}"))
            }
        };
        outcome
    }

    /// What a handshake that begins now works with.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().server)
    }

    pub(super) const fn metrics(&self) -> &TlsMetrics {
        &self.metrics
    }

    /// What operators should know, for the probes.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.read().clone();
        trouble.or_else(|| self.identity().has_expired().then(|| "the certificate has expired".to_owned()))
    }

    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.current.read())
    }

    /// Says what is remarkable about the identity in use.
    fn announce(&self) {
        let identity = self.identity();
        let expires = i64::try_from(identity.expires).unwrap_or(i64::MAX);
        self.metrics.certificate_expiry.with_label_values(&[SERVER]).set(expires);
        for warning in identity.warnings(self.external_url.as_ref()) {
            tracing::warn!("{warning}");
        }
    }
}
