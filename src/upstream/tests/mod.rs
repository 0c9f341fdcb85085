//! The room against servers of its own on loopback: what is asked, what goes along, and what comes of the answers.

mod connect;
mod content;
mod encrypted;
mod failover;
mod fake;
mod families;
mod grants;
mod health;
mod identities;
mod limits;
pub(super) mod names;
mod parts;
mod proxies;
mod quirks;
mod redirects;
mod renewal;
mod routes;
mod secure;
mod ssrf;
mod tokens;
mod unanswered;
mod verdicts;
