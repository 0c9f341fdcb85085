//! What operators see: logs and metrics.
//!
//! The room knows no other room. Metrics are structs that are passed in, never globals, and their labels come only from
//! configuration and from enums, so the number of series is bounded whatever clients ask for.

#[cfg(test)]
pub(crate) mod captured;
pub mod logging;
pub mod metrics;
pub mod occasionally;

pub use metrics::Metrics;
pub use occasionally::Occasionally;
