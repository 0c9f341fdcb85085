//! Debian's docker-registry (distribution 2.8) as a pull-through cache.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::server::{Launch, find, free_address};

/// docker-registry in proxy mode, with the cache of descriptors that its documentation recommends.
pub(super) fn caching(directory: &Path, content: &Path, upstream: SocketAddr) -> Result<Launch> {
    let address = free_address()?;
    let config = json!({
        "version": 0.1,
        "log": { "level": "error", "accesslog": { "disabled": true } },
        "storage": {
            "filesystem": { "rootdirectory": content },
            "cache": { "blobdescriptor": "inmemory" },
        },
        "http": { "addr": address },
        "proxy": { "remoteurl": format!("http://{upstream}") },
    });
    let file = directory.join("config.yml");
    fs::write(&file, config.to_string())?;
    Ok(Launch {
        program: find("docker-registry").context("docker-registry is not installed")?,
        arguments: vec!["serve".into(), file],
        address,
        ready: "/v2/",
    })
}
