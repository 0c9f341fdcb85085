//! Tests with the real parts: Debian's `docker-registry` as upstream, containerd, Skopeo and Podman as clients, and S3
//! servers.
//!
//! They need root and those programs, so `cargo test` leaves them out and `./test` runs them by
//! `cargo test --test real`. Everything they start listens on loopback and lives in directories of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod bounded;
mod clients;
mod containerd;
mod disk;
mod failover;
mod jwt;
mod parts;
mod podman;
mod protected;
mod proxy_mode;
mod registry;
mod s3;
mod schema;
mod setup;
mod skopeo;
mod tls;
