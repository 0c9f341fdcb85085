//! Weir as its users run it, but for the log: see [`Difference`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::s3s_fs;
use super::server::{Launch, free_address};

/// What is not as with the others. No line per request is logged by default here, as no other server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    None,
    /// The log is as by default: a line per request.
    Log,
    /// No tag is fresh: the upstream is asked every time.
    Tags,
}

/// Weir with one registry that has these upstreams, each of which may be asked for anything. All else is as by default.
pub(super) fn caching(
    directory: &Path,
    content: &Path,
    upstreams: &[SocketAddr],
    difference: Difference,
) -> Result<Launch> {
    let mut config = config(content, upstreams)?;
    if difference != Difference::Log {
        config["log"] = json!({ "level": "warn" });
    }
    if difference == Difference::Tags {
        config["tags"] = json!({ "fresh": 0 });
    }
    launch(directory, &config)
}

/// Weir with a store in the bucket of the server at `bucket`, and one upstream. All else is as by default.
pub(super) fn with_bucket(
    directory: &Path,
    content: &Path,
    upstream: SocketAddr,
    bucket: SocketAddr,
) -> Result<Launch> {
    let mut config = config(content, &[upstream])?;
    config["log"] = json!({ "level": "warn" });
    config["store"]["kind"] = json!("s3");
    config["store"]["s3"] = s3s_fs::config(bucket, directory)?;
    launch(directory, &config)
}

fn config(content: &Path, upstreams: &[SocketAddr]) -> Result<Value> {
    let upstream = |address: &SocketAddr| {
        let url = format!("http://{address}");
        json!({ "url": url, "capabilities": ["pull", "resolve"], "allow_private": true })
    };
    Ok(json!({
        "server": { "listen": free_address()?, "default_registry": "registry.test" },
        "admin": { "listen": free_address()? },
        "store": { "path": content, "keep_free": 0 },
        "builtin_registries": false,
        "registries": { "registry.test": { "upstreams": upstreams.iter().map(upstream).collect::<Vec<_>>() } },
    }))
}

fn launch(directory: &Path, config: &Value) -> Result<Launch> {
    let address = config["server"]["listen"].as_str().context("It listens somewhere")?.parse()?;
    let file = directory.join("weir.yaml");
    fs::write(&file, config.to_string())?;
    Ok(Launch { program: binary(), arguments: vec!["serve".into(), "-c".into(), file], address, ready: "/v2/" })
}

/// The binary that `WEIR_TEST_BINARY` names, or the one Cargo built with this.
fn binary() -> PathBuf {
    std::env::var_os("WEIR_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_weir").into(), PathBuf::from)
}
