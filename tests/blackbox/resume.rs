//! Downloads that broke off for good, and what the next one makes of them. Bytes are counted at the upstream.
//!
//! The clock is paused and jumps when nothing moves: what is waited for between attempts to go on takes no time.

use std::fs;

use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::support::blob::{Blob, blob_of};
use crate::support::upstream::{Fault, Kind, Requests, ScriptedUpstream};
use crate::support::weir::{REGISTRY, TestWeir, blob_path, halves, registry};
use crate::support::{MIB, raw};

const REPOSITORY: &str = "library/demo";
const SIZE: u64 = 8 * MIB;
/// Where the first download breaks off.
const BROKEN_AT: u64 = 5 * MIB;
/// No `Range`: all of the blob is asked for.
const WHOLE: Option<String> = None;

/// A blob of which Weir has a half.
struct Interrupted {
    upstream: ScriptedUpstream,
    weir: TestWeir,
    blob: Blob,
    /// How many GETs it took to give up.
    before: usize,
}

impl Interrupted {
    /// The upstream breaks off at a byte that has reached the client by then.
    async fn at_five_mib(seed: u64, faults: &[Fault]) -> Self {
        let upstream = ScriptedUpstream::start().await;
        let weir = TestWeir::before(&upstream).await;
        let mut interrupted = Self { upstream, weir, blob: blob_of(SIZE, seed), before: 0 };
        interrupted.interrupt(faults).await;
        interrupted
    }

    async fn interrupt(&mut self, faults: &[Fault]) {
        let Self { upstream, weir, blob, before } = self;
        upstream.push_blob(REPOSITORY, blob);
        let first = Requests::blob(blob.digest()).get();
        let gate = upstream.hold(first.clone(), BROKEN_AT);
        upstream.faults(first, faults.iter().cloned().chain([Fault::CutAt(BROKEN_AT)]));
        let mut answer = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
        answer.read_exactly(BROKEN_AT).await;
        gate.open();
        assert!(answer.read_to_end().await.is_err());
        weir.assert_invariants().await;
        upstream.heal();
        assert_eq!(halves(weir.store_path()).len(), 1);
        assert_eq!(weir.metric("weir_store_bytes", &[]).await, BROKEN_AT, "it is counted");
        *before = upstream.blob_gets(blob.digest());
    }

    fn path(&self) -> String {
        blob_path(REPOSITORY, self.blob.digest())
    }

    /// Pulls the blob, which is then stored, and nothing else.
    async fn finish(&self) {
        self.weir.blob(REPOSITORY, self.blob.digest()).await.assert_is(self.blob.digest());
        self.weir.assert_invariants().await;
        assert!(self.weir.is_stored(self.blob.digest()));
        assert_eq!(halves(self.weir.store_path()).len(), 0);
        assert_eq!(self.weir.metric("weir_store_bytes", &[]).await, SIZE);
    }

    /// The `Range` of every GET since the interruption.
    fn asked(&self) -> Vec<Option<String>> {
        let requests = self.upstream.requests();
        let gets = requests.iter().filter(|request| request.method == http::Method::GET);
        let blobs = gets.filter(|request| request.path.contains("/blobs/"));
        blobs.map(|request| request.header(RANGE)).skip(self.before).collect()
    }

    async fn resumed_bytes(&self) -> u64 {
        self.weir.metric("weir_store_resumed_bytes_total", &[]).await
    }

    async fn blamed(&self) -> u64 {
        self.weir.metric("weir_digest_mismatches_total", &[("registry", REGISTRY)]).await
    }
}

/// What the second download asks for: the rest.
fn rest() -> String {
    format!("bytes={BROKEN_AT}-")
}

#[tokio::test(start_paused = true)]
async fn the_next_pull_goes_on_at_the_byte_where_the_last_one_broke_off() {
    let pull = Interrupted::at_five_mib(1, &[]).await;
    pull.finish().await;
    assert_eq!(pull.asked(), [Some(rest())]);
    assert_eq!(pull.upstream.bytes_sent(), SIZE, "no byte came twice");
    assert_eq!(pull.resumed_bytes().await, BROKEN_AT);
}

#[tokio::test(start_paused = true)]
async fn a_pull_goes_on_after_a_restart() {
    let pull = Interrupted::at_five_mib(2, &[]).await;
    let pull = Interrupted { weir: pull.weir.restart_with(json!({})).await, ..pull };
    assert_eq!(pull.weir.metric("weir_store_bytes", &[]).await, BROKEN_AT);
    pull.finish().await;
    assert_eq!(pull.asked(), [Some(rest())]);
    assert_eq!(pull.upstream.bytes_sent(), SIZE);
}

#[tokio::test(start_paused = true)]
async fn the_next_pull_goes_on_where_an_upstream_fell_silent() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let mut pull = Interrupted { upstream, weir, blob: blob_of(SIZE, 21), before: 0 };
    pull.upstream.push_blob(REPOSITORY, &pull.blob);
    let gets = Requests::blob(pull.blob.digest()).get();
    pull.upstream.hold(gets.clone().whole(), BROKEN_AT);
    pull.upstream.fault(gets.ranged(), Fault::CutAt(BROKEN_AT));
    let answer = pull.weir.blob(REPOSITORY, pull.blob.digest()).await;
    assert!(!answer.complete && answer.size <= BROKEN_AT, "{} bytes", answer.size);
    pull.upstream.heal();
    pull.before = pull.upstream.blob_gets(pull.blob.digest());
    pull.finish().await;
    assert_eq!(pull.asked(), [Some(rest())]);
    // Half a minute is long enough for a look at whether anybody is there, which is answered by `{}`.
    let looks = pull.upstream.count_of(&Requests::of_kind(Kind::Ping)) as u64;
    assert_eq!(pull.upstream.bytes_sent(), SIZE + 2 * looks);
}

#[tokio::test(start_paused = true)]
async fn a_blob_of_unknown_length_is_gone_on_with() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let mut pull = Interrupted { upstream, weir, blob: blob_of(SIZE, 3), before: 0 };
    pull.upstream.push_blob(REPOSITORY, &pull.blob);
    pull.upstream.faults(Requests::blob(pull.blob.digest()).get(), [Fault::Chunked, Fault::CutAt(BROKEN_AT)]);
    let answer = pull.weir.blob(REPOSITORY, pull.blob.digest()).await;
    assert!(!answer.complete && answer.size <= BROKEN_AT, "{} bytes", answer.size);
    pull.upstream.heal();
    pull.before = pull.upstream.blob_gets(pull.blob.digest());
    // What was on its way when the connection broke may not have arrived.
    let [half] = &halves(pull.weir.store_path())[..] else { panic!("nothing is left of it") };
    let kept = fs::metadata(half).unwrap().len();
    assert!((MIB..=BROKEN_AT).contains(&kept), "{kept}");
    pull.finish().await;
    assert_eq!(pull.asked(), [Some(format!("bytes={kept}-"))]);
    assert_eq!(pull.weir.metric("weir_received_bytes_total", &[]).await, SIZE, "no byte came twice");
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_share_what_was_left_and_what_comes() {
    let pull = Interrupted::at_five_mib(4, &[]).await;
    let gate = pull.upstream.hold(Requests::blob(pull.blob.digest()).get(), BROKEN_AT + MIB);
    // What was left can be read before anything new has come, from wherever a client wants it.
    let mut first = raw::get(pull.weir.address(), &pull.path()).await;
    assert_eq!(first.read_exactly(BROKEN_AT).await, pull.blob.bytes_of(0..BROKEN_AT));
    let middle = raw::get_from(pull.weir.address(), &pull.path(), BROKEN_AT - 1).await;
    let others = futures_util::future::join_all((0..8).map(|_| pull.weir.blob(REPOSITORY, pull.blob.digest())));
    let opened = async {
        gate.reached().await;
        gate.open();
    };
    let (others, ()) = futures_util::future::join(others, opened).await;
    for answer in others {
        answer.assert_is(pull.blob.digest());
    }
    assert_eq!(first.read_to_end().await, Ok((SIZE - BROKEN_AT, pull.blob.digest_of(BROKEN_AT..SIZE))));
    assert_eq!(middle.read_to_end().await, Ok((SIZE - BROKEN_AT + 1, pull.blob.digest_of(BROKEN_AT - 1..SIZE))));
    assert_eq!(pull.asked(), [Some(rest())]);
    assert_eq!(pull.upstream.bytes_sent(), SIZE);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_ignores_ranges_never_doubles_a_blob() {
    for faults in [vec![Fault::IgnoreRange], vec![Fault::IgnoreRange, Fault::Chunked]] {
        let pull = Interrupted::at_five_mib(5, &[]).await;
        pull.upstream.faults(Requests::all(), faults);
        pull.finish().await;
        assert_eq!(pull.asked(), [Some(rest())]);
        assert_eq!(pull.upstream.bytes_sent(), BROKEN_AT + SIZE, "it counts off what is there");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_sends_no_right_part_is_asked_for_the_whole() {
    let content_range = |value: &'static str| Fault::Header(CONTENT_RANGE, HeaderValue::from_static(value));
    for fault in [
        content_range("bytes 0-8388607/8388608"),
        content_range("bytes 5242881-8388607/8388608"),
        content_range("bytes 5242880-8388608/8388609"),
        Fault::WithoutHeader(CONTENT_RANGE),
        Fault::Status(StatusCode::RANGE_NOT_SATISFIABLE),
    ] {
        let pull = Interrupted::at_five_mib(6, &[]).await;
        pull.upstream.fault(Requests::blob(pull.blob.digest()).get().once(), fault.clone());
        pull.finish().await;
        assert_eq!(pull.asked(), [Some(rest()), WHOLE], "{fault:?}");
        assert_eq!((pull.resumed_bytes().await, pull.blamed().await), (0, 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_may_come_from_another_upstream() {
    let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
    let weir = TestWeir::start(json!({ "registries": { REGISTRY: registry(&[&first, &second]) } })).await;
    let mut pull = Interrupted { upstream: first, weir, blob: blob_of(SIZE, 7), before: 0 };
    pull.interrupt(&[]).await;
    let before = second.bytes_sent();
    second.push_blob(REPOSITORY, &pull.blob);
    let wrong = HeaderValue::from_static("bytes 0-8388607/8388608");
    pull.upstream.fault(Requests::blob(pull.blob.digest()).get(), Fault::Header(CONTENT_RANGE, wrong));
    pull.finish().await;
    assert_eq!(second.bytes_sent() - before, SIZE - BROKEN_AT);
    let passed_over = [("from", "up-1"), ("reason", "range")];
    assert_eq!(pull.weir.metric("weir_upstream_failovers_total", &passed_over).await, 1);
}

/// What was kept is wrong: readers have bytes of it, so their answers are broken off. Nobody can tell whose fault it
/// is, so nobody is blamed, and all of it is fetched from one upstream alone, for those who come next.
async fn assert_wrong_half_is_dropped(pull: &Interrupted) {
    let answer = pull.weir.blob(REPOSITORY, pull.blob.digest()).await;
    assert!(!answer.complete, "{} bytes", answer.size);
    pull.weir.assert_invariants().await;
    assert_eq!((pull.blamed().await, pull.resumed_bytes().await), (0, 0));
    assert_eq!(pull.asked(), [Some(rest()), WHOLE], "from the first byte");
    pull.finish().await;
    assert_eq!(pull.asked().len(), 2, "it is stored");
}

#[tokio::test(start_paused = true)]
async fn a_half_that_rotted_never_becomes_a_complete_answer() {
    for (seed, at) in [(10, 0), (11, BROKEN_AT / 2), (12, BROKEN_AT - 1)] {
        let pull = Interrupted::at_five_mib(seed, &[]).await;
        let half = &halves(pull.weir.store_path())[0];
        let mut bytes = fs::read(half).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 1;
        fs::write(half, bytes).unwrap();
        assert_wrong_half_is_dropped(&pull).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_of_wrong_bytes_never_becomes_a_complete_answer() {
    let pull = Interrupted::at_five_mib(13, &[Fault::Flip(1000)]).await;
    assert_wrong_half_is_dropped(&pull).await;
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_behind_a_half_never_become_a_complete_answer() {
    let pull = Interrupted::at_five_mib(14, &[]).await;
    pull.upstream.fault(Requests::blob(pull.blob.digest()).get().once(), Fault::Flip(BROKEN_AT + 1000));
    assert_wrong_half_is_dropped(&pull).await;
}

#[tokio::test(start_paused = true)]
async fn what_came_to_an_end_and_was_wrong_is_not_kept() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    for (seed, faults) in [(15, vec![Fault::Flip(1000)]), (16, vec![Fault::Append(1), Fault::Chunked])] {
        let blob = blob_of(SIZE, seed);
        upstream.push_blob(REPOSITORY, &blob);
        upstream.faults(Requests::blob(blob.digest()).get().once(), faults.clone());
        assert!(!weir.blob(REPOSITORY, blob.digest()).await.complete, "{faults:?}");
        weir.assert_invariants().await;
        assert_eq!(halves(weir.store_path()).len(), 0, "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_is_kept_while_no_upstream_can_go_on_with_it() {
    let pull = Interrupted::at_five_mib(18, &[]).await;
    pull.upstream.fault(Requests::blob(pull.blob.digest()).get(), Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    pull.weir.blob(REPOSITORY, pull.blob.digest()).await.assert_error(503, "UNAVAILABLE");
    pull.weir.assert_invariants().await;
    pull.upstream.heal();
    pull.finish().await;
    assert_eq!(pull.asked(), [Some(rest()), Some(rest())]);
    assert_eq!(pull.resumed_bytes().await, BROKEN_AT);
}

/// The process died between the last byte and the name.
#[tokio::test(start_paused = true)]
async fn a_half_that_is_whole_needs_no_upstream_for_its_bytes() {
    let pull = Interrupted::at_five_mib(19, &[]).await;
    let mut weir = pull.weir;
    weir.drain().await;
    fs::write(&halves(weir.store_path())[0], pull.blob.bytes()).unwrap();
    let pull = Interrupted { weir: weir.restart_with(json!({})).await, ..pull };
    let answer = pull.weir.blob(REPOSITORY, pull.blob.digest()).await;
    assert_eq!(answer.header("cache-status"), "weir; hit");
    answer.assert_is(pull.blob.digest());
    pull.finish().await;
    assert_eq!(pull.asked(), [] as [Option<String>; 0]);
    assert_eq!(pull.resumed_bytes().await, SIZE);
}

#[tokio::test(start_paused = true)]
async fn a_small_blob_is_fetched_anew() {
    let upstream = ScriptedUpstream::start().await;
    let weir = TestWeir::before(&upstream).await;
    let blob = blob_of(MIB, 20);
    upstream.push_blob(REPOSITORY, &blob);
    upstream.fault(Requests::blob(blob.digest()).get(), Fault::CutAt(MIB - 1));
    assert!(!weir.blob(REPOSITORY, blob.digest()).await.complete);
    weir.assert_invariants().await;
    upstream.heal();
    assert_eq!(halves(weir.store_path()).len(), 0);
    weir.blob(REPOSITORY, blob.digest()).await.assert_is(blob.digest());
}
