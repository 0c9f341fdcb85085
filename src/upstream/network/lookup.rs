//! The seam to the system's name resolution. Tests put a script in its place.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

/// What a name is found to mean.
pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Finds the addresses of names.
pub(crate) trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// The addresses of `name`, of both families, in the order in which they are to be tried.
    fn lookup(&self, name: &str) -> Found;
}

/// Asks the system: hosts file, name servers, in the order of its configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct System;

impl Lookup for System {
    fn lookup(&self, name: &str) -> Found {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address: SocketAddr| address.ip()).collect())
        })
    }
}
