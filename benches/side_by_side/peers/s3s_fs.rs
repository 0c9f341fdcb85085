//! s3s-fs: a server that speaks S3 and keeps its objects in files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::server::{Launch, find, free_address};

/// The two halves of the key, which are the same.
const KEY: &str = "testkey";
/// The only bucket.
const BUCKET: &str = "images";

/// The server with one empty bucket below `content`.
pub(super) fn serving(content: &Path) -> Result<Launch> {
    fs::create_dir_all(content.join(BUCKET))?;
    let address = free_address()?;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let key = ["--access-key", KEY, "--secret-key", KEY];
    let arguments = key.into_iter().chain(["--host", &host, "--port", &port]).map(PathBuf::from);
    Ok(Launch {
        program: find("s3s-fs").context("s3s-fs is not installed")?,
        arguments: arguments.chain([content.to_owned()]).collect(),
        address,
        ready: "/",
    })
}

/// `store.s3` for it. The files of the key are written to `directory`.
pub(crate) fn config(address: SocketAddr, directory: &Path) -> Result<Value> {
    let file = directory.join("s3-key");
    fs::write(&file, KEY)?;
    Ok(json!({
        "bucket": BUCKET,
        "endpoint": format!("http://{address}"),
        "access_key_id_file": file,
        "secret_access_key_file": file,
    }))
}

/// Where it keeps the object with this key.
pub(crate) fn object(content: &Path, key: &str) -> PathBuf {
    content.join(BUCKET).join(key)
}
