//! Black-box tests: Weir between scripted upstreams and HTTP clients, and the real binary between processes.
//!
//! One module per theme; the names of the tests are what Weir promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod ahead;
mod bounded_bucket;
mod bucket_pins;
mod buckets;
mod canaries;
mod cli;
mod continuation;
mod credentials;
mod detours;
mod drift;
mod equivalents;
mod eviction;
mod faults;
mod harness;
mod health;
mod herd;
mod hits;
mod limits;
mod offline;
mod operators;
mod pins;
mod prefetch;
mod private;
mod process;
mod pulls;
mod ranges;
mod reload;
mod replicas;
mod resume;
mod rot;
mod shared_bucket;
mod store_breaker;
mod store_enumeration;
mod store_faults;
mod tls;
mod upgrades;
mod upkeep;
mod verdicts;
mod ways;
