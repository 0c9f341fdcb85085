//! Requests as bytes, with what a right answer looks like.

use super::connection::Broken;
use super::head::Head;

/// The manifest types that an up-to-date client accepts.
const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json\r\n";

/// A request that can be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Box<[u8]>,
    /// The status of a right answer.
    pub(crate) status: u16,
    /// The `Content-Length` of a right answer.
    pub(crate) length: u64,
    /// Whether the answer has a body: not to `HEAD`.
    pub(crate) has_body: bool,
}

impl Request {
    /// `GET path`, answered with `length` bytes.
    pub(crate) fn get(path: &str, length: u64) -> Self {
        Self { bytes: head("GET", path, ACCEPT), status: 200, length, has_body: true }
    }

    /// `GET path` of a server that insists on its name.
    pub(crate) fn get_of(host: &str, path: &str, length: u64) -> Self {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes().into();
        Self { bytes, status: 200, length, has_body: true }
    }

    /// `HEAD path`, answered with the head of `length` bytes.
    pub(crate) fn head(path: &str, length: u64) -> Self {
        Self { bytes: head("HEAD", path, ACCEPT), status: 200, length, has_body: false }
    }

    /// `GET path` for `length` bytes from `first` on.
    pub(crate) fn range(path: &str, first: u64, length: u64) -> Self {
        let range = format!("Range: bytes={first}-{}\r\n", first + length - 1);
        Self { bytes: head("GET", path, &range), status: 206, length, has_body: true }
    }

    /// Whether this is the head of a right answer.
    pub(super) fn check(&self, head: &Head) -> Result<(), Broken> {
        if head.status != self.status {
            return Err(Broken::Status { wanted: self.status, got: head.status });
        }
        if head.length != Some(self.length) {
            return Err(Broken::Length { wanted: self.length, got: head.length });
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the body of a right answer.
    pub(crate) fn body(&self) -> u64 {
        if self.has_body { self.length } else { 0 }
    }
}

fn head(method: &str, path: &str, more: &str) -> Box<[u8]> {
    format!("{method} {path} HTTP/1.1\r\nHost: weir.test\r\nUser-Agent: side-by-side\r\n{more}\r\n").into_bytes().into()
}
