//! Weir beside its peers, on the same machine, in the same run: see `benches/README.md`.
//!
//! The rounds of all peers are interleaved, so that whatever else the machine does meets all of them; read the ratios,
//! not the absolute numbers. Counts (upstream requests, bytes, failures) and memory are asserted in the smoke form,
//! times never.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program reports on its output")]

mod command;
mod content;
mod driver;
mod measure;
mod peers;
mod registry;
mod report;
mod run;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use command::Command;

fn main() -> Result<ExitCode> {
    run::run(&Command::parse())
}
