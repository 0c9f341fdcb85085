//! Breaks of HTTP/2: of one stream, of the connection under it, and ends that look like good ones.

use tempfile::TempDir;

use super::*;
use crate::support::certificates::Authority;
use crate::support::streams::{Ending, StreamingUpstream};
use crate::support::weir::upstream_entry;

/// Behind which byte a transfer ends: more than a stream may have on its way has arrived by then.
const AT: u64 = 6 * MIB;

/// The first upstream speaks HTTP/2; the second one, if there is one, HTTP/1.
struct Streams {
    first: StreamingUpstream,
    second: ScriptedUpstream,
    weir: TestWeir,
    blob: Blob,
    _directory: TempDir,
}

impl Streams {
    async fn of(count: usize, ending: Ending, seed: u64) -> Self {
        let (directory, authority, blob) = (tempfile::tempdir().unwrap(), Authority::new(), blob_of(SIZE, seed));
        let first = StreamingUpstream::start(&authority.for_server(), blob.clone(), ending, AT).await;
        let second = ScriptedUpstream::start().await;
        second.push_blob(REPOSITORY, &blob);
        let ca_file = authority.write(directory.path());
        let entries = [
            upstream_entry(&second, json!({ "url": first.url(), "ca_file": ca_file })),
            upstream_entry(&second, json!({ "name": "up-2" })),
        ];
        let registries = json!({ REGISTRY: { "upstreams": entries[..count] } });
        let weir = TestWeir::start(json!({ "registries": registries })).await;
        Self { first, second, weir, blob, _directory: directory }
    }

    async fn assert_pulled(&self) {
        self.weir.blob(REPOSITORY, self.blob.digest()).await.assert_is(self.blob.digest());
        self.weir.assert_invariants().await;
        assert!(self.weir.is_stored(self.blob.digest()));
    }

    async fn received(&self, upstream: &str) -> u64 {
        self.weir.metric("weir_received_bytes_total", &[("upstream", upstream)]).await
    }

    async fn resumes(&self, upstream: &str, reason: &str) -> u64 {
        let labels = [("upstream", upstream), ("reason", reason)];
        self.weir.metric("weir_upstream_resumes_total", &labels).await
    }
}

/// Each, with the word for what it is.
const ENDINGS: [(Ending, &str); 3] =
    [(Ending::Reset, "reset"), (Ending::GoAway, "reset"), (Ending::EndStream, "reset")];

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_gone_on_with_at_the_next_upstream() {
    for ((ending, reason), seed) in ENDINGS.into_iter().zip(300..) {
        let pull = Streams::of(2, ending, seed).await;
        pull.assert_pulled().await;
        let received = pull.received("up-1").await;
        assert!((1..=AT).contains(&received), "{ending:?}: {received}");
        assert_eq!(pull.received("up-2").await, SIZE - received, "{ending:?}");
        assert_eq!(pull.first.asked(), ["all"], "{ending:?}");
        let asked = pull.second.requests();
        let gets = asked.iter().filter(|request| request.method == Method::GET && request.path.contains("/blobs/"));
        assert_eq!(gets.map(|request| request.header(RANGE)).collect::<Vec<_>>(), [Some(from(received))], "{ending:?}");
        assert_eq!(pull.resumes("up-2", reason).await, 1, "{ending:?}");
        assert_eq!(pull.weir.metric("weir_digest_mismatches_total", &[]).await, 0, "{ending:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_gone_on_with_where_it_broke_if_nobody_else_is_there() {
    for ((ending, reason), seed) in ENDINGS.into_iter().zip(310..) {
        let pull = Streams::of(1, ending, seed).await;
        pull.assert_pulled().await;
        let [first, second] = &pull.first.asked()[..] else { panic!("{ending:?}: {:?}", pull.first.asked()) };
        let went_on: u64 = second.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        assert_eq!((first.as_str(), (1..=AT).contains(&went_on)), ("all", true), "{ending:?}: {went_on}");
        assert_eq!(pull.received("up-1").await, SIZE, "{ending:?}: each byte came once");
        assert_eq!(pull.resumes("up-1", reason).await, 1, "{ending:?}");
    }
}
