//! Weir in this process, on free ports, with a store of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir::app::Running;
use weir::config::Config;
use weir::oci::{Algorithm, Digest, Hasher};

use super::faulty_files::FaultyFiles;
use super::images::Package;
use super::upstream::ScriptedUpstream;
use super::{eventually, within};

/// The registry that most tests pull from.
pub(crate) const REGISTRY: &str = "up.test";

/// A running Weir. Dropping it begins its shutdown and removes its store.
#[derive(Debug)]
pub(crate) struct TestWeir {
    running: Option<Running>,
    registry: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    config: Value,
    store: TempDir,
}

/// An answer that has been read to the end, or to where it broke.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// The beginning of the body: all of it, for documents and manifests.
    pub(crate) start: Vec<u8>,
    /// Whether the body ended as announced.
    pub(crate) complete: bool,
}

/// How much of a body [`Answer::start`] keeps: more than the largest manifest.
const START: usize = 5 << 20;

impl TestWeir {
    /// Weir with one registry, [`REGISTRY`], in front of `upstream`.
    pub(crate) async fn before(upstream: &ScriptedUpstream) -> Self {
        Self::before_with(upstream, json!({})).await
    }

    /// The same, with more configuration merged in.
    pub(crate) async fn before_with(upstream: &ScriptedUpstream, more: Value) -> Self {
        let mut config = json!({ "registries": { REGISTRY: registry(&[upstream]) } });
        merge(&mut config, more);
        Self::start(config).await
    }

    /// Weir with this configuration; listeners and store are filled in.
    pub(crate) async fn start(config: Value) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory for the store"), config).await
    }

    /// Weir over a store that exists.
    pub(crate) async fn start_in(store: TempDir, more: Value) -> Self {
        let config = config_for(store.path(), more);
        let parsed = Config::from_yaml(&config.to_string())
            .unwrap_or_else(|error| panic!("the configuration of a test: {error}"));
        let running = weir::app::start(parsed).await.unwrap_or_else(|error| panic!("Weir must start: {error:?}"));
        Self::around(running, store, config)
    }

    /// Weir over a store on `files`, a disk of the test's own.
    pub(crate) async fn start_on(files: Arc<FaultyFiles>, store: TempDir, more: Value) -> Self {
        let config = config_for(store.path(), more);
        let parsed = Config::from_yaml(&config.to_string())
            .unwrap_or_else(|error| panic!("the configuration of a test: {error}"));
        let running = weir::app::start_with(parsed, files).await;
        Self::around(running.unwrap_or_else(|error| panic!("Weir must start: {error:?}")), store, config)
    }

    /// Takes over a Weir that was started by other means.
    pub(crate) fn around(running: Running, store: TempDir, config: Value) -> Self {
        // One client, as one node has one runtime; no proxies, no pool limit, redirects are answers.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without surprises");
        let (registry, admin) = (running.registry_addr(), running.admin_addr());
        Self { running: Some(running), registry, admin, client, config, store }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.registry
    }

    /// The address of `path` on the registry listener.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.config["server"]["tls"].is_null() { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.registry)
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) fn store_path(&self) -> &Path {
        self.store.path()
    }

    /// Drains, ends, and starts again over the same store, perhaps with more configuration.
    pub(crate) async fn restart_with(mut self, more: Value) -> Self {
        self.drain().await;
        let mut config = std::mem::take(&mut self.config);
        merge(&mut config, more);
        let store = std::mem::replace(&mut self.store, tempfile::tempdir().expect("a directory"));
        Self::start_in(store, config).await
    }

    /// The same, on a disk of the test's own.
    pub(crate) async fn restart_on(mut self, files: Arc<FaultyFiles>) -> Self {
        self.drain().await;
        let config = std::mem::take(&mut self.config);
        let store = std::mem::replace(&mut self.store, tempfile::tempdir().expect("a directory"));
        Self::start_on(files, store, config).await
    }

    /// Begins the drain and waits for its end.
    pub(crate) async fn drain(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
            within("the end of the drain", running.wait()).await;
        }
    }

    /// Sends a request and reads the answer. An answer that is broken off at once may take its head with it.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        match within("the head of an answer", request.send()).await {
            Ok(response) => Answer::read(response).await,
            Err(error) => {
                assert!(!error.is_connect(), "Weir answers: {error:?}");
                Answer::without_head()
            }
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(path))).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send(self.client.head(self.url(path))).await
    }

    pub(crate) async fn get_with(&self, path: &str, header: (&str, &str)) -> Answer {
        self.send(self.client.get(self.url(path)).header(header.0, header.1)).await
    }

    pub(crate) async fn method(&self, method: Method, path: &str) -> Answer {
        self.send(self.client.request(method, self.url(path))).await
    }

    /// GET of a manifest of [`REGISTRY`] by path prefix.
    pub(crate) async fn manifest(&self, repository: &str, reference: impl std::fmt::Display) -> Answer {
        self.get(&manifest_path(repository, reference)).await
    }

    /// GET of a blob of [`REGISTRY`] by path prefix.
    pub(crate) async fn blob(&self, repository: &str, digest: &Digest) -> Answer {
        self.get(&blob_path(repository, digest)).await
    }

    /// Pulls everything below a tag of [`REGISTRY`], as clients of every platform would, and waits until it is stored.
    pub(crate) async fn pull_all(&self, repository: &str, tag: &str, package: &Package) {
        self.manifest(repository, tag).await.assert_is(package.digest());
        for part in package.closure() {
            self.pull_image(repository, part).await;
        }
        self.assert_invariants().await;
    }

    /// Pulls one manifest and its blobs, by digest.
    pub(crate) async fn pull_image(&self, repository: &str, image: &Package) {
        self.manifest(repository, image.digest()).await.assert_is(image.digest());
        for blob in &image.blobs {
            self.blob(repository, blob.digest()).await.assert_is(blob.digest());
        }
    }

    /// The sum of all series of a metric that carry these labels; 0 if there are none.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let text = self.send(self.client.get(self.admin_url("/metrics"))).await.text();
        sum_of_series(&text, name, labels)
    }

    /// Waits until a metric has reached `value`.
    pub(crate) async fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let what = format!("{name}{labels:?} is at least {value}");
        eventually(&what, async || self.metric(name, labels).await >= value).await;
    }

    /// Waits until a metric is `value`.
    pub(crate) async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let what = format!("{name}{labels:?} is {value}");
        eventually(&what, async || self.metric(name, labels).await == value).await;
    }

    /// Waits until no fill is under way.
    pub(crate) async fn idle(&self) {
        eventually("no download is in flight", async || self.metric("weir_downloads_in_flight", &[]).await == 0).await;
    }

    /// What must hold after every test, whatever was done to Weir: nothing is in flight, no file is left but those of
    /// half-filled spools, and every stored file hashes to its name.
    pub(crate) async fn assert_invariants(&self) {
        self.idle().await;
        eventually("tmp/ holds nothing but halves", async || strays(self.store_path()).is_empty()).await;
        assert_blobs_hash_to_their_names(self.store_path());
    }

    /// Waits until the store counts what is in its directory, no less and no more.
    pub(crate) async fn counts_what_is_there(&self) {
        let size = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
        let there = || {
            let halves = halves(self.store_path());
            let stored = ["blobs", "quarantine"].map(|part| files_below(&self.store_path().join(part)));
            stored.iter().flatten().chain(&halves).map(size).sum::<u64>()
        };
        let counted = async || self.metric("weir_store_bytes", &[]).await == there();
        eventually("the store counts what is there", counted).await;
    }

    /// Whether a blob or manifest has its final file.
    pub(crate) fn is_stored(&self, digest: &Digest) -> bool {
        stored_file(self.store_path(), digest).exists()
    }
}

impl Drop for TestWeir {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}

impl Answer {
    /// Reads `response` to its end.
    pub(crate) async fn read(mut response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let (mut size, mut start) = (0, Vec::new());
        let complete = loop {
            match within("the next bytes of an answer", response.chunk()).await {
                Ok(Some(chunk)) => {
                    size += chunk.len() as u64;
                    hasher.update(&chunk);
                    start.extend_from_slice(&chunk[..chunk.len().min(START - start.len())]);
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Self { status, headers, size, digest: hasher.finish(), start, complete }
    }

    /// The connection was broken before a head arrived: no status of Weir's, and not complete.
    fn without_head() -> Self {
        Self {
            status: StatusCode::from_u16(599).expect("a number in range"),
            headers: HeaderMap::new(),
            size: 0,
            digest: Digest::of(b""),
            start: Vec::new(),
            complete: false,
        }
    }

    /// A header as text; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers of answers are text"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.start.clone()).expect("the answer is text")
    }

    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::from(self.start.clone())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.start).unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }

    /// The code of the error document.
    pub(crate) fn error_code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The message of the error document.
    pub(crate) fn error_message(&self) -> String {
        self.json()["errors"][0]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts that this is all of the content of that address.
    #[track_caller]
    pub(crate) fn assert_is(&self, digest: &Digest) {
        assert_eq!(
            self.status,
            StatusCode::OK,
            "{}",
            String::from_utf8_lossy(&self.start[..self.start.len().min(500)])
        );
        assert!(self.complete, "the answer broke after {} bytes", self.size);
        assert_eq!(self.digest, *digest, "{} bytes arrived", self.size);
    }

    /// Asserts an error with this status and code.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        let text = String::from_utf8_lossy(&self.start[..self.start.len().min(500)]);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.header("content-type"), "application/json", "{text}");
        assert_eq!(self.error_code(), code, "{text}");
    }
}

pub(crate) fn manifest_path(repository: &str, reference: impl std::fmt::Display) -> String {
    format!("/v2/{REGISTRY}/{repository}/manifests/{reference}")
}

pub(crate) fn blob_path(repository: &str, digest: &Digest) -> String {
    format!("/v2/{REGISTRY}/{repository}/blobs/{digest}")
}

/// The configuration of a registry with these upstreams, in order, named `up-1`, `up-2`, ...
pub(crate) fn registry(upstreams: &[&ScriptedUpstream]) -> Value {
    let entries = upstreams
        .iter()
        .zip(1..)
        .map(|(upstream, number)| upstream_entry(upstream, json!({ "name": format!("up-{number}") })));
    json!({ "upstreams": entries.collect::<Vec<_>>() })
}

/// The configuration of one upstream, with `more` on top.
pub(crate) fn upstream_entry(upstream: &ScriptedUpstream, more: Value) -> Value {
    let mut entry = json!({
        "name": "up-1",
        "url": upstream.url(),
        "capabilities": ["pull", "resolve"],
        // Token servers and redirect targets of tests are on loopback as well.
        "allow_private": true,
    });
    merge(&mut entry, more);
    entry
}

/// A whole configuration: `more` on top of free ports, the store in `store`, and nothing built in.
pub(crate) fn config_for(store: &Path, more: Value) -> Value {
    let mut config = json!({
        "server": { "listen": "127.0.0.1:0", "default_registry": REGISTRY },
        "admin": { "listen": "127.0.0.1:0" },
        // What the machine of the tests has left is not what they are about.
        "store": { "path": store, "keep_free": 0 },
        "builtin_registries": false,
        "log": { "level": "warn" },
    });
    merge(&mut config, more);
    config
}

/// Merges as configuration files are: maps deep, everything else replaced.
pub(crate) fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

/// The path of a final file, spelled a second time on purpose: the layout is a promise to operators.
pub(crate) fn stored_file(store: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    store.join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
}

/// Every file below a directory; none if there is no such directory.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() { directories.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files
}

/// The half-filled spools of a store: each is a file with a record beside it.
pub(crate) fn halves(store: &Path) -> Vec<PathBuf> {
    let mut files = files_below(&store.join("tmp"));
    files.retain(|file| file.extension().is_some_and(|end| end == "part") && file.with_extension("json").exists());
    files
}

/// Files in `tmp/` that are not of half-filled spools.
pub(crate) fn strays(store: &Path) -> Vec<PathBuf> {
    let halves = halves(store);
    let mut files = files_below(&store.join("tmp"));
    files.retain(|file| !halves.contains(&file.with_extension("part")));
    files
}

/// Hashes every final file of a store; returns how many there are.
pub(crate) fn assert_blobs_hash_to_their_names(store: &Path) -> usize {
    let files = files_below(&store.join("blobs"));
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("names of blobs are text");
        let algorithm = file.ancestors().nth(2).and_then(Path::file_name).and_then(|name| name.to_str());
        let digest = format!("{}:{name}", algorithm.expect("blobs/<algorithm>/<two>/<hash>"));
        let digest: Digest = digest.parse().unwrap_or_else(|error| panic!("{} in blobs/: {error}", file.display()));
        assert_eq!(hash_file(file, digest.algorithm()), digest, "{} does not hash to its name", file.display());
    }
    files.len()
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Digest {
    use std::io::Read as _;

    let mut file = fs::File::open(path).expect("stored files can be read");
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("stored files can be read") {
            0 => return hasher.finish(),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Adds up the series of a metric in the Prometheus text format.
pub(crate) fn sum_of_series(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let is_meant = |series: &str| {
        let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
        series_name == name
            && labels.iter().all(|(label, value)| series_labels.contains(&format!("{label}=\"{value}\"")))
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| is_meant(series))
        .map(|(_, value)| value.parse::<u64>().expect("counters and gauges are whole numbers"))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_chosen_by_name_and_labels() {
        let text = "# HELP a x\na{registry=\"r\",kind=\"blob\"} 2\na{registry=\"r\",kind=\"tags\"} 3\nab 9\nb 4\n";
        assert_eq!(sum_of_series(text, "a", &[("registry", "r")]), 5);
        assert_eq!(sum_of_series(text, "a", &[("kind", "blob")]), 2);
        assert_eq!(sum_of_series(text, "b", &[]), 4);
        assert_eq!(sum_of_series(text, "c", &[]), 0);
    }
}
