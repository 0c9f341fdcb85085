//! Weir: a pull-through caching registry proxy for OCI images.
//!
//! A weir is a low dam: it keeps a pool, lets the stream run through, and the pool stays when the stream dries up. This
//! crate answers the pull half of the OCI Distribution API by asking an ordered list of upstream registries, streams
//! blobs to its clients while it stores them once, and goes on serving when an upstream is slow, limited, broken or
//! gone.
//!
//! The modules are rooms on floors; a room imports only from lower floors (`tests/architecture.rs` holds the table).
//! In reading order, from the ground up:

#![warn(missing_docs)]

pub mod oci;

pub mod config;
pub mod mapping;
pub mod sendfile;
pub mod telemetry;

pub mod store;
pub mod upstream;

pub mod pull;

pub mod admin;
pub mod api;

pub mod app;
pub mod cli;
