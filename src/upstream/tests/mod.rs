//! The room against servers of its own on loopback: what is asked, what goes along, and what comes of the answers.

mod content;
mod failover;
mod fake;
mod grants;
mod identities;
mod parts;
mod quirks;
mod redirects;
mod renewal;
mod routes;
mod tokens;
mod unanswered;
mod verdicts;
