//! Weir as its users run it, but for the log: see [`Log`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use super::server::{Launch, free_address};

/// What it logs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Log {
    /// No line per request, as the others.
    Warnings,
    /// As by default: a line per request.
    Default,
}

/// Weir with one registry, whose only upstream this is. All else is as by default.
pub(super) fn caching(directory: &Path, content: &Path, upstream: SocketAddr, log: Log) -> Result<Launch> {
    let address = free_address()?;
    let mut config = json!({
        "server": { "listen": address, "default_registry": "registry.test" },
        "admin": { "listen": free_address()? },
        "store": { "path": content },
        "builtin_registries": false,
        "registries": { "registry.test": { "upstreams": [{ "url": format!("http://{upstream}"), "allow_private": true }] } },
    });
    if matches!(log, Log::Warnings) {
        config["log"] = json!({ "level": "warn" });
    }
    let file = directory.join("weir.yaml");
    fs::write(&file, config.to_string())?;
    Ok(Launch { program: binary(), arguments: vec!["serve".into(), "-c".into(), file], address, ready: "/v2/" })
}

/// The binary that `WEIR_TEST_BINARY` names, or the one Cargo built with this.
fn binary() -> PathBuf {
    std::env::var_os("WEIR_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_weir").into(), PathBuf::from)
}
