//! Another configuration while serving: taken over as a whole, or not at all.
//!
//! Everything that may fail is prepared first; putting it in place cannot fail. Requests and downloads in progress end
//! with what they began with, and no connection is closed. What upstreams, tokens, tags and manifests are known stays
//! known where the upstream is the same.
//!
//! Reading order: `follow` notices that there is another configuration and reads it, [`Reloader`] takes it over,
//! `fixed` knows what has to wait for a restart, `status` says how it went.

mod fixed;
mod follow;
mod status;

use tokio::sync::watch::Sender;

use crate::api::Surface;
use crate::app::build::{Adjustable, mapping};
use crate::app::connection::Limits;
use crate::app::descriptors;
use crate::app::places::Places;
use crate::config::{Config, ConfigError};
use crate::store::StoreError;
use crate::telemetry::logging::{self, LoggingError};
use crate::upstream::SetupError;

pub use follow::Origin;
pub(super) use follow::follow;
pub(super) use status::Status;

/// Why a configuration is not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// There is none, or it is not valid.
    #[error("{}", .0.in_one_line())]
    Config(#[from] ConfigError),
    /// An upstream cannot be set up.
    #[error(transparent)]
    Upstream(#[from] SetupError),
    /// The file system of the store cannot be measured, so shares of it mean nothing.
    #[error("The bounds of the store cannot be set: {0}")]
    Store(#[from] StoreError),
    /// The log filter does not parse.
    #[error(transparent)]
    Logging(#[from] LoggingError),
}

/// Takes over configurations.
#[derive(Debug)]
pub(super) struct Reloader {
    in_force: Config,
    parts: Adjustable,
    places: Places,
    limits: Sender<Limits>,
    log: Option<logging::Output>,
}

impl Reloader {
    /// `in_force` is what the server was started with.
    pub(super) const fn new(in_force: Config, parts: Adjustable, places: Places, limits: Sender<Limits>) -> Self {
        Self { in_force, parts, places, limits, log: None }
    }

    /// Lets the log follow the configuration, too.
    pub(super) fn with_log(mut self, log: logging::Output) -> Self {
        self.log = Some(log);
        self
    }

    /// Takes `config` over, and tells which of its keys wait for a restart: their values in force stay. After an error
    /// nothing has changed.
    pub(super) async fn take_over(&mut self, mut config: Config) -> Result<Vec<&'static str>, ReloadError> {
        let held = fixed::hold(&mut config, &self.in_force);

        let pull = self.parts.pull.renewed(&config.registries, config.tags.clone())?;
        let store = self.parts.store.measure(&config.store).await?;
        let sendfile = self.sends_files(&config).await;
        let form = super::form(&config.log);
        let log = self.log.as_ref().map(|log| Ok::<_, LoggingError>((log, log.exchange(&config.log.level, form)?)));
        let log = log.transpose()?;

        // From here on nothing fails.
        // Metrics tell of the new upstreams before these are asked, and of the old ones no more.
        pull.enter_into_force();
        self.parts.api.replace(Surface { pull: pull.clone(), mapping: mapping(&config) });
        self.parts.pull = pull;
        self.parts.store.adjust(&store);
        self.parts.guard.set(config.admin.token.as_ref());
        if config.server.max_connections != self.in_force.server.max_connections {
            self.places.set(descriptors::affordable_connections(config.server.max_connections));
        }
        self.limits.send_modify(|limits| {
            limits.drain = config.server.drain_timeout;
            limits.sendfile = sendfile;
        });
        if let Some((log, exchange)) = log {
            log.apply(exchange);
        }
        self.in_force = config;
        Ok(held)
    }

    /// Whether it works here is found out once.
    async fn sends_files(&self, config: &Config) -> bool {
        if config.server.sendfile == self.in_force.server.sendfile {
            return self.limits.borrow().sendfile;
        }
        super::sends_files(config).await
    }
}
