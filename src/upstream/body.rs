//! Bodies on their way from an upstream: read with patience for slowness, but none for silence.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use prometheus::IntCounter;
use tokio::time::timeout;

use super::error::{UpstreamError, Verdict};
use super::health::Pending;
use super::limit::Place;
use super::network::root_cause;
use super::part::Extent;

/// How long a blob may bring no byte. There is no limit on the whole: blobs are as large as they are.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a blob may be whose length nobody told. Longer ones than any image has; only an upstream that never ends
/// comes so far.
const LONGEST_UNANNOUNCED: u64 = 64 * 1024 * 1024 * 1024;

/// The pieces of a body, or why they ended, as a sentence.
type Pieces = BoxStream<'static, Result<Bytes, String>>;

/// The body of a blob, or of a part of it, on its way from an upstream.
pub struct BlobBody {
    upstream: Arc<str>,
    /// What the body must come to.
    extent: Extent,
    received: u64,
    /// `None` once the body has ended or failed.
    pieces: Option<Pieces>,
    /// How it failed, to be said again to whoever asks again.
    failure: Option<BrokenBody>,
    meter: IntCounter,
    /// Whoever wants to know how it ended.
    pending: Option<Pending>,
    /// Among the requests to the upstream; given back once the body has ended or failed.
    place: Option<Place>,
}

/// A body that ended before it was complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BrokenBody {
    /// Who sent it.
    pub upstream: Arc<str>,
    /// How it ended.
    pub cause: Break,
    /// What happened, in words fit for a client.
    pub message: String,
}

/// How a body ends that does not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The connection, or the stream within it, broke.
    Reset,
    /// It ended cleanly, and too early.
    Truncated,
    /// It brought no byte for half a minute.
    Stalled,
    /// It brings too little, while somebody else could be asked.
    Slow,
    /// It went on after its end.
    Overlong,
    /// It begins with other bytes than those that had come before it.
    Different,
}

impl BrokenBody {
    /// What it says about the upstream.
    fn judged(&self) -> UpstreamError {
        let verdict = if self.cause == Break::Overlong { Verdict::Broken } else { Verdict::Transient };
        UpstreamError::new(verdict, self.message.clone())
    }
}

impl Break {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Stalled => "stalled",
            Self::Slow => "slow",
            Self::Overlong => "overlong",
            Self::Different => "different",
        }
    }

    /// Whether bytes came that are not the blob's, as opposed to too few of them.
    pub const fn is_of_wrong_bytes(self) -> bool {
        matches!(self, Self::Overlong | Self::Different)
    }
}

impl BlobBody {
    /// A body that should come to `extent`.
    pub(super) fn new(upstream: Arc<str>, extent: Extent, pieces: Pieces, meter: IntCounter) -> Self {
        let (pending, place) = (None, None);
        Self { upstream, extent, received: 0, pieces: Some(pieces), failure: None, meter, pending, place }
    }

    /// The same, its end to be told to `pending`. A body that is dropped before its end says nothing.
    pub(super) fn watched_by(self, pending: Pending) -> Self {
        Self { pending: Some(pending), ..self }
    }

    /// The same body, holding `place` as long as it takes.
    pub(super) fn in_place(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Which upstream sends it.
    pub fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// The size of the whole blob in bytes, if the upstream told.
    pub fn size(&self) -> Option<u64> {
        self.extent.size
    }

    /// How many of its bytes lie before those that were asked for: an upstream that ignores ranges sends them all.
    pub fn overlap(&self) -> u64 {
        self.extent.skip
    }

    /// The next bytes, `None` at the end. Content codings are never undone. A silence of 30 s is an error; so is an end
    /// before the announced length, and a byte past it.
    ///
    /// Cancel safe. After an error every further call returns the same error, so a failure can never pass for an end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BrokenBody> {
        let Some(pieces) = &mut self.pieces else {
            return self.failure.clone().map_or(Ok(None), Err);
        };
        let next = timeout(STALL_TIMEOUT, pieces.next()).await;
        let result = match next {
            Err(_) => Err(self.broken(Break::Stalled, format!("Sent nothing for {} s", STALL_TIMEOUT.as_secs()))),
            Ok(Some(Err(cause))) => {
                Err(self.broken(Break::Reset, format!("Broke off after {} bytes: {cause}", self.received)))
            }
            Ok(Some(Ok(bytes))) => self.account(bytes).map(Some),
            Ok(None) => self.check_end(),
        };
        if !matches!(result, Ok(Some(_))) {
            (self.pieces, self.place) = (None, None);
            self.failure = result.as_ref().err().cloned();
            if let Some(pending) = self.pending.take() {
                pending.ended(&result.as_ref().map_err(BrokenBody::judged));
            }
        }
        result
    }

    /// Ends it: somebody else goes on because it is `broken`, and its upstream is judged by that.
    pub fn give_up(mut self, broken: &BrokenBody) {
        if let Some(pending) = self.pending.take() {
            pending.ended::<()>(&Err(broken.judged()));
        }
    }

    fn account(&mut self, bytes: Bytes) -> Result<Bytes, BrokenBody> {
        let count = bytes.len() as u64;
        self.meter.inc_by(count);
        self.received += count;
        let length = self.extent.length.unwrap_or(LONGEST_UNANNOUNCED);
        if self.received > length {
            return Err(self.broken(Break::Overlong, format!("Sent more than the {length} bytes of it")));
        }
        Ok(bytes)
    }

    fn check_end(&self) -> Result<Option<Bytes>, BrokenBody> {
        match self.extent.length {
            Some(length) if self.received < length => {
                Err(self.broken(Break::Truncated, format!("Ended after {} of {length} bytes", self.received)))
            }
            None if self.received < self.extent.skip => Err(self
                .broken(Break::Truncated, format!("Ended after {} bytes, before what was asked for", self.received))),
            _ => Ok(None),
        }
    }

    /// What to say of this body when it ends in this way.
    pub fn broken(&self, cause: Break, message: String) -> BrokenBody {
        BrokenBody { upstream: Arc::clone(&self.upstream), cause, message }
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody")
            .field("upstream", &self.upstream)
            .field("extent", &self.extent)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

fn transient(message: String) -> UpstreamError {
    UpstreamError::new(Verdict::Transient, message)
}

/// The pieces of the body of `response`.
pub(super) fn pieces(response: reqwest::Response) -> Pieces {
    response.bytes_stream().map(|piece| piece.map_err(|error| root_cause(&error))).boxed()
}

/// A whole body of at most `limit` bytes, each piece within `patience`.
pub(super) async fn read_document(
    mut pieces: Pieces,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, UpstreamError> {
    let mut body = BytesMut::new();
    loop {
        let next = timeout(patience, pieces.next()).await;
        let next = next.map_err(|_| transient(format!("Sent nothing for {} s", patience.as_secs())))?;
        let Some(piece) = next else { return Ok(body.freeze()) };
        let piece = piece.map_err(|cause| transient(format!("Broke off after {} bytes: {cause}", body.len())))?;
        if body.len() + piece.len() > limit {
            return Err(UpstreamError::broken(format!("Sent a document larger than {limit} bytes")));
        }
        body.extend_from_slice(&piece);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn meter() -> IntCounter {
        IntCounter::new("received", "received").unwrap()
    }

    fn body(announced: Option<u64>, expected: Option<u64>, pieces: Pieces) -> BlobBody {
        BlobBody::new("hub".into(), Extent::whole(announced, expected), pieces, meter())
    }

    fn of(pieces: &[&'static str]) -> Pieces {
        stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>()).boxed()
    }

    /// Everything up to the end or the failure.
    async fn drain(body: &mut BlobBody) -> (String, Result<(), Break>) {
        let mut text = String::new();
        loop {
            match body.chunk().await {
                Ok(Some(bytes)) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Ok(None) => return (text, Ok(())),
                Err(broken) => return (text, Err(broken.cause)),
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_the_announced_length_ends_well_and_is_metered() {
        let mut body = body(Some(4), Some(4), of(&["ab", "cd"]));
        assert_eq!(drain(&mut body).await, ("abcd".into(), Ok(())));
        assert_eq!(body.meter.get(), 4);
        assert_eq!(body.chunk().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_early_end_is_a_failure_and_stays_one() {
        for mut short in [body(Some(5), None, of(&["abcd"])), body(None, Some(5), of(&["abcd"]))] {
            assert_eq!(drain(&mut short).await, ("abcd".into(), Err(Break::Truncated)));
            assert_eq!(drain(&mut short).await, (String::new(), Err(Break::Truncated)));
        }
    }

    #[tokio::test]
    async fn more_than_was_expected_is_never_handed_out() {
        let mut long = body(None, Some(3), of(&["ab", "cd", "ef"]));
        assert_eq!(drain(&mut long).await, ("ab".into(), Err(Break::Overlong)));
        assert_eq!(drain(&mut long).await, (String::new(), Err(Break::Overlong)));
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_given_up() {
        let piece = Bytes::from(vec![0; 64 << 20]);
        let endless = stream::repeat_with(move || Ok(piece.clone())).boxed();
        let mut endless = body(None, None, endless);
        let failure = loop {
            match endless.chunk().await {
                Ok(bytes) => assert!(bytes.is_some()),
                Err(broken) => break broken.cause,
            }
        };
        assert_eq!((failure, endless.received), (Break::Overlong, LONGEST_UNANNOUNCED + (64 << 20)));
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_ends_where_it_ends() {
        let mut unknown = body(None, None, of(&["ab"]));
        assert_eq!(unknown.size(), None);
        assert_eq!(drain(&mut unknown).await, ("ab".into(), Ok(())));
    }

    #[tokio::test]
    async fn what_lies_before_the_part_is_handed_out_and_owned_up_to() {
        let extent = Extent { skip: 4, ..Extent::whole(Some(6), None) };
        let mut ignored = BlobBody::new("hub".into(), extent, of(&["ab", "c", "def"]), meter());
        assert_eq!(ignored.overlap(), 4);
        assert_eq!(drain(&mut ignored).await, ("abcdef".into(), Ok(())));
        let mut unknown = BlobBody::new("hub".into(), Extent { skip: 4, ..Extent::default() }, of(&["abc"]), meter());
        assert_eq!(drain(&mut unknown).await, ("abc".into(), Err(Break::Truncated)));
    }

    #[tokio::test]
    async fn a_broken_connection_is_told_from_an_early_end() {
        let pieces = stream::iter([Ok(Bytes::from_static(b"ab")), Err("reset".to_owned())]).boxed();
        assert_eq!(drain(&mut body(Some(4), None, pieces)).await, ("ab".into(), Err(Break::Reset)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_body_after_thirty_seconds_and_slowness_does_not() {
        let begun = tokio::time::Instant::now();
        let slow = stream::iter(0..10).then(|_| async {
            tokio::time::sleep(Duration::from_secs(29)).await;
            Ok(Bytes::from_static(b"x"))
        });
        let mut body = body(Some(11), None, slow.chain(stream::pending()).boxed());
        assert_eq!(drain(&mut body).await, ("x".repeat(10), Err(Break::Stalled)));
        assert_eq!(begun.elapsed().as_secs(), 29 * 10 + 30);
    }

    #[tokio::test]
    async fn a_document_is_cut_off_one_byte_past_its_limit() {
        let patience = Duration::from_secs(8);
        let document = |pieces| async { read_document(pieces, 4, patience).await };
        assert_eq!(document(of(&["ab", "cd"])).await.unwrap(), "abcd");
        assert_eq!(document(of(&["ab", "cde"])).await.unwrap_err().verdict, Verdict::Broken);
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(b"abc"))).boxed();
        assert_eq!(document(endless).await.unwrap_err().verdict, Verdict::Broken);
        let broken = stream::iter([Ok(Bytes::from_static(b"a")), Err("reset".to_owned())]).boxed();
        assert_eq!(document(broken).await.unwrap_err().verdict, Verdict::Transient);
    }
}
