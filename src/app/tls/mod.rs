//! TLS on the registry listener: what the server shows its clients, and the handshake that shows it.
//!
//! The room turns files into an [`identity`], keeps the current one in [`certificates`], and turns a socket into an
//! encrypted stream in [`handshake`]. What travels on the stream afterwards is none of its business: a connection over
//! TLS is served like any other.
//!
//! Its invariant: there is always an identity that clients were or could have been served with. Files that cannot be
//! used keep the server from starting, and later change nothing.

pub(super) mod certificates;
pub(super) mod handshake;

mod error;
mod identity;
#[cfg(test)]
pub(super) mod tests;
mod validity;

pub use error::TlsError;

pub(super) use certificates::Certificates;
pub(super) use handshake::Terminator;

use crate::config::ServerConfig;
use identity::Identity;

/// Whether the files of `server.tls` can be used, and what may well be a mistake in them. Nothing is wrong with none.
pub fn check(config: &ServerConfig) -> Result<Vec<String>, TlsError> {
    let Some(files) = &config.tls else { return Ok(Vec::new()) };
    Ok(Identity::load(files)?.warnings(config.external_url.as_ref()))
}
