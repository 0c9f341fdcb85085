//! How bytes travel: names, addresses, proxies, certificates, and the clients that hold connections.
//!
//! Every request of an upstream goes through a [`Dialer`], and [`Transport::to`] is the only way to one: it asks who
//! named the address. What the operator named is dialled wherever it is, with the certificate that is for it. What an
//! upstream named is dialled on public addresses only, without that certificate, and has to prove who it is. The
//! second kind has a client of its own, so no code path can forget the guard, and no connection of one is reused by the
//! other.
//!
//! The one invariant: nothing that an upstream says, and no answer of a name server, decides more than where on the
//! public internet a request without credentials goes.
//!
//! Reading order: `transport`, then what it is made of: `proxy`, `certificate`, `resolver` over `names` over `lookup`,
//! `dial`. `failure` puts into words what went wrong, `pseudonym` tells our own requests when they come back.

mod certificate;
mod dial;
mod failure;
mod lookup;
mod names;
mod proxy;
mod pseudonym;
mod resolver;
mod transport;

pub(crate) use failure::{is_reset, printable, root_cause};
pub use pseudonym::Pseudonym;
pub(crate) use transport::{Dialer, NamedBy, Transport, Transports};
#[cfg(test)]
pub(crate) use {
    lookup::{Found, Lookup},
    proxy::ProxyEnvironment,
    transport::Surroundings,
};
