//! A connection that can send files: regions of files go from the page cache to the socket, and are never copied into
//! this process.
//!
//! hyper knows no body that is a file. But its HTTP/1 writer hands the very slices that a body yields to the vectored
//! write of the connection's stream, uncopied and in order. So a body does not read the file: for each [`Region`] it
//! yields a slice of one static placeholder page as long as the region, and pushes the region into the connection's
//! [`Regions`]. The stream below, [`SendFileStream`], recognises the slice by its address, and sends the region in its
//! place by `sendfile`.
//!
//! The one invariant: no byte of the placeholder reaches a client. Every region is announced by a place on the page of
//! its own, and the stream breaks the connection when slice and region do not match, when a region was announced and
//! no slice of it is written, and when a file ends before its region.
//!
//! The room knows sockets and files, neither blobs nor HTTP; who may use it (plain HTTP/1, never HTTP/2 or TLS) is
//! decided by whoever makes the connection.
//!
//! Reading order: `region` names what is sent, `page` is the placeholder, `stream` sends.

mod page;
mod region;
mod stream;
#[cfg(test)]
mod tests;

pub use region::{Region, Regions};
pub use stream::{FileSink, SendFileStream};
