//! The stream over loopback sockets, with everything that can go wrong between a body and it.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A connection that sends files, and its client's end.
async fn connection() -> (SendFileStream<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (SendFileStream::new(server), client)
}

fn file(content: &[u8]) -> (NamedTempFile, Arc<File>) {
    let named = NamedTempFile::new().unwrap();
    std::fs::write(&named, content).unwrap();
    let file = Arc::new(named.reopen().unwrap());
    (named, file)
}

/// Writes all of `slices` as hyper does: all that is left in one call, until nothing is.
async fn write_all(stream: &mut SendFileStream<TcpStream>, slices: &[Bytes]) -> io::Result<()> {
    let mut left = slices.to_vec();
    while !left.is_empty() {
        let vectors: Vec<_> = left.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut written = stream.write_vectored(&vectors).await?;
        while written > 0 {
            let taken = written.min(left[0].len());
            let _ = left[0].split_to(taken);
            written -= taken;
            if left[0].is_empty() {
                left.remove(0);
            }
        }
    }
    stream.flush().await
}

/// What the client receives until the server's end is closed.
async fn received(stream: SendFileStream<TcpStream>, mut client: TcpStream) -> Vec<u8> {
    drop(stream);
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    all
}

fn region(file: &Arc<File>, offset: u64, length: usize) -> Region {
    Region { file: Arc::clone(file), offset, length }
}

#[tokio::test]
async fn regions_arrive_in_the_place_of_their_placeholders() {
    let (mut stream, client) = connection().await;
    let (_named, numbers) = file(b"0123456789");
    let (_other, letters) = file(b"abcdefghij");
    let regions = stream.regions();
    let slices = [
        Bytes::from_static(b"head "),
        regions.announce(region(&numbers, 2, 3)),
        Bytes::from_static(b" between "),
        Bytes::from_static(b"and "),
        regions.announce(region(&letters, 9, 1)),
        regions.announce(region(&numbers, 0, 2)),
        Bytes::from_static(b" tail"),
    ];
    write_all(&mut stream, &slices).await.unwrap();
    assert_eq!(received(stream, client).await, b"head 234 between and j01 tail");
}

#[tokio::test]
async fn a_region_longer_than_the_socket_takes_arrives_whole() {
    let content: Vec<u8> = (0..=250).cycle().take(Region::LONGEST + 5).collect();
    let (_named, file) = file(&content);
    let (mut stream, mut client) = connection().await;
    let regions = stream.regions();
    let slice = regions.announce(region(&file, 0, content.len()));
    assert_eq!(slice.len(), Region::LONGEST, "cut to what is announced at once");
    let mut all = vec![0; slice.len()];
    let slices = [slice];
    let (written, read) = tokio::join!(write_all(&mut stream, &slices), client.read_exact(&mut all));
    written.unwrap();
    read.unwrap();
    assert!(all == content[..Region::LONGEST]);
    assert!(regions.is_empty());
}

#[tokio::test]
async fn a_file_that_was_cut_breaks_the_connection_behind_its_last_byte() {
    let (mut stream, client) = connection().await;
    let (_named, file) = file(b"0123");
    let slice = stream.regions().announce(region(&file, 0, 10));
    let error = write_all(&mut stream, &[slice]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(received(stream, client).await, b"0123");
}

#[tokio::test]
async fn a_placeholder_that_was_copied_reaches_nobody() {
    let (mut stream, client) = connection().await;
    let (_named, file) = file(b"0123456789");
    let slice = stream.regions().announce(region(&file, 0, 10));
    let copied = [b"head ".as_slice(), &slice].concat();
    assert!(stream.write(&copied).await.is_err());
    assert!(write_all(&mut stream, &[Bytes::from(copied)]).await.is_err());
    assert_eq!(received(stream, client).await, b"");
}

#[tokio::test]
async fn a_placeholder_that_was_copied_ahead_of_another_reaches_nobody() {
    let (mut stream, client) = connection().await;
    let (_named, file) = file(b"0123456789");
    let regions = stream.regions();
    let copied = Bytes::from(regions.announce(region(&file, 0, 5)).to_vec());
    let second = regions.announce(region(&file, 5, 5));
    let head = Bytes::from_static(b"head ");
    assert!(write_all(&mut stream, &[copied.clone(), second.clone()]).await.is_err());
    assert!(write_all(&mut stream, &[head, copied, second]).await.is_err());
    assert_eq!(received(stream, client).await, b"");
}

#[tokio::test]
async fn a_placeholder_that_was_lost_breaks_the_connection() {
    let (mut stream, client) = connection().await;
    let (_named, file) = file(b"0123456789");
    let regions = stream.regions();
    drop(regions.announce(region(&file, 0, 5)));
    let second = regions.announce(region(&file, 5, 5));
    assert!(write_all(&mut stream, &[second]).await.is_err());
    assert_eq!(received(stream, client).await, b"");
}

#[tokio::test]
async fn a_placeholder_that_was_cut_breaks_the_connection() {
    let (mut stream, client) = connection().await;
    let (_named, file) = file(b"0123456789");
    let slice = stream.regions().announce(region(&file, 0, 10));
    assert!(write_all(&mut stream, &[slice.slice(..7)]).await.is_err());
    assert!(write_all(&mut stream, &[slice.slice(3..)]).await.is_err());
    assert_eq!(received(stream, client).await, b"");
}

#[tokio::test]
async fn a_placeholder_of_another_connection_reaches_nobody() {
    let (mut stream, client) = connection().await;
    let (other, _) = connection().await;
    let (_named, file) = file(b"0123456789");
    let slice = other.regions().announce(region(&file, 0, 10));
    assert!(write_all(&mut stream, &[slice]).await.is_err());
    assert_eq!(received(stream, client).await, b"");
}

#[tokio::test]
async fn nothing_announced_means_nothing_special() {
    let (mut stream, client) = connection().await;
    let (_named, file) = file(b"0123456789");
    assert!(stream.regions().announce(region(&file, 3, 0)).is_empty());
    write_all(&mut stream, &[Bytes::from_static(b"plain "), Bytes::from_static(b"bytes")]).await.unwrap();
    stream.write_all(b" only").await.unwrap();
    assert_eq!(received(stream, client).await, b"plain bytes only");
}
