//! The body of a scripted answer: content, a piece at a time, with its faults at the right bytes.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::Frame;

use super::script::{Fault, Gate};
use crate::support::blob::Blob;

/// A body to send: positions are those of the content, also in the answer to a range.
pub(super) struct Body {
    content: Blob,
    at: u64,
    end: u64,
    cut: Option<u64>,
    holds: Vec<(u64, Gate)>,
    crawl: Option<(u64, u64)>,
    flips: Vec<u64>,
    append: u64,
    sent: Arc<AtomicU64>,
}

impl Body {
    pub(super) fn new(content: Blob, range: Range<u64>, faults: &[Fault], sent: Arc<AtomicU64>) -> Self {
        let mut body = Self {
            content,
            at: range.start,
            end: range.end,
            cut: None,
            holds: Vec::new(),
            crawl: None,
            flips: Vec::new(),
            append: 0,
            sent,
        };
        for fault in faults {
            match fault {
                Fault::CutAt(at) => body.cut = Some(*at),
                Fault::CrawlFrom(at, bytes) => body.crawl = Some((*at, *bytes)),
                Fault::EndAt(at) => body.end = body.end.min(*at).max(body.at),
                Fault::Append(count) => body.append += count,
                Fault::HoldAt(at, gate) => body.holds.push((*at, gate.clone())),
                Fault::Flip(at) => body.flips.push(*at),
                _ => {}
            }
        }
        body
    }

    /// How many bytes will be sent if nothing breaks.
    pub(super) fn length(&self) -> u64 {
        self.end - self.at + self.append
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
        futures_util::stream::unfold(self, async |mut body| {
            let piece = body.next().await?;
            Some((piece.map(Frame::data), body))
        })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while let Some(due) = self.holds.iter().position(|(at, _)| *at <= self.at) {
            let (_, gate) = self.holds.swap_remove(due);
            gate.pass().await;
        }
        if self.cut.is_some_and(|cut| cut <= self.at) {
            // Being pending once lets the server write out what it has, so that the break comes after it.
            tokio::task::yield_now().await;
            return Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        if self.crawl.is_some_and(|(from, _)| from <= self.at) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let piece = if self.at < self.end {
            self.content_piece()
        } else {
            let extra = Bytes::from_static(&[b'+'; 4096]);
            let piece = extra.slice(..usize::try_from(self.append.min(4096)).expect("at most 4096"));
            self.append -= piece.len() as u64;
            piece
        };
        if piece.is_empty() {
            return None;
        }
        let length = piece.len() as u64;
        self.sent.fetch_add(length, Ordering::Relaxed);
        Some(Ok(piece))
    }

    /// The next bytes of the content, up to the next place where something happens.
    fn content_piece(&mut self) -> Bytes {
        let crawl = self.crawl.map(|(from, bytes)| if self.at < from { from } else { self.at + bytes });
        let stops = self.holds.iter().map(|(at, _)| *at).chain(crawl).chain(self.cut).chain([self.end]);
        let stop = stops.filter(|stop| *stop > self.at).min().unwrap_or(self.end);
        let piece = self.content.piece(self.at, stop - self.at);
        let start = self.at;
        self.at += piece.len() as u64;
        let flips = self.flips.iter().filter(|at| (start..self.at).contains(at)).map(|at| at - start);
        let flips: Vec<u64> = flips.collect();
        if flips.is_empty() {
            return piece;
        }
        let mut wrong = BytesMut::from(&piece[..]);
        for at in flips {
            wrong[usize::try_from(at).expect("within a piece")] ^= 0xff;
        }
        wrong.freeze()
    }
}
