//! The operators' API over a store that no server uses, for as long as a command needs it.
//!
//! It takes the lock of the directory, so no server can start over it meanwhile. No registry is served: only the admin
//! surface listens, on a port of its own of this machine, and only for who has the token. Nothing is done that was not
//! asked for: who only looks finds the store afterwards as it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use prometheus::IntGauge;
use tokio::sync::watch::Sender;
use tokio_util::task::TaskTracker;

use crate::admin::Phase;
use crate::app::accept::{self, Security};
use crate::app::build::build;
use crate::app::connection::Limits;
use crate::app::places::Places;
use crate::app::reload::Status;
use crate::app::shutdown::Drain;
use crate::app::{ADMIN_CONNECTIONS, bind};
use crate::config::{Config, Secret};
use crate::store::disk::DiskFiles;
use crate::store::{Initiative, Store};

/// How long is waited for what is being stored.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// A store that is worked on without a server.
#[derive(Debug)]
pub struct Offline {
    address: SocketAddr,
    admin: Drain,
    background: TaskTracker,
    store: Store,
    _limits: Sender<Limits>,
}

impl Offline {
    /// Takes over the store of `config` for who shows `token`.
    pub async fn open(mut config: Config, token: Secret) -> anyhow::Result<Self> {
        let path = &config.store.path;
        ensure!(path.is_dir(), "There is no directory {}, which `store.path` names", path.display());
        // Nothing is served, so nothing is encrypted.
        config.server.tls = None;
        config.admin.token = Some(token);
        let (parts, adjustable) = build(&config, Arc::new(DiskFiles), &Status::default(), Initiative::None)
            .await
            .context("Cannot work on the store here; if a server uses it, leave out `--offline` to ask that")?;
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), "--offline").await?;
        let (address, admin) = (listener.local_addr()?, Drain::default());
        let limits = Sender::new(Limits { connections: ADMIN_CONNECTIONS, ..Limits::default() });
        let uncounted = IntGauge::new("admin_connections", "Not exported")?;
        let places = Places::new(ADMIN_CONNECTIONS);
        let (followed, drain) = (limits.subscribe(), admin.clone());
        admin.spawn(accept::accept(listener, Security::Plain, parts.admin, followed, places, drain, uncounted));
        parts.lifecycle.enter(Phase::Serving);
        Ok(Self { address, admin, background: parts.background, store: adjustable.store, _limits: limits })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for what is being stored, and ends.
    pub async fn close(self) {
        self.admin.begin();
        self.admin.finish_within(PATIENCE, &self.background).await;
        self.store.close().await;
    }
}
