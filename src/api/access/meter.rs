//! A body that counts what is taken from it and tells the record how it ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::record::{End, Record};

/// The body of an answer on its way to the client. It changes nothing about it.
#[derive(Debug)]
pub(super) struct MeteredBody {
    inner: Body,
    record: Record,
    /// Bytes the client is to receive, if that is known.
    length: Option<u64>,
    ended: bool,
}

impl MeteredBody {
    /// Measures `inner`, of which the client is to receive `length` bytes: none where the protocol forbids a body.
    pub(super) const fn new(inner: Body, length: Option<u64>, record: Record) -> Self {
        Self { inner, record, length, ended: false }
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.record.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => {
                self.record.ended(End::Failed);
                self.ended = true;
            }
            None if !self.ended => {
                self.record.ended(End::Complete);
                self.ended = true;
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for MeteredBody {
    fn drop(&mut self) {
        // A connection that has all the bytes it announced does not ask whether there are more.
        let complete = self.inner.is_end_stream() || self.length == Some(self.record.bytes());
        if !self.ended && complete {
            self.record.ended(End::Complete);
        }
    }
}
