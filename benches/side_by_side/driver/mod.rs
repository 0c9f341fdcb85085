//! The load: HTTP/1.1 with keep-alive, cheap enough that the servers, not this, are the limit.
//!
//! Requests are built before the clock starts; of an answer only the status and the length are read, and the kernel
//! throws the body away (`MSG_TRUNC`) instead of copying it to us. Every answer is checked for its status and its
//! length. Hashing is not done here but in passes that are not timed: see [`client`].
//!
//! It is no general client: no chunked bodies, no pipelining, no TLS.

pub(crate) mod client;
mod connection;
mod head;
mod histogram;
mod load;
mod request;

pub(crate) use client::{Answer, Client};
pub(crate) use histogram::Histogram;
pub(crate) use load::{Failures, Load, Order, Outcome, Until};
pub(crate) use request::Request;
