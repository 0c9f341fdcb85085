//! One request and its answer.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::ops::Range;

use rustix::net::{SendFlags, send};

use super::counts::{Counters, Door};
use super::pace::{PORTION, Pace, Shape};
use crate::content::{Content, Entry, Kind, Library, generated};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
}

/// A request, as far as a registry of this kind cares.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    method: Method,
    path: &'a str,
    /// The first and, if given, the last byte asked for.
    range: Option<(u64, Option<u64>)>,
}

impl<'a> Question<'a> {
    /// The request whose head this is; `None` for anything but GET and HEAD.
    pub(super) fn parse(head: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ');
        let method = match words.next()? {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => return None,
        };
        // `?ns=` and the like.
        let path = words.next()?.split('?').next()?;
        let range = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("range"))
            .and_then(|(_, value)| range(value.trim()));
        Some(Self { method, path, range })
    }
}

fn range(value: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

/// Answers one request, and counts it.
pub(super) fn answer(
    stream: &TcpStream,
    door: Door,
    question: &Question<'_>,
    library: &Library,
    counters: &Counters,
    shape: Shape,
) -> io::Result<()> {
    let entry = library.entry(question.path);
    counters.request(door, entry.map(|entry| entry.kind), question.method);
    shape.before_head();
    let Some(entry) = entry else { return answer_without_entry(stream, question.path) };
    let part = match question.range {
        None => 0..entry.length,
        Some((first, last)) => first..last.map_or(entry.length, |last| (last + 1).min(entry.length)),
    };
    if part.is_empty() && entry.length > 0 {
        let head = format!("HTTP/1.1 416 \r\nContent-Range: bytes */{}\r\nContent-Length: 0\r\n\r\n", entry.length);
        return (&*stream).write_all(head.as_bytes());
    }
    let head = head(entry, question.range.map(|_| &part), part.end - part.start);
    if question.method == Method::Head {
        return (&*stream).write_all(head.as_bytes());
    }
    // In one segment with the start of the body.
    send_all(stream, head.as_bytes(), SendFlags::MORE)?;
    match &entry.content {
        Content::File(file) => send_file(stream, file, part, entry.kind, counters, shape),
        Content::Generated { seed } => {
            let bytes = generated(*seed, usize::try_from(entry.length).map_err(io::Error::other)?);
            let places = usize::try_from(part.start).map_err(io::Error::other)?
                ..usize::try_from(part.end).map_err(io::Error::other)?;
            counters.blob_bytes(part.end - part.start);
            send_all(stream, &bytes[places], SendFlags::empty())
        }
    }
}

fn answer_without_entry(mut stream: &TcpStream, path: &str) -> io::Result<()> {
    let head = match path {
        "/v2/" => "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 2\r\n\r\n{}",
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    };
    stream.write_all(head.as_bytes())
}

fn head(entry: &Entry, part: Option<&Range<u64>>, length: u64) -> String {
    let status = match part {
        None => "200 OK\r\n".to_owned(),
        Some(part) => {
            format!("206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n", part.start, part.end - 1, entry.length)
        }
    };
    let media_type = match entry.kind {
        Kind::Manifest => "application/vnd.oci.image.manifest.v1+json",
        Kind::Blob => "application/octet-stream",
    };
    format!(
        "HTTP/1.1 {status}Content-Type: {media_type}\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\n\
         Docker-Content-Digest: {digest}\r\nETag: \"{digest}\"\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n",
        digest = entry.digest,
    )
}

fn send_file(
    stream: &TcpStream,
    file: &File,
    part: Range<u64>,
    kind: Kind,
    counters: &Counters,
    shape: Shape,
) -> io::Result<()> {
    let pace = Pace::start(shape);
    let mut at = part.start;
    while at < part.end {
        let portion = usize::try_from((part.end - at).min(PORTION)).map_err(io::Error::other)?;
        let sent = rustix::fs::sendfile(stream, file, Some(&mut at), portion)?;
        if sent == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if kind == Kind::Blob {
            counters.blob_bytes(sent as u64);
        }
        pace.hold(at - part.start);
    }
    Ok(())
}

fn send_all(stream: &TcpStream, mut bytes: &[u8], flags: SendFlags) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = send(stream, bytes, flags | SendFlags::NOSIGNAL)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}
