//! An HTTP/1.1 client that does what libraries do not offer: read slowly, stop reading, hang up at a byte.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use weir::oci::{Algorithm, Digest, Hasher};

use super::within;

/// An answer whose head has been read, and whose body is read as the test pleases. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    stream: BufReader<TcpStream>,
    /// Bytes of the body still to come, where `Content-Length` tells.
    left: Option<u64>,
}

/// Sends `GET target` and reads the answer's head.
pub(crate) async fn get(address: SocketAddr, target: &str) -> RawAnswer {
    send(address, &format!("GET {target} HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\n")).await
}

/// Sends `GET target` for the bytes from `first` on.
pub(crate) async fn get_from(address: SocketAddr, target: &str, first: u64) -> RawAnswer {
    let range = format!("Range: bytes={first}-\r\n");
    send(address, &format!("GET {target} HTTP/1.1\r\nHost: weir.test\r\n{range}Connection: close\r\n\r\n")).await
}

/// Sends `request` as it is and reads the answer's head.
pub(crate) async fn send(address: SocketAddr, request: &str) -> RawAnswer {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.expect("the request can be sent");
    within("the head of an answer", read_head(BufReader::with_capacity(4096, stream))).await
}

/// A connection with a small receive buffer, so that a reader that stops is soon felt by the sender.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("SO_RCVBUF");
    within("a connection", socket.connect(address)).await.expect("the server accepts")
}

async fn read_head(mut stream: BufReader<TcpStream>) -> RawAnswer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head of an answer ends with an empty line"));
    }
    let head = String::from_utf8(head).expect("heads are ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().expect("a header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
    }
    let left = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.parse().expect("Content-Length is a number"));
    RawAnswer { status: status.parse().expect("a status"), headers, stream, left }
}

impl RawAnswer {
    /// Reads exactly `count` further bytes of the body.
    pub(crate) async fn read_exactly(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(count).expect("reads fit in memory")];
        within("the next bytes of a body", self.stream.read_exact(&mut bytes)).await.expect("the body goes on");
        self.left = self.left.map(|left| left - count);
        bytes
    }

    /// Sends another request on the same connection and reads the answer's head. The body has to have been read.
    pub(crate) async fn then(mut self, request: &str) -> Self {
        assert_eq!(self.left, Some(0), "the next answer begins where this one ends");
        self.stream.write_all(request.as_bytes()).await.expect("the connection takes another request");
        within("the head of the next answer", read_head(self.stream)).await
    }

    /// Reads to the end. `Ok` is the number of further bytes and their digest; `Err` says how the body broke.
    pub(crate) async fn read_to_end(mut self) -> Result<(u64, Digest), String> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 64 << 10];
        let mut count = 0;
        while self.left.is_none_or(|left| count < left) {
            match within("the next bytes of a body", self.stream.read(&mut buffer)).await {
                Ok(0) => break,
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    count += read as u64;
                }
                Err(error) => return Err(format!("after {count} bytes: {error}")),
            }
        }
        match self.left {
            Some(left) if count < left => Err(format!("ended {} bytes early", left - count)),
            _ => Ok((count, hasher.finish())),
        }
    }
}
