//! Does this machine send files as it should? Asked once, at start, before any client is sent a file.
//!
//! A connection that sends files rests on what no signature promises: that hyper passes the slices of a body on
//! uncopied, that the file system of the store can be sent from, that nothing between forbids the call (a sandbox, an
//! emulated kernel). So an answer made of bytes and file regions goes over a loopback connection of the very kind that
//! clients get, and is compared byte for byte.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::api::access::Client;
use crate::app::connection::{self, Limits};
use crate::app::shutdown::Drain;
use crate::sendfile::{Region, SendFileStream};

/// A machine that takes longer for a megabyte has other troubles.
const PATIENCE: Duration = Duration::from_secs(5);
/// Several pages of memory, and little enough to leave no trace in that of the process.
const LENGTH: usize = 50_000;
/// Where the second region begins: not at the beginning of a page.
const SECOND: usize = 31_234;
const GREETING: &[u8] = b"bytes before, ";
const FAREWELL: &[u8] = b" and bytes behind";

/// Whether files in `directory` can be sent; the reason if not.
pub(super) async fn files_can_be_sent(directory: &Path) -> Result<(), String> {
    match timeout(PATIENCE, check(directory)).await {
        Ok(checked) => checked.map_err(|error| error.to_string()),
        Err(_) => Err(format!("No answer within {PATIENCE:?}")),
    }
}

async fn check(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!("self-check-{}", std::process::id()));
    let content = content();
    let written = content.clone();
    let file = tokio::task::spawn_blocking(move || write(&path, &written)).await.map_err(io::Error::other)??;
    judge(&receive(answer(Arc::new(file))).await?, &content)
}

/// Whether the answer ends with the right body, and begins with nothing but its head.
fn judge(received: &[u8], content: &[u8]) -> io::Result<()> {
    let expected = [GREETING, content, FAREWELL].concat();
    let head = received.len().checked_sub(expected.len()).map(|head| received.split_at(head));
    match head {
        Some((head, body)) if body == expected && head.ends_with(b"\r\n\r\n") => Ok(()),
        _ => Err(io::Error::other("What arrived is not what was sent")),
    }
}

/// Bytes that tell where they belong: a region sent from the wrong place is seen.
fn content() -> Vec<u8> {
    let numbers = (0..=LENGTH as u64 / 8).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    numbers.flat_map(u64::to_le_bytes).take(LENGTH).collect()
}

/// A file with this content and, already, without a name: nothing is left of it whatever happens.
fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let written = file.write_all(content);
    remove_file(path)?;
    written.map(|()| file)
}

/// An answer of bytes, the whole file in two regions, and bytes again; for any path.
fn answer(file: Arc<File>) -> Router {
    let body = async move |Extension(client): Extension<Arc<Client>>| {
        let regions = client.regions.clone().unwrap_or_default();
        let region = move |start: usize, end: usize| {
            let file = Arc::clone(&file);
            regions.announce(Region { file, offset: start as u64, length: end - start })
        };
        // One after the other, as the connection asks for them.
        Body::from_stream(stream::iter(0..4).map(move |step| {
            Ok::<_, io::Error>(match step {
                0 => Bytes::from_static(GREETING),
                1 => region(0, SECOND),
                2 => region(SECOND, LENGTH),
                _ => Bytes::from_static(FAREWELL),
            })
        }))
    };
    let length = GREETING.len() + LENGTH + FAREWELL.len();
    // With a length, or the body would be cut into chunks with heads of their own.
    Router::new().fallback(async move |client| ([(header::CONTENT_LENGTH, length)], body(client).await))
}

/// What a client gets from `answer` on a connection that sends files.
async fn receive(answer: Router) -> io::Result<Vec<u8>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, peer) = listener.accept().await?;
    server.set_nodelay(true)?;
    let stream = SendFileStream::new(server);
    let serve = connection::serve_sending_files(stream, peer, answer.into(), Limits::default(), Drain::default());
    let ask = async {
        client.write_all(b"GET / HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").await?;
        let mut received = Vec::with_capacity(LENGTH + 1024);
        client.read_to_end(&mut received).await?;
        Ok(received)
    };
    tokio::join!(serve, ask).1
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn files_can_be_sent_here_and_nothing_is_left_behind() {
        let directory = TempDir::new().unwrap();
        assert_eq!(files_can_be_sent(directory.path()).await, Ok(()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_a_reason() {
        let reason = files_can_be_sent(Path::new("/nowhere")).await.unwrap_err();
        assert!(reason.contains("No such file"), "{reason}");
    }

    /// What the check is there for: another file than the one whose bytes are expected.
    #[tokio::test]
    async fn bytes_from_the_wrong_place_are_seen() {
        let directory = TempDir::new().unwrap();
        let mut wrong = content();
        wrong.swap(40_000, 40_001);
        let file = write(&directory.path().join("file"), &wrong).unwrap();
        let received = receive(answer(Arc::new(file))).await.unwrap();
        assert!(judge(&received, &content()).is_err());
    }
}
