//! nginx, in two roles: a file server as the ceiling, and a caching proxy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use super::server::{Launch, find, free_address};

/// Whether nginx keeps descriptors of the files it serves.
#[derive(Debug, Clone, Copy)]
pub(super) enum OpenFileCache {
    /// As by default.
    Off,
    On,
}

/// nginx serving the files below `root`.
pub(super) fn serving_files(directory: &Path, root: &Path, open_files: OpenFileCache) -> Result<Launch> {
    let open_files = match open_files {
        OpenFileCache::Off => "",
        OpenFileCache::On => "open_file_cache max=10000 inactive=10m; open_file_cache_valid 1m;",
    };
    let server = format!(
        r"
        root {root};
        # Head and file in the same segments: less work for everybody.
        tcp_nopush on;
        {open_files}
        default_type application/octet-stream;
        location ~ ^/v2/.+/manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}",
        root = root.display(),
    );
    launch(directory, "", &server)
}

/// nginx as a cache in front of `upstream`: concurrent misses wait for one request, tags are good for a minute.
///
/// `tcp_nopush` is off, as by default: with it, cached blobs of 64 KiB wait 40 ms for a delayed acknowledgement.
pub(super) fn caching(directory: &Path, content: &Path, upstream: SocketAddr) -> Result<Launch> {
    let http = format!(
        r"
    proxy_cache_path {content} levels=1:2 keys_zone=registry:64m max_size=100g inactive=7d use_temp_path=off;
    upstream registry {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}",
        content = content.display(),
    );
    let server = r#"
        proxy_pass_request_body off;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_cache registry;
        proxy_cache_key $uri;
        proxy_cache_lock on;
        proxy_cache_lock_timeout 10m;
        proxy_cache_lock_age 10m;
        proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
        proxy_cache_background_update on;
        location ~ ^/v2/.+/(manifests|blobs)/sha256: { proxy_pass http://registry; proxy_cache_valid 200 7d; }
        location ~ ^/v2/.+/manifests/ { proxy_pass http://registry; proxy_cache_valid 200 60s; }"#;
    launch(directory, &http, server)
}

fn launch(directory: &Path, http: &str, server: &str) -> Result<Launch> {
    let address = free_address()?;
    // Its workers would otherwise become a user who cannot read our directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        r"
{user}
daemon off;
worker_processes 2;
worker_rlimit_nofile 65536;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 10m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {http}
    server {{
        listen {address} backlog=4096;
        location = /ready {{ return 200 'ready'; }}
        {server}
    }}
}}
",
        directory = directory.display(),
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text)?;
    Ok(Launch {
        program: find("nginx").context("nginx is not installed")?,
        arguments: vec!["-e".into(), "stderr".into(), "-p".into(), directory.to_owned(), "-c".into(), file],
        address,
        ready: "/ready",
    })
}
